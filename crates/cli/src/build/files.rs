//! The files of a context: what is there, and an archive of those that the daemon wants.
//!
//! Whoever writes to the directory meanwhile leads nowhere: every look-up stays below it and follows no link.

use std::{
    collections::HashMap,
    ffi::CStr,
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Read, Write},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use api::creel::ContextFile;
use dockerfile::Ignore;
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};

/// A file may be written to within the same tick of the kernel's clock and look as it did: what is younger than this (in
/// nanoseconds) says nothing.
const YOUNG: i128 = 100_000_000;
/// Bytes that the names of extended attributes hardly ever exceed, and those that they cannot exceed, nor a value (xattr(7)).
const SHORT: usize = 512;
const LONG: usize = 64 << 10;

/// A directory and what is in it.
#[derive(Debug)]
pub(super) struct Files {
    root: OwnedFd,
    /// By path.
    pub(super) list: Vec<ContextFile>,
}

fn failed(path: &str, what: &'static str) -> impl FnOnce(Errno) -> io::Error {
    let shown = if path.is_empty() { ".".to_owned() } else { path.to_owned() };
    move |errno| io::Error::new(io::Error::from(errno).kind(), format!("{what} {shown:?}: {}", io::Error::from(errno)))
}

impl Files {
    /// Reads what is in a directory, but for what is left out.
    pub(super) fn read(directory: &Path, ignore: &Ignore) -> io::Result<Self> {
        let root = rustix::fs::openat(CWD, directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos().cast_signed());
        let mut walk = Walk { list: Vec::new(), ignore, now };
        walk.directory(root.as_fd(), "")?;
        Ok(Self { root, list: walk.list })
    }

    /// Writes files as an archive, in the order that is asked for.
    pub(super) fn archive(&self, wanted: &[u32], writer: impl Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(writer);
        for number in wanted {
            let file = usize::try_from(*number).ok().and_then(|number| self.list.get(number));
            let file = file.ok_or_else(|| io::Error::other("the daemon wants a file that there is not"))?;
            self.append(&mut archive, file)?;
        }
        archive.into_inner().map(drop)
    }

    fn append(&self, archive: &mut tar::Builder<impl Write>, file: &ContextFile) -> io::Result<()> {
        let attributes: Vec<(String, &[u8])> =
            file.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.as_slice())).collect();
        if !attributes.is_empty() {
            archive.append_pax_extensions(attributes.iter().map(|(name, value)| (name.as_str(), *value)))?;
        }
        let mut header = tar::Header::new_gnu();
        header.set_mode(file.mode & 0o7777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(u64::try_from(file.mtime.div_euclid(1_000_000_000)).unwrap_or(0));
        match FileType::from_raw_mode(file.mode) {
            FileType::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                archive.append_data(&mut header, format!("{}/", file.path), io::empty())
            }
            FileType::Symlink => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                // A short one as it stands; a long one has a header of its own, which is as it stands in any case.
                if header.set_link_name_literal(&file.link).is_ok() {
                    return archive.append_data(&mut header, &file.path, io::empty());
                }
                let target = std::os::unix::ffi::OsStrExt::from_bytes(file.link.as_slice());
                archive.append_link(&mut header, &file.path, Path::new::<std::ffi::OsStr>(target))
            }
            _ => {
                header.set_size(file.size);
                let mut content = Exactly { file: self.open(&file.path)?, left: file.size };
                archive.append_data(&mut header, &file.path, &mut content)
            }
        }
    }

    fn open(&self, path: &str) -> io::Result<File> {
        // A fifo that has taken a file's place is not waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve).map(File::from).map_err(failed(path, "open"))
    }
}

struct Walk<'i> {
    list: Vec<ContextFile>,
    ignore: &'i Ignore,
    /// Nanoseconds since 1970.
    now: i128,
}

