//! Finds a plugin's program, and trusts only what root alone can have put there.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::conf::{distrust, is_type, open_trusted};
use crate::CniError;

/// A plugin that was opened and checked.
#[derive(Debug)]
pub(super) struct Program {
    file: File,
    /// Where it was found; its argv[0], as some plugins are several programs in one.
    pub(super) path: PathBuf,
    script: bool,
}

impl Program {
    /// What to execute: the file that was checked, whatever has its name by now. Scripts go by their name because the
    /// interpreter opens them again, when the descriptor is closed already (execve(2)).
    pub(super) fn executable(&self) -> PathBuf {
        if self.script { self.path.clone() } else { PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd())) }
    }
}

/// The program of a plugin type, from the first directory that has one.
pub(super) fn find(dirs: &[PathBuf], kind: &str) -> Result<Program, CniError> {
    if !is_type(kind) {
        return Err(CniError::BadType(kind.chars().take(100).collect()));
    }
    let mut untrusted = None;
    for dir in dirs {
        match open_in(dir, kind) {
            Ok(Some(program)) => return Ok(program),
            Ok(None) => {}
            Err(error) => {
                untrusted.get_or_insert(error);
            }
        }
    }
    let all = || dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(untrusted.unwrap_or_else(|| CniError::NotFound(all())))
}

fn open_in(dir: &Path, kind: &str) -> Result<Option<Program>, CniError> {
    let path = dir.join(kind);
    let failed = |path: &Path, source: io::Error| CniError::Run { action: "open", path: path.to_owned(), source };
    let (dir_file, metadata) = match open_trusted(dir, OFlags::DIRECTORY) {
        Ok(opened) => opened,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(dir, e)),
    };
    if let Some(why) = distrust(&metadata) {
        return Err(CniError::Untrusted { path: dir.to_owned(), why });
    }
    // Links within the directory are common (one program with many names); those that lead out of it are not followed.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file: OwnedFd = match openat2(&dir_file, kind, flags, Mode::empty(), resolve) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(rustix::io::Errno::XDEV) => return Err(CniError::Untrusted { path, why: "is a link that leads out of its directory" }),
        Err(e) => return Err(failed(&path, e.into())),
    };
    let file = File::from(file);
    let metadata = file.metadata().map_err(|e| failed(&path, e))?;
    if !metadata.is_file() || metadata.mode() & 0o111 == 0 {
        return Err(CniError::Untrusted { path, why: "is not a program" });
    }
    if let Some(why) = distrust(&metadata) {
        return Err(CniError::Untrusted { path, why });
    }
    let mut magic = [0; 2];
    let script = file.read_at(&mut magic, 0).map_err(|e| failed(&path, e))? == 2 && magic == *b"#!";
    Ok(Some(Program { file, path, script }))
}
