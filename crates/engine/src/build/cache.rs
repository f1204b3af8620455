//! What steps of earlier builds have made. A record per step on the disk, its layer pinned as long as the record is there; what is
//! lost is built again.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use minicbor::{Decode, Encode};
use model::{DiffId, StepId, pod::Timestamp};
use store::{LayerPins, Store};

use super::kept::{Keeper, Kept, KeptKind};
use crate::{clock, record};

/// Steps that are remembered; how many bytes, says the configuration.
const MOST: usize = 2000;
/// When it is written down that something was used: nanoseconds since it was written last.
const HOUR: Timestamp = 3_600_000_000_000;
/// Characters of an instruction that are kept for people.
const SHOWN: usize = 200;

/// What a step has made, on the disk. Field numbers are for ever.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Made {
    /// When, as images say it.
    #[n(0)]
    pub(super) created: String,
    /// Its layer, if it has written anything.
    #[n(1)]
    pub(super) layer: Option<DiffId>,
    /// Bytes of the layer's archive.
    #[n(2)]
    pub(super) size: u64,
    #[n(3)]
    pub(super) at: Timestamp,
    /// When it was last used; `None`: when it was made.
    #[n(4)]
    used: Option<Timestamp>,
    #[n(5)]
    uses: Option<u64>,
    /// The instruction, for people.
    #[n(6)]
    what: Option<String>,
}

#[derive(Debug)]
struct Entry {
    made: Made,
    /// What the record on the disk says of its last use.
    written: Timestamp,
    /// Whoever else has them is a build that needs the layer.
    pins: Arc<LayerPins>,
}

impl Entry {
    fn new(made: Made, pins: Arc<LayerPins>) -> Self {
        Self { written: made.used(), made, pins }
    }

    fn in_use(&self) -> bool {
        Arc::strong_count(&self.pins) > 1
    }
}

/// All steps that are remembered.
#[derive(Debug)]
pub(crate) struct Cache {
    store: Arc<Store>,
    entries: Mutex<HashMap<StepId, Entry>>,
    /// Held by who changes records on the disk.
    records: Mutex<()>,
    /// Steps that are being made, each by one at a time.
    turns: Mutex<HashMap<StepId, Weak<Turn>>>,
}

/// Who holds it makes a step.
pub(super) type Turn = tokio::sync::Mutex<()>;

impl Cache {
    /// An empty one: see [`Cache::load`].
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, entries: Mutex::default(), records: Mutex::default(), turns: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StepId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the records and pins their layers, which is to be done before anything is freed. Blocks.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn load(&self) -> Result<(), store::Error> {
        let (found, damaged) = self.store.load_steps()?;
        for damaged in &damaged {
            tracing::warn!(record = %damaged, "damaged record put aside");
        }
        for (id, bytes) in found {
            let made = minicbor::decode::<Made>(&bytes).ok();
            let pins = made.as_ref().map(|made| Arc::new(self.store.pin(made.layer.as_slice())));
            match made.zip(pins) {
                Some((made, pins)) if self.is_there(&made) => drop(self.lock().insert(id, Entry::new(made, pins))),
                _ => self.store.remove_step(id)?,
            }
        }
        Ok(())
    }

    /// What is to be held while a step is looked for and made: two builds do not make the same at the same time.
    pub(super) fn turn(&self, id: StepId) -> Arc<Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(&id).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(id, Arc::downgrade(&turn));
        turn
    }

    fn is_there(&self, made: &Made) -> bool {
        made.layer.is_none_or(|layer| self.store.layer(&layer).is_some())
    }

    /// What a step has made before, with its layer pinned.
    pub(super) fn find(&self, id: StepId) -> Option<(Made, Arc<LayerPins>)> {
        let mut entries = self.lock();
        let entry = entries.get_mut(&id)?;
        if !self.is_there(&entry.made) {
            return None;
        }
        entry.made.used = Some(clock::now());
        entry.made.uses = Some(entry.made.uses.unwrap_or_default() + 1);
        Some((entry.made.clone(), entry.pins.clone()))
    }

    /// Remembers a step, whose layer is pinned by the caller; the longest unused are forgotten when there are too many. Blocks.
    ///
    /// # Errors
    /// If the disk fails.
    pub(super) fn put(&self, id: StepId, made: Made) -> Result<Arc<LayerPins>, store::Error> {
        let pins = Arc::new(self.store.pin(made.layer.as_slice()));
        let _records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        self.store.put_step(id, &record::encode(&made))?;
        let old = {
            let mut entries = self.lock();
            entries.insert(id, Entry::new(made, pins.clone()));
            let mut by_use: Vec<_> = entries.iter().filter(|(_, entry)| !entry.in_use()).collect();
            by_use.sort_unstable_by_key(|(id, entry)| (entry.made.used(), **id));
            let old: Vec<StepId> = by_use.into_iter().take(entries.len().saturating_sub(MOST)).map(|(id, _)| *id).collect();
            old.into_iter().filter_map(|id| entries.remove(&id).map(|entry| (id, entry))).collect::<Vec<_>>()
        };
        // Records go before what they name.
        old.iter().try_for_each(|(id, _)| self.store.remove_step(*id))?;
        Ok(pins)
    }

    /// Writes down what was used since it was last written down, an hour or more ago. Blocks.
    ///
    /// # Errors
    /// If the disk fails.
    pub(super) fn settle(&self) -> Result<(), store::Error> {
        let _records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |entry: &&mut Entry| entry.made.used() > entry.written + HOUR;
        let due: Vec<(StepId, Made)> = {
            let mut entries = self.lock();
            let due = entries.iter_mut().map(|(id, entry)| (*id, entry)).filter(|(_, entry)| is_due(entry));
            let note = |(id, entry): (StepId, &mut Entry)| {
                entry.written = entry.made.used();
                (id, entry.made.clone())
            };
            due.map(note).collect()
        };
        due.iter().try_for_each(|(id, made)| self.store.put_step(*id, &record::encode(made)))
    }

    /// Layers that images have.
    fn of_images(&self) -> HashSet<DiffId> {
        self.store.images().into_iter().flat_map(|image| image.record.layers).collect()
    }
}

