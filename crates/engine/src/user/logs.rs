//! What a container has written: log files in CRI's format (`TIME stdout|stderr F|P TEXT`), the rotated ones first.

use std::{
    fs::{File, Metadata},
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
    file: Option<Reading>,
    /// An entry whose end is not written yet.
    half: Vec<u8>,
    /// Lines before the tail.
    skip: u64,
    ended: bool,
}

/// A file of the log.
#[derive(Debug)]
struct Reading {
    file: BufReader<File>,
    /// Nothing will be added to it: its name belongs to another one.
    complete: bool,
}

impl LogReader {
    /// Reads the log with this path; it need not be there yet.
    ///
    /// # Errors
    /// What reading it says.
    pub fn open(path: PathBuf, query: LogQuery) -> io::Result<Self> {
        let new = || Self { path: path.clone(), query, file: None, half: Vec::new(), skip: 0, ended: false };
        let Some(lines) = query.tail else { return Ok(new()) };
        // Twice, because a tail may be more than memory. Parts of one line count as one.
        let (mut counted, mut whole) = (new(), 0_u64);
        while let Some(line) = counted.read()? {
            whole += u64::from(line.data.ends_with(b"\n"));
        }
        Ok(if lines == 0 { counted } else { Self { skip: whole.saturating_sub(lines), ..new() } })
    }

    /// The next line that is wanted. `None`: there is nothing more now.
    ///
    /// # Errors
    /// What reading it says.
    pub fn next_line(&mut self) -> io::Result<Option<LogLine>> {
        while self.skip > 0 {
            match self.read()? {
                Some(line) => self.skip -= u64::from(line.data.ends_with(b"\n")),
                // Some of it has gone since it was counted.
                None => self.skip = 0,
            }
        }
        self.read()
    }

    /// Nothing more will ever be wanted: what comes now is later than that.
    pub fn is_over(&self) -> bool {
        self.ended
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
                self.file = self.file_after(None)?;
            }
            let Some(reading) = &mut self.file else { return Ok(None) };
            let room = LONGEST.saturating_sub(self.half.len() as u64);
            io::Read::take(&mut reading.file, room).read_until(b'\n', &mut self.half)?;
            if self.half.ends_with(b"\n") || self.half.len() as u64 >= LONGEST {
                return Ok(Some(std::mem::take(&mut self.half)));
            }
            if !reading.complete {
                reading.complete = named_otherwise(&reading.file, &self.path)?;
                if !reading.complete {
                    return Ok(None);
                }
                // Once more: something may have come before it was put aside.
                continue;
            }
            let here = identity(&reading.file.get_ref().metadata()?);
            let Some(next) = self.file_after(Some(here))? else { return Ok(None) };
            self.file = Some(next);
            self.half.clear();
        }
    }

    /// The file that comes after this one; the oldest where it is not among them any more, or there was none.
    fn file_after(&self, this: Option<Identity>) -> io::Result<Option<Reading>> {
        loop {
            let older = rotated(&self.path)?;
            let mut files = older.iter().chain([&self.path]);
            let at = |path: &&PathBuf| std::fs::metadata(path).is_ok_and(|found| Some(identity(&found)) == this);
            let position = files.clone().position(|path| at(&path));
            let Some(next) = files.nth(position.map_or(0, |position| position + 1)) else { return Ok(None) };
            let file = match File::open(next) {
                Ok(file) => file,
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Err(_) if *next == self.path => return Ok(None),
                // Gone meanwhile: the one after it is the next one now.
                Err(_) => continue,
            };
            // Files move up only at their end, so this is the one that was looked for unless the list is another one by now.
            if rotated(&self.path)? == older {
                return Ok(Some(Reading { file: BufReader::new(file), complete: false }));
            }
        }
    }
}

/// Device and number: what a file is whatever its name.
type Identity = (u64, u64);

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// Whether the name belongs to another file by now.
fn named_otherwise(file: &BufReader<File>, path: &Path) -> io::Result<bool> {
    let open = file.get_ref().metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok(identity(&named) != identity(&open)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// `0.log.*` beside `0.log`, oldest first: their names end with a time or a number. Compressed ones are passed over.
fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
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
        // Twice between two looks, and something that came before the first one.
        for (number, name) in [(5, "0.log.3"), (6, "0.log.4")] {
            add(&path, &log(&[(number, "stdout", "F", &number.to_string())]));
            std::fs::rename(&path, home.path().join(name)).unwrap();
        }
        add(&path, &log(&[(7, "stdout", "F", "7")]));
        assert_eq!(all(&mut reader), ["5\n", "6\n", "7\n"]);
        let tail = |lines| all(&mut LogReader::open(path.clone(), LogQuery { tail: Some(lines), ..ALL }).unwrap());
        assert_eq!((tail(2), tail(99).len()), (vec!["6\n".to_owned(), "7\n".to_owned()], 7));
        // What is read may go while it is read.
        let mut slow = LogReader::open(path.clone(), ALL).unwrap();
        assert_eq!(slow.next_line().unwrap().unwrap().data, b"old\n");
        for name in ["0.log.1", "0.log.2", "0.log.3"] {
            std::fs::remove_file(home.path().join(name)).unwrap();
        }
        assert_eq!(all(&mut slow), ["6\n", "7\n"]);
    }
}
