//! Removing trees that containers made: of any depth, with any names, without following links.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags},
    io::Errno,
};

use crate::{
    error::{During, Error},
    fault::reach,
    layout::Layout,
};

/// Deeper directories are moved up into the trash and deleted from there: a container may nest them a million deep,
/// and neither our stack nor our descriptors may pay for that.
const DEEPEST: usize = 64;

/// Moves something into the trash, from where [`delete`] takes it; `None`: it was not there.
pub(crate) fn to_trash(path: &Path, layout: &Layout) -> Result<Option<PathBuf>, Error> {
    let trash = layout.trash().join(layout.unique());
    match crate::disk::rename(path, &trash) {
        Ok(()) => Ok(Some(trash)),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Deletes a file or tree in the trash.
pub(crate) fn delete(path: &Path, layout: &Layout) -> Result<(), Error> {
    reach("remove tree").during("remove", path)?;
    let mut queue = vec![path.to_owned()];
    while let Some(path) = queue.pop() {
        let mut hoist = |dir: &OwnedFd, name: &std::ffi::CStr| {
            let to = layout.trash().join(layout.unique());
            rustix::fs::renameat(dir, name, CWD, &to)?;
            queue.push(to);
            Ok(())
        };
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("our own paths have no NUL");
        let opened = rustix::fs::open(".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let here = opened.during("open", Path::new("."))?;
        remove_at(&here, &name, 0, &mut hoist).during("remove", &path)?;
    }
    Ok(())
}

type Hoist<'a> = dyn FnMut(&OwnedFd, &std::ffi::CStr) -> Result<(), Errno> + 'a;

fn remove_at(dir: &OwnedFd, name: &std::ffi::CStr, depth: usize, hoist: &mut Hoist<'_>) -> Result<(), Errno> {
    match unlink(dir, name, AtFlags::empty()) {
        // unlink(2): EISDIR is what Linux says of a directory, EPERM what POSIX asks for.
        Err(Errno::ISDIR) => {}
        Err(Errno::NOENT) => return Ok(()),
        other => return other,
    }
    if depth == DEEPEST {
        return hoist(dir, name);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    // Entries that are removed while a directory is read may shift others: read again until it is empty.
    while remove_entries(&inner, depth, hoist)? {}
    match unlink(dir, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Answers whether there was anything.
fn remove_entries(dir: &OwnedFd, depth: usize, hoist: &mut Hoist<'_>) -> Result<bool, Errno> {
    let mut any = false;
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        any = true;
        match entry.file_type() {
            FileType::Directory | FileType::Unknown => remove_at(dir, name, depth + 1, hoist)?,
            _ => unlink(dir, name, AtFlags::empty())?,
        }
    }
    Ok(any)
}

/// A privileged container can make files immutable (chattr(1)); nothing of ours is to stay for ever.
fn unlink(dir: &OwnedFd, name: &std::ffi::CStr, flags: AtFlags) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, flags) {
        Err(Errno::PERM) => {}
        other => return other,
    }
    unlock(dir.as_fd())?;
    let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::openat(dir, name, open, Mode::empty()) {
        unlock(file.as_fd())?;
    }
    rustix::fs::unlinkat(dir, name, flags)
}

fn unlock(file: std::os::fd::BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = rustix::fs::ioctl_getflags(file)?;
    let free = flags - IFlags::IMMUTABLE - IFlags::APPEND;
    if free == flags { Ok(()) } else { rustix::fs::ioctl_setflags(file, free) }
}
