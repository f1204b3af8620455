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
    let process = ProcessPlan { args: command::checked(command)?, tty: false, ..plan.process.clone() };
    Ok(ExecPlan { id, container: plan.id, process, cgroup: cgroup::exec(&plan.cgroup, id), oci_process: None })
}

/// The same on a terminal.
///
/// # Errors
/// As [`exec_plan`].
pub fn exec_plan_with_terminal(plan: &ContainerPlan, id: ExecId, command: Vec<String>) -> Result<ExecPlan, Error> {
    let mut exec = exec_plan(plan, id, command)?;
    exec.process.tty = true;
    exec.process.env = env::with_terminal(&exec.process.env);
    Ok(exec)
}
