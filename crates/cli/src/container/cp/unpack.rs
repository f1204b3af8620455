//! A tar out of a container, which may be anybody's: nothing of it gets out of the directory that it is for.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::{fs::XattrFlags, io::Errno};

use super::Pieces;
use crate::error::{self, Error};

/// What an archive becomes.
pub(crate) enum Into {
    /// Its entries are put in here.
    Directory(PathBuf),
    /// Its only entry becomes this.
    File(PathBuf),
}

/// What files keep of what the archive says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Everything.
    Owners,
    /// They are of whoever unpacks.
    Modes,
    /// The same, so that no program of the archive runs as them for others; devices and pipes are left out.
    Plain,
}

/// Bits of a mode that let a program run as somebody else.
const SET_ID: u32 = 0o6000;

/// Unpacks; answers the archive's bytes.
pub(crate) fn unpack(from: Pieces, into: &Into, keep: Keep) -> Result<u64, Error> {
    let mut archive = tar::Archive::new(from);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.set_preserve_ownerships(keep == Keep::Owners);
    if keep == Keep::Plain {
        archive.set_mask(SET_ID);
    }
    archive.set_overwrite(true);
    let done = match into {
        Into::Directory(directory) => all(&mut archive, directory, keep),
        Into::File(file) => one(&mut archive, file, keep),
    };
    let name = match into {
        Into::Directory(path) | Into::File(path) => path.display(),
    };
    done.map_err(error::io(format!("write to {name}")))?;
    let mut rest = archive.into_inner();
    // The archive's end is behind its last entry.
    io::copy(&mut rest, &mut io::sink()).map_err(error::io("read the archive"))?;
    Ok(rest.got)
}

fn all(archive: &mut tar::Archive<Pieces>, directory: &Path, keep: Keep) -> io::Result<()> {
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let kind = entry.header().entry_type();
        if keep == Keep::Plain && (kind.is_character_special() || kind.is_block_special() || kind.is_fifo()) {
            continue;
        }
        if kind.is_dir() {
            // Modes come last: one may not let us write.
            let mode = entry.header().mode()?;
            directories.push((path, if keep == Keep::Plain { mode & !SET_ID } else { mode }));
            make_directory(&mut entry, directory, keep)?;
            if keep != Keep::Plain {
                let made = below(directory, &entry.path()?)?;
                attributes(&mut entry, || fs::File::open(made))?;
            }
            continue;
        }
        if kind.is_file() {
            file(&mut entry, &below(directory, &path)?, keep)?;
            continue;
        }
        if !entry.unpack_in(directory)? {
            return Err(io::Error::other(format!("{:?} is not a path below the directory", path.display().to_string())));
        }
    }
    for (path, mode) in directories.into_iter().rev() {
        set_mode(&below(directory, &path)?, mode)?;
    }
    Ok(())
}

/// The path of an entry's below the directory: no `..`, and no symbolic link on the way.
fn below(directory: &Path, path: &Path) -> io::Result<PathBuf> {
    let outside = || io::Error::other(format!("{:?} is not a path below the directory", path.display().to_string()));
    let mut at = directory.to_owned();
    let mut parts = path.components().filter(|part| !matches!(part, Component::CurDir | Component::RootDir)).peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { return Err(outside()) };
        at.push(name);
        let is_link = fs::symlink_metadata(&at).is_ok_and(|metadata| metadata.is_symlink());
        if parts.peek().is_some() && is_link {
            return Err(outside());
        }
    }
    Ok(at)
}

/// Makes a directory unless it is there; what is there and is none stays what it is.
fn make_directory(entry: &mut tar::Entry<'_, Pieces>, directory: &Path, keep: Keep) -> io::Result<()> {
    let target = below(directory, &entry.path()?)?;
    match fs::symlink_metadata(&target) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(io::Error::other(format!("cannot overwrite non-directory {:?} with directory", target.display().to_string()))),
        Err(_) if keep == Keep::Owners => entry.unpack_in(directory).map(|_| ()),
        Err(_) => fs::create_dir_all(&target),
    }
}

/// A regular file in place of whatever has its name, unless that is a directory. What was a hole of it is one again.
fn file(entry: &mut tar::Entry<'_, Pieces>, path: &Path, keep: Keep) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut made = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    model::copy_with_holes(entry, &mut made)?;
    let header = entry.header();
    if keep == Keep::Owners {
        let id = |id: u64| u32::try_from(id).map_err(io::Error::other);
        fchown(&made, Some(id(header.uid()?)?), Some(id(header.gid()?)?))?;
    }
    let mode = header.mode()? & if keep == Keep::Plain { 0o7777 & !SET_ID } else { 0o7777 };
    let mtime = SystemTime::UNIX_EPOCH + Duration::from_secs(header.mtime()?);
    made.set_permissions(fs::Permissions::from_mode(mode))?;
    made.set_modified(mtime)?;
    if keep == Keep::Plain { Ok(()) } else { attributes(entry, || Ok(made)) }
}

