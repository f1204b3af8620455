//! Why what a client asks for cannot become a plan.

use std::{io, path::PathBuf};

use model::{ErrorKind, SignalError};
use sys::Errno;

/// Cuts text of clients and images to what fits into a message.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(128).collect()
}

/// Why what a client asks for cannot become a plan. `why` says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A class of block I/O that the configuration does not have.
    #[error("block I/O class {0:?} is not in the engine's configuration (blockio_config)")]
    BlockIoClass(String),
    /// A user or group that cannot be.
    #[error("user {user:?}: {why}")]
    User {
        /// As written.
        user: String,
        /// The rule.
        why: &'static str,
    },
    /// Not in the image.
    #[error("{kind} {name:?} is not in the image's {file}")]
    NoName {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// Where it was looked for.
        file: &'static str,
    },
    /// A user database of the image cannot be read.
    #[error("read {file} of the image")]
    Database {
        /// Which.
        file: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A user database of the image is not what it should be.
    #[error("{file} of the image {why}")]
    DatabaseForm {
        /// Which.
        file: &'static str,
        /// The rule.
        why: &'static str,
    },
    /// A bad environment variable.
    #[error("environment variable {name:?}: {why}")]
    Env {
        /// Its name, or the entry as written.
        name: String,
        /// The rule.
        why: &'static str,
    },
    /// An environment variable that the container's runtime cannot be told.
    #[error(transparent)]
    NotText(#[from] crate::oci::NotText),
    /// A bad command line.
    #[error("command: {0}")]
    Command(&'static str),
    /// A bad working directory.
    #[error("working directory {path:?}: {why}")]
    WorkingDir {
        /// As written.
        path: String,
        /// The rule.
        why: &'static str,
    },
    /// A capability that cannot be given.
    #[error("capability {name:?}: {why}")]
    Capability {
        /// As written.
        name: String,
        /// The rule.
        why: &'static str,
    },
    /// A privileged container in a pod that is not.
    #[error("the container is privileged and its pod is not")]
    Privileged,
    /// A namespace that the pod does not have.
    #[error("namespaces: {0}")]
    Namespaces(&'static str),
    /// A mount that cannot be.
    #[error("mount on {target:?}: {why}")]
    Mount {
        /// Where.
        target: String,
        /// The rule.
        why: &'static str,
    },
    /// Recursively read-only, but not in a way that can be (KEP-3857). The first word is what a kubelet looks for.
    #[error("RROUnsupported: mount on {target:?}: {why}")]
    RecursiveReadOnly {
        /// Where.
        target: String,
        /// The rule.
        why: &'static str,
    },
    /// The source of a mount or device.
    #[error("{operation} {path}")]
    HostPath {
        /// What was done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it did not work.
        #[source]
        source: io::Error,
    },
    /// A masked or read-only path that cannot be.
    #[error("{list} {path:?}: must be absolute, without `..`")]
    ProtectedPath {
        /// `masked path` or `read-only path`.
        list: &'static str,
        /// As written.
        path: String,
    },
    /// A device that cannot be.
    #[error("device {path:?}: {why}")]
    Device {
        /// Which.
        path: String,
        /// The rule.
        why: &'static str,
    },
    /// Something that a CDI specification asks for and cannot be had.
    #[error("CDI {field}: {why}")]
    Cdi {
        /// As it is called there.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A limit that cannot be.
    #[error("resource {field} {value:?}: {why}")]
    Resource {
        /// Which.
        field: &'static str,
        /// As written.
        value: String,
        /// The rule.
        why: &'static str,
    },
    /// A sysctl that a pod may not set.
    #[error("sysctl {key:?}: {why}")]
    Sysctl {
        /// Which.
        key: String,
        /// The rule.
        why: &'static str,
    },
    /// A seccomp profile's path.
    #[error("seccomp profile {path:?}: {why}")]
    SeccompPath {
        /// As written.
        path: String,
        /// The rule.
        why: &'static str,
    },
    /// A seccomp profile's file.
    #[error("read seccomp profile {path}")]
    SeccompFile {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A seccomp profile's content.
    #[error("seccomp profile {path}")]
    SeccompProfile {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: seccomp::Error,
    },
    /// A cgroup parent that cannot be.
    #[error("cgroup parent {path:?}: {why}")]
    CgroupParent {
        /// As written.
        path: String,
        /// The rule.
        why: &'static str,
    },
    /// A word that may not stand in the pod's hosts, hostname or resolv.conf.
    #[error("{field} {value:?}: {why}")]
    PodFile {
        /// Which.
        field: &'static str,
        /// As written.
        value: String,
        /// The rule.
        why: &'static str,
    },
    /// A log path that cannot be.
    #[error("log path {path:?}: {why}")]
    LogPath {
        /// As written.
        path: String,
        /// The rule.
        why: &'static str,
    },
    /// The image's stop signal.
    #[error("stop signal of the image")]
    StopSignal(#[source] SignalError),
    /// The kernel did not answer.
    #[error("{call}")]
    Kernel {
        /// The call.
        call: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
}

impl Error {
    /// Which of the closed set of kinds.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoName { .. } => ErrorKind::NotFound,
            Self::RecursiveReadOnly { .. } | Self::Cdi { .. } => ErrorKind::Unsupported,
            Self::Privileged => ErrorKind::PermissionDenied,
            Self::HostPath { source, .. } | Self::SeccompFile { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::ResourceExhausted,
                _ => ErrorKind::FailedPrecondition,
            },
            Self::SeccompProfile { source, .. } => source.kind(),
            Self::Kernel { .. } => ErrorKind::Internal,
            Self::Database { .. } | Self::DatabaseForm { .. } => ErrorKind::FailedPrecondition,
            Self::User { .. }
            | Self::BlockIoClass(_)
            | Self::Env { .. }
            | Self::NotText(_)
            | Self::Command(_)
            | Self::WorkingDir { .. }
            | Self::Capability { .. }
            | Self::Namespaces(_)
            | Self::Mount { .. }
            | Self::ProtectedPath { .. }
            | Self::Device { .. }
            | Self::Resource { .. }
            | Self::Sysctl { .. }
            | Self::SeccompPath { .. }
            | Self::CgroupParent { .. }
            | Self::PodFile { .. }
            | Self::LogPath { .. }
            | Self::StopSignal(_) => ErrorKind::InvalidArgument,
        }
    }
}
