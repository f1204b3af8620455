//! Directories that builds keep (`RUN --mount=type=cache`): each with its record beside its data, like a volume. They are there to
//! be lost: what is damaged goes.

use std::path::PathBuf;

use model::StepId;

use crate::{
    Error, Store,
    disk::{self, Sync},
    envelope, remove,
    volume::{DATA, RECORD},
};

/// A record is a few words.
const LIMIT: u64 = 1 << 20;

impl Store {
    fn cache_path(&self, id: StepId) -> PathBuf {
        self.shared.layout.at("caches").join(id.to_string())
    }

    /// Where the data of a cache are or would be: a name that is a digest, whatever the cache is called.
    pub fn cache_data(&self, id: StepId) -> PathBuf {
        self.cache_path(id).join(DATA)
    }

    /// Makes a cache, which is there only once `fill` has filled it. `false`: it is there, and stays as it is.
    ///
    /// # Errors
    /// If the disk is full or fails, and what `fill` says; there is no such cache then.
    pub fn create_cache(
        &self,
        id: StepId,
        record: &[u8],
        fill: impl FnOnce(&std::path::Path) -> std::io::Result<()>,
    ) -> Result<bool, Error> {
        self.create_with_record(&self.cache_path(id), record, fill)
    }

    /// Writes another record of a cache, without waiting for the disk.
    ///
    /// # Errors
    /// If the disk is full or fails, or the cache has gone.
    pub fn put_cache(&self, id: StepId, record: &[u8]) -> Result<(), Error> {
        let path = self.cache_path(id).join(RECORD);
        disk::write(&path, &self.shared.layout.temporary(), &envelope::seal(record), Sync::Later)
    }

    /// Removes a cache: out of sight at once, its bytes soon after. Not there is fine.
    ///
    /// # Errors
    /// What rename(2) says.
    pub fn remove_cache(&self, id: StepId) -> Result<(), Error> {
        if let Some(trash) = remove::to_trash(&self.cache_path(id), &self.shared.layout)? {
            self.shared.broom.delete(trash);
        }
        Ok(())
    }

    /// All caches with their records. What is damaged, or no cache at all, is removed.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn load_caches(&self) -> Result<Vec<(StepId, Vec<u8>)>, Error> {
        let mut found = Vec::new();
        for path in disk::list(&self.shared.layout.at("caches"))? {
            let id = path.file_name().unwrap_or_default().to_string_lossy().parse::<StepId>().ok();
            let record = disk::read(&path.join(RECORD), LIMIT).ok().flatten();
            let payload = record.as_deref().and_then(|bytes| envelope::open(bytes).ok().map(<[u8]>::to_vec));
            match id.zip(payload) {
                Some(cache) => found.push(cache),
                None => {
                    remove::to_trash(&path, &self.shared.layout)?.into_iter().for_each(|trash| self.shared.broom.delete(trash));
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}
