//! Files into a container.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path},
    sync::Arc,
};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use sys::Errno;
use tar::EntryType;

use super::{Refused, UserContainer, UserFiles, View, call, chmod::Chmod, stopped_files, view::Write};
use crate::{
    Inner,
    blocking::blocking,
    error::{Error, Step},
};

/// Whose the files are that come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// The archive's.
    Archive,
    /// root's.
    Root,
    /// A user's and a group's.
    Ids(u32, u32),
}

/// What happens to something of another kind with the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// It is replaced.
    AnyKind,
    /// A directory does not replace anything else, nor anything else a directory.
    SameKind,
}

/// What to bring in, and where to.
#[derive(Debug)]
pub struct Unpack {
    /// A directory of the container.
    pub path: String,
    /// A plain tar.
    pub archive: File,
    /// Whose it is then.
    pub owners: Owners,
    /// What it may replace.
    pub replace: Replace,
}

impl Inner {
    pub(super) async fn unpack(self: &Arc<Self>, user: &Arc<UserContainer>, unpack: Unpack) -> Result<(), Error> {
        let id = user.id;
        if let Some(files) = self.running_files(user).await? {
            return blocking(move || files.unpack(unpack)).await.map_err(super::words);
        }
        // Its writable layer is mounted by nobody else as long as it is not started.
        let _ops = user.ops.lock().await;
        if user.is_running() {
            return Err(super::words(Refused::OtherIds));
        }
        let mounts = self.stopped_mounts(user).await?;
        let (inner, found) = (self.clone(), user.clone());
        let root = blocking(move || {
            let durability = crate::image::Durability::of_user(true);
            inner.images.rootfs(&found.image_info(), found.id, durability, (None, None))
        });
        let files = stopped_files(user, root.await.step(id, "mount its files")?, mounts);
        blocking(move || files.unpack(unpack)).await.map_err(super::words)
    }
}

