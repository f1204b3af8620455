//! The store itself: what its parts share.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use model::DiffId;

use crate::{
    Error, LayerPins, Rebuilt, backup,
    database::Database,
    disk,
    layout::Layout,
    lock::Lock,
    pins::Pins,
    reserve::Reserve,
    state::{Change, State},
    sweeper::Broom,
};

/// Durable state below one root directory.
#[derive(Debug)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    pub(crate) sweeper: Option<JoinHandle<()>>,
    pub(crate) rebuilt: Option<Rebuilt>,
}

type OnFreed = Box<dyn Fn(&[DiffId]) + Send + Sync>;

pub(crate) struct Shared {
    pub(crate) layout: Layout,
    pub(crate) pins: Arc<Pins>,
    pub(crate) broom: Broom,
    pub(crate) reserve: Reserve,
    /// Only for looking at and swapping in: never held over I/O.
    state: Mutex<Arc<State>>,
    /// Whoever changes anything holds this from the first look to the last step.
    writer: Mutex<Database>,
    /// Nothing is freed before the first collection: until then not everybody who needs layers has pinned them.
    armed: AtomicBool,
    on_freed: OnceLock<OnFreed>,
    _lock: Lock,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("root", &self.layout.root).finish_non_exhaustive()
    }
}

/// What images use on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// The parts that a store is put together from.
pub(crate) struct Parts {
    pub(crate) layout: Layout,
    pub(crate) broom: Broom,
    pub(crate) reserve: Reserve,
    pub(crate) database: Database,
    pub(crate) state: State,
    pub(crate) lock: Lock,
}

/// The right to change things.
pub(crate) type Writer<'a> = MutexGuard<'a, Database>;

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { layout, broom, reserve, database, state, lock } = parts;
        Self {
            reserve,
            pins: Arc::new(Pins::new(broom.clone())),
            layout,
            broom,
            state: Mutex::new(Arc::new(state)),
            writer: Mutex::new(database),
            armed: AtomicBool::new(false),
            on_freed: OnceLock::new(),
            _lock: lock,
        }
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn swap_state(&self, _writer: &Writer<'_>, next: Arc<State>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }

    pub(crate) fn writer(&self) -> Writer<'_> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change that only adds or renames: the images' descriptions beside the database, the database, memory.
    pub(crate) fn commit(&self, writer: &mut Writer<'_>, change: &Change) -> Result<(), Error> {
        if change.is_empty() {
            return Ok(());
        }
        let before = self.state();
        let mut next = (*before).clone();
        next.apply(change);
        backup::write_changed(&self.layout, &before, &next, change)?;
        writer.commit(change)?;
        self.swap_state(writer, Arc::new(next));
        Ok(())
    }

    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::Release);
    }

    pub(crate) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    pub(crate) fn tell_freed(&self, layers: &[DiffId]) {
        if let Some(listener) = self.on_freed.get().filter(|_| !layers.is_empty()) {
            listener(layers);
        }
    }
}

impl Store {
    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.shared.layout.root
    }

    /// Set if the database had to be rebuilt when the store was opened.
    pub fn rebuilt(&self) -> Option<&Rebuilt> {
        self.rebuilt.as_ref()
    }

    /// Keeps layers from being freed as long as the answer lives.
    pub fn pin(&self, layers: &[DiffId]) -> LayerPins {
        self.shared.pins.pin(layers)
    }

    /// Calls `listener` with layers whose files are about to go, so that mounts of them can be let go of: a mounted
    /// file keeps its blocks. Only the first listener counts. It must not call the store.
    pub fn on_freed(&self, listener: impl Fn(&[DiffId]) + Send + Sync + 'static) {
        self.shared.on_freed.set(Box::new(listener)).ok();
    }

    /// Waits until what runs behind the replies (emptying the trash, freeing layers) has caught up.
    pub fn settle(&self) {
        self.shared.broom.settle();
    }

    /// Makes everything that was written so far below the root durable.
    ///
    /// # Errors
    /// What syncfs(2) says.
    pub fn sync(&self) -> Result<(), Error> {
        disk::sync_file_system(&self.shared.layout.root)
    }

    /// Where images are, and what they use.
    pub fn image_usage(&self) -> (PathBuf, Usage) {
        let state = self.shared.state();
        let mut usage = Usage::default();
        for row in state.layers.values() {
            usage.bytes += row.bytes;
            usage.inodes += row.inodes;
        }
        for document in state.images.values().flat_map(|row| &row.documents) {
            usage.bytes += document.size.next_multiple_of(4096);
            usage.inodes += 1;
        }
        (self.shared.layout.at("layers"), usage)
    }

    /// Where writable layers are.
    pub fn containers_path(&self) -> PathBuf {
        self.shared.layout.containers()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.broom.close();
        if let Some(sweeper) = self.sweeper.take() {
            // It panicked or ended; either way it is gone.
            sweeper.join().ok();
        }
    }
}
