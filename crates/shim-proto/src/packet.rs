//! Packets: messages with descriptors on a SOCK_SEQPACKET socket.
//!
//! A short message is the packet itself. A long one is a sealed memory file, sent as the *first* descriptor; the packet
//! is then its size, a bare CBOR number, which no envelope (an array) can be mistaken for.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{FileType, MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recv, recvmsg, sendmsg,
    },
};

use crate::{Error, FDS_MAX};

/// The longest packet in bytes; a longer message travels in a memory file. Well below the kernel's limit on a datagram
/// (`net.core.wmem_default`, 212992).
pub const INLINE_MAX: usize = 60 << 10;

/// The longest message in bytes: a plan with 10,000 mounts is a tenth of it.
pub const MESSAGE_MAX: u64 = 16 << 20;

/// Bytes in a packet that is received at most.
const PACKET_MAX: usize = 64 << 10;

/// Descriptors in a packet: the message's and a memory file.
const PACKET_FDS: usize = FDS_MAX + 1;

const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW);

/// A message ready to be sent, as often as it takes.
#[derive(Debug)]
pub struct Packet {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Packet {
    /// A packet of a message and its descriptors.
    ///
    /// # Errors
    /// [`Error::MessageTooLong`], [`Error::TooManyFds`], [`Error::Memfd`].
    pub fn new(message: Vec<u8>, mut fds: Vec<OwnedFd>) -> Result<Self, Error> {
        if fds.len() > FDS_MAX {
            return Err(Error::TooManyFds { limit: FDS_MAX });
        }
        if message.len() <= INLINE_MAX {
            return Ok(Self { bytes: message, fds });
        }
        let size = message.len() as u64;
        if size > MESSAGE_MAX {
            return Err(Error::MessageTooLong { size, limit: MESSAGE_MAX });
        }
        fds.insert(0, write_memfd(&message)?);
        Ok(Self { bytes: minicbor::to_vec(size).expect("a Vec takes everything"), fds })
    }

    /// Bytes of it that wait in memory.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Sends it, whole or not at all. Never waits.
    ///
    /// # Errors
    /// [`Error::Send`]; [`Error::would_block`] tells whether to try again.
    pub fn send(&self, socket: impl AsFd) -> Result<(), Error> {
        let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match sendmsg(&socket, &[IoSlice::new(&self.bytes)], &mut control, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(source) => return Err(Error::Send { size: self.bytes.len(), source }),
            }
        }
    }
}

/// A message that came.
#[derive(Debug)]
pub struct Message {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its descriptors, all close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Receives one message. Never waits.
///
/// # Errors
/// [`Error::Receive`] ([`Error::would_block`]: nothing there), [`Error::Closed`], and for a packet that is none of ours
/// [`Error::PacketTooLong`], [`Error::TooManyFds`], [`Error::MessageTooLong`], [`Error::MemfdRefused`]: the connection is
/// then not worth keeping.
pub fn receive(socket: impl AsFd) -> Result<Message, Error> {
    // Looking at the length first costs a system call, and saves a supervisor the memory of the longest packet.
    let mut bytes = vec![0; packet_length(&socket)?];
    // One more than allowed fits, so that a packet with too many is told apart from one with just enough.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FDS + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let got = retry(|| recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags))?;
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if fds.len() > PACKET_FDS || got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Error::TooManyFds { limit: FDS_MAX });
    }
    if got.flags.contains(ReturnFlags::TRUNC) {
        return Err(Error::PacketTooLong { limit: PACKET_MAX });
    }
    bytes.truncate(got.bytes);
    unpack(bytes, fds)
}

fn packet_length(socket: impl AsFd) -> Result<usize, Error> {
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK | RecvFlags::TRUNC;
    let (_, length) = retry(|| recv(&socket, &mut [0_u8; 1], flags))?;
    match length {
        // An empty packet is none of ours, and looks the same as the end (recv(2)).
        0 => Err(Error::Closed),
        1..=PACKET_MAX => Ok(length),
        _ => Err(Error::PacketTooLong { limit: PACKET_MAX }),
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Error> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Err(Error::Closed),
            other => return other.map_err(Error::Receive),
        }
    }
}

fn unpack(bytes: Vec<u8>, mut fds: Vec<OwnedFd>) -> Result<Message, Error> {
    // CBOR major type 0 in the top three bits: an unsigned number.
    if bytes.first().is_none_or(|first| first >> 5 != 0) {
        if fds.len() > FDS_MAX {
            return Err(Error::TooManyFds { limit: FDS_MAX });
        }
        return Ok(Message { bytes, fds });
    }
    let size: u64 = minicbor::decode(&bytes).map_err(Error::Envelope)?;
    if size > MESSAGE_MAX {
        return Err(Error::MessageTooLong { size, limit: MESSAGE_MAX });
    }
    if fds.is_empty() {
        return Err(Error::MemfdRefused { reason: "no descriptor came with it" });
    }
    let memfd = fds.remove(0);
    Ok(Message { bytes: read_memfd(&memfd, size)?, fds })
}

fn write_memfd(message: &[u8]) -> Result<OwnedFd, Error> {
    let size = message.len() as u64;
    let failed = |step| move |source| Error::Memfd { step, size, source };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = memfd_create("creel-message", flags).map_err(failed("memfd_create"))?;
    let mut rest = message;
    while !rest.is_empty() {
        let offset = size - rest.len() as u64;
        match rustix::io::pwrite(&memfd, rest, offset) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(source) => return Err(failed("pwrite")(source)),
        }
    }
    fcntl_add_seals(&memfd, SEALS).map_err(failed("F_ADD_SEALS"))?;
    Ok(memfd)
}

fn read_memfd(memfd: &OwnedFd, size: u64) -> Result<Vec<u8>, Error> {
    let failed = |step| move |source| Error::Memfd { step, size, source };
    // Only a memory file has seals; without them the sender could change or shrink it under the reader, and reading
    // anything else (a FIFO, a file on a dead network mount) could wait for ever.
    let seals = fcntl_get_seals(memfd).map_err(|_| Error::MemfdRefused { reason: "not a memory file" })?;
    if !seals.contains(SEALS) {
        return Err(Error::MemfdRefused { reason: "not sealed" });
    }
    let stat = fstat(memfd).map_err(failed("fstat"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || u64::try_from(stat.st_size) != Ok(size) {
        return Err(Error::MemfdRefused { reason: "not of the size that was announced" });
    }
    let length = usize::try_from(size).map_err(|_| Error::MessageTooLong { size, limit: MESSAGE_MAX })?;
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match rustix::io::pread(memfd, &mut bytes[filled..], filled as u64) {
            Ok(0) => return Err(Error::MemfdRefused { reason: "shorter than it says" }),
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(source) => return Err(failed("pread")(source)),
        }
    }
    Ok(bytes)
}
