//! Paths inside a root that somebody else writes: every look-up is one openat2(2) that cannot leave the root and follows
//! no magic link; directories are made one component at a time below descriptors (R03).

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat},
    io::Errno,
};

/// As many as the kernel follows in one look-up (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// The longest path that the kernel takes (PATH_MAX).
const MAX_PATH: usize = 4096;

/// A directory that paths are looked up in as if it were `/`.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Root {
    /// `directory` may be any descriptor of a directory, a mount's too.
    fn from(directory: OwnedFd) -> Self {
        Self(directory)
    }
}

/// Whether a symbolic link at any place of a path is followed (inside the root).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Yes.
    Follow,
    /// A link is an error: ELOOP.
    Refuse,
}

impl Root {
    /// The root at a path of the host.
    ///
    /// # Errors
    /// open(2).
    pub fn open_host(path: impl rustix::path::Arg) -> Result<Self, Errno> {
        openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map(Self)
    }

    /// Opens what is at `path`.
    ///
    /// # Errors
    /// ENOENT, ELOOP (a magic link, too many links, or any with [`Links::Refuse`]), and what else openat2(2) says.
    pub fn open(&self, path: &str, flags: OFlags, links: Links) -> Result<OwnedFd, Errno> {
        let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        if links == Links::Refuse {
            resolve |= ResolveFlags::NO_SYMLINKS;
        }
        // EAGAIN: something was renamed meanwhile, and the kernel cannot say that we stayed inside (openat2(2)).
        for _ in 0..64 {
            match openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// A handle (O_PATH) of what is at `path`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn resolve(&self, path: &str, links: Links) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::PATH, links)
    }

    /// A handle of the directory at `path`; what is missing of it is made (mode 0755), also behind dangling links.
    ///
    /// # Errors
    /// ENOTDIR: something on the way is not a directory. Else as [`Self::open`] and mkdirat(2).
    pub fn make_directories(&self, path: &str, links: Links) -> Result<OwnedFd, Errno> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY, links) {
            Err(Errno::NOENT) => self.walk(path, links, End::Directory),
            other => other,
        }
    }

    /// A handle of the parent directory of `path` (made if missing) and the last component's name.
    ///
    /// # Errors
    /// EINVAL: the path has no name at its end. Else as [`Self::make_directories`].
    pub fn make_parent<'p>(&self, path: &'p str, links: Links) -> Result<(OwnedFd, &'p str), Errno> {
        let trimmed = path.trim_end_matches('/');
        let (parent, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
        if matches!(name, "" | "." | "..") {
            return Err(Errno::INVAL);
        }
        let parent = if parent.is_empty() { "/" } else { parent };
        Ok((self.make_directories(parent, links)?, name))
    }

    /// A handle of the file at `path`, made empty if it is not there, also behind dangling links (systemd-resolved's
    /// resolv.conf is one): something to mount a file on.
    ///
    /// # Errors
    /// As [`Self::make_directories`].
    pub fn make_file(&self, path: &str, links: Links) -> Result<OwnedFd, Errno> {
        match self.resolve(path, links) {
            Err(Errno::NOENT) => self.walk(path, links, End::File),
            other => other,
        }
    }

    /// Component by component, with a stack of the directories passed: `..` goes back on the stack and so never above
    /// the root, whatever is moved meanwhile.
    fn walk(&self, path: &str, links: Links, last: End) -> Result<OwnedFd, Errno> {
        if path.len() >= MAX_PATH {
            return Err(Errno::NAMETOOLONG);
        }
        let mut todo: VecDeque<OsString> = components(path.as_bytes());
        let mut passed: Vec<OwnedFd> = Vec::new();
        let mut followed = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                passed.pop();
                continue;
            }
            let here = passed.last().map_or(self.0.as_fd(), AsFd::as_fd);
            let next = enter_or_make(here, &name, if todo.is_empty() { last } else { End::Directory })?;
            if !is_link(&next)? {
                passed.push(next);
                continue;
            }
            followed += 1;
            if links == Links::Refuse || followed > MAX_LINKS {
                return Err(Errno::LOOP);
            }
            let target = readlinkat(here, &name, Vec::new())?.into_bytes();
            if target.starts_with(b"/") {
                passed.clear();
            }
            for component in components(&target).into_iter().rev() {
                todo.push_front(component);
            }
            if todo.len() > MAX_PATH {
                return Err(Errno::NAMETOOLONG);
            }
        }
        let end = passed.pop().map_or_else(|| self.0.try_clone().map_err(|_| Errno::MFILE), Ok)?;
        let is_directory = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&end)?.st_mode).is_dir();
        if last == End::File || is_directory { Ok(end) } else { Err(Errno::NOTDIR) }
    }
}

/// What is made at the end of a path if nothing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Directory,
    File,
}

/// A handle of what is called `name`, links not followed; made if it is not there.
fn enter_or_make(here: BorrowedFd<'_>, name: &OsStr, missing: End) -> Result<OwnedFd, Errno> {
    let look = || {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(here, name, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
    };
    match look() {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = match missing {
        End::Directory => mkdirat(here, name, Mode::from_raw_mode(0o755)),
        End::File => openat(here, name, create, Mode::from_raw_mode(0o644)).map(drop),
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => look(),
        Err(errno) => Err(errno),
    }
}

fn components(path: &[u8]) -> VecDeque<OsString> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect()
}

fn is_link(fd: &OwnedFd) -> Result<bool, Errno> {
    Ok(rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode).is_symlink())
}

