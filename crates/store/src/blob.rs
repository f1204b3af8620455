//! Small content: configs, manifests, indexes. Verified when it comes and whenever it is read (R36).

use model::Digest;
use sha2::{Digest as _, Sha256, Sha512};

use crate::{
    Error, Store,
    disk::{self, Sync},
    layout::Layout,
};

/// The limit for documents of registries (4 MiB) is the registry client's; this one only bounds memory.
const LIMIT: u64 = 16 << 20;

fn matches(digest: &Digest, bytes: &[u8]) -> bool {
    match digest {
        Digest::Sha256(expected) => Sha256::digest(bytes)[..] == expected[..],
        Digest::Sha512(expected) => Sha512::digest(bytes)[..] == expected[..],
    }
}

/// Stores a blob unless an intact one is there already. Answers whether it was written.
pub(crate) fn put(layout: &Layout, digest: &Digest, bytes: &[u8]) -> Result<bool, Error> {
    if !matches(digest, bytes) {
        return Err(Error::WrongDigest(*digest));
    }
    let path = layout.blob(digest);
    // A damaged one is replaced: this is how pulling again heals.
    if disk::read(&path, LIMIT).ok().flatten().is_some_and(|known| known == bytes) {
        return Ok(false);
    }
    disk::write(&path, &layout.temporary(), bytes, Sync::Now)?;
    Ok(true)
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
