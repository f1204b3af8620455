//! A strict tar reader: one archive has exactly one reading, or none; and what writes an archive.
//!
//! Where GNU tar and Go's archive/tar agree, so does this reader; where they differ (a lone zero block, PAX and GNU
//! names for one entry, content on a directory) it refuses, since two readings of one signed archive are an attack.

mod header;
mod pax;
mod reader;
mod sparse;
mod write;

pub(crate) use reader::{Entry, Kind, Reader};
pub(crate) use sparse::Segment;
pub(crate) use write::{Flag, Head};

/// The unit that everything in an archive is padded to.
pub(crate) const BLOCK: usize = 512;

/// A point in time as tar and the kernel write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    /// Seconds since 1970, possibly before.
    pub(crate) seconds: i64,
    /// Nanoseconds after `seconds`.
    pub(crate) nanos: u32,
}

impl Time {
    /// Into the range that every file system of ours can store (ext4 with 256-byte inodes), so that the formats agree.
    pub(crate) fn clamped(self) -> Self {
        const MIN: i64 = -(1 << 31);
        const MAX: i64 = (1 << 34) - (1 << 31) - 1;
        match self.seconds {
            s if s < MIN => Self { seconds: MIN, nanos: 0 },
            s if s > MAX => Self { seconds: MAX, nanos: 0 },
            _ => self,
        }
    }
}
