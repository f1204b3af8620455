//! The layer in memory: inodes and names as the archive's entries leave them, without any file system.
//!
//! Invariant: an inode's id is greater than its directory's, and ids are never used twice.

mod change;
mod resolve;

use std::collections::{BTreeMap, HashMap};

pub(crate) use crate::tar::Time;
use crate::{Error, Limits, Refusal, tar::Segment, xattr::Xattrs};

/// An inode's place in [`Tree`].
pub(crate) type Id = u32;

/// The layer's root directory.
pub(crate) const ROOT: Id = 0;

/// What every inode has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Xattrs,
}

impl Attributes {
    /// A directory that the archive uses but does not describe.
    pub(crate) fn implied() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: Time::default(), xattrs: Xattrs::new() }
    }
}

/// What an inode is.
#[derive(Debug)]
pub(crate) enum Node {
    Directory(Box<Directory>),
    File(Content),
    Symlink(Box<[u8]>),
    CharDevice(Device),
    BlockDevice(Device),
    Fifo,
    /// Hides a name of the layers below; a character device 0:0 for overlayfs.
    Whiteout,
    /// All its names are gone.
    Gone,
}

/// A device number in Linux's range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// Where a file's bytes are in the stream.
#[derive(Debug)]
pub(crate) enum Content {
    Dense { start: u64, size: u64 },
    Sparse(Box<Sparse>),
}

/// A file with holes.
#[derive(Debug)]
pub(crate) struct Sparse {
    pub(crate) size: u64,
    pub(crate) start: u64,
    pub(crate) map: Vec<Segment>,
}

/// What a directory has besides.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) parent: Id,
    pub(crate) name: Box<[u8]>,
    pub(crate) children: BTreeMap<Box<[u8]>, Id>,
    pub(crate) subdirectories: u32,
    /// Hides what the layers below have in it.
    pub(crate) opaque: bool,
    /// Not described by the archive (so far).
    pub(crate) implied: bool,
    /// Length of the path from the root.
    path_len: usize,
}

/// An inode.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) attributes: Attributes,
    pub(crate) node: Node,
    pub(crate) links: u32,
}

/// What is left of the limits that hold for the whole layer.
#[derive(Debug)]
struct Budget {
    inodes: u64,
    metadata: u64,
    link_steps: u64,
    content: u64,
}

/// All inodes of a layer.
#[derive(Debug)]
pub(crate) struct Tree {
    inodes: Vec<Inode>,
    limits: Limits,
    budget: Budget,
    /// The last parent that was resolved: archives list directory by directory.
    last_parent: Option<(Vec<u8>, Id)>,
}

impl Tree {
    pub(crate) fn new(limits: &Limits) -> Self {
        let root = Directory {
            parent: ROOT,
            name: Box::default(),
            children: BTreeMap::new(),
            subdirectories: 0,
            opaque: false,
            implied: true,
            path_len: 0,
        };
        let root = Inode { attributes: Attributes::implied(), node: Node::Directory(Box::new(root)), links: 1 };
        let budget =
            Budget { inodes: limits.entries, metadata: limits.metadata, link_steps: limits.link_steps, content: limits.unpacked };
        Self { inodes: vec![root], limits: *limits, budget, last_parent: None }
    }

    pub(crate) fn inode(&self, id: Id) -> &Inode {
        &self.inodes[id as usize]
    }

    /// All inodes that still have a name, directories before what is in them.
    pub(crate) fn inodes(&self) -> impl DoubleEndedIterator<Item = (Id, &Inode)> {
        let with_id = |(index, inode)| (Id::try_from(index).expect("new_inode gives out ids of this size only"), inode);
        self.inodes.iter().enumerate().map(with_id).filter(|(_, inode)| !matches!(inode.node, Node::Gone))
    }

    /// One more than the greatest id.
    pub(crate) fn id_limit(&self) -> usize {
        self.inodes.len()
    }

    pub(crate) fn directory(&self, id: Id) -> Option<&Directory> {
        match &self.inode(id).node {
            Node::Directory(directory) => Some(directory),
            Node::File(_)
            | Node::Symlink(_)
            | Node::CharDevice(_)
            | Node::BlockDevice(_)
            | Node::Fifo
            | Node::Whiteout
            | Node::Gone => None,
        }
    }

    /// The path of a directory from the root, through directories only.
    pub(crate) fn path(&self, dir: Id) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = dir;
        while let (true, Some(directory)) = (at != ROOT, self.directory(at)) {
            names.push(&*directory.name);
            at = directory.parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The path of a name in a directory.
    pub(crate) fn path_of(&self, dir: Id, name: &[u8]) -> Vec<u8> {
        let mut path = self.path(dir);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    fn directory_mut(&mut self, id: Id) -> &mut Directory {
        match &mut self.inodes[id as usize].node {
            Node::Directory(directory) => directory,
            _ => unreachable!("callers hold ids of directories only"),
        }
    }

    fn charge_metadata(&mut self, bytes: usize) -> Result<(), Error> {
        let over = Error::Limit { what: "bytes of metadata", max: self.limits.metadata };
        self.budget.metadata = self.budget.metadata.checked_sub(bytes as u64).ok_or(over)?;
        Ok(())
    }

    /// Counts one entry of the archive, or one directory that it implies.
    pub(crate) fn charge_entry(&mut self) -> Result<(), Error> {
        let over = Error::Limit { what: "entries", max: self.limits.entries };
        self.budget.inodes = self.budget.inodes.checked_sub(1).ok_or(over)?;
        Ok(())
    }

    /// Counts a file's size, holes included.
    pub(crate) fn charge_content(&mut self, bytes: u64) -> Result<(), Error> {
        let over = Error::Limit { what: "bytes of files", max: self.limits.unpacked };
        self.budget.content = self.budget.content.checked_sub(bytes).ok_or(over)?;
        Ok(())
    }
}

/// Why a change of the tree did not happen.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The entry is at fault.
    Refused(Refusal),
    /// Anything else.
    Failed(Error),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Devices by inode for those who must make one name first and link the others to it.
pub(crate) type FirstNames = HashMap<Id, (Id, Box<[u8]>)>;
