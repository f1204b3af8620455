//! Netlink, as far as links, addresses, routes, nftables and conntrack need it: one encoder and one synchronous socket.

mod message;
mod socket;

pub(crate) use message::{Attributes, Message, attribute_text, attribute_u32};
pub(crate) use socket::{Family, Socket};
