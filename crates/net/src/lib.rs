//! Gives a network namespace its interfaces: a CNI client and a built-in bridge behind one enum, and port maps.
//!
//! Synchronous and safe to call from many threads at once. The namespace is held by someone else (the pod's
//! supervisor) and is handed over as a path. Whatever has to be known to take a pod's network down again is returned
//! by [`Network::attach`] as an opaque record that the caller keeps with the pod.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::print_stderr, reason = "a test that cannot run here says so, and one prints what it measured"))]

pub mod bridge;
pub mod cni;
pub mod dns;
mod error;
mod netlink;
mod network;
#[cfg(test)]
mod testnet;

pub use bridge::{Bridge, loopback};
pub use cni::Cni;
pub use error::{CniError, Error, NetlinkError};
pub use network::{AttachRequest, Attached, Config, Network, Recovered, Status};
