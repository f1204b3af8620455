//! One connection to a daemon. It never makes the supervisor wait: what cannot be sent now is queued, and a daemon that
//! lets the queue run full loses the connection (not the exits: those are kept until acknowledged).

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use shim_proto::{Error, Event, Message, Packet, Reply, encode_event, encode_reply, receive};

/// Queued packets at most.
const QUEUE_PACKETS: usize = 512;
/// Queued bytes at most.
const QUEUE_BYTES: usize = 1 << 20;
/// Descriptors that wait in the queue at most.
const QUEUE_FDS: usize = 64;

/// A daemon that is connected.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    queue: VecDeque<(Packet, usize)>,
    bytes: usize,
    fds: usize,
}

/// The connection is of no more use.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The daemon left.
    Closed,
    /// The daemon does not read.
    Stalled,
    /// The daemon does not speak the protocol, or the socket failed.
    Protocol(Error),
}

impl Connection {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, queue: VecDeque::new(), bytes: 0, fds: 0 }
    }

    /// Receives a message; `None`: there is none now.
    pub(crate) fn receive(&self) -> Result<Option<Message>, Broken> {
        match receive(&self.socket) {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.would_block() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Answers a request.
    pub(crate) fn reply(&mut self, number: u64, reply: &Reply, fds: Vec<OwnedFd>) -> Result<(), Broken> {
        self.push(encode_reply(number, reply), fds)
    }

    /// Says something unasked.
    pub(crate) fn event(&mut self, event: &Event) -> Result<(), Broken> {
        self.push(encode_event(event), Vec::new())
    }

    /// Something waits to be sent.
    pub(crate) fn wants_to_send(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Sends what is queued, as far as it goes.
    pub(crate) fn flush(&mut self) -> Result<(), Broken> {
        while let Some((packet, fds)) = self.queue.front() {
            match packet.send(&self.socket) {
                Ok(()) => {
                    self.bytes -= packet.size();
                    self.fds -= fds;
                    self.queue.pop_front();
                }
                Err(error) if error.would_block() => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn push(&mut self, message: Vec<u8>, fds: Vec<OwnedFd>) -> Result<(), Broken> {
        let count = fds.len();
        let packet = Packet::new(message, fds)?;
        self.bytes += packet.size();
        self.fds += count;
        self.queue.push_back((packet, count));
        self.flush()?;
        if self.queue.len() > QUEUE_PACKETS || self.bytes > QUEUE_BYTES || self.fds > QUEUE_FDS {
            return Err(Broken::Stalled);
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        match error {
            Error::Closed => Self::Closed,
            error => Self::Protocol(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use shim_proto::{Incoming, decode_incoming};

    use super::*;

    #[test]
    fn a_daemon_that_does_not_read_is_dropped_and_one_that_does_gets_everything_in_order() {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let mut connection = Connection::new(ours);
        let warning = |n: usize| Event::Warning { container: None, message: n.to_string() };
        // Well beyond the socket's own buffer, then the daemon wakes up.
        let mut sent = 0;
        while connection.queue.len() < 100 {
            connection.event(&warning(sent)).unwrap();
            sent += 1;
        }
        assert!(connection.wants_to_send());
        for n in 0..sent {
            let bytes = receive(&theirs).unwrap().bytes;
            assert_eq!(decode_incoming(&bytes).unwrap(), Incoming::Event(warning(n)));
            connection.flush().unwrap();
        }
        assert!(!connection.wants_to_send());
        // Now it sleeps for ever.
        let broken = (0..10_000).find_map(|n| connection.event(&warning(n)).err());
        assert!(matches!(broken, Some(Broken::Stalled)), "{broken:?}");
    }
}
