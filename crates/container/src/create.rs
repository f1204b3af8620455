//! Making a container up to its start, and starting it: the supervisor's side.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use model::{
    plan::{ContainerPlan, MountKind},
    pod::PidMode,
};
use sys::{
    cgroup::Group,
    ns::{self, Kinds, New},
    process::{self, Exit, Fork, Pid, Process},
};

use crate::{
    Error, PodEnv, StartError, Stdio,
    error::Failure,
    init::{self, Material},
    report::{self, Listener, Message},
};

/// From fork to ready, and from start to execve. Sources on a dead NFS server are the slowest thing there is.
const LIMIT: Duration = Duration::from_secs(60);
/// For collecting a process that has been killed or has said goodbye.
const REAP_LIMIT: Duration = Duration::from_secs(10);

/// What a container is made of beside its plan.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Its root filesystem: a mount that is attached nowhere.
    pub rootfs: OwnedFd,
    /// The mounts of the plan's `MountKind::Detached`.
    pub mounts: Vec<OwnedFd>,
    /// Where it reads and writes.
    pub stdio: Stdio,
    /// pidfd of the container whose PID namespace it joins, for [`PidMode::Target`].
    pub target: Option<BorrowedFd<'a>>,
}

/// A container that is ready to start. Dropped without that, it ends by itself.
#[derive(Debug)]
pub struct Created {
    process: Process,
    listener: Listener,
    /// Master of its terminal, if it has one.
    pub console: Option<OwnedFd>,
    /// What was asked for and is not so.
    pub warnings: Vec<String>,
}

/// Makes a container. On an error nothing is left of it.
///
/// # Errors
/// The step that failed, in the supervisor or in the new process.
pub fn create(env: &PodEnv, plan: &ContainerPlan, parts: Parts<'_>) -> Result<Created, Error> {
    let group = Group::new(&env.hierarchies, &plan.cgroup).map_err(Error::host("container's cgroup"))?;
    let join = group.open_join().map_err(Error::host("open container's cgroup"))?;
    let wants_shm = plan.mounts.iter().any(|mount| matches!(mount.kind, MountKind::Shm));
    let shm = if wants_shm { Some(env.shm()?) } else { None };
    let material = Material { rootfs: parts.rootfs, mounts: parts.mounts, stdio: parts.stdio, shm, join };
    let (listener, reporter) = report::pair()?;
    let process = match fork(env, plan.pid, parts.target)? {
        Fork::Child => init::run(env, plan, material, reporter),
        Fork::Parent(process) => process,
    };
    drop((material, reporter));
    let mut created = Created { process, listener, console: None, warnings: Vec::new() };
    match created.listen() {
        Ok(Heard::Ready) => Ok(created),
        Ok(Heard::Closed) => Err(Error::Died { exit: created.kill() }),
        Err(error) => {
            created.kill();
            Err(error)
        }
    }
}

/// What came first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Ready,
    Closed,
}

impl Created {
    pub(crate) fn new(process: Process, listener: Listener) -> Self {
        Self { process, listener, console: None, warnings: Vec::new() }
    }

    /// Process id of the container's first process on the host.
    pub fn pid(&self) -> Pid {
        self.process.pid
    }

    /// Readable when it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }

    /// Lets it go and waits until the program runs. After an error the process has ended and been collected.
    ///
    /// # Errors
    /// Why the program does not run, with an exit code.
    pub fn start(mut self) -> Result<(Process, Option<OwnedFd>), StartError> {
        // EPIPE: it has died meanwhile, which the listener says better.
        let _ = self.listener.go();
        match self.listen() {
            Ok(Heard::Closed) => {}
            Ok(Heard::Ready) => return Err(self.not_started(Error::Report)),
            Err(error) => return Err(self.not_started(error)),
        }
        Ok((self.process, self.console))
    }

    fn not_started(self, error: Error) -> StartError {
        self.kill();
        start_error(error)
    }

