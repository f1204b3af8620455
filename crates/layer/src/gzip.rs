//! Layers for registries: gzip, the one compression that every registry and engine takes.

use std::io::{self, Read, Write};

use flate2::{Compression, GzBuilder};
use model::Digest;
use sha2::{Digest as _, Sha256};

/// Compresses a stream: equal bytes become equal bytes (no name, no time). Answers the digest and size of what was written.
///
/// # Errors
/// What reader and writer say.
pub fn gzip(mut reader: impl Read, writer: impl Write) -> io::Result<(Digest, u64)> {
    let hashing = Hashing { writer: io::BufWriter::with_capacity(256 << 10, writer), hash: Sha256::new(), size: 0 };
    let mut encoder = GzBuilder::new().mtime(0).write(hashing, Compression::new(6));
    io::copy(&mut reader, &mut encoder)?;
    let mut done = encoder.finish()?;
    done.writer.flush()?;
    Ok((Digest::Sha256(done.hash.finalize().into()), done.size))
}

struct Hashing<W> {
    writer: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write_all(bytes)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_is_the_same_every_time_and_comes_back() {
        let text: Vec<u8> = (0..100_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let (mut one, mut two) = (Vec::new(), Vec::new());
        let first = gzip(&text[..], &mut one).unwrap();
        assert_eq!(first, gzip(&text[..], &mut two).unwrap());
        assert_eq!((one == two, first.1), (true, one.len() as u64));
        assert_eq!(first.0, Digest::Sha256(Sha256::digest(&one).into()));
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&one[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, text);
    }
}