impl UserFiles {
    fn unpack(self, unpack: Unpack) -> Result<(), Refused> {
        let Unpack { path, archive, owners, replace } = unpack;
        let real = self.view.real(&path);
        if self.user.spec().container.security.readonly_rootfs && !self.view.is_mounted(&real) {
            return Err(Refused::ReadOnly);
        }
        if self.view.write(&real) == Write::No {
            return Err(call("write to", &path, Errno::ROFS));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let spot = self.view.spot(&real);
        spot.and_then(|spot| rustix::fs::openat(&spot.parent, spot.name, flags, Mode::empty())).map_err(|e| match e {
            Errno::NOENT => Refused::Missing { path: path.clone(), container: self.user.name() },
            Errno::NOTDIR => Refused::NoDirectory { path: path.clone() },
            e => call("open", &path, e),
        })?;
        // Links in the archive's paths lead to what they lead to in the container, and not out of it.
        let prefix = if real.is_empty() { real } else { format!("/{real}") };
        bring(&Place { view: self.view, prefix, owners, replace, chmod: None }, archive).map(drop)
    }
}

/// Brings an archive, which is plain, to its place. Answers the newest time of its entries, in seconds since 1970; 0 if it has none.
pub(crate) fn bring(place: &Place, archive: impl Read) -> Result<u64, Refused> {
    let archive: Box<dyn Read + '_> = Box::new(archive);
    let mut archive = tar::Archive::new(io::BufReader::with_capacity(256 << 10, archive));
    let (mut opened, mut newest) = (Vec::new(), 0);
    for entry in archive.entries().map_err(Refused::Archive)? {
        let mut entry = entry.map_err(Refused::Archive)?;
        newest = newest.max(entry.header().mtime().unwrap_or(0));
        place.entry(&mut entry, &mut opened)?;
    }
    leave(&mut opened, None)?;
    Ok(newest)
}

/// A directory that something may still come into.
struct Opened {
    directory: OwnedFd,
    /// As in the archive, without a slash at its ends.
    path: String,
    mtime: u64,
}

/// Directories get their times last: what comes into them changes these. Those that a path is not below are left.
fn leave(opened: &mut Vec<Opened>, path: Option<&str>) -> Result<(), Refused> {
    let below = |above: &str| path.and_then(|path| path.strip_prefix(above)).is_some_and(|rest| rest.starts_with('/'));
    while let Some(last) = opened.pop_if(|last| !below(&last.path)) {
        rustix::fs::futimens(&last.directory, &times(last.mtime)).map_err(|e| call("futimens", &last.path, e))?;
    }
    Ok(())
}

fn times(seconds: u64) -> Timestamps {
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(0), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// Where entries go.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) view: View,
    /// Absolute, without a slash at its end.
    pub(crate) prefix: String,
    pub(crate) owners: Owners,
    pub(crate) replace: Replace,
    /// Of all files and directories; `None`: as the archive says.
    pub(crate) chmod: Option<Chmod>,
}

type Entry<'a, 'r> = tar::Entry<'a, io::BufReader<Box<dyn Read + 'r>>>;

/// Something that is about to be made.
struct New {
    parent: OwnedFd,
    name: String,
    /// Its path for people.
    path: String,
    mode: Mode,
    mtime: u64,
}

impl New {
    fn failed(&self, what: &'static str) -> impl FnOnce(Errno) -> Refused + '_ {
        move |e| call(what, &self.path, e)
    }
}

impl Place {
    fn entry(&self, entry: &mut Entry<'_, '_>, opened: &mut Vec<Opened>) -> Result<(), Refused> {
        let path = entry.path().map_err(Refused::Archive)?.into_owned();
        let Some(path) = relative(&path)? else { return Ok(()) };
        leave(opened, Some(&path))?;
        let (parent, name) = self.parent(&path)?;
        let header = entry.header();
        let (kind, mtime) = (header.entry_type(), header.mtime().map_err(Refused::Archive)?);
        let mode = header.mode().map_err(Refused::Archive)? & 0o7777;
        let mode = Mode::from_raw_mode(self.chmod.as_ref().map_or(mode, |chmod| chmod.of(mode, kind.is_dir())));
        let new = New { parent, name, path, mode, mtime };
        let kept = self.make_room(&new, kind.is_dir())?;
        match kind {
            EntryType::Directory => {
                let directory = self.directory(entry, &new, kept)?;
                opened.push(Opened { directory, path: new.path, mtime });
                Ok(())
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(entry, &new),
            EntryType::Symlink => {
                let target = link(entry, &new.path)?;
                rustix::fs::symlinkat(target.as_slice(), &new.parent, &new.name).map_err(new.failed("symlink"))?;
                self.own_name(entry, &new)
            }
            EntryType::Link => self.hard_link(entry, &new),
            EntryType::Fifo => self.special(entry, &new, FileType::Fifo),
            EntryType::Char => self.special(entry, &new, FileType::CharacterDevice),
            EntryType::Block => self.special(entry, &new, FileType::BlockDevice),
            _ => Err(refuse(&new.path, "its type is not known")),
        }
    }

    /// The directory of a path of the archive's, made if it is missing, and the name in it.
    fn parent(&self, path: &str) -> Result<(OwnedFd, String), Refused> {
        let whole = format!("{}/{path}", self.prefix);
        let found = self.view.make_parent(&whole).map_err(|e| call("find the place of", path, e))?;
        Ok((found.parent, found.name))
    }

    fn directory(&self, entry: &mut Entry<'_, '_>, new: &New, kept: bool) -> Result<OwnedFd, Refused> {
        if !kept {
            rustix::fs::mkdirat(&new.parent, &new.name, new.mode).map_err(new.failed("mkdir"))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&new.parent, &new.name, flags, Mode::empty()).map_err(new.failed("open"))?;
        self.own(entry, |uid, gid| rustix::fs::fchown(&made, Some(uid), Some(gid)), &new.path)?;
        rustix::fs::fchmod(&made, new.mode).map_err(new.failed("chmod"))?;
        self.attribute(entry, &made, new)?;
        Ok(made)
    }

    fn file(&self, entry: &mut Entry<'_, '_>, new: &New) -> Result<(), Refused> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&new.parent, &new.name, flags, Mode::RUSR | Mode::WUSR).map_err(new.failed("create"))?;
        let mut made = File::from(made);
        copy(entry, &mut made, &new.path)?;
        self.own(entry, |uid, gid| rustix::fs::fchown(&made, Some(uid), Some(gid)), &new.path)?;
        rustix::fs::fchmod(&made, new.mode).map_err(new.failed("chmod"))?;
        // After the owner, whose change takes capabilities away.
        self.attribute(entry, &made, new)?;
        rustix::fs::futimens(&made, &times(new.mtime)).map_err(new.failed("futimens"))
    }

    /// Capabilities of programs, access lists and what users set.
    fn attribute(&self, entry: &mut Entry<'_, '_>, made: impl AsFd, new: &New) -> Result<(), Refused> {
        let extensions = entry.pax_extensions().map_err(Refused::Archive)?;
        for extension in extensions.into_iter().flatten() {
            let extension = extension.map_err(Refused::Archive)?;
            let name = extension.key_bytes().strip_prefix(b"SCHILY.xattr.").filter(|name| is_kept(name));
            let Some(name) = name else { continue };
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::fsetxattr(&made, name, extension.value_bytes(), flags).map_err(new.failed("setxattr"))?;
        }
        Ok(())
    }

