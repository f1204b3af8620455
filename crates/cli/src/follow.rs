//! A log in CRI's format (`TIME stdout|stderr F|P TEXT`), printed while it grows.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    time::Duration,
};

use api::runtime as cri;
use cri::ContainerState;

use crate::{
    client::Client,
    error::{self, Error},
};

/// How often a growing file is looked at.
const GLANCE: Duration = Duration::from_millis(30);
/// How often the container is asked for meanwhile, in glances.
const ASK_EVERY: u32 = 5;

/// A log that is read from the front to the present end.
pub(crate) struct LogReader {
    file: BufReader<File>,
    timestamps: bool,
    /// A line whose end is not written yet.
    half: Vec<u8>,
    /// The next entry goes on with the line of the one before.
    within: bool,
}

impl LogReader {
    /// Reads this file.
    pub(crate) fn new(file: File, timestamps: bool) -> Self {
        Self { file: BufReader::new(file), timestamps, half: Vec::new(), within: false }
    }

    /// Prints what is there by now.
    pub(crate) fn print_new(&mut self) -> io::Result<bool> {
        let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
        let any = self.copy_new(&mut stdout, &mut stderr)?;
        stdout.flush()?;
        Ok(any)
    }

    fn copy_new(&mut self, stdout: &mut dyn Write, stderr: &mut dyn Write) -> io::Result<bool> {
        let mut any = false;
        loop {
            self.file.read_until(b'\n', &mut self.half)?;
            if self.half.last() != Some(&b'\n') {
                return Ok(any);
            }
            let line = std::mem::take(&mut self.half);
            let Some(entry) = Entry::parse(&line) else { continue };
            let out: &mut dyn Write = if entry.stderr { stderr } else { stdout };
            if self.timestamps && !self.within {
                out.write_all(entry.time)?;
                out.write_all(b" ")?;
            }
            out.write_all(entry.text)?;
            if !entry.partial {
                out.write_all(b"\n")?;
            }
            self.within = entry.partial;
            any = true;
        }
    }

    /// Leaves out all but the last lines. Reads backwards in blocks: a log can be bigger than memory.
    pub(crate) fn skip_to_tail(&mut self, lines: usize) -> io::Result<()> {
        let mut at = self.file.seek(SeekFrom::End(0))?;
        let mut tail = Tail { wanted: lines, seen: 0, entry: Vec::new(), next: at };
        while at > 0 {
            let from = at.saturating_sub(BLOCK);
            self.file.seek(SeekFrom::Start(from))?;
            let mut block = Vec::new();
            self.file.by_ref().take(at - from).read_to_end(&mut block)?;
            for (offset, byte) in (from..at).rev().zip(block.iter().rev()) {
                if *byte == b'\n' && tail.begins(offset + 1) {
                    return self.file.seek(SeekFrom::Start(tail.next)).map(|_| ());
                }
                tail.entry.push(*byte);
            }
            at = from;
        }
        let start = if tail.begins(0) { tail.next } else { 0 };
        self.file.seek(SeekFrom::Start(start)).map(|_| ())
    }

    /// Whether the name now belongs to another file: the log was rotated.
    fn rotated(&self, path: &str) -> bool {
        let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        match (std::fs::metadata(path), self.file.get_ref().metadata()) {
            (Ok(named), Ok(open)) => !same(&named, &open),
            _ => false,
        }
    }
}

/// Bytes that are read at once from the end.
const BLOCK: u64 = 64 << 10;

/// Finds the beginning of the last lines, going backwards.
struct Tail {
    wanted: usize,
    /// Lines whose end has been seen.
    seen: usize,
    /// The entry that is being read, backwards.
    entry: Vec<u8>,
    /// Where the entry after it begins.
    next: u64,
}

