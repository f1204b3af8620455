//! What the front door sees of an image.

use model::{DiffId, ImageId, ImageRef, container::ImageDefaults};
use store::{NamedImage, Store};

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its id.
    pub id: ImageId,
    /// Names with a tag, in full.
    pub repo_tags: Vec<String>,
    /// Names with a digest, in full.
    pub repo_digests: Vec<String>,
    /// Bytes: its config and its layers as they came.
    pub size: u64,
    /// Its layers, lowest first.
    pub layers: Vec<DiffId>,
    /// What containers take from it.
    pub defaults: ImageDefaults,
    /// When it was made, as its config says (RFC 3339); may be empty.
    pub created: String,
    /// Its architecture.
    pub architecture: String,
    /// `os/architecture[/variant]`.
    pub platform: String,
}

impl ImageInfo {
    pub(crate) fn of(image: NamedImage) -> Self {
        let NamedImage { record, tags, digests, .. } = image;
        let parts = [&record.os, &record.architecture, &record.variant];
        let platform = parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/");
        Self {
            platform,
            id: record.id,
            repo_tags: tags,
            repo_digests: digests,
            size: record.size,
            layers: record.layers,
            defaults: record.defaults,
            created: record.created,
            architecture: record.architecture,
        }
    }
}

/// By id with or without its algorithm, or by any name that normalises to one of its names.
pub(super) fn find(store: &Store, text: &str) -> Option<NamedImage> {
    let id = text.parse().or_else(|_| format!("sha256:{text}").parse()).ok().map(ImageId::new);
    if let Some(image) = id.and_then(|id| store.image(&id)) {
        return Some(image);
    }
    let name: ImageRef = text.parse().ok()?;
    store.image_id(&name).and_then(|id| store.image(&id))
}