    fn hard_link(&self, entry: &Entry<'_, '_>, new: &New) -> Result<(), Refused> {
        let target = link(entry, &new.path)?;
        let target = relative(Path::new(std::ffi::OsStr::from_bytes(&target)))?;
        let target = target.ok_or_else(|| refuse(&new.path, "it links to a directory"))?;
        let (from, old) = self.parent(&target)?;
        rustix::fs::linkat(&from, old, &new.parent, &new.name, AtFlags::empty()).map_err(new.failed("link"))
    }

    fn special(&self, entry: &Entry<'_, '_>, new: &New, kind: FileType) -> Result<(), Refused> {
        let number = |part: io::Result<Option<u32>>| part.map(Option::unwrap_or_default).map_err(Refused::Archive);
        let header = entry.header();
        let device = rustix::fs::makedev(number(header.device_major())?, number(header.device_minor())?);
        rustix::fs::mknodat(&new.parent, &new.name, kind, new.mode, device).map_err(new.failed("mknod"))?;
        self.own_name(entry, new)
    }

    /// Takes away what is in the way; whether it is a directory that stays.
    fn make_room(&self, new: &New, directory: bool) -> Result<bool, Refused> {
        let old = match rustix::fs::statat(new.parent.as_fd(), &new.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            Err(e) => return Err(new.failed("stat")(e)),
            Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
        };
        let other = |old, now| Err(Refused::Kind { path: new.path.clone(), old, new: now });
        match (old, directory) {
            (true, true) => return Ok(true),
            // To whom it is mounted it would be gone; from here the kernel would take it away.
            (false, _) if layer::is_mount(new.parent.as_fd(), new.name.as_bytes()).map_err(new.failed("statx"))? => {
                return Err(new.failed("replace")(Errno::BUSY));
            }
            (true, false) if self.replace == Replace::SameKind => return other("directory", "non-directory"),
            (false, true) if self.replace == Replace::SameKind => return other("non-directory", "directory"),
            _ => {}
        }
        let flags = if old { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(new.parent.as_fd(), &new.name, flags).map_err(new.failed("remove"))?;
        Ok(false)
    }

    fn ids(&self, entry: &Entry<'_, '_>, path: &str) -> Result<(Uid, Gid), Refused> {
        match self.owners {
            Owners::Root => return Ok((Uid::ROOT, Gid::ROOT)),
            Owners::Ids(uid, gid) => return Ok((Uid::from_raw(uid), Gid::from_raw(gid))),
            Owners::Archive => {}
        }
        let number = |id: io::Result<u64>| {
            let id = id.map_err(Refused::Archive)?;
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| refuse(path, "its owner is too large a number"))
        };
        Ok((Uid::from_raw(number(entry.header().uid())?), Gid::from_raw(number(entry.header().gid())?)))
    }

    fn own(&self, entry: &Entry<'_, '_>, own: impl FnOnce(Uid, Gid) -> Result<(), Errno>, path: &str) -> Result<(), Refused> {
        let (uid, gid) = self.ids(entry, path)?;
        own(uid, gid).map_err(|e| call("chown", path, e))
    }

    fn own_name(&self, entry: &Entry<'_, '_>, new: &New) -> Result<(), Refused> {
        let own = |uid, gid| rustix::fs::chownat(&new.parent, &new.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        self.own(entry, own, &new.path)?;
        let times = times(new.mtime);
        rustix::fs::utimensat(&new.parent, &new.name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(new.failed("utimensat"))
    }
}

/// What an archive may say of a file beside its mode: nothing that steers overlays or the machine's security modules.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    let known: [&[u8]; 3] = [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];
    known.contains(&name) || name.starts_with(b"user.")
}

fn refuse(path: &str, why: &'static str) -> Refused {
    Refused::Entry { path: path.to_owned(), why }
}

fn link(entry: &Entry<'_, '_>, path: &str) -> Result<Vec<u8>, Refused> {
    let target = entry.link_name_bytes().ok_or_else(|| refuse(path, "it is a link to nothing"))?;
    Ok(target.into_owned())
}

fn copy(entry: &mut Entry<'_, '_>, made: &mut File, path: &str) -> Result<(), Refused> {
    let copied = model::copy_with_holes(entry, made);
    copied.map(drop).map_err(|e| call("write", path, Errno::from_io_error(&e).unwrap_or(Errno::IO)))
}

/// A path of the archive's without a slash in front; `None`: the directory itself.
fn relative(path: &Path) -> Result<Option<String>, Refused> {
    let shown = || path.display().to_string();
    let mut out: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => match name.to_str() {
                Some(name) => out.push(name),
                None => return Err(refuse(&shown(), "its name is not UTF-8")),
            },
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(refuse(&shown(), "it leads out of the directory")),
        }
    }
    Ok((!out.is_empty()).then(|| out.join("/")))
}
