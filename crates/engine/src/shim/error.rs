//! What can go wrong between the daemon and a supervisor.

use std::{path::PathBuf, time::Duration};

use model::{ErrorKind, PodId};
use rustix::io::Errno;
use shim_proto::Failure;

/// An operation on a supervisor that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The supervisor's directory, socket or log could not be made or found.
    #[error("supervisor of pod {pod}: {step} {path:?}")]
    Path {
        /// Which pod.
        pod: PodId,
        /// What was being done.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: Errno,
    },
    /// The supervisor could not be started.
    #[error("start supervisor of pod {pod}")]
    Spawn {
        /// Which pod.
        pod: PodId,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// A system call on the connection failed.
    #[error("supervisor of pod {pod}: {step}")]
    Sys {
        /// Which pod.
        pod: PodId,
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The message could not be sent or was not understood.
    #[error("supervisor of pod {pod}: {request}")]
    Protocol {
        /// Which pod.
        pod: PodId,
        /// What was asked for.
        request: &'static str,
        /// What is wrong.
        #[source]
        source: shim_proto::Error,
    },
    /// The supervisor answered something else.
    #[error("supervisor of pod {pod}: {request}: answer is of the wrong kind")]
    WrongReply {
        /// Which pod.
        pod: PodId,
        /// What was asked for.
        request: &'static str,
    },
    /// The supervisor speaks another version of the protocol.
    #[error("supervisor of pod {pod} speaks version {version} of the protocol, not {}", shim_proto::VERSION)]
    Version {
        /// Which pod.
        pod: PodId,
        /// Its version.
        version: u32,
    },
    /// The supervisor could not do it.
    #[error("{}: {}", .0.step, .0.message)]
    Failed(Failure),
    /// The supervisor did not answer in time.
    #[error("supervisor of pod {pod}: {request}: no answer within {limit:?}")]
    Deadline {
        /// Which pod.
        pod: PodId,
        /// What was asked for.
        request: &'static str,
        /// For how long was waited.
        limit: Duration,
    },
    /// The supervisor is gone.
    #[error("supervisor of pod {pod} is gone: {why}")]
    Lost {
        /// Which pod.
        pod: PodId,
        /// How that was noticed.
        why: String,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Path { source, .. } => sys::kind_of(*source),
            Self::Spawn { source, .. } => source.kind(),
            Self::Sys { source, .. } => sys::kind_of(Errno::from_io_error(source).unwrap_or(Errno::IO)),
            Self::Protocol { source, .. } => source.kind(),
            Self::WrongReply { .. } => ErrorKind::Internal,
            Self::Version { .. } => ErrorKind::Unsupported,
            Self::Failed(failure) => failure.kind,
            Self::Deadline { .. } => ErrorKind::DeadlineExceeded,
            Self::Lost { .. } => ErrorKind::Unavailable,
        }
    }
    /// If a program could not be run: the exit code that it is said to have had.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Failed(failure) => failure.exit_code,
            _ => None,
        }
    }
}
