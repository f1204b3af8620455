//! WORKDIR, and what all steps have in common that make a layer.

use std::{collections::BTreeSet, fs::File, os::fd::OwnedFd, sync::Arc};

use model::{ContainerId, DiffId, container::ImageDefaults};
use sys::path::{Links, Root};

use super::{graph::Build, key::Key, refuse, stages::Spot, state::State};
use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error, Step as _},
    image::{Durability, ImageInfo, Packed},
};

impl Build<'_> {
    pub(super) async fn working_dir(&self, state: &mut State, spot: Spot<'_>) -> Result<(), Error> {
        let path = state.working_dir().to_owned();
        let text = format!("WORKDIR {path}");
        let progress = self.begun(format!("{} {text}", self.place(spot))).await?;
        let key = Key::new("WORKDIR", &state.layers).part(&path);
        let latest = self.latest(state);
        let work = move |root: &Root| match root.make_directories(&path, Links::Follow) {
            Ok(_) => Ok(latest),
            Err(e) => Err(refuse(sys::kind_of(e), format!("WORKDIR {path}: {e}"))),
        };
        let work = self.inner.write_layer(state.layers.clone(), work);
        self.ended(progress, self.make(state, key, &text, work)).await
    }
}

/// What a step has written.
pub(super) struct Written {
    /// `None`: nothing.
    pub(super) layer: Option<Packed>,
    /// When the newest of it was made, in seconds since 1970.
    pub(super) newest: i64,
}

impl Inner {
    /// What `work` writes on these layers, which the caller has pinned, as a layer. It answers the time, in seconds since 1970, that
    /// nothing in the layer is younger than.
    pub(super) async fn write_layer(
        self: &Arc<Self>,
        layers: Vec<DiffId>,
        work: impl FnOnce(&Root) -> Result<i64, Error> + Send + 'static,
    ) -> Result<Written, Error> {
        let id = ContainerId::from_bytes(crate::random_id());
        let inner = self.clone();
        let written = blocking(move || work(&inner.root_of(layers, id)?));
        let layer = match written.await {
            Ok(newest) => self.written(id, newest, BTreeSet::new()).await.map(|layer| Written { layer, newest }),
            Err(error) => Err(error),
        };
        let inner = self.clone();
        let removed = blocking(move || inner.store.remove_container_dir(id)).await.step(id, "remove what was written");
        layer.and_then(|written| removed.map(|()| written))
    }

    /// Layers with a writable one on them. On nothing it is the writable layer itself: overlay would mark its new directories as
    /// hiding what is below, and what `--link` has made is put onto anything.
    fn root_of(&self, layers: Vec<DiffId>, id: ContainerId) -> Result<Root, Error> {
        let step = "mount the files so far";
        if layers.is_empty() {
            let dir = self.store.container_dir(id).step(About::Words, step)?;
            return File::open(dir.upper).map(|dir| Root::from(OwnedFd::from(dir))).step(About::Words, step);
        }
        let image = ImageInfo::loose(layers, ImageDefaults::default());
        self.images.rootfs(&image, id, Durability::Volatile, (None, None)).map(Root::from).step(About::Words, step)
    }
}