impl Tail {
    /// The entry that was read begins here. Says whether it is one too many: the end of a line that is not wanted.
    fn begins(&mut self, offset: u64) -> bool {
        let entry: Vec<u8> = std::mem::take(&mut self.entry).into_iter().rev().collect();
        if entry.is_empty() {
            return false;
        }
        if Entry::parse(&entry).is_some_and(|entry| !entry.partial) {
            if self.seen == self.wanted {
                return true;
            }
            self.seen += 1;
        }
        self.next = offset;
        false
    }
}

/// One line of the file.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'l> {
    time: &'l [u8],
    stderr: bool,
    partial: bool,
    text: &'l [u8],
}

impl<'l> Entry<'l> {
    fn parse(line: &'l [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tag) = (fields.next()?, fields.next()?, fields.next()?);
        let text = fields.next().unwrap_or_default();
        let stderr = match stream {
            b"stdout" => false,
            b"stderr" => true,
            _ => return None,
        };
        Some(Self { time, stderr, partial: tag.first() == Some(&b'P'), text })
    }
}

/// A container's status.
pub(crate) async fn status(client: &mut Client, id: &str) -> Result<cri::ContainerStatus, Error> {
    let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    let answer = client.runtime.container_status(request).await.map_err(error::rpc("look at the container"))?;
    answer.into_inner().status.ok_or_else(|| Error::Missing { what: "container", name: id.to_owned() })
}

/// Prints the log as it grows until the container has ended and everything is printed. Returns its last status.
pub(crate) async fn until_exit(
    client: &mut Client,
    id: &str,
    path: &str,
    reader: &mut LogReader,
) -> Result<cri::ContainerStatus, Error> {
    let printing = || error::io(format!("print {path}"));
    let mut glances = 0;
    loop {
        if reader.print_new().map_err(printing())? {
            continue;
        }
        // Everything of the old file is printed; what comes now is in the new one.
        if reader.rotated(path) {
            let file = File::open(path).map_err(error::io(format!("open {path}")))?;
            reader.file = BufReader::new(file);
            continue;
        }
        if glances % ASK_EVERY == 0 {
            let status = status(client, id).await?;
            if status.state() == ContainerState::ContainerExited {
                // The supervisor writes the last line before it tells of the end.
                reader.print_new().map_err(printing())?;
                return Ok(status);
            }
        }
        glances += 1;
        tokio::time::sleep(GLANCE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(content: &str, timestamps: bool) -> (LogReader, std::path::PathBuf) {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("creel-cli-log-{}-{number}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        (LogReader::new(File::open(&path).unwrap(), timestamps), path)
    }

    fn printed(reader: &mut LogReader) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        reader.copy_new(&mut out, &mut err).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn entries_become_lines_again() {
        let log = "t1 stdout F one\nt2 stderr F two\nt3 stdout P thr\nt4 stdout F ee\nt5 stdout F \ngarbage\nt6 stdout F six";
        let (mut plain, path) = reader(log, false);
        assert_eq!(printed(&mut plain), ("one\nthree\n\n".into(), "two\n".into()));
        // The rest of a line comes later.
        use std::io::Write as _;
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"th\n").unwrap();
        assert_eq!(printed(&mut plain).0, "sixth\n");
        std::fs::remove_file(path).unwrap();
        let (mut timed, path) = reader(log, true);
        assert_eq!(printed(&mut timed).0, "t1 one\nt3 three\nt5 \n");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn tails_count_whole_lines() {
        let mut log = String::new();
        for n in 0..5000 {
            log.push_str(&format!("t stdout P {n}:\nt stdout F {}\n", "x".repeat(40)));
        }
        for (lines, first) in [(1, Some("4999:")), (3, Some("4997:")), (4999, Some("1:")), (9999, Some("0:")), (0, None)] {
            let (mut tail, path) = reader(&log, false);
            tail.skip_to_tail(lines).unwrap();
            let text = printed(&mut tail).0;
            assert_eq!(text.lines().count(), lines.min(5000), "{lines}");
            assert_eq!(text.lines().next().map(|line| line.trim_end_matches('x')), first);
            std::fs::remove_file(path).unwrap();
        }
    }
}
