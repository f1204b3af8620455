//! Why a device cannot be given.

use std::{fmt, path::PathBuf};

use model::ErrorKind;

/// Why there is no answer. Names what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not `VENDOR/CLASS=DEVICE`.
    #[error("CDI device {device:?}: {why}")]
    Name {
        /// As written.
        device: String,
        /// The rule.
        why: &'static str,
    },
    /// Nobody describes it.
    #[error("CDI device {device} is in no specification in {}{}", list(directories), told(problems))]
    Unknown {
        /// Which.
        device: String,
        /// Where was looked for it.
        directories: Vec<PathBuf>,
        /// What could not be read there.
        problems: Vec<Problem>,
    },
    /// Two files of the same directory describe it.
    #[error("CDI device {device} is in two specifications of the same priority: {} and {}", first.display(), second.display())]
    Conflict {
        /// Which.
        device: String,
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name { .. } => ErrorKind::InvalidArgument,
            Self::Unknown { .. } | Self::Conflict { .. } => ErrorKind::FailedPrecondition,
        }
    }
}

/// A file or directory that is passed over, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}

fn list(directories: &[PathBuf]) -> String {
    if directories.is_empty() {
        return "no directory (none is configured)".to_owned();
    }
    directories.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// As many problems as a message carries.
const SHOWN: usize = 4;

fn told(problems: &[Problem]) -> String {
    let shown: String = problems.iter().take(SHOWN).map(|problem| format!("; {problem}")).collect();
    match problems.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{shown}; and {more} more that cannot be used"),
        Some(0) | None => shown,
    }
}
