//! The way back: an overlay's upper directory becomes a layer's tar, with OCI's whiteouts for overlay's. Equal directories
//! become equal bytes, whatever order the file system lists them in.

mod place;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use model::{DiffId, Digest};
use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, Stat, StatxAttributes, StatxFlags, fgetxattr, flistxattr, fstat, lgetxattr,
        llistxattr, major, minor, openat, readlinkat, statat, statx,
    },
    io::Errno,
};
use sha2::{Digest as _, Sha256};

use crate::{
    Error, Limits, Refusal,
    error::shown,
    tar::{BLOCK, Flag, Head, Time},
    xattr::{self, Bearer, OVERLAY_OPAQUE, Xattrs},
};

/// What OCI puts before the name of something that is gone (image-spec, layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// What OCI puts into a directory that hides all below it.
const OPAQUE: &[u8] = b".wh..wh..opq";
const CHUNK: usize = 64 << 10;
/// Bytes that the names of extended attributes hardly ever exceed, and those that they cannot exceed, nor a value (xattr(7)).
const SHORT: usize = 512;
const LONG: usize = 64 << 10;

pub use place::{Above, Piece, Shape, Told, place};

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diffed {
    /// The digest of the archive, which is plain.
    pub diff_id: DiffId,
    /// Its length in bytes.
    pub size: u64,
    /// Its entries.
    pub entries: u64,
    /// Sockets: tar has no way to say them, and nobody could connect to one that came out of an archive.
    pub sockets_left_out: u64,
}

/// Writes the upper directory of an overlay, or any other directory, as the archive of a layer: what [`crate::apply()`] makes a
/// directory of that is the same but for `trusted.overlay.*` and `security.*` other than file capabilities. Other file
/// systems that are mounted inside are not entered.
///
/// A directory that is changed meanwhile gives some state of it, or an error; never something from outside of it.
///
/// # Errors
/// [`Error::Upper`] when something cannot be read or changed while it was, [`Error::Limit`], [`Error::Entry`] for a name that
/// means a whiteout in an archive, [`Error::Archive`] for the writer.
pub fn diff(upper: BorrowedFd<'_>, writer: impl Write, limits: &Limits) -> Result<Diffed, Error> {
    write(upper, &Leave::nothing(&BTreeSet::new()), writer, limits)
}

/// As [`diff`], for the layer of an image: without `mounted` (paths relative to `upper`, without a slash in front), where
/// something was mounted over an empty file or directory that was made for just that, and without directories that are only there
/// because these are in them. The root alone is no change: no entries then. What is younger than `latest` (seconds since 1970) gets that
/// time.
///
/// # Errors
/// As [`diff`].
pub fn diff_without(
    upper: BorrowedFd<'_>,
    mounted: &BTreeSet<Vec<u8>>,
    latest: Option<i64>,
    writer: impl Write,
    limits: &Limits,
) -> Result<Diffed, Error> {
    write(upper, &Leave { root: Bare::LeftOut, latest, ..Leave::nothing(mounted) }, writer, limits)
}

/// What happens to a path that is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It goes into the archive.
    Take,
    /// If it is a directory, it is there for what is taken of it, and not there for nothing.
    Below,
    /// Nothing of it goes into the archive.
    Leave,
}

/// What is called `name` in a directory, as `shown`: one entry, and for a directory everything below it. Other file systems that
/// are mounted below it are not entered.
///
/// # Errors
/// As [`diff`]; [`Error::Upper`] with `ENOENT` if it is not there.
pub fn pack(parent: BorrowedFd<'_>, name: &[u8], shown: &[u8], writer: impl Write, limits: &Limits) -> Result<Diffed, Error> {
    pick((parent, name), shown, &|_| Choice::Take, writer, limits)
}

