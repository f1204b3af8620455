//! Messages of DNS (RFC 1035), as much of them as a server needs that knows names of containers and hands everything else on.
//!
//! What comes is from containers: hostile. Nothing here allocates more than a message is long.

use std::net::IpAddr;

use model::ErrorKind;

/// Types that are answered.
pub const A: u16 = 1;
/// See [`A`].
pub const PTR: u16 = 12;
/// See [`A`].
pub const AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;
const TYPE_ANY: u16 = 255;

/// RFC 1035, 2.3.4.
const LONGEST_NAME: usize = 255;
/// What every resolver takes over UDP (RFC 1035, 4.2.1).
const SMALL: usize = 512;
const HEADER: usize = 12;
/// A pointer to the question's name, which always begins behind the header.
const QUESTION_NAME: [u8; 2] = [0xc0, HEADER as u8];
/// Seconds: addresses change when containers start again.
const TTL: u32 = 5;

/// How a question is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// With what follows, which may be nothing.
    Fine = 0,
    /// The question cannot be understood.
    Malformed = 1,
    /// It could not be found out.
    Failed = 2,
    /// There is no such name.
    NoName = 3,
    /// We do not do this.
    NotDone = 4,
    /// Not for you.
    Refused = 5,
}

/// Why bytes are not a question that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It has no header, or is an answer: to be dropped, so that two servers never talk in circles.
    #[error("no question")]
    NotAQuestion,
    /// It has a header, and is then damaged.
    #[error("damaged question")]
    Damaged([u8; 4]),
    /// Something else than one question.
    #[error("not one plain question")]
    Other([u8; 4]),
}

impl Wrong {
    /// Which of the closed set of kinds.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }

    /// What is to be said to whoever sent it, if anything.
    pub fn answer(&self) -> Option<Vec<u8>> {
        let (head, code) = match self {
            Self::NotAQuestion => return None,
            Self::Damaged(head) => (head, Code::Malformed),
            Self::Other(head) => (head, Code::NotDone),
        };
        Some(header(*head, code, (0, 0)).to_vec())
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    head: [u8; 4],
    /// As it was written, to be said again.
    raw: Vec<u8>,
    /// In lower case, without the dot at its end. What is not printable is replaced.
    pub name: String,
    /// What is asked for: [`A`], ...
    pub kind: u16,
    class: u16,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An address.
    Address(IpAddr),
    /// The name of an address.
    Name(String),
}

/// Id, flags and counts of an answer to what began with `head`.
fn header(head: [u8; 4], code: Code, (questions, answers): (u8, u8)) -> [u8; HEADER] {
    const RESPONSE: u8 = 0x80;
    const RECURSION_AVAILABLE: u8 = 0x80;
    let [id, low, flags, _] = head;
    // Operation and "recursion desired" are said again.
    [id, low, RESPONSE | (flags & 0x79), RECURSION_AVAILABLE | code as u8, 0, questions, 0, answers, 0, 0, 0, 0]
}

/// The name at the beginning of `bytes`, and how long it is there. Pointers have nothing to point back to in a question.
fn read_name(bytes: &[u8]) -> Option<(String, usize)> {
    let (mut name, mut at) = (String::new(), 0);
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        if length > 63 || at + length >= LONGEST_NAME {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        let printable = |byte: &u8| if byte.is_ascii_graphic() && *byte != b'.' { byte.to_ascii_lowercase() as char } else { '?' };
        name.extend(bytes.get(at..at + length)?.iter().map(printable));
        at += length;
    }
}

/// Nothing of what cannot be said as a name.
fn write_name(out: &mut Vec<u8>, name: &str) {
    if name.len() + 2 <= LONGEST_NAME && name.split('.').all(|label| (1..=63).contains(&label.len())) {
        for label in name.split('.') {
            out.push(u8::try_from(label.len()).unwrap_or(0));
            out.extend_from_slice(label.as_bytes());
        }
    }
    out.push(0);
}

impl Question {
    /// Reads a message.
    ///
    /// # Errors
    /// Why it is not one question.
    pub fn read(message: &[u8]) -> Result<Self, Wrong> {
        let Some((header, rest)) = message.split_first_chunk::<HEADER>() else { return Err(Wrong::NotAQuestion) };
        let [a, b, c, d, questions @ ..] = *header;
        let head = [a, b, c, d];
        if c & 0x80 != 0 {
            return Err(Wrong::NotAQuestion);
        }
        // Another operation than a query, or more or less than one question.
        if c & 0x78 != 0 || questions[..2] != [0, 1] {
            return Err(Wrong::Other(head));
        }
        let (name, length) = read_name(rest).ok_or(Wrong::Damaged(head))?;
        let Some(&[k, l, m, n]) = rest.get(length..length + 4) else { return Err(Wrong::Damaged(head)) };
        let raw = rest[..length + 4].to_vec();
        Ok(Self { head, raw, name, kind: u16::from_be_bytes([k, l]), class: u16::from_be_bytes([m, n]) })
    }

