//! Output cut into the lines of a CRI log: `TIME STREAM TAG TEXT`, tag `F` for a line that ends with this text, `P` for
//! one that goes on. Like containerd, a line is held back until it ends or more than 16 KiB of it are there.

use std::io::BufRead;

use crate::time;

/// Text in one log line at most.
pub(crate) const CHUNK: usize = 16 << 10;

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Stdout => b" stdout ",
            Self::Stderr => b" stderr ",
        }
    }
}

/// Where finished log lines go.
pub(crate) trait Sink {
    /// Takes bytes of a line. A line may come in several pieces; the last ends with a newline.
    fn put(&mut self, bytes: &[u8]);
}

/// The state of one stream: the beginning of a line whose end has not come yet.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: Stream,
    // No capacity while no line is open: most containers are silent most of the time.
    open: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, open: Vec::new() }
    }

    /// Takes output as it was read.
    pub(crate) fn feed(&mut self, mut output: &[u8], sink: &mut impl Sink) {
        while !output.is_empty() {
            let mut rest = output;
            // Reading from a slice does not fail; it is the standard library's door to memchr(3).
            let taken = rest.skip_until(b'\n').unwrap_or(output.len());
            let (line, ends) = match output[..taken].split_last() {
                Some((b'\n', line)) => (line, true),
                _ => (&output[..taken], false),
            };
            self.piece(line, ends, sink);
            output = rest;
        }
    }

    /// The stream has ended: what is left of a line is a partial one, because no newline came.
    pub(crate) fn finish(&mut self, sink: &mut impl Sink) {
        if !self.open.is_empty() {
            self.emit(b"P ", &[], sink);
        }
    }

    fn piece(&mut self, mut text: &[u8], ends: bool, sink: &mut impl Sink) {
        while self.open.len() + text.len() > CHUNK {
            let (head, tail) = text.split_at(CHUNK - self.open.len());
            self.emit(b"P ", head, sink);
            text = tail;
        }
        if ends {
            self.emit(b"F ", text, sink);
        } else {
            self.open.extend_from_slice(text);
        }
    }

    fn emit(&mut self, tag: &[u8], text: &[u8], sink: &mut impl Sink) {
        sink.put(model::time::rfc3339(time::now()).as_bytes());
        sink.put(self.stream.name());
        sink.put(tag);
        sink.put(&self.open);
        sink.put(text);
        sink.put(b"\n");
        self.open = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Sink for Vec<u8> {
        fn put(&mut self, bytes: &[u8]) {
            self.extend_from_slice(bytes);
        }
    }

    /// Tag and text of each line.
    fn cut(pieces: &[&[u8]]) -> Vec<(char, Vec<u8>)> {
        let (mut lines, mut log) = (Lines::new(Stream::Stderr), Vec::new());
        pieces.iter().for_each(|piece| lines.feed(piece, &mut log));
        lines.finish(&mut log);
        let mut out = Vec::new();
        for line in log.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").expect("every line ends");
            let (head, text) = line.split_at(model::time::LENGTH + b" stderr F ".len());
            assert_eq!(&head[model::time::LENGTH..model::time::LENGTH + 8], b" stderr ");
            out.push((char::from(head[head.len() - 2]), text.to_vec()));
        }
        out
    }

    #[test]
    fn lines_and_what_is_left() {
        assert_eq!(
            cut(&[b"one\ntwo\r\n\n\xff\0x"]),
            [('F', b"one".to_vec()), ('F', b"two\r".to_vec()), ('F', b"".to_vec()), ('P', b"\xff\0x".to_vec())]
        );
        assert_eq!(cut(&[b"o", b"n", b"e\nt", b"wo\n"]), [('F', b"one".to_vec()), ('F', b"two".to_vec())]);
        assert_eq!(cut(&[b"", b"x", b""]), [('P', b"x".to_vec())]);
        assert!(cut(&[]).is_empty());
    }

    #[test]
    fn long_lines_are_partial_until_they_end() {
        let long = |n: usize| vec![b'x'; n];
        // Exactly a chunk is still one line.
        assert_eq!(cut(&[&[long(CHUNK), b"\n".to_vec()].concat()]), [('F', long(CHUNK))]);
        assert_eq!(cut(&[&[long(CHUNK + 1), b"\n".to_vec()].concat()]), [('P', long(CHUNK)), ('F', long(1))]);
        let tags: String = cut(&[&long(1 << 20), b"\n"]).iter().map(|(tag, _)| *tag).collect();
        assert_eq!(tags, "P".repeat(63) + "F");
        assert_eq!(cut(&[&long(CHUNK), b"y", b"\n"]), [('P', long(CHUNK)), ('F', b"y".to_vec())]);
    }

    #[test]
    fn however_it_is_cut_the_text_is_the_same() {
        let text: Vec<u8> = (0..200_000_u32).map(|i| if i % 9973 == 0 { b'\n' } else { (i % 251) as u8 | 1 }).collect();
        let whole = cut(&[&text]);
        for size in [1, 7, 4096, 65_536] {
            assert!(cut(&text.chunks(size).collect::<Vec<_>>()) == whole, "{size}");
        }
    }
}
