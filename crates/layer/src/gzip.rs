//! Layers for registries: gzip, the one compression that every registry and engine takes.
//!
//! A stream is cut into blocks that are compressed side by side, each with the bytes before it as its dictionary, and put together
//! as one member. What comes out depends on what went in alone, not on how many worked on it.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use flate2::{Compress, Compression, Crc, FlushCompress};
use model::Digest;
use sha2::{Digest as _, Sha256};

/// Bytes that are compressed at once.
const BLOCK: usize = 512 << 10;
/// How far back DEFLATE looks (RFC 1951).
const WINDOW: usize = 32 << 10;
/// As small as 6, the default, in four fifths of its time.
const LEVEL: u32 = 5;
/// More threads would only wait for whoever reads.
const WORKERS: usize = 8;
/// Pieces of a block that are tried before all of it is, and how long each is.
const SAMPLES: usize = 4;
const SAMPLE: usize = 8 << 10;
/// A sample that does not lose as much of itself is of noise: archives in archives, pictures, keys.
const GAIN: usize = 64;
/// No name, no time, no system (RFC 1952).
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The last block of all, which is empty and stored.
const LAST: [u8; 5] = [1, 0, 0, 0xff, 0xff];

/// Compresses a stream: equal bytes become equal bytes (no name, no time). Answers the digest and size of what was written.
///
/// # Errors
/// What reader and writer say.
pub fn gzip(reader: impl Read, writer: impl Write) -> io::Result<(Digest, u64)> {
    with_workers(reader, writer, thread::available_parallelism().map_or(1, NonZero::get).min(WORKERS))
}

fn with_workers(reader: impl Read, writer: impl Write, workers: usize) -> io::Result<(Digest, u64)> {
    let (jobs, queue) = sync_channel(workers);
    let queue = Mutex::new(queue);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| work(&queue));
        }
        // The workers end when the sender is gone, whichever way this does.
        put_together(reader, writer, &{ jobs }, workers)
    })
}

/// A block with what came before it.
struct Job {
    data: Vec<u8>,
    before: usize,
    done: SyncSender<io::Result<Packed>>,
}

/// A compressed block, which ends at a byte.
struct Packed {
    bytes: Vec<u8>,
    crc: Crc,
}

fn put_together(mut reader: impl Read, writer: impl Write, jobs: &SyncSender<Job>, workers: usize) -> io::Result<(Digest, u64)> {
    let mut out = Out { writer, hash: Sha256::new(), size: 0, crc: Crc::new() };
    out.bytes(&HEAD)?;
    let mut waiting: VecDeque<Receiver<io::Result<Packed>>> = VecDeque::new();
    let mut tail: Vec<u8> = Vec::new();
    loop {
        let mut data = Vec::with_capacity(WINDOW + BLOCK);
        data.extend_from_slice(&tail);
        let before = data.len();
        if (&mut reader).take(BLOCK as u64).read_to_end(&mut data)? == 0 {
            break;
        }
        tail.clear();
        tail.extend_from_slice(&data[data.len().saturating_sub(WINDOW)..]);
        let (done, result) = sync_channel(1);
        jobs.send(Job { data, before, done }).map_err(io::Error::other)?;
        waiting.push_back(result);
        if waiting.len() > 2 * workers
            && let Some(first) = waiting.pop_front()
        {
            out.block(&first)?;
        }
    }
    waiting.iter().try_for_each(|result| out.block(result))?;
    out.end()
}

/// Compresses blocks until no more come.
fn work(queue: &Mutex<Receiver<Job>>) {
    let mut state = Compress::new(Compression::new(LEVEL), false);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { data, before, done }) = job else { return };
        // Who does not want it any more has failed, and says why.
        let _ = done.send(pack(&mut state, &data, before));
    }
}

fn pack(state: &mut Compress, data: &[u8], before: usize) -> io::Result<Packed> {
    let (dictionary, block) = data.split_at(before);
    let mut crc = Crc::new();
    crc.update(block);
    let bytes = if is_noise(state, block)? { stored(block) } else { deflate(state, dictionary, block)? };
    Ok(Packed { bytes, crc })
}

/// Whether parts of a block say that compressing it would be in vain.
fn is_noise(state: &mut Compress, block: &[u8]) -> io::Result<bool> {
    if block.len() < SAMPLES * SAMPLE {
        return Ok(false);
    }
    let pieces = block.chunks(block.len() / SAMPLES).take(SAMPLES);
    let sample: Vec<u8> = pieces.flat_map(|piece| &piece[..SAMPLE]).copied().collect();
    Ok(deflate(state, b"", &sample)?.len() > sample.len() - sample.len() / GAIN)
}

