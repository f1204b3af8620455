//! The uncompressed stream as the tar reader sees it: decompressed in a thread of its own, hashed and copied as it passes.

use std::{
    fs::File,
    io::Write,
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
};

use model::{DiffId, Digest};
use sha2::{Digest as _, Sha256};

use crate::{Error, compression::Decoder};

/// Small enough to be still in a cache when the other thread takes it: 1 MiB costs twice the CPU time of 64 KiB.
const CHUNK: usize = 64 << 10;
/// Chunks in flight between the two threads: 2 MiB, enough to work on while a busy machine lets the other thread wait.
const DEPTH: usize = 32;

/// Which of the two threads hashes. Writing one file verbatim is cheaper than decompressing, making many files is dearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HashIn {
    Producer,
    Consumer,
}

enum Piece {
    Bytes(Vec<u8>),
    End { hash: Sha256, compressed: u64 },
}

/// The decompressing half.
pub(crate) struct Producer {
    full: SyncSender<Result<Piece, Error>>,
    empty: Receiver<Vec<u8>>,
    hash_in: HashIn,
}

/// The half that the tar reader pulls from.
pub(crate) struct Stream<'a> {
    full: Receiver<Result<Piece, Error>>,
    empty: Sender<Vec<u8>>,
    hash_in: HashIn,
    hash: Sha256,
    copy: Option<&'a File>,
    chunk: Vec<u8>,
    at: usize,
    position: u64,
    ended: bool,
    compressed: u64,
}

/// What is known once the stream was read to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) diff_id: DiffId,
    pub(crate) size: u64,
    pub(crate) compressed: u64,
}

/// The two ends of a stream; everything that passes is appended to `copy`.
pub(crate) fn pipe(hash_in: HashIn, copy: Option<&File>) -> (Producer, Stream<'_>) {
    let (full_in, full) = sync_channel(DEPTH);
    let (empty, empty_out) = channel();
    let stream = Stream {
        full,
        empty,
        hash_in,
        hash: Sha256::new(),
        copy,
        chunk: Vec::new(),
        at: 0,
        position: 0,
        ended: false,
        compressed: 0,
    };
    (Producer { full: full_in, empty: empty_out, hash_in }, stream)
}

/// A stream of bytes that are there already.
pub(crate) fn preloaded(data: &[u8]) -> Stream<'static> {
    let (producer, stream) = pipe(HashIn::Consumer, None);
    let compressed = data.len() as u64;
    const { assert!(DEPTH >= 2, "both pieces wait in the channel") };
    for piece in [Piece::Bytes(data.to_vec()), Piece::End { hash: Sha256::new(), compressed }] {
        producer.full.send(Ok(piece)).expect("the receiver is in the stream");
    }
    stream
}

impl Producer {
    /// Decompresses until the end, an error, or until nobody listens any more.
    pub(crate) fn run(self, mut decoder: Decoder<'_>) {
        let mut hash = Sha256::new();
        loop {
            let mut chunk = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK));
            let piece = decoder.fill(&mut chunk).map(|()| {
                if chunk.is_empty() {
                    return Piece::End { hash: hash.clone(), compressed: decoder.consumed() };
                }
                if self.hash_in == HashIn::Producer {
                    hash.update(&chunk);
                }
                Piece::Bytes(chunk)
            });
            let last = !matches!(piece, Ok(Piece::Bytes(_)));
            if self.full.send(piece).is_err() || last {
                return;
            }
        }
    }

    /// A producer that could not even start.
    pub(crate) fn fail(self, error: Error) {
        // The receiver is gone only when its side failed first; that error is the one to report.
        let _ = self.full.send(Err(error));
    }
}

impl Stream<'_> {
    /// Bytes handed out so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// At most `max` of the next bytes; empty at the end of the stream.
    pub(crate) fn take(&mut self, max: u64) -> Result<&[u8], Error> {
        if self.at == self.chunk.len() {
            self.refill()?;
        }
        let there = self.chunk.len() - self.at;
        let n = usize::try_from(max).map_or(there, |max| max.min(there));
        let start = self.at;
        self.at += n;
        self.position += n as u64;
        Ok(&self.chunk[start..start + n])
    }

    /// Fills `buf`; returns how much of it was there before the stream ended.
    pub(crate) fn read_full(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < buf.len() {
            let piece = self.take((buf.len() - filled) as u64)?;
            if piece.is_empty() {
                break;
            }
            buf[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        }
        Ok(filled)
    }

    /// Reads what is left (padding and whatever follows it belong to the diff id too).
    pub(crate) fn finish(mut self) -> Result<Ended, Error> {
        while !self.take(u64::MAX)?.is_empty() {}
        let digest: [u8; 32] = self.hash.finalize().into();
        Ok(Ended { diff_id: DiffId::new(Digest::Sha256(digest)), size: self.position, compressed: self.compressed })
    }

    fn refill(&mut self) -> Result<(), Error> {
        if self.ended {
            return Ok(());
        }
        // The producer always sends an end or an error before it goes; a dropped sender means that it panicked, and the
        // scope that owns its thread turns that into our panic as soon as we return.
        let piece = self.full.recv().unwrap_or_else(|gone| Err(Error::Read(std::io::Error::other(gone))))?;
        match piece {
            Piece::Bytes(bytes) => {
                let old = std::mem::replace(&mut self.chunk, bytes);
                if old.capacity() > 0 {
                    // Only a hint: without it the producer allocates.
                    let _ = self.empty.send(old);
                }
                self.at = 0;
                self.pass_on()
            }
            Piece::End { hash, compressed } => {
                self.ended = true;
                self.compressed = compressed;
                if self.hash_in == HashIn::Producer {
                    self.hash = hash;
                }
                Ok(())
            }
        }
    }

    fn pass_on(&mut self) -> Result<(), Error> {
        if self.hash_in == HashIn::Consumer {
            self.hash.update(&self.chunk);
        }
        match self.copy {
            Some(mut file) => file.write_all(&self.chunk).map_err(|e| Error::image("write", e)),
            None => Ok(()),
        }
    }
}
