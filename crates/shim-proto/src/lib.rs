//! What daemon and supervisor say to each other: one message is one packet of a SOCK_SEQPACKET unix socket, CBOR with
//! explicit field numbers, file descriptors beside it.
//!
//! **Invariant:** append only. A variant or field number is never reused or changed in meaning, because an old
//! supervisor outlives the daemon that started it and meets a newer one. What is not known is answered with an error
//! (`Request`), or skipped (fields).
#![forbid(unsafe_code)]

mod codec;
mod error;
mod message;
mod packet;
mod record;

pub use codec::{Incoming, decode_incoming, decode_request, encode_event, encode_reply, encode_request};
pub use error::Error;
pub use message::{
    ContainerEntry, Event, ExecEntry, ExecPlanWithStdin, Exit, Failure, FdRole, Reply, Request, Scope, State, Status,
};
pub use packet::{INLINE_MAX, MESSAGE_MAX, Message, Packet, receive};
pub use record::ExitRecord;

/// Version of the protocol. Both sides must have the same: it changes only if appending is not enough.
pub const VERSION: u32 = 1;

/// What this side knows of version [`VERSION`]; grows with every addition. For information: the daemon does not send
/// what a supervisor of a lower revision lacks.
pub const REVISION: u32 = 1;

/// File descriptors that may come with one packet.
pub const FDS_MAX: usize = 64;
