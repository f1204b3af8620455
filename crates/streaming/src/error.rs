//! What goes wrong with the server itself. What goes wrong in a session is told to its client.

use std::{io, net::SocketAddr, path::PathBuf};

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
    /// A certificate or its key cannot be used.
    #[error("{what} {}", path.display())]
    Certificate {
        /// Which of the two.
        what: &'static str,
        /// Its file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not go together, or are of a kind that is not known.
    #[error("certificate and key for TLS")]
    Tls(#[source] rustls::Error),
    /// A certificate of our own could not be made.
    #[error("make a certificate")]
    SelfSigned(#[source] rcgen::Error),
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
            Self::Certificate { .. } | Self::Tls(_) => ErrorKind::InvalidArgument,
            Self::SelfSigned(_) => ErrorKind::Internal,
            Self::TooMany(_) => ErrorKind::ResourceExhausted,
            Self::Request(_) => ErrorKind::InvalidArgument,
        }
    }
}
