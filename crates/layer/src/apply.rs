//! One pass over a layer: archive entries become changes of the tree, and the tree becomes a format.

use std::{fs::File, io::Read, os::fd::BorrowedFd, thread};

use model::DiffId;

use crate::{
    Compression, Error, Limits, Refusal,
    compression::Decoder,
    directory::Extractor,
    erofs,
    path::{Place, classify, locate},
    sink::{Dentry, Sink, TreeOnly},
    stream::{Ended, HashIn, Stream, pipe, preloaded},
    tar::{Entry, Kind, Reader},
    tree::{Attributes, Content, Device, Node, ROOT, Sparse, Stop, Tree},
    xattr::{self, Bearer},
};

/// Where a layer goes. Neither is synced: the caller makes a layer durable once, as a whole.
#[derive(Clone, Copy, Debug)]
pub enum Target<'t> {
    /// An empty regular file, open for reading and writing. After an error it holds rubbish that does not mount.
    Erofs(&'t File),
    /// An empty directory that nobody else can reach. After an error it holds part of the layer.
    Directory(BorrowedFd<'t>),
}

/// What was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The digest of the whole uncompressed stream.
    pub diff_id: DiffId,
    /// Its length in bytes.
    pub tar_size: u64,
    /// Compressed bytes that were read.
    pub compressed_size: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// Files, directories, links and whiteouts in the result, each inode once.
    pub inodes: u64,
    /// Bytes in files, holes included.
    pub content: u64,
    /// The layer hides everything below it: a stack may leave out what is under it.
    pub opaque_root: bool,
    /// Extended attributes that were left out, since they are the host's to set (`trusted.overlay.*`, `security.*`).
    pub stripped_xattrs: u64,
    /// Directories that entries are in without an entry of their own: root's, mode 0755.
    pub implied_directories: u64,
}

/// Unpacks a layer into `target`, hashing it on the way.
///
/// The reader is read to its end in a thread of its own, unless there is an error; after an error it is read no further,
/// but a read that is under way is waited for. Deadlines are the reader's.
///
/// # Errors
/// [`Error`]; the target is then to be thrown away.
pub fn apply(reader: impl Read + Send, compression: Compression, target: Target<'_>, limits: &Limits) -> Result<Applied, Error> {
    match target {
        Target::Erofs(file) => {
            erofs::start(file)?;
            let (tree, totals) = with_stream(reader, compression, limits, HashIn::Consumer, Some(file), |stream| {
                read(stream, limits, &mut TreeOnly)
            })?;
            erofs::finish(file, &tree, &totals.ended)?;
            Ok(applied(&tree, &totals))
        }
        Target::Directory(root) => {
            let mut extractor = Extractor::new(root)?;
            let (tree, totals) =
                with_stream(reader, compression, limits, HashIn::Producer, None, |stream| read(stream, limits, &mut extractor))?;
            extractor.finish(&tree)?;
            Ok(applied(&tree, &totals))
        }
    }
}

/// Reads a plain archive into a tree and nothing else.
pub(crate) fn parse(data: &[u8], limits: &Limits) -> Result<(Tree, Applied), Error> {
    let (tree, totals) = read(preloaded(data), limits, &mut TreeOnly)?;
    let applied = applied(&tree, &totals);
    Ok((tree, applied))
}

/// Reads a plain archive of any length into a tree and nothing else.
pub(crate) fn list(reader: impl Read + Send, limits: &Limits) -> Result<Tree, Error> {
    let read_tree = |stream: Stream<'_>| read(stream, limits, &mut TreeOnly);
    with_stream(reader, Compression::None, limits, HashIn::Consumer, None, read_tree).map(|(tree, _)| tree)
}

fn with_stream<T>(
    reader: impl Read + Send,
    compression: Compression,
    limits: &Limits,
    hash_in: HashIn,
    copy: Option<&File>,
    consume: impl FnOnce(Stream<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let (producer, stream) = pipe(hash_in, copy);
    thread::scope(|scope| {
        scope.spawn(move || match Decoder::new(reader, compression, limits) {
            Ok(decoder) => producer.run(decoder),
            Err(error) => producer.fail(error),
        });
        // The stream is dropped with the closure's end, which stops the producer.
        consume(stream)
    })
}

struct Totals {
    ended: Ended,
    entries: u64,
    content: u64,
    stripped: u64,
}

fn applied(tree: &Tree, totals: &Totals) -> Applied {
    let directories = || tree.inodes().filter_map(|(id, _)| tree.directory(id).map(|directory| (id, directory)));
    Applied {
        diff_id: totals.ended.diff_id,
        tar_size: totals.ended.size,
        compressed_size: totals.ended.compressed,
        entries: totals.entries,
        inodes: tree.inodes().count() as u64,
        content: totals.content,
        opaque_root: tree.directory(ROOT).is_some_and(|root| root.opaque),
        stripped_xattrs: totals.stripped,
        implied_directories: directories().filter(|(id, directory)| *id != ROOT && directory.implied).count() as u64,
    }
}

fn read(stream: Stream<'_>, limits: &Limits, sink: &mut dyn Sink) -> Result<(Tree, Totals), Error> {
    let mut front = Front { reader: Reader::new(stream, limits), tree: Tree::new(limits), limits, sink, stripped: 0, content: 0 };
    let mut entries = 0;
    while let Some(entry) = front.reader.next()? {
        front.tree.charge_entry()?;
        entries += 1;
        let shown = entry.shown();
        front.entry(entry).map_err(|stop| match stop {
            Stop::Refused(reason) => Error::Entry { path: shown, reason },
            Stop::Failed(error) => error,
        })?;
    }
    let ended = front.reader.finish()?;
    Ok((front.tree, Totals { ended, entries, content: front.content, stripped: front.stripped }))
}

/// Entries on their way into the tree.
struct Front<'a> {
    reader: Reader<'a>,
    tree: Tree,
    limits: &'a Limits,
    sink: &'a mut dyn Sink,
    stripped: u64,
    content: u64,
}

