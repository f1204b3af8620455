//! Files out of a container.

use std::{
    collections::BTreeMap,
    io::Write,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::fs::{AtFlags, FileType, OFlags, fstat, readlinkat, statat};
use sys::{
    Errno,
    path::{Links, Root},
};

use super::{Refused, UserFiles, call, view::Spot};
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
    spot: Spot,
    /// Its name in an archive; empty: what is in it is meant.
    name: Vec<u8>,
    /// What is mounted in it, by its path in an archive.
    mounts: BTreeMap<Vec<u8>, OwnedFd>,
    /// What it is.
    pub stat: FileStat,
    /// A detached mount goes with its descriptor, and the image with its container.
    _files: UserFiles,
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
        let bare = path.trim_end_matches('/');
        let (above, base) = bare.rsplit_once('/').unwrap_or(("", bare));
        let contents = matches!(base, "" | "." | "..");
        let real = match last {
            Last::Link if !contents => format!("{}/{base}", self.view.real(above)).trim_start_matches('/').to_owned(),
            Last::Link | Last::Target => self.view.real(bare),
        };
        let spot = self.view.spot(&real).map_err(failed("open"))?;
        let file = self.view.mounted_at(&real);
        let stat = match file {
            Some(file) => fstat(file).map_err(failed("fstat"))?,
            None => statat(&spot.parent, &spot.name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("stat"))?,
        };
        let link_target = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                readlinkat(&spot.parent, &spot.name, Vec::new()).map_err(failed("readlink"))?.to_string_lossy().into_owned()
            }
            FileType::Directory => String::new(),
            _ if contents || path.ends_with('/') => return Err(Refused::NoDirectory { path: path.to_owned() }),
            _ => String::new(),
        };
        let name = if contents { Vec::new() } else { base.as_bytes().to_vec() };
        let mut mounts = self.view.below(&real).map_err(failed("open"))?;
        if !contents {
            mounts = mounts.into_iter().map(|(path, mount)| ([&name, &b"/"[..], &path].concat(), mount)).collect();
            let file = file.map(|file| file.try_clone_to_owned().map_err(|_| call("open", path, Errno::MFILE)));
            mounts.extend(file.transpose()?.map(|file| (name.clone(), file)));
        }
        let stat = file_stat(if base.is_empty() { "/" } else { base }, &stat, link_target);
        Ok(FoundFile { spot, name, mounts, stat, _files: self })
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
    /// The same without what is mounted in it.
    #[must_use]
    pub fn without_mounts(self) -> Self {
        Self { mounts: BTreeMap::new(), ..self }
    }

    /// Writes it as an archive, a directory with all that is below it. Of other file systems there are those that the container was
    /// asked to have. Blocks.
    ///
    /// # Errors
    /// The writer's; what changes while it is read.
    pub fn write(self, writer: impl Write) -> Result<(), Error> {
        let limits = layer::Limits { unpacked: u64::MAX / 2, ..layer::Limits::default() };
        let spot = (self.spot.parent.as_fd(), self.spot.name.as_bytes());
        let packed = layer::pack_with(spot, &self.name, &self.mounts, writer, &limits);
        let path = self.stat.name.clone();
        packed.map(drop).map_err(|source| Refused::Pack { path, source: Box::new(source) }).map_err(super::words)
    }
}
