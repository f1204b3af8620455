//! Volumes: directories that outlive the containers that use them.
//!
//! A volume is in use as long as a container of a person's has it, running or not. Whoever makes such a container claims
//! its volumes before the container is to be seen, and after a start before anything is removed; the same lock guards claims
//! and removals, so that nobody gets a volume that is on its way out.

mod error;
mod fill;
mod memory;
mod options;
mod record;
mod uses;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::{ContainerId, VolumeName};

pub use error::Error;
pub(crate) use fill::Wanted;
pub(crate) use options::{Memory, Source};
pub(crate) use record::VolumeRecord;
pub(crate) use uses::Place;

use crate::{
    clock, failpoint,
    user::{UserEventKind, events::Bus},
};

/// The volumes of a store. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Volumes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<store::Store>,
    bus: Arc<Bus>,
    /// Only for looking at and changing: never held over I/O.
    entries: Mutex<BTreeMap<VolumeName, Entry>>,
    /// Who runs with which volume in memory. Taken before `entries`.
    runs: Mutex<BTreeMap<VolumeName, BTreeSet<ContainerId>>>,
    /// Whoever makes, claims or removes volumes holds this from the first look to the last step.
    writer: Mutex<()>,
}

/// A volume in memory.
#[derive(Debug)]
struct Entry {
    record: Arc<VolumeRecord>,
    users: BTreeSet<ContainerId>,
    /// Held while something of an image is copied into it.
    filling: Arc<Mutex<()>>,
}

