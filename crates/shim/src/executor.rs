//! The supervisor's dealings with the executor: pipes and terminals on this side, plans and processes on the other.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use container::{Created, Io, Parts, PodEnv, Stdio};
use model::{
    plan::{ContainerPlan, ExecPlan, PodPlan},
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
    table::{Container, Table},
};

/// The pod's namespaces, made.
#[derive(Debug)]
pub(crate) struct Pod {
    env: PodEnv,
    init_gone: bool,
}

/// A container that waits for its start.
#[derive(Debug)]
pub(crate) struct Waiting(Created);

/// What making a container came to.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) waiting: Waiting,
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
    pub(crate) fn set_up(plan: &PodPlan, pod_dir: &Path) -> Result<Self, Error> {
        let env = PodEnv::new(plan, pod_dir).map_err(|source| Error::Executor { step: "make pod", source })?;
        Ok(Self { env, init_gone: false })
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

    /// Makes a container up to its program.
    pub(crate) fn create(&self, plan: &ContainerPlan, rootfs: OwnedFd, table: &Table) -> Result<Made, Error> {
        let target = match plan.pid {
            PidMode::Target(id) => Some(table.containers.get(&id).ok_or(Error::NoContainer(id))?.pidfd.as_fd()),
            PidMode::Pod | PidMode::Container | PidMode::Node => None,
        };
        let (stdio, ours) = streams(plan.process.tty, plan.stdin)?;
        let made = container::create(&self.env, plan, Parts { rootfs, stdio, target })
            .map_err(|source| Error::Executor { step: "make container", source })?;
        let (stdout, stderr, terminal) = match (ours.output, &made.console) {
            (Some((stdout, stderr)), _) => (stdout, Some(stderr), None),
            (None, Some(console)) => (dup(console)?, None, Some(Terminal::new(console)?)),
            (None, None) => return Err(Error::NoTerminal),
        };
        let (pid, pidfd, warnings) = (made.pid(), dup(made.pidfd())?, made.warnings.clone());
        Ok(Made { pid, pidfd, waiting: Waiting(made), stdin: ours.stdin, stdout, stderr, terminal, warnings })
    }

    /// Runs a process in a container.
    pub(crate) fn exec(&self, plan: &ExecPlan, container: &Container, stdin: bool) -> Result<MadeExec, Error> {
        let (theirs, ours) = streams(plan.process.tty, stdin)?;
        let made = container::exec(&self.env, container.pidfd.as_fd(), plan, theirs)
            .map_err(|source| Error::Executor { step: "run process", source })?;
        let mut fds = Vec::new();
        fds.extend(ours.stdin.map(|fd| (FdRole::Stdin, fd)));
        if let Some((stdout, stderr)) = ours.output {
            fds.extend([(FdRole::Stdout, stdout), (FdRole::Stderr, stderr)]);
        }
        fds.extend(made.console.map(|fd| (FdRole::Terminal, fd)));
        Ok(MadeExec { pid: made.process.pid, pidfd: made.process.pidfd, warnings: made.warnings, fds })
    }
}

impl Waiting {
    /// Lets it run its program; returns when that has begun.
    pub(crate) fn start(self) -> Result<(), Error> {
        // The process is known by the copy of its pidfd, the terminal by that of its master.
        self.0.start().map(|_| ()).map_err(Error::Program)
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

/// Our ends of a process's pipes.
#[derive(Debug, Default)]
struct Ours {
    stdin: Option<OwnedFd>,
    output: Option<(OwnedFd, OwnedFd)>,
}

fn streams(terminal: bool, stdin: bool) -> Result<(Stdio, Ours), Error> {
    if terminal {
        return Ok((Stdio::Terminal, Ours::default()));
    }
    let failed = |step| move |source| Error::Sys { step, source };
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(failed("pipe2"));
    let (their_stdin, our_stdin) = if stdin {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        (openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed("open /dev/null"))?, None)
    };
    let (our_stdout, stdout) = pipe()?;
    let (our_stderr, stderr) = pipe()?;
    let ours = Ours { stdin: our_stdin, output: Some((our_stdout, our_stderr)) };
    Ok((Stdio::Io(Io { stdin: their_stdin, stdout, stderr }), ours))
}

fn dup(fd: impl AsFd) -> Result<OwnedFd, Error> {
    fcntl_dupfd_cloexec(fd, 3).map_err(|source| Error::Sys { step: "fcntl(F_DUPFD_CLOEXEC)", source })
}
