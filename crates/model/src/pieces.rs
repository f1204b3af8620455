//! Bytes on their way in messages: what is written is cut into pieces of one size.

use std::io::{self, Write};

/// A writer whose bytes leave as messages, for archives that travel between threads and programs. A flush sends what is there.
///
/// `send` says whether anybody listens still; if not, writing fails with [`io::ErrorKind::BrokenPipe`].
#[derive(Debug)]
pub struct Pieces<S> {
    send: S,
    size: usize,
    piece: Vec<u8>,
}

impl<S: FnMut(Vec<u8>) -> bool> Pieces<S> {
    /// Pieces of `size` bytes, all but those that a flush cuts short.
    pub fn new(size: usize, send: S) -> Self {
        Self { send, size, piece: Vec::with_capacity(size) }
    }
}

impl<S: FnMut(Vec<u8>) -> bool> Write for Pieces<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.size - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == self.size {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(self.size));
        if (self.send)(piece) { Ok(()) } else { Err(io::Error::new(io::ErrorKind::BrokenPipe, "nobody listens any more")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_of_one_size_but_the_last() {
        let mut sent = Vec::new();
        let mut pieces = Pieces::new(4, |piece| {
            sent.push(piece);
            true
        });
        pieces.write_all(b"0123456789").unwrap();
        pieces.flush().unwrap();
        pieces.flush().unwrap();
        drop(pieces);
        assert_eq!(sent, [&b"0123"[..], b"4567", b"89"]);
    }

    #[test]
    fn nobody_listens() {
        let mut pieces = Pieces::new(4, |_| false);
        assert_eq!(pieces.write(b"01").unwrap(), 2);
        assert_eq!(pieces.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
