//! From text to logical lines: parser directives, comments, continuations, heredocs.

use crate::{Error, Problem};

/// Bytes of a Dockerfile; more is no Dockerfile.
const LARGEST: usize = 8 << 20;
/// Instructions of a Dockerfile.
const MOST: usize = 10_000;

/// What the first comments of a Dockerfile say to its parser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the frontend that is wanted.
    pub syntax: Option<String>,
    /// `# escape=`: the character that continues lines and takes meanings away; `\` if `None`.
    pub escape: Option<char>,
    /// `# check=`: what a linter is to leave out.
    pub check: Option<String>,
}

/// A document in a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it.
    pub name: String,
    /// Its lines, each with its newline. With `<<-` leading tabs are gone.
    pub content: String,
    /// Whether variables in it are expanded: its word was not quoted.
    pub expand: bool,
}

/// A logical line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its first physical line, from 1.
    pub(crate) first: usize,
    /// Its last one, heredocs included.
    pub(crate) last: usize,
    /// Without continuations, comments and heredocs' contents.
    pub(crate) text: String,
    pub(crate) heredocs: Vec<Heredoc>,
}

/// A text in parts.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) directives: Directives,
    pub(crate) lines: Vec<Line>,
    /// Physical lines of continued instructions that are empty, which is deprecated.
    pub(crate) empty_continuations: Vec<usize>,
}

/// Takes a text apart.
pub(crate) fn split(bytes: &[u8]) -> Result<Lines, Error> {
    let at = |line, problem| Error { line, problem };
    if bytes.len() > LARGEST {
        return Err(at(1, Problem::TooLarge(LARGEST)));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let before = &bytes[..e.valid_up_to()];
        at(1 + before.iter().filter(|byte| **byte == b'\n').count(), Problem::Encoding)
    })?;
    let physical: Vec<&str> = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    let directives = directives(&physical)?;
    let mut splitter = Splitter { escape: directives.escape.unwrap_or('\\'), physical: &physical, next: 0, empty: Vec::new() };
    let mut lines = Vec::new();
    while let Some(line) = splitter.line()? {
        if lines.len() >= MOST {
            return Err(at(line.first, Problem::TooMany(MOST)));
        }
        lines.push(line);
    }
    Ok(Lines { directives, lines, empty_continuations: splitter.empty })
}

/// Directives stand before everything else; the first line that is none ends them.
fn directives(physical: &[&str]) -> Result<Directives, Error> {
    let mut found = Directives::default();
    for (number, line) in physical.iter().enumerate() {
        let at = |problem| Error { line: number + 1, problem };
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('=')) else { break };
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "syntax" => once(&mut found.syntax, value.to_owned(), "syntax").map_err(at)?,
            "check" => once(&mut found.check, value.to_owned(), "check").map_err(at)?,
            "escape" => {
                let escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    _ => return Err(at(Problem::Directive { directive: "escape", value: value.chars().take(20).collect() })),
                };
                once(&mut found.escape, escape, "escape").map_err(at)?;
            }
            _ => break,
        }
    }
    Ok(found)
}

fn once<T>(place: &mut Option<T>, value: T, name: &'static str) -> Result<(), Problem> {
    if place.replace(value).is_some() { Err(Problem::DirectiveTwice(name)) } else { Ok(()) }
}

struct Splitter<'t> {
    escape: char,
    physical: &'t [&'t str],
    next: usize,
    empty: Vec<usize>,
}

impl Splitter<'_> {
    fn take(&mut self) -> Option<&str> {
        let line = self.physical.get(self.next)?;
        self.next += 1;
        Some(line)
    }

    /// The next logical line.
    fn line(&mut self) -> Result<Option<Line>, Error> {
        let first = loop {
            let Some(line) = self.take() else { return Ok(None) };
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                break self.next;
            }
        };
        self.next = first - 1;
        let text = self.joined();
        let mut heredocs = Vec::new();
        for marker in markers(&text) {
            heredocs.push(self.heredoc(first, marker)?);
        }
        Ok(Some(Line { first, last: self.next, text, heredocs }))
    }

    /// One physical line and those that continue it. Comment lines between are no part of it.
    fn joined(&mut self) -> String {
        let escape = self.escape;
        let mut text = String::new();
        while let Some(line) = self.physical.get(self.next) {
            self.next += 1;
            let trimmed = line.trim();
            if !text.is_empty() && (trimmed.starts_with('#') || trimmed.is_empty()) {
                if trimmed.is_empty() {
                    self.empty.push(self.next);
                }
                continue;
            }
            let line = if text.is_empty() { line.trim_start() } else { line };
            match continued(line, escape) {
                Some(part) => text.push_str(part),
                None => {
                    text.push_str(line);
                    return text.trim_end().to_owned();
                }
            }
        }
        text.trim_end().to_owned()
    }

    fn heredoc(&mut self, first: usize, marker: Marker) -> Result<Heredoc, Error> {
        let mut content = String::new();
        while let Some(line) = self.take() {
            let line = if marker.strip { line.trim_start_matches('\t') } else { line };
            if line == marker.name {
                return Ok(Heredoc { name: marker.name, content, expand: marker.expand });
            }
            content.push_str(line);
            content.push('\n');
        }
        Err(Error { line: first, problem: Problem::Heredoc(marker.name) })
    }
}

