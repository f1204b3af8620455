//! What steps of earlier builds have made. A record per step on the disk, its layer pinned as long as the record is there; what is
//! lost is built again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use minicbor::{Decode, Encode};
use model::{DiffId, StepId, pod::Timestamp};
use store::{LayerPins, Store};

use crate::{clock, record};

/// Steps that are remembered.
const MOST: usize = 2000;
/// Bytes of the layers that are kept for them, as archives.
const LARGEST: u64 = 10 << 30;

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
}

#[derive(Debug)]
struct Entry {
    made: Made,
    _pins: LayerPins,
}

/// All steps that are remembered.
#[derive(Debug)]
pub(crate) struct Cache {
    store: Arc<Store>,
    entries: Mutex<HashMap<StepId, Entry>>,
    /// Steps that are being made, each by one at a time.
    turns: Mutex<HashMap<StepId, Weak<Turn>>>,
}

/// Who holds it makes a step.
pub(super) type Turn = tokio::sync::Mutex<()>;

impl Cache {
    /// An empty one: see [`Cache::load`].
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, entries: Mutex::default(), turns: Mutex::default() }
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
            let pins = made.as_ref().map(|made| self.store.pin(made.layer.as_slice()));
            match made.zip(pins) {
                Some((made, pins)) if self.is_there(&made) => drop(self.lock().insert(id, Entry { made, _pins: pins })),
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
    pub(super) fn find(&self, id: StepId) -> Option<(Made, LayerPins)> {
        let entries = self.lock();
        let made = &entries.get(&id)?.made;
        let pins = self.store.pin(made.layer.as_slice());
        self.is_there(made).then(|| (made.clone(), pins))
    }

    /// Remembers a step; the oldest are forgotten when there are too many. Blocks.
    ///
    /// # Errors
    /// If the disk fails.
    pub(super) fn put(&self, id: StepId, made: Made) -> Result<(), store::Error> {
        let pins = self.store.pin(made.layer.as_slice());
        self.store.put_step(id, &record::encode(&made))?;
        let old = {
            let mut entries = self.lock();
            entries.insert(id, Entry { made, _pins: pins });
            let kept: HashMap<StepId, Made> = entries.iter().map(|(id, entry)| (*id, entry.made.clone())).collect();
            let old = too_many(&kept, MOST, LARGEST);
            old.into_iter().filter_map(|id| entries.remove(&id).map(|entry| (id, entry))).collect::<Vec<_>>()
        };
        // Records go before what they name.
        old.iter().try_for_each(|(id, _)| self.store.remove_step(*id))
    }

    /// Forgets everything; layers that no image has go. Answers how many bytes of archives were kept. Blocks.
    ///
    /// # Errors
    /// If the disk fails; what was forgotten until then is.
    pub(super) fn clear(&self) -> Result<u64, store::Error> {
        let all: Vec<(StepId, Entry)> = self.lock().drain().collect();
        all.iter().try_for_each(|(id, _)| self.store.remove_step(*id))?;
        Ok(all.iter().map(|(_, entry)| entry.made.size).sum())
    }
}

/// The oldest steps, without which there are not too many.
fn too_many(entries: &HashMap<StepId, Made>, most: usize, largest: u64) -> Vec<StepId> {
    let mut by_age: Vec<_> = entries.iter().map(|(id, made)| (made.at, *id, made.size)).collect();
    by_age.sort_unstable();
    let (mut count, mut size) = (by_age.len(), by_age.iter().map(|(_, _, size)| size).sum::<u64>());
    let over = |(_, id, bytes): (Timestamp, StepId, u64)| {
        let gone = count > most || size > largest;
        count -= 1;
        size -= bytes;
        gone.then_some(id)
    };
    by_age.into_iter().map_while(over).collect()
}

impl Made {
    /// Something that was made now.
    pub(super) fn now(layer: Option<(DiffId, u64)>) -> Self {
        let at = clock::now();
        let (layer, size) = layer.map_or((None, 0), |(layer, size)| (Some(layer), size));
        Self { created: model::time::rfc3339(at).to_string(), layer, size, at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first() {
        let made = |at, size| Made { created: String::new(), layer: None, size, at };
        let id = |n| StepId::from_bytes([n; 32]);
        let entries = HashMap::from([(id(1), made(30, 5)), (id(2), made(10, 5)), (id(3), made(20, 5))]);
        assert_eq!(too_many(&entries, 3, 15), []);
        assert_eq!(too_many(&entries, 2, 15), [id(2)]);
        assert_eq!(too_many(&entries, 9, 9), [id(2), id(3)]);
        assert_eq!(too_many(&entries, 0, 99).len(), 3);
    }
}
