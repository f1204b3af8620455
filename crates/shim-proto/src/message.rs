//! The messages. Field and variant numbers are for ever.

use minicbor::{Decode, Encode};
use model::{
    ContainerId, ErrorKind, ExecId, Signal,
    checkpoint::{CapturePlan, RestorePlan},
    container::ExitStatus,
    plan::{ContainerPlan, ExecPlan, PodPlan},
    pod::Timestamp,
};

use crate::ExitRecord;

/// What the daemon asks for. Each is answered by exactly one [`Reply`] with the same number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// The first message of a connection. Answer: [`Reply::Hello`].
    #[n(0)]
    Hello {
        /// [`crate::VERSION`] of the daemon.
        #[n(0)]
        version: u32,
        /// [`crate::REVISION`] of the daemon.
        #[n(1)]
        revision: u32,
    },
    /// Make the pod: cgroup, namespaces, init. Once. Descriptors: the plan's joined namespaces. Answer: [`Reply::Done`].
    #[n(1)]
    Setup(#[n(0)] PodPlan),
    /// Make a container up to, not including, exec of its program. Descriptors: its root directory, an open directory or
    /// a detached mount; then the mounts of the plan's `MountKind::Detached`. Answer: [`Reply::Created`].
    #[n(2)]
    Create(#[n(0)] ContainerPlan),
    /// Let it exec. Answer: [`Reply::Started`] once exec has succeeded. After a failure it is `Exited`, without an event.
    #[n(3)]
    Start {
        /// Which.
        #[n(0)]
        container: ContainerId,
    },
    /// Signal a container. Answer: [`Reply::Done`], also when there is nobody left to get it.
    #[n(4)]
    Signal {
        /// Which.
        #[n(0)]
        container: ContainerId,
        /// What.
        #[n(1)]
        signal: Signal,
        /// To whom.
        #[n(2)]
        scope: Scope,
    },
    /// Run a process beside the main one. Answer: [`Reply::Exec`] with our ends of its pipes, or its terminal.
    #[n(5)]
    Exec(#[n(0)] ExecPlanWithStdin),
    /// Signal an exec; SIGKILL reaches everything in its cgroup. Answer: [`Reply::Done`].
    #[n(6)]
    SignalExec {
        /// Which.
        #[n(0)]
        exec: ExecId,
        /// What.
        #[n(1)]
        signal: Signal,
    },
    /// Set the size of a container's terminal (of an exec's: the daemon has it, TIOCSWINSZ). Answer: [`Reply::Done`].
    #[n(7)]
    ResizeTty {
        /// Which.
        #[n(0)]
        container: ContainerId,
        /// Columns.
        #[n(1)]
        width: u16,
        /// Rows.
        #[n(2)]
        height: u16,
    },
    /// Close the supervisor's end of a container's stdin. Answer: [`Reply::Done`].
    #[n(8)]
    CloseStdin {
        /// Which.
        #[n(0)]
        container: ContainerId,
    },
    /// Open the log file at its path anew (it was rotated away); it is there when the answer comes. Answer: [`Reply::Done`].
    #[n(9)]
    ReopenLog {
        /// Which.
        #[n(0)]
        container: ContainerId,
    },
    /// From now on a copy of the output, and a way to stdin. Answer: [`Reply::Attached`]. The copies are pipes that end
    /// with the container, or when their reader is too slow (1 MiB behind).
    #[n(10)]
    Attach {
        /// Which.
        #[n(0)]
        container: ContainerId,
    },
    /// Everything there is. Answer: [`Reply::State`].
    #[n(11)]
    State,
    /// An exit has been taken note of. Answer: [`Reply::Done`], also for one that is not known.
    #[n(12)]
    Ack {
        /// [`Exit`]'s sequence number.
        #[n(0)]
        sequence: u64,
    },
    /// Drop everything about a container, its exit record too. One that lives is killed, without an event. Answer:
    /// [`Reply::Done`], also for one that is not known.
    #[n(13)]
    Forget {
        /// Which.
        #[n(0)]
        container: ContainerId,
    },
    /// Kill everything and end. Answer: [`Reply::Done`] once everything is dead; then the supervisor exits.
    #[n(14)]
    Shutdown,
    /// Freeze containers, until `Thaw` or until this connection ends: a daemon that dies leaves no pod frozen. Answer:
    /// [`Reply::Done`] when that is asked of the kernel; it takes effect when it does.
    #[n(20)]
    Freeze {
        /// Which.
        #[n(0)]
        containers: Vec<ContainerId>,
    },
    /// End a capture, and let everything that `Freeze` froze run. Answer: [`Reply::Done`].
    #[n(21)]
    Thaw,
    /// Run criu on a container, one at a time; other requests are answered meanwhile. Answer: [`Reply::Captured`] when it
    /// has ended.
    #[n(22)]
    Capture(#[n(0)] CapturePlan),
    /// Make a container as `Create` does, and its processes out of images. They stand still until `Start`.
    #[n(23)]
    Restore {
        /// The container. Its program is not run.
        #[n(0)]
        plan: ContainerPlan,
        /// Its processes.
        #[n(1)]
        restore: RestorePlan,
    },
}

/// Who gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Scope {
    /// The main process.
    #[n(0)]
    Main,
    /// Everything in the container's cgroup and below it.
    #[n(1)]
    All,
}

/// An exec and its stdin.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ExecPlanWithStdin {
    /// The process.
    #[n(0)]
    pub plan: ExecPlan,
    /// A pipe for stdin; else /dev/null. A terminal is always both.
    #[n(1)]
    pub stdin: bool,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// To `Hello`.
    #[n(0)]
    Hello {
        /// [`crate::VERSION`] of the supervisor.
        #[n(0)]
        version: u32,
        /// [`crate::REVISION`] of the supervisor.
        #[n(1)]
        revision: u32,
        /// Pid of the supervisor in its own PID namespace.
        #[n(2)]
        pid: u32,
    },
    /// Done, nothing to add.
    #[n(1)]
    Done,
    /// Not done.
    #[n(2)]
    Failed(#[n(0)] Failure),
    /// To `Create`.
    #[n(3)]
    Created {
        /// Pid of the main process.
        #[n(0)]
        pid: u32,
        /// What was asked for, could not be had, and is not fatal.
        #[n(1)]
        warnings: Vec<String>,
    },
    /// To `Start`.
    #[n(4)]
    Started {
        /// When exec succeeded.
        #[n(0)]
        at: Timestamp,
    },
    /// To `Exec`. The descriptors have these roles, in this order.
    #[n(5)]
    Exec {
        /// Pid of the process.
        #[n(0)]
        pid: u32,
        /// Roles of the descriptors.
        #[n(1)]
        fds: Vec<FdRole>,
    },
    /// To `Attach`. The descriptors have these roles, in this order.
    #[n(6)]
    Attached {
        /// Roles of the descriptors.
        #[n(0)]
        fds: Vec<FdRole>,
    },
    /// To `State`.
    #[n(7)]
    State(#[n(0)] State),
    /// To `Capture`.
    #[n(20)]
    Captured {
        /// criu's exit code; 128 + signal when a signal ended it.
        #[n(0)]
        code: i32,
    },
}

/// What a descriptor in an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum FdRole {
    /// Write end of stdin.
    #[n(0)]
    Stdin,
    /// Read end of stdout.
    #[n(1)]
    Stdout,
    /// Read end of stderr.
    #[n(2)]
    Stderr,
    /// Master of the terminal.
    #[n(3)]
    Terminal,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Failure {
    /// What was being done, e.g. `create container`.
    #[n(0)]
    pub step: String,
    /// Why not, for people; the causes joined by `: `.
    #[n(1)]
    pub message: String,
    /// What the caller can do about it.
    #[cbor(n(2), with = "kind_code")]
    pub kind: ErrorKind,
    /// If a program could not be run: the exit code that shells give it (127 not found, 126 not executable, else 128).
    #[n(3)]
    pub exit_code: Option<i32>,
}

/// Everything a supervisor knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct State {
    /// `Setup` has succeeded.
    #[n(0)]
    pub set_up: bool,
    /// Pid of the init of a shared PID namespace.
    #[n(1)]
    pub init_pid: Option<u32>,
    /// Containers not yet forgotten.
    #[n(2)]
    pub containers: Vec<ContainerEntry>,
    /// Execs that run.
    #[n(3)]
    pub execs: Vec<ExecEntry>,
    /// Exits not yet acknowledged.
    #[n(4)]
    pub exits: Vec<Exit>,
    /// A `Shutdown` is under way.
    #[n(5)]
    pub stopping: bool,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ContainerEntry {
    /// Which.
    #[n(0)]
    pub container: ContainerId,
    /// Pid of the main process, also when it has ended.
    #[n(1)]
    pub pid: u32,
    /// Where it is in its life.
    #[n(2)]
    pub status: Status,
    /// Bytes of its output that could not be written to its log so far.
    #[n(3)]
    pub lost_log_bytes: u64,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Status {
    /// Waiting before exec.
    #[n(0)]
    Created,
    /// Running.
    #[n(1)]
    Running {
        /// Since when.
        #[n(0)]
        started_at: Timestamp,
    },
    /// Over.
    #[n(2)]
    Exited {
        /// When it started; `None`: never.
        #[n(0)]
        started_at: Option<Timestamp>,
        /// When it ended.
        #[n(1)]
        finished_at: Timestamp,
        /// How.
        #[n(2)]
        exit: ExitStatus,
    },
}

/// One running exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ExecEntry {
    /// Which.
    #[n(0)]
    pub exec: ExecId,
    /// In which container.
    #[n(1)]
    pub container: ContainerId,
    /// Pid of the process.
    #[n(2)]
    pub pid: u32,
}

/// An end that has to be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Exit {
    /// Of a container.
    #[n(0)]
    Container {
        /// For `Ack`.
        #[n(0)]
        sequence: u64,
        /// How it ended.
        #[n(1)]
        record: ExitRecord,
    },
    /// Of an exec.
    #[n(1)]
    Exec {
        /// For `Ack`.
        #[n(0)]
        sequence: u64,
        /// Which.
        #[n(1)]
        exec: ExecId,
        /// In which container.
        #[n(2)]
        container: ContainerId,
        /// How it ended.
        #[n(3)]
        exit: ExitStatus,
        /// When it ended.
        #[n(4)]
        at: Timestamp,
    },
}

impl Exit {
    /// The number that `Ack` names.
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Container { sequence, .. } | Self::Exec { sequence, .. } => *sequence,
        }
    }
}

