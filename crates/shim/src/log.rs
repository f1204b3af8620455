//! The log file of a container: regular, appended to, never through a link.
//!
//! Writing never fails the container: what cannot be written is counted and gone, and the file may work again later.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use model::plan::LogLimit;
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
    /// Bytes in the file.
    size: u64,
    limit: Option<LogLimit>,
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
    /// With a limit it is rotated here and not by the daemon: the disk is safe also while there is none.
    ///
    /// # Errors
    /// [`Error::Log`].
    pub(crate) fn open(path: &str, limit: Option<LogLimit>) -> Result<Self, Error> {
        let wrong = |reason| Error::LogRefused { path: path.into(), reason };
        let given = Path::new(path);
        let (Some(parent), Some(name)) = (given.parent(), given.file_name()) else { return Err(wrong("names no file")) };
        if !given.is_absolute() {
            return Err(wrong("not an absolute path"));
        }
        let parent = fs::canonicalize(parent).map_err(|source| Error::LogDirectory { path: path.into(), source })?;
        let path = parent.join(name);
        let (file, size) = open(&path)?;
        Ok(Self { path, file, size, limit, lost: 0, torn: false, complaint: Complaint::None })
    }

    /// Opens the file at its path again; what it had open is kept if that fails (the rotation is then undone).
    ///
    /// # Errors
    /// [`Error::Log`].
    pub(crate) fn reopen(&mut self) -> Result<(), Error> {
        (self.file, self.size) = open(&self.path)?;
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

    /// Writes whole lines, to as many files as it takes.
    fn write(&mut self, mut lines: &[u8]) {
        while !lines.is_empty() {
            let (fit, rest) = lines.split_at(self.fitting(lines));
            if !fit.is_empty() {
                self.append(fit);
            } else if let Err(errno) = self.rotate() {
                self.lost += lines.len() as u64;
                return self.complain(errno);
            }
            lines = rest;
        }
    }

    /// How much of these lines still goes into the file. One line does in any case.
    fn fitting(&self, lines: &[u8]) -> usize {
        let Some(limit) = self.limit else { return lines.len() };
        let room = usize::try_from(limit.file_bytes.saturating_sub(self.size)).unwrap_or(usize::MAX);
        if lines.len() <= room {
            return lines.len();
        }
        let end = |line: &u8| *line == b'\n';
        match lines[..room].iter().rposition(end) {
            Some(at) => at + 1,
            None if self.size == 0 => lines.iter().position(end).map_or(lines.len(), |at| at + 1),
            None => 0,
        }
    }

    /// Puts the file aside and begins a new one; what is oldest goes.
    fn rotate(&mut self) -> Result<(), Errno> {
        let (Some(limit), Some(directory)) = (self.limit, self.path.parent()) else { return Ok(()) };
        let io = |e: std::io::Error| e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
        let mut older = older(&self.path).map_err(io)?;
        let next = older.last().map_or(0, |(number, _)| number.saturating_add(1));
        let aside = directory.join(aside(&self.path, next));
        match fs::rename(&self.path, &aside) {
            Ok(()) => older.push((next, aside)),
            // An earlier attempt came this far.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(io(e)),
        }
        let kept = usize::try_from(limit.files.saturating_sub(1)).unwrap_or(usize::MAX);
        for (_, path) in &older[..older.len().saturating_sub(kept)] {
            fs::remove_file(path).map_err(io)?;
        }
        self.reopen().map_err(|error| match error {
            Error::Log { source, .. } => source,
            _ => Errno::IO,
        })
    }

    fn append(&mut self, mut bytes: &[u8]) {
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
                Ok(written) if written > 0 => {
                    self.size += written as u64;
                    return Some(written);
                }
                Err(Errno::INTR) => {}
                other => {
                    self.complain(other.err().unwrap_or(Errno::IO));
                    return None;
                }
            }
        }
    }

    fn complain(&mut self, errno: Errno) {
        if matches!(self.complaint, Complaint::None) {
            self.complaint = Complaint::Due(errno);
        }
    }
}

/// Digits of the number behind a file that was put aside: the order of names is that of time.
const DIGITS: usize = 10;

/// `0.log.0000000042`
fn aside(path: &Path, number: u64) -> String {
    format!("{}.{number:0DIGITS$}", path.file_name().unwrap_or_default().to_string_lossy())
}

/// What was put aside before, oldest first.
fn older(path: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let mut older = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|found| found.strip_prefix(name)?.strip_prefix('.')?.parse().ok());
        older.extend(number.map(|number| (number, entry.path())));
    }
    older.sort();
    Ok(older)
}

/// The file and how large it is.
fn open(path: &Path) -> Result<(OwnedFd, u64), Error> {
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
    Ok((file, u64::try_from(stat.st_size).unwrap_or_default()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_with_a_limit_takes_no_more_room() {
        let dir = std::env::temp_dir().join(format!("creel-shim-rotation-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("0.log");
        let open = || Log::open(path.to_str().unwrap(), Some(LogLimit { file_bytes: 1000, files: 3 })).unwrap();
        let mut log = open();
        let line = |number: usize| format!("t stdout F {number:0>88}\n");
        for number in (0..100).step_by(4) {
            // A batch goes into as many files as it takes.
            log.write((number..number + 4).map(line).collect::<String>().as_bytes());
        }
        let names = |dir: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&dir), ["0.log", "0.log.0000000007", "0.log.0000000008"]);
        let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(text("0.log.0000000007"), (70..80).map(line).collect::<String>());
        assert_eq!((text("0.log"), log.lost()), ((90..100).map(line).collect(), 0));
        // Whoever writes on goes on counting where the file was left.
        drop(log);
        let mut log = open();
        log.write(line(100).as_bytes());
        assert_eq!((names(&dir).len(), text("0.log")), (3, line(100)));
        // A line that is longer than a file is a file.
        log.write(format!("{}\nshort\n", "x".repeat(5000)).as_bytes());
        assert_eq!((text("0.log").as_str(), text("0.log.0000000011").len()), ("short\n", 5001));
        fs::remove_dir_all(dir).unwrap();
    }
}
