//! An archive on its way into a file without a name: `docker save` writes plain tar, people compress it with gzip or zstd.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use flate2::write::MultiGzDecoder;

/// Most bytes of an archive, unpacked: an image's limit, with room for several layers' worth of tar headers.
const LIMIT: u64 = 128 << 30;

/// The first bytes of gzip (RFC 1952, 2.3.1) and zstd (RFC 8878, 3.1.1), and of what is not read here.
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const OTHERS: [(&[u8], &str); 2] = [(b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")];
/// The longest of them.
const START: usize = 6;
/// What a zstd frame may ask for to be remembered: 128 MiB, as `zstd -d` allows.
const WINDOW_LOG: u32 = 27;

/// An archive that is being received. The file is gone with it.
pub(crate) struct Archive {
    form: Form,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").finish_non_exhaustive()
    }
}

enum Form {
    /// Too little has come to tell.
    Unknown(Limited, Vec<u8>),
    Plain(Limited),
    Gzip(Box<MultiGzDecoder<Limited>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Limited>>),
}

/// A file that does not grow beyond a limit, whatever is unpacked into it.
#[derive(Debug)]
struct Limited {
    file: File,
    left: u64,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        self.left =
            self.left.checked_sub(length).ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "longer than 128 GiB"))?;
        self.file.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Archive {
    /// An empty one, below this directory.
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        Ok(Self { form: Form::Unknown(Limited { file: nameless_file(dir)?, left: LIMIT }, Vec::new()) })
    }

    /// Takes the next piece. Blocks.
    pub(crate) fn write(mut self, piece: &[u8]) -> io::Result<Self> {
        if let Form::Unknown(file, mut first) = self.form {
            first.extend_from_slice(piece);
            self.form = if first.len() < START { Form::Unknown(file, first) } else { begun(file, &first)? };
            return Ok(self);
        }
        match &mut self.form {
            Form::Plain(file) => file.write_all(piece)?,
            Form::Gzip(decoder) => decoder.write_all(piece)?,
            Form::Zstd(decoder) => decoder.write_all(piece)?,
            Form::Unknown(..) => {}
        }
        Ok(self)
    }

    /// The whole archive, unpacked, from its beginning.
    pub(crate) fn finish(self) -> io::Result<File> {
        let form = match self.form {
            Form::Unknown(file, first) => begun(file, &first)?,
            other => other,
        };
        let mut file = match form {
            Form::Plain(file) | Form::Unknown(file, _) => file,
            Form::Gzip(decoder) => decoder.finish()?,
            Form::Zstd(mut decoder) => {
                decoder.flush()?;
                // A frame that was cut off leaves an archive that is cut off: who reads it says so.
                decoder.into_inner()
            }
        };
        file.file.rewind()?;
        Ok(file.file)
    }
}

/// By its first bytes.
fn begun(mut file: Limited, first: &[u8]) -> io::Result<Form> {
    if let Some((_, name)) = OTHERS.iter().find(|(magic, _)| first.starts_with(magic)) {
        let why = format!("the archive is compressed with {name}; uncompress it first: plain tar, gzip and zstd are read");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    if first.starts_with(GZIP) {
        let mut decoder = Box::new(MultiGzDecoder::new(file));
        decoder.write_all(first)?;
        return Ok(Form::Gzip(decoder));
    }
    if first.starts_with(ZSTD) {
        let mut decoder = zstd::stream::write::Decoder::new(file)?;
        decoder.window_log_max(WINDOW_LOG)?;
        decoder.write_all(first)?;
        return Ok(Form::Zstd(Box::new(decoder)));
    }
    file.write_all(first)?;
    Ok(Form::Plain(file))
}

static NEXT: AtomicU64 = AtomicU64::new(0);

fn nameless_file(dir: &Path) -> io::Result<File> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("load-{}-{number}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn through(bytes: &[u8], piece: usize) -> io::Result<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = Archive::new(dir.path())?;
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it has no name");
        for piece in bytes.chunks(piece) {
            archive = archive.write(piece)?;
        }
        let mut read = Vec::new();
        archive.finish()?.read_to_end(&mut read)?;
        Ok(read)
    }

    #[test]
    fn plain_and_gzip_arrive_alike_in_pieces_of_any_size() {
        let tar: Vec<u8> = (0..20_000u32).flat_map(u32::to_le_bytes).collect();
        for piece in [1, 3, 4096, 1 << 20] {
            assert_eq!(through(&tar, piece).unwrap(), tar);
            assert_eq!(through(&gzip(&tar), piece).unwrap(), tar);
        }
        let zstd = zstd::encode_all(&tar[..], 3).unwrap();
        for piece in [1, 4096] {
            assert_eq!(through(&zstd, piece).unwrap(), tar);
        }
        assert_eq!(through(b"", 1).unwrap(), b"");
        assert_eq!(through(b"x", 1).unwrap(), b"x");
    }

    #[test]
    fn what_is_compressed_otherwise_is_refused_by_name() {
        for (start, name) in [(&b"\xfd7zXZ\0more"[..], "xz"), (b"BZh91AY", "bzip2")] {
            let error = through(start, 3).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_an_error() {
        let whole = gzip(&[7; 100_000]);
        assert!(through(&whole[..whole.len() - 9], 100).is_err());
        let dir = tempfile::tempdir().unwrap();
        let mut limited = Limited { file: nameless_file(dir.path()).unwrap(), left: 10 };
        assert!(limited.write_all(&[0; 10]).is_ok());
        assert_eq!(limited.write_all(&[0]).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
