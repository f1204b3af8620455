//! Push: an image's documents and layers into a repository, only what is not there yet.
//!
//! An image that came from a registry goes out with the digest that it came with: blobs that the other registry lacks are fetched
//! again from where the image is from, because only unpacked layers are kept. Where that cannot be had, and for images that were
//! made here, layers are compressed (the same bytes every time) and a manifest is made for them.

mod packed;

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{self, Seek as _},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use model::{At, Descriptor, DiffId, Digest, ErrorKind, ImageRef, MediaType};
use registry::{Content, Credentials, Document, Found, Target};
use sha2::Digest as _;
use store::NamedImage;

use super::{
    Images, Shared,
    make::Draft,
    pull::PARALLEL,
    save::{self, Annotations},
};
use crate::{
    blocking::blocking,
    error::{About, Error, Step},
    failpoint, unpack,
};

/// What to push.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// The name to push to; an image here must have it.
    pub name: ImageRef,
    /// For its registry.
    pub credentials: Credentials,
    /// For the registries that the image has been pulled from, by `HOST[:PORT]`.
    pub sources: BTreeMap<String, Credentials>,
    /// Of the manifest that is made; with any, one is made even if the image came with one.
    pub annotations: Annotations,
}

/// How far a layer of a push is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushProgress {
    /// The layer.
    pub layer: DiffId,
    /// What happens to it.
    pub phase: PushPhase,
    /// Bytes that are there.
    pub current: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What happens to a layer of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushPhase {
    /// Its bytes are being made ready.
    Preparing,
    /// They go out.
    Pushing,
    /// They are there now.
    Pushed,
    /// They were there.
    Exists,
    /// They were in another repository of the registry.
    Mounted(String),
}

/// What was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest under the name.
    pub manifest: Descriptor,
    /// Why its digest is another one than that of the pull; empty: it is the same, or the image was made here.
    pub note: String,
}

/// An image's manifest as it was pulled.
struct Known {
    descriptor: Descriptor,
    bytes: Vec<u8>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    /// The index that the manifest was chosen from.
    index: Option<Above>,
}

/// An index, and whether there is nothing in it but what is here.
struct Above {
    descriptor: Descriptor,
    bytes: Vec<u8>,
    whole: bool,
}

/// What one push works with.
struct Push<'p> {
    shared: Arc<Shared>,
    image: NamedImage,
    target: Target,
    name: ImageRef,
    sources: BTreeMap<String, Credentials>,
    annotations: Annotations,
    /// The config of an image that is not in the store, and is not to be.
    draft: Option<Vec<u8>>,
    /// The name is for an index that names it.
    part: bool,
    tell: &'p (dyn Fn(PushProgress) + Sync),
}

impl Images {
    /// Pushes an image to the name that it has.
    ///
    /// # Errors
    /// `NotFound` if no image here has the name; what the registry says.
    pub async fn push(&self, request: PushRequest, tell: &(dyn Fn(PushProgress) + Sync)) -> Result<Pushed, Error> {
        let name = request.name;
        let about = || About::Image(name.to_string());
        let image = self.shared.store.image_id(&name).and_then(|id| self.shared.store.image(&id)).ok_or_else(|| {
            let why = format!("An image does not exist locally with the tag: {}", name.familiar_name());
            Error::new(ErrorKind::NotFound, about(), why)
        })?;
        let At::Tag(_) = &name.at else {
            return Err(Error::new(ErrorKind::InvalidArgument, about(), "cannot push a digest reference"));
        };
        let _pins = self.shared.store.pin(&image.record.layers);
        let target = self.shared.registry.target(&name, &request.credentials).await.step(about(), "push")?;
        let (shared, sources, annotations) = (self.shared.clone(), request.sources, request.annotations);
        Push { shared, image, target, name, sources, annotations, draft: None, part: false, tell }.run().await
    }

    /// Pushes an image that is not in the store, whose layers the caller has pinned.
    ///
    /// # Errors
    /// What the registry says.
    pub(crate) async fn push_draft(
        &self,
        draft: Draft,
        name: ImageRef,
        credentials: &Credentials,
        tell: &(dyn Fn(PushProgress) + Sync),
    ) -> Result<Pushed, Error> {
        let push = self.push_of(draft, name, (credentials, Annotations::new()), tell).await?;
        push.compressed(String::new()).await
    }

