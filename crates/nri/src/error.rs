//! What can go wrong with plugins.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use model::ErrorKind;

use crate::Status;

/// What went wrong, with which plugin.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A step of making the socket.
    #[error("{step} {}", path.display())]
    Socket {
        /// The call.
        step: &'static str,
        /// Of what.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Something of somebody else's is where the socket should be.
    #[error("{}: {why}", path.display())]
    Taken {
        /// The socket's path.
        path: PathBuf,
        /// What is there.
        why: &'static str,
    },
    /// The directory of pre-installed plugins or a plugin's configuration.
    #[error("{}: {why}", path.display())]
    Installed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A plugin did not become one.
    #[error("a plugin did not register: {why}")]
    Registration {
        /// What it did instead.
        why: String,
    },
    /// A plugin wants events that do not exist.
    #[error("NRI plugin {plugin} subscribes to unknown events ({mask:#x})")]
    UnknownEvents {
        /// Which.
        plugin: String,
        /// What is too much in its mask.
        mask: u32,
    },
    /// The plugin answered with an error: it refuses what it was told of.
    #[error("NRI plugin {plugin} refused {method}: {}", status.message)]
    Refused {
        /// Which.
        plugin: String,
        /// What.
        method: &'static str,
        /// Its words.
        status: Status,
    },
    /// No answer in time.
    #[error("NRI plugin {plugin}: no answer to {method} within {limit:?}")]
    Deadline {
        /// Which.
        plugin: String,
        /// To what.
        method: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The connection is gone.
    #[error("NRI plugin {plugin}: {method}: {why}")]
    Closed {
        /// Which.
        plugin: String,
        /// What was being asked.
        method: &'static str,
        /// Why.
        why: Arc<str>,
    },
    /// The answer is none.
    #[error("NRI plugin {plugin}: the answer to {method} cannot be understood")]
    Answer {
        /// Which.
        plugin: String,
        /// To what.
        method: &'static str,
        /// Why.
        source: prost::DecodeError,
    },
    /// The answer would need too much memory.
    #[error("NRI plugin {plugin}: the answer to {method} has {fields} fields or more")]
    TooManyFields {
        /// Which.
        plugin: String,
        /// To what.
        method: &'static str,
        /// How many.
        fields: usize,
    },
    /// What the runtime has to say is too long for the interface.
    #[error("NRI plugin {plugin}: {method} would take {length} bytes, more than 4 MiB")]
    TooLarge {
        /// Which.
        plugin: String,
        /// What.
        method: &'static str,
        /// How long.
        length: usize,
    },
    /// A plugin that does not understand a state of more than one message.
    #[error("NRI plugin {plugin} does not understand a state that is split into several messages")]
    Split {
        /// Which.
        plugin: String,
    },
    /// Two plugins want different things.
    #[error("NRI plugins {first} and {second} both set {field}")]
    Conflict {
        /// Of what, with its key if it has one.
        field: String,
        /// Who was first.
        first: String,
        /// Who came later.
        second: String,
    },
    /// A plugin asks to update the container that is being made by the way for others.
    #[error("NRI plugin {plugin} asks for an update of the container that is being created")]
    UpdateOfCreated {
        /// Which.
        plugin: String,
    },
    /// A validator does not accept what the others asked for.
    #[error("NRI plugin {plugin} rejects the adjustments: {reason}")]
    Rejected {
        /// Which.
        plugin: String,
        /// Its words.
        reason: String,
    },
}

impl Error {
    /// Which of the closed set of kinds.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Socket { .. } | Self::Closed { .. } => ErrorKind::Unavailable,
            Self::Taken { .. } | Self::Refused { .. } | Self::Rejected { .. } => ErrorKind::FailedPrecondition,
            Self::Installed { .. }
            | Self::Registration { .. }
            | Self::UnknownEvents { .. }
            | Self::Answer { .. }
            | Self::Split { .. }
            | Self::Conflict { .. }
            | Self::UpdateOfCreated { .. } => ErrorKind::InvalidArgument,
            Self::Deadline { .. } => ErrorKind::DeadlineExceeded,
            Self::TooLarge { .. } | Self::TooManyFields { .. } => ErrorKind::ResourceExhausted,
        }
    }

    /// Whether the plugin cannot be talked to any more; else it has said no, or the request is at fault.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Deadline { .. } | Self::Closed { .. } | Self::Answer { .. } | Self::TooManyFields { .. } | Self::Split { .. } => {
                true
            }
            Self::Socket { .. }
            | Self::Taken { .. }
            | Self::Installed { .. }
            | Self::Registration { .. }
            | Self::UnknownEvents { .. }
            | Self::Refused { .. }
            | Self::TooLarge { .. }
            | Self::Conflict { .. }
            | Self::UpdateOfCreated { .. }
            | Self::Rejected { .. } => false,
        }
    }
}
