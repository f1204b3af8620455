//! What the executor could not do.

use std::time::Duration;

use model::ErrorKind;
use sys::{Errno, kind_of, process::Exit};

/// A pod's environment, a container or a process that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something done before or beside the new process.
    #[error("{step}")]
    Host {
        /// What was being done.
        step: &'static str,
        /// Why not.
        #[source]
        source: sys::Error,
    },
    /// A single call beside the new process.
    #[error("{call}")]
    Call {
        /// The call.
        call: &'static str,
        /// Why the kernel refused.
        #[source]
        source: Errno,
    },
    /// A step inside of the new process.
    #[error("{step}")]
    Step {
        /// The step with its nouns: `mount "/data"`.
        step: String,
        /// Why not.
        #[source]
        source: Reason,
    },
    /// The new process ended without saying why: killed from outside or by the OOM killer.
    #[error("the new process ended ({exit:?}) while it was being set up")]
    Died {
        /// How it ended.
        exit: Option<Exit>,
    },
    /// The new process did not answer in time, and was killed.
    #[error("{what} took longer than {limit:?}")]
    Deadline {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        limit: Duration,
    },
    /// The new process sent something that makes no sense.
    #[error("unexpected report of the new process")]
    Report,
    /// A plan that contradicts itself.
    #[error("{what}: {why}")]
    Plan {
        /// The part of the plan.
        what: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Processes that criu did not make, or made other than the plan allows.
    #[error("restore the processes: {why}")]
    Restore {
        /// In criu's words, or ours.
        why: String,
    },
    /// The program cannot be run.
    #[error(transparent)]
    Program(#[from] StartError),
}

/// Why a step failed: a number of the kernel's, or a rule of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Reason {
    /// In words.
    pub text: String,
    /// The kernel's number, if it was the kernel.
    pub errno: Option<Errno>,
}

/// A program that could not be run, in the words that users of `docker run` know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// The convention of shells: 127 not found, 126 not executable; 128 for everything else.
    pub exit_code: i32,
    /// For example `exec "foo": executable file not found in $PATH`.
    pub message: String,
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Host { source, .. } => source.kind(),
            Self::Call { source, .. } => kind_of(*source),
            Self::Step { source, .. } => source.errno.map_or(ErrorKind::InvalidArgument, kind_of),
            Self::Died { .. } | Self::Report => ErrorKind::Internal,
            Self::Deadline { .. } => ErrorKind::DeadlineExceeded,
            Self::Plan { .. } => ErrorKind::InvalidArgument,
            Self::Restore { .. } => ErrorKind::FailedPrecondition,
            Self::Program(error) => error.kind(),
        }
    }

    /// The exit status that the process shall be said to have had.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Program(error) => error.exit_code,
            Self::Died { exit: Some(exit) } => exit.code(),
            Self::Host { .. }
            | Self::Call { .. }
            | Self::Step { .. }
            | Self::Died { .. }
            | Self::Deadline { .. }
            | Self::Report
            | Self::Restore { .. }
            | Self::Plan { .. } => 128,
        }
    }

    pub(crate) fn host(step: &'static str) -> impl FnOnce(sys::Error) -> Self {
        move |source| Self::Host { step, source }
    }

    /// For a single call that needs no nouns beside the step's name.
    pub(crate) fn call(call: &'static str) -> impl FnOnce(Errno) -> Self {
        move |source| Self::Call { call, source }
    }
}

impl StartError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self.exit_code {
            127 => ErrorKind::NotFound,
            126 => ErrorKind::PermissionDenied,
            _ => ErrorKind::Internal,
        }
    }
}

/// A step of the new process that failed. Travels to the supervisor as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The step with its nouns.
    pub(crate) step: String,
    /// Why.
    pub(crate) reason: Reason,
    /// The exit code if it is the program that cannot be run; else 0.
    pub(crate) exit_code: i32,
}

pub(crate) type Step<T> = Result<T, Failure>;

/// Says which step an error belongs to.
pub(crate) trait At<T> {
    fn at(self, step: impl FnOnce() -> String) -> Step<T>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: impl FnOnce() -> String) -> Step<T> {
        self.map_err(|errno| Failure { step: step(), reason: Reason { text: words(errno), errno: Some(errno) }, exit_code: 0 })
    }
}

impl<T> At<T> for Result<T, sys::Error> {
    fn at(self, step: impl FnOnce() -> String) -> Step<T> {
        self.map_err(|error| {
            let errno = error.errno();
            let text = errno.map_or_else(|| error.to_string(), |errno| format!("{error}: {}", words(errno)));
            Failure { step: step(), reason: Reason { text, errno }, exit_code: 0 }
        })
    }
}

/// A rule of ours that was broken.
pub(crate) fn refuse<T>(step: impl Into<String>, why: impl Into<String>) -> Step<T> {
    Err(Failure { step: step.into(), reason: Reason { text: why.into(), errno: None }, exit_code: 0 })
}

/// The kernel's words for a number, without Rust's "(os error 2)".
pub(crate) fn words(errno: Errno) -> String {
    let text = errno.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.chars().take(1).flat_map(char::to_lowercase).chain(text.chars().skip(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_like_sentences() {
        assert_eq!(words(Errno::NOENT), "no such file or directory");
        let failure = Err::<(), _>(Errno::LOOP).at(|| "mount \"/x\"".to_owned()).unwrap_err();
        let error = Error::Step { step: failure.step, source: failure.reason };
        assert_eq!(error.to_string(), "mount \"/x\"");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "too many levels of symbolic links");
    }
}
