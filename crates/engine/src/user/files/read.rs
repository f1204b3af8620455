//! Files out of a container.

use std::{
    io::Write,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::fs::{AtFlags, FileType, OFlags, fstat, readlinkat, statat};
use sys::{
    Errno,
    path::{Links, Root},
};

use super::{Refused, UserFiles, call};
use crate::error::Error;

/// As many symbolic links as the kernel follows (path_resolution(7)).
const LINKS: usize = 40;

/// What happens to a symbolic link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It is what is meant.
    Link,
    /// What it leads to is meant.
    Target,
}

/// What is at a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileStat {
    /// Last component.
    pub name: String,
    /// st_mode of stat(2).
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Of a symbolic link.
    pub link_target: String,
}

/// Something in a container.
#[derive(Debug)]
pub struct FoundFile {
    what: What,
    /// Its name in an archive.
    name: Vec<u8>,
    /// What it is.
    pub stat: FileStat,
    /// A detached mount goes with its descriptor, and the image with its container.
    _files: UserFiles,
}

#[derive(Debug)]
enum What {
    /// A name in a directory.
    Entry { parent: OwnedFd, inside: Vec<u8> },
    /// What is in a directory.
    Contents(OwnedFd),
}

impl UserFiles {
    /// What is at a path. One that ends with `/.` means what is in a directory. Blocks.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument`: not a directory, although the path says so.
    pub fn find(self, path: &str, last: Last) -> Result<FoundFile, Error> {
        let container = self.user.name();
        let found = self.look(path, last).map_err(|refused| match refused {
            Refused::Call { source: Errno::NOENT, .. } => Refused::Missing { path: path.to_owned(), container },
            Refused::Call { source: Errno::NOTDIR, path, .. } => Refused::NoDirectory { path },
            other => other,
        });
        found.map_err(super::words)
    }

    fn look(self, path: &str, last: Last) -> Result<FoundFile, Refused> {
        let failed = |what| move |e| call(what, path, e);
        let (root, inside, _) = self.place(path)?;
        let bare = inside.trim_end_matches('/');
        let base = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let contents = bare.is_empty() || bare.ends_with("/.") || bare.ends_with("/..");
        if contents {
            let directory = root.open(&inside, OFlags::RDONLY | OFlags::DIRECTORY, Links::Follow).map_err(failed("open"))?;
            let stat = fstat(&directory).map_err(failed("fstat"))?;
            // The root of a mount has its target's name, unless its contents are what was asked for.
            let name = if matches!(base, "" | "." | "..") { Vec::new() } else { base.as_bytes().to_vec() };
            let stat = file_stat(if base.is_empty() { "/" } else { base }, &stat, String::new());
            return Ok(FoundFile { what: What::Contents(directory), name, stat, _files: self });
        }
        let (parent, inside) = entry(&root, bare, last).map_err(failed("open"))?;
        let stat = statat(&parent, &inside[..], AtFlags::SYMLINK_NOFOLLOW).map_err(failed("stat"))?;
        let link_target = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                readlinkat(&parent, &inside[..], Vec::new()).map_err(failed("readlink"))?.to_string_lossy().into_owned()
            }
            FileType::Directory => String::new(),
            _ if path.ends_with('/') => return Err(Refused::NoDirectory { path: path.to_owned() }),
            _ => String::new(),
        };
        let stat = file_stat(base, &stat, link_target);
        Ok(FoundFile { what: What::Entry { parent, inside }, name: base.as_bytes().to_vec(), stat, _files: self })
    }
}

fn file_stat(name: &str, stat: &rustix::fs::Stat, link_target: String) -> FileStat {
    FileStat { name: name.to_owned(), mode: stat.st_mode, size: u64::try_from(stat.st_size).unwrap_or(0), link_target }
}

/// The directory of a path and the name in it. Links on the way are followed in the root, and the last one if so wanted.
pub(crate) fn entry(root: &Root, path: &str, last: Last) -> Result<(OwnedFd, Vec<u8>), Errno> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let (parent, name) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", &path));
        let directory = root.open(&format!("{parent}/."), OFlags::PATH | OFlags::DIRECTORY, Links::Follow)?;
        if last == Last::Link || name.is_empty() {
            return Ok((directory, name.as_bytes().to_vec()));
        }
        let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Ok((directory, name.as_bytes().to_vec()));
        }
        let target = readlinkat(&directory, name, Vec::new())?.to_string_lossy().into_owned();
        let target = target.trim_end_matches('/');
        path = if target.starts_with('/') || target.is_empty() { target.to_owned() } else { format!("{parent}/{target}") };
        if path.is_empty() || path.ends_with("/.") || path.ends_with("..") {
            let directory = root.open(&format!("{path}/."), OFlags::PATH | OFlags::DIRECTORY, Links::Follow)?;
            return Ok((directory, b".".to_vec()));
        }
    }
    Err(Errno::LOOP)
}

impl FoundFile {
    /// Writes it as an archive, a directory with all that is below it; other file systems that are mounted there are left out.
    /// Blocks.
    ///
    /// # Errors
    /// The writer's; what changes while it is read.
    pub fn write(self, writer: impl Write) -> Result<(), Error> {
        let limits = layer::Limits { unpacked: u64::MAX / 2, ..layer::Limits::default() };
        let packed = match &self.what {
            What::Entry { parent, inside } => layer::pack(parent.as_fd(), inside, &self.name, writer, &limits),
            What::Contents(directory) if self.name.is_empty() => layer::diff(directory.as_fd(), writer, &limits),
            What::Contents(directory) => layer::pack(directory.as_fd(), b".", &self.name, writer, &limits),
        };
        let path = self.stat.name.clone();
        packed.map(drop).map_err(|source| Refused::Pack { path, source: Box::new(source) }).map_err(super::words)
    }
}
