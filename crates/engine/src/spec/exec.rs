//! The plan of a process beside the main one: everything but its command is the container's own (R10).

use std::os::fd::BorrowedFd;

use model::{
    ExecId,
    container::{ContainerSpec, EnvVar, ResolvedUser, UserSpec},
    plan::{Capabilities, ContainerPlan, ExecPlan, ProcessPlan},
};

use super::{caps, cgroup, command, env, error::Error, user};

/// How a command is run, where it is not as the container's main process.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExecWishes {
    /// Who runs it.
    pub(crate) user: Option<ResolvedUser>,
    /// Absolute; empty: the container's.
    pub(crate) working_dir: String,
    /// On top of the container's.
    pub(crate) env: Vec<EnvVar>,
    /// With all capabilities that there are.
    pub(crate) all_capabilities: bool,
}

/// Who `text` (`USER[:GROUP]`) is in a container that runs; its further groups stay.
///
/// # Errors
/// Nobody.
pub(crate) fn exec_user(spec: &ContainerSpec, text: &str, root: BorrowedFd<'_>) -> Result<ResolvedUser, Error> {
    let mut spec = spec.clone();
    (spec.security.user, spec.security.group) = (UserSpec::Image, None);
    if let Some(own) = &mut spec.own {
        own.user.clear();
    }
    user::resolve(&spec, text, root)
}

/// The plan of a command with wishes; `terminal`: it gets one.
///
/// # Errors
/// As [`exec_plan`]; variables that cannot be; a working directory that is not absolute.
pub(crate) fn exec_plan_with(
    plan: &ContainerPlan,
    id: ExecId,
    (command, terminal): (Vec<String>, bool),
    wishes: ExecWishes,
) -> Result<ExecPlan, Error> {
    let mut process = ProcessPlan { args: command::checked(command)?, tty: terminal, ..plan.process.clone() };
    if terminal {
        process.env = env::with_terminal(&process.env);
    }
    if let Some(user) = wishes.user {
        let home = EnvVar { name: "HOME".to_owned(), value: user.home.into_bytes().into() };
        process.env = env::adjusted(&process.env, &[], &[home])?;
        (process.uid, process.gid, process.groups) = (user.uid, user.gid, user.groups);
    }
    process.env = env::adjusted(&process.env, &[], &wishes.env)?;
    if !wishes.working_dir.is_empty() {
        if !wishes.working_dir.starts_with('/') || wishes.working_dir.contains('\0') {
            return Err(Error::WorkingDir { path: wishes.working_dir, why: "is not absolute" });
        }
        process.cwd = wishes.working_dir;
    }
    if wishes.all_capabilities {
        let all = caps::available()?;
        process.capabilities = Capabilities { bounding: all, permitted: all, ambient: 0 };
    }
    of(plan, id, process)
}

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
