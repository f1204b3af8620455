//! Images: pull, import, list, find, remove, and root file systems made of them.

mod built;
mod changes;
mod config;
mod describe;
mod elsewhere;
mod idmap;
mod import;
mod joint;
mod make;
mod names;
mod pinned;
mod pull;
mod push;
mod removal;
mod remove;
mod rootfs;
mod save;
mod search;
mod several;
mod tar;
#[cfg(test)]
mod tests;
mod view;
mod volume;

use std::sync::Arc;

pub use built::Known;
pub use describe::{Footprint, HistoryEntry, ImageDetails};
pub use make::{Commit, FromFiles};
use model::{ErrorKind, ImageId};
pub use pinned::Pinned;
pub use pull::{LayerProgress, Phase, PullRequest};
pub use push::{PushPhase, PushProgress, PushRequest, Pushed};
pub use registry::{Credentials, Hit, Platform, Secret};
pub use remove::{Gone, PruneImages, Pruned};
pub use rootfs::Durability;
pub use save::Annotations;
pub use view::ImageInfo;

pub(crate) use built::{Basis, Pull};
pub(crate) use changes::Changed;
pub(crate) use config::Unusable as UnusableConfig;
pub(crate) use elsewhere::{CarriedStep, Elsewhere, FIELD as CACHE_FIELD, draft as cache_draft, field as cache_field};
pub(crate) use idmap::Idmap;
pub(crate) use make::{Draft, Packed, Unmakable};
pub(crate) use pull::Unpack as PullError;
pub(crate) use rootfs::Error as RootfsError;
pub(crate) use save::Unsavable;
pub(crate) use volume::Error as VolumeError;

use crate::{
    blocking::blocking,
    config::Config,
    error::{About, Error, Step},
};

/// The images of a store. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Images {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<store::Store>,
    registry: registry::Registry,
    format: layer::Format,
    pulls: pull::Pulls,
    mounts: Arc<rootfs::Mounts>,
    pinned: Pinned,
}

impl Images {
    /// The images of an open store.
    pub(crate) fn open(config: &Config, store: Arc<store::Store>) -> Result<Self, Error> {
        let registry = registry::Registry::new(registry::Config {
            plain_http: config.plain_http.clone(),
            ..registry::Config::new(&config.certs_dir)
        });
        let pinned = Pinned::parse(&config.pinned_images)
            .map_err(|why| Error::new(ErrorKind::InvalidArgument, About::Engine, format!("pinned images: {why}")))?;
        let format = layer::probe(store.root()).format;
        if let Some(rebuilt) = store.rebuilt() {
            let store::Rebuilt { why, moved_to, images } = rebuilt;
            tracing::warn!(why, ?moved_to, images, "image database rebuilt from the files beside it");
        }
        let mounts = Arc::new(rootfs::Mounts::default());
        let freed = mounts.clone();
        store.on_freed(move |layers| freed.forget(layers));
        Ok(Self { shared: Arc::new(Shared { store, registry, format, pulls: pull::Pulls::default(), mounts, pinned }) })
    }

    /// `erofs` or `directory`: how this kernel lets layers be kept.
    pub fn layer_format(&self) -> &'static str {
        match self.shared.format {
            layer::Format::Erofs => "erofs",
            layer::Format::Directory => "directory",
        }
    }

    /// Whether an image is never to be removed to gain space.
    pub fn is_pinned(&self, image: &ImageInfo) -> bool {
        self.shared.pinned.has(image)
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Arc<ImageInfo>> {
        self.shared.store.images().into_iter().map(|image| Arc::new(ImageInfo::of(image))).collect()
    }

    /// An image by name (normalised as docker does), `NAME@DIGEST`, or id.
    pub fn status(&self, name: &str) -> Option<Arc<ImageInfo>> {
        view::find(&self.shared.store, name).map(|image| Arc::new(ImageInfo::of(image)))
    }

    /// Removes an image by any of its names or its id, and all its names with it. Unknown is fine: gone is gone.
    pub async fn remove(&self, name: &str) -> Result<Option<ImageId>, Error> {
        let Some(image) = self.status(name) else { return Ok(None) };
        let (shared, id) = (self.shared.clone(), image.id);
        blocking(move || shared.store.remove_image(&id)).await.step(About::Image(name.to_owned()), "remove image")?;
        tracing::info!(image = %id, name, "removed");
        Ok(Some(id))
    }

    /// Where images are, and what they use: directory, bytes, inodes.
    pub fn usage(&self) -> (std::path::PathBuf, store::Usage) {
        self.shared.store.image_usage()
    }

    /// Where writable layers are.
    pub fn containers_path(&self) -> std::path::PathBuf {
        self.shared.store.containers_path()
    }
}

/// The work behind an answer crashed; its panic is in the log.
fn crashed(name: &str) -> Error {
    Error::new(ErrorKind::Internal, About::Image(name.to_owned()), "the work crashed; see the log")
}
