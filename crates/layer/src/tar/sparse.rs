//! The four ways in which GNU tar has written sparse files: old headers, and PAX 0.0, 0.1 and 1.0.

use super::{
    BLOCK,
    header::number,
    pax::{decimal, without_nul},
};
use crate::{Malformed, error::shown};

/// A run of real bytes in a sparse file; they follow each other in the archive without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where the run starts in the file.
    pub(crate) offset: u64,
    /// Its length.
    pub(crate) length: u64,
}

/// The GNU.sparse.* records of an extended header.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    major: Option<u64>,
    minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    size: Option<u64>,
    blocks: Option<u64>,
    map: Vec<Segment>,
    has_map: bool,
    pending_offset: Option<u64>,
}

/// How the map of an entry is stored.
#[derive(Debug)]
pub(super) enum Form {
    /// Not sparse.
    Dense,
    /// The map was in the extended header (0.0, 0.1).
    Listed { size: u64, map: Vec<Segment> },
    /// The map is in front of the data (1.0).
    InData { size: u64 },
}

impl PaxSparse {
    pub(super) fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), Malformed> {
        let parse = || decimal(value).ok_or_else(|| Malformed::Pax(shown(&[b"GNU.sparse.", key].concat())));
        match key {
            b"major" => self.major = Some(parse()?),
            b"minor" => self.minor = Some(parse()?),
            b"name" => self.name = Some(without_nul(value)?),
            b"size" | b"realsize" => self.size = Some(parse()?),
            b"numblocks" => self.blocks = Some(parse()?),
            b"offset" => {
                if self.pending_offset.replace(parse()?).is_some() {
                    return Err(Malformed::Sparse("two offsets without a length"));
                }
            }
            b"numbytes" => {
                let offset = self.pending_offset.take().ok_or(Malformed::Sparse("a length without an offset"))?;
                self.map.push(Segment { offset, length: parse()? });
                self.has_map = true;
            }
            b"map" => {
                if self.has_map {
                    return Err(Malformed::Sparse("two maps"));
                }
                self.map = parse_list(value)?;
                self.has_map = true;
            }
            _ => return Err(Malformed::Pax(shown(&[b"GNU.sparse.", key].concat()))),
        }
        Ok(())
    }

    pub(super) fn form(&mut self) -> Result<Form, Malformed> {
        let any = self.has_map || self.size.is_some() || self.blocks.is_some() || self.major.is_some();
        if !any && self.name.is_none() && self.pending_offset.is_none() {
            return Ok(Form::Dense);
        }
        if self.pending_offset.is_some() {
            return Err(Malformed::Sparse("an offset without a length"));
        }
        let size = self.size.ok_or(Malformed::Sparse("no size"))?;
        match (self.major.unwrap_or(0), self.minor.unwrap_or(0)) {
            (1, 0) if !self.has_map && self.blocks.is_none() => Ok(Form::InData { size }),
            (0, 0 | 1) => {
                if self.blocks != Some(self.map.len() as u64) {
                    return Err(Malformed::Sparse("the number of segments is wrong"));
                }
                Ok(Form::Listed { size, map: std::mem::take(&mut self.map) })
            }
            _ => Err(Malformed::Sparse("unknown version")),
        }
    }
}

fn parse_list(value: &[u8]) -> Result<Vec<Segment>, Malformed> {
    let bad = Malformed::Sparse("the map is not a list of pairs");
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: Option<Vec<u64>> = value.split(|byte| *byte == b',').map(decimal).collect();
    let numbers = numbers.ok_or_else(|| bad.clone())?;
    if numbers.len() % 2 != 0 {
        return Err(bad);
    }
    Ok(numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
}

/// The map of an old GNU header or of one of its continuation blocks: four or twenty-one slots, then "one more follows".
pub(super) fn old_gnu_slots(block: &[u8; BLOCK], first: bool, map: &mut Vec<Segment>) -> Result<bool, Malformed> {
    let (start, slots) = if first { (386, 4) } else { (0, 21) };
    let more = block[start + slots * 24] != 0;
    for slot in block[start..start + slots * 24].chunks_exact(24) {
        if slot[0] == 0 {
            break;
        }
        let field = |bytes| number(bytes).and_then(|n| u64::try_from(n).ok()).ok_or(Malformed::Number("sparse"));
        map.push(Segment { offset: field(&slot[..12])?, length: field(&slot[12..])? });
    }
    Ok(more)
}

/// The real size in an old GNU header.
pub(super) fn old_gnu_size(block: &[u8; BLOCK]) -> Result<u64, Malformed> {
    number(&block[483..495]).and_then(|n| u64::try_from(n).ok()).ok_or(Malformed::Number("realsize"))
}

/// Checks order, range and sum of a map, and drops empty segments (GNU tar marks the end of a file with one).
pub(super) fn checked(mut map: Vec<Segment>, size: u64, stored: u64) -> Result<Vec<Segment>, Malformed> {
    let (mut end, mut sum) = (0u64, 0u64);
    for segment in &map {
        if segment.offset < end {
            return Err(Malformed::Sparse("segments overlap or are not in order"));
        }
        end = segment.offset.checked_add(segment.length).ok_or(Malformed::Sparse("a segment overflows"))?;
        sum = sum.checked_add(segment.length).ok_or(Malformed::Sparse("a segment overflows"))?;
    }
    if end > size {
        return Err(Malformed::Sparse("a segment is beyond the end of the file"));
    }
    if sum != stored {
        return Err(Malformed::Sparse("the segments are not as long as the data"));
    }
    map.retain(|segment| segment.length > 0);
    Ok(map)
}