/// What the supervisor says unasked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    /// Something ended. Said once per connection at most; what is not acknowledged is in the `State`.
    #[n(0)]
    Exited(#[n(0)] Exit),
    /// Something is not as it should be, and nobody has to do anything now.
    #[n(1)]
    Warning {
        /// About which container.
        #[n(0)]
        container: Option<ContainerId>,
        /// What.
        #[n(1)]
        message: String,
    },
    /// The init of the shared PID namespace ended, and every container with it; their exits follow.
    #[n(2)]
    InitExited {
        /// How.
        #[n(0)]
        exit: ExitStatus,
        /// When.
        #[n(1)]
        at: Timestamp,
    },
}

/// CBOR codec of an error kind: a number, because the names are the model's and these numbers are for ever.
mod kind_code {
    use minicbor::{
        Decoder, Encoder,
        decode::Error as DecodeError,
        encode::{Error as EncodeError, Write},
    };
    use model::ErrorKind;

    pub(super) fn encode<C, W: Write>(kind: &ErrorKind, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.u8(match kind {
            ErrorKind::InvalidArgument => 0,
            ErrorKind::NotFound => 1,
            ErrorKind::AlreadyExists => 2,
            ErrorKind::FailedPrecondition => 3,
            ErrorKind::PermissionDenied => 4,
            ErrorKind::Unavailable => 5,
            ErrorKind::ResourceExhausted => 6,
            ErrorKind::DeadlineExceeded => 7,
            ErrorKind::Cancelled => 8,
            ErrorKind::Corrupted => 9,
            ErrorKind::Unsupported => 10,
            ErrorKind::Internal => 11,
        })?
        .ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<ErrorKind, DecodeError> {
        Ok(match d.u8()? {
            0 => ErrorKind::InvalidArgument,
            1 => ErrorKind::NotFound,
            2 => ErrorKind::AlreadyExists,
            3 => ErrorKind::FailedPrecondition,
            4 => ErrorKind::PermissionDenied,
            5 => ErrorKind::Unavailable,
            6 => ErrorKind::ResourceExhausted,
            7 => ErrorKind::DeadlineExceeded,
            8 => ErrorKind::Cancelled,
            9 => ErrorKind::Corrupted,
            10 => ErrorKind::Unsupported,
            // A newer side's kind: it failed all the same.
            _ => ErrorKind::Internal,
        })
    }
}
