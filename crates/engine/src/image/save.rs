//! Images into an archive that docker, podman and skopeo read: an OCI image layout with docker's manifest.json beside it. Equal
//! images are equal bytes.
//!
//! Layers go out as the plain tars that their diff ids name, so the image's id stays what it is; the manifest is a new one,
//! because the old one is about compressed blobs that nobody keeps.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

use model::{At, Descriptor, DiffId, Digest, ErrorKind, ImageRef, MediaType};
use serde::Serialize;
use sha2::Digest as _;
use store::NamedImage;

use super::{Images, Shared, make::Draft, names, several::Index, view};
use crate::{
    blocking::blocking,
    error::{About, Error},
};

/// Why images cannot be saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsavable {
    #[error("no such image")]
    Missing,
    #[error("read its documents")]
    Store(#[from] store::Error),
    #[error("layer {0} is gone: pull the image again")]
    Gone(DiffId),
    #[error(
        "layer {0} is kept as a directory, because this kernel mounts no EROFS images from files; the archive that it came in is gone, and packing the directory makes another one, {1}"
    )]
    Directory(Box<DiffId>, Box<DiffId>),
    #[error("layer {0}")]
    Layer(DiffId, #[source] Box<layer::Error>),
    #[error("open layer {0}")]
    Open(DiffId, #[source] std::io::Error),
    #[error("write the archive")]
    Write(#[from] std::io::Error),
    #[error("write a document")]
    Json(#[from] serde_json::Error),
}

impl Unsavable {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing | Self::Gone(_) => ErrorKind::NotFound,
            Self::Store(e) => e.kind(),
            Self::Directory(..) => ErrorKind::Unsupported,
            Self::Layer(_, e) => e.kind(),
            Self::Open(..) | Self::Write(_) | Self::Json(_) => ErrorKind::Internal,
        }
    }
}

/// A descriptor as OCI documents write it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<Platform>,
}

/// What an entry of an index is for.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Platform {
    pub(super) architecture: String,
    pub(super) os: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) variant: String,
}

