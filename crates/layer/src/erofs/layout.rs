//! Where everything goes in the image: computed before anything is written, since directories name inodes by place.

use super::{
    format::{BLOCK, DIRENT_SIZE, Data, FileType, INODE_SIZE, SLOT, TAR_OFFSET, encode_device, encode_xattrs},
    sparse::{block_address, chunks, map},
};
use crate::{
    Error,
    tree::{Content, Directory, Id, Node, ROOT, Tree},
};

/// The inode area starts with an empty stretch: inode number 0 would make readdir(3) hide the root's entries.
const FIRST_INODE: u64 = INODE_SIZE;

/// One inode's places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Offset from the start of the inode area.
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) data: Data,
    /// Where this sparse file's copied chunks go.
    pub(super) copy_at: u64,
}

/// The whole image.
#[derive(Debug)]
pub(super) struct Layout {
    /// Start of the inode area in the file.
    pub(super) meta: u64,
    /// Its length, a multiple of the block size.
    pub(super) inodes_len: u64,
    /// By inode id; `None` for those that are gone.
    pub(super) plans: Vec<Option<Plan>>,
    /// Directories and long symlinks, behind the inode area.
    pub(super) blocks: Vec<u8>,
    pub(super) chunked: bool,
}

impl Layout {
    pub(super) fn new(tree: &Tree, tar_size: u64) -> Result<Self, Error> {
        let mut plans = vec![None; tree.id_limit()];
        let (meta, chunked) = copies(tree, tar_size, &mut plans)?;
        let mut at = FIRST_INODE;
        for (id, _) in tree.inodes() {
            let (plan, end) = place_inode(tree, id, at)?;
            let slot = &mut plans[id as usize];
            *slot = Some(Plan { copy_at: slot.map_or(0, |plan: Plan| plan.copy_at), ..plan });
            at = end;
        }
        let inodes_len = at.next_multiple_of(BLOCK);
        let mut layout = Self { meta, inodes_len, plans, blocks: Vec::new(), chunked };
        layout.place_blocks(tree)?;
        block_address(layout.end())?;
        Ok(layout)
    }

    /// The inode's number on disk.
    pub(super) fn slot(&self, id: Id) -> u64 {
        self.plan(id).offset / SLOT
    }

    pub(super) fn plan(&self, id: Id) -> Plan {
        self.plans[id as usize].expect("every inode of the tree that is not gone has a plan")
    }

    /// Length of the image file.
    pub(super) fn end(&self) -> u64 {
        self.meta + self.inodes_len + self.blocks.len() as u64
    }

