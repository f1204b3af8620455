//! The supervisor's dealings with the executor: pipes and terminals on this side, plans and processes on the other.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use container::{Bundle, Created, Hooks, Io, Parts, PodEnv, Stdio};
use model::{
    plan::{ContainerPlan, ExecPlan, HookStage, OciPlan, PodPlan},
    pod::PidMode,
};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::fcntl_dupfd_cloexec,
    pipe::{PipeFlags, pipe_with},
    process::Pid,
    pty::{OpenptFlags, ioctl_tiocgptpeer},
};
use shim_proto::FdRole;

use crate::{
    error::Error,
    runtime::{Born, Deletion, Namespaces, Runtime},
    table::{Container, Table, number},
};

/// The pod's namespaces, made.
#[derive(Debug)]
pub(crate) struct Pod {
    env: PodEnv,
    init_gone: bool,
}

/// A container that waits for its start.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// Made by the executor.
    Executor(Created),
    /// Made by a runtime.
    Runtime(Runtime),
    /// Made out of images; its processes stand still. With its cgroup.
    Restored(String),
    /// A runtime looks for the program while it makes the container, the executor when that starts. A client hears of it at
    /// the start in both cases; until then another process stands in.
    Doomed(Error),
}

/// What making a container came to.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) waiting: Waiting,
    pub(crate) runtime: Option<Runtime>,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) terminal: Option<Terminal>,
    pub(crate) warnings: Vec<String>,
}

/// What running an exec came to: the process, and what the daemon gets.
#[derive(Debug)]
pub(crate) struct MadeExec {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) warnings: Vec<String>,
    pub(crate) fds: Vec<(FdRole, OwnedFd)>,
}

impl Pod {
    /// Makes the pod's namespaces; this process is in them from now on.
    pub(crate) fn set_up(plan: &PodPlan, pod_dir: &Path, joined: Vec<OwnedFd>) -> Result<Self, Error> {
        let env = PodEnv::new(plan, pod_dir, joined).map_err(|source| Error::Executor { step: "make pod", source })?;
        Ok(Self { env, init_gone: false })
    }

    /// What its processes are made in.
    pub(crate) fn env(&self) -> &PodEnv {
        &self.env
    }

    /// The init of the shared PID namespace, while it lives.
    pub(crate) fn init(&self) -> Option<Pid> {
        self.env.init_pid().filter(|_| !self.init_gone)
    }

    /// The init has been collected.
    pub(crate) fn init_is_gone(&mut self) {
        self.init_gone = true;
    }

    /// Kills the init and what is left with it, and unmounts what was mounted for the pod.
    pub(crate) fn close(self) -> Result<(), Error> {
        self.env.close().map_err(|source| Error::Executor { step: "close pod", source })
    }

    /// Makes a container up to its program. `fds`: its root, then the mounts that its plan numbers.
    pub(crate) fn create(&self, plan: &ContainerPlan, mut fds: Vec<OwnedFd>, table: &Table) -> Result<Made, Error> {
        if fds.is_empty() {
            return Err(Error::Descriptors { expected: 1, got: 0 });
        }
        let rootfs = fds.remove(0);
        let target = match plan.pid {
            // One of this pod's, or the one whose namespace came with the pod's plan.
            PidMode::Target(id) => match table.containers.get(&id) {
                Some(container) => Some(container.pidfd.as_fd()),
                None => Some(self.env.foreign_pids().ok_or(Error::NoContainer(id))?),
            },
            PidMode::Pod | PidMode::Container | PidMode::Node => None,
        };
        if let Some(oci) = &plan.oci {
            return self.create_by_runtime(plan, oci, (rootfs, fds), table);
        }
        let (stdio, ours) = streams(plan.process.tty, plan.stdin)?;
        let made = container::create(&self.env, plan, Parts { rootfs, mounts: fds, stdio, target })
            .map_err(|source| Error::Executor { step: "make container", source })?;
        let (stdout, stderr, terminal) = match (ours.output, &made.console) {
            (Some((stdout, stderr)), _) => (stdout, Some(stderr), None),
            (None, Some(console)) => (dup(console)?, None, Some(Terminal::new(console)?)),
            (None, None) => return Err(Error::NoTerminal),
        };
        let (pid, pidfd, warnings) = (made.pid(), dup(made.pidfd())?, made.warnings.clone());
        let waiting = Waiting::Executor(made);
        Ok(Made { pid, pidfd, waiting, runtime: None, stdin: ours.stdin, stdout, stderr, terminal, warnings })
    }

