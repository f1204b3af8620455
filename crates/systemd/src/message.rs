//! D-Bus messages as bytes (D-Bus specification, "Marshaling" and "Message Format"), as far as they are needed here.

use std::collections::BTreeMap;

use crate::Error;

/// No message that we wait for is near this; the specification allows 128 MiB.
pub(crate) const MAX: usize = 1 << 20;
/// The part of the header that has a fixed length.
pub(crate) const FIXED: usize = 16;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A method call; its arguments are in `body`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'static str,
    pub(crate) signature: &'a str,
    pub(crate) body: &'a [u8],
}

/// Bytes of a message in the making. Everything is aligned to its own size, counted from the start.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn string(&mut self, text: &str) {
        self.u32(length(text.len()));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    pub(crate) fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).expect("signatures are constants of a few letters"));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    /// An array: its length counts neither itself nor the gap before the first element.
    pub(crate) fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let place = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        elements(self);
        let size = length(self.0.len() - start);
        self.0[place..place + 4].copy_from_slice(&size.to_le_bytes());
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("what is sent is far below 4 GiB")
}

/// The bytes of a call.
pub(crate) fn encode(call: &Call<'_>, serial: u32) -> Vec<u8> {
    let mut out = Writer::default();
    // Little endian, method call, no flags, version 1.
    out.0.extend_from_slice(&[b'l', 1, 0, 1]);
    out.u32(length(call.body.len()));
    out.u32(serial);
    out.array(8, |out| {
        let mut field = |code: u8, kind: &str, text: &str| {
            out.align(8);
            out.0.push(code);
            out.signature(kind);
            if kind == "g" { out.signature(text) } else { out.string(text) }
        };
        field(PATH, "o", call.path);
        field(INTERFACE, "s", call.interface);
        field(MEMBER, "s", call.member);
        field(DESTINATION, "s", call.destination);
        if !call.signature.is_empty() {
            field(SIGNATURE, "g", call.signature);
        }
    });
    out.align(8);
    out.0.extend_from_slice(call.body);
    out.finish()
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Return { to: u32, body: Vec<u8> },
    Error { to: u32, name: String, body: Vec<u8> },
    Signal { interface: String, member: String, body: Vec<u8> },
    Other,
}

/// How many bytes follow the fixed part of a header.
pub(crate) fn rest(fixed: &[u8; FIXED]) -> Result<usize, Error> {
    if fixed[0] != b'l' {
        // Everybody on the system bus of a little-endian machine is little-endian.
        return Err(Error::Message("not little-endian"));
    }
    let number = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]) as usize;
    let (body, fields) = (number(4), number(12));
    if body > MAX || fields > MAX {
        return Err(Error::Message("longer than 1 MiB"));
    }
    Ok(fields.next_multiple_of(8) + body)
}