    /// Whether it is about the internet.
    pub fn is_internet(&self) -> bool {
        matches!(self.class, CLASS_IN | CLASS_ANY)
    }

    /// The address whose name is asked for.
    pub fn reverse(&self) -> Option<IpAddr> {
        if self.kind != PTR {
            return None;
        }
        if let Some(digits) = self.name.strip_suffix(".in-addr.arpa") {
            let mut octets = digits.rsplit('.').map(|octet| octet.parse::<u8>().ok());
            let ip = [octets.next()??, octets.next()??, octets.next()??, octets.next()??];
            return octets.next().is_none().then(|| IpAddr::from(ip));
        }
        let nibbles = self.name.strip_suffix(".ip6.arpa")?;
        let digits = nibbles.rsplit('.').map(|digit| match digit.len() {
            1 => u8::from_str_radix(digit, 16).ok(),
            _ => None,
        });
        let digits: Vec<u8> = digits.take(33).collect::<Option<_>>()?;
        let pairs = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<u8>>();
        (digits.len() == 32).then(|| <[u8; 16]>::try_from(pairs).ok().map(IpAddr::from))?
    }

    /// An answer. What does not fit into a small message is left out.
    pub fn answer(&self, code: Code, answers: &[Answer]) -> Vec<u8> {
        let mut body = self.raw.clone();
        let mut count = 0;
        for answer in answers {
            let (kind, data) = match answer {
                Answer::Address(IpAddr::V4(ip)) => (A, ip.octets().to_vec()),
                Answer::Address(IpAddr::V6(ip)) => (AAAA, ip.octets().to_vec()),
                Answer::Name(name) => {
                    let mut data = Vec::new();
                    write_name(&mut data, name);
                    (PTR, data)
                }
            };
            if kind != self.kind && self.kind != TYPE_ANY {
                continue;
            }
            if HEADER + body.len() + QUESTION_NAME.len() + 10 + data.len() > SMALL || count == u8::MAX {
                break;
            }
            body.extend_from_slice(&QUESTION_NAME);
            body.extend_from_slice(&kind.to_be_bytes());
            body.extend_from_slice(&CLASS_IN.to_be_bytes());
            body.extend_from_slice(&TTL.to_be_bytes());
            body.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
            body.extend_from_slice(&data);
            count += 1;
        }
        [&header(self.head, code, (1, count))[..], &body].concat()
    }

    /// Whether bytes that came back may be the answer to this question asked with another id.
    pub fn is_answered_by(&self, message: &[u8], id: [u8; 2]) -> bool {
        message.len() >= HEADER
            && message[..2] == id
            && message[2] & 0x80 != 0
            // Some servers leave the question out when they refuse.
            && (message[4..6] == [0, 0] || message[HEADER..].len() >= self.raw.len() && message[HEADER..HEADER + self.raw.len()].eq_ignore_ascii_case(&self.raw))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        write_name(&mut message, name);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        message
    }