    fn create_by_runtime(
        &self,
        plan: &ContainerPlan,
        oci: &OciPlan,
        (rootfs, mounts): (OwnedFd, Vec<OwnedFd>),
        table: &Table,
    ) -> Result<Made, Error> {
        let (io, ours) = pipes(plan.process.tty, plan.stdin)?;
        let runtime = Runtime::prepare(plan, oci, &self.namespaces(plan.pid, table)?)?;
        let (born, waiting) = match runtime.create(&self.env, Bundle { plan, rootfs, mounts }, io) {
            Ok(born) => (born, Waiting::Runtime(runtime.clone())),
            Err(error @ Error::Program(_)) => (stand_in(plan.process.tty)?, Waiting::Doomed(error)),
            Err(error) => {
                if let Err(left) = runtime.undo(&self.env) {
                    crate::complain(&left.chain());
                }
                return Err(error);
            }
        };
        let Born { process, console, warnings } = born;
        let (stdout, stderr, terminal) = match (ours.output, &console) {
            (Some((stdout, stderr)), _) => (stdout, Some(stderr), None),
            (None, Some(console)) => (dup(console)?, None, Some(Terminal::new(console)?)),
            (None, None) => return Err(Error::NoTerminal),
        };
        let (pid, pidfd) = (process.pid, process.pidfd);
        Ok(Made { pid, pidfd, waiting, runtime: Some(runtime), stdin: ours.stdin, stdout, stderr, terminal, warnings })
    }

    /// Whose namespaces a container may join.
    fn namespaces(&self, pid: PidMode, table: &Table) -> Result<Namespaces, Error> {
        let own = number(rustix::process::getpid());
        let holder = match pid {
            PidMode::Pod => self.init().map(number),
            // Not collected while this runs, so the number is still its own.
            PidMode::Target(id) => {
                Some(number(table.containers.get(&id).filter(|it| it.alive()).ok_or(Error::NoContainer(id))?.pid))
            }
            PidMode::Container | PidMode::Node => None,
        };
        let pod = ["net", "ipc", "uts"].map(|name| (name, own));
        Ok(pod.into_iter().chain(holder.map(|pid| ("pid", pid))).collect())
    }

    /// Runs the hooks of a container that are the supervisor's, of one point in its life.
    pub(crate) fn run_hooks(&self, hooks: &Hooks, stage: HookStage, pid: Option<Pid>) -> Result<(), Error> {
        hooks.run(&self.env, stage, pid).map_err(|source| Error::Executor { step: "run hooks", source })
    }

    /// Begins to remove what a runtime keeps of a container that has ended.
    pub(crate) fn delete(&self, runtime: Runtime) -> Result<Deletion, Error> {
        runtime.delete(&self.env)
    }

    /// Runs a process in a container.
    pub(crate) fn exec(&self, plan: &ExecPlan, container: &Container, stdin: bool) -> Result<MadeExec, Error> {
        if let Some(runtime) = &container.runtime {
            return self.exec_by_runtime(runtime, plan, stdin);
        }
        let (theirs, ours) = streams(plan.process.tty, stdin)?;
        let made = container::exec(&self.env, container.pidfd.as_fd(), plan, theirs)
            .map_err(|source| Error::Executor { step: "run process", source })?;
        let fds = ours.for_daemon(made.console);
        Ok(MadeExec { pid: made.process.pid, pidfd: made.process.pidfd, warnings: made.warnings, fds })
    }

    fn exec_by_runtime(&self, runtime: &Runtime, plan: &ExecPlan, stdin: bool) -> Result<MadeExec, Error> {
        let (io, ours) = pipes(plan.process.tty, stdin)?;
        let Born { process, console, warnings } = runtime.exec(&self.env, plan, io)?;
        Ok(MadeExec { pid: process.pid, pidfd: process.pidfd, warnings, fds: ours.for_daemon(console) })
    }
}

