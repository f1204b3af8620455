//! From the stream of blocks to entries.

use std::collections::BTreeMap;

use super::{
    BLOCK, Segment, Time,
    header::{Header, is_gnu, is_zero},
    pax::{Pax, check_global},
    sparse::{self, Form},
};
use crate::{
    Error, Limits, Malformed,
    error::shown,
    stream::{Ended, Stream},
};

/// One entry with all its extensions applied.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u16,
    pub(crate) uid: i64,
    pub(crate) gid: i64,
    pub(crate) mtime: Time,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an entry is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A file of `size` bytes, which are at `start` of the stream. With a map it has holes that are not in the stream.
    File {
        size: u64,
        start: u64,
        map: Option<Vec<Segment>>,
    },
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    CharDevice(i64, i64),
    BlockDevice(i64, i64),
    Directory,
    Fifo,
}

/// Extensions seen before the entry that they belong to.
#[derive(Default)]
struct Pending {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// Reads entries and their data from a stream.
pub(crate) struct Reader<'a> {
    stream: Stream<'a>,
    limits: &'a Limits,
    header_at: u64,
    data_left: u64,
    padding: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(stream: Stream<'a>, limits: &'a Limits) -> Self {
        Self { stream, limits, header_at: 0, data_left: 0, padding: 0 }
    }

