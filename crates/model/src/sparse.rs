//! Zeros that are not written: what was a hole of a file is one again.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};

/// What is looked at in one piece: file systems have holes of any multiple of their blocks.
const PIECE: usize = 64 << 10;

/// Copies everything to an empty file, pieces that are nothing but zeros as holes. Answers the bytes.
///
/// # Errors
/// The reader's and the writer's.
pub fn copy_with_holes(from: &mut impl Read, to: &mut (impl Write + Seek)) -> io::Result<u64> {
    let zeros = [0; PIECE];
    let mut piece = vec![0; PIECE];
    let (mut copied, mut hole) = (0, 0);
    loop {
        let got = fill(from, &mut piece)?;
        copied += got as u64;
        if piece[..got] == zeros[..got] && got > 0 {
            hole += got as i64;
            continue;
        }
        // The end of a file has to be written to be there.
        let end = got == 0 && hole > 0;
        if hole > 0 {
            to.seek(SeekFrom::Current(hole - i64::from(end)))?;
            hole = 0;
        }
        to.write_all(if end { &zeros[..1] } else { &piece[..got] })?;
        if got == 0 {
            return Ok(copied);
        }
    }
}

/// As much as there is, up to the piece's length.
fn fill(from: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < piece.len() {
        match from.read(&mut piece[got..]) {
            Ok(0) => break,
            Ok(read) => got += read,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn what_comes_out_is_what_went_in() {
        for (length, marks) in [
            (0, vec![]),
            (1, vec![]),
            (PIECE, vec![]),
            (PIECE * 3 + 5, vec![]),
            (PIECE * 3, vec![PIECE * 3 - 1]),
            (PIECE * 4 + 7, vec![0, PIECE * 2 + 9]),
        ] {
            let mut bytes = vec![0; length];
            marks.iter().for_each(|at: &usize| bytes[*at] = 1);
            let mut to = Cursor::new(Vec::new());
            assert_eq!(copy_with_holes(&mut &bytes[..], &mut to).unwrap(), length as u64);
            assert!(to.into_inner() == bytes, "{length} {marks:?}");
        }
    }

    #[test]
    fn zeros_are_not_written() {
        struct Counted(Cursor<Vec<u8>>, usize);
        impl Write for Counted {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 += bytes.len();
                self.0.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        impl Seek for Counted {
            fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
                self.0.seek(to)
            }
        }
        let mut to = Counted(Cursor::new(Vec::new()), 0);
        let mut from = io::repeat(0).take(100 << 20);
        assert_eq!(copy_with_holes(&mut from, &mut to).unwrap(), 100 << 20);
        assert_eq!((to.1, to.0.get_ref().len()), (1, 100 << 20));
    }
}