impl Walk<'_> {
    /// What is in a directory, by name. One that is left out may have something in it that is not.
    fn directory(&mut self, directory: BorrowedFd<'_>, below: &str) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(failed(below, "list"))? {
            let entry = entry.map_err(failed(below, "list"))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_unstable();
        for name in names {
            let text = name.to_str().map_err(|_| io::Error::other(format!("{below}/{name:?}: its name is not UTF-8")))?;
            let path = if below.is_empty() { text.to_owned() } else { format!("{below}/{text}") };
            self.entry(directory, &name, path)?;
        }
        Ok(())
    }

    fn entry(&mut self, directory: BorrowedFd<'_>, name: &CStr, path: String) -> io::Result<()> {
        let excluded = self.ignore.excludes(&path);
        if excluded && !self.ignore.may_keep_below(&path) {
            return Ok(());
        }
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(&path, "stat"))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if excluded && kind != FileType::Directory {
            return Ok(());
        }
        if name.to_bytes().starts_with(b".wh.") {
            return Err(io::Error::other(format!("{path}: in a layer such a name means that something is gone")));
        }
        match kind {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inside = rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(failed(&path, "open"))?;
                if !excluded {
                    self.list.push(self.file(directory, name, &path, &stat)?);
                }
                self.directory(inside.as_fd(), &path)
            }
            FileType::RegularFile | FileType::Symlink => {
                self.list.push(self.file(directory, name, &path, &stat)?);
                Ok(())
            }
            // Nobody could connect to one that has been copied.
            FileType::Socket => Ok(()),
            _ => Err(io::Error::other(format!("{path}: neither a file nor a directory nor a link"))),
        }
    }

    fn file(&self, directory: BorrowedFd<'_>, name: &CStr, path: &str, stat: &Stat) -> io::Result<ContextFile> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let link = match kind {
            FileType::Symlink => {
                rustix::fs::readlinkat(directory, name, Vec::new()).map_err(failed(path, "readlink"))?.into_bytes()
            }
            _ => Vec::new(),
        };
        let xattrs = match kind {
            FileType::Symlink => HashMap::new(),
            _ => {
                let by_handle = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name.to_bytes()].concat();
                attributes(&by_handle).map_err(failed(path, "read the extended attributes of"))?
            }
        };
        let nanos = |seconds: i64, nanos: u64| seconds.saturating_mul(1_000_000_000).saturating_add_unsigned(nanos);
        let size = if kind == FileType::RegularFile { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        Ok(ContextFile {
            path: path.to_owned(),
            mode: stat.st_mode,
            size,
            mtime: nanos(stat.st_mtime, stat.st_mtime_nsec),
            link,
            stamp: if kind == FileType::RegularFile { self.stamp(stat) } else { 0 },
            xattrs: xattrs.into_iter().collect(),
        })
    }

    /// The kernel notes the time of every change, and nobody can set that time; 0: it is too young to tell changes apart.
    fn stamp(&self, stat: &Stat) -> u64 {
        let changed = i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec);
        if changed + YOUNG > self.now {
            return 0;
        }
        let mut hasher = DefaultHasher::new();
        (stat.st_dev, stat.st_ino, changed).hash(&mut hasher);
        hasher.finish().max(1)
    }
}

