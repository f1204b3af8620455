//! A netlink socket that sends requests and waits for their acknowledgements.

use std::time::Duration;

use netlink_sys::{
    Socket as RawSocket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, sockopt},
};

use super::message::{Attributes, HEADER, Message, NLM_F_ACK};
use crate::NetlinkError;

/// The kernel carries out requests inside of sendmsg(2), so that the answer is there when that returns; the deadline
/// is for kernels gone wrong.
const DEADLINE: Duration = Duration::from_secs(10);
/// The kernel cuts dumps into pieces of at most 32 KiB (netlink_dump, min_dump_alloc).
const BUFFER: usize = 32 * 1024;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Which part of the kernel to speak to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    /// Links, addresses, routes.
    Route,
    /// nftables, conntrack.
    Netfilter,
}

/// One message of an answer, without its netlink header.
type Reply = Vec<u8>;

/// A socket bound to the network namespace of the thread that opened it, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Socket {
    raw: RawSocket,
    sequence: u32,
    buffer: Vec<u8>,
}

fn socket_error(errno: Errno) -> NetlinkError {
    match errno {
        Errno::AGAIN => NetlinkError::Timeout,
        other => NetlinkError::Socket(other.into()),
    }
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(family: Family) -> Result<Self, NetlinkError> {
        let protocol = match family {
            Family::Route => NETLINK_ROUTE,
            Family::Netfilter => NETLINK_NETFILTER,
        };
        let open = || {
            let mut raw = RawSocket::new(protocol)?;
            raw.bind_auto()?;
            raw.connect(&SocketAddr::new(0, 0))?;
            // Errors come with the kernel's own words, and without a copy of the request.
            raw.set_ext_ack(true)?;
            raw.set_cap_ack(true)?;
            Ok(raw)
        };
        let raw = open().map_err(NetlinkError::Socket)?;
        sockopt::set_socket_timeout(&raw, sockopt::Timeout::Recv, Some(DEADLINE)).map_err(socket_error)?;
        Ok(Self { raw, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Sends requests in one packet and waits until each is acknowledged. All are tried; the first error is returned
    /// with the index of its request.
    pub(crate) fn execute(&mut self, requests: &[Message]) -> Result<(), (usize, NetlinkError)> {
        self.transact(requests, |_| NLM_F_ACK).map(drop)
    }

    /// Sends one request and returns all messages of the answer.
    pub(crate) fn query(&mut self, request: &Message) -> Result<Vec<Reply>, NetlinkError> {
        self.transact(std::slice::from_ref(request), |_| NLM_F_ACK).map_err(|(_, error)| error)
    }

    /// Sends the messages of a transaction (nfnetlink batch): everything or nothing is done. Only the last message is
    /// acknowledged, so that the answer stays small whatever the length of the batch.
    pub(crate) fn commit(&mut self, begin: Message, body: &[Message], end: Message) -> Result<(), (usize, NetlinkError)> {
        let Some(last) = body.len().checked_sub(1) else { return Ok(()) };
        let mut all = Vec::with_capacity(body.len() + 2);
        all.push(begin);
        all.extend_from_slice(body);
        all.push(end);
        match self.transact(&all, |index| if index == last + 1 { NLM_F_ACK } else { 0 }) {
            Ok(_) => Ok(()),
            Err((index, error)) => Err((index.saturating_sub(1), error)),
        }
    }

    fn transact(&mut self, requests: &[Message], flags: impl Fn(usize) -> u16) -> Result<Vec<Reply>, (usize, NetlinkError)> {
        let first = self.sequence.wrapping_add(1);
        let mut packet = Vec::with_capacity(requests.iter().map(Message::len).sum());
        let mut awaited = 0;
        for (index, request) in requests.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let extra = flags(index);
            awaited += usize::from(extra & NLM_F_ACK != 0);
            request.finish(self.sequence, extra, &mut packet);
        }
        rustix::net::send(&self.raw, &packet, SendFlags::empty()).map_err(|e| (0, socket_error(e)))?;
        let mut answer = Answer { first, count: requests.len(), awaited, replies: Vec::new(), refused: None };
        loop {
            // After an error, the rest of the answer is already queued or does not come.
            let flags = if answer.refused.is_some() { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
            let length = match rustix::net::recv(&self.raw, &mut self.buffer[..], flags | RecvFlags::TRUNC) {
                Ok((_, length)) => length,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) if answer.refused.is_some() => break,
                Err(errno) => return Err((0, socket_error(errno))),
            };
            let packet = self.buffer.get(..length).ok_or((0, NetlinkError::Malformed))?;
            answer.read(packet).ok_or((0, NetlinkError::Malformed))?;
            if answer.awaited == 0 && answer.refused.is_none() {
                break;
            }
        }
        match answer.refused {
            Some(refused) => Err(refused),
            None => Ok(answer.replies),
        }
    }
}

/// What has come of the answer to a packet of requests.
struct Answer {
    first: u32,
    count: usize,
    awaited: usize,
    replies: Vec<Reply>,
    refused: Option<(usize, NetlinkError)>,
}

impl Answer {
    /// Takes in one packet. `None`: it is malformed.
    fn read(&mut self, mut packet: &[u8]) -> Option<()> {
        while !packet.is_empty() {
            let header = packet.first_chunk::<HEADER>()?;
            let length = usize::try_from(u32::from_ne_bytes(header[0..4].try_into().ok()?)).ok()?;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let flags = u16::from_ne_bytes([header[6], header[7]]);
            let sequence = u32::from_ne_bytes(header[8..12].try_into().ok()?);
            let body = packet.get(HEADER..length)?;
            let index = usize::try_from(sequence.wrapping_sub(self.first)).ok()?;
            // Answers to a request that timed out earlier may still be queued.
            if index < self.count {
                match kind {
                    NLMSG_ERROR => self.acknowledge(index, flags, body)?,
                    NLMSG_DONE => self.awaited = self.awaited.saturating_sub(1),
                    _ => self.replies.push(body.to_vec()),
                }
            }
            packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Some(())
    }

    fn acknowledge(&mut self, index: usize, flags: u16, body: &[u8]) -> Option<()> {
        let errno = i32::from_ne_bytes(*body.first_chunk::<4>()?);
        self.awaited = self.awaited.saturating_sub(1);
        if errno == 0 || self.refused.is_some() {
            return Some(());
        }
        let mut message = String::new();
        if flags & NLM_F_ACK_TLVS != 0 {
            // The request's header follows the error number, and with it the whole request unless it was capped.
            let request = usize::try_from(u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?)).ok()?;
            let skip = if flags & NLM_F_CAPPED != 0 { HEADER } else { request.next_multiple_of(4) };
            let attributes = Attributes(body.get(4 + skip..).unwrap_or_default());
            message = attributes.get(NLMSGERR_ATTR_MSG).map(super::attribute_text).unwrap_or_default();
        }
        let errno = Errno::from_raw_os_error(errno.checked_neg()?);
        self.refused = Some((index, NetlinkError::Refused { errno, message }));
        Some(())
    }
}
