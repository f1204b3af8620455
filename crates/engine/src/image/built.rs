//! What a build needs of images: what it begins with, layers of what its steps have written, and the image in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    os::fd::OwnedFd,
    sync::Arc,
};

use model::{DiffId, ErrorKind, ImageId, ImageRef, container::ImageDefaults};
use registry::Platform;
use serde_json::{Map, Value};
use sha2::Digest as _;

use super::{Credentials, ImageInfo, Images, Packed, PullRequest, Unmakable, make, removal::Asked};
use crate::{
    blocking::blocking,
    error::{About, Error, Step},
};

/// Who to be at registries, by `HOST[:PORT]`.
pub type Known = BTreeMap<String, Credentials>;

/// An image that a stage begins with.
#[derive(Debug)]
pub(crate) struct Basis {
    /// Its whole config.
    pub(crate) document: Map<String, Value>,
    pub(crate) layers: Vec<DiffId>,
    pub(crate) size: u64,
    pub(crate) pins: store::LayerPins,
}

impl Images {
    /// An image by name or id, for this platform. One that is not here, or, if `pull`, any that has a name, is pulled. What a name
    /// stands for here is not changed by an image for another machine.
    ///
    /// # Errors
    /// `NotFound`: neither here nor at its registry; what the registry says; it is for another platform.
    pub(crate) async fn basis(&self, name: &str, pull: Pull, known: &Known, platform: &Platform) -> Result<Basis, Error> {
        let about = || About::Image(name.to_owned());
        let here = self.find_named(name).ok();
        let other = here.as_ref().map(|(image, _)| platform_of(&image.record)).filter(|offered| !is_for(platform, offered));
        let id = match (here, name.parse::<ImageRef>(), other) {
            (Some((image, asked)), _, None) if pull == Pull::Missing || asked == Asked::Id => image.record.id,
            (Some((_, Asked::Id)), _, Some(other)) => {
                let why = format!("it is for {other}, and {platform} is built for");
                return Err(Error::new(ErrorKind::InvalidArgument, about(), why));
            }
            (_, Ok(reference), other) => {
                let credentials = known.get(reference.registry.as_str()).cloned().unwrap_or_default();
                let pulled = if other.is_none() && *platform == Platform::host() {
                    self.pull(PullRequest { reference, credentials, platform: None }).await
                } else {
                    self.pull_aside(reference, credentials, platform.clone()).await
                };
                let for_other = |e: Error| match other {
                    Some(other) => {
                        Error::new(e.kind(), About::Words, format!("{} (the one that is here is for {other})", e.chain()))
                    }
                    None => e,
                };
                pulled.map_err(for_other)?
            }
            (_, Err(e), _) => return Err(Error::new(ErrorKind::InvalidArgument, about(), e.to_string())),
        };
        let gone = || Error::new(ErrorKind::NotFound, about(), "it has gone meanwhile");
        let known = self.shared.store.image(&id).ok_or_else(gone)?;
        let pins = self.shared.store.pin(&known.record.layers);
        if self.shared.store.image(&id).is_none() {
            return Err(gone());
        }
        let shared = self.shared.clone();
        let document = blocking(move || make::object(&shared.store.blob(id.digest())?)).await.step(about(), "read its config")?;
        Ok(Basis { document, layers: known.record.layers, size: known.record.size, pins })
    }

    /// A file of any HTTP server; `None`: it is still what is `known`.
    ///
    /// # Errors
    /// The server's.
    pub(crate) async fn fetch(
        &self,
        url: &registry::Url,
        known: Option<&registry::Version>,
        most: u64,
    ) -> Result<Option<registry::Fetching>, registry::Error> {
        self.shared.registry.fetch(url, known, most).await
    }

    /// Unpacks an archive whose names are nobody's: a layer that no image has. Blocks.
    ///
    /// # Errors
    /// What is wrong with the archive; the disk's.
    pub(crate) fn loose_layer(&self, archive: impl Read + Send) -> Result<Packed, Unmakable> {
        Ok(self.shared.unpack_new(archive, layer::Compression::None).map_err(Box::new)?)
    }

    /// What is in a writable layer, as a layer; `None`: nothing. What is younger than `latest` (seconds since 1970) gets that time.
    /// Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn layer_of(
        &self,
        upper: OwnedFd,
        mounted: &BTreeSet<Vec<u8>>,
        latest: Option<i64>,
    ) -> Result<Option<Packed>, Unmakable> {
        self.shared.pack(upper, mounted, latest)
    }

    /// What is written, as a layer; `None`: nothing. Blocks.
    ///
    /// # Errors
    /// The writer's; the disk's.
    pub(crate) fn written_layer(
        &self,
        write: impl FnOnce(std::io::PipeWriter) -> Result<layer::Diffed, layer::Error> + Send,
    ) -> Result<Option<Packed>, Unmakable> {
        self.shared.pack_by(write)
    }

    /// Makes an image visible under these names, all at once. Blocks.
    ///
    /// # Errors
    /// A config that is none; the disk's.
    pub(crate) fn keep_built(
        &self,
        document: Map<String, Value>,
        layers: &[DiffId],
        size: u64,
        names: Vec<ImageRef>,
    ) -> Result<ImageId, Unmakable> {
        self.shared.keep(document, layers, size, names)
    }
}

/// What an image says to be for.
pub(super) fn platform_of(record: &store::ImageRecord) -> Platform {
    Platform { os: record.os.clone(), architecture: record.architecture.clone(), variant: record.variant.clone() }
}

/// Whether an image can be built upon for a platform; one that does not say what it is for can.
pub(super) fn is_for(platform: &Platform, offered: &Platform) -> bool {
    offered.architecture.is_empty() || platform.suits(offered).is_some()
}

/// When an image is asked for at its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pull {
    /// It is not here.
    Missing,
    /// Always.
    Always,
}

impl ImageInfo {
    /// Layers that are no image, or not yet.
    pub(crate) fn loose(layers: Vec<DiffId>, defaults: ImageDefaults) -> Arc<Self> {
        let id = ImageId::new(model::Digest::Sha256(sha2::Sha256::digest(b"no image").into()));
        let host = registry::Platform::host();
        Arc::new(Self {
            id,
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            size: 0,
            layers,
            defaults,
            created: String::new(),
            platform: host.to_string(),
            architecture: host.architecture,
        })
    }
}
