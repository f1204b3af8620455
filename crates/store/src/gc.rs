//! Collection: what the database does not need goes, and what it needs but is not there is admitted to be gone.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{DiffId, ImageId};

use crate::{
    Error, Store, backup, disk,
    layout::digest_of,
    remove,
    schema::{ImageRow, Stored},
    state::{Change, State},
    store::{Shared, Writer},
};

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers that no image needed and nobody had pinned.
    pub layers: Vec<DiffId>,
    /// Bytes of those.
    pub bytes: u64,
    /// Files and directories that no row named.
    pub strays: usize,
    /// Images that were forgotten because a layer of theirs is gone from the disk; pulling them again heals.
    pub broken_images: Vec<ImageId>,
}

impl Store {
    /// Removes everything that is unreferenced: layers, blobs, files without rows and rows without files.
    ///
    /// The first call also says that everybody who needs layers has pinned them by now; before it nothing is freed.
    ///
    /// # Errors
    /// If the disk fails; what was done so far stays done.
    pub fn gc(&self) -> Result<Collected, Error> {
        let shared = &self.shared;
        shared.arm();
        let mut writer = shared.writer();
        let broken_images = shared.forget_broken(&mut writer)?;
        let all: Vec<DiffId> = shared.state().layers.keys().copied().collect();
        let retired = shared.retire(&mut writer, &all, Change::default())?;
        let strays = shared.sweep_strays()?;
        shared.mend_backups()?;
        drop(writer);
        shared.empty(&retired)?;
        Ok(Collected { layers: retired.layers, bytes: retired.bytes, strays, broken_images })
    }
}

impl Shared {
    /// Rows without files: such layers, and the images that need them or a document that is gone.
    fn forget_broken(&self, writer: &mut Writer<'_>) -> Result<Vec<ImageId>, Error> {
        let state = self.state();
        let gone = |id: &DiffId| match state.layers.get(id) {
            Some(row) => self.layout.layer(id, row.kind).symlink_metadata().is_err(),
            None => true,
        };
        let layers: HashSet<DiffId> = state.layers.keys().filter(|id| gone(id)).copied().collect();
        let lost = |document: &Stored| self.layout.blob(&document.digest).symlink_metadata().is_err();
        let broken = |row: &&Arc<ImageRow>| row.record.layers.iter().any(gone) || row.documents.iter().any(lost);
        let images: Vec<ImageId> = state.images.values().filter(broken).map(|row| row.record.id).collect();
        let mut change = Change { images: images.iter().map(|id| (*id, None)).collect(), ..Change::default() };
        for id in &images {
            change.names.extend(state.names_of(*id).map(|(name, _)| (name.clone(), None)));
        }
        change.layers = layers.into_iter().map(|id| (id, None)).collect();
        self.reserve.lend(|| self.commit(writer, &change))?;
        Ok(images)
    }

    /// Files without rows.
    fn sweep_strays(&self) -> Result<usize, Error> {
        let state = self.state();
        let blobs = state.used_blobs();
        let mut strays = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            strays.extend(self.strays("blobs", algorithm, |path| digest_of(algorithm, path).is_some_and(|d| blobs.contains(&d)))?);
            strays.extend(self.strays("layers", algorithm, |path| self.is_layer_of(&state, algorithm, path))?);
            strays.extend(self.strays("images", algorithm, |path| {
                digest_of(algorithm, path).is_some_and(|d| state.images.contains_key(&ImageId::new(d)))
            })?);
        }
        for path in &strays {
            if let Some(trash) = remove::to_trash(path, &self.layout)? {
                self.broom.delete(trash);
            }
        }
        Ok(strays.len())
    }

    fn strays(&self, directory: &str, algorithm: &str, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, Error> {
        let mut found = disk::list(&self.layout.at(directory).join(algorithm))?;
        found.retain(|path| !wanted(path));
        Ok(found)
    }

    fn is_layer_of(&self, state: &State, algorithm: &str, path: &Path) -> bool {
        let Some(id) = digest_of(algorithm, path).map(DiffId::new) else { return false };
        state.layers.get(&id).is_some_and(|row| self.layout.layer(&id, row.kind) == path)
    }

    /// A crash between an image's file and the database leaves a file that says something else.
    fn mend_backups(&self) -> Result<(), Error> {
        let state = self.state();
        for image in state.images.values() {
            let bytes = backup::encode(&state, image);
            let found = disk::read(&self.layout.backup(&image.record.id), bytes.len() as u64 + 1).ok().flatten();
            if found.is_none_or(|found| found != bytes) {
                backup::write(&self.layout, &state, image)?;
            }
        }
        Ok(())
    }
}
