//! The error of everything here that takes more than one system call.

use std::time::Duration;

use model::ErrorKind;
use rustix::io::Errno;

/// What failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call, in strace form.
    #[error("{call}")]
    Call {
        /// The call and its nouns.
        call: String,
        /// Why the kernel refused.
        #[source]
        source: Errno,
    },
    /// The kernel refused and said why in words (fsopen(2) message log).
    #[error("{call}: {message}")]
    Explained {
        /// The call and its nouns.
        call: String,
        /// The kernel's message.
        message: String,
        /// The error number.
        #[source]
        source: Errno,
    },
    /// Something did not come to its end in time.
    #[error("{what} took longer than {limit:?}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
    },
    /// A value that can never work.
    #[error("{what} {value:?}: {why}")]
    Invalid {
        /// What the value is.
        what: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// This machine has no such thing.
    #[error("this kernel has no {0}")]
    Missing(String),
    /// A file of the kernel's says something that is not understood.
    #[error("cannot read {file}: {text:?}")]
    Unexpected {
        /// The file.
        file: String,
        /// The start of its content.
        text: String,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Call { source, .. } | Self::Explained { source, .. } => kind_of(*source),
            Self::Deadline { .. } => ErrorKind::DeadlineExceeded,
            Self::Invalid { .. } => ErrorKind::InvalidArgument,
            Self::Missing(_) => ErrorKind::Unsupported,
            Self::Unexpected { .. } => ErrorKind::Internal,
        }
    }

    /// The error number, if the kernel gave one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { source, .. } | Self::Explained { source, .. } => Some(*source),
            Self::Deadline { .. } | Self::Invalid { .. } | Self::Missing(_) | Self::Unexpected { .. } => None,
        }
    }
}

/// What a caller can do about an error number of the kernel.
pub fn kind_of(errno: Errno) -> ErrorKind {
    match errno {
        Errno::NOENT | Errno::SRCH | Errno::NODEV | Errno::NXIO => ErrorKind::NotFound,
        Errno::EXIST => ErrorKind::AlreadyExists,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => ErrorKind::PermissionDenied,
        Errno::NOMEM | Errno::NOSPC | Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::DQUOT | Errno::USERS => {
            ErrorKind::ResourceExhausted
        }
        Errno::BUSY | Errno::NOTEMPTY | Errno::TXTBSY => ErrorKind::FailedPrecondition,
        Errno::INVAL | Errno::NAMETOOLONG | Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::XDEV | Errno::RANGE => {
            ErrorKind::InvalidArgument
        }
        Errno::NOSYS | Errno::OPNOTSUPP => ErrorKind::Unsupported,
        Errno::TIMEDOUT => ErrorKind::DeadlineExceeded,
        _ => ErrorKind::Internal,
    }
}

/// Says which call an error number belongs to.
pub trait Context<T> {
    /// `call` in strace form: `openat2("/etc/hosts")`.
    fn during(self, call: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Context<T> for Result<T, Errno> {
    fn during(self, call: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Call { call: call(), source })
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn during(self, call: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::Call { call: call(), source: Errno::from_io_error(&error).unwrap_or(Errno::IO) })
    }
}
