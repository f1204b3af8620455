//! The few ways in which files of ours come and go. Each step that changes the disk passes a fault point.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{
    error::{During, Error},
    fault::reach,
    layout::Layout,
};

/// From so many files on, the whole file system is synced once instead of each of them.
const MANY: usize = 16;

/// Whether a file has to survive the loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// On disk before this returns.
    Now,
    /// When the kernel likes.
    Later,
}

/// Makes a directory with exactly this mode, whatever the umask; there already is fine.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<(), Error> {
    reach("mkdir").during("mkdir", path)?;
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(Error::io("mkdir", path, e)),
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).during("chmod", path)
}

/// A new file that only root may read.
pub(crate) fn create(path: &Path) -> Result<File, Error> {
    reach("create").during("create", path)?;
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path).during("create", path)
}

/// Puts a file in place as a whole or not at all: written as `temporary` in the same file system, then renamed.
pub(crate) fn write(path: &Path, temporary: &Path, bytes: &[u8], sync: Sync) -> Result<(), Error> {
    let written = fill(temporary, bytes, sync).and_then(|()| rename(temporary, path));
    if written.is_err() {
        // What is left is swept at the next start.
        unlink(temporary).ok();
    }
    written?;
    if sync == Sync::Now { sync_parent(path) } else { Ok(()) }
}

/// Puts files in place, each as a whole or not at all, and all of them for good: a thousand take hardly longer than a few. After an
/// error some of them may be there.
pub(crate) fn write_all(layout: &Layout, files: &[(PathBuf, Vec<u8>)]) -> Result<(), Error> {
    if files.len() < MANY {
        return files.iter().try_for_each(|(path, bytes)| write(path, &layout.temporary(), bytes, Sync::Now));
    }
    let temporaries: Vec<PathBuf> = files.iter().map(|_| layout.temporary()).collect();
    let written = write_many(layout, files, &temporaries);
    if written.is_err() {
        temporaries.iter().for_each(|temporary| drop(unlink(temporary)));
    }
    written
}

fn write_many(layout: &Layout, files: &[(PathBuf, Vec<u8>)], temporaries: &[PathBuf]) -> Result<(), Error> {
    // Opened before the first byte is written: it tells what goes wrong from then on (syncfs(2)).
    let file_system = File::open(&layout.root).during("open", &layout.root)?;
    for ((_, bytes), temporary) in files.iter().zip(temporaries) {
        fill(temporary, bytes, Sync::Later)?;
    }
    reach("syncfs").and_then(|()| Ok(rustix::fs::syncfs(file_system)?)).during("syncfs", &layout.root)?;
    for ((path, _), temporary) in files.iter().zip(temporaries) {
        rename(temporary, path)?;
    }
    let directories: BTreeSet<&Path> = files.iter().filter_map(|(path, _)| path.parent()).collect();
    directories.into_iter().try_for_each(sync_dir)
}

fn fill(path: &Path, bytes: &[u8], sync: Sync) -> Result<(), Error> {
    let mut file = create(path)?;
    reach("write").and_then(|()| file.write_all(bytes)).during("write", path)?;
    if sync == Sync::Now {
        reach("fsync").and_then(|()| file.sync_all()).during("fsync", path)?;
    }
    Ok(())
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    reach("rename").and_then(|()| fs::rename(from, to)).during("rename", from)
}

/// Makes the names in a directory durable (fsync(2): "calling fsync() does not necessarily ensure that the entry in
/// the directory containing the file has also reached disk").
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    reach("fsync directory").and_then(|()| File::open(dir)?.sync_all()).during("fsync", dir)
}

pub(crate) fn sync_parent(path: &Path) -> Result<(), Error> {
    path.parent().map_or(Ok(()), sync_dir)
}

/// Everything of the file system that `path` is on, at once: far cheaper than one fsync per file.
pub(crate) fn sync_file_system(path: &Path) -> Result<(), Error> {
    reach("syncfs").and_then(|()| Ok(rustix::fs::syncfs(File::open(path)?)?)).during("syncfs", path)
}

pub(crate) fn sync_file(path: &Path) -> Result<(), Error> {
    reach("fsync").and_then(|()| File::open(path)?.sync_all()).during("fsync", path)
}

/// Removes a file; not there is fine.
pub(crate) fn unlink(path: &Path) -> Result<(), Error> {
    reach("unlink").during("unlink", path)?;
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("unlink", path, e)),
        _ => Ok(()),
    }
}

/// Reads a file of at most `limit` bytes; `None`: not there.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("open", path, e)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).during("read", path)?;
    if bytes.len() as u64 > limit {
        return Err(Error::io("read", path, io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes"))));
    }
    Ok(Some(bytes))
}

/// What is in a directory.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(dir).during("read directory", dir)?;
    entries.map(|entry| entry.map(|e| e.path()).during("read directory", dir)).collect()
}
