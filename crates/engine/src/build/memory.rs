//! Files and directories of RUN that are in memory only.

use std::{fs::File, io::Write as _, os::fd::OwnedFd};

use dockerfile::mount::Owner;
use model::ErrorKind;
use rustix::fs::{Gid, Mode, OFlags, Uid, openat};
use sys::{
    Errno,
    mount::{self, Attributes, Filesystem},
};

use super::refuse;
use crate::error::{About, Error, Step as _};

/// What a file system of memory needs beside its files.
const ROOM: u64 = 64 << 10;

/// A directory that anybody can write to, detached. Blocks.
pub(super) fn directory(size: Option<u64>) -> Result<OwnedFd, Error> {
    filesystem("1777", size).step(About::Words, "make a file system of memory")
}

fn filesystem(mode: &str, size: Option<u64>) -> Result<OwnedFd, sys::Error> {
    let mut filesystem = Filesystem::open("tmpfs")?.set("mode", mode)?;
    if let Some(size) = size {
        filesystem = filesystem.set("size", size.to_string())?;
    }
    filesystem.mount(Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOSUID)
}

/// A file, detached. Blocks.
pub(super) fn file(content: &[u8], owner: Owner, mode: u32) -> Result<OwnedFd, Error> {
    only("a file in memory", content.len() as u64, owner, mode, |directory, name| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(openat(directory, name, flags, Mode::from_raw_mode(0o600))?);
        file.write_all(content)
    })
}

/// What `make` makes under a name, with its owner, detached. Blocks.
pub(super) fn only(
    what: &str,
    size: u64,
    owner: Owner,
    mode: u32,
    make: impl FnOnce(&OwnedFd, &str) -> std::io::Result<()>,
) -> Result<OwnedFd, Error> {
    const NAME: &str = "it";
    let directory = filesystem("0700", Some(size + ROOM)).step(About::Words, "make a file system of memory")?;
    make(&directory, NAME).map_err(|e| refuse(ErrorKind::Internal, format!("{what}: {e}")))?;
    let failed = |e: Errno| refuse(sys::kind_of(e), format!("{what}: {e}"));
    let made = openat(&directory, NAME, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    // Nobody else has seen it yet.
    let at = rustix::fs::AtFlags::empty();
    rustix::fs::chownat(&directory, NAME, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)), at).map_err(failed)?;
    rustix::fs::chmodat(&directory, NAME, Mode::from_raw_mode(owner.mode.unwrap_or(mode)), at).map_err(failed)?;
    mount::subtree(&directory, &made).map_err(failed)
}
