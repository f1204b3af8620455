//! Packets with file descriptors between processes of ours (SOCK_SEQPACKET, SCM_RIGHTS).

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};

/// The most descriptors that one packet carries here (the kernel's SCM_MAX_FD is 253).
pub const MAX_FDS: usize = 16;

/// Who is at the other end of a socket (unix(7), SO_PEERCRED).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id when it connected.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A packet that has arrived.
#[derive(Debug)]
pub struct Packet {
    /// Bytes of it; 0 when the other end is closed.
    pub length: usize,
    /// Descriptors, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Two connected packet sockets, close-on-exec.
///
/// # Errors
/// socketpair(2).
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one packet. A peer that is gone is EPIPE, not a signal.
///
/// # Errors
/// EMSGSIZE: too long or more than [`MAX_FDS`] descriptors. EAGAIN: a non-blocking socket is full.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    if fds.len() > MAX_FDS {
        return Err(Errno::MSGSIZE);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::MSGSIZE);
    }
    loop {
        match sendmsg(socket.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == bytes.len() => return Ok(()),
            Ok(_) => return Err(Errno::MSGSIZE),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Receives one packet into `buffer`.
///
/// # Errors
/// EMSGSIZE: it was longer than the buffer or carried too many descriptors (they are closed). EAGAIN: nothing there.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Packet, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut parts = [IoSliceMut::new(buffer)];
        match recvmsg(socket.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    Ok(Packet { length: message.bytes, fds })
}

/// Who is at the other end.
///
/// # Errors
/// getsockopt(2).
pub fn peer(socket: impl AsFd) -> Result<Peer, Errno> {
    let credentials = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(Peer { pid: credentials.pid.as_raw_nonzero().get(), uid: credentials.uid.as_raw(), gid: credentials.gid.as_raw() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_keep_their_borders_and_carry_descriptors() {
        let (a, b) = pair().unwrap();
        send(&a, b"one", &[a.as_fd(), b.as_fd()]).unwrap();
        send(&a, b"two", &[]).unwrap();
        let mut buffer = [0; 8];
        let first = receive(&b, &mut buffer).unwrap();
        assert_eq!((first.length, first.fds.len(), &buffer[..3]), (3, 2, &b"one"[..]));
        assert!(first.fds.iter().all(|fd| rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC)));
        drop(first);
        assert_eq!(receive(&b, &mut buffer).unwrap().length, 3);
        send(&a, b"longer than that", &[]).unwrap();
        assert_eq!(receive(&b, &mut buffer).unwrap_err(), Errno::MSGSIZE);
        drop(a);
        assert_eq!(receive(&b, &mut buffer).unwrap().length, 0);
        assert_eq!(send(&b, b"x", &[]), Err(Errno::PIPE));
        assert_eq!(peer(&b).unwrap().uid, 0);
    }
}