/// As [`pack`], and only what is chosen by its path in the archive. With nothing as `shown` it is what is in a directory, and what is
/// chosen has its path from there.
///
/// # Errors
/// As [`pack`].
pub fn pick(
    (parent, name): (BorrowedFd<'_>, &[u8]),
    shown: &[u8],
    choose: &dyn Fn(&[u8]) -> Choice,
    writer: impl Write,
    limits: &Limits,
) -> Result<Diffed, Error> {
    let nothing = BTreeSet::new();
    // What is gone later is left out; this is what was asked for.
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| Error::upper("statat", shown, e))?;
    let leave = Leave { choose, ..Leave::nothing(&nothing) };
    let mut walk = Walk::new(&leave, writer, limits);
    walk.entry(parent, name, shown.to_vec())?;
    walk.below()?;
    walk.end()
}

/// As [`pack`], or as [`diff`] of the directory called `name` if `shown` is empty, with what is mounted in it: `mounts` are paths of
/// the archive, and handles of what is seen there.
///
/// # Errors
/// As [`pack`].
pub fn pack_with(
    (parent, name): (BorrowedFd<'_>, &[u8]),
    shown: &[u8],
    mounts: &BTreeMap<Vec<u8>, OwnedFd>,
    writer: impl Write,
    limits: &Limits,
) -> Result<Diffed, Error> {
    let nothing = BTreeSet::new();
    let leave = Leave { mounts: Some(mounts), ..Leave::nothing(&nothing) };
    if shown.is_empty() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(parent, name, flags, Mode::empty()).map_err(|e| Error::upper("open", name, e))?;
        return write(root.as_fd(), &leave, writer, limits);
    }
    let mut walk = Walk::new(&leave, writer, limits);
    walk.entry(parent, name, shown.to_vec())?;
    walk.below()?;
    walk.end()
}

/// What does not go into the archive, or not as it is.
struct Leave<'m> {
    /// What is seen at a path instead of what is there.
    mounts: Option<&'m BTreeMap<Vec<u8>, OwnedFd>>,
    mounted: &'m BTreeSet<Vec<u8>>,
    root: Bare,
    /// Seconds since 1970.
    latest: Option<i64>,
    choose: &'m dyn Fn(&[u8]) -> Choice,
    /// What becomes of everything.
    shape: Option<&'m Shape<'m>>,
}

impl<'m> Leave<'m> {
    fn nothing(mounted: &'m BTreeSet<Vec<u8>>) -> Self {
        Self { mounts: None, mounted, root: Bare::Kept, latest: None, choose: &|_| Choice::Take, shape: None }
    }
}

impl Leave<'_> {
    /// Adds the names that something is mounted on in a directory, if they are not there.
    fn add_mounts(&self, path: &[u8], names: &mut Vec<Vec<u8>>) {
        let front = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        for mount in self.mounts.into_iter().flat_map(BTreeMap::keys) {
            let name = mount.strip_prefix(&front[..]).filter(|name| !name.is_empty() && !name.contains(&b'/'));
            if let Some(name) = name
                && !names.iter().any(|known| known == name)
            {
                names.push(name.to_vec());
            }
        }
    }
}

/// What happens to a directory that nothing is told of but itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bare {
    Kept,
    LeftOut,
    /// It was not chosen; its parent stays what it is.
    NotChosen,
}

fn write(upper: BorrowedFd<'_>, leave: &Leave<'_>, writer: impl Write, limits: &Limits) -> Result<Diffed, Error> {
    let root = openat(upper, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(|e| Error::upper("open", b"", e))?;
    let mut walk = Walk::new(leave, writer, limits);
    walk.tree(root)?;
    walk.end()
}

/// The archive as it grows.
struct Out<W> {
    writer: W,
    hash: Sha256,
    size: u64,
    entries: u64,
}

impl<W: Write> Out<W> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.writer.write_all(bytes).map_err(Error::Archive)
    }

    fn head(&mut self, head: &Head<'_>) -> Result<(), Error> {
        self.entries += 1;
        self.bytes(&head.encode())
    }

    /// Nothing but a name.
    fn mark(&mut self, path: &[u8]) -> Result<(), Error> {
        let (flag, mtime) = (Flag::File, Time::default());
        let (mode, xattrs) = (0o600, &Xattrs::new());
        self.head(&Head { path, link: b"", flag, mode, uid: 0, gid: 0, size: 0, mtime, device: (0, 0), xattrs })
    }
}

