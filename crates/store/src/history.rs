//! What is remembered of builds that were asked for: a record each, and beside it what its steps have said. They are there to be
//! lost, so that nobody waits for the disk.

use model::BuildId;

use crate::{
    Error, Store,
    disk::{self, Sync},
    envelope,
    record::Loaded,
};

const HISTORY: &str = "records/history";
const TRANSCRIPTS: &str = "records/transcripts";
/// Far more than a transcript has.
const LIMIT: u64 = 16 << 20;

impl Store {
    /// Writes the record of a build.
    ///
    /// # Errors
    /// As [`Store::put_pod`].
    pub fn put_build(&self, id: BuildId, payload: &[u8]) -> Result<(), Error> {
        self.put(HISTORY, &id.to_string(), payload, Sync::Later)
    }

    /// Writes what the steps of a build have said, whose record is there.
    ///
    /// # Errors
    /// As [`Store::put_pod`].
    pub fn put_transcript(&self, id: BuildId, payload: &[u8]) -> Result<(), Error> {
        self.put(TRANSCRIPTS, &id.to_string(), payload, Sync::Later)
    }

    /// What the steps of a build have said; `None`: there is nothing, or it is damaged.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn transcript(&self, id: BuildId) -> Result<Option<Vec<u8>>, Error> {
        let found = disk::read(&self.shared.layout.at(TRANSCRIPTS).join(id.to_string()), LIMIT)?;
        Ok(found.and_then(|bytes| envelope::open(&bytes).ok().map(<[u8]>::to_vec)))
    }

    /// Removes everything of a build; not there is fine.
    ///
    /// # Errors
    /// What unlink(2) says; what is left then has its record.
    pub fn remove_build(&self, id: BuildId) -> Result<(), Error> {
        let gone = |directory| disk::unlink(&self.shared.layout.at(directory).join(id.to_string()));
        gone(TRANSCRIPTS)?;
        gone(HISTORY)
    }

    /// All records of builds. Damaged ones are put aside and reported.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn load_builds(&self) -> Result<Loaded<BuildId>, Error> {
        self.load(HISTORY)
    }
}
