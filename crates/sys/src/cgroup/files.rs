//! Reading, writing, making and removing in cgroup filesystems.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};

use super::Hierarchy;
use crate::{Context, Error};

/// A group that has lost its last process may say EBUSY for a moment, until the process is gone for good.
const BUSY_LIMIT: Duration = Duration::from_secs(1);

pub(super) fn read(file: &Path) -> Result<String, Error> {
    fs::read_to_string(file).during(|| format!("read({file:?})"))
}

/// The text of a file that this kernel or machine may lack.
pub(super) fn read_if_there(file: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        // EOPNOTSUPP: the file of a feature that was switched off at boot (psi=0).
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_unsupported(&error) => Ok(None),
        Err(error) => Err(error).during(|| format!("read({file:?})")),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error())
}

pub(super) fn write(file: &Path, value: &str) -> Result<(), Error> {
    let call = || format!("write({file:?}, {value:?})");
    // Never O_CREAT: a missing file must say ENOENT, not EPERM.
    let fd = openat(CWD, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).during(call)?;
    crate::memfd::write_all(&fd, value.as_bytes()).during(call)
}

/// Makes a group; `false` if it was there.
pub(super) fn make(directory: &Path) -> Result<bool, Error> {
    match rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno).during(|| format!("mkdir({directory:?})")),
    }
}

/// Removes a group with the groups below it.
pub(super) fn remove(directory: &Path) -> Result<(), Error> {
    let end = Instant::now() + BUSY_LIMIT;
    let mut pause = Duration::from_micros(200);
    loop {
        match rustix::fs::rmdir(directory) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY) if Instant::now() < end => {}
            Err(errno) => return Err(errno).during(|| format!("rmdir({directory:?})")),
        }
        for child in children(directory)? {
            remove(&child)?;
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// The groups right below a group; none if it is gone.
pub(super) fn children(directory: &Path) -> Result<Vec<std::path::PathBuf>, Error> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.during(|| format!("open({directory:?})"))?,
    };
    Ok(entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect())
}

/// Descriptors through which a process joins a group: see [`super::Group::open_join`].
#[derive(Debug)]
pub struct Join(pub(super) Vec<OwnedFd>);

impl Join {
    /// Moves the calling process, which must have one thread, into the group.
    ///
    /// # Errors
    /// write(2): EAGAIN at the pids limit never (that is for fork), EBUSY on v2 if the group has groups with controllers
    /// below it.
    pub fn join(&self) -> Result<(), Errno> {
        self.0.iter().try_for_each(|file| rustix::io::write(file, b"0").map(|_| ()))
    }
}

/// On v1 `tasks`: moving one thread costs 24 us, while `cgroup.procs` waits for an RCU grace period (6-10 ms) because it
/// may have to move several.
pub(super) fn open_join(hierarchy: &Hierarchy, path: &str) -> Result<OwnedFd, Error> {
    let file = match hierarchy {
        Hierarchy::V1 { .. } => hierarchy.at(path).join("tasks"),
        Hierarchy::V2 { .. } => hierarchy.at(path).join("cgroup.procs"),
    };
    openat(CWD, &file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).during(|| format!("open({file:?})"))
}
