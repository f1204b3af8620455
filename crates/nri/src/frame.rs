//! The wire: two channels in one stream of bytes (NRI's multiplexer), ttrpc's messages on each.
//!
//! A frame of the multiplexer is a channel and a length, four bytes each, and that many bytes of the channel. Frames do not
//! keep the bounds of messages. A message of ttrpc is ten bytes (length, stream, kind, flags) and its data; see PROTOCOL.md
//! of github.com/containerd/ttrpc. All numbers are big endian.

/// Most data of one message, ttrpc's own limit.
pub const MAX_MESSAGE: usize = 4 << 20;
const FRAME_HEADER: usize = 8;
const HEADER: usize = 10;
const MAX_FRAME: usize = MAX_MESSAGE + HEADER;
/// What a Go peer reads at once into its buffer: a first frame that is longer would not fit, and one that has the
/// beginning of the next message would lose it.
const FIRST_FRAME: usize = 4096;

/// A channel of the multiplexer, named after the service on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The plugin serves, the runtime calls.
    Plugin,
    /// The runtime serves, the plugin calls.
    Runtime,
}

impl Channel {
    fn number(self) -> u32 {
        match self {
            Self::Plugin => 1,
            Self::Runtime => 2,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        [Self::Plugin, Self::Runtime].into_iter().find(|channel| channel.number() == number)
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Calls a method.
    Request,
    /// Answers the request with the same stream number.
    Response,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// On which channel.
    pub channel: Channel,
    /// Which call, by a number of the caller's.
    pub stream: u32,
    /// Request or response.
    pub kind: Kind,
    /// An encoded envelope.
    pub data: Vec<u8>,
}

/// Bytes that are not of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Channel numbers are 1 and 2.
    #[error("channel {0} does not exist")]
    Channel(u32),
    /// Longer than a frame may be.
    #[error("a frame of {0} bytes")]
    FrameLength(u32),
    /// Longer than a message may be.
    #[error("a message of {0} bytes, more than 4 MiB")]
    MessageLength(u32),
    /// Neither request nor response; this interface has no streams.
    #[error("a message of kind {kind} with flags {flags}")]
    Kind {
        /// Byte 8 of the header.
        kind: u8,
        /// Byte 9.
        flags: u8,
    },
}

impl Message {
    /// As bytes for the socket.
    ///
    /// # Errors
    /// Its data is longer than [`MAX_MESSAGE`]; says how long.
    pub fn encode(&self) -> Result<Vec<u8>, usize> {
        let length = u32::try_from(self.data.len()).ok().filter(|n| *n as usize <= MAX_MESSAGE).ok_or(self.data.len())?;
        let mut message = Vec::with_capacity(HEADER + self.data.len());
        message.extend(length.to_be_bytes());
        message.extend(self.stream.to_be_bytes());
        message.extend([if self.kind == Kind::Request { 1 } else { 2 }, 0]);
        message.extend(&self.data);
        let mut bytes = Vec::with_capacity(message.len() + 2 * FRAME_HEADER);
        let (first, rest) = message.split_at(message.len().min(FIRST_FRAME));
        for part in [first, rest].into_iter().filter(|part| !part.is_empty()) {
            bytes.extend(self.channel.number().to_be_bytes());
            bytes.extend(u32::try_from(part.len()).expect("a message and its header fit").to_be_bytes());
            bytes.extend(part);
        }
        Ok(bytes)
    }
}

/// Takes a stream of bytes apart, however it is cut into pieces. Holds at most one unfinished message per channel.
#[derive(Debug, Default)]
pub struct Decoder {
    header: Vec<u8>,
    frame: Option<(Channel, usize)>,
    plugin: Partial,
    runtime: Partial,
}

/// A message that is not complete.
#[derive(Debug, Default)]
struct Partial {
    header: Vec<u8>,
    data: Vec<u8>,
}

impl Decoder {
    /// Takes the next bytes; adds the messages that they complete.
    ///
    /// # Errors
    /// The peer does not speak this protocol. Nothing more can be decoded.
    pub fn push(&mut self, mut bytes: &[u8], messages: &mut Vec<Message>) -> Result<(), Broken> {
        while !bytes.is_empty() {
            let Some((channel, left)) = self.frame else {
                fill(&mut self.header, FRAME_HEADER, &mut bytes);
                if self.header.len() == FRAME_HEADER {
                    self.frame = frame(&self.header)?;
                    self.header.clear();
                }
                continue;
            };
            let (mine, rest) = bytes.split_at(left.min(bytes.len()));
            let partial = match channel {
                Channel::Plugin => &mut self.plugin,
                Channel::Runtime => &mut self.runtime,
            };
            partial.push(channel, mine, messages)?;
            self.frame = Some((channel, left - mine.len())).filter(|(_, left)| *left > 0);
            bytes = rest;
        }
        Ok(())
    }
}

impl Partial {
    fn push(&mut self, channel: Channel, mut bytes: &[u8], messages: &mut Vec<Message>) -> Result<(), Broken> {
        while !bytes.is_empty() {
            fill(&mut self.header, HEADER, &mut bytes);
            if self.header.len() < HEADER {
                return Ok(());
            }
            let length = number(&self.header[..4]);
            if length as usize > MAX_MESSAGE {
                return Err(Broken::MessageLength(length));
            }
            let kind = match (self.header[8], self.header[9]) {
                (1, 0) => Kind::Request,
                (2, 0) => Kind::Response,
                (kind, flags) => return Err(Broken::Kind { kind, flags }),
            };
            fill(&mut self.data, length as usize, &mut bytes);
            if self.data.len() < length as usize {
                return Ok(());
            }
            let stream = number(&self.header[4..8]);
            self.header.clear();
            messages.push(Message { channel, stream, kind, data: std::mem::take(&mut self.data) });
        }
        Ok(())
    }
}

/// Moves bytes until there are `wanted`.
fn fill(buffer: &mut Vec<u8>, wanted: usize, bytes: &mut &[u8]) {
    let (taken, rest) = bytes.split_at(wanted.saturating_sub(buffer.len()).min(bytes.len()));
    buffer.extend_from_slice(taken);
    *bytes = rest;
}

fn frame(header: &[u8]) -> Result<Option<(Channel, usize)>, Broken> {
    let (channel, length) = (number(&header[..4]), number(&header[4..]));
    let channel = Channel::from_number(channel).ok_or(Broken::Channel(channel))?;
    if length as usize > MAX_FRAME {
        return Err(Broken::FrameLength(length));
    }
    Ok(Some((channel, length as usize)).filter(|(_, length)| *length > 0))
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(channel: Channel, data: Vec<u8>) -> Message {
        Message { channel, stream: 7, kind: Kind::Request, data }
    }

    #[test]
    fn the_bytes_are_the_interfaces() {
        let bytes = message(Channel::Plugin, b"hi".to_vec()).encode().unwrap();
        assert_eq!(bytes, [0, 0, 0, 1, 0, 0, 0, 12, 0, 0, 0, 2, 0, 0, 0, 7, 1, 0, b'h', b'i']);
        let response = Message { kind: Kind::Response, ..message(Channel::Runtime, Vec::new()) };
        assert_eq!(response.encode().unwrap(), [0, 0, 0, 2, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 7, 2, 0]);
    }

    #[test]
    fn a_go_peer_can_read_every_frame() {
        // The first fits its buffer, the second ends with the message.
        let bytes = message(Channel::Plugin, vec![1; 100_000]).encode().unwrap();
        assert_eq!(number(&bytes[4..8]), 4096);
        assert_eq!(number(&bytes[8 + 4096 + 4..][..4]) as usize, 100_010 - 4096);
        assert_eq!(message(Channel::Plugin, vec![1; 4086]).encode().unwrap().len(), 8 + 4096);
        assert_eq!(message(Channel::Plugin, vec![0; MAX_MESSAGE + 1]).encode(), Err(MAX_MESSAGE + 1));
    }

    #[test]
    fn what_is_not_the_protocol_is_named() {
        let broken = |bytes: &[u8]| Decoder::default().push(bytes, &mut Vec::new()).unwrap_err();
        assert_eq!(broken(b"GET / HTTP/1.1\r\n"), Broken::Channel(0x4745_5420));
        assert_eq!(broken(&[0; 8]), Broken::Channel(0));
        assert_eq!(broken(&[0, 0, 0, 1, 0xff, 0, 0, 0]), Broken::FrameLength(0xff00_0000));
        let inner = |header: [u8; 10]| [&[0, 0, 0, 1, 0, 0, 0, 10], &header[..]].concat();
        assert_eq!(broken(&inner([0, 0x40, 0, 1, 0, 0, 0, 1, 1, 0])), Broken::MessageLength(0x40_0001));
        assert_eq!(broken(&inner([0, 0, 0, 0, 0, 0, 0, 1, 3, 1])), Broken::Kind { kind: 3, flags: 1 });
        assert_eq!(broken(&inner([0, 0, 0, 0, 0, 0, 0, 1, 1, 2])), Broken::Kind { kind: 1, flags: 2 });
    }

    proptest! {
        #[test]
        fn however_it_is_cut(lengths in prop::collection::vec((0..9000_usize, any::<bool>()), 1..6), cut in 1..5000_usize) {
            let channel = |plugin| if plugin { Channel::Plugin } else { Channel::Runtime };
            let sent: Vec<_> = lengths.iter().map(|(n, plugin)| message(channel(*plugin), vec![*n as u8; *n])).collect();
            let bytes: Vec<u8> = sent.iter().flat_map(|message| message.encode().unwrap()).collect();
            let (mut decoder, mut got) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(cut) {
                decoder.push(piece, &mut got).unwrap();
            }
            prop_assert_eq!(got, sent);
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Decoder::default().push(&bytes, &mut Vec::new());
        }
    }
}
