//! The daemon's side of a pod's supervisor: start it, find it again, ask it for things, hear from it.
//!
//! Every request has a deadline, so that a supervisor that hangs costs one pod and one answer. Requests of many tasks
//! share the connection and are told apart by number. A request whose caller goes away is carried out all the same.

mod connection;
mod error;
mod launch;
mod requests;

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::{ContainerId, PodId, container::ExitStatus, pod::Timestamp};
use shim_proto::{Exit, ExitRecord, State, Status};
use tokio::sync::{mpsc, oneshot};

pub use self::error::Error;
use self::{connection::Connection, launch::Launched};

/// How long a supervisor has to accept a connection and say hello.
const HELLO: Duration = Duration::from_secs(5);

/// What a new supervisor needs.
#[derive(Clone, Debug)]
pub struct SpawnArgs {
    /// Its program, a sealed memory file ([`sys::memfd::sealed_memfd_of`]).
    pub exe: Arc<OwnedFd>,
    /// Its pod.
    pub pod: PodId,
    /// The pod's run directory; made if it is not there.
    pub pod_dir: PathBuf,
}

/// What a supervisor says unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShimEvent {
    /// A container ended; to be acknowledged.
    Exited(Exited),
    /// Something is not as it should be, and nobody has to do anything now.
    Warning {
        /// What.
        message: String,
    },
    /// The supervisor has ended, or hung up. Nothing follows.
    Lost {
        /// How that was noticed.
        why: String,
    },
}

/// What a supervisor says unasked, in order. Nothing comes after [`ShimEvent::Lost`].
pub type ShimEvents = mpsc::UnboundedReceiver<ShimEvent>;

/// The end of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exited {
    /// Which.
    pub container: ContainerId,
    /// How.
    pub status: ExitStatus,
    /// When.
    pub at: Timestamp,
    /// For [`Shim::ack`].
    pub sequence: u64,
}

/// What a supervisor knew when it was found again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShimState {
    /// [`Shim::setup`] has succeeded.
    pub set_up: bool,
    /// Its containers. Exits among them that nobody acknowledged come as events too.
    pub containers: Vec<ContainerReport>,
}

/// One container as a supervisor knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerReport {
    /// Which.
    pub container: ContainerId,
    /// Pid of its main process, also when that has ended.
    pub pid: u32,
    /// When it started; `None`: never.
    pub started_at: Option<Timestamp>,
    /// How and when it ended; `None`: not yet.
    pub exited: Option<(ExitStatus, Timestamp)>,
    /// Bytes of its output that could not be written to its log.
    pub lost_log_bytes: u64,
}

/// A process run beside the main one: our ends of its streams, and its end. What was not asked for is `None`.
#[derive(Debug)]
pub struct ExecIo {
    /// Write end of stdin; the terminal if it has one.
    pub stdin: Option<OwnedFd>,
    /// Read end of stdout; the terminal if it has one.
    pub stdout: Option<OwnedFd>,
    /// Read end of stderr.
    pub stderr: Option<OwnedFd>,
    /// How it ended. An error: its supervisor was lost, and it with it.
    pub exit: oneshot::Receiver<ExitStatus>,
}

/// A way to a running container's streams.
#[derive(Debug, Default)]
pub struct AttachIo {
    /// Write end of stdin, or the terminal.
    pub stdin: Option<OwnedFd>,
    /// Copy of stdout (or of what the terminal says).
    pub stdout: Option<OwnedFd>,
    /// Copy of stderr.
    pub stderr: Option<OwnedFd>,
}

/// A supervisor. The connection ends when this is dropped; the supervisor goes on.
#[derive(Debug)]
pub struct Shim {
    pod: PodId,
    pid: u32,
    pidfd: Arc<OwnedFd>,
    connection: Arc<Connection>,
}