/// Capabilities and what users have set. Not everybody may set them, nor does every file system have them: they are no reason to
/// lose the rest.
fn attributes(entry: &mut tar::Entry<'_, Pieces>, made: impl FnOnce() -> io::Result<fs::File>) -> io::Result<()> {
    let mut found = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let name = extension.key_bytes().strip_prefix(b"SCHILY.xattr.");
        if let Some(name) = name.filter(|name| *name == b"security.capability" || name.starts_with(b"user.")) {
            found.push((name.to_vec(), extension.value_bytes().to_vec()));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let made = made()?;
    for (name, value) in found {
        match rustix::fs::fsetxattr(&made, name, &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    // Something else may have come in its place.
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777)),
        _ => Ok(()),
    }
}

fn one(archive: &mut tar::Archive<Pieces>, into: &Path, keep: Keep) -> io::Result<()> {
    let Some(entry) = archive.entries()?.next() else { return Err(io::Error::other("the archive is empty")) };
    let mut entry = entry?;
    // A hard link in an archive of one file could only lead out of it.
    if entry.header().entry_type().is_hard_link() {
        return Err(io::Error::other("the archive has a link to a file that is not in it"));
    }
    if entry.header().entry_type().is_file() { file(&mut entry, into, keep) } else { entry.unpack(into).map(|_| ()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Pieces {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        let bytes = builder.into_inner().unwrap();
        let (to, from) = tokio::sync::mpsc::channel(1);
        std::thread::spawn(move || to.blocking_send(bytes).ok());
        Pieces::new(from)
    }

    fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header
    }

    #[test]
    fn nothing_gets_out() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        let link = outside.clone();
        let hostile = pieces(move |tar| {
            tar.append_link(&mut header(tar::EntryType::Symlink, 0, 0o777), "a", &link).unwrap();
            tar.append_data(&mut header(tar::EntryType::Regular, 1, 0o644), "a/file", &b"x"[..]).unwrap();
        });
        assert!(unpack(hostile, &Into::Directory(inside.clone()), Keep::Plain).is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        let link = outside.clone();
        fs::create_dir(outside.join("sub")).unwrap();
        let hostile = pieces(move |tar| {
            tar.append_link(&mut header(tar::EntryType::Symlink, 0, 0o777), "b", &link).unwrap();
            tar.append_data(&mut header(tar::EntryType::Directory, 0, 0o777), "b/sub", io::empty()).unwrap();
        });
        assert!(unpack(hostile, &Into::Directory(inside.clone()), Keep::Plain).is_err());
        fs::remove_dir(outside.join("sub")).unwrap();
        let hostile = pieces(|tar| {
            let mut header = header(tar::EntryType::Regular, 1, 0o644);
            header.as_old_mut().name[..9].copy_from_slice(b"../../new");
            header.set_cksum();
            tar.append(&header, &b"x"[..]).unwrap();
        });
        assert!(unpack(hostile, &Into::Directory(inside), Keep::Modes).is_err());
        assert!(!dir.path().join("new").exists() && !dir.path().join("../new").exists());
    }

    #[test]
    fn directories_and_files() {
        let dir = tempfile::tempdir().unwrap();
        let tar = |tar: &mut tar::Builder<Vec<u8>>| {
            tar.append_data(&mut header(tar::EntryType::Directory, 0, 0o555), "d", io::empty()).unwrap();
            tar.append_data(&mut header(tar::EntryType::Regular, 2, 0o640), "d/f", &b"hi"[..]).unwrap();
        };
        unpack(pieces(tar), &Into::Directory(dir.path().into()), Keep::Modes).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("d/f")).unwrap(), "hi");
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("d"), mode("d/f")), (0o555, 0o640));
        let file = |tar: &mut tar::Builder<Vec<u8>>| {
            tar.append_data(&mut header(tar::EntryType::Regular, 2, 0o640), "x", &b"ho"[..]).unwrap();
        };
        unpack(pieces(file), &Into::File(dir.path().join("renamed")), Keep::Modes).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("renamed")).unwrap(), "ho");
        // A directory does not replace a file.
        fs::write(dir.path().join("e"), "").unwrap();
        let clash = |tar: &mut tar::Builder<Vec<u8>>| {
            tar.append_data(&mut header(tar::EntryType::Directory, 0, 0o755), "e", io::empty()).unwrap();
        };
        assert!(unpack(pieces(clash), &Into::Directory(dir.path().into()), Keep::Modes).is_err());
    }
}