    /// The next entry; `None` after the end of the archive. What is left of the last entry's data is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Error> {
        while !self.data()?.is_empty() {}
        self.skip_padding()?;
        let mut pending = Pending::default();
        loop {
            self.header_at = self.stream.position();
            let Some(block) = self.header_block()? else {
                let dangling = pending.pax.is_some() || pending.long_name.is_some() || pending.long_link.is_some();
                return if dangling { Err(self.malformed(Malformed::Dangling)) } else { Ok(None) };
            };
            let header = Header::parse(&block).map_err(|reason| self.malformed(reason))?;
            match header.kind {
                b'x' | b'L' | b'K' => self.extension(&header, &mut pending)?,
                b'g' => {
                    if pending.pax.is_some() || pending.long_name.is_some() || pending.long_link.is_some() {
                        return Err(self.malformed(Malformed::Conflict));
                    }
                    let data = self.read_extension(&header, self.limits.pax)?;
                    check_global(&data).map_err(|reason| self.malformed(reason))?;
                }
                _ => return self.entry(header, pending, &block).map(Some),
            }
        }
    }

    /// The next piece of the entry's data; empty when there is no more.
    pub(crate) fn data(&mut self) -> Result<&[u8], Error> {
        if self.data_left == 0 {
            return Ok(&[]);
        }
        let at = self.header_at;
        let piece = self.stream.take(self.data_left)?;
        if piece.is_empty() {
            return Err(Error::Malformed { offset: at, reason: Malformed::Truncated("the content of an entry") });
        }
        self.data_left -= piece.len() as u64;
        Ok(piece)
    }

    /// Reads to the end of the stream.
    pub(crate) fn finish(self) -> Result<Ended, Error> {
        self.stream.finish()
    }

    fn malformed(&self, reason: Malformed) -> Error {
        Error::Malformed { offset: self.header_at, reason }
    }

    fn skip_padding(&mut self) -> Result<(), Error> {
        while self.padding > 0 {
            let n = self.stream.take(self.padding)?.len();
            if n == 0 {
                return Err(self.malformed(Malformed::Truncated("the padding of an entry")));
            }
            self.padding -= n as u64;
        }
        Ok(())
    }

    fn block(&mut self, within: &'static str) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        match self.stream.read_full(&mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(self.malformed(Malformed::Truncated(within))),
        }
    }

    /// A header, or `None` at the end: two zero blocks, or the end of the stream (with or without one zero block).
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        match self.block("a header")? {
            None => Ok(None),
            Some(block) if is_zero(&block) => match self.block("a header")? {
                Some(second) if !is_zero(&second) => Err(self.malformed(Malformed::LoneZeroBlock)),
                Some(_) | None => Ok(None),
            },
            some => Ok(some),
        }
    }

    fn extension(&mut self, header: &Header, pending: &mut Pending) -> Result<(), Error> {
        let limit = match header.kind {
            b'x' => self.limits.pax,
            // One more for the NUL that GNU tar writes after the name.
            b'L' => self.limits.path as u64 + 1,
            _ => self.limits.link_target as u64 + 1,
        };
        let data = self.read_extension(header, limit)?;
        let twice = match header.kind {
            b'x' => pending.pax.replace(Pax::parse(&data).map_err(|reason| self.malformed(reason))?).is_some(),
            b'L' => pending.long_name.replace(self.gnu_name(data)?).is_some(),
            _ => pending.long_link.replace(self.gnu_name(data)?).is_some(),
        };
        if twice { Err(self.malformed(Malformed::Conflict)) } else { Ok(()) }
    }

    /// A GNU long name ends with a NUL, or with its data.
    fn gnu_name(&self, mut data: Vec<u8>) -> Result<Vec<u8>, Error> {
        let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
        if data[end..].iter().any(|byte| *byte != 0) {
            return Err(self.malformed(Malformed::Nul));
        }
        data.truncate(end);
        Ok(data)
    }

    /// The data of an extension; `limit` is checked before anything is allocated.
    fn read_extension(&mut self, header: &Header, limit: u64) -> Result<Vec<u8>, Error> {
        let size = u64::try_from(header.size).map_err(|_| self.malformed(Malformed::Number("size")))?;
        if size > limit {
            return Err(Error::Limit { what: "bytes in one extended header", max: limit });
        }
        let mut data = vec![0; usize::try_from(size).expect("bounded by a limit that is far below 4 GiB")];
        if self.stream.read_full(&mut data)? != data.len() {
            return Err(self.malformed(Malformed::Truncated("an extended header")));
        }
        self.padding = padding(size);
        self.skip_padding()?;
        Ok(data)
    }

    fn entry(&mut self, header: Header, pending: Pending, block: &[u8; BLOCK]) -> Result<Entry, Error> {
        let mut pax = pending.pax.unwrap_or_default();
        let form = pax.sparse.form().map_err(|reason| self.malformed(reason))?;
        let path = self.one_of(pax.sparse.name.take().or(pax.path), pending.long_name, header.name)?;
        let link = self.one_of(pax.link, pending.long_link, header.link)?;
        let stored = match pax.size {
            Some(size) => size,
            None => u64::try_from(header.size).map_err(|_| self.malformed(Malformed::Number("size")))?,
        };
        let kind = match header.kind {
            // Before ustar had a type for directories, a slash at the end of the name was the sign.
            0 | b'0' if path.ends_with(b"/") => self.without_content(stored, b'5', Kind::Directory)?,
            0 | b'0' | b'7' => self.file(stored, form)?,
            b'S' => self.old_gnu_sparse(stored, block, &form)?,
            b'1' => self.without_content(stored, b'1', Kind::HardLink(link))?,
            b'2' => self.without_content(stored, b'2', Kind::Symlink(link))?,
            b'3' => self.without_content(stored, b'3', Kind::CharDevice(header.device.0, header.device.1))?,
            b'4' => self.without_content(stored, b'4', Kind::BlockDevice(header.device.0, header.device.1))?,
            b'5' => self.without_content(stored, b'5', Kind::Directory)?,
            b'6' => self.without_content(stored, b'6', Kind::Fifo)?,
            other => return Err(self.malformed(Malformed::Type(char::from(other)))),
        };
        let mode = u16::try_from(header.mode & 0o7777).expect("twelve bits");
        Ok(Entry {
            path,
            kind,
            mode,
            uid: pax.uid.unwrap_or(header.uid),
            gid: pax.gid.unwrap_or(header.gid),
            mtime: pax.mtime.unwrap_or(Time { seconds: header.mtime, nanos: 0 }).clamped(),
            xattrs: pax.xattrs,
        })
    }

    /// A name from PAX, GNU or the header. Go lets GNU win over PAX, GNU tar the other way round: both together are refused.
    fn one_of(&self, pax: Option<Vec<u8>>, gnu: Option<Vec<u8>>, plain: Vec<u8>) -> Result<Vec<u8>, Error> {
        match (pax, gnu) {
            (Some(_), Some(_)) => Err(self.malformed(Malformed::Conflict)),
            (Some(name), None) | (None, Some(name)) => Ok(name),
            (None, None) => Ok(plain),
        }
    }

    fn without_content(&self, stored: u64, kind: u8, value: Kind) -> Result<Kind, Error> {
        if stored == 0 { Ok(value) } else { Err(self.malformed(Malformed::Content(char::from(kind)))) }
    }

    fn expect_data(&mut self, stored: u64) -> u64 {
        self.data_left = stored;
        self.padding = padding(stored);
        self.stream.position()
    }

    fn file(&mut self, stored: u64, form: Form) -> Result<Kind, Error> {
        let start = self.expect_data(stored);
        match form {
            Form::Dense => Ok(Kind::File { size: stored, start, map: None }),
            Form::Listed { size, map } => {
                let map = sparse::checked(map, size, stored).map_err(|reason| self.malformed(reason))?;
                Ok(Kind::File { size, start, map: Some(map) })
            }
            Form::InData { size } => {
                let map = self.map_in_data()?;
                let (start, stored) = (self.stream.position(), self.data_left);
                let map = sparse::checked(map, size, stored).map_err(|reason| self.malformed(reason))?;
                Ok(Kind::File { size, start, map: Some(map) })
            }
        }
    }

    /// The map of version 1.0: decimal numbers on lines, their count first, padded to a block.
    fn map_in_data(&mut self) -> Result<Vec<Segment>, Error> {
        let bad = Malformed::Sparse("the map in front of the data");
        let mut lines = Lines { block: [0; BLOCK], at: BLOCK };
        let count = lines.number(self)?.ok_or_else(|| self.malformed(bad.clone()))?;
        // Every pair takes at least four bytes of what is left, so this bounds the allocation by the data that is there.
        if count > self.data_left / 4 + BLOCK as u64 || count.saturating_mul(24) > self.limits.metadata {
            return Err(self.malformed(bad));
        }
        let mut map = Vec::new();
        for _ in 0..count {
            match (lines.number(self)?, lines.number(self)?) {
                (Some(offset), Some(length)) => map.push(Segment { offset, length }),
                _ => return Err(self.malformed(bad)),
            }
        }
        Ok(map)
    }

    fn old_gnu_sparse(&mut self, stored: u64, block: &[u8; BLOCK], form: &Form) -> Result<Kind, Error> {
        if !matches!(form, Form::Dense) || !is_gnu(block) {
            return Err(self.malformed(Malformed::Conflict));
        }
        let mut map = Vec::new();
        let size = sparse::old_gnu_size(block).map_err(|reason| self.malformed(reason))?;
        let mut more = sparse::old_gnu_slots(block, true, &mut map).map_err(|reason| self.malformed(reason))?;
        while more {
            if map.len() as u64 * 24 > self.limits.metadata {
                return Err(Error::Limit { what: "bytes of metadata", max: self.limits.metadata });
            }
            let truncated = Malformed::Truncated("a sparse map");
            let next = self.block("a sparse map")?.ok_or_else(|| self.malformed(truncated))?;
            more = sparse::old_gnu_slots(&next, false, &mut map).map_err(|reason| self.malformed(reason))?;
        }
        let start = self.expect_data(stored);
        let map = sparse::checked(map, size, stored).map_err(|reason| self.malformed(reason))?;
        Ok(Kind::File { size, start, map: Some(map) })
    }
}