fn deflate(state: &mut Compress, dictionary: &[u8], block: &[u8]) -> io::Result<Vec<u8>> {
    state.reset();
    if !dictionary.is_empty() {
        state.set_dictionary(dictionary).map_err(io::Error::other)?;
    }
    let mut bytes = Vec::with_capacity(block.len() / 2 + 64);
    loop {
        let taken = usize::try_from(state.total_in()).map_err(io::Error::other)?;
        state.compress_vec(&block[taken..], &mut bytes, FlushCompress::Sync).map_err(io::Error::other)?;
        // Room that is left says that nothing waits for any (zlib.h, "deflate").
        if bytes.len() < bytes.capacity() {
            return Ok(bytes);
        }
        bytes.reserve(block.len() / 2 + 64);
    }
}

/// As it is, in pieces as long as they may be (RFC 1951, 3.2.4).
fn stored(block: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(block.len() + (block.len() / usize::from(u16::MAX) + 1) * LAST.len());
    for piece in block.chunks(u16::MAX.into()) {
        let length = u16::try_from(piece.len()).unwrap_or(u16::MAX);
        bytes.push(0);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&(!length).to_le_bytes());
        bytes.extend_from_slice(piece);
    }
    bytes
}

struct Out<W> {
    writer: W,
    hash: Sha256,
    size: u64,
    crc: Crc,
}

impl<W: Write> Out<W> {
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.writer.write_all(bytes)
    }

    fn block(&mut self, result: &Receiver<io::Result<Packed>>) -> io::Result<()> {
        let Packed { bytes, crc } = result.recv().map_err(io::Error::other)??;
        self.crc.combine(&crc);
        self.bytes(&bytes)
    }

    fn end(mut self) -> io::Result<(Digest, u64)> {
        self.bytes(&LAST)?;
        let (sum, length) = (self.crc.sum(), self.crc.amount());
        self.bytes(&sum.to_le_bytes())?;
        self.bytes(&length.to_le_bytes())?;
        self.writer.flush()?;
        Ok((Digest::Sha256(self.hash.finalize().into()), self.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that nothing can be made of.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length.div_ceil(4) as u64).flat_map(|n| ((n * n / 7) as u32).to_le_bytes()).take(length).collect()
    }

    fn packed(data: &[u8], workers: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let (digest, size) = with_workers(data, &mut out, workers).unwrap();
        assert_eq!((digest, size), (Digest::Sha256(Sha256::digest(&out).into()), out.len() as u64));
        out
    }

    fn back(bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut decoder = flate2::bufread::GzDecoder::new(bytes);
        decoder.read_to_end(&mut plain).unwrap();
        assert_eq!(decoder.into_inner().len(), 0, "one member is all there is");
        plain
    }

    #[test]
    fn what_is_compressed_is_the_same_every_time_and_comes_back() {
        let mixed = [noise(BLOCK), text(BLOCK + 1), noise(10)].concat();
        let lengths = [0, 1, 1000, BLOCK];
        for data in lengths.map(text).into_iter().chain(lengths.map(noise)).chain([mixed]) {
            let one = packed(&data, 1);
            assert!(one == packed(&data, 3), "{} bytes", data.len());
            assert!(back(&one) == data, "{} bytes", data.len());
        }
    }

    #[test]
    fn noise_costs_next_to_nothing_and_is_looked_at_again_in_every_block() {
        let data = noise(4 * BLOCK);
        assert!(packed(&data, 2).len() < data.len() + data.len() / 1000);
        let mixed = [noise(BLOCK), vec![b'x'; BLOCK]].concat();
        assert!(packed(&mixed, 2).len() < BLOCK + BLOCK / 100);
    }

    #[test]
    fn a_block_knows_what_was_before_it() {
        let line = noise(10_000);
        let data = [text(BLOCK - line.len()), line.clone(), line].concat();
        let alone = packed(&data[..BLOCK], 2).len();
        assert!(packed(&data, 2).len() < alone + 1000);
    }

    #[test]
    fn who_cannot_read_or_write_says_so() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let data = noise(4 * BLOCK);
        let failed = gzip((&data[..]).chain(Broken), io::sink()).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(gzip(&data[..], &mut [0; 5000][..]).unwrap_err().kind(), io::ErrorKind::WriteZero);
    }
}
