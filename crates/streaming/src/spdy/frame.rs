//! Frames: their heads, and the few that a server writes.

use super::{Violation, headers::Deflater};

/// Bytes of a control frame's payload at most.
const CONTROL: u32 = 64 << 10;
/// Bytes of a frame's head.
pub(super) const HEAD: usize = 8;
/// The flag of a stream's last frame.
const FIN: u8 = 1;

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Reason {
    /// REFUSED_STREAM
    Refused = 3,
    /// CANCEL
    Cancel = 5,
    /// FLOW_CONTROL_ERROR
    FlowControl = 7,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Bytes of a stream.
    Data { id: u32, fin: bool, length: u32 },
    /// Anything else.
    Control { kind: u16, fin: bool, length: u32 },
}

impl Head {
    pub(super) fn parse(head: [u8; HEAD]) -> Result<Self, Violation> {
        let [a, b, c, d, flags, e, f, g] = head;
        let first = u32::from_be_bytes([a, b, c, d]);
        let (fin, length) = (flags & FIN != 0, u32::from_be_bytes([0, e, f, g]));
        if first >> 31 == 0 {
            return Ok(Self::Data { id: first, fin, length });
        }
        let version = u16::from_be_bytes([a & 0x7f, b]);
        if version != 3 {
            return Err(Violation::Version(version));
        }
        if length > CONTROL {
            return Err(Violation::TooLong(length));
        }
        Ok(Self::Control { kind: u16::from_be_bytes([c, d]), fin, length })
    }
}

