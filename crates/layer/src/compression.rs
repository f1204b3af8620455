//! Compressed bytes to tar bytes.

use std::{
    cell::Cell,
    fmt,
    io::{self, BufReader, Read},
    rc::Rc,
};

use model::MediaType;

use crate::{Error, Limits};

/// How a layer's bytes are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip, one or more members.
    Gzip,
    /// zstd, one or more frames.
    Zstd,
    /// bzip2, one or more streams. No layer's media type names it: archives of people are so.
    Bzip2,
    /// xz, one or more streams. No layer's media type names it: archives of people are so.
    Xz,
}

impl Compression {
    /// The compression that a layer's media type names; `None` when it is not a layer's.
    pub fn of(media_type: &MediaType) -> Option<Self> {
        match media_type {
            MediaType::OciLayer | MediaType::DockerLayer => Some(Self::None),
            MediaType::OciLayerGzip | MediaType::DockerLayerGzip => Some(Self::Gzip),
            MediaType::OciLayerZstd | MediaType::DockerLayerZstd => Some(Self::Zstd),
            MediaType::OciIndex
            | MediaType::OciManifest
            | MediaType::OciConfig
            | MediaType::DockerList
            | MediaType::DockerManifest
            | MediaType::DockerConfig
            | MediaType::Other(_) => None,
        }
    }

    /// The compression that a stream's first bytes show (for archives of `load`, `import` and ADD, which name none). Six bytes
    /// are enough.
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // Its level, and the first bytes of a block's or the end's magic: a tar may begin with a file called BZh9.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "plain tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
        })
    }
}

/// What the decoders pull from: counts, and remembers whether an error was the caller's.
struct Counted<R> {
    inner: R,
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    bytes: Cell<u64>,
    failed: Cell<bool>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buf);
        match &result {
            Ok(n) => self.state.bytes.set(self.state.bytes.get() + *n as u64),
            Err(e) if e.kind() != io::ErrorKind::Interrupted => self.state.failed.set(true),
            Err(_) => {}
        }
        result
    }
}

/// The bytes behind a compression, under the limits of size, ratio and window; a stream that is damaged or exceeds them is an error
/// whose source is an [`Error`].
///
/// # Errors
/// The decoder cannot be made.
pub fn decompress<'a>(reader: impl Read + 'a, compression: Compression, limits: &Limits) -> Result<impl Read + 'a, Error> {
    Decoder::new(reader, compression, limits)
}

/// Decompresses under the limits of size and ratio.
pub(crate) struct Decoder<'a> {
    reader: Box<dyn Read + 'a>,
    compression: Compression,
    state: Rc<State>,
    limits: Limits,
    produced: u64,
}

const INPUT_BUFFER: usize = 128 << 10;
/// KiB that an xz decoder takes beside its dictionary, and some more.
const XZ_OVERHEAD: u32 = 1 << 10;

impl<'a> Decoder<'a> {
    pub(crate) fn new(reader: impl Read + 'a, compression: Compression, limits: &Limits) -> Result<Self, Error> {
        let state = Rc::new(State::default());
        let counted = Counted { inner: reader, state: Rc::clone(&state) };
        let reader: Box<dyn Read + 'a> = match compression {
            Compression::None => Box::new(counted),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(INPUT_BUFFER, counted))),
            Compression::Zstd => {
                let failed = |source| Error::Decompress { compression, source };
                let buffered = BufReader::with_capacity(INPUT_BUFFER, counted);
                let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered).map_err(failed)?;
                decoder.window_log_max(limits.window_log).map_err(failed)?;
                Box::new(decoder)
            }
            Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(BufReader::with_capacity(INPUT_BUFFER, counted))),
            Compression::Xz => {
                let most = 1_u32.checked_shl(limits.window_log).map_or(u32::MAX, |dictionary| (dictionary >> 10) + XZ_OVERHEAD);
                let buffered = BufReader::with_capacity(INPUT_BUFFER, counted);
                Box::new(lzma_rust2::XzReader::new_mem_limit(buffered, true, most))
            }
        };
        Ok(Self { reader, compression, state, limits: *limits, produced: 0 })
    }

    /// Fills `buf` up to its capacity; left empty at the end of the stream.
    pub(crate) fn fill(&mut self, buf: &mut Vec<u8>) -> Result<(), Error> {
        let capacity = buf.capacity();
        buf.resize(capacity, 0);
        let mut filled = 0;
        while filled < capacity {
            match self.some(&mut buf[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        buf.truncate(filled);
        Ok(())
    }

    /// Some of the next bytes; none at the end of the stream.
    fn some(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        loop {
            match self.reader.read(buf) {
                Ok(n) => return self.account(n as u64).map(|()| n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) if self.state.failed.get() => return Err(Error::Read(source)),
                Err(source) => return Err(Error::Decompress { compression: self.compression, source }),
            }
        }
    }

    fn account(&mut self, more: u64) -> Result<(), Error> {
        self.produced += more;
        if self.produced > self.limits.unpacked {
            return Err(Error::Limit { what: "bytes of archive", max: self.limits.unpacked });
        }
        let allowed = self.state.bytes.get().saturating_mul(self.limits.ratio);
        if self.compression != Compression::None && self.produced > self.limits.ratio_from && self.produced > allowed {
            return Err(Error::Limit { what: "bytes of archive per compressed byte", max: self.limits.ratio });
        }
        Ok(())
    }

    /// Compressed bytes read so far.
    pub(crate) fn consumed(&self) -> u64 {
        self.state.bytes.get()
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.some(buf).map_err(io::Error::other)
    }
}