impl Shim {
    /// Starts the supervisor of a new pod.
    ///
    /// # Errors
    /// Its directory or socket cannot be made, it cannot be started, it does not say hello in time. Nothing of it runs
    /// then; what it left in its directory is for the caller to remove.
    pub async fn spawn(args: SpawnArgs) -> Result<(Self, ShimEvents), Error> {
        let pod = args.pod;
        let Launched { process, socket } = launch::launch(args).await?;
        let pidfd = Arc::new(process.pidfd);
        match Self::greet(pod, socket, Some(pidfd.clone())).await {
            Ok((shim, _, events)) => Ok((shim, events)),
            Err(error) => {
                // It may be about to listen to somebody else: better none than two.
                let _ = sys::process::signal(&pidfd, model::Signal::KILL);
                launch::collect(&pidfd).await;
                Err(error)
            }
        }
    }

    /// Finds the supervisor of a pod again by the pod's run directory.
    ///
    /// # Errors
    /// It does not run ([`model::ErrorKind::NotFound`], [`model::ErrorKind::Unavailable`]), does not answer in time, or
    /// speaks another version.
    pub async fn connect(pod_dir: &Path, pod: PodId) -> Result<(Self, ShimState, ShimEvents), Error> {
        let socket = launch::dial(pod, pod_dir, HELLO).await?;
        Self::greet(pod, socket, None).await
    }

    async fn greet(pod: PodId, socket: OwnedFd, child: Option<Arc<OwnedFd>>) -> Result<(Self, ShimState, ShimEvents), Error> {
        let (connection, events) = Connection::open(pod, socket)?;
        let pid = requests::hello(&connection, HELLO).await?;
        let pidfd = match child {
            Some(pidfd) => pidfd,
            None => Arc::new(launch::pidfd_of(pod, pid)?),
        };
        let shim = Self { pod, pid, pidfd, connection };
        // Its answer comes after the pidfd was opened: so the pid was its own then, and not one used again.
        let state = shim.fetch_state().await?;
        shim.connection.watch(&shim.pidfd)?;
        for exit in &state.exits {
            shim.connection.exited(exit);
        }
        Ok((shim, ShimState::from(state), events))
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its pidfd.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The user namespace that owns the pod's namespaces: the pod's own, if it has one.
    ///
    /// # Errors
    /// The supervisor has ended.
    pub fn userns(&self) -> io::Result<OwnedFd> {
        // The supervisor itself stays outside of it, and there is no pod with one that has no IPC namespace of its own.
        let ipc = File::open(format!("/proc/{}/ns/ipc", self.pid))?;
        Ok(sys::ns::owner(ipc)?)
    }

    /// The pod's network namespace as a file.
    pub fn netns(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pid).into()
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.connection.hang_up();
    }
}

impl From<State> for ShimState {
    fn from(state: State) -> Self {
        let containers = state.containers.iter().map(|entry| {
            let (started_at, exited) = match entry.status {
                Status::Created => (None, None),
                Status::Running { started_at } => (Some(started_at), None),
                Status::Exited { started_at, finished_at, exit } => (started_at, Some((exit, finished_at))),
            };
            let (container, pid, lost_log_bytes) = (entry.container, entry.pid, entry.lost_log_bytes);
            ContainerReport { container, pid, started_at, exited, lost_log_bytes }
        });
        Self { set_up: state.set_up, containers: containers.collect() }
    }
}

/// How and when a container ended, from what its supervisor left on disk. `None`: nothing that can be read.
pub fn exit_record(pod_dir: &Path, container: ContainerId) -> Option<(ExitStatus, Timestamp)> {
    let path = pod_dir.join(ExitRecord::DIRECTORY).join(container.to_string());
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(ExitRecord::SIZE_MAX).read_to_end(&mut bytes).ok()?;
    let record = ExitRecord::from_bytes(&bytes).ok().filter(|record| record.container == container)?;
    Some((record.exit, record.finished_at))
}

/// An exit as the engine hears of it; `None`: an exec's, which only its caller hears of.
fn container_exit(exit: &Exit) -> Option<Exited> {
    match exit {
        Exit::Container { sequence, record } => {
            let (container, status, at) = (record.container, record.exit, record.finished_at);
            Some(Exited { container, status, at, sequence: *sequence })
        }
        Exit::Exec { .. } => None,
    }
}
