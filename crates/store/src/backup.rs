//! One small file per image beside the database, so that a lost database costs nothing that is on disk.

use std::{collections::BTreeSet, sync::Arc};

use minicbor::{Decode, Encode};
use model::{DiffId, ImageId};

use crate::{
    disk::{self, Sync},
    envelope,
    error::Error,
    layout::{Layout, digest_of},
    schema::{self, ImageRow, LayerRow, NameRow},
    state::{Change, State},
};

/// Everything the database knows about one image.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
struct Backup {
    #[n(0)]
    image: ImageRow,
    #[n(1)]
    names: Vec<(String, NameRow)>,
    #[n(2)]
    layers: Vec<(DiffId, LayerRow)>,
}

/// Far more than 256 layers and a few thousand names need.
const LIMIT: u64 = 16 << 20;

/// The bytes of an image's file.
pub(crate) fn encode(state: &State, image: &ImageRow) -> Vec<u8> {
    let backup = Backup {
        names: state.names_of(image.record.id).map(|(name, row)| (name.to_string(), (**row).clone())).collect(),
        layers: image.record.layers.iter().filter_map(|id| Some((*id, (**state.layers.get(id)?).clone()))).collect(),
        image: image.clone(),
    };
    envelope::seal(&schema::encode(&backup))
}

/// Writes the files of all images that a change touches. A file that is newer than the database after a crash is put
/// right by the next collection.
pub(crate) fn write_changed(layout: &Layout, before: &State, next: &State, change: &Change) -> Result<(), Error> {
    let mut touched: BTreeSet<ImageId> = change.images.iter().map(|(id, _)| *id).collect();
    for (name, row) in &change.names {
        touched.extend(before.names.get(name).map(|row| row.image));
        touched.extend(row.as_ref().map(|row| row.image));
    }
    let touched = touched.iter().filter_map(|id| next.images.get(id));
    let files: Vec<_> = touched.map(|image| (layout.backup(&image.record.id), encode(next, image))).collect();
    disk::write_all(layout, &files)
}

pub(crate) fn write(layout: &Layout, state: &State, image: &ImageRow) -> Result<(), Error> {
    disk::write(&layout.backup(&image.record.id), &layout.temporary(), &encode(state, image), Sync::Now)
}

/// What the database would say, as far as the files and the layers that are really there tell.
pub(crate) fn rebuild(layout: &Layout) -> Result<Change, Error> {
    let mut state = State::default();
    for algorithm in ["sha256", "sha512"] {
        for path in disk::list(&layout.at("images").join(algorithm))? {
            let Some(digest) = digest_of(algorithm, &path) else { continue };
            let Some(bytes) = disk::read(&path, LIMIT)? else { continue };
            let payload = envelope::open(&bytes).ok();
            let Some(backup) = payload.and_then(|payload| minicbor::decode::<Backup>(payload).ok()) else { continue };
            if *backup.image.record.id.digest() == digest {
                take(layout, &mut state, backup);
            }
        }
    }
    Ok(Change {
        images: state.images.into_iter().map(|(id, row)| (id, Some(row))).collect(),
        names: state.names.into_iter().map(|(name, row)| (name, Some(row))).collect(),
        layers: state.layers.into_iter().map(|(id, row)| (id, Some(row))).collect(),
    })
}

fn take(layout: &Layout, state: &mut State, backup: Backup) {
    let mut change = Change::default();
    for (id, row) in backup.layers {
        if layout.layer(&id, row.kind).exists() {
            change.layers.push((id, Some(Arc::new(row))));
        }
    }
    let there = |id: &DiffId| change.layers.iter().any(|(known, _)| known == id);
    // Layers of an image that is not whole are still kept until the next collection, for a pull to find.
    if backup.image.record.layers.iter().all(there) {
        for (name, row) in backup.names {
            let name: Arc<str> = name.into();
            if state.names.get(&name).is_none_or(|known| known.sequence < row.sequence) {
                change.names.push((name, Some(Arc::new(row))));
            }
        }
        change.images.push((backup.image.record.id, Some(Arc::new(backup.image))));
    }
    state.apply(&change);
}