    /// Takes in messages up to the one that decides.
    pub(crate) fn listen(&mut self) -> Result<Heard, Error> {
        let until = Instant::now() + LIMIT;
        loop {
            match self.listener.next(until) {
                Ok(Some(Message::Warning(text))) => self.warnings.push(text),
                Ok(Some(Message::Console(master))) => self.console = Some(master),
                Ok(Some(Message::Ready)) => return Ok(Heard::Ready),
                Ok(Some(Message::Failed(failure))) => return Err(failed(failure)),
                Ok(None) => return Ok(Heard::Closed),
                Err(sys::Errno::TIMEDOUT) => return Err(Error::Deadline { what: "setting up the new process", limit: LIMIT }),
                Ok(Some(Message::Child(_))) | Err(_) => return Err(Error::Report),
            }
        }
    }

    pub(crate) fn into_parts(self) -> (Process, Option<OwnedFd>, Vec<String>) {
        (self.process, self.console, self.warnings)
    }

    /// Kills the process if it lives, and collects it.
    pub fn kill(self) -> Option<Exit> {
        let _ = process::signal(&self.process, model::Signal::KILL);
        process::wait(&self.process, REAP_LIMIT).ok()
    }
}

fn failed(failure: Failure) -> Error {
    let Failure { step, reason, exit_code } = failure;
    if exit_code == 0 {
        return Error::Step { step, source: reason };
    }
    Error::Program(StartError { exit_code, message: format!("{step}: {}", reason.text) })
}

pub(crate) fn start_error(error: Error) -> StartError {
    use std::error::Error as _;
    let exit_code = error.exit_code();
    let message = match (&error, error.source()) {
        (Error::Program(error), _) => error.message.clone(),
        (error, Some(source)) => format!("{error}: {source}"),
        (error, None) => error.to_string(),
    };
    StartError { exit_code, message }
}

/// Copies the supervisor into new mount and PID namespaces as the plan wants them.
fn fork(env: &PodEnv, pid: PidMode, target: Option<BorrowedFd<'_>>) -> Result<Fork, Error> {
    let contradiction = |why| Error::Plan { what: "pid namespace".to_owned(), why };
    let joined = match pid {
        PidMode::Container => return process::fork(New::NEWNS | New::NEWPID, None).map_err(Error::call("clone3")),
        PidMode::Node => return process::fork(New::NEWNS, None).map_err(Error::call("clone3")),
        PidMode::Pod => env.init().ok_or_else(|| contradiction("the pod has no shared one"))?,
        PidMode::Target(_) => target.ok_or_else(|| contradiction("no target is given"))?,
    };
    fork_into(env, joined, New::NEWNS)
}

/// A child in the PID namespace of another process. Only children are affected by setns(2) with a PID namespace, so the
/// supervisor stays where it is and goes on in its own with the next child.
pub(crate) fn fork_into(env: &PodEnv, target: BorrowedFd<'_>, new: New) -> Result<Fork, Error> {
    ns::enter(target, Kinds::PROCESS_ID).map_err(|errno| match errno {
        sys::Errno::SRCH => Error::Plan { what: "pid namespace".to_owned(), why: "its process has ended" },
        errno => Error::call("setns(CLONE_NEWPID)")(errno),
    })?;
    let forked = match process::fork(new, None) {
        Ok(Fork::Child) => return Ok(Fork::Child),
        Ok(Fork::Parent(process)) => Ok(process),
        Err(errno) => Err(errno),
    };
    let restored = ns::enter_link(&env.pid_namespace, Kinds::PROCESS_ID);
    match (forked, restored) {
        (Ok(process), Ok(())) => Ok(Fork::Parent(process)),
        (Ok(process), Err(errno)) => {
            let _ = process::signal(&process, model::Signal::KILL);
            let _ = process::wait(&process, REAP_LIMIT);
            Err(Error::call("setns back to the own pid namespace")(errno))
        }
        // ENOMEM is what the kernel says of a PID namespace whose init has ended (pid_namespaces(7)).
        (Err(sys::Errno::NOMEM), _) => Err(Error::Plan { what: "pid namespace".to_owned(), why: "its init has ended" }),
        (Err(errno), _) => Err(Error::call("clone3")(errno)),
    }
}
