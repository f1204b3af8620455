//! ADD of a URL, and `import` of one: fetched into a file without a name. What a URL stood for is remembered, so that the server need only say that it
//! still does; with `--checksum` it is not even asked.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
};

use model::{Digest, ErrorKind};
use registry::{Url, Version};
use sha2::{Digest as _, Sha256};

use super::{
    copy::{Loose, Source, What},
    refuse,
};
use crate::{
    Engine, Inner,
    blocking::blocking,
    error::{About, Error, Step as _},
};

/// Bytes of a file.
const LARGEST: u64 = 16 << 30;
/// URLs that are remembered.
const MOST: usize = 1000;
/// Mode of a file that was fetched, as docker has it.
const MODE: u32 = 0o600;
/// Bytes that are written at once.
const PIECE: usize = 1 << 20;

/// What URLs stood for.
pub(crate) type Seen = Mutex<HashMap<String, (Version, Digest)>>;

/// A file that ADD fetches.
#[derive(Debug)]
pub(super) struct Remote {
    url: Url,
    text: String,
    /// What it is called in the image: never what the server says.
    name: String,
    /// What it is.
    pub(super) digest: Digest,
    /// `None`: it was here before and is fetched when it is needed.
    fetched: Option<(File, Version)>,
}

impl Remote {
    /// Finds out what a URL stands for. `checksum`: what it must be.
    ///
    /// # Errors
    /// The server's; another file than it must be.
    pub(super) async fn find(inner: &Arc<Inner>, text: &str, checksum: Option<&Digest>) -> Result<Self, Error> {
        let url = Url::parse(text).map_err(|e| refuse(ErrorKind::InvalidArgument, format!("ADD {text}: {e}")))?;
        let (text, name) = (text.to_owned(), name(&url)?);
        let fetched = None;
        if let Some(digest) = checksum {
            return Ok(Self { url, text, name, digest: *digest, fetched });
        }
        let seen = inner.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&text).cloned();
        let known = seen.as_ref().map(|(version, _)| version);
        match (download(inner, &url, known).await?, seen) {
            (None, Some((_, digest))) => Ok(Self { url, text, name, digest, fetched }),
            (None, None) => Err(refuse(ErrorKind::Internal, format!("ADD {text}: not modified, but nothing was known of it"))),
            (Some((file, version, digest)), _) => {
                remember(inner, &text, &version, digest);
                Ok(Self { url, text, name, digest, fetched: Some((file, version)) })
            }
        }
    }

    /// Whether it has a name of its own.
    pub(super) fn has_name(&self) -> bool {
        !self.name.is_empty()
    }

    /// The file itself.
    ///
    /// # Errors
    /// The server's; another file than it must be.
    pub(super) async fn source(self, inner: &Arc<Inner>) -> Result<Source, Error> {
        let Self { url, text, name, digest, fetched } = self;
        let (file, version) = match fetched {
            Some(fetched) => fetched,
            None => {
                let gone = || refuse(ErrorKind::Internal, format!("ADD {text}: not modified, but nothing was asked"));
                let (file, version, found) = download(inner, &url, None).await?.ok_or_else(gone)?;
                if found != digest {
                    let why = format!("ADD {text}: digest mismatch {found}: {digest}");
                    return Err(refuse(ErrorKind::FailedPrecondition, why));
                }
                remember(inner, &text, &version, found);
                (file, version)
            }
        };
        Ok(Source::new(What::Loose(Loose { file, mode: MODE, mtime: version.modified }), &name))
    }
}

/// The last component of a URL's path, as it stands there.
fn name(url: &Url) -> Result<String, Error> {
    let path = url.target.split(['?', '#']).next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let decoded = decoded(last).filter(|name| !name.contains(['/', '\0']) && !matches!(name.as_str(), "." | ".."));
    decoded.ok_or_else(|| refuse(ErrorKind::InvalidArgument, format!("ADD {url}: {last:?} cannot be the name of a file")))
}

/// Without percent signs; `None`: it is no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

fn remember(inner: &Inner, text: &str, version: &Version, digest: Digest) {
    if !version.is_known() {
        return;
    }
    let mut seen = inner.seen.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.len() >= MOST {
        seen.clear();
    }
    seen.insert(text.to_owned(), (version.clone(), digest));
}

impl Engine {
    /// An archive of an HTTP server, from its beginning and unpacked, of at most so many bytes, packed and unpacked.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no URL or no such archive; the server's; the disk's.
    pub async fn fetch_archive(&self, url: &str, most: u64) -> Result<File, Error> {
        let url = Url::parse(url).map_err(|e| refuse(ErrorKind::InvalidArgument, format!("import {url}: {e}")))?;
        let fetched = download(self.inner(), &url, None).await.map_err(|e| Error::new(e.kind(), About::Words, e.chain()))?;
        let (archive, ..) = fetched.ok_or_else(|| refuse(ErrorKind::Internal, format!("import {url}: not modified")))?;
        let root = self.inner().config.root.clone();
        blocking(move || crate::unpacked(archive, &root, most)).await
    }
}

/// `None`: it is still what is known.
async fn download(inner: &Arc<Inner>, url: &Url, known: Option<&Version>) -> Result<Option<(File, Version, Digest)>, Error> {
    let fetching = inner.images.fetch(url, known, LARGEST).await.step(About::Words, "fetch")?;
    let Some(mut fetching) = fetching else { return Ok(None) };
    let failed = |e: io::Error| refuse(crate::image::Unmakable::Io(io::Error::from(e.kind())).kind(), format!("keep {url}: {e}"));
    let mut file = crate::nameless(&inner.config.root).map_err(failed)?;
    let (mut hash, mut waiting) = (Sha256::new(), Vec::with_capacity(PIECE));
    loop {
        let piece = fetching.next().await.step(About::Words, "fetch")?;
        let over = piece.is_none();
        waiting.extend_from_slice(&piece.unwrap_or_default());
        if over || waiting.len() >= PIECE {
            let bytes = std::mem::take(&mut waiting);
            let written = blocking(move || {
                hash.update(&bytes);
                file.write_all(&bytes).map(|()| (file, hash))
            });
            (file, hash) = written.await.map_err(failed)?;
        }
        if over {
            let digest = Digest::Sha256(hash.finalize().into());
            return Ok(Some((file, fetching.version, digest)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_urls() {
        let name = |text: &str| name(&Url::parse(text).unwrap()).map_err(|e| e.chain());
        assert_eq!(name("https://a.example/x/file.txt?y=/z"), Ok("file.txt".into()));
        assert_eq!(name("https://a.example/a%20b"), Ok("a b".into()));
        assert_eq!(name("https://a.example/a%zz"), Ok("a%zz".into()));
        assert_eq!(name("https://a.example/"), Ok(String::new()));
        for bad in [
            "https://a.example/..%2f..%2fetc%2fpasswd",
            "https://a.example/%2e%2e",
            "https://a.example/%00",
            "https://a.example/%ff",
        ] {
            assert!(name(bad).unwrap_err().contains("cannot be the name of a file"), "{bad}");
        }
    }
}
