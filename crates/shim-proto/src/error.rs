//! What can go wrong between daemon and supervisor.

use model::ErrorKind;
use rustix::io::Errno;

/// An operation of the protocol that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The packet did not leave.
    #[error("sendmsg of {size} bytes")]
    Send {
        /// Bytes in the packet.
        size: usize,
        /// Why.
        #[source]
        source: Errno,
    },
    /// No packet came.
    #[error("recvmsg")]
    Receive(#[source] Errno),
    /// The peer is gone.
    #[error("peer closed the connection")]
    Closed,
    /// The packet was cut off: longer than any of ours.
    #[error("packet is longer than {limit} bytes")]
    PacketTooLong {
        /// The longest accepted.
        limit: usize,
    },
    /// More descriptors came than any message has.
    #[error("packet has more than {limit} file descriptors")]
    TooManyFds {
        /// The most accepted.
        limit: usize,
    },
    /// The message does not fit anywhere.
    #[error("message of {size} bytes is longer than {limit} bytes")]
    MessageTooLong {
        /// Its size.
        size: u64,
        /// The longest accepted.
        limit: u64,
    },
    /// The memory file of a long message could not be made or read.
    #[error("memory file of a message of {size} bytes: {step}")]
    Memfd {
        /// What was being done.
        step: &'static str,
        /// Size of the message.
        size: u64,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The long message's descriptor is not what it has to be.
    #[error("memory file of a message: {reason}")]
    MemfdRefused {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The packet is not a message.
    #[error("packet is not a message")]
    Envelope(#[source] minicbor::decode::Error),
    /// The envelope is fine, what is in it is not known or broken.
    #[error("message {number} is not known or broken")]
    Body {
        /// Number of the request, so that it can be answered; 0: an event.
        number: u64,
        /// Why.
        #[source]
        source: minicbor::decode::Error,
    },
    /// The exit record is broken.
    #[error("exit record")]
    Record(#[source] minicbor::decode::Error),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Send { source: Errno::PERM | Errno::ACCESS, .. } => ErrorKind::PermissionDenied,
            Self::Send { source: Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::TOOMANYREFS, .. }
            | Self::Receive(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)
            | Self::MessageTooLong { .. } => ErrorKind::ResourceExhausted,
            Self::Send { .. } | Self::Receive(_) | Self::Closed => ErrorKind::Unavailable,
            Self::Memfd { .. } => ErrorKind::Internal,
            Self::PacketTooLong { .. }
            | Self::TooManyFds { .. }
            | Self::MemfdRefused { .. }
            | Self::Envelope(_)
            | Self::Record(_) => ErrorKind::Corrupted,
            Self::Body { .. } => ErrorKind::Unsupported,
        }
    }

    /// Whether the operation would only have had to wait.
    pub fn would_block(&self) -> bool {
        matches!(self, Self::Send { source: Errno::AGAIN, .. } | Self::Receive(Errno::AGAIN))
    }
}