/// Whether nobody but root can write a file or directory that decides what runs on the host as root.
///
/// # Errors
/// PermissionDenied, with the owner and the mode.
pub fn only_root_writes(found: &std::fs::Metadata) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let others = found.mode() & 0o002 != 0 || (found.mode() & 0o020 != 0 && found.gid() != 0);
    if found.uid() == 0 && !others {
        return Ok(());
    }
    let (uid, mode) = (found.uid(), found.mode() & 0o7777);
    let why = format!("belongs to uid {uid} with mode {mode:o}: nobody but root may be able to write it");
    Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why))
}

/// Whether two descriptors are of the same file, through the same mount.
///
/// # Errors
/// statx(2).
pub fn same(a: impl AsFd, b: impl AsFd) -> Result<bool, Errno> {
    let stat = |fd: BorrowedFd<'_>| {
        let wanted = rustix::fs::StatxFlags::MNT_ID | rustix::fs::StatxFlags::INO;
        rustix::fs::statx(fd, c"", rustix::fs::AtFlags::EMPTY_PATH, wanted)
            .map(|s| (s.stx_dev_major, s.stx_dev_minor, s.stx_ino, s.stx_mnt_id))
    };
    Ok(stat(a.as_fd())? == stat(b.as_fd())?)
}

/// Whether an absolute path stays what it says: no empty, `.` or `..` component, no NUL.
pub fn is_normal(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains('\0')
        && (path == "/" || path[1..].split('/').all(|part| !matches!(part, "" | "." | "..")))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("root")).unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        let root = Root::open_host(directory.path().join("root")).unwrap();
        (directory, root)
    }

    #[test]
    fn directories_are_made_behind_dangling_links_but_inside() {
        let (directory, root) = root();
        let inside = directory.path().join("root");
        fs::create_dir(inside.join("var")).unwrap();
        symlink("/run", inside.join("var/run")).unwrap();
        symlink("../../../outside/x", inside.join("up")).unwrap();
        root.make_directories("/var/run/secrets/a", Links::Follow).unwrap();
        assert!(inside.join("run/secrets/a").is_dir());
        root.make_directories("/up/y/../../../z", Links::Follow).unwrap();
        assert!(inside.join("outside/x/y").is_dir() && inside.join("z").is_dir());
        assert_eq!(fs::read_dir(directory.path().join("outside")).unwrap().count(), 0);
        assert_eq!(root.make_directories("/var/run/b", Links::Refuse).unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn files_are_made_behind_dangling_links_but_inside() {
        let (directory, root) = root();
        let inside = directory.path().join("root");
        fs::create_dir(inside.join("etc")).unwrap();
        for (name, target) in [
            ("resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
            ("hosts", "/../../../outside/hosts"),
            ("hostname", "chain"),
            ("chain", "../../../outside/../name"),
            ("up", ".."),
        ] {
            symlink(target, inside.join("etc").join(name)).unwrap();
        }
        for (path, made) in [
            ("/etc/resolv.conf", "run/systemd/resolve/stub-resolv.conf"),
            ("/etc/hosts", "outside/hosts"),
            ("/etc/hostname", "name"),
            ("/etc/up/../../x/y", "x/y"),
        ] {
            assert_eq!(root.make_file(path, Links::Refuse).unwrap_err(), Errno::LOOP, "{path}");
            root.make_file(path, Links::Follow).unwrap();
            assert!(inside.join(made).is_file(), "{path}");
            root.make_file(path, Links::Follow).unwrap();
        }
        assert_eq!(fs::read_dir(directory.path().join("outside")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn loops_files_and_magic_links_are_refused() {
        let (directory, root) = root();
        let inside = directory.path().join("root");
        symlink("b", inside.join("a")).unwrap();
        symlink("a", inside.join("b")).unwrap();
        fs::write(inside.join("file"), "x").unwrap();
        assert_eq!(root.make_directories("/a/c", Links::Follow).unwrap_err(), Errno::LOOP);
        assert_eq!(root.make_directories("/file/c", Links::Follow).unwrap_err(), Errno::NOTDIR);
        assert_eq!(root.make_file("/", Links::Follow).map(|_| ()), Ok(()), "a directory that is there is handed out");
        assert_eq!(root.make_file("/a", Links::Follow).unwrap_err(), Errno::LOOP);
        assert_eq!(root.make_file("/file/c", Links::Follow).unwrap_err(), Errno::NOTDIR);
        root.make_file("/etc/new/hosts", Links::Follow).unwrap();
        assert!(inside.join("etc/new/hosts").is_file());
        let host = Root::open_host("/").unwrap();
        assert_eq!(host.resolve("/proc/self/fd/0", Links::Follow).unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn normal_paths() {
        assert!(["/", "/a", "/a/b.c"].into_iter().all(is_normal));
        assert!(!["", "a", "//", "/a/", "/a//b", "/./a", "/a/..", "/a\0"].into_iter().any(is_normal));
    }
}
