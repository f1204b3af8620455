//! What a container has written: log files in CRI's format (`TIME stdout|stderr F|P TEXT`), the rotated ones first.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use model::pod::Timestamp;

/// A longer line is none that a supervisor writes.
const LONGEST: u64 = 1 << 20;

/// What is wanted of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Nothing before this time.
    pub since: Option<Timestamp>,
    /// Nothing after this time.
    pub until: Option<Timestamp>,
    /// Only so many lines from the end of what is there now.
    pub tail: Option<u64>,
}

/// A line, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When.
    pub time: Timestamp,
    /// Of standard error.
    pub stderr: bool,
    /// With its line feed, unless it is a part.
    pub data: Vec<u8>,
}

/// Reads a container's log from its beginning to its present end, and on when it has grown. Blocks.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    query: LogQuery,
    /// Older files that are still to be read.
    rotated: VecDeque<PathBuf>,
    file: Option<BufReader<File>>,
    /// An entry whose end is not written yet.
    half: Vec<u8>,
    /// Lines of the tail, once they are known.
    tail: VecDeque<LogLine>,
    ended: bool,
}

impl LogReader {
    /// Reads the log with this path; it need not be there yet.
    ///
    /// # Errors
    /// What reading it says.
    pub fn open(path: PathBuf, query: LogQuery) -> io::Result<Self> {
        let rotated = rotated(&path)?;
        let mut reader = Self { path, query, rotated, file: None, half: Vec::new(), tail: VecDeque::new(), ended: false };
        if let Some(lines) = query.tail {
            reader.find_tail(lines)?;
        }
        Ok(reader)
    }

    /// Reads all that is there, and keeps the last lines of it: parts of one line count as one.
    fn find_tail(&mut self, lines: u64) -> io::Result<()> {
        let (mut tail, mut whole) = (VecDeque::new(), 0);
        while let Some(line) = self.read()? {
            whole += u64::from(line.data.ends_with(b"\n"));
            tail.push_back(line);
            while whole > lines {
                let Some(first) = tail.pop_front() else { break };
                whole -= u64::from(first.data.ends_with(b"\n"));
            }
        }
        if lines == 0 {
            tail.clear();
        }
        self.tail = tail;
        Ok(())
    }

    /// The next line that is wanted. `None`: there is nothing more now.
    ///
    /// # Errors
    /// What reading it says.
    pub fn next_line(&mut self) -> io::Result<Option<LogLine>> {
        match self.tail.pop_front() {
            Some(line) => Ok(Some(line)),
            None => self.read(),
        }
    }

    /// Nothing more will ever be wanted: what comes now is later than that.
    pub fn is_over(&self) -> bool {
        self.ended && self.tail.is_empty()
    }

