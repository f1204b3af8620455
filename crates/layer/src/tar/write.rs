//! Headers of an archive that is written: ustar where it fits, with PAX records for what does not. Nothing of it depends on
//! anything but the entry, so equal trees become equal bytes.

use super::{BLOCK, Time};
use crate::xattr::Xattrs;

/// Type flags of POSIX.1-2017, pax, "ustar Interchange Format".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    File = b'0' as isize,
    HardLink = b'1' as isize,
    Symlink = b'2' as isize,
    CharDevice = b'3' as isize,
    BlockDevice = b'4' as isize,
    Directory = b'5' as isize,
    Fifo = b'6' as isize,
}

/// What a header says.
#[derive(Debug)]
pub(crate) struct Head<'e> {
    pub(crate) path: &'e [u8],
    pub(crate) link: &'e [u8],
    pub(crate) flag: Flag,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) mtime: Time,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: &'e Xattrs,
}

impl Head<'_> {
    /// The blocks that go before the entry's content.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let records = self.records();
        let mut blocks = Vec::new();
        if !records.is_empty() {
            let extended = Fields {
                path: b"PaxHeaders/entry",
                link: b"",
                flag: b'x',
                mode: 0o644,
                uid: 0,
                gid: 0,
                size: records.len() as u64,
                mtime: 0,
                device: (0, 0),
            };
            blocks.extend_from_slice(&extended.block());
            blocks.extend_from_slice(&records);
            blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
        }
        let fits = |value: u64, digits: u32| if value < 1 << (3 * digits) { value } else { 0 };
        let seconds = u64::try_from(self.mtime.seconds).map_or(0, |seconds| fits(seconds, 11));
        let fields = Fields {
            path: &self.path[..self.path.len().min(100)],
            link: &self.link[..self.link.len().min(100)],
            flag: self.flag as u8,
            mode: self.mode & 0o7777,
            uid: fits(self.uid.into(), 7),
            gid: fits(self.gid.into(), 7),
            size: fits(self.size, 11),
            mtime: seconds,
            device: self.device,
        };
        blocks.extend_from_slice(&fields.block());
        blocks
    }

    /// Everything that a ustar header cannot say.
    fn records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        let mut add = |key: &[u8], value: &[u8]| record(&mut records, key, value);
        // Go's reader takes what is not ASCII from PAX only; GNU's takes it from anywhere.
        if self.path.len() > 100 || !self.path.is_ascii() {
            add(b"path", self.path);
        }
        if self.link.len() > 100 || !self.link.is_ascii() {
            add(b"linkpath", self.link);
        }
        if self.size >= 1 << 33 {
            add(b"size", self.size.to_string().as_bytes());
        }
        for (key, id) in [(&b"uid"[..], self.uid), (b"gid", self.gid)] {
            if id >= 1 << 21 {
                add(key, id.to_string().as_bytes());
            }
        }
        if self.mtime.nanos > 0 || !(0..1 << 33).contains(&self.mtime.seconds) {
            add(b"mtime", decimal(self.mtime).as_bytes());
        }
        for (name, value) in self.xattrs {
            add(&[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        records
    }
}

/// Seconds with a fraction, which counts away from zero while [`Time::nanos`] count forward.
fn decimal(time: Time) -> String {
    match (time.seconds, time.nanos) {
        (seconds, 0) => seconds.to_string(),
        (seconds @ 0.., nanos) => trimmed(format!("{seconds}.{nanos:09}")),
        (seconds, nanos) => trimmed(format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos)),
    }
}

fn trimmed(text: String) -> String {
    text.trim_end_matches('0').to_owned()
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself too.
fn record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    for part in [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"] {
        to.extend_from_slice(part);
    }
}

/// One header block's fields, all within their sizes.
struct Fields<'f> {
    path: &'f [u8],
    link: &'f [u8],
    flag: u8,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
    device: (u32, u32),
}

impl Fields<'_> {
    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..self.path.len()].copy_from_slice(self.path);
        octal(&mut block[100..108], self.mode.into());
        octal(&mut block[108..116], self.uid);
        octal(&mut block[116..124], self.gid);
        octal(&mut block[124..136], self.size);
        octal(&mut block[136..148], self.mtime);
        block[148..156].fill(b' ');
        block[156] = self.flag;
        block[157..157 + self.link.len()].copy_from_slice(self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], self.device.0.into());
        octal(&mut block[337..345], self.device.1.into());
        let sum: u64 = block.iter().copied().map(u64::from).sum();
        octal(&mut block[148..155], sum);
        block
    }
}

/// Digits with zeros in front and a NUL at the end.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    field[..digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
    field[digits] = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        let mut records = Vec::new();
        for length in [1, 92, 93, 94, 991, 992, 9990] {
            record(&mut records, b"k", &vec![b'v'; length]);
        }
        let mut rest = &records[..];
        let mut seen = 0;
        while !rest.is_empty() {
            let space = rest.iter().position(|byte| *byte == b' ').unwrap();
            let length: usize = std::str::from_utf8(&rest[..space]).unwrap().parse().unwrap();
            assert_eq!(rest[length - 1], b'\n');
            rest = &rest[length..];
            seen += 1;
        }
        assert_eq!(seen, 7);
    }

    #[test]
    fn times_are_what_the_reader_makes_of_them() {
        let text = |seconds, nanos| decimal(Time { seconds, nanos });
        assert_eq!(text(5, 0), "5");
        assert_eq!(text(5, 120_000_000), "5.12");
        assert_eq!(text(-5, 0), "-5");
        assert_eq!(text(-2, 750_000_000), "-1.25");
        assert_eq!(text(-1, 1), "-0.999999999");
    }
}
