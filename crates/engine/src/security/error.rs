//! Why a container cannot be confined as it was asked for.

use std::{io, path::PathBuf, time::Duration};

use model::ErrorKind;

/// Errors of this module.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("AppArmor profile {0:?}: this kernel has no AppArmor, or it is switched off")]
    NoAppArmor(String),
    #[error("AppArmor profile {0:?} is not loaded on this node")]
    NotLoaded(String),
    #[error("the default AppArmor profile cannot be loaded: there is no apparmor_parser (Debian: package apparmor)")]
    NoParser,
    #[error("read the loaded AppArmor profiles from {0}")]
    Profiles(&'static str, #[source] io::Error),
    #[error("run apparmor_parser")]
    RunParser(#[source] io::Error),
    #[error("apparmor_parser refused the default profile: {0}")]
    Parser(String),
    #[error("apparmor_parser took longer than {0:?}")]
    ParserDeadline(Duration),
    #[error("SELinux label {0:?} is not one that the node's policy knows")]
    Label(String),
    #[error("relabel {path:?}: {why}")]
    Forbidden { path: String, why: &'static str },
    #[error("relabel {}", path.display())]
    Relabel { path: PathBuf, source: io::Error },
    #[error("relabel {}: more than {limit} files", path.display())]
    TooMany { path: PathBuf, limit: usize },
}

impl Error {
    /// What a caller can do about it.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::NoAppArmor(_) | Self::NoParser => ErrorKind::Unsupported,
            Self::NotLoaded(_) => ErrorKind::FailedPrecondition,
            Self::Label(_) | Self::Forbidden { .. } => ErrorKind::InvalidArgument,
            Self::ParserDeadline(_) => ErrorKind::DeadlineExceeded,
            Self::TooMany { .. } => ErrorKind::ResourceExhausted,
            Self::Profiles(..) | Self::RunParser(_) | Self::Parser(_) | Self::Relabel { .. } => ErrorKind::Internal,
        }
    }
}
