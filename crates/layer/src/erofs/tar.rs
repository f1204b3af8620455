//! The archive inside an image: our header, and reading the archive back.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
};

use model::{DiffId, Digest};

use super::format::TAR_OFFSET;
use crate::Error;

const MAGIC: &[u8; 16] = b"creel layer v1\0\0";
const HEADER_SIZE: usize = 56;

/// What we note about the archive in the part of the file that EROFS leaves alone.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) tar_size: u64,
    pub(super) diff_id: DiffId,
}

impl Header {
    pub(super) fn encode(&self, page: &mut [u8]) {
        page[..16].copy_from_slice(MAGIC);
        page[16..24].copy_from_slice(&self.tar_size.to_le_bytes());
        page[24..HEADER_SIZE].copy_from_slice(&self.diff_id.digest().as_bytes()[..32]);
    }

    fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<Self, Error> {
        let (magic, rest) = bytes.split_first_chunk::<16>().ok_or(Error::NotAnImage("too short"))?;
        if magic != MAGIC {
            return Err(Error::NotAnImage("wrong magic"));
        }
        let (size, rest) = rest.split_first_chunk::<8>().ok_or(Error::NotAnImage("too short"))?;
        let digest = rest.first_chunk::<32>().ok_or(Error::NotAnImage("too short"))?;
        Ok(Self { tar_size: u64::from_le_bytes(*size), diff_id: DiffId::new(Digest::Sha256(*digest)) })
    }
}

/// Prepares an empty file: the archive is written from the current position on.
pub(crate) fn start(mut file: &File) -> Result<(), Error> {
    file.set_len(0).map_err(|e| Error::image("truncate", e))?;
    file.seek(SeekFrom::Start(TAR_OFFSET)).map_err(|e| Error::image("seek", e))?;
    Ok(())
}

/// The archive that an image was made from, byte for byte. Whoever needs certainty hashes it again.
#[derive(Debug)]
pub struct TarReader {
    file: File,
    at: u64,
    end: u64,
    diff_id: DiffId,
}

/// Opens the archive inside an image that [`crate::apply()`] wrote.
///
/// # Errors
/// [`Error::NotAnImage`] for other files, [`Error::Image`] when the file cannot be read.
pub fn tar_reader(file: File) -> Result<TarReader, Error> {
    let mut bytes = [0; HEADER_SIZE];
    match file.read_exact_at(&mut bytes, 0) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(Error::NotAnImage("too short")),
        other => other.map_err(|e| Error::image("read", e))?,
    }
    let header = Header::decode(&bytes)?;
    let length = file.metadata().map_err(|e| Error::image("stat", e))?.len();
    let end = TAR_OFFSET.checked_add(header.tar_size).filter(|end| *end <= length);
    let end = end.ok_or(Error::NotAnImage("the archive is longer than the file"))?;
    Ok(TarReader { file, at: TAR_OFFSET, end, diff_id: header.diff_id })
}

impl TarReader {
    /// The digest that the archive had when it was applied.
    pub fn diff_id(&self) -> DiffId {
        self.diff_id
    }

    /// Bytes that are left to read.
    pub fn remaining(&self) -> u64 {
        self.end - self.at
    }
}

impl Read for TarReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = usize::try_from(self.remaining()).map_or(buf.len(), |left| left.min(buf.len()));
        let read = self.file.read_at(&mut buf[..n], self.at)?;
        if read == 0 && n > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the image file was cut off"));
        }
        self.at += read as u64;
        Ok(read)
    }
}
