//! The output of one container: its pipes or terminal, the log they are written to, and who else reads along.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    buffer::spare_capacity,
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
};

use crate::{
    lines::{Lines, Stream},
    log::{Log, Writer},
};

/// Bytes read from one stream before the others get their turn.
const READ: usize = 32 << 10;

/// Bytes that somebody attached may be behind: the most that a process without CAP_SYS_RESOURCE may ask for by default
/// (/proc/sys/fs/pipe-max-size).
const TEE_PIPE: usize = 1 << 20;

/// How many may be attached to one stream at a time.
const TEES: usize = 16;

/// Memory that all containers share while reading.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// For what is read. Never cleared to zeros: pages of it that nothing was read into cost nothing.
    read: Vec<u8>,
    /// For log lines.
    batch: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { read: Vec::with_capacity(READ), batch: Vec::new() }
    }
}

/// What reading once came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There was something.
    Some,
    /// There is nothing now.
    Nothing,
    /// There will never be anything again.
    End,
}

/// Both streams of a container; a terminal is one.
#[derive(Debug)]
pub(crate) struct Output {
    log: Option<Log>,
    sources: [Option<Source>; 2],
}

#[derive(Debug)]
struct Source {
    fd: OwnedFd,
    lines: Lines,
    tees: Vec<OwnedFd>,
}

impl Source {
    fn new(fd: OwnedFd, stream: Stream) -> Result<Self, Errno> {
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        Ok(Self { fd, lines: Lines::new(stream), tees: Vec::new() })
    }
}

impl Output {
    /// The output that comes out of these, written to `log`.
    ///
    /// # Errors
    /// Descriptors that cannot be made non-blocking.
    pub(crate) fn new(log: Option<Log>, stdout: OwnedFd, stderr: Option<OwnedFd>) -> Result<Self, Errno> {
        let stdout = Source::new(stdout, Stream::Stdout)?;
        let stderr = stderr.map(|fd| Source::new(fd, Stream::Stderr)).transpose()?;
        Ok(Self { log, sources: [Some(stdout), stderr] })
    }

    /// What to wait for: index and descriptor of each stream that has not ended.
    pub(crate) fn open(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.sources.iter().enumerate().filter_map(|(index, source)| Some((index, source.as_ref()?.fd.as_fd())))
    }

    /// Every stream has ended.
    pub(crate) fn ended(&self) -> bool {
        self.sources.iter().all(Option::is_none)
    }

    /// The log.
    pub(crate) fn log(&mut self) -> Option<&mut Log> {
        self.log.as_mut()
    }

    /// Bytes that did not get into the log.
    pub(crate) fn lost(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::lost)
    }

    /// Reads a stream once, writes its log, feeds those who are attached. An ended stream has to be closed.
    pub(crate) fn read(&mut self, index: usize, scratch: &mut Scratch) -> Progress {
        let Some(source) = self.sources.get_mut(index).and_then(Option::as_mut) else { return Progress::End };
        scratch.read.clear();
        match rustix::io::read(&source.fd, spare_capacity(&mut scratch.read)) {
            Ok(got) if got > 0 => {
                let output = &scratch.read[..];
                source.tees.retain(|tee| follow(tee, output));
                let mut writer = Writer::new(self.log.as_mut(), &mut scratch.batch);
                source.lines.feed(output, &mut writer);
                writer.flush();
                Progress::Some
            }
            Err(Errno::AGAIN | Errno::INTR) => Progress::Nothing,
            // EIO is how a terminal's master says that nobody has the other side open any more (pty(7)).
            _ => Progress::End,
        }
    }

    /// Closes a stream, whatever may still come; the rest of a line is written.
    pub(crate) fn close(&mut self, index: usize, scratch: &mut Scratch) {
        let Some(mut source) = self.sources.get_mut(index).and_then(Option::take) else { return };
        let mut writer = Writer::new(self.log.as_mut(), &mut scratch.batch);
        source.lines.finish(&mut writer);
        writer.flush();
    }

    /// Pipes with a copy of what each open stream says from now on: index and read end.
    ///
    /// # Errors
    /// No pipe to be had, or too many attached (EUSERS).
    pub(crate) fn attach(&mut self) -> Result<Vec<(usize, OwnedFd)>, Errno> {
        let mut ends = Vec::new();
        for (index, source) in self.sources.iter_mut().enumerate() {
            let Some(source) = source else { continue };
            if source.tees.len() >= TEES {
                // Readers that have gone are otherwise only noticed when there is output.
                source.tees.retain(|tee| !reader_is_gone(tee));
            }
            if source.tees.len() >= TEES {
                return Err(Errno::USERS);
            }
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            fcntl_setfl(&write, OFlags::WRONLY | OFlags::NONBLOCK)?;
            // Smaller is worse, not wrong: a user's pipes may be too many already (pipe(7)).
            let _ = fcntl_setpipe_size(&write, TEE_PIPE);
            source.tees.push(write);
            ends.push((index, read));
        }
        Ok(ends)
    }
}