/// A whole message, its fixed part first.
pub(crate) fn decode(bytes: &[u8]) -> Result<Message, Error> {
    let mut reader = Reader { bytes, at: 0 };
    let head = reader.take(4)?;
    let kind = head[1];
    let body_length = reader.u32()? as usize;
    reader.u32()?;
    let end = reader.u32()? as usize + FIXED;
    let mut fields = BTreeMap::new();
    while reader.at < end {
        reader.align(8)?;
        let code = reader.take(1)?[0];
        let value = match reader.signature()?.as_str() {
            "s" | "o" => Field::Text(reader.string()?),
            "g" => Field::Text(reader.signature()?),
            "u" => Field::Number(reader.u32()?),
            _ => return Err(Error::Message("header field of unknown type")),
        };
        fields.insert(code, value);
    }
    reader.align(8)?;
    let body = reader.take(body_length)?.to_vec();
    let text = |code| match fields.get(&code) {
        Some(Field::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let to = match fields.get(&REPLY_SERIAL) {
        Some(Field::Number(serial)) => *serial,
        _ => 0,
    };
    Ok(match kind {
        2 => Message::Return { to, body },
        3 => Message::Error { to, name: text(ERROR_NAME), body },
        4 => Message::Signal { interface: text(INTERFACE), member: text(MEMBER), body },
        _ => Message::Other,
    })
}

enum Field {
    Text(String),
    Number(u32),
}

/// Reads arguments in their order.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let part = &self.bytes[self.at..end.ok_or(Error::Message("ends too early"))?];
        self.at += count;
        Ok(part)
    }

    fn align(&mut self, to: usize) -> Result<(), Error> {
        self.take(self.at.next_multiple_of(to) - self.at).map(|_| ())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        self.align(4)?;
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(crate) fn string(&mut self) -> Result<String, Error> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    fn signature(&mut self) -> Result<String, Error> {
        let length = usize::from(self.take(1)?[0]);
        self.text(length)
    }

    fn text(&mut self, length: usize) -> Result<String, Error> {
        let text = self.take(length)?.to_vec();
        self.take(1)?;
        String::from_utf8(text).map_err(|_| Error::Message("text is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call<'a>(signature: &'a str, body: &'a [u8]) -> Call<'a> {
        Call { destination: "d.e", path: "/p", interface: "i.f", member: "Get", signature, body }
    }

    /// As the specification lays it out, by hand.
    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let mut body = Writer::default();
        body.string("ab");
        let bytes = encode(&call("s", &body.finish()), 7);
        let mut expected = b"l\x01\x00\x01\x07\0\0\0\x07\0\0\0".to_vec();
        expected.extend_from_slice(b"\x47\0\0\0");
        expected.extend_from_slice(b"\x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0");
        expected.extend_from_slice(b"\x02\x01s\0\x03\0\0\0i.f\0\0\0\0\0");
        expected.extend_from_slice(b"\x03\x01s\0\x03\0\0\0Get\0\0\0\0\0");
        expected.extend_from_slice(b"\x06\x01s\0\x03\0\0\0d.e\0\0\0\0\0");
        expected.extend_from_slice(b"\x08\x01g\0\x01s\0\0");
        expected.extend_from_slice(b"\x02\0\0\0ab\0");
        assert_eq!(bytes, expected);
        assert_eq!(rest(bytes[..FIXED].try_into().unwrap()).unwrap(), bytes.len() - FIXED);
    }

    #[test]
    fn arrays_of_structs_say_their_length_without_the_gap() {
        let mut body = Writer::default();
        body.array(8, |array| {
            array.align(8);
            array.string("a");
            array.align(8);
            array.u64(5);
        });
        assert_eq!(body.finish(), b"\x10\0\0\0\0\0\0\0\x01\0\0\0a\0\0\0\x05\0\0\0\0\0\0\0");
        let mut empty = Writer::default();
        empty.array(8, |_| {});
        assert_eq!(empty.finish(), b"\0\0\0\0\0\0\0\0");
    }

    fn reply(kind: u8, fields: &[(u8, &str, &str)], body: &[u8]) -> Vec<u8> {
        let mut out = Writer(vec![b'l', kind, 0, 1]);
        out.u32(length(body.len()));
        out.u32(1);
        out.array(8, |out| {
            for (code, kind, value) in fields {
                out.align(8);
                out.0.push(*code);
                out.signature(kind);
                if *kind == "u" { out.u32(value.parse().unwrap()) } else { out.string(value) }
            }
        });
        out.align(8);
        out.0.extend_from_slice(body);
        out.finish()
    }

    #[test]
    fn answers_and_signals_are_told_apart() {
        let back = decode(&reply(2, &[(5, "u", "9"), (7, "s", ":1.2")], b"xyz")).unwrap();
        assert_eq!(back, Message::Return { to: 9, body: b"xyz".to_vec() });
        let error = decode(&reply(3, &[(4, "s", "org.x.No"), (5, "u", "3")], b"")).unwrap();
        assert_eq!(error, Message::Error { to: 3, name: "org.x.No".into(), body: Vec::new() });
        let signal = decode(&reply(4, &[(1, "o", "/p"), (2, "s", "i"), (3, "s", "Gone")], b"")).unwrap();
        assert_eq!(signal, Message::Signal { interface: "i".into(), member: "Gone".into(), body: Vec::new() });
    }

    proptest! {
        #[test]
        fn bytes_of_all_kinds_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            if let Some(fixed) = bytes.first_chunk::<FIXED>() {
                let _ = rest(fixed);
            }
            let mut reader = Reader::new(&bytes);
            while reader.string().is_ok() {}
        }

        #[test]
        fn a_damaged_answer_is_refused_without_a_panic(at in 0usize..60, value: u8) {
            let mut bytes = reply(3, &[(4, "s", "org.x.No"), (5, "u", "3")], b"abc");
            let at = at.min(bytes.len() - 1);
            bytes[at] = value;
            let _ = decode(&bytes);
        }
    }
}
