//! A tar stream becomes an EROFS image file or a directory for overlay; its diff id is computed on the way.
//!
//! Everything in a layer is hostile. Names are resolved in memory against the entries of the layer alone ([`apply`]),
//! never by the kernel against a file system, so no order of symlinks, hard links and whiteouts can reach a file that
//! the layer did not bring. The two formats get the same tree of inodes and differ only in how they write it down.
#![forbid(unsafe_code)]

mod apply;
mod archive;
mod compression;
mod diff;
mod directory;
mod erofs;
mod error;
mod fuzz;
mod gzip;
mod index;
mod limits;
mod mount;
mod path;
mod probe;
mod sink;
mod stream;
mod tar;
mod tree;
mod xattr;

pub use apply::{Applied, Target, apply};
pub use archive::ArchiveWriter;
pub use compression::{Compression, decompress};
pub use diff::{Above, Choice, Diffed, Piece, Shape, Told, diff, diff_without, is_mount, pack, pack_with, pick, place};
pub use erofs::{TarReader, tar_reader};
pub use error::{Error, Malformed, Refusal};
pub use fuzz::fuzz_tar;
pub use gzip::gzip;
pub use index::{ArchiveEntry, archive_entries};
pub use limits::Limits;
pub use mount::{Durability, Overlay, Upper, empty_root, mount_erofs};
pub use probe::{Format, Probed, probe};
