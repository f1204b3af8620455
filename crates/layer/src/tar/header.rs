//! One 512-byte header block: fields, numbers, checksum.

use super::BLOCK;
use crate::Malformed;

/// A header's fields as they stand in the block, before any extension overrides them.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: i64,
    pub(super) mtime: i64,
    pub(super) device: (i64, i64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// True for the zero blocks that end an archive.
pub(super) fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// True for GNU tar's own dialect, the only one with sparse maps in its headers.
pub(super) fn is_gnu(block: &[u8; BLOCK]) -> bool {
    &block[257..265] == b"ustar  \0"
}

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self, Malformed> {
        verify_checksum(block)?;
        let dialect = match (&block[257..265], &block[508..512]) {
            (b"ustar\x0000", b"tar\0") => Dialect::Star,
            (b"ustar\x0000", _) => Dialect::Ustar,
            (b"ustar  \0", _) => Dialect::Gnu,
            _ => Dialect::V7,
        };
        let number = |range: std::ops::Range<usize>, field| number(&block[range]).ok_or(Malformed::Number(field));
        let device = if dialect == Dialect::V7 { (0, 0) } else { (number(329..337, "devmajor")?, number(337..345, "devminor")?) };
        let prefix = match dialect {
            Dialect::Ustar => text(&block[345..500]),
            Dialect::Star => text(&block[345..476]),
            Dialect::V7 | Dialect::Gnu => &[],
        };
        let mut name = prefix.to_vec();
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(text(&block[..100]));
        Ok(Self {
            kind: block[156],
            name,
            link: text(&block[157..257]).to_vec(),
            mode: number(100..108, "mode")?,
            uid: number(108..116, "uid")?,
            gid: number(116..124, "gid")?,
            size: number(124..136, "size")?,
            mtime: number(136..148, "mtime")?,
            device,
        })
    }
}

fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

fn verify_checksum(block: &[u8; BLOCK]) -> Result<(), Malformed> {
    let expected = number(&block[148..156]).ok_or(Malformed::Checksum)?;
    let counted = block.iter().enumerate().map(|(i, byte)| if (148..156).contains(&i) { b' ' } else { *byte });
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for byte in counted {
        unsigned += i64::from(byte);
        // Some old writers summed signed chars; every reader accepts both.
        signed += i64::from(byte.cast_signed());
    }
    if expected == unsigned || expected == signed { Ok(()) } else { Err(Malformed::Checksum) }
}

/// Octal text, or GNU's base-256 when the first bit is set. Empty is zero.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field {
        [0x80, rest @ ..] => base_256(rest, 0),
        [0xff, rest @ ..] => base_256(rest, -1),
        _ => octal(field),
    }
}

fn base_256(digits: &[u8], start: i64) -> Option<i64> {
    digits.iter().try_fold(start, |value, digit| value.checked_mul(256)?.checked_add(i64::from(*digit)))
}

fn octal(field: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let Some(first) = field.iter().position(|byte| !blank(byte)) else { return Some(0) };
    let field = &field[first..];
    let end = field.iter().position(blank).unwrap_or(field.len());
    let (digits, rest) = field.split_at(end);
    if !rest.iter().all(blank) {
        return None;
    }
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777"), Some(0o77_777_777));
        assert_eq!(number(&[0x80, 0, 0, 0, 0x80, 0, 0, 0]), Some(0x8000_0000));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
        for bad in [&b"000 644\0"[..], b"00008\0\0\0", b"-1\0\0\0\0\0\0", b"0x1\0", &[0x81, 0, 0, 0, 0, 0, 0, 1]] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }
}