    fn read(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            if self.ended {
                return Ok(None);
            }
            let Some(entry) = self.entry()? else { return Ok(None) };
            let Some(line) = parse(&entry) else { continue };
            if self.query.until.is_some_and(|until| line.time > until) {
                self.ended = true;
                return Ok(None);
            }
            let stream = if line.stderr { self.query.stderr } else { self.query.stdout };
            if stream && self.query.since.is_none_or(|since| line.time >= since) {
                return Ok(Some(line));
            }
        }
    }

    /// The next whole entry of the files.
    fn entry(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if self.file.is_none() {
                self.file = self.next_file()?;
            }
            let Some(file) = &mut self.file else { return Ok(None) };
            let room = LONGEST.saturating_sub(self.half.len() as u64);
            io::Read::take(&mut *file, room).read_until(b'\n', &mut self.half)?;
            if self.half.ends_with(b"\n") || self.half.len() as u64 >= LONGEST {
                return Ok(Some(std::mem::take(&mut self.half)));
            }
            if !self.file_is_done()? {
                return Ok(None);
            }
            self.file = None;
            self.half.clear();
        }
    }

    fn next_file(&mut self) -> io::Result<Option<BufReader<File>>> {
        while let Some(path) = self.rotated.pop_front() {
            match File::open(path) {
                Ok(file) => return Ok(Some(BufReader::new(file))),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        match File::open(&self.path) {
            Ok(file) => Ok(Some(BufReader::new(file))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether nothing will be added to the file that is open: its name belongs to another one by now.
    fn file_is_done(&self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(true) };
        let open = file.get_ref().metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(named) => Ok((named.dev(), named.ino()) != (open.dev(), open.ino())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// `0.log.*` beside `0.log`, oldest first: their names end with a time. Compressed ones are passed over.
fn rotated(path: &Path) -> io::Result<VecDeque<PathBuf>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(VecDeque::new());
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(VecDeque::new()),
        Err(e) => return Err(e),
    };
    let older = |found: &str| found.strip_prefix(name).is_some_and(|rest| rest.starts_with('.') && !rest.ends_with(".gz"));
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|found| older(found)).collect();
    names.sort();
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

fn parse(entry: &[u8]) -> Option<LogLine> {
    let entry = entry.strip_suffix(b"\n").unwrap_or(entry);
    let mut fields = entry.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag) = (fields.next()?, fields.next()?, fields.next()?);
    let mut data = fields.next().unwrap_or_default().to_vec();
    let stderr = match stream {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    if tag.first() != Some(&b'P') {
        data.push(b'\n');
    }
    Some(LogLine { time: model::time::from_rfc3339(std::str::from_utf8(time).ok()?)?, stderr, data })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const ALL: LogQuery = LogQuery { stdout: true, stderr: true, since: None, until: None, tail: None };

    fn at(second: u32) -> String {
        format!("2024-01-01T00:00:{second:02}.5Z")
    }

    fn nanos(second: i64) -> Timestamp {
        (1_704_067_200 + second) * 1_000_000_000 + 500_000_000
    }

    fn all(reader: &mut LogReader) -> Vec<String> {
        std::iter::from_fn(|| reader.next_line().unwrap()).map(|line| String::from_utf8(line.data).unwrap()).collect()
    }

    fn log(lines: &[(u32, &str, &str, &str)]) -> String {
        lines.iter().map(|(second, stream, tag, text)| format!("{} {stream} {tag} {text}\n", at(*second))).collect()
    }

    #[test]
    fn lines_are_picked() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("0.log");
        let lines = [
            (1, "stdout", "F", "one"),
            (2, "stderr", "F", "two"),
            (3, "stdout", "P", "thr"),
            (3, "stdout", "F", "ee"),
            (4, "stdout", "F", ""),
        ];
        std::fs::write(&path, format!("garbage\n{}{} stdout F si", log(&lines), at(6))).unwrap();
        let read = |query| all(&mut LogReader::open(path.clone(), query).unwrap());
        assert_eq!(read(ALL), ["one\n", "two\n", "thr", "ee\n", "\n"]);
        assert_eq!(read(LogQuery { stdout: false, ..ALL }), ["two\n"]);
        assert_eq!(read(LogQuery { since: Some(nanos(3)), ..ALL }), ["thr", "ee\n", "\n"]);
        assert_eq!(read(LogQuery { until: Some(nanos(2)), ..ALL }), ["one\n", "two\n"]);
        assert_eq!(read(LogQuery { tail: Some(2), ..ALL }), ["thr", "ee\n", "\n"]);
        assert_eq!(read(LogQuery { tail: Some(0), ..ALL }), Vec::<String>::new());
        assert_eq!(read(LogQuery { tail: Some(99), ..ALL }).len(), 5);
        assert_eq!(all(&mut LogReader::open(home.path().join("absent"), ALL).unwrap()), Vec::<String>::new());
    }

    #[test]
    fn a_log_is_followed_over_its_rotation() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("0.log");
        std::fs::write(home.path().join("0.log.1"), log(&[(1, "stdout", "F", "old")])).unwrap();
        std::fs::write(home.path().join("0.log.0.gz"), "x").unwrap();
        std::fs::write(&path, log(&[(2, "stdout", "F", "new")])).unwrap();
        let mut reader = LogReader::open(path.clone(), ALL).unwrap();
        assert_eq!(all(&mut reader), ["old\n", "new\n"]);
        let add = |path: &Path, text: &str| {
            std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
        };
        let more = log(&[(3, "stdout", "F", "more")]);
        add(&path, &more[..10]);
        assert_eq!(all(&mut reader), Vec::<String>::new());
        add(&path, &more[10..]);
        assert_eq!(all(&mut reader), ["more\n"]);
        std::fs::rename(&path, home.path().join("0.log.2")).unwrap();
        assert_eq!(all(&mut reader), Vec::<String>::new());
        add(&path, &log(&[(4, "stdout", "F", "next")]));
        assert_eq!(all(&mut reader), ["next\n"]);
    }
}