/// Capabilities and what users set; nothing else reaches an image or a container. A link is not followed.
pub(crate) fn attributes(path: &[u8]) -> Result<HashMap<String, Vec<u8>>, Errno> {
    let (mut short, mut long) = ([0; SHORT], Vec::new());
    let names = match rustix::fs::llistxattr(path, &mut short[..]) {
        Ok(length) => &short[..length],
        Err(Errno::OPNOTSUPP) => &[],
        Err(Errno::RANGE) => {
            long.resize(LONG, 0);
            let length = rustix::fs::llistxattr(path, &mut long[..])?;
            &long[..length]
        }
        Err(errno) => return Err(errno),
    };
    let mut found = HashMap::new();
    let names = names.split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
    for name in names.filter(|name| *name == "security.capability" || name.starts_with("user.")) {
        let mut value = vec![0; LONG];
        match rustix::fs::lgetxattr(path, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                found.insert(name.to_owned(), value);
            }
            // Taken away meanwhile.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

/// A file that grows meanwhile is sent as long as it was; one that shrinks is an error.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file has become shorter while it was read"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn paths(files: &Files) -> Vec<&str> {
        files.list.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn what_is_left_out_is_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("node_modules/keep")).unwrap();
        fs::create_dir_all(at("src")).unwrap();
        for file in ["node_modules/x", "node_modules/keep/y", "src/main", "secret.key"] {
            fs::write(at(file), file).unwrap();
        }
        symlink("/etc/shadow", at("link")).unwrap();
        let ignore = Ignore::parse(b"node_modules\n!node_modules/keep\n*.key\n").unwrap();
        let files = Files::read(dir.path(), &ignore).unwrap();
        assert_eq!(paths(&files), ["link", "node_modules/keep", "node_modules/keep/y", "src", "src/main"]);
        assert_eq!(files.list[0].link, b"/etc/shadow");
    }

    #[test]
    fn what_is_wanted_is_sent_as_it_was_listed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/file"), "text").unwrap();
        fs::write(at("other"), "not wanted").unwrap();
        symlink("d/file", at("link")).unwrap();
        let files = Files::read(dir.path(), &Ignore::default()).unwrap();
        assert_eq!(paths(&files), ["d", "d/file", "link", "other"]);
        fs::write(at("d/file"), "text that has grown").unwrap();
        let mut bytes = Vec::new();
        files.archive(&[0, 1, 2], &mut bytes).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert_eq!(entry.header().uid().unwrap(), 0);
            found.push((entry.path().unwrap().display().to_string(), text));
        }
        let wanted = [("d/", ""), ("d/file", "text"), ("link", "")].map(|(path, text)| (path.to_owned(), text.to_owned()));
        assert_eq!(found, wanted);
        assert!(files.archive(&[4], io::sink()).is_err());
    }

    #[test]
    fn targets_of_links_are_sent_as_they_stand() {
        let dir = tempfile::tempdir().unwrap();
        let long = format!("./{}/", "x".repeat(200));
        let targets = ["/", "a//b/", "./c", &long];
        for (name, target) in targets.iter().enumerate() {
            symlink(target, dir.path().join(name.to_string())).unwrap();
        }
        let files = Files::read(dir.path(), &Ignore::default()).unwrap();
        let mut bytes = Vec::new();
        files.archive(&[0, 1, 2, 3], &mut bytes).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let found = archive.entries().unwrap().map(|entry| entry.unwrap().link_name_bytes().unwrap().into_owned());
        assert_eq!(found.collect::<Vec<_>>(), targets.map(|target| target.as_bytes().to_vec()));
    }

    #[test]
    fn nothing_outside_is_read_whatever_is_put_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("context/d")).unwrap();
        fs::create_dir_all(at("outside")).unwrap();
        fs::write(at("context/d/f"), "mine").unwrap();
        fs::write(at("context/g"), "mine").unwrap();
        fs::write(at("outside/f"), "host").unwrap();
        let files = Files::read(&at("context"), &Ignore::default()).unwrap();
        fs::rename(at("context/d"), at("context/old")).unwrap();
        symlink(at("outside"), at("context/d")).unwrap();
        fs::remove_file(at("context/g")).unwrap();
        symlink(at("outside/f"), at("context/g")).unwrap();
        for number in [1, 2] {
            assert!(files.archive(&[number], io::sink()).is_err(), "{}", files.list[number as usize].path);
        }
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "a skipped test says why")]
    fn attributes_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "x").unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        if let Err(e) = rustix::fs::setxattr(dir.path().join("f"), "user.name", b"value", flags) {
            eprintln!("SKIPPED: the file system has no extended attributes: {e}");
            return;
        }
        let files = Files::read(dir.path(), &Ignore::default()).unwrap();
        assert_eq!(files.list[0].xattrs.get("user.name").map(Vec::as_slice), Some(&b"value"[..]));
    }

    #[test]
    fn stamps_tell_changes_apart() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "x").unwrap();
        let stat = |name: &str| rustix::fs::statat(CWD, dir.path().join(name), AtFlags::empty()).unwrap();
        let changed = stat("f");
        let later = |nanos: i128| {
            Walk {
                list: Vec::new(),
                ignore: &Ignore::default(),
                now: i128::from(changed.st_ctime) * 1_000_000_000 + i128::from(changed.st_ctime_nsec) + nanos,
            }
            .stamp(&changed)
        };
        assert_eq!(later(YOUNG - 1), 0);
        assert!(later(YOUNG) != 0 && later(YOUNG) == later(2 * YOUNG));
    }
}