    /// The same without the name's tag: an index is to name it.
    pub(super) async fn push_part(
        &self,
        draft: Draft,
        name: &ImageRef,
        (credentials, annotations): (&Credentials, &Annotations),
        tell: &(dyn Fn(PushProgress) + Sync),
    ) -> Result<Pushed, Error> {
        let push = self.push_of(draft, name.clone(), (credentials, annotations.clone()), tell).await?;
        Push { part: true, ..push }.compressed(String::new()).await
    }

    async fn push_of<'p>(
        &self,
        draft: Draft,
        name: ImageRef,
        (credentials, annotations): (&Credentials, Annotations),
        tell: &'p (dyn Fn(PushProgress) + Sync),
    ) -> Result<Push<'p>, Error> {
        let Draft { record, config } = draft;
        let image = NamedImage { record, tags: Vec::new(), digests: Vec::new(), documents: Vec::new() };
        let target = self.shared.registry.target(&name, credentials).await.step(About::Image(name.to_string()), "push")?;
        let (shared, sources) = (self.shared.clone(), BTreeMap::new());
        Ok(Push { shared, image, target, name, sources, annotations, draft: Some(config), part: false, tell })
    }
}

impl Push<'_> {
    fn about(&self) -> About {
        About::Image(self.name.to_string())
    }

    async fn run(self) -> Result<Pushed, Error> {
        let known = if self.annotations.is_empty() { self.known().await } else { None };
        let Some(known) = known else { return self.compressed(String::new()).await };
        match self.as_it_came(&known).await? {
            Ok(pushed) => Ok(pushed),
            Err(why) => {
                let was = known.descriptor.digest;
                tracing::info!(name = %self.name, why = %why.chain(), "pushed with a new manifest");
                let why = why.chain();
                let note = format!(
                    "{was} has become another digest: its layers are kept unpacked, and could not be fetched again ({why})"
                );
                self.compressed(note).await
            }
        }
    }

    /// The manifest that the image came with, if it came from a registry.
    async fn known(&self) -> Option<Known> {
        let (shared, documents, id) = (self.shared.clone(), self.image.documents.clone(), self.image.record.id);
        blocking(move || {
            let mut indexes = Vec::new();
            let mut known: Option<Known> = None;
            for digest in documents {
                let Ok(bytes) = shared.store.blob(&digest) else { continue };
                let of = |media_type| Descriptor { media_type, digest, size: bytes.len() as u64 };
                match registry::parse_manifest(&bytes, None) {
                    Ok(Document::Image(image)) if known.is_none() && image.config.digest == *id.digest() => {
                        let descriptor = of(image.media_type);
                        known = Some(Known { descriptor, bytes, config: image.config, layers: image.layers, index: None });
                    }
                    Ok(Document::Index(index)) => indexes.push((of(index.media_type), bytes, index.entries)),
                    Ok(Document::Image(_)) | Err(_) => {}
                }
            }
            let mut known = known?;
            let manifest = known.descriptor.digest;
            let above = indexes.into_iter().find(|(_, _, entries)| entries.iter().any(|e| e.descriptor.digest == manifest));
            known.index = above.map(|(descriptor, bytes, entries)| {
                let whole = entries.iter().all(|entry| entry.descriptor.digest == manifest);
                Above { descriptor, bytes, whole }
            });
            Some(known)
        })
        .await
    }

    /// With the very blobs of its manifest; inside, why one of them can be had neither here nor where the image is from.
    async fn as_it_came(&self, known: &Known) -> Result<Result<Pushed, Error>, Error> {
        // The same layer may be in an image twice.
        let mut seen = HashSet::new();
        let layers = self.image.record.layers.iter().zip(&known.layers).filter(|(_, blob)| seen.insert(blob.digest));
        let jobs: Vec<_> = layers.map(|(layer, blob)| self.bring(*layer, blob)).collect();
        let mut brought = stream::iter(jobs).buffer_unordered(PARALLEL);
        while let Some(brought) = brought.next().await {
            if let Err(error) = brought? {
                return Ok(Err(error));
            }
        }
        drop(brought);
        self.document(&known.config).await?;
        let manifest = (known.descriptor.clone(), Bytes::from(known.bytes.clone()));
        match &known.index {
            Some(index) if index.whole => {
                self.target.publish(None, &manifest.0, manifest.1).await.step(self.about(), "push manifest")?;
                self.publish(index.descriptor.clone(), index.bytes.clone().into(), String::new()).await.map(Ok)
            }
            // A name that stands for the manifest itself promises no other platform.
            Some(index) if !self.image.digests.iter().any(|name| name.ends_with(&format!("@{}", manifest.0.digest))) => {
                let note = format!(
                    "not all platforms of {} are here: only this one was pushed, as {}",
                    index.descriptor.digest, manifest.0.digest
                );
                self.publish(manifest.0, manifest.1, note).await.map(Ok)
            }
            _ => self.publish(manifest.0, manifest.1, String::new()).await.map(Ok),
        }
    }

    /// Brings a blob there, unless it is; inside, why it can be had nowhere.
    async fn bring(&self, layer: DiffId, blob: &Descriptor) -> Result<Result<(), Error>, Error> {
        let Some(found) = self.look(layer, blob).await? else { return Ok(Ok(())) };
        self.tell(layer, PushPhase::Preparing, 0, blob.size);
        match self.fetch(layer, blob).await {
            Ok(file) => self.send(layer, blob, found, Content::File(Arc::new(file))).await.map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Whether a blob is there, or can be shared; else how to upload it.
    async fn look(&self, layer: DiffId, blob: &Descriptor) -> Result<Option<registry::Upload>, Error> {
        let from = self.origins().find(|origin| origin.registry == self.name.registry && origin.repository != self.name.repository);
        let repository = from.as_ref().map(|origin| &origin.repository);
        match self.target.find(blob, repository).await.step(self.about(), "push layer")? {
            Found::Existed => self.tell(layer, PushPhase::Exists, blob.size, blob.size),
            Found::Mounted => {
                let from = from.as_ref().map(|origin| origin.repository.to_string()).unwrap_or_default();
                self.tell(layer, PushPhase::Mounted(from), blob.size, blob.size);
            }
            Found::Missing(upload) => return Ok(Some(upload)),
        }
        Ok(None)
    }

    /// The repositories that the image has been pulled from.
    fn origins(&self) -> impl Iterator<Item = ImageRef> {
        self.image.digests.iter().filter_map(|name| name.parse::<ImageRef>().ok())
    }

    /// A blob from where the image is from, verified, in a file without a name.
    async fn fetch(&self, layer: DiffId, blob: &Descriptor) -> Result<File, Error> {
        if blob.digest == *layer.digest() {
            let shared = self.shared.clone();
            let plain = blocking(move || shared.plain(&layer)).await;
            return plain.map_err(|e| Error::new(e.kind(), self.about(), format!("push: {}", crate::chain(&e))));
        }
        let mut last = Error::new(ErrorKind::NotFound, self.about(), "the image was made here: its blobs are nowhere");
        for origin in self.origins() {
            match self.fetch_from(&origin, blob).await {
                Ok(file) => return Ok(file),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn fetch_from(&self, origin: &ImageRef, blob: &Descriptor) -> Result<File, Error> {
        let registry = &self.shared.registry;
        // Never those of the push, which are for the other registry.
        let anonymous = Credentials::anonymous();
        let credentials = self.sources.get(origin.registry.as_str()).unwrap_or(&anonymous);
        let source = registry.source(origin, credentials).await.step(self.about(), "fetch layer again")?;
        let mut reader = registry.blob(&source, blob).await.step(self.about(), "fetch layer again")?;
        let mut file = unpack::nameless(self.shared.store.root()).step(self.about(), "make room for a layer")?;
        while let Some(piece) = reader.next().await {
            let piece = piece.step(self.about(), "fetch layer again")?;
            let written = move || io::Write::write_all(&mut file, &piece).map(|()| file);
            file = blocking(written).await.step(self.about(), "keep a layer for the push")?;
        }
        Ok(file)
    }

    /// With layers that are compressed now.
    async fn compressed(&self, note: String) -> Result<Pushed, Error> {
        let layers = self.layers().await?;
        let (id, size) = (*self.image.record.id.digest(), self.config().await?.len() as u64);
        let config = Descriptor { media_type: MediaType::OciConfig, digest: id, size };
        self.document(&config).await?;
        let entry = save::Entry::new(&config.media_type, &config.digest, config.size);
        let bytes = save::manifest(entry, layers, self.annotations.clone());
        let bytes = bytes.map_err(|e| Error::new(ErrorKind::Internal, self.about(), e.to_string()))?;
        let digest = Digest::Sha256(sha2::Sha256::digest(&bytes).into());
        let descriptor = Descriptor { media_type: MediaType::OciManifest, digest, size: bytes.len() as u64 };
        self.publish(descriptor, bytes.into(), note).await
    }

    /// Uploads the config.
    async fn document(&self, config: &Descriptor) -> Result<(), Error> {
        let Found::Missing(upload) = self.target.find(config, None).await.step(self.about(), "push config")? else { return Ok(()) };
        let bytes = self.config().await?;
        self.target.upload(upload, &Content::Bytes(bytes.into()), &|_| ()).await.step(self.about(), "push config")
    }

    /// The bytes of the image's config.
    async fn config(&self) -> Result<Vec<u8>, Error> {
        if let Some(draft) = &self.draft {
            return Ok(draft.clone());
        }
        let (shared, id) = (self.shared.clone(), self.image.record.id);
        blocking(move || shared.store.blob(id.digest())).await.step(self.about(), "read config")
    }

    async fn send(&self, layer: DiffId, blob: &Descriptor, upload: registry::Upload, content: Content) -> Result<(), Error> {
        failpoint::hit("push.blob", self.about())?;
        let total = blob.size;
        let progress = |done| self.tell(layer, PushPhase::Pushing, done, total);
        self.target.upload(upload, &content, &progress).await.step(self.about(), "push layer")?;
        self.tell(layer, PushPhase::Pushed, total, total);
        Ok(())
    }

    /// The manifest goes last: what it names is there. Then the name here stands for it too.
    async fn publish(&self, manifest: Descriptor, bytes: Bytes, note: String) -> Result<Pushed, Error> {
        let At::Tag(tag) = &self.name.at else {
            return Err(Error::new(ErrorKind::InvalidArgument, self.about(), "cannot push a digest reference"));
        };
        failpoint::hit("push.manifest", self.about())?;
        let tag = (!self.part).then(|| tag.as_str());
        self.target.publish(tag, &manifest, bytes.clone()).await.step(self.about(), "push manifest")?;
        if self.draft.is_some() {
            return Ok(Pushed { manifest, note });
        }
        failpoint::hit("push.record", self.about())?;
        let (shared, record) = (self.shared.clone(), self.image.record.clone());
        let (name, digest) = (store::Name { name: self.name.clone(), target: Some(manifest.digest) }, manifest.digest);
        let keep = move || shared.store.put_image(&record, &[name], &[store::Document { digest, bytes: &bytes }]);
        blocking(keep).await.step(self.about(), "keep the pushed manifest")?;
        tracing::info!(image = %self.image.record.id, name = %self.name, digest = %manifest.digest, "pushed");
        Ok(Pushed { manifest, note })
    }

    fn tell(&self, layer: DiffId, phase: PushPhase, current: u64, total: u64) {
        (self.tell)(PushProgress { layer, phase, current, total });
    }
}

impl Shared {
    /// A layer as the archive that it was made from.
    fn plain(&self, layer: &DiffId) -> Result<File, save::Unsavable> {
        let (mut tar, _) = self.layer_tar(layer)?;
        let mut file = unpack::nameless(self.store.root())?;
        io::copy(&mut tar, &mut file)?;
        tar.verify()?;
        file.rewind()?;
        Ok(file)
    }
}
