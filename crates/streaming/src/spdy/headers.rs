//! Header blocks: one zlib stream per direction for all of a connection.
//!
//! Counts and lengths in a block are claims: they are checked against the bytes that are there and never allocated for
//! (CVE-2026-35469 of another implementation). What we send is only ever the empty block, in stored form, so that no
//! compressor is kept for it.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Violation, dictionary::dictionary};

/// Bytes of an inflated block at most.
const INFLATED: usize = 64 << 10;

/// Headers of a stream; names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    /// The (first) value of a header.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn parse(mut block: &[u8]) -> Result<Self, Violation> {
        let count = take_u32(&mut block)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = take_text(&mut block)?.to_ascii_lowercase();
            let value = take_text(&mut block)?;
            // Several values are separated by NUL.
            let value = value.split('\0').next().unwrap_or_default().to_owned();
            headers.push((name, value));
        }
        if block.is_empty() { Ok(Self(headers)) } else { Err(Violation::Headers) }
    }
}

fn take<'a>(block: &mut &'a [u8], length: usize) -> Result<&'a [u8], Violation> {
    let (taken, rest) = block.split_at_checked(length).ok_or(Violation::Headers)?;
    *block = rest;
    Ok(taken)
}

fn take_u32(block: &mut &[u8]) -> Result<u32, Violation> {
    let bytes = take(block, 4)?.first_chunk().ok_or(Violation::Headers)?;
    Ok(u32::from_be_bytes(*bytes))
}

fn take_text(block: &mut &[u8]) -> Result<String, Violation> {
    let length = usize::try_from(take_u32(block)?).map_err(|_| Violation::Headers)?;
    String::from_utf8(take(block, length)?.to_vec()).map_err(|_| Violation::Headers)
}

/// Reads blocks, in the order in which they came.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn headers(&mut self, block: &[u8]) -> Result<Headers, Violation> {
        Headers::parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, Violation> {
        let mut inflated = Vec::with_capacity(1024);
        loop {
            if inflated.len() == inflated.capacity() {
                if inflated.len() > INFLATED {
                    return Err(Violation::TooManyHeaders(INFLATED));
                }
                inflated.reserve(inflated.len());
            }
            let (input, output) = (self.0.total_in(), self.0.total_out());
            let result = self.0.decompress_vec(block, &mut inflated, FlushDecompress::Sync);
            let used = usize::try_from(self.0.total_in() - input).map_err(|_| Violation::Compression)?;
            block = &block[used..];
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    // Another dictionary's name is an error here.
                    self.0.set_dictionary(&dictionary()).map_err(|_| Violation::Compression)?;
                }
                Ok(Status::Ok | Status::BufError) if used > 0 || self.0.total_out() > output => {}
                // A stream of headers has no end.
                Ok(Status::StreamEnd) | Err(_) => return Err(Violation::Compression),
                Ok(_) if !block.is_empty() => return Err(Violation::Compression),
                Ok(_) => break,
            }
        }
        if inflated.len() > INFLATED { Err(Violation::TooManyHeaders(INFLATED)) } else { Ok(inflated) }
    }
}

/// Writes the only block that a server has to say: no headers.
#[derive(Debug, Default)]
pub(super) struct Deflater {
    begun: bool,
}

impl Deflater {
    pub(super) fn no_headers(&mut self) -> Vec<u8> {
        let mut block = Vec::with_capacity(16);
        if !self.begun {
            // RFC 1950: deflate with a window of 32 KiB, no dictionary.
            block.extend([0x78, 0x01]);
            self.begun = true;
        }
        // RFC 1951, 3.2.4: a stored block of four bytes, the count zero, and an empty one, which makes readers flush.
        block.extend([0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0]);
        block.extend([0, 0, 0, 0xff, 0xff]);
        block
    }
}

#[cfg(test)]
pub(super) mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    /// A block as a client makes it.
    pub(in crate::spdy) struct Client(Compress);

    impl Client {
        pub(in crate::spdy) fn new() -> Self {
            let mut compress = Compress::new(Compression::best(), true);
            compress.set_dictionary(&dictionary()).unwrap();
            Self(compress)
        }

        pub(in crate::spdy) fn block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
            let mut raw = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
            for text in headers.iter().flat_map(|(name, value)| [name, value]) {
                raw.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                raw.extend(text.as_bytes());
            }
            self.deflate(&raw)
        }

        fn deflate(&mut self, raw: &[u8]) -> Vec<u8> {
            let mut block = Vec::with_capacity(raw.len() + 1024);
            self.0.compress_vec(raw, &mut block, FlushCompress::Sync).unwrap();
            block
        }
    }

    #[test]
    fn blocks_follow_one_another_in_one_stream() {
        let (mut client, mut inflater) = (Client::new(), Inflater::new());
        for n in 0..100 {
            let value = n.to_string();
            let headers = inflater.headers(&client.block(&[("Streamtype", "data"), ("port", &value), ("two", "a\0b")])).unwrap();
            assert_eq!(
                (headers.get("streamtype"), headers.get("port"), headers.get("two")),
                (Some("data"), Some(&*value), Some("a"))
            );
        }
        assert_eq!(inflater.headers(&client.block(&[])).unwrap(), Headers::default());
    }

    #[test]
    fn our_empty_blocks_are_blocks() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::new());
        for _ in 0..3 {
            assert_eq!(inflater.headers(&deflater.no_headers()).unwrap(), Headers::default());
        }
    }

    #[test]
    fn claims_are_checked() {
        let claim = |raw: &[u8]| Inflater::new().headers(&Client::new().deflate(raw)).unwrap_err();
        assert_eq!(claim(&[0xff; 4]), Violation::Headers);
        assert_eq!(claim(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 1]), Violation::Headers);
        assert_eq!(claim(&[0, 0, 0, 0, 1]), Violation::Headers);
        assert_eq!(claim(&[]), Violation::Headers);
        assert_eq!(claim(&[0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0, 0, 0, 0]), Violation::Headers);
        // A bomb: much out of little.
        assert_eq!(claim(&vec![0; 16 << 20]), Violation::TooManyHeaders(INFLATED));
        assert_eq!(Inflater::new().headers(&[1, 2, 3]).unwrap_err(), Violation::Compression);
        assert_eq!(Inflater::new().headers(&[]).unwrap_err(), Violation::Headers);
    }

    #[test]
    fn a_block_of_the_greatest_size_is_taken_and_one_more_byte_is_not() {
        let with = |length: usize| {
            let value = "x".repeat(length);
            Inflater::new().headers(&Client::new().block(&[("n", &value)]))
        };
        let around = 4 + 4 + 1 + 4;
        assert!(with(INFLATED - around).is_ok());
        assert_eq!(with(INFLATED - around + 1).unwrap_err(), Violation::TooManyHeaders(INFLATED));
    }
}
