//! Node Resource Interface: plugins that are told of pods and containers and may change them.
//!
//! Both ends of the wire are here: the multiplexer on the socket ([`frame`]), ttrpc on its two channels, the runtime's end
//! ([`Plugin`]) and the plugin's ([`Stub`]). What several plugins ask of one container is made one ([`Adjusting`]) or
//! refused where they contradict each other. Nothing is known here of pods and containers but what the messages say.
//!
//! **Invariants:** whatever a peer sends, memory stays bounded by a small multiple of one message (4 MiB); every call has
//! a deadline; a peer that breaks the protocol loses its connection and nothing else happens.
#![forbid(unsafe_code)]

mod bounds;
mod connection;
mod envelope;
mod error;
mod event;
pub mod frame;
mod installed;
mod merge;
mod plugin;
pub mod proto;
mod socket;
mod stub;

pub use bounds::check as check_bounds;
pub use envelope::{Code, Status};
pub use error::Error;
pub use event::{Events, Rpc};
pub use installed::{Installed, discover};
pub use merge::{Adjusting, Outcome, Updates};
pub use plugin::{Options, Origin, Plugin, Requests, UpdateRequest};
pub use socket::Listener;
pub use stub::{Called, Stub};
