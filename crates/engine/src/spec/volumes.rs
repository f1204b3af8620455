//! Directories for the VOLUMEs of an image, filled with what the image has at those places.
//!
//! Everything goes by descriptors, without following links: the image is hostile (CVE-2022-23648 was a VOLUME that
//! led to the host's files), and what is copied is only what lies inside its root.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown,
    fgetxattr, flistxattr, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat, openat, readlinkat, statat, symlinkat,
};
use sys::{
    Errno,
    path::{Links, Root},
};

use super::{error::Error, mounts::Volume};

/// Deeper than any image goes, less deep than a stack.
const MAX_DEPTH: usize = 200;
/// Files with several names that are known at a time; further ones are copied for each name.
const MAX_LINKS: usize = 10_000;

/// Makes and fills the directories.
///
/// # Errors
/// Which volume, and what went wrong.
pub(crate) fn prepare(rootfs: BorrowedFd<'_>, volumes: &[Volume]) -> Result<(), Error> {
    if volumes.is_empty() {
        return Ok(());
    }
    let failed = |volume: &Volume, source| Error::HostPath { operation: "fill volume", path: volume.source.clone(), source };
    let root = Root::from(rootfs.try_clone_to_owned().map_err(|e| failed(&volumes[0], e))?);
    volumes.iter().try_for_each(|volume| fill(&root, volume).map_err(|e| failed(volume, e)))
}

fn fill(root: &Root, volume: &Volume) -> io::Result<()> {
    // That of an earlier run.
    if volume.source.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(&volume.source)?;
    let to = open_dir(CWD, volume.source.as_path())?;
    match root.open(&volume.target, OFlags::RDONLY | OFlags::DIRECTORY, Links::Follow) {
        Ok(from) => copy(&from, &to),
        // Nothing there, or a file that a directory is to be mounted on: the mount will tell.
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(fchmod(&to, Mode::from_raw_mode(0o755))?),
        Err(errno) => Err(errno.into()),
    }
}

fn open_dir(at: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    Ok(openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// Contents, owner, mode, times and extended attributes of a directory. Nobody else writes to `to`.
pub(crate) fn copy(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    Copying { top: to, links: HashMap::new() }.directory((from, to), &mut Vec::new(), 0)
}

/// A copy that is being made.
struct Copying<'t> {
    top: &'t OwnedFd,
    /// Where the first name of a file with several was copied to, below `top`.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Copying<'_> {
    fn directory(&mut self, (from, to): (&OwnedFd, &OwnedFd), path: &mut Vec<u8>, depth: usize) -> io::Result<()> {
        if depth == MAX_DEPTH {
            return Err(io::Error::other("more than 200 directories deep"));
        }
        let above = path.len();
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            path.extend_from_slice(name.to_bytes());
            let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    mkdirat(to, name, Mode::from_raw_mode(0o700))?;
                    path.push(b'/');
                    self.directory((&open_dir(from, name)?, &open_dir(to, name)?), path, depth + 1)?;
                }
                FileType::RegularFile if self.link(&stat, to, name, path) => {}
                FileType::RegularFile => copy_file(from, to, name)?,
                FileType::Symlink => {
                    symlinkat(readlinkat(from, name, Vec::new())?, to, name)?;
                    own(to, name, &stat)?;
                }
                FileType::Fifo => {
                    mknodat(to, name, FileType::Fifo, mode(&stat), 0)?;
                    own(to, name, &stat)?;
                }
                // Volumes are mounted without devices, and a socket without its process is nothing.
                FileType::CharacterDevice | FileType::BlockDevice | FileType::Socket | FileType::Unknown => {}
            }
            path.truncate(above);
        }
        attributes(from, to)
    }

    /// Makes a further name of a file that has been copied. `false`: it is to be copied (again, if its path is too long).
    fn link(&mut self, stat: &Stat, to: &OwnedFd, name: &std::ffi::CStr, path: &[u8]) -> bool {
        if stat.st_nlink < 2 {
            return false;
        }
        match self.links.get(&(stat.st_dev, stat.st_ino)) {
            Some(first) => linkat(self.top, first.as_slice(), to, name, AtFlags::empty()).is_ok(),
            None => {
                if self.links.len() < MAX_LINKS {
                    self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
                }
                false
            }
        }
    }
}

fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &std::ffi::CStr) -> io::Result<()> {
    let source = openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut target = File::from(openat(to, name, new, Mode::from_raw_mode(0o600))?);
    let mut source = File::from(source);
    if !source.metadata()?.is_file() {
        return Ok(());
    }
    io::copy(&mut source, &mut target)?;
    attributes(&source.into(), &target.into())
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn own(to: &OwnedFd, name: &std::ffi::CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    Ok(chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The mode goes after the owner, because chown(2) takes set-user-id bits and file capabilities away.
pub(crate) fn attributes(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let stat = fstat(from)?;
    let (uid, gid) = owner(&stat);
    fchown(to, uid, gid)?;
    fchmod(to, mode(&stat))?;
    extended(from, to)?;
    let time = |seconds: i64, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
    let times = Timestamps {
        last_access: time(stat.st_atime as _, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime as _, stat.st_mtime_nsec as _),
    };
    Ok(futimens(to, &times)?)
}

/// User attributes and file capabilities; those of overlay file systems are about layers and not about files.
fn extended(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let mut list = vec![0_u8; 64 << 10];
    let length = match flistxattr(from, list.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    for name in list[..length].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.") || *name == b"security.capability")
    {
        let mut value = vec![0_u8; 64 << 10];
        let length = fgetxattr(from, name, value.as_mut_slice())?;
        match fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            // A tmpfs of an old kernel keeps no user attributes.
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
        path::Path,
    };

    use super::*;

    fn entries(path: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn prepared(root: &Path, target: &str, source: &Path) -> Result<(), Error> {
        let volume = Volume { source: source.to_owned(), target: target.to_owned() };
        prepare(File::open(root).unwrap().as_fd(), &[volume])
    }

    #[test]
    fn a_volume_starts_with_what_the_image_has() {
        let home = tempfile::tempdir().unwrap();
        let (root, volume) = (home.path().join("root"), home.path().join("run/v/0"));
        fs::create_dir_all(root.join("data/in")).unwrap();
        fs::write(root.join("data/in/file"), "text").unwrap();
        fs::set_permissions(root.join("data/in/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        std::os::unix::fs::chown(root.join("data/in"), Some(33), Some(34)).unwrap();
        fs::hard_link(root.join("data/in/file"), root.join("data/in/same")).unwrap();
        fs::hard_link(root.join("data/in/file"), root.join("data/top")).unwrap();
        symlink("/etc/shadow", root.join("data/link")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(root.join("data/socket")).unwrap());
        fs::set_permissions(root.join("data"), fs::Permissions::from_mode(0o1777)).unwrap();
        prepared(&root, "/data", &volume).unwrap();
        assert_eq!(entries(&volume), ["in", "link", "top"]);
        assert_eq!(fs::metadata(&volume).unwrap().mode() & 0o7777, 0o1777);
        let file = fs::metadata(volume.join("in/file")).unwrap();
        assert_eq!((file.mode() & 0o7777, fs::read_to_string(volume.join("in/file")).unwrap().as_str()), (0o4751, "text"));
        assert_eq!((file.nlink(), fs::metadata(volume.join("top")).unwrap().ino()), (3, file.ino()));
        assert_eq!(file.mtime_nsec(), fs::metadata(root.join("data/in/file")).unwrap().mtime_nsec());
        let directory = fs::metadata(volume.join("in")).unwrap();
        assert_eq!((directory.uid(), directory.gid()), (33, 34));
        assert_eq!(fs::read_link(volume.join("link")).unwrap(), Path::new("/etc/shadow"));
    }

    #[test]
    fn ex_10_nothing_of_the_host_is_copied() {
        let home = tempfile::tempdir().unwrap();
        let (root, outside) = (home.path().join("root"), home.path().join("outside"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("secret"), "x").unwrap();
        symlink(&outside, root.join("a")).unwrap();
        symlink("../outside", root.join("b")).unwrap();
        symlink("/proc/self/root", root.join("c")).unwrap();
        for (at, target) in ["/a", "/b", "/c", "/missing", "/a/secret"].into_iter().enumerate() {
            let volume = home.path().join(format!("v{at}"));
            prepared(&root, target, &volume).unwrap();
            assert_eq!(entries(&volume), Vec::<String>::new(), "{target}");
        }
    }
}
