//! What the server asks its house for.

use std::{fmt, future::Future, pin::Pin};

use model::{ContainerId, PodId};
use tokio::io::{AsyncRead, AsyncWrite};

/// Which of a process's streams a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error; never with a terminal, which has one output only.
    pub stderr: bool,
    /// The process has a terminal.
    pub tty: bool,
}

/// A command to run in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// Where.
    pub container: ContainerId,
    /// What.
    pub command: Vec<String>,
    /// With which streams.
    pub wanted: Wanted,
}

/// A container's main process to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// Which.
    pub container: ContainerId,
    /// With which streams.
    pub wanted: Wanted,
}

/// Ports of a pod to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortForwardRequest {
    /// Whose.
    pub pod: PodId,
    /// Which; empty: what the client then asks for.
    pub ports: Vec<u16>,
}

/// Why the house did not do it; shown to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a process reads from. Dropped: it sees the end.
pub type Input = Box<dyn AsyncWrite + Send + Unpin>;
/// Where a process writes to.
pub type Output = Box<dyn AsyncRead + Send + Unpin>;

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// What sets the size of a process's terminal.
pub type Resize = Box<dyn Fn(Size) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A process's end: its exit code, 128 + signal for one that a signal ended.
pub type Exit = Pin<Box<dyn Future<Output = Result<i32, Failure>> + Send>>;

/// A process as a session sees it. Dropped: nobody can reach an exec any more, so that it has to end; one that was
/// attached to goes on.
pub struct Process {
    /// Its stdin, if it has one.
    pub stdin: Option<Input>,
    /// Its stdout, or what its terminal shows.
    pub stdout: Option<Output>,
    /// Its stderr.
    pub stderr: Option<Output>,
    /// Its terminal.
    pub resize: Option<Resize>,
    /// Its end. `None`: attached to, so that the session ends with the output.
    pub exit: Option<Exit>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("stdin", &self.stdin.is_some())
            .field("attached", &self.exit.is_none())
            .finish_non_exhaustive()
    }
}

/// A connection to a port in a pod.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// The house.
pub trait Backend: Send + Sync + 'static {
    /// Runs a command.
    fn exec(&self, request: ExecRequest) -> impl Future<Output = Result<Process, Failure>> + Send;

    /// A way to the streams of a container's main process.
    fn attach(&self, request: AttachRequest) -> impl Future<Output = Result<Process, Failure>> + Send;

    /// Connects to a port of loopback in a pod's network.
    fn dial(&self, pod: PodId, port: u16) -> impl Future<Output = Result<Box<dyn Socket>, Failure>> + Send;
}
