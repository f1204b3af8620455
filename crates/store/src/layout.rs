//! What is where below the root.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use model::{ContainerId, DiffId, Digest, ImageId};

use crate::schema::LayerKind;

/// The paths of one store. Every name in them is made of checked digests, ids and our own words.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
    start: u128,
    next: AtomicU64,
}

/// The directories below the root; those with digests in them have one directory per algorithm.
pub(crate) const DIRECTORIES: &[&str] = &[
    "blobs",
    "blobs/sha256",
    "blobs/sha512",
    "layers",
    "layers/sha256",
    "layers/sha512",
    "images",
    "images/sha256",
    "images/sha512",
    "ingest",
    "trash",
    "quarantine",
    "containers",
    "records",
    "records/pods",
    "records/containers",
    "records/users",
    "volumes",
    "records/networks",
    "records/builds",
    "records/contexts",
    "records/history",
    "records/transcripts",
    "caches",
];

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        let start = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        Self { root, start, next: AtomicU64::new(0) }
    }

    /// A name that no file of this or an earlier run has.
    pub(crate) fn unique(&self) -> String {
        format!("{:x}-{}", self.start, self.next.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.at("lock")
    }

    pub(crate) fn version(&self) -> PathBuf {
        self.at("version")
    }

    pub(crate) fn reserve(&self) -> PathBuf {
        self.at("reserve")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.at("images.redb")
    }

    pub(crate) fn temporary(&self) -> PathBuf {
        self.at("ingest").join(self.unique())
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.at("trash")
    }

    pub(crate) fn quarantine(&self, name: &str) -> PathBuf {
        self.at("quarantine").join(format!("{name}.{}", self.unique()))
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.at("blobs").join(digest.algorithm()).join(digest.hex())
    }

    pub(crate) fn layer(&self, diff_id: &DiffId, kind: LayerKind) -> PathBuf {
        let digest = diff_id.digest();
        let name = match kind {
            LayerKind::Erofs => format!("{}.erofs", digest.hex()),
            LayerKind::Directory => digest.hex(),
        };
        self.at("layers").join(digest.algorithm()).join(name)
    }

    pub(crate) fn backup(&self, image: &ImageId) -> PathBuf {
        self.at("images").join(image.digest().algorithm()).join(image.digest().hex())
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.at("containers")
    }

    pub(crate) fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.to_string())
    }
}

/// The digest that a file in a directory per algorithm is named after.
pub(crate) fn digest_of(algorithm: &str, path: &Path) -> Option<Digest> {
    let name = path.file_name()?.to_str()?;
    let hex = name.strip_suffix(".erofs").unwrap_or(name);
    format!("{algorithm}:{hex}").parse().ok()
}
