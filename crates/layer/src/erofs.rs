//! The EROFS format: one file that holds the archive as it came and, behind it, inodes that point into it.
//!
//! ```text
//! 0      our own header (EROFS leaves the first 1024 bytes alone)
//! 1024   superblock
//! 4096   the archive, byte for byte: file contents are multiples of 512 away, so that 512-byte blocks can name them
//! then   runs of sparse files that are not aligned in the archive, copied
//! then   inodes with extended attributes, short symlinks and chunk maps
//! then   directories and long symlinks
//! ```
//!
//! The superblock is written last: a file that was not finished does not mount.
//! Format: <https://erofs.docs.kernel.org/en/latest/ondisk/core_ondisk.html>.

mod format;
mod layout;
mod sparse;
mod tar;
mod write;

pub(crate) use tar::start;
pub use tar::{TarReader, tar_reader};
pub(crate) use write::finish;

use crate::{Error, tree::Tree};

/// Computes everything that [`finish`] would write, and writes nothing.
pub(crate) fn lay_out(tree: &Tree, tar_size: u64) -> Result<(), Error> {
    layout::Layout::new(tree, tar_size).map(drop)
}