/// Writes to somebody attached; `false`: gone, or too far behind to be told anything but the end.
fn follow(tee: &OwnedFd, output: &[u8]) -> bool {
    matches!(rustix::io::write(tee, output), Ok(written) if written == output.len())
}

fn reader_is_gone(tee: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(tee, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::ERR)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    fn directory(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("creel-shim-output-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Text of the log without times.
    fn texts(path: &std::path::Path) -> Vec<String> {
        let log = fs::read_to_string(path).unwrap();
        log.lines().map(|line| line.split_once(' ').expect("a time").1.to_owned()).collect()
    }

    #[test]
    fn output_becomes_a_log_that_can_be_rotated() {
        let dir = directory("log");
        let path = dir.join("0.log");
        let (out, err) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let log = Log::open(path.to_str().unwrap(), None).unwrap();
        let (mut stdout, mut stderr) = (out.1, err.1);
        let mut output = Output::new(Some(log), out.0.into(), Some(err.0.into())).unwrap();
        let mut scratch = Scratch::new();
        assert_eq!(output.read(0, &mut scratch), Progress::Nothing);
        stdout.write_all(b"one\ntw").unwrap();
        stderr.write_all(b"bad\n").unwrap();
        assert_eq!(output.read(0, &mut scratch), Progress::Some);
        assert_eq!(output.read(1, &mut scratch), Progress::Some);
        assert_eq!(texts(&path), ["stdout F one", "stderr F bad"]);
        // Rotation: renamed, then opened anew.
        fs::rename(&path, dir.join("0.log.1")).unwrap();
        output.log().unwrap().reopen().unwrap();
        assert!(path.exists());
        stdout.write_all(b"o\nrest").unwrap();
        drop((stdout, stderr));
        assert_eq!(output.read(0, &mut scratch), Progress::Some);
        for index in [0, 1] {
            assert_eq!(output.read(index, &mut scratch), Progress::End);
            output.close(index, &mut scratch);
        }
        assert!(output.ended());
        assert_eq!(texts(&path), ["stdout F two", "stdout P rest"]);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_log_is_a_plain_file_and_nothing_else() {
        let dir = directory("refused");
        let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        fs::write(at("target"), "").unwrap();
        std::os::unix::fs::symlink("target", at("link")).unwrap();
        std::os::unix::fs::symlink("/nowhere/else", at("dangling")).unwrap();
        fs::hard_link(at("target"), at("hard")).unwrap();
        fs::create_dir(at("dir")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
            .unwrap();
        for name in ["link", "dangling", "hard", "dir", "fifo", "missing/0.log", ".."] {
            assert!(Log::open(&at(name), None).is_err(), "{name}");
        }
        for path in ["", "/", "relative.log", "/dev/null", "/tmp/\0"] {
            assert!(Log::open(path, None).is_err(), "{path}");
        }
        // A directory that becomes a link after the first opening does not lead elsewhere.
        fs::create_dir(at("pod")).unwrap();
        let mut log = Log::open(&at("pod/0.log"), None).unwrap();
        fs::rename(at("pod"), at("gone")).unwrap();
        std::os::unix::fs::symlink("dir", at("pod")).unwrap();
        assert!(log.reopen().is_err());
        assert!(!dir.join("dir/0.log").exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_full_disk_loses_output_and_nothing_else() {
        let dir = directory("full");
        rustix::mount::mount("creel-test", &dir, "tmpfs", rustix::mount::MountFlags::empty(), Some(c"size=64k")).unwrap();
        let path = dir.join("0.log");
        let (out, mut stdout) = std::io::pipe().unwrap();
        let log = Log::open(path.to_str().unwrap(), None).unwrap();
        let mut output = Output::new(Some(log), out.into(), None).unwrap();
        let mut scratch = Scratch::new();
        let line = [vec![b'x'; 999], b"\n".to_vec()].concat();
        let mut written = 0_u64;
        for _ in 0..100 {
            stdout.write_all(&line).unwrap();
            assert_eq!(output.read(0, &mut scratch), Progress::Some);
            written += (line.len() + time_and_tags()) as u64;
        }
        assert!(output.lost() > 0);
        let size = fs::metadata(&path).unwrap().len();
        assert_eq!(output.lost() + size, written);
        assert!(output.log().unwrap().take_complaint().unwrap().contains("No space left"));
        assert!(output.log().unwrap().take_complaint().is_none());
        // Space again: the torn line is ended first.
        fs::write(dir.join("blocker"), "").unwrap();
        rustix::mount::mount_remount(&dir, rustix::mount::MountFlags::empty(), c"size=128k").unwrap();
        stdout.write_all(b"again\n").unwrap();
        assert_eq!(output.read(0, &mut scratch), Progress::Some);
        let log = fs::read_to_string(&path).unwrap();
        let last = log.lines().last().unwrap();
        assert!(last.ends_with(" stdout F again") && last.len() == time_and_tags() - 1 + "again".len() + 1, "{last}");
        rustix::mount::unmount(&dir, rustix::mount::UnmountFlags::DETACH).unwrap();
        fs::remove_dir_all(dir).unwrap();
    }

    fn time_and_tags() -> usize {
        model::time::LENGTH + " stdout F ".len()
    }

    #[test]
    fn those_attached_get_copies_until_they_fall_behind() {
        let (out, mut stdout) = std::io::pipe().unwrap();
        let mut output = Output::new(None, out.into(), None).unwrap();
        let mut scratch = Scratch::new();
        let (mut keeps_up, stalls) = (output.attach().unwrap(), output.attach().unwrap());
        drop(output.attach().unwrap());
        let keeps_up = keeps_up.pop().unwrap().1;
        let mut buffer = vec![0; READ];
        for _ in 0..64 {
            stdout.write_all(&vec![b'x'; READ]).unwrap();
            assert_eq!(output.read(0, &mut scratch), Progress::Some);
            assert_eq!(rustix::io::read(&keeps_up, &mut buffer).unwrap(), READ);
        }
        let mut total = 0;
        while let Ok(got @ 1..) = rustix::io::read(&stalls[0].1, &mut buffer) {
            total += got;
        }
        assert!((64 << 10..=TEE_PIPE).contains(&total), "{total}");
        drop(stdout);
        assert_eq!(output.read(0, &mut scratch), Progress::End);
        output.close(0, &mut scratch);
        assert_eq!(rustix::io::read(&keeps_up, &mut buffer), Ok(0));
    }

    #[test]
    fn only_so_many_are_attached() {
        let (out, _stdout) = std::io::pipe().unwrap();
        let mut output = Output::new(None, out.into(), None).unwrap();
        let mut attached: Vec<_> = (0..TEES).map(|_| output.attach().unwrap()).collect();
        assert_eq!(output.attach().unwrap_err(), Errno::USERS);
        attached.pop();
        assert_eq!(output.attach().unwrap().len(), 1);
    }
}