/// The text in front of the data of a 1.0 sparse file.
struct Lines {
    block: [u8; BLOCK],
    at: usize,
}

impl Lines {
    fn number(&mut self, reader: &mut Reader<'_>) -> Result<Option<u64>, Error> {
        let mut value: Option<u64> = None;
        loop {
            if self.at == BLOCK {
                self.refill(reader)?;
            }
            let byte = self.block[self.at];
            self.at += 1;
            value = match (byte, value) {
                (b'\n', done) => return Ok(done),
                (b'0'..=b'9', so_far) => {
                    let next = so_far.unwrap_or(0).checked_mul(10).and_then(|v| v.checked_add(u64::from(byte - b'0')));
                    match next {
                        Some(next) => Some(next),
                        None => return Ok(None),
                    }
                }
                _ => return Ok(None),
            };
        }
    }

    fn refill(&mut self, reader: &mut Reader<'_>) -> Result<(), Error> {
        let mut filled = 0;
        while filled < BLOCK {
            let header_at = reader.header_at;
            let wanted = reader.data_left.min((BLOCK - filled) as u64);
            let piece = if wanted == 0 { &[] } else { reader.stream.take(wanted)? };
            if piece.is_empty() {
                return Err(Error::Malformed { offset: header_at, reason: Malformed::Truncated("a sparse map") });
            }
            self.block[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
            reader.data_left -= piece.len() as u64;
        }
        self.at = 0;
        Ok(())
    }
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

impl Entry {
    /// The path for a message.
    pub(crate) fn shown(&self) -> String {
        shown(&self.path)
    }
}
