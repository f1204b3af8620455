//! Exec and attach with streams, as long as a client wants: what a streaming session holds on to.

use std::{
    fmt,
    future::Future,
    io,
    os::fd::{AsFd as _, OwnedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use model::{
    ContainerId, ErrorKind, ExecId,
    container::{ContainerState, EnvVar},
};
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    termios::{Winsize, tcsetwinsize},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    net::unix::pipe,
};

use super::{Container, exec::ExecGroup};
use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error, Step},
    shim::{ExecIo, Shim},
    spec,
};

/// Where a process reads from. Dropped: it sees the end.
pub type StreamIn = Box<dyn AsyncWrite + Send + Unpin>;
/// Where a process writes to.
pub type StreamOut = Box<dyn AsyncRead + Send + Unpin>;
/// A process's end: its exit code, 128 + signal for one that a signal ended.
pub type Ended = Pin<Box<dyn Future<Output = Result<i32, Error>> + Send>>;

/// What a client wants of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// A way to its stdin.
    pub stdin: bool,
    /// A terminal. What an attached process has is what it was made with.
    pub tty: bool,
}

/// A process's streams.
#[derive(Default)]
pub struct ProcessStreams {
    /// Its stdin, if it has one and it was wanted.
    pub stdin: Option<StreamIn>,
    /// Its stdout, or what its terminal shows.
    pub stdout: Option<StreamOut>,
    /// Its stderr.
    pub stderr: Option<StreamOut>,
    /// Its terminal.
    pub terminal: Option<Terminal>,
}

impl fmt::Debug for ProcessStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessStreams")
            .field("stdin", &self.stdin.is_some())
            .field("terminal", &self.terminal)
            .finish_non_exhaustive()
    }
}

/// A terminal whose size can be set.
#[derive(Clone, Debug)]
pub struct Terminal(Side);

#[derive(Clone, Debug)]
enum Side {
    /// We hold its master.
    Ours(Arc<AsyncFd<OwnedFd>>),
    /// The supervisor does.
    Supervisors(Arc<Shim>, ContainerId),
}

impl Terminal {
    /// Sets its size in characters. A terminal that is gone has none.
    pub async fn resize(&self, width: u16, height: u16) {
        let resized = match &self.0 {
            Side::Ours(master) => {
                let size = Winsize { ws_col: width, ws_row: height, ws_xpixel: 0, ws_ypixel: 0 };
                tcsetwinsize(master.get_ref(), size).map_err(|e| e.to_string())
            }
            Side::Supervisors(shim, id) => shim.resize(*id, width, height).await.map_err(|e| crate::chain(&e)),
        };
        if let Err(error) = resized {
            tracing::debug!(error, "resize a terminal");
        }
    }
}

/// A command beside a container's main process. What is empty is as the main process has it.
#[derive(Clone, Debug, Default)]
pub struct ExecCommand {
    /// The command with its arguments.
    pub command: Vec<String>,
    /// NAME|UID[:GROUP|GID].
    pub user: String,
    /// Absolute.
    pub working_dir: String,
    /// On top of the container's.
    pub env: Vec<EnvVar>,
    /// With all capabilities that there are.
    pub all_capabilities: bool,
}

impl From<Vec<String>> for ExecCommand {
    fn from(command: Vec<String>) -> Self {
        Self { command, ..Self::default() }
    }
}

impl Inner {
    /// Runs a command with streams. When `Ended` is dropped, whatever is left of it is killed: nobody can reach it.
    pub(crate) async fn exec(
        self: &Arc<Self>,
        id: ContainerId,
        command: ExecCommand,
        options: StreamOptions,
    ) -> Result<(ProcessStreams, Ended), Error> {
        let container = self.running(id)?;
        let exec = ExecId::from_bytes(crate::random_id());
        let ExecCommand { command, user, working_dir, env, all_capabilities } = command;
        let user = if user.is_empty() { None } else { Some(exec_user(&container, user).await?) };
        let wishes = spec::ExecWishes { user, working_dir, env, all_capabilities };
        let plan = spec::exec_plan_with(&container.plan, exec, (command, options.tty), wishes).step(id, "exec")?;
        let group = ExecGroup::create(self, plan.cgroup.clone()).await.step(id, "make the exec's cgroup")?;
        let shim = container.pod.shim()?;
        let io = if options.stdin { shim.exec_with_stdin(&plan).await } else { shim.exec(&plan).await };
        let ExecIo { stdin, stdout, stderr, exit } = match io {
            Ok(io) => io,
            Err(e) => return not_run(e, options).step(id, "exec"),
        };
        let streams = if options.tty { on_terminal(stdin) } else { on_pipes(stdin, stdout, stderr) };
        let mut streams = streams.step(id, "exec: streams")?;
        if !options.stdin {
            streams.stdin = None;
        }
        let ended = async move {
            let lost = || {
                Error::new(ErrorKind::Unavailable, About::Container(id), "the pod's supervisor was lost, and the command with it")
            };
            let status = exit.await.map_err(|_| lost())?;
            group.release();
            Ok(status.code)
        };
        Ok((streams, Box::pin(ended)))
    }

    /// The streams of a container's main process, from now on. They end with it, or for a reader that is too slow.
    pub(crate) async fn attach(self: &Arc<Self>, id: ContainerId, options: StreamOptions) -> Result<ProcessStreams, Error> {
        let container = self.running(id)?;
        self.attach_to(&container, options).await
    }

