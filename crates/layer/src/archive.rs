//! Archives of our own making (`save`, checkpoints): plain files and directories, nothing of the machine in them, so that equal
//! contents are equal bytes.

use std::io::{self, Read, Write};

use crate::{
    tar::{BLOCK, Flag, Head, Time},
    xattr::Xattrs,
};

/// Writes an archive of files that belong to root and are from 1970.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    writer: W,
}

impl<W: Write> ArchiveWriter<W> {
    /// An archive without entries yet.
    pub fn new(writer: W) -> Self {
        Self { writer }
    }

    /// A directory of mode 0755.
    ///
    /// # Errors
    /// What the writer says.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        self.head(&format!("{}/", path.trim_end_matches('/')), Flag::Directory, 0o755, 0)
    }

    /// A file of mode 0644 with exactly `size` bytes of `content`.
    ///
    /// # Errors
    /// What the reader or the writer says; `UnexpectedEof` if the content is shorter.
    pub fn file(&mut self, path: &str, size: u64, content: impl Read) -> io::Result<()> {
        self.head(path, Flag::File, 0o644, size)?;
        if io::copy(&mut content.take(size), &mut self.writer)? != size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{path} is shorter than {size} bytes")));
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        io::copy(&mut io::repeat(0).take(padding), &mut self.writer).map(drop)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// What the writer says.
    pub fn finish(mut self) -> io::Result<W> {
        self.writer.write_all(&[0; 2 * BLOCK])?;
        self.writer.flush()?;
        Ok(self.writer)
    }

    fn head(&mut self, path: &str, flag: Flag, mode: u32, size: u64) -> io::Result<()> {
        let (path, xattrs) = (path.as_bytes(), &Xattrs::new());
        let (mtime, device) = (Time::default(), (0, 0));
        self.writer.write_all(&Head { path, link: b"", flag, mode, uid: 0, gid: 0, size, mtime, device, xattrs }.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_listed_by_our_reader() {
        let mut archive = ArchiveWriter::new(Vec::new());
        archive.directory("blobs").unwrap();
        archive.file("blobs/a", 3, &b"abcdef"[..]).unwrap();
        let long = format!("blobs/{}", "x".repeat(200));
        archive.file(&long, 512, io::repeat(7)).unwrap();
        let bytes = archive.finish().unwrap();
        let entries = crate::archive_entries(io::Cursor::new(&bytes)).unwrap();
        let found: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.size)).collect();
        assert_eq!(found, [("blobs/a", 3), (long.as_str(), 512)]);
        assert_eq!(&bytes[usize::try_from(entries[0].offset).unwrap()..][..3], b"abc");
    }

    #[test]
    fn content_that_is_too_short_is_an_error() {
        let mut archive = ArchiveWriter::new(Vec::new());
        assert_eq!(archive.file("a", 4, &b"abc"[..]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
