//! Making a container up to its start, and starting it: the supervisor's side.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use model::{
    plan::{ContainerPlan, HookStage},
    pod::PidMode,
};
use sys::{
    cgroup::Group,
    ns::{self, Kinds, New},
    process::{self, Exit, Fork, Pid, Process},
};

use crate::{
    Error, Hooks, PodEnv, StartError, Stdio,
    error::{At, Failure},
    identity,
    init::{self, Ground, Material},
    mounts::Given,
    report::{self, Listener, Message, Reporter},
    userns::UserNamespace,
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
    /// The other end, for a process that gets it from here.
    slave: Option<OwnedFd>,
    /// What was asked for and is not so.
    pub warnings: Vec<String>,
    /// Other people's programs, some of which the process waits for.
    hooks: Option<Hooks>,
}

/// Makes a container. On an error nothing is left of it.
///
/// # Errors
/// The step that failed, in the supervisor or in the new process.
pub fn create(env: &PodEnv, plan: &ContainerPlan, parts: Parts<'_>) -> Result<Created, Error> {
    let group = Group::new(&env.hierarchies, &plan.cgroup).map_err(Error::host("container's cgroup"))?;
    let join = group.open_join().map_err(Error::host("open container's cgroup"))?;
    let shm = env.shm(plan)?;
    let ground = Ground { rootfs: parts.rootfs, given: Given { shm, detached: parts.mounts } };
    let material = Material { ground, stdio: parts.stdio, join };
    let mut created = match &env.userns {
        Some(userns) if plan.pid == PidMode::Container => begin_inside(env, userns, plan, material)?,
        Some(_) | None => begin(env, plan, material, parts.target)?,
    };
    match created.listen_with(env) {
        Ok(Heard::Ready) => Ok(created),
        Ok(Heard::Closed) => Err(Error::Died { exit: created.kill() }),
        Err(error) => {
            created.kill();
            Err(error)
        }
    }
}

fn begin(env: &PodEnv, plan: &ContainerPlan, material: Material, target: Option<BorrowedFd<'_>>) -> Result<Created, Error> {
    let (listener, reporter) = report::pair()?;
    match fork(env, plan.pid, target)? {
        Fork::Child => init::run(env, plan, material, reporter),
        Fork::Parent(process) => Ok(Created { hooks: Hooks::of(plan), ..Created::new(process, listener) }),
    }
}

/// A PID namespace belongs to the user namespace of the process that makes it, and the container's first process is the one
/// in it. So that is born inside, where it can mount nothing of the host's; a builder beside it, which is not inside, makes
/// its mounts.
fn begin_inside(env: &PodEnv, userns: &UserNamespace, plan: &ContainerPlan, material: Material) -> Result<Created, Error> {
    let Material { ground, stdio, join } = material;
    let (listener, reporter) = report::pair()?;
    let outside = |between: &Reporter| {
        identity::set_oom_score(&plan.process, &env.proc, between)?;
        join.join().at(|| format!("join cgroup {:?}", plan.cgroup))
    };
    let mut created = match userns.fork(New::NEWPID, outside)? {
        Fork::Child => init::run_member(plan, stdio, reporter),
        Fork::Parent(process) => Created { hooks: Hooks::of(plan), ..Created::new(process, listener) },
    };
    drop(reporter);
    match furnish(env, plan, (ground, &stdio), &mut created) {
        Ok(()) => Ok(created),
        Err(error) => {
            created.kill();
            Err(error)
        }
    }
}

