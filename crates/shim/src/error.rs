//! What the supervisor could not do.

use std::{fmt, io, path::PathBuf};

use model::{ContainerId, ErrorKind, ExecId};
use rustix::io::Errno;
use shim_proto::Failure;

/// An operation of the supervisor that failed.
#[derive(Debug)]
pub(crate) enum Error {
    /// Nothing there of that id.
    NoContainer(ContainerId),
    /// Nothing there of that id.
    NoExec(ExecId),
    /// The id is taken.
    ContainerExists(ContainerId),
    /// The id is taken.
    ExecExists(ExecId),
    /// Right request, wrong time.
    State { is: &'static str, request: &'static str },
    /// As many as there may be.
    TooMany { what: &'static str, limit: usize },
    /// The request came with the wrong number of descriptors.
    Descriptors { expected: usize, got: usize },
    /// The log file could not be opened.
    Log { path: PathBuf, source: Errno },
    /// The log's directory could not be found.
    LogDirectory { path: PathBuf, source: io::Error },
    /// What lies at the log's path is nothing to write a log to.
    LogRefused { path: PathBuf, reason: &'static str },
    /// A system call failed.
    Sys { step: &'static str, source: Errno },
    /// A file of ours could not be written or removed.
    File { step: &'static str, path: PathBuf, source: io::Error },
    /// The kernel interface's own error.
    Kernel { step: &'static str, source: sys::Error },
    /// The executor's own error.
    Executor { step: &'static str, source: container::Error },
    /// The program cannot be run.
    Program(container::StartError),
    /// A terminal was asked for and the executor made none.
    NoTerminal,
    /// An OCI runtime failed.
    Runtime { doing: String, why: String },
    /// An exec in a container of an OCI runtime came without what the runtime reads.
    NoOciProcess,
    /// The pod could not be made, and this process is somewhere in the middle of it.
    Spoiled,
    /// Something did not end.
    NotDead { left: usize },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoContainer(id) => write!(f, "no container {id}"),
            Self::NoExec(id) => write!(f, "no exec {id}"),
            Self::ContainerExists(id) => write!(f, "container {id} exists"),
            Self::ExecExists(id) => write!(f, "exec {id} exists"),
            Self::State { is, request } => write!(f, "{request}: {is}"),
            Self::TooMany { what, limit } => write!(f, "there are {limit} {what} already"),
            Self::Descriptors { expected, got } => write!(f, "{got} descriptors came instead of {expected}"),
            Self::Log { path, .. } => write!(f, "open log {}", path.display()),
            Self::LogDirectory { path, .. } => write!(f, "find directory of log {}", path.display()),
            Self::LogRefused { path, reason } => write!(f, "log {}: {reason}", path.display()),
            Self::Sys { step, .. } | Self::Kernel { step, .. } | Self::Executor { step, .. } => f.write_str(step),
            Self::File { step, path, .. } => write!(f, "{step} {}", path.display()),
            Self::Program(error) => write!(f, "{error}"),
            Self::NoTerminal => f.write_str("no terminal was made"),
            Self::Runtime { doing, why } => write!(f, "{doing}: {why}"),
            Self::NoOciProcess => f.write_str("the request lacks the process for the container's OCI runtime"),
            Self::Spoiled => f.write_str("the pod was not set up"),
            Self::NotDead { left } => write!(f, "{left} processes do not die"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Log { source, .. } | Self::Sys { source, .. } => Some(source),
            Self::LogDirectory { source, .. } | Self::File { source, .. } => Some(source),
            Self::Kernel { source, .. } => Some(source),
            Self::Executor { source, .. } => Some(source),
            Self::NoContainer(_)
            | Self::NoExec(_)
            | Self::ContainerExists(_)
            | Self::ExecExists(_)
            | Self::State { .. }
            | Self::TooMany { .. }
            | Self::Descriptors { .. }
            | Self::LogRefused { .. }
            | Self::Program(_)
            | Self::NoTerminal
            | Self::Runtime { .. }
            | Self::NoOciProcess
            | Self::Spoiled
            | Self::NotDead { .. } => None,
        }
    }
}

impl Error {
    /// What a caller can do about it.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::NoContainer(_) | Self::NoExec(_) => ErrorKind::NotFound,
            Self::ContainerExists(_) | Self::ExecExists(_) => ErrorKind::AlreadyExists,
            Self::State { .. } => ErrorKind::FailedPrecondition,
            Self::TooMany { .. } => ErrorKind::ResourceExhausted,
            Self::Descriptors { .. } | Self::LogRefused { .. } => ErrorKind::InvalidArgument,
            Self::Log { source, .. } => match *source {
                // A link in the way.
                Errno::LOOP => ErrorKind::InvalidArgument,
                source => sys::kind_of(source),
            },
            Self::Sys { source, .. } => sys::kind_of(*source),
            Self::LogDirectory { source, .. } | Self::File { source, .. } => {
                sys::kind_of(Errno::from_io_error(source).unwrap_or(Errno::IO))
            }
            Self::Kernel { source, .. } => source.kind(),
            Self::Executor { source, .. } => source.kind(),
            Self::Program(error) => error.kind(),
            Self::NoOciProcess => ErrorKind::InvalidArgument,
            Self::NoTerminal | Self::Runtime { .. } | Self::Spoiled => ErrorKind::Internal,
            Self::NotDead { .. } => ErrorKind::DeadlineExceeded,
        }
    }

    /// The error and its causes.
    pub(crate) fn chain(&self) -> String {
        crate::supervisor::chain(self)
    }

    /// The answer to a request that failed with it.
    pub(crate) fn failure(&self, step: &str) -> Failure {
        let mut message = self.chain();
        // A name in a plan may be long; nobody reads more.
        let end = (0..=message.len().min(4096)).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or(0));
        Failure { step: step.to_owned(), message, kind: self.kind(), exit_code: self.exit_code() }
    }

    /// The exit code that a program which could not be run is said to have had.
    fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Executor { source, .. } => Some(source.exit_code()),
            Self::Program(error) => Some(error.exit_code),
            _ => None,
        }
    }
}