/// A directory that is being read.
struct Level {
    fd: Rc<OwnedFd>,
    path: Vec<u8>,
    device: u64,
    /// What is left of it, the next one last.
    names: Vec<Vec<u8>>,
    /// Its own entry, until something below it is written.
    pending: Option<Vec<u8>>,
    /// It hides what is below it; told with its own entry, since a directory that is new does so too.
    opaque: Option<Vec<u8>>,
    bare: Bare,
}

struct Walk<'l, W> {
    out: Out<W>,
    limits: &'l Limits,
    leave: &'l Leave<'l>,
    /// From the root to where we are.
    levels: Vec<Level>,
    /// The first path of every file that has several, by device and inode.
    names: HashMap<(u64, u64), Vec<u8>>,
    /// What is left of the limits.
    left: Limits,
    sockets: u64,
    buffer: Vec<u8>,
}

impl<'l, W: Write> Walk<'l, W> {
    fn new(leave: &'l Leave<'l>, writer: W, limits: &'l Limits) -> Self {
        let out = Out { writer, hash: Sha256::new(), size: 0, entries: 0 };
        Self { out, limits, leave, levels: Vec::new(), names: HashMap::new(), left: *limits, sockets: 0, buffer: vec![0; CHUNK] }
    }

    /// The archive's end.
    fn end(mut self) -> Result<Diffed, Error> {
        self.out.bytes(&[0; 2 * BLOCK])?;
        self.out.writer.flush().map_err(Error::Archive)?;
        let digest: [u8; 32] = self.out.hash.finalize().into();
        Ok(Diffed {
            diff_id: DiffId::new(Digest::Sha256(digest)),
            size: self.out.size,
            entries: self.out.entries,
            sockets_left_out: self.sockets,
        })
    }

    /// Depth first with a stack of its own: a path has as many levels as its writer likes.
    fn tree(&mut self, root: OwnedFd) -> Result<(), Error> {
        self.enter(root, Vec::new())?;
        self.below()
    }