/// What a volume is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewVolume {
    /// Empty: one is invented, and nobody minds if it goes.
    pub name: String,
    /// Of mount(8): type, o, device.
    pub options: BTreeMap<String, String>,
    /// For people.
    pub labels: BTreeMap<String, String>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its name.
    pub name: VolumeName,
    /// As it was made with.
    pub options: BTreeMap<String, String>,
    /// As it was made with.
    pub labels: BTreeMap<String, String>,
    /// Its directory on this machine.
    pub mountpoint: PathBuf,
    /// Nanoseconds since 1970.
    pub created_at: i64,
    /// Nobody chose its name.
    pub anonymous: bool,
    /// Containers that have it.
    pub used_by: Vec<ContainerId>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Volumes {
    /// The volumes of an open store.
    pub(crate) fn open(store: Arc<store::Store>, bus: Arc<Bus>) -> Result<Self, Error> {
        let volumes = Self {
            shared: Arc::new(Shared { store, bus, entries: Mutex::default(), runs: Mutex::default(), writer: Mutex::default() }),
        };
        volumes.load()?;
        Ok(volumes)
    }

    /// Learns what is on disk and not known yet.
    fn load(&self) -> Result<(), Error> {
        for found in self.shared.store.load_volumes().map_err(Error::List)? {
            let record = found.record.and_then(|bytes| VolumeRecord::decode(&bytes)).unwrap_or_else(|why| {
                tracing::warn!(volume = %found.name, why, "the record of a volume is damaged: it is kept without labels and options");
                VolumeRecord::default()
            });
            clock::seen(record.created_at);
            lock(&self.shared.entries).entry(found.name).or_insert_with(|| Entry::new(record));
        }
        Ok(())
    }

    /// Makes a volume, or finds the one with this name.
    ///
    /// # Errors
    /// A name that is none, options that mean nothing to us, other options than those of the volume that is there.
    pub fn create(&self, new: NewVolume) -> Result<VolumeInfo, Error> {
        let _writer = lock(&self.shared.writer);
        let name = self.make(new)?;
        self.get(name.as_str())
    }

    /// The writer's lock is the caller's to hold.
    fn make(&self, new: NewVolume) -> Result<VolumeName, Error> {
        Source::read(&new.options)?;
        let anonymous = new.name.is_empty();
        let name = if anonymous { VolumeName::anonymous(crate::random_id()) } else { new.name.parse()? };
        if let Some(entry) = lock(&self.shared.entries).get(&name) {
            return entry.record.agrees(&name, &new.options).map(|()| name.clone());
        }
        let NewVolume { options, labels, .. } = new;
        let record = VolumeRecord { created_at: clock::now(), anonymous, options, labels };
        failpoint::hit("volume.create", crate::About::Engine).map_err(Error::Failpoint)?;
        let failed = |e| Error::Create(name.to_string(), Box::new(e));
        if self.shared.store.create_volume(&name, &crate::record::encode(&record)).map_err(failed)? {
            lock(&self.shared.entries).insert(name.clone(), Entry::new(record));
            self.tell("create", &name);
        } else {
            // An earlier attempt got this far and was told that the disk failed.
            self.load()?;
        }
        Ok(name)
    }

    /// All volumes, by name.
    pub fn list(&self) -> Vec<VolumeInfo> {
        lock(&self.shared.entries).iter().map(|(name, entry)| self.info(name, entry)).collect()
    }

    /// A volume by its name.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> Result<VolumeInfo, Error> {
        let found = name.parse().ok().and_then(|name| lock(&self.shared.entries).get(&name).map(|entry| self.info(&name, entry)));
        found.ok_or_else(|| Error::Missing(name.chars().take(255).collect()))
    }

    fn info(&self, name: &VolumeName, entry: &Entry) -> VolumeInfo {
        VolumeInfo {
            name: name.clone(),
            options: entry.record.options.clone(),
            labels: entry.record.labels.clone(),
            mountpoint: self.shared.store.volume_dir(name).data,
            created_at: entry.record.created_at,
            anonymous: entry.record.anonymous,
            used_by: entry.users.iter().copied().collect(),
        }
    }

    /// Removes a volume with what is in it.
    ///
    /// # Errors
    /// It is not there; a container has it.
    pub fn remove(&self, name: &str) -> Result<VolumeInfo, Error> {
        let _writer = lock(&self.shared.writer);
        let volume = self.get(name)?;
        self.take(volume)
    }

    /// Removes those that no container has and that are `wanted`. Answers what went, with its bytes.
    ///
    /// # Errors
    /// If the disk fails; what went before has gone.
    pub fn prune(&self, wanted: impl Fn(&VolumeInfo) -> bool) -> Result<Vec<(VolumeInfo, u64)>, Error> {
        let mut gone = Vec::new();
        for volume in self.list().into_iter().filter(|volume| volume.used_by.is_empty() && wanted(volume)) {
            let bytes = self.size(&volume);
            match self.remove(volume.name.as_str()) {
                Ok(volume) => gone.push((volume, bytes)),
                // Somebody was faster, one way or the other.
                Err(Error::InUse { .. } | Error::Missing(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(gone)
    }

    /// The writer's lock is the caller's to hold.
    fn take(&self, volume: VolumeInfo) -> Result<VolumeInfo, Error> {
        if !volume.used_by.is_empty() {
            return Err(Error::in_use(&volume));
        }
        failpoint::hit("volume.remove", crate::About::Engine).map_err(Error::Failpoint)?;
        self.shared.store.remove_volume(&volume.name).map_err(|e| Error::Remove(volume.name.to_string(), Box::new(e)))?;
        lock(&self.shared.entries).remove(&volume.name);
        self.tell("destroy", &volume.name);
        Ok(volume)
    }

    fn tell(&self, action: &str, name: &VolumeName) {
        self.shared.bus.tell(UserEventKind::Volume, action, name, [("driver".to_owned(), "local".to_owned())].into());
    }

    /// Bytes on disk; of a volume that lies elsewhere: none of ours. Walks, so it takes its time.
    pub fn size(&self, volume: &VolumeInfo) -> u64 {
        if volume.options.is_empty() { crate::stats::tree_bytes(&volume.mountpoint) } else { 0 }
    }
}

impl Entry {
    fn new(record: VolumeRecord) -> Self {
        Self { record: Arc::new(record), users: BTreeSet::new(), filling: Arc::default() }
    }
}

#[cfg(test)]
mod tests;