/// A control frame of a client, as far as it matters.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Control<'a> {
    /// Opens a stream; its header block.
    SynStream { id: u32, block: &'a [u8] },
    /// More headers, or an answer to a stream that we never opened; the block is of the same zlib stream.
    Block(&'a [u8]),
    /// Gives a stream up.
    Reset { id: u32 },
    /// To be said back.
    Ping { id: u32 },
    /// How wide windows are at first, if that is among the settings.
    Settings { first_window: Option<u32> },
    /// So many bytes more may be sent.
    Window { id: u32, more: u32 },
    /// Of no interest: good-byes.
    Other,
}

/// SETTINGS_INITIAL_WINDOW_SIZE
const FIRST_WINDOW: u32 = 7;

impl<'a> Control<'a> {
    pub(super) fn parse(kind: u16, payload: &'a [u8]) -> Result<Self, Violation> {
        let id = || {
            let bytes = payload.first_chunk().ok_or(Violation::Short(kind))?;
            Ok(u32::from_be_bytes(*bytes) & 0x7fff_ffff)
        };
        let block = |at| payload.get(at..).ok_or(Violation::Short(kind));
        let second = || {
            let bytes = payload.get(4..).and_then(<[u8]>::first_chunk).ok_or(Violation::Short(kind))?;
            Ok(u32::from_be_bytes(*bytes))
        };
        Ok(match kind {
            1 => Self::SynStream { id: id()?, block: block(10)? },
            2 | 8 => Self::Block(block(4)?),
            3 => Self::Reset { id: id()? },
            4 => Self::Settings { first_window: settings(payload)? },
            6 => Self::Ping { id: u32::from_be_bytes(*payload.first_chunk().ok_or(Violation::Short(kind))?) },
            9 => Self::Window { id: id()?, more: second()? & 0x7fff_ffff },
            _ => Self::Other,
        })
    }
}

/// Their number is a claim: what is read is what is there.
fn settings(payload: &[u8]) -> Result<Option<u32>, Violation> {
    let (count, rest) = payload.split_first_chunk().ok_or(Violation::Short(4))?;
    let (settings, left) = rest.as_chunks::<8>();
    if !left.is_empty() || usize::try_from(u32::from_be_bytes(*count)) != Ok(settings.len()) {
        return Err(Violation::Settings);
    }
    let mut first_window = None;
    for [_flags, a, b, c, value @ ..] in settings {
        if u32::from_be_bytes([0, *a, *b, *c]) == FIRST_WINDOW {
            first_window = Some(u32::from_be_bytes(*value));
        }
    }
    Ok(first_window)
}

fn control(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("our control frames are short").to_be_bytes();
    let mut frame = vec![0x80, 3];
    frame.extend(kind.to_be_bytes());
    frame.extend([0, length[1], length[2], length[3]]);
    frame.extend(payload);
    frame
}

fn pair(kind: u16, a: u32, b: u32) -> Vec<u8> {
    control(kind, &[a.to_be_bytes(), b.to_be_bytes()].concat())
}

/// SYN_REPLY without headers.
pub(super) fn reply(id: u32, deflater: &mut Deflater) -> Vec<u8> {
    control(2, &[&id.to_be_bytes()[..], &deflater.no_headers()].concat())
}

/// RST_STREAM.
pub(super) fn reset(id: u32, reason: Reason) -> Vec<u8> {
    pair(3, id, reason as u32)
}

/// PING.
pub(super) fn ping(id: u32) -> Vec<u8> {
    control(6, &id.to_be_bytes())
}

/// GOAWAY: all is well, and over.
pub(super) fn go_away(last: u32) -> Vec<u8> {
    pair(7, last, 0)
}

/// WINDOW_UPDATE: so many bytes more.
pub(super) fn window(id: u32, more: u32) -> Vec<u8> {
    pair(9, id, more)
}

/// The head of a data frame. `length` is at most [`crate::channel::CHUNK`].
pub(super) fn data(id: u32, length: usize) -> [u8; HEAD] {
    head(id, 0, length)
}

/// An empty data frame, the last of its stream.
pub(super) fn fin(id: u32) -> [u8; HEAD] {
    head(id, FIN, 0)
}

fn head(id: u32, flags: u8, length: usize) -> [u8; HEAD] {
    let ([a, b, c, d], [_, e, f, g]) = (id.to_be_bytes(), u32::try_from(length).expect("chunks are short").to_be_bytes());
    [a, b, c, d, flags, e, f, g]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_told_apart_and_limited() {
        assert_eq!(Head::parse(data(5, 7)).unwrap(), Head::Data { id: 5, fin: false, length: 7 });
        assert_eq!(Head::parse(fin(5)).unwrap(), Head::Data { id: 5, fin: true, length: 0 });
        let control = |length: u32| {
            let [_, a, b, c] = length.to_be_bytes();
            Head::parse([0x80, 3, 0, 6, 0, a, b, c])
        };
        assert_eq!(control(CONTROL).unwrap(), Head::Control { kind: 6, fin: false, length: CONTROL });
        assert_eq!(control(CONTROL + 1).unwrap_err(), Violation::TooLong(CONTROL + 1));
        assert_eq!(Head::parse([0x80, 2, 0, 1, 0, 0, 0, 0]).unwrap_err(), Violation::Version(2));
    }

    #[test]
    fn short_frames_are_refused() {
        for (kind, least) in [(1, 10), (2, 4), (3, 4), (4, 4), (6, 4), (8, 4), (9, 8)] {
            assert!(Control::parse(kind, &vec![0; least]).is_ok());
            assert_eq!(Control::parse(kind, &vec![0; least - 1]).unwrap_err(), Violation::Short(kind));
        }
        for kind in [0, 5, 7, 77] {
            assert_eq!(Control::parse(kind, &[]).unwrap(), Control::Other);
        }
    }

    #[test]
    fn settings_are_as_many_as_they_say() {
        let two = [0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 100, 1, 0, 0, 7, 0, 1, 0, 0];
        assert_eq!(Control::parse(4, &two), Ok(Control::Settings { first_window: Some(65_536) }));
        assert_eq!(Control::parse(4, &[0; 4]), Ok(Control::Settings { first_window: None }));
        for claim in [&two[..19], &two[..12], &[0xff; 4], &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 7, 0, 0, 0, 1]] {
            assert_eq!(Control::parse(4, claim), Err(Violation::Settings));
        }
    }
}