impl Front<'_> {
    fn entry(&mut self, entry: Entry) -> Result<(), Stop> {
        let place = match classify(&entry.path, self.limits)? {
            Place::Ignored => return Ok(()),
            Place::Whiteout(at) => return self.tree.whiteout(&at),
            Place::Opaque(dir) => return self.tree.opaque(&dir),
            Place::Root => None,
            Place::At(at) => Some(at),
        };
        if let Kind::HardLink(target) = &entry.kind {
            let at = place.ok_or(Refusal::Root)?;
            let target = locate(target, self.limits)?.ok_or_else(|| Refusal::LinkDirectory("/".to_owned()))?;
            return self.tree.link(&at, &target, self.sink);
        }
        let (attributes, node) = self.inode(entry)?;
        match (place, node) {
            (None, None) => self.tree.describe_root(attributes),
            (None, Some(_)) => Err(Refusal::Root.into()),
            (Some(at), None) => self.tree.insert_directory(&at, attributes, self.sink),
            (Some(at), Some(node)) => {
                let is_file = matches!(node, Node::File(_));
                let put = self.tree.insert(&at, attributes, node, self.sink)?;
                if is_file { Ok(self.content(Dentry { dir: put.dir, name: &at.name, id: put.id })?) } else { Ok(()) }
            }
        }
    }

    /// An entry's inode; without a node it is a directory.
    fn inode(&mut self, entry: Entry) -> Result<(Attributes, Option<Node>), Stop> {
        let owner = |id: i64| u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(Refusal::Owner);
        let (uid, gid) = (owner(entry.uid)?, owner(entry.gid)?);
        let (node, bearer) = match entry.kind {
            Kind::Directory => (None, Bearer::Directory),
            Kind::File { size, start, map } => (Some(Node::File(self.file(size, start, map)?)), Bearer::File),
            Kind::Symlink(target) => (Some(self.symlink(target)?), Bearer::Symlink),
            Kind::CharDevice(major, minor) => (Some(Node::CharDevice(device(major, minor)?)), Bearer::Special),
            Kind::BlockDevice(major, minor) => (Some(Node::BlockDevice(device(major, minor)?)), Bearer::Special),
            Kind::Fifo => (Some(Node::Fifo), Bearer::Special),
            Kind::HardLink(_) => return Err(Refusal::EmptyName.into()),
        };
        let (xattrs, stripped) = xattr::admit(entry.xattrs, bearer, self.limits)?;
        self.stripped += stripped;
        // Linux gives every symlink mode 0777, whatever an archive says.
        let mode = if bearer == Bearer::Symlink { 0o777 } else { entry.mode };
        Ok((Attributes { mode, uid, gid, mtime: entry.mtime, xattrs }, node))
    }

    fn file(&mut self, size: u64, start: u64, map: Option<Vec<crate::tar::Segment>>) -> Result<Content, Error> {
        self.tree.charge_content(size)?;
        self.content += size;
        Ok(match map {
            None => Content::Dense { start, size },
            Some(map) => Content::Sparse(Box::new(Sparse { size, start, map })),
        })
    }

    fn symlink(&self, target: Vec<u8>) -> Result<Node, Refusal> {
        if target.is_empty() || target.len() > self.limits.link_target {
            return Err(Refusal::SymlinkTarget);
        }
        Ok(Node::Symlink(target.into()))
    }

    /// Hands a file's data to the sink, each run at its place in the file.
    fn content(&mut self, at: Dentry<'_>) -> Result<(), Error> {
        self.sink.begin(&self.tree, at)?;
        let Node::File(content) = &self.tree.inode(at.id).node else { return Ok(()) };
        match content {
            Content::Dense { .. } => {
                let mut offset = 0;
                loop {
                    let piece = self.reader.data()?;
                    if piece.is_empty() {
                        break;
                    }
                    self.sink.write(offset, piece)?;
                    offset += piece.len() as u64;
                }
            }
            Content::Sparse(sparse) => {
                let mut segments = sparse.map.iter().copied();
                let mut segment = segments.next();
                loop {
                    let mut piece = self.reader.data()?;
                    if piece.is_empty() {
                        break;
                    }
                    while let (false, Some(current)) = (piece.is_empty(), &mut segment) {
                        let n = usize::try_from(current.length).map_or(piece.len(), |left| left.min(piece.len()));
                        self.sink.write(current.offset, &piece[..n])?;
                        piece = &piece[n..];
                        current.offset += n as u64;
                        current.length -= n as u64;
                        if current.length == 0 {
                            segment = segments.next();
                        }
                    }
                }
            }
        }
        self.sink.end(&self.tree, at.id)
    }
}

/// Linux keeps twelve bits of major and twenty of minor number.
fn device(major: i64, minor: i64) -> Result<Device, Refusal> {
    let in_range = |number: i64, bits: u32| u32::try_from(number).ok().filter(|n| n >> bits == 0);
    match (in_range(major, 12), in_range(minor, 20)) {
        (Some(major), Some(minor)) => Ok(Device { major, minor }),
        _ => Err(Refusal::Device(major.cast_unsigned(), minor.cast_unsigned())),
    }
}
