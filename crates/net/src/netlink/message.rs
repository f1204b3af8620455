//! Encodes netlink messages and reads attributes (netlink(7); include/uapi/linux/netlink.h).

use std::iter;

/// Length, type, flags, sequence, port id.
pub(crate) const HEADER: usize = 16;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;

/// One request under construction. Sequence number and length are filled in when it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

impl Message {
    /// A request of this type; `family_header` is the fixed part that the family puts in front of the attributes.
    pub(crate) fn new(kind: u16, flags: u16, family_header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(family_header);
        let mut message = Self { bytes };
        message.pad();
        message
    }

    fn pad(&mut self) {
        self.bytes.resize(align(self.bytes.len()), 0);
    }

    /// Appends an attribute.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        // Attributes written here are names, addresses and register contents; the longest list (elements of a set) is
        // cut into messages far below 64 KiB by its caller.
        let length = u16::try_from(value.len() + 4).expect("netlink attribute is shorter than 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// Appends a number in the machine's byte order (rtnetlink).
    pub(crate) fn put_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Appends a number in network byte order (nfnetlink).
    pub(crate) fn put_be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Appends a NUL-terminated string.
    pub(crate) fn put_text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut value = Vec::with_capacity(text.len() + 1);
        value.extend_from_slice(text.as_bytes());
        value.push(0);
        self.put(kind, &value)
    }

    /// Appends bytes without an attribute header (a family header inside of a nest, as VETH_INFO_PEER has).
    pub(crate) fn put_raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends an attribute made of attributes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.put(kind | NLA_F_NESTED, &[]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("netlink nest is shorter than 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// How long it is so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the finished message to a packet.
    pub(super) fn finish(&self, sequence: u32, extra_flags: u16, packet: &mut Vec<u8>) {
        let start = packet.len();
        packet.extend_from_slice(&self.bytes);
        let length = u32::try_from(self.bytes.len()).expect("netlink message is shorter than 4 GiB");
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | extra_flags;
        packet[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        packet[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        packet[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// The attributes in a piece of an answer. Ends at the first one whose length is wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// All of them, type and value.
    pub(crate) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        iter::from_fn(move || {
            let (head, _) = rest.split_first_chunk::<4>()?;
            let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
            let kind = u16::from_ne_bytes([head[2], head[3]]) & NLA_TYPE_MASK;
            let value = rest.get(4..length)?;
            rest = rest.get(align(length)..).unwrap_or_default();
            Some((kind, value))
        })
    }

    /// The first one of this type.
    pub(crate) fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }
}

/// A NUL-terminated string out of an attribute.
pub(crate) fn attribute_text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

/// A number in the machine's byte order out of an attribute.
pub(crate) fn attribute_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.first_chunk::<4>().copied()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut message = Message::new(16, 0x600, &[1, 2, 3]);
        message.put_text(3, "eth0").nest(18, |m| {
            m.put_u32(1, 7).put(2, &[9; 5]);
        });
        let mut packet = Vec::new();
        message.finish(42, NLM_F_ACK, &mut packet);
        assert_eq!(packet[0..4], u32::try_from(packet.len()).unwrap().to_ne_bytes());
        assert_eq!(packet[6..8], (0x600 | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        let attributes = Attributes(&packet[HEADER + 4..]);
        assert_eq!(attribute_text(attributes.get(3).unwrap()), "eth0");
        let nest = Attributes(attributes.get(18).unwrap());
        assert_eq!(attribute_u32(nest.get(1).unwrap()), Some(7));
        assert_eq!(nest.get(2).unwrap(), [9; 5]);
        assert_eq!(nest.get(4), None);
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_reader(bytes: Vec<u8>) {
            prop_assert!(Attributes(&bytes).iter().count() <= bytes.len());
        }
    }
}
