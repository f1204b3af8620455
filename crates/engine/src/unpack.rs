//! Archives of people may be compressed: `load`, `import`, `cp` and a build's context take what tar's users make.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use model::ErrorKind;

use crate::error::{About, Error};

/// Bytes that tell a compression.
const START: u64 = 6;

/// A file below `dir` that only its descriptor knows: it is gone with it, and nobody finds it.
///
/// # Errors
/// The disk's.
pub fn nameless(dir: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::TMPFILE.bits().cast_signed();
    File::options().read(true).write(true).mode(0o600).custom_flags(flags).open(dir)
}

/// An archive from its beginning, unpacked into a nameless file below `dir` if it is compressed (gzip, zstd, bzip2, xz). `most`:
/// bytes that it may become. Blocks.
///
/// # Errors
/// `InvalidArgument` if it is damaged, `ResourceExhausted` if it becomes more, or much more than a compression can save; the disk's.
pub fn unpacked(mut archive: File, dir: &Path, most: u64) -> Result<File, Error> {
    unpack(&mut archive, dir, most).map(|plain| plain.unwrap_or(archive)).map_err(|error| {
        let kind = match error.get_ref().and_then(|inner| inner.downcast_ref::<layer::Error>()) {
            Some(layer::Error::Limit { .. }) => ErrorKind::ResourceExhausted,
            Some(_) => ErrorKind::InvalidArgument,
            None if error.kind() == io::ErrorKind::StorageFull => ErrorKind::ResourceExhausted,
            None => ErrorKind::Internal,
        };
        Error::new(kind, About::Words, format!("receive the archive: {}", crate::chain(&error)))
    })
}

fn unpack(archive: &mut File, dir: &Path, most: u64) -> io::Result<Option<File>> {
    archive.rewind()?;
    let mut start = Vec::new();
    archive.by_ref().take(START).read_to_end(&mut start)?;
    archive.rewind()?;
    let compression = layer::Compression::detect(&start);
    if compression == layer::Compression::None {
        return Ok(None);
    }
    let limits = layer::Limits { unpacked: most, ..layer::Limits::default() };
    let mut reader = layer::decompress(archive, compression, &limits).map_err(io::Error::other)?;
    let mut plain = nameless(dir)?;
    io::copy(&mut reader, &mut plain)?;
    plain.rewind()?;
    Ok(Some(plain))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn through(bytes: &[u8], most: u64) -> Result<Vec<u8>, Error> {
        let dir = tempfile::tempdir().unwrap();
        let mut file = nameless(dir.path()).unwrap();
        file.write_all(bytes).unwrap();
        let mut read = Vec::new();
        unpacked(file, dir.path(), most)?.read_to_end(&mut read).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing has a name");
        Ok(read)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// `printf creel | bzip2`, `printf creel | xz`.
    const BZIP2: &[u8] = b"BZh91AY&SYHx\x80\x00\x02\x01";

    #[test]
    fn plain_and_compressed_arrive_alike() {
        let tar: Vec<u8> = (0..20_000u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(through(&tar, 1).unwrap(), tar, "what is there is there");
        assert_eq!(through(&gzip(&tar), 1 << 20).unwrap(), tar);
        assert_eq!(through(b"", 1).unwrap(), b"");
        assert_eq!(through(b"x", 1).unwrap(), b"x");
    }

    #[test]
    fn what_is_damaged_or_too_long_is_an_error() {
        let whole = gzip(&[7; 100_000]);
        let cut = through(&whole[..whole.len() - 9], 1 << 20).unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::InvalidArgument);
        assert!(cut.chain().starts_with("receive the archive: decompress as gzip: "), "{}", cut.chain());
        assert_eq!(through(&whole, 99_999).unwrap_err().kind(), ErrorKind::ResourceExhausted);
        assert_eq!(through(BZIP2, 1 << 20).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(through(b"\xfd7zXZ\0\0\x04", 1 << 20).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
