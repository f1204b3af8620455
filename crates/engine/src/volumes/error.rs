//! What can be wrong with volumes, in docker's words where it has some.

use std::path::PathBuf;

use model::{ErrorKind, VolumeNameError};

use super::VolumeInfo;

/// Why something could not be done with a volume.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error("get {0}: no such volume")]
    Missing(String),
    /// A container has it.
    #[error("remove {name}: volume is in use - [{users}]")]
    InUse {
        /// The volume.
        name: String,
        /// Ids of containers.
        users: String,
    },
    /// Not the name of a volume.
    #[error("create volume")]
    Name(#[from] VolumeNameError),
    /// It is there, and something else.
    #[error("volume {0} exists with other options: remove it, or choose another name")]
    OtherOptions(String),
    /// Options that we cannot do anything with.
    #[error("volume option {option}={value:?}: {why}")]
    Option {
        /// Its name.
        option: String,
        /// What it was to be.
        value: String,
        /// Why not.
        why: &'static str,
    },
    /// What a volume of the kind `bind` leads to.
    #[error("volume {volume}: its device {}", path.display())]
    Device {
        /// The volume.
        volume: String,
        /// What its option says.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: std::io::Error,
    },
    /// The disk.
    #[error("list volumes")]
    List(#[source] store::Error),
    /// The disk.
    #[error("create volume {0}")]
    Create(String, #[source] Box<store::Error>),
    /// The disk.
    #[error("remove volume {0}")]
    Remove(String, #[source] Box<store::Error>),
    /// Copying what an image has at a volume's place.
    #[error("copy what the image has at {target} into volume {volume}")]
    Fill {
        /// The volume.
        volume: String,
        /// Path in the container.
        target: String,
        /// What the kernel says.
        #[source]
        source: std::io::Error,
    },
    /// The image cannot be read.
    #[error("look at the image of a volume")]
    Image(#[source] crate::Error),
    /// A test wanted it so.
    #[error("volume")]
    Failpoint(#[source] crate::Error),
}

impl Error {
    pub(super) fn in_use(volume: &VolumeInfo) -> Self {
        let users = volume.used_by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Self::InUse { name: volume.name.to_string(), users }
    }

    /// Which of the closed set of kinds.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing(_) => ErrorKind::NotFound,
            Self::InUse { .. } => ErrorKind::FailedPrecondition,
            Self::Name(_) | Self::Option { .. } => ErrorKind::InvalidArgument,
            Self::OtherOptions(_) => ErrorKind::AlreadyExists,
            Self::Device { .. } => ErrorKind::FailedPrecondition,
            Self::List(e) => e.kind(),
            Self::Create(_, e) | Self::Remove(_, e) => e.kind(),
            Self::Fill { source, .. } => crate::error::Kinded::kind(source),
            Self::Image(e) => e.kind(),
            Self::Failpoint(e) => e.kind(),
        }
    }
}