/// What is there instead of a container whose program cannot be run.
fn stand_in(terminal: bool) -> Result<Born, Error> {
    let process = container::placeholder().map_err(|source| Error::Executor { step: "make placeholder", source })?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let failed = |step| move |source| Error::Sys { step, source };
    let console = terminal.then(|| rustix::pty::openpt(flags)).transpose().map_err(failed("posix_openpt"))?;
    console.as_ref().map(rustix::pty::unlockpt).transpose().map_err(failed("unlockpt"))?;
    Ok(Born { process, console, warnings: Vec::new() })
}

impl Waiting {
    /// Lets it run its program; returns when that has begun. After an error `process` has ended and been collected.
    pub(crate) fn start(self, pod: &Pod, process: &OwnedFd) -> Result<(), Error> {
        let outcome = match self {
            // The process is known by the copy of its pidfd, the terminal by that of its master.
            Self::Executor(made) => return made.start().map(|_| ()).map_err(Error::Program),
            Self::Runtime(runtime) => runtime.start(&pod.env),
            Self::Restored(group) => container::resume(&pod.env, &group).map_err(|e| Error::Executor { step: "resume", source: e }),
            Self::Doomed(error) => Err(error),
        };
        outcome.inspect_err(|_| {
            let _ = sys::process::signal(process, model::Signal::KILL);
            let _ = sys::process::wait(process, REAP);
        })
    }
}

/// A container's terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    /// The other side, held open so that the master does not report an end while the container merely has it closed.
    _far_side: Option<OwnedFd>,
}

impl Terminal {
    fn new(master: &OwnedFd) -> Result<Self, Error> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        Ok(Self { master: dup(master)?, _far_side: ioctl_tiocgptpeer(master, flags).ok() })
    }
}

/// How long a killed process may take to be gone.
const REAP: std::time::Duration = std::time::Duration::from_secs(10);

/// Our ends of a process's pipes.
#[derive(Debug, Default)]
pub(crate) struct Ours {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) output: Option<(OwnedFd, OwnedFd)>,
}

impl Ours {
    /// With the terminal, if there is one.
    fn for_daemon(self, terminal: Option<OwnedFd>) -> Vec<(FdRole, OwnedFd)> {
        let mut fds = Vec::new();
        fds.extend(self.stdin.map(|fd| (FdRole::Stdin, fd)));
        if let Some((stdout, stderr)) = self.output {
            fds.extend([(FdRole::Stdout, stdout), (FdRole::Stderr, stderr)]);
        }
        fds.extend(terminal.map(|fd| (FdRole::Terminal, fd)));
        fds
    }
}

fn streams(terminal: bool, stdin: bool) -> Result<(Stdio, Ours), Error> {
    if terminal {
        return Ok((Stdio::Terminal, Ours::default()));
    }
    let (io, ours) = pipes(false, stdin)?;
    Ok((Stdio::Io(io), ours))
}

/// Standard files; with a terminal, which its maker sends by another way, they lead nowhere.
pub(crate) fn pipes(terminal: bool, stdin: bool) -> Result<(Io, Ours), Error> {
    if terminal {
        return Ok((Io { stdin: null()?, stdout: null()?, stderr: null()? }, Ours::default()));
    }
    let failed = |step| move |source| Error::Sys { step, source };
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(failed("pipe2"));
    let (their_stdin, our_stdin) = if stdin {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        (null()?, None)
    };
    let (our_stdout, stdout) = pipe()?;
    let (our_stderr, stderr) = pipe()?;
    let ours = Ours { stdin: our_stdin, output: Some((our_stdout, our_stderr)) };
    Ok((Io { stdin: their_stdin, stdout, stderr }, ours))
}

pub(crate) fn null() -> Result<OwnedFd, Error> {
    let failed = |source| Error::Sys { step: "open /dev/null", source };
    openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)
}

fn dup(fd: impl AsFd) -> Result<OwnedFd, Error> {
    fcntl_dupfd_cloexec(fd, 3).map_err(|source| Error::Sys { step: "fcntl(F_DUPFD_CLOEXEC)", source })
}