    fn place_blocks(&mut self, tree: &Tree) -> Result<(), Error> {
        for (id, inode) in tree.inodes() {
            let start = self.end();
            match &inode.node {
                Node::Directory(directory) => {
                    let size = self.directory(tree, id, directory);
                    self.settle(id, start, size)?;
                }
                Node::Symlink(target) if self.plan(id).data != Data::Inline => {
                    self.blocks.extend_from_slice(target);
                    self.settle(id, start, target.len() as u64)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn settle(&mut self, id: Id, start: u64, size: u64) -> Result<(), Error> {
        self.blocks.resize(self.blocks.len().next_multiple_of(BLOCK_LEN), 0);
        let data = Data::Flat(block_address(start)?);
        self.plans[id as usize] = Some(Plan { size, data, ..self.plan(id) });
        Ok(())
    }

    /// Appends a directory: blocks that each hold entries, then their names, sorted over the whole directory.
    fn directory(&mut self, tree: &Tree, id: Id, directory: &Directory) -> u64 {
        let parent = if id == ROOT { ROOT } else { directory.parent };
        let mut entries: Vec<(&[u8], Id)> = directory.children.iter().map(|(name, id)| (&name[..], *id)).collect();
        entries.extend([(&b"."[..], id), (&b".."[..], parent)]);
        entries.sort_unstable();
        let mut size = 0;
        let mut rest = &entries[..];
        while !rest.is_empty() {
            let count = fitting(rest);
            let start = self.blocks.len();
            self.directory_block(tree, &rest[..count]);
            size += if count == rest.len() { self.blocks.len() - start } else { BLOCK_LEN };
            self.blocks.resize(start + BLOCK_LEN, 0);
            rest = &rest[count..];
        }
        size as u64
    }

    fn directory_block(&mut self, tree: &Tree, entries: &[(&[u8], Id)]) {
        let mut name_at = entries.len() * DIRENT_SIZE;
        for (name, id) in entries {
            let slot = self.slot(*id).to_le_bytes();
            self.blocks.extend_from_slice(&slot);
            self.blocks.extend_from_slice(&u16::try_from(name_at).expect("within a block of 512 bytes").to_le_bytes());
            self.blocks.extend_from_slice(&[file_type(&tree.inode(*id).node) as u8, 0]);
            name_at += name.len();
        }
        for (name, _) in entries {
            self.blocks.extend_from_slice(name);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "512")]
const BLOCK_LEN: usize = BLOCK as usize;

/// As many entries as one block takes; at least one, since names are limited to 255 bytes.
fn fitting(entries: &[(&[u8], Id)]) -> usize {
    let mut used = 0;
    entries
        .iter()
        .take_while(|(name, _)| {
            used += DIRENT_SIZE + name.len();
            used <= BLOCK_LEN
        })
        .count()
}

fn file_type(node: &Node) -> FileType {
    match node {
        Node::Directory(_) => FileType::Directory,
        Node::File(_) | Node::Gone => FileType::Regular,
        Node::Symlink(_) => FileType::Symlink,
        Node::CharDevice(_) | Node::Whiteout => FileType::Char,
        Node::BlockDevice(_) => FileType::Block,
        Node::Fifo => FileType::Fifo,
    }
}

/// Reserves room for the copied chunks of sparse files; returns where the inode area starts, and whether any file is sparse.
fn copies(tree: &Tree, tar_size: u64, plans: &mut [Option<Plan>]) -> Result<(u64, bool), Error> {
    let mut at = (TAR_OFFSET + tar_size).next_multiple_of(BLOCK);
    let mut chunked = false;
    for (id, inode) in tree.inodes() {
        let Node::File(Content::Sparse(sparse)) = &inode.node else { continue };
        chunked = true;
        plans[id as usize] = Some(Plan { offset: 0, size: 0, data: Data::Inline, copy_at: at });
        at += map(sparse, at)?.copied;
    }
    Ok((at, chunked))
}

/// Finds the place of one inode at or behind `at`; returns it and where the next may start.
fn place_inode(tree: &Tree, id: Id, at: u64) -> Result<(Plan, u64), Error> {
    let inode = tree.inode(id);
    let opaque = tree.directory(id).is_some_and(|directory| directory.opaque);
    let fixed = INODE_SIZE + encode_xattrs(&inode.attributes.xattrs, opaque).0.len() as u64;
    let (size, data, behind) = match &inode.node {
        Node::Symlink(target) => {
            let length = target.len() as u64;
            let inline = fixed + length <= BLOCK;
            if inline { (length, Data::Inline, length) } else { (length, Data::Flat(0), 0) }
        }
        Node::File(Content::Dense { size: 0, .. }) => (0, Data::Flat(0), 0),
        Node::File(Content::Dense { start, size }) => (*size, Data::Flat(block_address(TAR_OFFSET + start)?), 0),
        Node::File(Content::Sparse(sparse)) if sparse.size == 0 => (0, Data::Flat(0), 0),
        Node::File(Content::Sparse(sparse)) => {
            let (bits, count) = chunks(sparse.size);
            (sparse.size, Data::Chunks(bits), count * 4)
        }
        Node::CharDevice(device) | Node::BlockDevice(device) => (0, Data::Device(encode_device(device.major, device.minor)), 0),
        Node::Fifo | Node::Whiteout | Node::Gone => (0, Data::Device(0), 0),
        Node::Directory(_) => (0, Data::Flat(0), 0),
    };
    // The inode itself, and inline data together with what is in front of it, must not straddle two blocks.
    let together = if data == Data::Inline { fixed + behind } else { INODE_SIZE };
    let offset = if at % BLOCK + together > BLOCK { at.next_multiple_of(BLOCK) } else { at };
    let end = (offset + fixed + behind).next_multiple_of(SLOT);
    Ok((Plan { offset, size, data, copy_at: 0 }, end))
}
