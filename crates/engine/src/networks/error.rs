//! What can be wrong with networks, in docker's words where it has some.

use model::ErrorKind;

/// Why something could not be done with a network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error("network {0} not found")]
    Missing(String),
    /// The name is taken.
    #[error("network with name {0} already exists")]
    Taken(String),
    /// It is one that is always there.
    #[error("{0} is a pre-defined network and cannot be removed")]
    BuiltIn(String),
    /// Containers that run are in it.
    #[error("error while removing network: network {name} has active endpoints ({endpoints})")]
    InUse {
        /// The network.
        name: String,
        /// Names and ids of containers.
        endpoints: String,
    },
    /// A name that cannot be one.
    #[error("{0:?} is not a valid name for a network, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed")]
    Name(String),
    /// Something that was asked for cannot be.
    #[error("{what} {value:?}: {why}")]
    Invalid {
        /// Which part.
        what: &'static str,
        /// What it was to be.
        value: String,
        /// Why not.
        why: String,
    },
    /// Addresses that another network has.
    #[error("invalid pool request: Pool overlaps with other one on this address space: {subnet} is in {other}")]
    Overlap {
        /// What was asked for.
        subnet: String,
        /// The network that has it.
        other: String,
    },
    /// More than one id begins so.
    #[error("network {0} is ambiguous: several ids begin with it")]
    Ambiguous(String),
    /// The disk.
    #[error("{operation} network {name}")]
    Store {
        /// What was done.
        operation: &'static str,
        /// The network.
        name: String,
        /// What the disk says.
        #[source]
        source: Box<store::Error>,
    },
    /// The kernel.
    #[error("{operation} network {name}")]
    Net {
        /// What was done.
        operation: &'static str,
        /// The network.
        name: String,
        /// What it says.
        #[source]
        source: net::Error,
    },
    /// A test wanted it so.
    #[error("network")]
    Failpoint(#[source] crate::Error),
}

impl Error {
    /// Which of the closed set of kinds.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing(_) => ErrorKind::NotFound,
            Self::Taken(_) => ErrorKind::AlreadyExists,
            Self::BuiltIn(_) | Self::InUse { .. } | Self::Overlap { .. } => ErrorKind::FailedPrecondition,
            Self::Name(_) | Self::Invalid { .. } | Self::Ambiguous(_) => ErrorKind::InvalidArgument,
            Self::Store { source, .. } => source.kind(),
            Self::Net { source, .. } => source.kind(),
            Self::Failpoint(e) => e.kind(),
        }
    }

    pub(super) fn store(operation: &'static str, name: &str) -> impl FnOnce(store::Error) -> Self {
        move |source| Self::Store { operation, name: name.to_owned(), source: Box::new(source) }
    }

    pub(super) fn net(operation: &'static str, name: &str) -> impl FnOnce(net::Error) -> Self {
        move |source| Self::Net { operation, name: name.to_owned(), source }
    }

    pub(super) fn invalid(what: &'static str, value: &str, why: impl Into<String>) -> Self {
        Self::Invalid { what, value: value.chars().take(80).collect(), why: why.into() }
    }
}
