//! Layers in use: a pinned layer is never freed, whatever happens to the images that brought it.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::DiffId;

use crate::sweeper::Broom;

/// How often each layer is pinned.
#[derive(Debug)]
pub(crate) struct Pins {
    counts: Mutex<HashMap<DiffId, u32>>,
    broom: Broom,
}

/// The table of pins, held still.
pub(crate) type Held<'a> = MutexGuard<'a, HashMap<DiffId, u32>>;

impl Pins {
    pub(crate) fn new(broom: Broom) -> Self {
        Self { counts: Mutex::default(), broom }
    }

    pub(crate) fn hold(&self) -> Held<'_> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pin(self: &Arc<Self>, layers: &[DiffId]) -> LayerPins {
        let mut counts = self.hold();
        for layer in layers {
            *counts.entry(*layer).or_default() += 1;
        }
        drop(counts);
        LayerPins { pins: self.clone(), layers: layers.into() }
    }
}

/// Keeps layers from being freed as long as it lives. Pinning a layer that is not there (yet) is fine.
pub struct LayerPins {
    pins: Arc<Pins>,
    layers: Box<[DiffId]>,
}

impl LayerPins {
    /// What is pinned.
    pub fn layers(&self) -> &[DiffId] {
        &self.layers
    }
}

impl fmt::Debug for LayerPins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LayerPins").field(&self.layers).finish()
    }
}

impl Drop for LayerPins {
    fn drop(&mut self) {
        let mut counts = self.pins.hold();
        let mut free = Vec::new();
        for layer in &self.layers {
            match counts.get_mut(layer) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    counts.remove(layer);
                    free.push(*layer);
                }
            }
        }
        drop(counts);
        if !free.is_empty() {
            self.pins.broom.collect(free);
        }
    }
}