    /// Everything below the directories that were entered.
    fn below(&mut self) -> Result<(), Error> {
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.names.pop() else {
                self.leave_directory()?;
                continue;
            };
            let path = if level.path.is_empty() { name.clone() } else { [&level.path[..], b"/", &name].concat() };
            let fd = Rc::clone(&level.fd);
            self.entry(fd.as_fd(), &name, path)?;
        }
        Ok(())
    }

    fn leave_directory(&mut self) -> Result<(), Error> {
        if self.levels.last().is_some_and(|level| level.bare == Bare::Kept) {
            self.tell_parents()?;
        }
        if let Some(Level { pending: Some(_), bare: Bare::LeftOut, .. }) = self.levels.pop()
            && let Some(parent) = self.levels.last_mut()
        {
            // Nothing of it was worth telling, so that its parent may be there for it alone.
            parent.bare = Bare::LeftOut;
        }
        Ok(())
    }

    /// Writes the entries of the directories that we are in, if they are not.
    fn tell_parents(&mut self) -> Result<(), Error> {
        for level in &mut self.levels {
            if let Some(head) = level.pending.take() {
                self.out.entries += 1;
                self.out.bytes(&head)?;
                if let Some(opaque) = level.opaque.take() {
                    self.out.mark(&opaque)?;
                }
            }
        }
        Ok(())
    }

    /// Prepares a directory's own entry and lists it.
    fn enter(&mut self, fd: OwnedFd, path: Vec<u8>) -> Result<(), Error> {
        let failed = |call| {
            let path = path.clone();
            move |e| Error::upper(call, &path, e)
        };
        let stat = fstat(&fd).map_err(failed("fstat"))?;
        let found = xattrs_of(&fd).map_err(failed("fgetxattr"))?;
        // What is put into another place hides nothing there.
        let opaque = self.leave.shape.is_none() && found.get(OVERLAY_OPAQUE).is_some_and(|value| value == b"y");
        let shown_path = if path.is_empty() { b"./".to_vec() } else { [&path[..], b"/"].concat() };
        let head = self.encode(&shown_path, Flag::Directory, &stat, found, b"")?;
        let names = self.names_in(&fd, &path)?;
        let bare = if path.is_empty() { self.leave.root } else { Bare::Kept };
        let opaque = opaque.then(|| [&shown_path[..], OPAQUE].concat());
        self.levels.push(Level { fd: Rc::new(fd), path, device: stat.st_dev, names, pending: Some(head), opaque, bare });
        Ok(())
    }

    /// What is in a directory, the first one last.
    fn names_in(&mut self, fd: &OwnedFd, path: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let failed = |e| Error::upper("getdents", path, e);
        let mut names = Vec::new();
        for entry in Dir::read_from(fd).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            charge(&mut self.left.entries, 1, "entries", self.limits.entries)?;
            charge(&mut self.left.metadata, name.len() as u64, "bytes of metadata", self.limits.metadata)?;
            names.push(name);
        }
        self.leave.add_mounts(path, &mut names);
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    fn mark(&mut self, path: &[u8]) -> Result<(), Error> {
        self.tell_parents()?;
        self.out.mark(path)
    }

    /// One name; a directory becomes the next level.
    fn entry(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: Vec<u8>) -> Result<(), Error> {
        let refused = |reason| Error::Entry { path: shown(&path), reason };
        let choice = (self.leave.choose)(&path);
        if choice == Choice::Leave {
            return Ok(());
        }
        if name.starts_with(WHITEOUT) {
            return Err(refused(Refusal::Whiteout));
        }
        if path.len() + WHITEOUT.len() > self.limits.path {
            return Err(refused(Refusal::LongPath));
        }
        let failed = |call| {
            let path = path.clone();
            move |e| Error::upper(call, &path, e)
        };
        if let Some(mount) = self.leave.mounts.and_then(|mounts| mounts.get(&path)) {
            return self.mounted(mount, path);
        }
        let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Gone since the directory was listed.
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(failed("statat"))?,
        };
        // Files of an overlay may have other devices than its directories.
        let elsewhere = self.levels.last().is_some_and(|level| level.device != stat.st_dev);
        if elsewhere && is_mount(dir, name).map_err(failed("statx"))? {
            return Ok(());
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        if choice == Choice::Below && kind != FileType::Directory {
            return Ok(());
        }
        if kind == FileType::CharacterDevice && (major(stat.st_rdev), minor(stat.st_rdev)) == (0, 0) {
            let parent = &path[..path.len() - name.len()];
            return self.mark(&[parent, WHITEOUT, name].concat());
        }
        if self.leave.mounted.contains(&path) && self.is_place(dir, name, kind, &stat).map_err(failed("openat"))? {
            if let Some(level) = self.levels.last_mut() {
                level.bare = Bare::LeftOut;
            }
            return Ok(());
        }
        self.tell((dir, name), path, &stat)?;
        if let Some(level) = self.levels.last_mut().filter(|_| choice == Choice::Below) {
            level.bare = Bare::NotChosen;
        }
        Ok(())
    }

    /// What has an entry of its own, or is a directory that is gone into.
    fn tell(&mut self, (dir, name): (BorrowedFd<'_>, &[u8]), path: Vec<u8>, stat: &Stat) -> Result<(), Error> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let failed = |call| {
            let path = path.clone();
            move |e| Error::upper(call, &path, e)
        };
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.names.get(&(stat.st_dev, stat.st_ino)) {
                let first = first.clone();
                return self.describe(&path, Flag::HardLink, stat, BTreeMap::new(), &first);
            }
            charge(&mut self.left.metadata, path.len() as u64, "bytes of metadata", self.limits.metadata)?;
            self.names.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        match kind {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = openat(dir, name, flags, Mode::empty()).map_err(failed("openat"))?;
                self.enter(fd, path)?;
            }
            FileType::RegularFile => self.file(dir, name, &path)?,
            FileType::Symlink => {
                let target = readlinkat(dir, name, Vec::new()).map_err(failed("readlinkat"))?;
                self.special(dir, name, &path, Flag::Symlink, stat, target.as_bytes())?;
            }
            FileType::CharacterDevice => self.special(dir, name, &path, Flag::CharDevice, stat, b"")?,
            FileType::BlockDevice => self.special(dir, name, &path, Flag::BlockDevice, stat, b"")?,
            FileType::Fifo => self.special(dir, name, &path, Flag::Fifo, stat, b"")?,
            FileType::Socket | FileType::Unknown => self.sockets += 1,
        }
        Ok(())
    }

    /// What is mounted at a path: a directory with what is in it, or a file. Nothing else is looked at.
    fn mounted(&mut self, mount: &OwnedFd, path: Vec<u8>) -> Result<(), Error> {
        let failed = |call| {
            let path = path.clone();
            move |e| Error::upper(call, &path, e)
        };
        match FileType::from_raw_mode(fstat(mount).map_err(failed("fstat"))?.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let fd = openat(mount, ".", flags, Mode::empty()).map_err(failed("openat"))?;
                self.enter(fd, path)
            }
            FileType::RegularFile => self.opened(mount, &path),
            _ => Ok(()),
        }
    }

    /// Whether something is nothing but a place to mount on.
    fn is_place(&self, dir: BorrowedFd<'_>, name: &[u8], kind: FileType, stat: &Stat) -> Result<bool, Errno> {
        match kind {
            FileType::RegularFile => Ok(stat.st_size == 0),
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = openat(dir, name, flags, Mode::empty())?;
                for entry in Dir::read_from(&fd)? {
                    if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn special(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        flag: Flag,
        stat: &Stat,
        link: &[u8],
    ) -> Result<(), Error> {
        let xattrs = xattrs_by_name(dir, name).map_err(|e| Error::upper("lgetxattr", path, e))?;
        self.describe(path, flag, stat, xattrs, link)
    }

    /// Only a handle is opened before it is known that this is a regular file: to open a device or a fifo does something. What goes
    /// into the layers of a build comes from layers, which do not change after it was looked at.
    fn file(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), Error> {
        let failed = |call| move |e| Error::upper(call, path, e);
        if self.leave.shape.is_some() {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = openat(dir, name, flags, Mode::empty()).map_err(failed("openat"))?;
            let stat = fstat(&file).map_err(failed("fstat"))?;
            return self.told(file, &stat, path);
        }
        let handle =
            openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map_err(failed("openat"))?;
        self.opened(&handle, path)
    }

    /// What a handle of a regular file leads to.
    fn opened(&mut self, handle: &OwnedFd, path: &[u8]) -> Result<(), Error> {
        let failed = |call| move |e| Error::upper(call, path, e);
        let stat = fstat(handle).map_err(failed("fstat"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::Changed { path: shown(path) });
        }
        let by_handle = format!("/proc/self/fd/{}", handle.as_raw_fd());
        let file = openat(rustix::fs::CWD, by_handle, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed("open"))?;
        self.told(file, &stat, path)
    }

    /// A regular file, with what is in it.
    fn told(&mut self, file: OwnedFd, stat: &Stat, path: &[u8]) -> Result<(), Error> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        charge(&mut self.left.unpacked, size, "bytes", self.limits.unpacked)?;
        let xattrs = xattrs_of(&file).map_err(|e| Error::upper("fgetxattr", path, e))?;
        self.describe(path, Flag::File, stat, xattrs, b"")?;
        self.content(file.into(), size, path)
    }

    fn content(&mut self, mut file: std::fs::File, size: u64, path: &[u8]) -> Result<(), Error> {
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            let read = match file.read(&mut self.buffer[..want]) {
                Ok(0) => return Err(Error::Changed { path: shown(path) }),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.map_err(|e| Error::upper("read", path, Errno::from_io_error(&e).unwrap_or(Errno::IO)))?,
            };
            self.out.bytes(&self.buffer[..read])?;
            left -= read as u64;
        }
        let padding = usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or(0);
        self.out.bytes(&[0; BLOCK][..padding])
    }

    fn describe(
        &mut self,
        path: &[u8],
        flag: Flag,
        stat: &Stat,
        xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
        link: &[u8],
    ) -> Result<(), Error> {
        let head = self.encode(path, flag, stat, xattrs, link)?;
        self.tell_parents()?;
        self.out.entries += 1;
        self.out.bytes(&head)
    }

    fn encode(
        &self,
        path: &[u8],
        flag: Flag,
        stat: &Stat,
        mut xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
        link: &[u8],
    ) -> Result<Vec<u8>, Error> {
        if let Some(shape) = self.leave.shape {
            xattrs.retain(|name, _| (shape.keeps)(name));
        }
        let bearer = match flag {
            Flag::File | Flag::HardLink => Bearer::File,
            Flag::Directory => Bearer::Directory,
            Flag::Symlink => Bearer::Symlink,
            Flag::CharDevice | Flag::BlockDevice | Flag::Fifo => Bearer::Special,
        };
        let (xattrs, _) = xattr::admit(xattrs, bearer, self.limits).map_err(|reason| Error::Entry { path: shown(path), reason })?;
        let size = if flag == Flag::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        let device = match flag {
            Flag::CharDevice | Flag::BlockDevice => (major(stat.st_rdev), minor(stat.st_rdev)),
            _ => (0, 0),
        };
        let mtime = Time { seconds: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) };
        let mtime = match self.leave.latest {
            Some(latest) if mtime.seconds >= latest => Time { seconds: latest, nanos: 0 },
            _ => mtime,
        };
        let mode = stat.st_mode & 0o7777;
        let (mode, uid, gid) = match self.leave.shape {
            Some(shape) => shape.of(mode, flag, (stat.st_uid, stat.st_gid)),
            None => (mode, stat.st_uid, stat.st_gid),
        };
        Ok(Head { path, link, flag, mode, uid, gid, size, mtime, device, xattrs: &xattrs }.encode())
    }
}

