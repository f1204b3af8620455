//! Where the files of an archive are in it: for archives of images, which are read at random.

use std::io::Read;

use crate::{
    Error, Limits, apply,
    tree::{Content, Directory, Node, ROOT, Tree},
};

/// A regular file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// Its path, without a leading slash; what is not UTF-8 is left out.
    pub name: String,
    /// Where its bytes begin.
    pub offset: u64,
    /// How many there are.
    pub size: u64,
}

/// How far a symlink is followed: `docker save` of old links one layer to another.
const LINKS: usize = 4;

/// Lists the regular files of a plain tar, symlinks to them included. The whole archive is read once.
///
/// # Errors
/// What [`crate::apply()`] says of a malformed archive.
pub fn archive_entries(reader: impl Read + Send) -> Result<Vec<ArchiveEntry>, Error> {
    let tree = apply::list(reader, &Limits { entries: 100_000, metadata: 64 << 20, ..Limits::default() })?;
    let mut found = Vec::new();
    for (id, _) in tree.inodes() {
        let Some(directory) = tree.directory(id) else { continue };
        for (name, child) in &directory.children {
            let Some(content) = file(&tree, id, *child, LINKS) else { continue };
            let path = [&tree.path(id)[..], b"/", name].concat();
            if let Ok(path) = String::from_utf8(path) {
                found.push(ArchiveEntry { name: path.trim_start_matches('/').to_owned(), offset: content.0, size: content.1 });
            }
        }
    }
    Ok(found)
}

/// Offset and size of a file, or of the file that a symlink in `dir` leads to.
fn file(tree: &Tree, dir: u32, id: u32, links: usize) -> Option<(u64, u64)> {
    match &tree.inode(id).node {
        Node::File(Content::Dense { start, size }) => Some((*start, *size)),
        Node::Symlink(target) if links > 0 => {
            let (dir, id) = walk(tree, dir, target)?;
            file(tree, dir, id, links - 1)
        }
        Node::File(Content::Sparse(_)) | Node::Symlink(_) | Node::Directory(_) | Node::CharDevice(_) | Node::BlockDevice(_) => None,
        Node::Fifo | Node::Whiteout | Node::Gone => None,
    }
}

/// Follows a relative path of plain names and `..`.
fn walk(tree: &Tree, dir: u32, path: &[u8]) -> Option<(u32, u32)> {
    let mut current = if path.first() == Some(&b'/') { ROOT } else { dir };
    let mut parts = path.split(|c| *c == b'/').filter(|part| !part.is_empty() && *part != b".").peekable();
    while let Some(part) = parts.next() {
        let directory: &Directory = tree.directory(current)?;
        let next = if part == b".." { directory.parent } else { *directory.children.get(part)? };
        if parts.peek().is_none() {
            return Some((current, next));
        }
        current = next;
    }
    None
}
