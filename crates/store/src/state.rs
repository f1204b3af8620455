//! The database's contents in memory, and changes of them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use model::{DiffId, Digest, ImageId};

use crate::schema::{ImageRow, LayerRow, NameRow};

/// Everything that is known of images. Cheap enough to copy: rows are shared.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) images: BTreeMap<ImageId, Arc<ImageRow>>,
    pub(crate) names: BTreeMap<Arc<str>, Arc<NameRow>>,
    pub(crate) layers: HashMap<DiffId, Arc<LayerRow>>,
    pub(crate) by_blob: HashMap<Digest, DiffId>,
}

/// Rows to be put (`Some`) and to be forgotten (`None`), all or none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub(crate) images: Vec<(ImageId, Option<Arc<ImageRow>>)>,
    pub(crate) names: Vec<(Arc<str>, Option<Arc<NameRow>>)>,
    pub(crate) layers: Vec<(DiffId, Option<Arc<LayerRow>>)>,
}

impl Change {
    pub(crate) fn is_empty(&self) -> bool {
        self.images.is_empty() && self.names.is_empty() && self.layers.is_empty()
    }
}

impl State {
    pub(crate) fn apply(&mut self, change: &Change) {
        for (id, row) in &change.images {
            match row {
                Some(row) => drop(self.images.insert(*id, row.clone())),
                None => drop(self.images.remove(id)),
            }
        }
        for (name, row) in &change.names {
            match row {
                Some(row) => drop(self.names.insert(name.clone(), row.clone())),
                None => drop(self.names.remove(name)),
            }
        }
        for (id, row) in &change.layers {
            if self.layers.remove(id).is_some() {
                self.by_blob.retain(|_, layer| layer != id);
            }
            if let Some(row) = row {
                self.by_blob.extend(row.blobs.iter().map(|blob| (*blob, *id)));
                self.layers.insert(*id, row.clone());
            }
        }
    }

    /// The names of an image.
    pub(crate) fn names_of(&self, image: ImageId) -> impl Iterator<Item = (&Arc<str>, &Arc<NameRow>)> {
        self.names.iter().filter(move |(_, row)| row.image == image)
    }

    /// Layers that some image needs.
    pub(crate) fn used_layers(&self) -> HashSet<DiffId> {
        self.images.values().flat_map(|row| row.record.layers.iter().copied()).collect()
    }

    /// Blobs that some image needs.
    pub(crate) fn used_blobs(&self) -> HashSet<Digest> {
        self.images.values().flat_map(|row| row.documents.iter().map(|d| d.digest)).collect()
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.names.values().map(|row| row.sequence).max().unwrap_or(0) + 1
    }
}
