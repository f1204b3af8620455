//! The directory format: a tree for overlayfs to use as a lower directory.
//!
//! While the archive is read only directories and regular files are made, under paths that the tree in memory resolved;
//! symlinks, devices and whiteouts come when everything has been read. So at no time is there anything on disk that an
//! entry's path could be led astray by; `RESOLVE_NO_SYMLINKS` is a second lock on the same door.

mod extract;
mod finish;

pub(crate) use extract::Extractor;
