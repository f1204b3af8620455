//! PAX extended headers (POSIX.1-2017, pax, "pax Extended Header").

use std::collections::BTreeMap;

use super::{Time, sparse::PaxSparse};
use crate::{Malformed, error::shown};

/// What one extended header says about the entry after it. An empty value takes an earlier record back.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: PaxSparse,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Pax {
    /// Parses a whole extended header.
    pub(super) fn parse(mut data: &[u8]) -> Result<Self, Malformed> {
        let mut pax = Self::default();
        while !data.is_empty() {
            let (record, rest) = split_record(data)?;
            pax.apply(record.key, record.value)?;
            data = rest;
        }
        Ok(pax)
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), Malformed> {
        let bad = || Malformed::Pax(shown(key));
        let present = !value.is_empty();
        match key {
            b"path" => self.path = present.then(|| without_nul(value)).transpose()?,
            b"linkpath" => self.link = present.then(|| without_nul(value)).transpose()?,
            b"size" => self.size = present.then(|| decimal(value).ok_or_else(bad)).transpose()?,
            b"uid" => self.uid = present.then(|| signed(value).ok_or_else(bad)).transpose()?,
            b"gid" => self.gid = present.then(|| signed(value).ok_or_else(bad)).transpose()?,
            b"mtime" => self.mtime = present.then(|| time(value).ok_or_else(bad)).transpose()?,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.set_xattr(name, value).ok_or_else(bad)?;
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.apply(name, value)?;
                }
            }
        }
        Ok(())
    }

    /// An empty value is an attribute with an empty value: unlike other keys it means something of its own.
    fn set_xattr(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        if name.is_empty() || name.contains(&0) {
            return None;
        }
        self.xattrs.insert(name.to_vec(), value.to_vec());
        Some(())
    }
}

/// Checks a global header. GNU tar applies its records to every entry after it, Go and the engines ignore them: only
/// records that change nothing (git writes a comment) are read the same way everywhere.
pub(super) fn check_global(mut data: &[u8]) -> Result<(), Malformed> {
    while !data.is_empty() {
        let (Record { key, .. }, rest) = split_record(data)?;
        let changes = matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime")
            || key.starts_with(XATTR)
            || key.starts_with(b"GNU.sparse.");
        if changes {
            return Err(Malformed::Global(shown(key)));
        }
        data = rest;
    }
    Ok(())
}

struct Record<'d> {
    key: &'d [u8],
    value: &'d [u8],
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts all of it.
fn split_record(data: &[u8]) -> Result<(Record<'_>, &[u8]), Malformed> {
    let bad = || Malformed::Pax(shown(&data[..data.len().min(40)]));
    let space = data.iter().take(20).position(|byte| *byte == b' ').ok_or_else(bad)?;
    let length = decimal(&data[..space]).and_then(|n| usize::try_from(n).ok()).ok_or_else(bad)?;
    if length > data.len() || length < space + 4 || data[length - 1] != b'\n' {
        return Err(bad());
    }
    let record = &data[space + 1..length - 1];
    let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    if key.is_empty() || key.contains(&0) {
        return Err(bad());
    }
    Ok((Record { key, value }, &data[length..]))
}

pub(super) fn without_nul(value: &[u8]) -> Result<Vec<u8>, Malformed> {
    if value.contains(&0) { Err(Malformed::Nul) } else { Ok(value.to_vec()) }
}

/// An unsigned decimal without sign, space or overflow.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

fn signed(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some(digits) => i64::try_from(decimal(digits)?).ok().map(|value| -value),
        None => i64::try_from(decimal(text)?).ok(),
    }
}

/// Decimal seconds with an optional fraction; digits beyond nanoseconds are dropped.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let digit = |i: usize| u32::from(fraction.get(i).map_or(0, |d| d - b'0'));
    let nanos = (0..9).fold(0u32, |value, i| value * 10 + digit(i));
    Some(match (negative, nanos) {
        (false, _) => Time { seconds, nanos },
        (true, 0) => Time { seconds: -seconds, nanos: 0 },
        (true, _) => Time { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let mut length = body.len() + 1;
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        [length.to_string().as_bytes(), &body].concat()
    }

    #[test]
    fn later_records_win_and_empty_ones_take_back() {
        let data = [record("path", b"a"), record("path", b"b"), record("size", b"7"), record("size", b"")].concat();
        let pax = Pax::parse(&data).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"b"[..]));
        assert_eq!(pax.size, None);
    }

    #[test]
    fn values_may_hold_anything() {
        let pax = Pax::parse(&record("SCHILY.xattr.user.x", b"a=b\n\0c")).unwrap();
        assert_eq!(pax.xattrs, BTreeMap::from([(b"user.x".to_vec(), b"a=b\n\0c".to_vec())]));
    }

    #[test]
    fn times_round_down() {
        let at = |text: &str| time(text.as_bytes()).map(|t| (t.seconds, t.nanos));
        assert_eq!(at("1.5"), Some((1, 500_000_000)));
        assert_eq!(at("1.1234567899"), Some((1, 123_456_789)));
        assert_eq!(at("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(at("-3"), Some((-3, 0)));
        for bad in ["", ".", "-", "1.x", "--1", "1e3", " 1", "99999999999999999999"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    #[test]
    fn damaged_records_are_errors() {
        for bad in [
            &b"x"[..],
            b"9 path=a",
            b"8 path=a\n",
            b"0 \n",
            b"99999999999999999999999 a=b\n",
            b"6 path\n",
            b"6 =abc\n",
            b"13 path=a\0bc\n",
            b"9 size=x\n",
            b"9 size=-\n",
            b"23 SCHILY.xattr.=value\n",
        ] {
            let result = Pax::parse(bad);
            assert!(result.is_err(), "{:?} {result:?}", String::from_utf8_lossy(bad));
        }
    }
}
