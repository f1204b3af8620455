//! Small content: configs, manifests, indexes. Verified when it comes and whenever it is read (R36).

use std::collections::HashSet;

use model::Digest;
use sha2::{Digest as _, Sha256, Sha512};

use crate::{Document, Error, Store, disk, layout::Layout};

/// The limit for documents of registries (4 MiB) is the registry client's; this one only bounds memory.
const LIMIT: u64 = 16 << 20;

fn matches(digest: &Digest, bytes: &[u8]) -> bool {
    match digest {
        Digest::Sha256(expected) => Sha256::digest(bytes)[..] == expected[..],
        Digest::Sha512(expected) => Sha512::digest(bytes)[..] == expected[..],
    }
}

/// Those of the blobs that are not there intact, each once.
pub(crate) fn missing<'b>(layout: &Layout, blobs: impl Iterator<Item = Document<'b>>) -> Result<Vec<Document<'b>>, Error> {
    let mut seen = HashSet::new();
    let mut missing = Vec::new();
    for blob in blobs {
        if !matches(&blob.digest, blob.bytes) {
            return Err(Error::WrongDigest(blob.digest));
        }
        // A damaged one is replaced: this is how pulling again heals.
        let is_there = || disk::read(&layout.blob(&blob.digest), LIMIT).ok().flatten().is_some_and(|known| known == blob.bytes);
        if seen.insert(blob.digest) && !is_there() {
            missing.push(blob);
        }
    }
    Ok(missing)
}

impl Store {
    /// Reads a config, manifest or index.
    ///
    /// # Errors
    /// `NotFound`; `Corrupted` if it changed on disk, in which case it is put aside, so that pulling again heals it.
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let layout = &self.shared.layout;
        let path = layout.blob(digest);
        let read = disk::read(&path, LIMIT);
        match read {
            Ok(Some(bytes)) if matches(digest, &bytes) => return Ok(bytes),
            Ok(None) => return Err(Error::NoBlob(*digest)),
            Err(Error::Io { ref source, .. }) if source.kind() == std::io::ErrorKind::FileTooLarge => {}
            Err(e) => return Err(e),
            Ok(Some(_)) => {}
        }
        let quarantine = layout.quarantine(&digest.hex());
        disk::rename(&path, &quarantine)?;
        Err(Error::BlobDamaged { digest: *digest, quarantine })
    }
}