/// Whether something is mounted on a name.
///
/// # Errors
/// statx(2).
pub fn is_mount(dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Errno> {
    match statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::empty()) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Takes from what is left of a limit.
fn charge(left: &mut u64, amount: u64, what: &'static str, max: u64) -> Result<(), Error> {
    *left = left.checked_sub(amount).ok_or(Error::Limit { what, max })?;
    Ok(())
}

fn xattrs_of(fd: &OwnedFd) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    read_xattrs(|list| flistxattr(fd, list), |name, value| fgetxattr(fd, name, value))
}

/// Of something that must not be opened. There is no getxattrat(2) before Linux 6.13; the descriptor keeps the path short.
fn xattrs_by_name(dir: BorrowedFd<'_>, name: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
    read_xattrs(|list| llistxattr(&path[..], list), |name, value| lgetxattr(&path[..], name, value))
}

/// The kernel's limits are 64 KiB for the list and for each value (xattr(7)), so no second look is needed.
fn read_xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    let mut found = BTreeMap::new();
    // Hardly any file has one, and this is asked of every file.
    let (mut short, mut long) = ([0; SHORT], Vec::new());
    let names = match list(&mut short) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(found),
        Ok(length) => &short[..length],
        Err(Errno::RANGE) => {
            long.resize(LONG, 0);
            let length = list(&mut long)?;
            &long[..length]
        }
        Err(errno) => return Err(errno),
    };
    let mut value = vec![0; LONG];
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match get(name, &mut value) {
            // Taken away meanwhile.
            Err(Errno::NODATA) => {}
            other => {
                let length = other?;
                found.insert(name.to_vec(), value[..length].to_vec());
            }
        }
    }
    Ok(found)
}
