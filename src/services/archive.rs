//! An archive of images on its way into a file without a name: `docker save` writes plain tar, people gzip it.

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

/// The first bytes of gzip (RFC 1952, 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// An archive that is being received. The file is gone with it.
#[derive(Debug)]
pub(crate) struct Archive {
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// Too little has come to tell.
    Unknown(Limited, Vec<u8>),
    Plain(Limited),
    Gzip(Box<MultiGzDecoder<Limited>>),
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
            self.form = match first.get(..GZIP.len()) {
                None => Form::Unknown(file, first),
                Some(magic) if *magic == GZIP => {
                    let mut decoder = Box::new(MultiGzDecoder::new(file));
                    decoder.write_all(&first)?;
                    Form::Gzip(decoder)
                }
                Some(_) => {
                    let mut file = file;
                    file.write_all(&first)?;
                    Form::Plain(file)
                }
            };
            return Ok(self);
        }
        match &mut self.form {
            Form::Plain(file) => file.write_all(piece)?,
            Form::Gzip(decoder) => decoder.write_all(piece)?,
            Form::Unknown(..) => {}
        }
        Ok(self)
    }

    /// The whole archive, unpacked, from its beginning.
    pub(crate) fn finish(self) -> io::Result<File> {
        let mut file = match self.form {
            Form::Unknown(mut file, first) => file.write_all(&first).map(|()| file)?,
            Form::Plain(file) => file,
            Form::Gzip(decoder) => decoder.finish()?,
        };
        file.file.rewind()?;
        Ok(file.file)
    }
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
        assert_eq!(through(b"", 1).unwrap(), b"");
        assert_eq!(through(b"x", 1).unwrap(), b"x");
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