impl Keeper for Cache {
    fn kept(&self) -> Vec<Kept> {
        let images = self.of_images();
        let entries = self.lock();
        let mut all: Vec<_> = entries.iter().collect();
        all.sort_unstable_by_key(|(id, entry)| (std::cmp::Reverse(entry.made.used()), **id));
        let mut counted = HashSet::new();
        let one = |(id, entry): (&StepId, &Entry)| {
            let Made { at, uses, what, layer, .. } = &entry.made;
            let size = layer.filter(|layer| counted.insert(*layer)).and_then(|layer| self.store.layer(&layer));
            Kept {
                id: id.to_string(),
                kind: KeptKind::Step,
                what: what.clone().unwrap_or_default(),
                size: size.map_or(0, |layer| layer.bytes),
                created: *at,
                used: entry.made.used(),
                uses: uses.unwrap_or_default(),
                in_use: entry.in_use(),
                shared: layer.is_some_and(|layer| images.contains(&layer)),
            }
        };
        all.into_iter().map(one).collect()
    }

    fn forget(&self, id: &str) -> Result<Option<u64>, store::Error> {
        let Ok(id) = id.parse::<StepId>() else { return Ok(None) };
        let _records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let images = self.of_images();
        let (entry, bytes) = {
            let mut entries = self.lock();
            if entries.get(&id).is_none_or(Entry::in_use) {
                return Ok(None);
            }
            let Some(entry) = entries.remove(&id) else { return Ok(None) };
            let is_alone =
                |layer: &DiffId| !images.contains(layer) && !entries.values().any(|other| other.made.layer.as_ref() == Some(layer));
            let alone = entry.made.layer.filter(is_alone).and_then(|layer| self.store.layer(&layer));
            (entry, alone.map_or(0, |layer| layer.bytes))
        };
        self.store.remove_step(id)?;
        drop(entry);
        Ok(Some(bytes))
    }
}

impl Made {
    /// Something that was made now.
    pub(super) fn now(layer: Option<(DiffId, u64)>) -> Self {
        let at = clock::now();
        let (layer, size) = layer.map_or((None, 0), |(layer, size)| (Some(layer), size));
        let created = model::time::rfc3339(at).to_string();
        Self { created, layer, size, at, used: None, uses: None, what: None }
    }

    /// With the instruction that has made it, for people.
    pub(super) fn by(self, what: &str) -> Self {
        Self { what: Some(what.chars().take(SHOWN).collect()), ..self }
    }

    /// The instruction, for people.
    pub(super) fn what(&self) -> &str {
        self.what.as_deref().unwrap_or_default()
    }

    fn used(&self) -> Timestamp {
        self.used.unwrap_or(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path().join("store")).unwrap());
        (dir, Cache::new(store))
    }

    fn id(n: u16) -> StepId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        StepId::from_bytes(bytes)
    }

    #[test]
    fn the_longest_unused_go_first() {
        let (_dir, cache) = cache();
        let most = u16::try_from(MOST).unwrap();
        for n in 0..most {
            cache.put(id(n), Made::now(None).by("RUN true")).unwrap();
        }
        let held = cache.find(id(1)).unwrap().1;
        cache.find(id(0)).unwrap();
        cache.put(id(most), Made::now(None)).unwrap();
        cache.put(id(most + 1), Made::now(None)).unwrap();
        let there: Vec<u16> = (0..5).filter(|n| cache.find(id(*n)).is_some()).collect();
        assert_eq!(there, [0, 1, 4], "used, held, and not so old");
        assert_eq!(cache.forget(&id(1).to_string()).unwrap(), None, "a build needs it");
        drop(held);
        assert_eq!(cache.forget(&id(1).to_string()).unwrap(), Some(0));
        assert_eq!(cache.forget(&id(1).to_string()).unwrap(), None, "it is gone");
        assert_eq!(cache.forget("no id").unwrap(), None);
        assert_eq!(cache.kept().iter().find(|kept| kept.id == id(4).to_string()).unwrap().what, "RUN true");
    }

    #[test]
    fn uses_are_written_down_now_and_then() {
        let (_dir, cache) = cache();
        let old = Made { at: 7, ..Made::now(None) };
        cache.put(id(1), old).unwrap();
        cache.find(id(1)).unwrap();
        let again = Cache::new(cache.store.clone());
        again.load().unwrap();
        assert_eq!(again.kept()[0].used, 7);
        cache.settle().unwrap();
        again.load().unwrap();
        let kept = &again.kept()[0];
        assert!(kept.used > HOUR && kept.uses == 1, "{kept:?}");
    }
}
