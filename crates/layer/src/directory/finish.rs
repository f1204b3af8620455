//! Everything that is neither directory nor regular file, and then the directories' own attributes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::{
    fs::{AtFlags, FileType, Mode, XattrFlags, chmodat, chownat, fsetxattr, lsetxattr, makedev, mknodat, symlinkat, utimensat},
    io::Errno,
};

use super::{
    Extractor,
    extract::{mode, owner, times},
};
use crate::{
    Error,
    tree::{Attributes, Device, FirstNames, Id, Node, Tree},
    xattr::OVERLAY_OPAQUE,
};

type Step = Result<(), (&'static str, Errno)>;

impl Extractor<'_> {
    /// Completes the layer from the finished tree.
    pub(crate) fn finish(mut self, tree: &Tree) -> Result<(), Error> {
        let mut first_names = FirstNames::new();
        for (dir, _) in tree.inodes() {
            let Some(directory) = tree.directory(dir) else { continue };
            self.dir(tree, dir)?;
            for (name, id) in &directory.children {
                self.late(tree, dir, name, *id, &mut first_names)?;
            }
        }
        // Children first, since directories may take away from others what we need to reach them.
        for (id, inode) in tree.inodes().rev() {
            let Some(directory) = tree.directory(id) else { continue };
            let opaque = directory.opaque;
            let fd = self.dir(tree, id)?.try_clone_to_owned().map_err(|e| Error::image("dup", e))?;
            self.directory_attributes(fd.as_fd(), &inode.attributes, opaque)
                .map_err(|(call, e)| Error::write(call, &tree.path(id), e))?;
        }
        Ok(())
    }

    fn directory_attributes(&self, fd: BorrowedFd<'_>, attributes: &Attributes, opaque: bool) -> Step {
        if opaque {
            fsetxattr(fd, OVERLAY_OPAQUE, b"y", XattrFlags::empty()).map_err(|e| ("fsetxattr", e))?;
        }
        self.set_attributes(fd, attributes)
    }

    /// Makes one name of a symlink, device, fifo or whiteout.
    fn late(&mut self, tree: &Tree, dir: Id, name: &[u8], id: Id, first_names: &mut FirstNames) -> Result<(), Error> {
        let inode = tree.inode(id);
        if matches!(inode.node, Node::Directory(_) | Node::File(_)) {
            return Ok(());
        }
        let failed = |(call, e)| Error::write(call, &tree.path_of(dir, name), e);
        if let Some((there, known)) = first_names.get(&id) {
            let there = self.dir(tree, *there)?.try_clone_to_owned().map_err(|e| Error::image("dup", e))?;
            let here = self.dir(tree, dir)?;
            return rustix::fs::linkat(there, &known[..], here, name, AtFlags::empty()).map_err(|e| failed(("linkat", e)));
        }
        let here = self.dir(tree, dir)?;
        make(here, name, &inode.node).map_err(failed)?;
        describe(here, name, &inode.node, &inode.attributes).map_err(failed)?;
        if inode.links > 1 {
            first_names.insert(id, (dir, name.into()));
        }
        Ok(())
    }
}

fn make(dir: BorrowedFd<'_>, name: &[u8], node: &Node) -> Step {
    let node_at = |kind, device: Device| {
        mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, makedev(device.major, device.minor)).map_err(|e| ("mknodat", e))
    };
    match node {
        Node::Symlink(target) => symlinkat(&target[..], dir, name).map_err(|e| ("symlinkat", e)),
        Node::CharDevice(device) => node_at(FileType::CharacterDevice, *device),
        Node::BlockDevice(device) => node_at(FileType::BlockDevice, *device),
        Node::Fifo => node_at(FileType::Fifo, Device { major: 0, minor: 0 }),
        Node::Whiteout => node_at(FileType::CharacterDevice, Device { major: 0, minor: 0 }),
        Node::Directory(_) | Node::File(_) | Node::Gone => Ok(()),
    }
}

/// By name, since opening a device or a fifo would do something; the directory is ours alone and the name was made above.
fn describe(dir: BorrowedFd<'_>, name: &[u8], node: &Node, attributes: &Attributes) -> Step {
    let (uid, gid) = owner(attributes);
    chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| ("fchownat", e))?;
    if !attributes.xattrs.is_empty() {
        // There is no setxattrat(2) before Linux 6.13. The descriptor keeps the path short and pinned.
        let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
        for (attribute, value) in &attributes.xattrs {
            lsetxattr(&path[..], &attribute[..], value, XattrFlags::empty()).map_err(|e| ("lsetxattr", e))?;
        }
    }
    if !matches!(node, Node::Symlink(_)) {
        chmodat(dir, name, mode(attributes), AtFlags::empty()).map_err(|e| ("fchmodat", e))?;
    }
    utimensat(dir, name, &times(attributes.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(|e| ("utimensat", e))
}
