//! Directories that RUN finds again in later builds (`--mount=type=cache`). Each has a name that is a digest (R57), so that whatever
//! a Dockerfile calls it leads nowhere else, and belongs to whoever holds its lock; one that nobody holds may go at any time.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use dockerfile::mount::{Owner, Sharing};
use minicbor::{Decode, Encode};
use model::{ErrorKind, StepId, pod::Timestamp};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, openat};
use store::Store;
use sys::mount::{self, Depth};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::{
    kept::{Keeper, Kept, KeptKind},
    key::Key,
    refuse,
};
use crate::{
    blocking::blocking,
    clock,
    error::{About, Error, Step as _},
    record,
};

/// Mode of a new cache's directory.
const MODE: u32 = 0o755;
/// Caches of one name that are private to somebody, at the same time.
const MOST: u32 = 1000;
/// Characters of a name that are kept for people.
const SHOWN: usize = 200;

/// On the disk. Field numbers are for ever.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Record {
    /// What the Dockerfile calls it.
    #[n(0)]
    name: String,
    #[n(1)]
    created: Timestamp,
    #[n(2)]
    used: Timestamp,
    #[n(3)]
    uses: u64,
}

/// Who holds it for reading shares it, for writing has it alone.
type Lock = RwLock<()>;

/// All caches.
#[derive(Debug)]
pub(crate) struct Caches {
    store: Arc<Store>,
    records: Mutex<HashMap<StepId, Record>>,
    /// Locks that somebody holds or waits for.
    locks: Mutex<HashMap<StepId, Weak<Lock>>>,
}

/// A cache that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// What the Dockerfile calls it.
    pub(super) name: String,
    /// What tells it from others of the same name: what it begins with, and whose it is.
    pub(super) basis: Vec<String>,
    pub(super) sharing: Sharing,
    pub(super) owner: Owner,
}

/// A cache that is somebody's until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    data: PathBuf,
    _guard: Guard,
}

impl Held {
    /// Its directory, detached. Blocks.
    ///
    /// # Errors
    /// What open_tree(2) says.
    pub(super) fn mount(&self, name: &str) -> Result<OwnedFd, Error> {
        let failed = |e| refuse(sys::kind_of(e), format!("cache {name:?}: {e}"));
        mount::clone_path(&self.data, Depth::Top).map_err(failed)
    }
}

#[derive(Debug)]
enum Guard {
    Shared { _lock: OwnedRwLockReadGuard<()> },
    Alone { _lock: OwnedRwLockWriteGuard<()> },
}

impl Wanted {
    /// The name of the directory, of the first of this name or another one.
    fn id(&self, number: u32) -> StepId {
        let owner = format!("{:o} {} {}", self.owner.mode.unwrap_or(MODE), self.owner.uid, self.owner.gid);
        Key::new("cache mount", &[]).part(&self.name).list(&self.basis).part(owner).part(number.to_le_bytes()).id()
    }

    /// In the order of this, caches are locked by everybody.
    pub(super) fn order(&self) -> StepId {
        self.id(0)
    }
}

impl Caches {
    /// None that is known: see [`Caches::load`].
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, records: Mutex::default(), locks: Mutex::default() }
    }

    /// Reads what is there. Blocks.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn load(&self) -> Result<(), store::Error> {
        for (id, bytes) in self.store.load_caches()? {
            match minicbor::decode::<Record>(&bytes) {
                Ok(record) => drop(self.records().insert(id, record)),
                Err(_) => self.store.remove_cache(id)?,
            }
        }
        Ok(())
    }

    fn records(&self) -> MutexGuard<'_, HashMap<StepId, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self, id: StepId) -> Arc<Lock> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(&id).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        locks.insert(id, Arc::downgrade(&lock));
        lock
    }

    /// Gets hold of a cache; one that is somebody else's alone is waited for, as long as that takes. One that is not there is made,
    /// and filled by `fill`.
    ///
    /// # Errors
    /// If the disk fails; what `fill` says.
    pub(super) async fn hold(
        self: &Arc<Self>,
        wanted: Wanted,
        fill: impl FnOnce(&OwnedFd) -> std::io::Result<()> + Send + 'static,
    ) -> Result<Held, Error> {
        let (id, guard) = match wanted.sharing {
            Sharing::Shared => (wanted.id(0), Guard::Shared { _lock: self.lock(wanted.id(0)).read_owned().await }),
            Sharing::Locked => (wanted.id(0), Guard::Alone { _lock: self.lock(wanted.id(0)).write_owned().await }),
            Sharing::Private => {
                let free = |number| Some((wanted.id(number), self.lock(wanted.id(number)).try_write_owned().ok()?));
                let many = || refuse(ErrorKind::ResourceExhausted, format!("cache {:?}: {MOST} are in use", wanted.name));
                let (id, lock) = (0..MOST).find_map(free).ok_or_else(many)?;
                (id, Guard::Alone { _lock: lock })
            }
        };
        let caches = self.clone();
        let data = blocking(move || caches.open(id, &wanted, fill)).await?;
        Ok(Held { data, _guard: guard })
    }

    fn open(&self, id: StepId, wanted: &Wanted, fill: impl FnOnce(&OwnedFd) -> std::io::Result<()>) -> Result<PathBuf, Error> {
        let now = clock::now();
        let known = self.records().get(&id).cloned();
        let record = match known {
            Some(known) => Record { used: now, uses: known.uses + 1, ..known },
            None => Record { name: wanted.name.chars().take(SHOWN).collect(), created: now, used: now, uses: 1 },
        };
        let bytes = record::encode(&record);
        let made = self.store.create_cache(id, &bytes, |new| {
            let directory =
                openat(CWD, new, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            fill(&directory)?;
            let Owner { mode, uid, gid } = wanted.owner;
            if !wanted.basis.is_empty() && wanted.owner == Owner::default() {
                return Ok(());
            }
            fchown(&directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            Ok(fchmod(&directory, Mode::from_raw_mode(mode.unwrap_or(MODE)))?)
        });
        if !made.step(About::Words, "make a cache")? {
            self.store.put_cache(id, &bytes).step(About::Words, "write down that a cache is used")?;
        }
        self.records().insert(id, record);
        Ok(self.store.cache_data(id))
    }
}

impl Keeper for Arc<Caches> {
    fn kept(&self) -> Vec<Kept> {
        let all: Vec<_> = self.records().iter().map(|(id, record)| (*id, record.clone())).collect();
        let one = |(id, record): (StepId, Record)| Kept {
            id: id.to_string(),
            kind: KeptKind::Mount,
            what: format!("cached mount {}", record.name),
            size: crate::stats::tree_bytes(&self.store.cache_data(id)),
            created: record.created,
            used: record.used,
            uses: record.uses,
            in_use: self.lock(id).try_write().is_err(),
            shared: false,
        };
        all.into_iter().map(one).collect()
    }

    fn forget(&self, id: &str) -> Result<Option<u64>, store::Error> {
        let Ok(id) = id.parse::<StepId>() else { return Ok(None) };
        let lock = self.lock(id);
        // Who waits for it finds it gone and makes another one.
        let Ok(_alone) = lock.try_write() else { return Ok(None) };
        if !self.records().contains_key(&id) {
            return Ok(None);
        }
        let bytes = crate::stats::tree_bytes(&self.store.cache_data(id));
        self.store.remove_cache(id)?;
        self.records().remove(&id);
        Ok(Some(bytes))
    }
}