    /// The same of one that may not have been started yet.
    pub(crate) async fn attach_to(&self, container: &Container, options: StreamOptions) -> Result<ProcessStreams, Error> {
        let id = container.id;
        let shim = container.pod.shim()?;
        let io = shim.attach(id).await.step(id, "attach")?;
        let stdin = io.stdin.filter(|_| options.stdin);
        if !container.plan.process.tty {
            let mut streams = on_pipes(stdin, io.stdout, io.stderr).step(id, "attach: streams")?;
            if container.spec.stdin_once {
                streams.stdin = streams.stdin.map(|pipe| Box::new(Once { pipe, shim, id }) as StreamIn);
            }
            return Ok(streams);
        }
        let mut streams = on_pipes(None, io.stdout, None).step(id, "attach: streams")?;
        let master = stdin.map(register).transpose().step(id, "attach: terminal")?;
        streams.stdin = master.map(|fd| Box::new(Master { fd: Arc::new(fd) }) as StreamIn);
        streams.terminal = Some(Terminal(Side::Supervisors(shim, id)));
        Ok(streams)
    }

    pub(crate) fn running(&self, id: ContainerId) -> Result<Arc<Container>, Error> {
        let container = self.table.container(id)?;
        match container.state() {
            ContainerState::Running { .. } => Ok(container),
            state => {
                let why = format!("container is {}, not running", state.name());
                Err(Error::new(ErrorKind::FailedPrecondition, About::Container(id), why))
            }
        }
    }
}

/// Who that is in the container's own files, as they are now.
async fn exec_user(container: &Arc<Container>, user: String) -> Result<model::container::ResolvedUser, Error> {
    let id = container.id;
    let gone = || Error::new(ErrorKind::FailedPrecondition, About::Container(id), "it does not run any more");
    let pid = container.main_pid().await.ok_or_else(gone)?;
    let spec = container.spec.clone();
    let found = blocking(move || {
        let root = rustix::fs::open(
            format!("/proc/{pid}/root"),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let root = root.map_err(|source| spec::Error::Kernel { call: "open its root", source })?;
        spec::exec_user(&spec, &user, root.as_fd())
    });
    found.await.step(id, "exec")
}

/// A program that is not there (127) or cannot be run (126) is an outcome, as in a shell and as with ExecSync.
fn not_run(error: crate::shim::Error, options: StreamOptions) -> Result<(ProcessStreams, Ended), crate::shim::Error> {
    let Some(code) = error.exit_code() else { return Err(error) };
    let end = if options.tty { "\r\n" } else { "\n" };
    let said: StreamOut = Box::new(io::Cursor::new(format!("{}{end}", crate::chain(&error)).into_bytes()));
    let (stdout, stderr) = if options.tty { (Some(said), None) } else { (None, Some(said)) };
    let streams = ProcessStreams { stdout, stderr, ..ProcessStreams::default() };
    Ok((streams, Box::pin(std::future::ready(Ok(code)))))
}

fn on_pipes(stdin: Option<OwnedFd>, stdout: Option<OwnedFd>, stderr: Option<OwnedFd>) -> io::Result<ProcessStreams> {
    let out = |fd: Option<OwnedFd>| fd.map(pipe::Receiver::from_owned_fd).transpose();
    let stdin = stdin.map(pipe::Sender::from_owned_fd).transpose()?;
    Ok(ProcessStreams {
        stdin: stdin.map(|pipe| Box::new(pipe) as StreamIn),
        stdout: out(stdout)?.map(|pipe| Box::new(pipe) as StreamOut),
        stderr: out(stderr)?.map(|pipe| Box::new(pipe) as StreamOut),
        terminal: None,
    })
}

/// Both ways through the terminal's master. It is closed, and the session on it hung up, when all three are dropped.
fn on_terminal(master: Option<OwnedFd>) -> io::Result<ProcessStreams> {
    let Some(master) = master else { return Ok(ProcessStreams::default()) };
    let fd = Arc::new(register(master)?);
    Ok(ProcessStreams {
        stdin: Some(Box::new(Master { fd: fd.clone() })),
        stdout: Some(Box::new(Master { fd: fd.clone() })),
        stderr: None,
        terminal: Some(Terminal(Side::Ours(fd))),
    })
}

fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
    #[allow(deprecated, reason = "unsound for types that lie about their descriptor; an OwnedFd keeps its own open")]
    AsyncFd::new(fd)
}

/// The master of a terminal.
struct Master {
    fd: Arc<AsyncFd<OwnedFd>>,
}

impl AsyncRead for Master {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.fd.poll_read_ready(cx))?;
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), buffer.initialize_unfilled())?));
            match read {
                Ok(Ok(got)) => {
                    buffer.advance(got);
                    return Poll::Ready(Ok(()));
                }
                // EIO is how a terminal's master says that nobody has the other side open any more (pty(7)).
                Ok(Err(e)) if e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => return Poll::Ready(Ok(())),
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Master {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.fd.poll_write_ready(cx))?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal has no end of its input but the character for it, which is the client's to type.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A stdin that is for its first client only: the process sees the end when that one has gone.
struct Once {
    pipe: StreamIn,
    shim: Arc<Shim>,
    id: ContainerId,
}

impl AsyncWrite for Once {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        let (shim, id) = (self.shim.clone(), self.id);
        tokio::spawn(async move {
            if let Err(error) = shim.close_stdin(id).await {
                tracing::debug!(error = crate::chain(&error), "close a container's stdin");
            }
        });
    }
}
