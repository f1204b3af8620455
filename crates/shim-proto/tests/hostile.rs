//! Whatever comes, the decoders answer; packets that are none of ours are refused and their descriptors closed.
#![forbid(unsafe_code)]

mod samples;

use std::{
    io::{IoSlice, Write},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use proptest::prelude::*;
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair},
};
use shim_proto::{Error, FDS_MAX, INLINE_MAX, MESSAGE_MAX, Packet, receive};

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn raw_send(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::DONTWAIT).unwrap();
}

fn get(socket: &OwnedFd) -> Result<shim_proto::Message, Error> {
    receive(socket)
}

fn memfd(content: &[u8], seals: SealFlags) -> OwnedFd {
    let fd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    let mut file = std::fs::File::from(fd);
    file.write_all(content).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file.into()
}

const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW);

#[test]
fn short_and_long_messages_travel_with_descriptors() {
    let (here, there) = pair();
    for size in [1, INLINE_MAX, INLINE_MAX + 1, 3 << 20] {
        // 0x82 as the first byte: looks like an envelope.
        let message = vec![0x82; size];
        let fds = (0..FDS_MAX).map(|_| there.try_clone().unwrap()).collect();
        Packet::new(message.clone(), fds).unwrap().send(&here).unwrap();
        let got = get(&there).unwrap();
        assert!(got.bytes == message, "{size}");
        assert_eq!(got.fds.len(), FDS_MAX);
    }
    assert!(get(&there).unwrap_err().would_block());
    drop(here);
    assert!(matches!(get(&there), Err(Error::Closed)));
}

#[test]
fn what_does_not_fit_is_not_sent() {
    let too_long = Packet::new(vec![0x82; usize::try_from(MESSAGE_MAX).unwrap() + 1], Vec::new());
    assert!(matches!(too_long, Err(Error::MessageTooLong { .. })));
    let (here, there) = pair();
    let fds = (0..=FDS_MAX).map(|_| there.try_clone().unwrap()).collect();
    assert!(matches!(Packet::new(vec![0x82], fds), Err(Error::TooManyFds { .. })));
    // A peer that does not read: sending fails at once.
    let packet = Packet::new(vec![0x82; INLINE_MAX], Vec::new()).unwrap();
    let error = (0..1000).find_map(|_| packet.send(&here).err()).expect("the socket has no end");
    assert!(error.would_block());
}

#[test]
fn refused_packets() {
    let (here, there) = pair();
    raw_send(&here, &vec![0x82; (64 << 10) + 1], &[]);
    assert!(matches!(get(&there), Err(Error::PacketTooLong { .. })));
    // It stays where it is: such a connection is over.
    assert!(matches!(get(&there), Err(Error::PacketTooLong { .. })));
    let (here, there) = pair();
    raw_send(&here, &[0x82], &[there.as_fd(); 253]);
    assert!(matches!(get(&there), Err(Error::TooManyFds { .. })));
    raw_send(&here, &[0x82], &[there.as_fd(); FDS_MAX + 1]);
    assert!(matches!(get(&there), Err(Error::TooManyFds { .. })));
    // A long message without its memory file; of 1 EiB; cut number.
    raw_send(&here, &[0x19, 0x01, 0x00], &[]);
    assert!(matches!(get(&there), Err(Error::MemfdRefused { .. })));
    raw_send(&here, &[0x1b, 0x10, 0, 0, 0, 0, 0, 0, 0], &[there.as_fd()]);
    assert!(matches!(get(&there), Err(Error::MessageTooLong { .. })));
    raw_send(&here, &[0x1b, 0x10], &[there.as_fd()]);
    assert!(matches!(get(&there), Err(Error::Envelope(_))));
    // Not a memory file, not sealed (its content could change while it is read), not of the size announced.
    raw_send(&here, &[0x05], &[there.as_fd()]);
    assert!(matches!(get(&there), Err(Error::MemfdRefused { .. })));
    raw_send(&here, &[0x05], &[memfd(b"12345", SealFlags::empty()).as_fd()]);
    assert!(matches!(get(&there), Err(Error::MemfdRefused { .. })));
    raw_send(&here, &[0x06], &[memfd(b"12345", SEALS).as_fd()]);
    assert!(matches!(get(&there), Err(Error::MemfdRefused { .. })));
    raw_send(&here, &[0x05], &[memfd(b"12345", SEALS).as_fd()]);
    assert_eq!(get(&there).unwrap().bytes, b"12345");
}

#[test]
fn lengths_that_lie_allocate_nothing() {
    // Byte string, text, array and map of 2^63 bytes or items in place of each field of a message.
    for (_, bytes) in samples::encoded() {
        for at in 0..bytes.len() {
            for head in [0x5b, 0x7b, 0x9b, 0xbb] {
                let mut lie = bytes[..at].to_vec();
                lie.extend([head, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
                let _ = shim_proto::decode_request(&lie);
                let _ = shim_proto::decode_incoming(&lie);
                let _ = shim_proto::ExitRecord::from_bytes(&lie);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = shim_proto::decode_request(&bytes);
        let _ = shim_proto::decode_incoming(&bytes);
        let _ = shim_proto::ExitRecord::from_bytes(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic(
        pick in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let all = samples::encoded();
        let mut bytes = pick.get(&all).1.clone();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = shim_proto::decode_request(&bytes);
        let _ = shim_proto::decode_incoming(&bytes);
    }
}
