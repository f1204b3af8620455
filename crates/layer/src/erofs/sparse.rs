//! Sparse files as chunk maps.

use super::format::{BLOCK, HOLE, TAR_OFFSET};
use crate::{Error, tree::Sparse};

/// Beyond this many chunks they become larger; 512-byte chunks last to 512 MiB.
const MAX_CHUNKS: u64 = 1 << 20;

/// Bytes that have to move, since the archive does not hold them at a multiple of 512 or together with what belongs to
/// the same chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// In the image file.
    pub(super) from: u64,
    /// In the image file.
    pub(super) to: u64,
    pub(super) length: u64,
}

/// Where the chunks of one file are.
#[derive(Debug)]
pub(super) struct ChunkMap {
    /// Block addresses, or [`HOLE`].
    pub(super) blocks: Vec<u32>,
    pub(super) copies: Vec<Copy>,
    /// Bytes of copied chunks, a multiple of the block size.
    pub(super) copied: u64,
}

/// log2 of blocks per chunk, and the number of chunks, of a sparse file of this size.
pub(super) fn chunks(size: u64) -> (u8, u64) {
    let mut bits = 0;
    while size.div_ceil(BLOCK << bits) > MAX_CHUNKS {
        bits += 1;
    }
    (bits, size.div_ceil(BLOCK << bits))
}

/// A run of the file's data inside one chunk.
struct Run {
    /// In the file.
    offset: u64,
    /// In the image file.
    from: u64,
    length: u64,
}

/// Maps a file. Copied chunks are put at `copy_at`, a multiple of the block size, and behind.
pub(super) fn map(sparse: &Sparse, copy_at: u64) -> Result<ChunkMap, Error> {
    let (bits, count) = chunks(sparse.size);
    let chunk = BLOCK << bits;
    let mut map = ChunkMap { blocks: vec![HOLE; usize::try_from(count).unwrap_or(0)], copies: Vec::new(), copied: 0 };
    let mut from = TAR_OFFSET + sparse.start;
    let mut runs: Vec<Run> = Vec::new();
    let mut current = 0;
    for segment in &sparse.map {
        let (mut offset, end) = (segment.offset, segment.offset + segment.length);
        while offset < end {
            if offset / chunk != current {
                place(&mut map, &runs, current, (chunk, sparse.size), copy_at)?;
                runs.clear();
                current = offset / chunk;
            }
            let length = end.min((current + 1) * chunk) - offset;
            runs.push(Run { offset, from, length });
            offset += length;
            from += length;
        }
    }
    place(&mut map, &runs, current, (chunk, sparse.size), copy_at)?;
    Ok(map)
}

fn place(map: &mut ChunkMap, runs: &[Run], index: u64, (chunk, size): (u64, u64), copy_at: u64) -> Result<(), Error> {
    let start = index * chunk;
    let length = chunk.min(size.saturating_sub(start));
    let at = match runs {
        [] => return Ok(()),
        [run] if run.length == length && run.from.is_multiple_of(BLOCK) => run.from,
        _ => {
            let at = copy_at + map.copied;
            map.copies.extend(runs.iter().map(|run| Copy { from: run.from, to: at + run.offset - start, length: run.length }));
            map.copied += length.next_multiple_of(BLOCK);
            at
        }
    };
    let block = block_address(at)?;
    if let Some(slot) = usize::try_from(index).ok().and_then(|index| map.blocks.get_mut(index)) {
        *slot = block;
    }
    Ok(())
}

/// Byte offset to block address.
pub(super) fn block_address(offset: u64) -> Result<u32, Error> {
    let over = Error::Limit { what: "bytes in an image file", max: u64::from(u32::MAX) * BLOCK };
    // The greatest address means a hole.
    u32::try_from(offset / BLOCK).ok().filter(|block| *block != HOLE).ok_or(over)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Segment;

    fn sparse(size: u64, start: u64, map: &[(u64, u64)]) -> Sparse {
        Sparse { size, start, map: map.iter().map(|(offset, length)| Segment { offset: *offset, length: *length }).collect() }
    }

    #[test]
    fn aligned_runs_stay_where_they_are() {
        let found = map(&sparse(10_000, 512, &[(1024, 1024), (4096, 700)]), 1 << 20).unwrap();
        assert_eq!(found.blocks.len(), 20);
        let first = u32::try_from((TAR_OFFSET + 512) / BLOCK).unwrap();
        assert_eq!(found.blocks[..5], [HOLE, HOLE, first, first + 1, HOLE]);
        assert_eq!(found.blocks[8], first + 2);
        // 188 bytes and then a hole: what follows them in the archive must not be seen.
        assert_eq!(found.blocks[9], (1 << 20) / 512);
        assert_eq!(found.copies, [Copy { from: TAR_OFFSET + 512 + 1536, to: 1 << 20, length: 188 }]);
    }

    #[test]
    fn big_files_have_big_chunks() {
        assert_eq!(chunks(512 << 20), (0, 1 << 20));
        assert_eq!(chunks((512 << 20) + 1), (1, (1 << 19) + 1));
        assert_eq!(chunks(64 << 30), (7, 1 << 20));
        let found = map(&sparse(64 << 30, 0, &[(5, 1), (70_000, 1)]), 0).unwrap();
        assert_eq!(found.copied, 128 << 10);
    }
}
