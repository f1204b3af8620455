//! Directories and regular files, made as the archive is read.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fsetxattr, futimens},
    io::{Errno, pwrite},
};

use crate::{
    Error,
    sink::{Dentry, Sink},
    tree::{Attributes, Id, Node, ROOT, Time, Tree},
};

/// As many directories are kept open: archives go back and forth between few.
const OPEN_DIRECTORIES: usize = 16;

/// Writes a layer below a directory.
pub(crate) struct Extractor<'d> {
    root: BorrowedFd<'d>,
    /// By inode: does it exist below `root`?
    on_disk: Vec<bool>,
    /// Recently used directories, the latest last.
    open: Vec<(Id, OwnedFd)>,
    file: Option<OwnedFd>,
    /// The ids that new files get by themselves.
    own: (u32, u32),
}

impl<'d> Extractor<'d> {
    pub(crate) fn new(root: BorrowedFd<'d>) -> Result<Self, Error> {
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Ok(Self { root, on_disk: vec![true], open: Vec::new(), file: None, own })
    }

    pub(super) fn exists(&self, id: Id) -> bool {
        self.on_disk.get(id as usize).copied().unwrap_or(false)
    }

    fn set_exists(&mut self, id: Id, exists: bool) {
        let index = id as usize;
        if index >= self.on_disk.len() {
            self.on_disk.resize(index + 1, false);
        }
        self.on_disk[index] = exists;
    }

    /// The directory, made if it does not exist yet.
    pub(super) fn dir(&mut self, tree: &Tree, id: Id) -> Result<BorrowedFd<'_>, Error> {
        if id == ROOT {
            return Ok(self.root);
        }
        if let Some(index) = self.open.iter().position(|(known, _)| *known == id) {
            let entry = self.open.remove(index);
            self.open.push(entry);
        } else {
            self.make_directories(tree, id)?;
            let fd = self.open_dir(tree, id)?;
            if self.open.len() == OPEN_DIRECTORIES {
                self.open.remove(0);
            }
            self.open.push((id, fd));
        }
        match self.open.last() {
            Some((_, fd)) => Ok(rustix::fd::AsFd::as_fd(fd)),
            None => Ok(self.root),
        }
    }

    fn make_directories(&mut self, tree: &Tree, id: Id) -> Result<(), Error> {
        let mut missing = Vec::new();
        let mut at = id;
        while !self.exists(at) {
            missing.push(at);
            at = tree.directory(at).map_or(ROOT, |directory| directory.parent);
        }
        for id in missing.into_iter().rev() {
            let path = tree.path(id);
            // Parents were resolved in memory and made by us; this resolves the same names with symlinks forbidden.
            let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
                Some(slash) => (self.open_path(&path[..slash])?, &path[slash + 1..]),
                None => (self.open_path(b".")?, &path[..]),
            };
            rustix::fs::mkdirat(&above, name, Mode::RWXU).map_err(|e| Error::write("mkdir", &path, e))?;
            self.set_exists(id, true);
        }
        Ok(())
    }

    fn open_dir(&self, tree: &Tree, id: Id) -> Result<OwnedFd, Error> {
        self.open_path(&tree.path(id))
    }

    fn open_path(&self, path: &[u8]) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        loop {
            match rustix::fs::openat2(self.root, path, flags, Mode::empty(), resolve) {
                // A rename anywhere on the machine may make the kernel give up a resolution under BENEATH; see openat2(2).
                Err(Errno::AGAIN) => {}
                other => return other.map_err(|e| Error::write("openat2", path, e)),
            }
        }
    }

    /// Owner, extended attributes, mode and time, in this order: a change of owner takes setuid bits and capabilities away,
    /// a POSIX ACL changes the mode, and everything but the time changes the time.
    pub(super) fn set_attributes(&self, fd: BorrowedFd<'_>, attributes: &Attributes) -> Result<(), (&'static str, Errno)> {
        if (attributes.uid, attributes.gid) != self.own {
            let (uid, gid) = owner(attributes);
            fchown(fd, uid, gid).map_err(|e| ("fchown", e))?;
        }
        for (name, value) in &attributes.xattrs {
            fsetxattr(fd, &name[..], value, XattrFlags::empty()).map_err(|e| ("fsetxattr", e))?;
        }
        fchmod(fd, mode(attributes)).map_err(|e| ("fchmod", e))?;
        futimens(fd, &times(attributes.mtime)).map_err(|e| ("futimens", e))
    }
}

pub(super) fn owner(attributes: &Attributes) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))
}

pub(super) fn mode(attributes: &Attributes) -> Mode {
    Mode::from_raw_mode(u32::from(attributes.mode))
}

pub(super) fn times(mtime: Time) -> Timestamps {
    let at = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) };
    Timestamps { last_access: at, last_modification: at }
}

impl Sink for Extractor<'_> {
    fn begin(&mut self, tree: &Tree, at: Dentry<'_>) -> Result<(), Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = self.dir(tree, at.dir)?;
        let file = rustix::fs::openat(dir, at.name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| Error::write("openat", &tree.path_of(at.dir, at.name), e))?;
        self.set_exists(at.id, true);
        self.file = Some(file);
        Ok(())
    }

    fn write(&mut self, mut offset: u64, mut bytes: &[u8]) -> Result<(), Error> {
        let Some(file) = &self.file else { return Ok(()) };
        while !bytes.is_empty() {
            match pwrite(file, bytes, offset) {
                Ok(n) => {
                    offset += n as u64;
                    bytes = &bytes[n..];
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(Error::write("pwrite", b"", e)),
            }
        }
        Ok(())
    }

    fn end(&mut self, tree: &Tree, id: Id) -> Result<(), Error> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let inode = tree.inode(id);
        if let Node::File(crate::tree::Content::Sparse(sparse)) = &inode.node {
            rustix::fs::ftruncate(&file, sparse.size).map_err(|e| Error::write("ftruncate", b"", e))?;
        }
        self.set_attributes(rustix::fd::AsFd::as_fd(&file), &inode.attributes).map_err(|(call, e)| Error::write(call, b"", e))
    }

    fn link(&mut self, tree: &Tree, from: Dentry<'_>, to: Dentry<'_>) -> Result<(), Error> {
        // What is not a regular file is made at the end, with all its names.
        if !self.exists(from.id) {
            return Ok(());
        }
        let there = rustix::io::fcntl_dupfd_cloexec(self.dir(tree, from.dir)?, 3)
            .map_err(|e| Error::write("dup", &tree.path(from.dir), e))?;
        let here = self.dir(tree, to.dir)?;
        rustix::fs::linkat(there, from.name, here, to.name, AtFlags::empty())
            .map_err(|e| Error::write("linkat", &tree.path_of(to.dir, to.name), e))
    }

    fn unlink(&mut self, tree: &Tree, at: Dentry<'_>) -> Result<(), Error> {
        if !self.exists(at.id) {
            return Ok(());
        }
        let flags = match tree.inode(at.id).node {
            Node::Directory(_) => AtFlags::REMOVEDIR,
            _ => AtFlags::empty(),
        };
        self.open.retain(|(id, _)| *id != at.id);
        let dir = self.dir(tree, at.dir)?;
        rustix::fs::unlinkat(dir, at.name, flags).map_err(|e| Error::write("unlinkat", &tree.path_of(at.dir, at.name), e))?;
        if tree.inode(at.id).links == 1 {
            self.set_exists(at.id, false);
        }
        Ok(())
    }
}
