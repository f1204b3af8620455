//! The bytes of a blob that goes out: all there, or still in the making.

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use bytes::Bytes;
use model::{Descriptor, Digest};
use tokio::sync::watch;

/// Size of a piece of an upload: also what is sent again after a connection broke. Registries on object stores refuse
/// pieces below 5 MiB.
pub(crate) const PIECE: usize = 8 << 20;

/// The bytes of a blob, to be read again from anywhere.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// In a file.
    File(Arc<File>),
}

/// A blob that is written while it goes out.
#[derive(Debug)]
pub struct Growing {
    /// Where it is written to, from its beginning.
    pub file: Arc<File>,
    /// How much of it is there. A sender that goes before the blob is whole has given it up.
    pub grown: watch::Receiver<Grown>,
}

/// How much of a blob is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grown {
    /// Bytes.
    pub bytes: u64,
    /// Its digest, once it is whole.
    pub digest: Option<Digest>,
}

/// What an upload takes its pieces from.
#[derive(Debug)]
pub(crate) enum Outgoing<'c> {
    /// A blob that is known.
    Whole(&'c Content, Descriptor),
    /// The rest is named by this digest until its own is known.
    Growing(Growing, Digest),
}

impl Outgoing<'_> {
    /// What errors call it.
    pub(crate) fn name(&self) -> Digest {
        match self {
            Self::Whole(_, blob) => blob.digest,
            Self::Growing(growing, name) => growing.grown.borrow().digest.unwrap_or(*name),
        }
    }

    /// Whether there is anything from this position on, as far as is known.
    pub(crate) fn reaches_beyond(&self, position: u64) -> bool {
        match self {
            Self::Whole(_, blob) => position < blob.size,
            Self::Growing(growing, _) => position < growing.grown.borrow().bytes,
        }
    }

    /// Waits until it is whole or so much of it is there.
    pub(crate) async fn at_least(&mut self, bytes: u64) -> io::Result<Grown> {
        match self {
            Self::Whole(_, blob) => Ok(Grown { bytes: blob.size, digest: Some(blob.digest) }),
            Self::Growing(growing, _) => {
                let grown = growing.grown.wait_for(|grown| grown.digest.is_some() || grown.bytes >= bytes).await;
                grown.map(|grown| *grown).map_err(|_| io::Error::new(io::ErrorKind::UnexpectedEof, "it was given up"))
            }
        }
    }

    /// The next piece, at most so long.
    pub(crate) async fn piece(&self, from: u64, most: u64) -> io::Result<Bytes> {
        let length = usize::try_from(most).unwrap_or(PIECE).min(PIECE);
        let file = match self {
            Self::Whole(Content::Bytes(bytes), _) => {
                let from = usize::try_from(from).map_err(io::Error::other)?;
                let end = from.checked_add(length).filter(|end| *end <= bytes.len());
                return end.map(|end| bytes.slice(from..end)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
            }
            Self::Whole(Content::File(file), _) => Arc::clone(file),
            Self::Growing(growing, _) => Arc::clone(&growing.file),
        };
        let read = move || {
            let mut piece = vec![0; length];
            file.read_exact_at(&mut piece, from).map(|()| Bytes::from(piece))
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }
}