/// The line without its continuation, if it is continued: the escape is its last character but for blanks.
fn continued(line: &str, escape: char) -> Option<&str> {
    line.trim_end_matches([' ', '\t']).strip_suffix(escape)
}

/// `<<EOF`, `<<-EOF`, `<<"EOF"`.
struct Marker {
    name: String,
    strip: bool,
    expand: bool,
}

/// The heredocs that a line begins: only those of the instructions that can have them.
fn markers(text: &str) -> Vec<Marker> {
    let mut words = text.split_whitespace();
    let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
    let keyword = if keyword == "ONBUILD" { words.next().unwrap_or_default().to_ascii_uppercase() } else { keyword };
    if !matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
        return Vec::new();
    }
    // A heredoc inside of quotes is text for the shell.
    crate::words::bare(text).filter_map(marker).collect()
}

/// A word that begins a heredoc, with an optional file descriptor before it.
fn marker(word: &str) -> Option<Marker> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (strip, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let quoted = |quote| rest.strip_prefix(quote).and_then(|inner: &str| inner.strip_suffix(quote));
    let (name, expand) = match quoted('"').or_else(|| quoted('\'')) {
        Some(inner) => (inner, false),
        None => (rest, true),
    };
    let legal = |c: char| !matches!(c, '<' | '>' | '&' | '|' | ';' | '(' | ')' | '"' | '\'' | '`' | '$') && !c.is_whitespace();
    (!name.is_empty() && name.chars().all(legal)).then(|| Marker { name: name.to_owned(), strip, expand })
}

/// The name of the heredoc that a word begins.
pub(crate) fn heredoc_name(word: &str) -> Option<String> {
    marker(word).map(|marker| marker.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(usize, usize, String)> {
        split(text.as_bytes()).unwrap().lines.into_iter().map(|l| (l.first, l.last, l.text)).collect()
    }

    #[test]
    fn lines_are_joined_and_comments_go() {
        let text = "\u{feff}# hello\r\n\r\nFROM a \\\r\n  # inside\r\n  AS b\r\n  run x  \\  \n\n  y\nCMD z \\";
        let found = texts(text);
        assert_eq!(found[0], (3, 5, "FROM a   AS b".to_owned()));
        assert_eq!(found[1], (6, 8, "run x    y".to_owned()));
        assert_eq!(found[2], (9, 9, "CMD z".to_owned()));
        assert_eq!(split(text.as_bytes()).unwrap().empty_continuations, [7]);
    }

    #[test]
    fn directives_stand_first() {
        let found = split(b"# syntax = docker/dockerfile:1\n#escape=`\n# check=skip=all\nFROM a `\n b").unwrap();
        assert_eq!(found.directives.syntax.as_deref(), Some("docker/dockerfile:1"));
        assert_eq!((found.directives.escape, found.directives.check.as_deref()), (Some('`'), Some("skip=all")));
        assert_eq!(found.lines[0].text, "FROM a  b");
        assert_eq!(split(b"# a comment\n# escape=`\nFROM a").unwrap().directives, Directives::default());
        assert_eq!(split(b"#escape=x\n").unwrap_err().to_string(), "line 1: invalid escape directive \"x\"");
        assert!(split(b"#escape=`\n#escape=`\n").is_err());
    }

    #[test]
    fn heredocs() {
        let found =
            split(b"COPY <<-\"A B\" x\nRUN <<EOF cat <<'E2' 3<<-E3 \"<<no\"\n$a\nEOF\n$b\nE2\n\t\tc\n\tE3\nFROM <<x").unwrap();
        // A quoted name with a blank is no word.
        assert_eq!(found.lines[0].heredocs, []);
        let run = &found.lines[1];
        assert_eq!((run.first, run.last, run.heredocs.len()), (2, 8, 3));
        let shown: Vec<_> = run.heredocs.iter().map(|h| (h.name.as_str(), h.content.as_str(), h.expand)).collect();
        assert_eq!(shown, [("EOF", "$a\n", true), ("E2", "$b\n", false), ("E3", "c\n", true)]);
        assert!(found.lines[2].heredocs.is_empty());
        assert_eq!(split(b"\nRUN <<EOF\nx").unwrap_err().to_string(), "line 2: unterminated heredoc \"EOF\"");
    }

    #[test]
    fn what_is_no_text_is_refused() {
        assert_eq!(split(b"FROM a\nRUN \xff").unwrap_err(), Error { line: 2, problem: Problem::Encoding });
        assert!(split(&vec![b'\n'; LARGEST + 1]).is_err());
        assert!(split("RUN a\n".repeat(MOST + 1).as_bytes()).is_err());
    }
}
