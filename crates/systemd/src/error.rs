//! What can go wrong with systemd.

use std::{io, path::PathBuf, time::Duration};

use model::ErrorKind;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bus cannot be reached.
    #[error("connect to D-Bus at {}", path.display())]
    Connect {
        /// Its socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bus does not let us in.
    #[error("D-Bus authentication: {answer:?}")]
    Auth {
        /// What it said.
        answer: String,
    },
    /// Reading or writing failed.
    #[error("D-Bus {call}")]
    Io {
        /// The method that was called.
        call: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What came is not a D-Bus message.
    #[error("D-Bus message: {0}")]
    Message(&'static str),
    /// The peer refused.
    #[error("{call}: {name}: {message}")]
    Refused {
        /// The method.
        call: &'static str,
        /// The error's name.
        name: String,
        /// The error's text.
        message: String,
    },
    /// systemd tried and did not succeed.
    #[error("job for {unit} ended as {result:?}")]
    Job {
        /// The unit.
        unit: String,
        /// `failed`, `canceled`, `timeout`, `dependency`, ...
        result: String,
    },
    /// No answer in time.
    #[error("{call} took longer than {limit:?}")]
    Deadline {
        /// What was waited for.
        call: &'static str,
        /// How long.
        limit: Duration,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { .. } | Self::Io { .. } => ErrorKind::Unavailable,
            Self::Auth { .. } => ErrorKind::PermissionDenied,
            Self::Message(_) | Self::Refused { .. } | Self::Job { .. } => ErrorKind::Internal,
            Self::Deadline { .. } => ErrorKind::DeadlineExceeded,
        }
    }
}

/// Why a text is not the name of a slice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not the name of a systemd slice: {why}")]
pub struct SliceError {
    /// The text, cut.
    pub name: String,
    /// What is wrong with it.
    pub why: &'static str,
}