/// Has a builder make the container's mounts, and gives them to its first process.
fn furnish(env: &PodEnv, plan: &ContainerPlan, (ground, stdio): (Ground, &Stdio), created: &mut Created) -> Result<(), Error> {
    let (listener, reporter) = report::pair()?;
    let process = match fork_into(env, created.process.pidfd.as_fd(), New::NEWNS)? {
        Fork::Child => init::run_builder(env, plan, ground, stdio, &reporter),
        Fork::Parent(process) => process,
    };
    drop((ground, reporter));
    let mut builder = Created { hooks: Hooks::of(plan), ..Created::new(process, listener) };
    let heard = builder.listen_with(env);
    let mounts = ns::of(builder.pid(), "mnt");
    created.warnings.append(&mut builder.warnings);
    created.console = builder.console.take();
    let slave = builder.slave.take();
    let exit = builder.kill();
    match heard? {
        Heard::Ready => {}
        Heard::Closed => return Err(Error::Died { exit }),
    }
    let mounts = mounts.map_err(Error::call("open mount namespace"))?;
    // EPIPE: it has died meanwhile, which its listener says better.
    let _ = created.listener.give_mounts(&mounts, slave.as_ref());
    Ok(())
}

/// A process whose program runs.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub process: Process,
    /// Master of its terminal, if it has one.
    pub console: Option<OwnedFd>,
    /// What was asked for and is not so.
    pub warnings: Vec<String>,
}

/// What came first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Ready,
    Closed,
}

impl Created {
    pub(crate) fn new(process: Process, listener: Listener) -> Self {
        Self { process, listener, console: None, slave: None, warnings: Vec::new(), hooks: None }
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
    pub fn start(self) -> Result<(Process, Option<OwnedFd>), StartError> {
        // EPIPE: it has died meanwhile, which the listener says better.
        let _ = self.listener.go();
        self.run().map(|running| (running.process, running.console)).map_err(start_error)
    }

    /// Waits until the program runs, which closes the report. After an error the process has ended and been collected.
    pub(crate) fn run(mut self) -> Result<Running, Error> {
        let error = match self.listen() {
            Ok(Heard::Closed) => {
                let Self { process, console, warnings, .. } = self;
                return Ok(Running { process, console, warnings });
            }
            Ok(Heard::Ready) => Error::Report,
            Err(error) => error,
        };
        self.kill();
        Err(error)
    }

    /// As [`Self::listen`], with the hooks that the process waits for.
    fn listen_with(&mut self, env: &PodEnv) -> Result<Heard, Error> {
        loop {
            if let Some(heard) = self.hear()? {
                return Ok(heard);
            }
            let hooks = self.hooks.as_ref().ok_or(Error::Report)?;
            for stage in [HookStage::Prestart, HookStage::CreateRuntime] {
                hooks.run(env, stage, Some(self.process.pid))?;
            }
            // EPIPE: it has died meanwhile, which the listener says better.
            let _ = self.listener.go();
        }
    }

    /// Takes in messages up to the one that decides.
    pub(crate) fn listen(&mut self) -> Result<Heard, Error> {
        self.hear()?.ok_or(Error::Report)
    }

    /// `None`: it waits for the supervisor's hooks.
    fn hear(&mut self) -> Result<Option<Heard>, Error> {
        // Hooks that the process runs itself have their own limits.
        let inside = [HookStage::CreateContainer, HookStage::StartContainer];
        let limit = LIMIT + self.hooks.as_ref().map_or(Duration::ZERO, |hooks| hooks.time(&inside));
        let until = Instant::now() + limit;
        loop {
            match self.listener.next(until) {
                Ok(Some(Message::Warning(text))) => self.warnings.push(text),
                Ok(Some(Message::Console(master, slave))) => (self.console, self.slave) = (Some(master), Some(slave)),
                Ok(Some(Message::Ready)) => return Ok(Some(Heard::Ready)),
                Ok(Some(Message::Hooks)) => return Ok(None),
                Ok(Some(Message::Failed(failure))) => return Err(failed(failure)),
                Ok(None) => return Ok(Some(Heard::Closed)),
                Err(sys::Errno::TIMEDOUT) => return Err(Error::Deadline { what: "setting up the new process", limit }),
                Ok(Some(Message::Child(_))) | Err(_) => return Err(Error::Report),
            }
        }
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

/// A child in the PID namespace of another process, by its pidfd or the namespace itself. Only children are affected by setns(2) with a PID namespace, so the
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
