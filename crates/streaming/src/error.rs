//! What goes wrong with the server itself. What goes wrong in a session is told to its client.

use std::{io, net::SocketAddr};

use model::ErrorKind;

/// Why there is no server, or no URL.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Too many URLs were made and not used yet.
    #[error("{0} streaming requests wait for their clients already")]
    TooMany(usize),
    /// A request that asks for nothing, or for what does not go together.
    #[error("{0}")]
    Request(&'static str),
}

impl Error {
    /// Which of the closed set of kinds.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Listen { .. } => ErrorKind::Unavailable,
            Self::TooMany(_) => ErrorKind::ResourceExhausted,
            Self::Request(_) => ErrorKind::InvalidArgument,
        }
    }
}
