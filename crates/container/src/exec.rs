//! A further process in a running container.

use std::os::fd::BorrowedFd;

use model::plan::ExecPlan;
use sys::{
    Errno,
    cgroup::{Join, Track},
    ns::{self, Kinds, New},
    process::{self, Fork},
};

use crate::{
    Error, PodEnv, Stdio,
    create::{Created, Heard, Running, fork_into},
    cwd,
    error::{At, Step, refuse},
    identity, init,
    program::Program,
    report::{self, Reporter},
    terminal::Terminal,
};

/// Runs a process in all namespaces of a container, given by the pidfd of its first process. Comes back when the program
/// runs; on an error nothing is left of it.
///
/// # Errors
/// [`Error::Program`]: it cannot be run. Else the step that failed.
pub fn exec(env: &PodEnv, target: BorrowedFd<'_>, plan: &ExecPlan, stdio: Stdio) -> Result<Running, Error> {
    let track = Track::at(&env.hierarchies, &plan.cgroup).map_err(Error::host("cgroup of exec"))?;
    let join = track.open_join().map_err(Error::host("open cgroup of exec"))?;
    let (listener, reporter) = report::pair()?;
    let process = match fork_into(env, target, New::empty())? {
        Fork::Child => run(env, target, plan, Material { stdio, join }, reporter),
        Fork::Parent(process) => process,
    };
    drop((stdio, join, reporter));
    let mut created = Created::new(process, listener);
    match created.listen() {
        Ok(Heard::Ready) => {}
        Ok(Heard::Closed) => return Err(Error::Died { exit: created.kill() }),
        Err(error) => {
            created.kill();
            return Err(error);
        }
    }
    created.run()
}

/// What the child needs beside the plan.
struct Material {
    stdio: Stdio,
    join: Join,
}

fn run(env: &PodEnv, target: BorrowedFd<'_>, plan: &ExecPlan, material: Material, reporter: Reporter) -> ! {
    match prepare(env, target, plan, material, &reporter) {
        Ok(program) => {
            let Ok(reporter) = reporter.alone() else { process::exit_now(128) };
            reporter.ready();
            init::launch(&program, &plan.process, &reporter)
        }
        Err(failure) => init::give_up(&reporter, &failure),
    }
}

fn prepare(env: &PodEnv, target: BorrowedFd<'_>, plan: &ExecPlan, material: Material, reporter: &Reporter) -> Step<Program> {
    process::reset_signals();
    let program = Program::new(&plan.process)?;
    identity::set_oom_score(&plan.process, &env.proc, reporter)?;
    identity::set_labels(&plan.process, &env.proc)?;
    rustix::process::setsid().at(|| "setsid".to_owned())?;
    material.join.join().at(|| format!("join cgroup {:?}", plan.cgroup))?;
    if let Stdio::Io(io) = &material.stdio {
        io.give_to(env.host_uid(plan.process.uid)?)?;
    }
    // Network, IPC and UTS namespaces are the pod's and so the supervisor's own.
    let mut kinds = Kinds::MOUNT | Kinds::CONTROL_GROUP;
    kinds.set(Kinds::USER, env.userns.is_some());
    match ns::enter(target, kinds) {
        Err(Errno::SRCH) => return refuse("enter container", "it is not running"),
        other => other.at(|| "enter container: setns".to_owned())?,
    }
    if env.userns.is_some() {
        sys::userns::become_root().at(|| "become root of the user namespace".to_owned())?;
    }
    cwd::enter(&plan.process.cwd)?;
    match (plan.process.tty, material.stdio) {
        (true, Stdio::Terminal) => Terminal::in_own_root(plan.process.uid)?.install(reporter)?,
        (false, Stdio::Io(io)) => io.install()?,
        (true, Stdio::Io(_)) | (false, Stdio::Terminal) => return refuse("stdio", "terminal or not: plan and caller differ"),
    }
    identity::assume(&plan.process, reporter)?;
    Ok(program)
}
