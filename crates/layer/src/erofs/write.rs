//! Writing what was laid out.

use std::{
    fs::File,
    io::{BufWriter, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
};

use super::{
    format::{RawInode, Superblock, TAR_OFFSET, encode_xattrs},
    layout::Layout,
    sparse::{Copy, map},
    tar::Header,
};
use crate::{
    Error,
    stream::Ended,
    tree::{Content, Id, Node, ROOT, Tree},
};

const BUFFER: usize = 1 << 20;

/// Puts the metadata behind the archive, and last of all the superblock in front of it.
pub(crate) fn finish(file: &File, tree: &Tree, ended: &Ended) -> Result<(), Error> {
    let layout = Layout::new(tree, ended.size)?;
    let failed = |e| Error::image("write", e);
    let mut handle = file;
    handle.seek(SeekFrom::Start(layout.meta)).map_err(failed)?;
    let mut out = BufWriter::with_capacity(BUFFER, handle);
    write_inodes(file, tree, &layout, &mut out)?;
    out.write_all(&layout.blocks).and_then(|()| out.flush()).map_err(failed)?;
    drop(out);
    let mut page = [0; 4096];
    Header { tar_size: ended.size, diff_id: ended.diff_id }.encode(&mut page);
    superblock(tree, &layout)?.encode(&mut page);
    const { assert!(TAR_OFFSET == 4096) };
    file.write_all_at(&page, 0).map_err(failed)
}

fn superblock(tree: &Tree, layout: &Layout) -> Result<Superblock, Error> {
    Ok(Superblock {
        root_slot: u16::try_from(layout.slot(ROOT)).expect("the root is the first inode"),
        inodes: tree.inodes().count() as u64,
        blocks: super::sparse::block_address(layout.end())?,
        meta_block: super::sparse::block_address(layout.meta)?,
        chunked: layout.chunked,
    })
}

fn write_inodes(file: &File, tree: &Tree, layout: &Layout, out: &mut impl Write) -> Result<(), Error> {
    let failed = |e| Error::image("write", e);
    let mut at = 0;
    let mut bytes = Vec::new();
    for (id, inode) in tree.inodes() {
        let plan = layout.plan(id);
        bytes.clear();
        bytes.resize(usize::try_from(plan.offset - at).expect("less than a block"), 0);
        encode(tree, layout, id, &mut bytes);
        match &inode.node {
            Node::Symlink(target) if plan.data == super::format::Data::Inline => bytes.extend_from_slice(target),
            Node::File(Content::Sparse(sparse)) if plan.size > 0 => {
                let map = map(sparse, plan.copy_at)?;
                copy_runs(file, &map.copies)?;
                bytes.extend(map.blocks.iter().flat_map(|block| block.to_le_bytes()));
            }
            _ => {}
        }
        out.write_all(&bytes).map_err(failed)?;
        at += bytes.len() as u64;
    }
    let rest = usize::try_from(layout.inodes_len - at).expect("less than a block");
    out.write_all(&vec![0; rest]).map_err(failed)
}

fn encode(tree: &Tree, layout: &Layout, id: Id, out: &mut Vec<u8>) {
    let inode = tree.inode(id);
    let plan = layout.plan(id);
    let directory = tree.directory(id);
    let (xattrs, xattr_count) = encode_xattrs(&inode.attributes.xattrs, directory.is_some_and(|directory| directory.opaque));
    let kind = match &inode.node {
        Node::Directory(_) => 0o040_000,
        Node::File(_) | Node::Gone => 0o100_000,
        Node::Symlink(_) => 0o120_000,
        Node::CharDevice(_) | Node::Whiteout => 0o020_000,
        Node::BlockDevice(_) => 0o060_000,
        Node::Fifo => 0o010_000,
    };
    let raw = RawInode {
        mode: kind | inode.attributes.mode,
        xattr_count,
        size: plan.size,
        data: plan.data,
        number: id.wrapping_add(1),
        uid: inode.attributes.uid,
        gid: inode.attributes.gid,
        seconds: inode.attributes.mtime.seconds,
        nanos: inode.attributes.mtime.nanos,
        links: directory.map_or(inode.links, |directory| 2 + directory.subdirectories),
    };
    raw.encode(out);
    out.extend_from_slice(&xattrs);
}

/// Moves the runs of a sparse file that the archive does not hold in a usable place.
fn copy_runs(file: &File, copies: &[Copy]) -> Result<(), Error> {
    let mut buffer = vec![0; 64 << 10];
    for copy in copies {
        let mut done = 0;
        while done < copy.length {
            let n = usize::try_from(copy.length - done).map_or(buffer.len(), |left| left.min(buffer.len()));
            file.read_exact_at(&mut buffer[..n], copy.from + done).map_err(|e| Error::image("read", e))?;
            file.write_all_at(&buffer[..n], copy.to + done).map_err(|e| Error::image("write", e))?;
            done += n as u64;
        }
    }
    Ok(())
}
