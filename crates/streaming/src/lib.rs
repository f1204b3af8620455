//! Exec, attach and port-forward: what CRI answers with a URL for, served there over SPDY/3.1 and WebSocket.
//!
//! One model of a session ([`Process`], streams that are read and written chunk by chunk), two framings below it. The
//! crate knows nothing of containers: it asks a [`Backend`]. Invariants: a URL works once, for 60 seconds, for the one
//! request that it was made for; no count or length of a client's becomes an allocation before it is checked; a client
//! that does not read holds up its own stream and nothing else, as long as it keeps to its windows.
#![forbid(unsafe_code)]

mod accept;
mod backend;
mod channel;
mod connection;
pub mod direct;
mod error;
mod forward;
#[cfg(fuzzing)]
pub mod fuzz;
mod inbox;
mod negotiate;
mod server;
mod session;
mod spdy;
mod status;
mod streams;
mod tls;
mod token;
mod ws;

#[cfg(test)]
mod tests;

pub use backend::{
    AttachRequest, Backend, ExecRequest, Exit, Failure, Input, Output, PortForwardRequest, Process, Resize, Size, Socket, Wanted,
};
pub use error::Error;
pub use server::{Options, Server};
pub use tls::Tls;