    #[test]
    fn questions_are_answered() {
        let question = Question::read(&ask("Web.My-Net", A)).unwrap();
        assert_eq!((question.name.as_str(), question.kind, question.is_internet()), ("web.my-net", A, true));
        let both = [Answer::Address("10.0.0.2".parse().unwrap()), Answer::Address("fd00::2".parse().unwrap())];
        let answer = question.answer(Code::Fine, &both);
        assert_eq!(answer[..12], [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[12..28], ask("Web.My-Net", A)[12..28], "the question is said again as it was written");
        assert_eq!(answer[28..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 2]);
        assert_eq!(Question::read(&ask("web", AAAA)).unwrap().answer(Code::Fine, &both).len(), 12 + 9 + 28);
        let none = Question::read(&ask("web", 15)).unwrap().answer(Code::NoName, &both);
        assert_eq!((none[3] & 15, none[7]), (3, 0));
        let many = vec![both[0].clone(); 1000];
        assert!(question.answer(Code::Fine, &many).len() <= 512);
    }

    #[test]
    fn names_of_addresses() {
        let four = Question::read(&ask("2.0.168.192.in-addr.arpa", PTR)).unwrap();
        assert_eq!(four.reverse(), Some("192.168.0.2".parse().unwrap()));
        assert!(four.answer(Code::Fine, &[Answer::Name("a.b".into())]).ends_with(b"\x01a\x01b\0"));
        let six = format!("1{}.d.f.ip6.arpa", ".0".repeat(29));
        assert_eq!(Question::read(&ask(&six, PTR)).unwrap().reverse(), Some("fd00::1".parse().unwrap()));
        for bad in ["1.2.3.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "300.2.3.4.in-addr.arpa", "0.ip6.arpa", "x"] {
            assert_eq!(Question::read(&ask(bad, PTR)).unwrap().reverse(), None, "{bad}");
        }
        assert_eq!(Question::read(&ask("2.0.168.192.in-addr.arpa", A)).unwrap().reverse(), None);
    }

    #[test]
    fn what_is_no_question() {
        assert_eq!(Question::read(b""), Err(Wrong::NotAQuestion));
        let good = ask("web", A);
        let answer = Question::read(&good).unwrap().answer(Code::Fine, &[]);
        assert_eq!(Question::read(&answer), Err(Wrong::NotAQuestion), "an answer is never answered");
        assert!(matches!(Question::read(&good[..good.len() - 1]), Err(Wrong::Damaged(_))));
        let mut two = good.clone();
        two[5] = 2;
        let other = Question::read(&two).unwrap_err();
        assert_eq!(other.answer().unwrap()[..4], [0xab, 0xcd, 0x81, 0x84]);
        let mut pointer = good[..12].to_vec();
        pointer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        assert_eq!(Question::read(&pointer).unwrap_err().answer().unwrap()[3] & 15, 1);
        let long = format!("{}x", "abcdefg.".repeat(40));
        let mut endless = good[..12].to_vec();
        for label in long.split('.') {
            endless.push(label.len() as u8);
            endless.extend_from_slice(label.as_bytes());
        }
        endless.extend_from_slice(&[0, 0, 1, 0, 1]);
        assert!(matches!(Question::read(&endless), Err(Wrong::Damaged(_))));
    }

    #[test]
    fn answers_of_others_are_told_apart() {
        let question = Question::read(&ask("web", A)).unwrap();
        let answer = Question::read(&ask("WEB", A)).unwrap().answer(Code::Fine, &[]);
        assert!(question.is_answered_by(&answer, [0xab, 0xcd]));
        assert!(!question.is_answered_by(&answer, [0xab, 0xce]));
        assert!(!question.is_answered_by(&ask("web", A), [0xab, 0xcd]));
        let other = Question::read(&ask("other", A)).unwrap().answer(Code::Fine, &[]);
        assert!(!question.is_answered_by(&other, [0xab, 0xcd]));
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_reader(mut message in proptest::collection::vec(any::<u8>(), 0..700), plain in any::<bool>()) {
            if plain && message.len() >= 6 {
                message[2] &= 0x07;
                message[4] = 0;
                message[5] = 1;
            }
            match Question::read(&message) {
                Ok(question) => {
                    prop_assert!(question.name.len() <= 255);
                    let answer = question.answer(Code::Fine, &[Answer::Name("a".into()), Answer::Address("::1".parse().unwrap())]);
                    prop_assert!(answer.len() <= 512);
                    question.reverse();
                    prop_assert!(!question.is_answered_by(&message, [0, 0]));
                }
                Err(wrong) => drop(wrong.answer()),
            }
        }
    }
}
