//! The plan of a process beside the main one: everything but its command is the container's own (R10).

use model::{
    ExecId,
    plan::{ContainerPlan, ExecPlan, ProcessPlan},
};

use super::{cgroup, command, env, error::Error};

/// A command without a terminal: user, groups, capabilities, seccomp, environment, limits and working directory are
/// those that the container's main process was given, whatever it made of them since.
///
/// # Errors
/// A command that execve(2) would not take.
pub fn exec_plan(plan: &ContainerPlan, id: ExecId, command: Vec<String>) -> Result<ExecPlan, Error> {
    of(plan, id, ProcessPlan { args: command::checked(command)?, tty: false, ..plan.process.clone() })
}

fn of(plan: &ContainerPlan, id: ExecId, process: ProcessPlan) -> Result<ExecPlan, Error> {
    let oci_process = plan.oci.as_ref().map(|_| crate::oci::process(&process)).transpose()?;
    let oci_process = oci_process.map(|json| json.to_string().into_bytes().into());
    Ok(ExecPlan { id, container: plan.id, process, cgroup: cgroup::exec(&plan.cgroup, id), oci_process })
}

/// The same on a terminal.
///
/// # Errors
/// As [`exec_plan`].
pub fn exec_plan_with_terminal(plan: &ContainerPlan, id: ExecId, command: Vec<String>) -> Result<ExecPlan, Error> {
    let env = env::with_terminal(&plan.process.env);
    of(plan, id, ProcessPlan { args: command::checked(command)?, tty: true, env, ..plan.process.clone() })
}
