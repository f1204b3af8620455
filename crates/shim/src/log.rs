//! The log file of a container: regular, appended to, never through a link.
//!
//! Writing never fails the container: what cannot be written is counted and gone, and the file may work again later.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2},
    io::Errno,
};

use crate::{error::Error, lines::Sink};

/// Bytes gathered before they are written.
const BATCH: usize = 32 << 10;

/// A container's log.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: OwnedFd,
    lost: u64,
    /// The file ends in the middle of a line: a write was cut short.
    torn: bool,
    /// Writing has failed since the file was opened; said once.
    complaint: Complaint,
}

#[derive(Clone, Copy, Debug)]
enum Complaint {
    None,
    Due(Errno),
    Made,
}

impl Log {
    /// Opens (makes) the log. Links in the way to its directory are followed now and never again, so that nobody who can
    /// write below it (a pod with the host's log directory) can turn a rotation into a write elsewhere.
    ///
    /// # Errors
    /// [`Error::Log`].
    pub(crate) fn open(path: &str) -> Result<Self, Error> {
        let wrong = |reason| Error::LogRefused { path: path.into(), reason };
        let given = Path::new(path);
        let (Some(parent), Some(name)) = (given.parent(), given.file_name()) else { return Err(wrong("names no file")) };
        if !given.is_absolute() {
            return Err(wrong("not an absolute path"));
        }
        let parent = fs::canonicalize(parent).map_err(|source| Error::LogDirectory { path: path.into(), source })?;
        let path = parent.join(name);
        let file = open(&path)?;
        Ok(Self { path, file, lost: 0, torn: false, complaint: Complaint::None })
    }

    /// Opens the file at its path again; what it had open is kept if that fails (the rotation is then undone).
    ///
    /// # Errors
    /// [`Error::Log`].
    pub(crate) fn reopen(&mut self) -> Result<(), Error> {
        self.file = open(&self.path)?;
        self.torn = false;
        self.complaint = Complaint::None;
        Ok(())
    }

    /// Bytes that could not be written.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// The first failure to write since the file was opened; said once.
    pub(crate) fn take_complaint(&mut self) -> Option<String> {
        let Complaint::Due(why) = self.complaint else { return None };
        self.complaint = Complaint::Made;
        Some(format!("output is lost: write to log {}: {why}", self.path.display()))
    }

    fn write(&mut self, mut bytes: &[u8]) {
        if self.torn && self.write_some(b"\n") == Some(1) {
            self.torn = false;
        }
        if self.torn {
            self.lost += bytes.len() as u64;
            return;
        }
        while !bytes.is_empty() {
            let Some(written) = self.write_some(bytes) else {
                self.lost += bytes.len() as u64;
                return;
            };
            self.torn = bytes[..written].last() != Some(&b'\n');
            bytes = &bytes[written..];
        }
        self.torn = false;
    }

    fn write_some(&mut self, bytes: &[u8]) -> Option<usize> {
        loop {
            match rustix::io::write(&self.file, bytes) {
                Ok(written) if written > 0 => return Some(written),
                Err(Errno::INTR) => {}
                other => {
                    if matches!(self.complaint, Complaint::None) {
                        self.complaint = Complaint::Due(other.err().unwrap_or(Errno::IO));
                    }
                    return None;
                }
            }
        }
    }
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    // NONBLOCK: opening a FIFO or a device that lies in the way must not wait; a regular file ignores it.
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let failed = |source| Error::Log { path: path.into(), source };
    let file = openat2(CWD, path, flags, Mode::from_raw_mode(0o640), resolve).map_err(failed)?;
    let stat = fstat(&file).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::LogRefused { path: path.into(), reason: "not a regular file" });
    }
    // A hard link is another way to make this write into a file of somebody else's choice.
    if stat.st_nlink > 1 {
        return Err(Error::LogRefused { path: path.into(), reason: "has another name (hard link)" });
    }
    Ok(file)
}

/// Gathers lines and writes them in batches; whoever makes one calls [`Writer::flush`] at the end.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    log: Option<&'a mut Log>,
    batch: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A writer to a log (or nowhere) with scratch memory for one batch, which must be empty.
    pub(crate) fn new(log: Option<&'a mut Log>, batch: &'a mut Vec<u8>) -> Self {
        Self { log, batch }
    }

    /// Writes what is gathered.
    pub(crate) fn flush(&mut self) {
        if let Some(log) = self.log.as_mut().filter(|_| !self.batch.is_empty()) {
            log.write(self.batch);
        }
        self.batch.clear();
    }
}

impl Sink for Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        if self.log.is_none() {
            return;
        }
        self.batch.extend_from_slice(bytes);
        // Only whole lines, so that one that is cut short is the disk's doing.
        if self.batch.len() >= BATCH && self.batch.last() == Some(&b'\n') {
            self.flush();
        }
    }
}