impl Entry {
    pub(super) fn new(media_type: &MediaType, digest: &Digest, size: u64) -> Self {
        Self {
            media_type: media_type.as_str().to_owned(),
            digest: digest.to_string(),
            size,
            annotations: BTreeMap::new(),
            platform: None,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u8,
    media_type: &'static str,
    config: Entry,
    layers: Vec<Entry>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// What a manifest says of its image beside what the image says itself.
pub type Annotations = BTreeMap<String, String>;

/// The bytes of an OCI manifest.
pub(super) fn manifest(config: Entry, layers: Vec<Entry>, annotations: Annotations) -> serde_json::Result<Vec<u8>> {
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    serde_json::to_vec(&Manifest { schema_version: 2, media_type, config, layers, annotations })
}

/// A line of docker's manifest.json.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// An image and the names that it is saved under.
pub(super) struct Wanted {
    image: NamedImage,
    names: BTreeSet<ImageRef>,
    /// Its config if that is not in the store.
    config: Option<Vec<u8>>,
    annotations: Annotations,
}

impl Wanted {
    fn new(image: NamedImage, names: BTreeSet<ImageRef>) -> Self {
        Self { image, names, config: None, annotations: Annotations::new() }
    }

    /// An image that is not in the store, without a name.
    pub(super) fn of_draft(draft: Draft, annotations: Annotations) -> Self {
        let Draft { record, config } = draft;
        let image = NamedImage { record, tags: Vec::new(), digests: Vec::new(), documents: Vec::new() };
        Self { image, names: BTreeSet::new(), config: Some(config), annotations }
    }
}

/// What goes into the archive under `blobs/`.
enum Blob {
    Document(Vec<u8>),
    Layer(DiffId),
}

impl Images {
    /// Writes images, each under the name it is asked for by (a repository alone: all its tags; an id: no name), as one archive.
    pub async fn save(&self, wanted: Vec<String>, out: impl Write + Send + 'static) -> Result<(), Error> {
        let shared = self.shared.clone();
        let about = About::Image(wanted.join(" "));
        blocking(move || shared.save(&wanted, out)).await.map_err(|(name, e)| {
            let about = name.map_or(about, About::Image);
            Error::new(e.kind(), about, format!("save: {}", crate::chain(&e)))
        })
    }
}

impl Images {
    /// Writes an image that is not in the store, whose layers the caller has pinned, as an archive of the same form. Answers its
    /// manifest. Blocks.
    ///
    /// # Errors
    /// What writing says; the disk's.
    pub(crate) fn save_draft(
        &self,
        draft: Draft,
        names: BTreeSet<ImageRef>,
        annotations: Annotations,
        out: impl Write,
    ) -> Result<Option<Descriptor>, Unsavable> {
        self.shared.archive(&[Wanted { names, ..Wanted::of_draft(draft, annotations) }], out)
    }

    /// Whether something that is asked for is there to be saved.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn savable(&self, name: &str) -> Result<(), Error> {
        if self.shared.wanted(name).is_empty() { self.find_named(name).map(drop) } else { Ok(()) }
    }
}

impl Shared {
    fn save(&self, wanted: &[String], out: impl Write) -> Result<(), (Option<String>, Unsavable)> {
        let mut images: Vec<Wanted> = Vec::new();
        for name in wanted {
            let found = self.wanted(name);
            if found.is_empty() {
                return Err((Some(name.clone()), Unsavable::Missing));
            }
            for one in found {
                match images.iter_mut().find(|known| known.image.record.id == one.image.record.id) {
                    Some(known) => known.names.extend(one.names),
                    None => images.push(one),
                }
            }
        }
        let layers: Vec<DiffId> = images.iter().flat_map(|wanted| wanted.image.record.layers.iter().copied()).collect();
        // Held until the last byte is out: a removal meanwhile frees the layers afterwards.
        let _pins = self.store.pin(&layers);
        self.archive(&images, out).map(drop).map_err(|e| (None, e))
    }

    /// What a name asks for.
    fn wanted(&self, name: &str) -> Vec<Wanted> {
        let parsed = name.parse::<ImageRef>().ok();
        let repository = parsed.as_ref().filter(|_| !name.contains('@') && !has_tag(name)).map(ImageRef::name);
        if let Some(repository) = repository {
            let of_it = |tag: &String| tag.parse().ok().filter(|tag: &ImageRef| tag.name() == repository);
            let all = self.store.images().into_iter().map(|image| {
                let names = image.tags.iter().filter_map(of_it).collect();
                Wanted::new(image, names)
            });
            let tagged: Vec<Wanted> = all.filter(|wanted| !wanted.names.is_empty()).collect();
            if !tagged.is_empty() {
                return tagged;
            }
        }
        let found = view::find(&self.store, name);
        // Several that begin so are none; who asks first whether it is savable is told.
        let found = found.or_else(|| names::by_prefix(&self.store, name).ok().flatten());
        let Some(image) = found else { return Vec::new() };
        // An id, or a name with a digest, is saved without a name: there is no tag to give back.
        let named = parsed.filter(|name| matches!(name.at, At::Tag(_)) && image.tags.contains(&name.to_string()));
        vec![Wanted::new(image, named.into_iter().collect())]
    }

    /// Answers what the last of them is in the archive.
    fn archive(&self, images: &[Wanted], out: impl Write) -> Result<Option<Descriptor>, Unsavable> {
        let mut last = None;
        let mut blobs: BTreeMap<Digest, Blob> = BTreeMap::new();
        let (mut manifests, mut saved) = (Vec::new(), Vec::new());
        for wanted in images {
            let record = &wanted.image.record;
            let manifest = self.manifest_of(wanted, &mut blobs)?;
            saved.push(Saved {
                config: path_of(record.id.digest()),
                repo_tags: wanted.names.iter().map(ImageRef::familiar).collect(),
                layers: record.layers.iter().map(|id| path_of(id.digest())).collect(),
            });
            let entry = Entry::new(&manifest.media_type, &manifest.digest, manifest.size);
            manifests.extend(named_entries(&entry, &wanted.names));
            last = Some(manifest);
        }
        self.write(out, &blobs, manifests, Some(saved))?;
        Ok(last)
    }

    /// A layout whose one image is an index of these. Answers what the index is.
    pub(super) fn archive_of_platforms(
        &self,
        images: Vec<(Platform, Wanted)>,
        names: &BTreeSet<ImageRef>,
        out: impl Write,
    ) -> Result<Descriptor, Unsavable> {
        let (mut blobs, mut manifests) = (BTreeMap::new(), Vec::new());
        for (platform, wanted) in images {
            let Descriptor { media_type, digest, size } = self.manifest_of(&wanted, &mut blobs)?;
            manifests.push(Entry { platform: Some(platform), ..Entry::new(&media_type, &digest, size) });
        }
        let (bytes, index) = Index::new(manifests).written()?;
        blobs.insert(index.digest, Blob::Document(bytes));
        let entry = Entry::new(&index.media_type, &index.digest, index.size);
        // docker's manifest.json knows no platforms.
        self.write(out, &blobs, named_entries(&entry, names), None)?;
        Ok(index)
    }

    /// Blobs, the entries of index.json, and docker's manifest.json.
    fn write(
        &self,
        out: impl Write,
        blobs: &BTreeMap<Digest, Blob>,
        entries: Vec<Entry>,
        saved: Option<Vec<Saved>>,
    ) -> Result<(), Unsavable> {
        let mut archive = layer::ArchiveWriter::new(out);
        for directory in ["blobs", "blobs/sha256"] {
            archive.directory(directory)?;
        }
        for (digest, blob) in blobs {
            match blob {
                Blob::Document(bytes) => archive.file(&path_of(digest), bytes.len() as u64, &bytes[..])?,
                Blob::Layer(id) => self.layer_into(&mut archive, id)?,
            }
        }
        document(&mut archive, "index.json", &serde_json::to_vec(&Index::new(entries))?)?;
        if let Some(saved) = saved {
            document(&mut archive, "manifest.json", &serde_json::to_vec(&saved)?)?;
        }
        document(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        archive.finish()?;
        Ok(())
    }

    /// An image's manifest, which is noted to be written with all that it names.
    fn manifest_of(&self, wanted: &Wanted, blobs: &mut BTreeMap<Digest, Blob>) -> Result<Descriptor, Unsavable> {
        let (config, layers) = self.describe(wanted, blobs)?;
        let manifest = manifest(config, layers, wanted.annotations.clone())?;
        let digest = Digest::Sha256(sha2::Sha256::digest(&manifest).into());
        let descriptor = Descriptor { media_type: MediaType::OciManifest, digest, size: manifest.len() as u64 };
        blobs.insert(digest, Blob::Document(manifest));
        Ok(descriptor)
    }

    /// The descriptors of an image's config and layers, which are noted to be written.
    fn describe(&self, wanted: &Wanted, blobs: &mut BTreeMap<Digest, Blob>) -> Result<(Entry, Vec<Entry>), Unsavable> {
        let image = &wanted.image;
        let id = image.record.id.digest();
        let config = wanted.config.clone().map_or_else(|| self.store.blob(id), Ok)?;
        let entry = Entry::new(&MediaType::OciConfig, id, config.len() as u64);
        blobs.insert(*id, Blob::Document(config));
        let mut layers = Vec::new();
        for layer in &image.record.layers {
            let info = self.store.layer(layer).ok_or(Unsavable::Gone(*layer))?;
            layers.push(Entry::new(&MediaType::OciLayer, layer.digest(), info.tar_size));
            blobs.insert(*layer.digest(), Blob::Layer(*layer));
        }
        Ok((entry, layers))
    }

    fn layer_into(&self, archive: &mut layer::ArchiveWriter<impl Write>, id: &DiffId) -> Result<(), Unsavable> {
        let (mut tar, size) = self.layer_tar(id)?;
        let written = archive.file(&path_of(id.digest()), size, &mut tar);
        match written {
            // One that is too short is another one.
            Err(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => Err(e.into()),
            written => tar.verify().and_then(|()| Ok(written?)),
        }
    }
}

fn document(archive: &mut layer::ArchiveWriter<impl Write>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    archive.file(name, bytes.len() as u64, bytes)
}

/// A manifest's entries in an index: one per name, as docker writes them; without a name one all the same.
fn named_entries(entry: &Entry, names: &BTreeSet<ImageRef>) -> Vec<Entry> {
    if names.is_empty() {
        return vec![entry.clone()];
    }
    let with_name = |name: &ImageRef| {
        let mut entry = entry.clone();
        entry.annotations.insert("io.containerd.image.name".to_owned(), name.to_string());
        if let At::Tag(tag) = &name.at {
            entry.annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag.to_string());
        }
        entry
    };
    names.iter().map(with_name).collect()
}

fn path_of(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// A colon after the last slash starts a tag.
pub(super) fn has_tag(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|last| last.contains(':'))
}
