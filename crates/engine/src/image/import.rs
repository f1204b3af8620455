//! Images out of archives: `docker save`'s format and OCI image layouts, as one tar.
//!
//! An archive's names are not believed beyond their form: they are bound as the archive says because the person who
//! loads it asks for that, and nothing else in it is given any meaning (R35).

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    sync::{Mutex, PoisonError},
};

use model::{DiffId, Digest, ErrorKind, ImageId, ImageRef};
use serde::Deserialize;
use sha2::Digest as _;
use store::{Document, Name};

use super::{Basis, Images, Shared, config, make};
use crate::{
    blocking::blocking,
    error::{About, Error},
    failpoint,
};

/// Documents of an archive (manifest.json, index.json, configs): more is refused.
const DOCUMENT: u64 = 4 << 20;
/// Entries of an archive: a layer each, and a few more.
const ENTRIES: usize = 4096;

/// Why an archive cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unloadable {
    #[error("archive: {0}")]
    Form(String),
    #[error("archive: read")]
    Io(#[from] io::Error),
    #[error("archive: {0}")]
    Config(#[from] config::Unusable),
    #[error("archive: name {0:?}")]
    Name(String, #[source] model::ReferenceError),
    #[error("archive: layer {0:?}")]
    Layer(String, #[source] Box<super::pull::Unpack>),
    #[error("archive: keep image")]
    Store(#[from] store::Error),
}

impl Unloadable {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Form(_) | Self::Config(_) | Self::Name(..) => ErrorKind::InvalidArgument,
            Self::Io(_) => ErrorKind::Internal,
            Self::Layer(_, e) => e.kind(),
            Self::Store(e) => e.kind(),
        }
    }
}

fn bad(why: impl Into<String>) -> Unloadable {
    Unloadable::Form(why.into())
}

/// One image of docker's manifest.json.
#[derive(Debug, Deserialize)]
struct Saved {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<IndexEntry>,
}

#[derive(Debug, Deserialize)]
struct IndexEntry {
    digest: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

impl Images {
    /// What a build begins with: the image of an OCI layout, a plain tar. It is nobody else's. Blocks.
    ///
    /// # Errors
    /// It is no such archive; it is for another platform; the disk's.
    pub(crate) fn basis_in(&self, archive: &Mutex<File>, platform: &registry::Platform) -> Result<Basis, Error> {
        // Whoever reads it moves in it.
        let archive = archive.lock().unwrap_or_else(PoisonError::into_inner);
        let found = archive.try_clone().map_err(Unloadable::Io).and_then(|archive| self.shared.basis_in(archive, platform));
        found.map_err(|e| Error::new(e.kind(), About::Words, crate::chain(&e)))
    }

    /// Loads every image of an archive, a regular file; answers their ids and the names that they got.
    pub async fn import(&self, archive: File) -> Result<Vec<(ImageId, Vec<String>)>, Error> {
        let shared = self.shared.clone();
        blocking(move || shared.import(archive)).await.map_err(|e| {
            let kind = e.kind();
            Error::new(kind, About::Image("load".into()), crate::chain(&e))
        })
    }
}

/// Where the files of an archive are in it.
#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    entries: HashMap<String, (u64, u64)>,
}

impl Archive {
    pub(super) fn open(mut file: File) -> Result<Self, Unloadable> {
        let mut entries = HashMap::new();
        file.seek(SeekFrom::Start(0))?;
        let size = file.metadata()?.len();
        for entry in layer::archive_entries(&mut file).map_err(|e| bad(crate::chain(&e)))? {
            if entries.len() >= ENTRIES {
                return Err(bad(format!("more than {ENTRIES} entries")));
            }
            if entry.offset.checked_add(entry.size).is_none_or(|end| end > size) {
                return Err(bad(format!("{:?} reaches beyond its end", entry.name)));
            }
            entries.insert(entry.name.trim_start_matches("./").to_owned(), (entry.offset, entry.size));
        }
        Ok(Self { file, entries })
    }

    fn reader(&mut self, name: &str) -> Result<io::Take<&mut File>, Unloadable> {
        let (offset, size) = *self.entries.get(name).ok_or_else(|| bad(format!("{name:?} is not in it")))?;
        self.file.seek(SeekFrom::Start(offset))?;
        Ok((&mut self.file).take(size))
    }

    pub(super) fn document(&mut self, name: &str) -> Result<Vec<u8>, Unloadable> {
        let mut reader = self.reader(name)?;
        if reader.limit() > DOCUMENT {
            return Err(bad(format!("{name:?} is larger than 4 MiB")));
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn json<T: for<'de> Deserialize<'de>>(&mut self, name: &str) -> Result<T, Unloadable> {
        let bytes = self.document(name)?;
        serde_json::from_slice(&bytes).map_err(|e| bad(format!("{name:?}: {e}")))
    }
}

/// An image of an archive, whatever its form: names of files in it.
pub(super) struct Found {
    pub(super) config: String,
    pub(super) layers: Vec<String>,
    names: Vec<String>,
}

impl Shared {
    fn import(&self, file: File) -> Result<Vec<(ImageId, Vec<String>)>, Unloadable> {
        let mut archive = Archive::open(file)?;
        let images = if archive.entries.contains_key("manifest.json") {
            let saved: Vec<Saved> = archive.json("manifest.json")?;
            saved
                .into_iter()
                .map(|s| Found { config: s.config, layers: s.layers, names: s.repo_tags.unwrap_or_default() })
                .collect()
        } else if archive.entries.contains_key("index.json") {
            layout(&mut archive)?
        } else {
            return Err(bad(
                "invalid archive: does not contain a manifest.json (docker save) nor an index.json (OCI image layout)",
            ));
        };
        let images = images.into_iter().map(|image| self.prepare(&mut archive, image)).collect::<Result<Vec<_>, _>>()?;
        let documents: Vec<_> = images.iter().map(Prepared::document).collect();
        let new = images.iter().zip(&documents).map(|(image, document)| store::NewImage {
            record: &image.record,
            names: &image.names,
            documents: std::slice::from_ref(document),
        });
        // All of them become visible at once, after the last byte of the archive was looked at.
        point("image.layers")?;
        self.store.put_images(&new.collect::<Vec<_>>())?;
        point("image.put")?;
        let shown = |image: Prepared| {
            tracing::info!(image = %image.record.id, "loaded");
            (image.record.id, image.names.iter().map(|name| name.name.to_string()).collect())
        };
        Ok(images.into_iter().map(shown).collect())
    }

    /// Brings the layers of an OCI layout's first image in, for a build alone.
    fn basis_in(&self, archive: File, platform: &registry::Platform) -> Result<Basis, Unloadable> {
        let mut archive = Archive::open(archive)?;
        let image = layout_for(&mut archive, platform)?.into_iter().next().ok_or_else(|| bad("no image is in it"))?;
        let Prepared { record, config, pins, .. } = self.prepare(&mut archive, image)?;
        let other = super::built::platform_of(&record);
        if !super::built::is_for(platform, &other) {
            return Err(bad(format!("its image is for {other}, and {platform} is built for")));
        }
        let document = make::object(&config).map_err(|e| bad(crate::chain(&e)))?;
        Ok(Basis { document, layers: record.layers, size: record.size, pins })
    }

    /// Brings an image's layers in; nobody sees them yet.
    fn prepare(&self, archive: &mut Archive, image: Found) -> Result<Prepared, Unloadable> {
        let names = image.names.iter().map(|name| name.parse::<ImageRef>().map_err(|e| Unloadable::Name(name.clone(), e)));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        let config = archive.document(&image.config)?;
        let digest = Digest::Sha256(sha2::Sha256::digest(&config).into());
        let parsed = config::parse(&config, image.layers.len())?;
        let pins = self.store.pin(&parsed.diff_ids);
        let mut size = config.len() as u64;
        for (name, diff) in image.layers.iter().zip(&parsed.diff_ids) {
            size += self.unpack_from(archive, name, *diff)?;
        }
        let names = names.into_iter().map(|name| Name { name, target: None }).collect();
        Ok(Prepared { record: parsed.into_record(ImageId::new(digest), size), names, config, pins })
    }
}

impl Shared {
    /// Brings a layer of an archive in unless it is there; answers its bytes in the archive.
    pub(super) fn unpack_from(&self, archive: &mut Archive, name: &str, diff: DiffId) -> Result<u64, Unloadable> {
        let mut reader = archive.reader(name)?;
        let size = reader.limit();
        if self.store.layer(&diff).is_none() {
            let mut start = [0; 6];
            let n = read_start(&mut reader, &mut start)?;
            let compression = layer::Compression::detect(&start[..n]);
            let whole = start[..n].chain(reader);
            self.unpack_as(whole, compression, None, diff).map_err(|e| Unloadable::Layer(name.to_owned(), Box::new(e)))?;
        }
        Ok(size)
    }
}

/// Where tests end the daemon.
pub(super) fn point(name: &'static str) -> io::Result<()> {
    failpoint::hit(name, About::Engine).map_err(|e| io::Error::other(e.chain()))
}

/// An image of an archive with all its layers there.
struct Prepared {
    record: store::ImageRecord,
    names: Vec<Name>,
    config: Vec<u8>,
    pins: store::LayerPins,
}

impl Prepared {
    fn document(&self) -> Document<'_> {
        Document { digest: *self.record.id.digest(), bytes: &self.config }
    }
}

pub(super) fn read_start(reader: &mut impl Read, start: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < start.len() {
        match reader.read(&mut start[n..])? {
            0 => break,
            more => n += more,
        }
    }
    Ok(n)
}

/// The images of an OCI image layout that this machine can run (image-layout.md).
pub(super) fn layout(archive: &mut Archive) -> Result<Vec<Found>, Unloadable> {
    layout_for(archive, &registry::Platform::host())
}

/// The images of an OCI image layout that a machine can run.
fn layout_for(archive: &mut Archive, platform: &registry::Platform) -> Result<Vec<Found>, Unloadable> {
    let index: Index = archive.json("index.json")?;
    let mut found = Vec::new();
    for entry in index.manifests.into_iter().take(1000) {
        let full = entry
            .annotations
            .get("io.containerd.image.name")
            .or_else(|| entry.annotations.get("org.opencontainers.image.ref.name"));
        // A bare tag names no repository: such an image gets no name.
        let names: Vec<_> = full.filter(|name| name.contains('/') || name.contains(':')).cloned().into_iter().collect();
        if let Some(image) = manifest(archive, &entry.digest, platform, 0)? {
            found.push(Found { names, ..image });
        }
    }
    match found.is_empty() {
        true if *platform == registry::Platform::host() => Err(bad("no image of this machine's architecture is in it")),
        true => Err(bad(format!("no image for {platform} is in it"))),
        false => Ok(found),
    }
}

fn blob_name(digest: &str) -> Result<String, Unloadable> {
    let digest: Digest = digest.parse().map_err(|e: model::DigestError| bad(e.to_string()))?;
    Ok(format!("blobs/{}/{}", digest.algorithm(), digest.hex()))
}

/// Follows a digest to a manifest for a machine.
fn manifest(archive: &mut Archive, digest: &str, platform: &registry::Platform, depth: u32) -> Result<Option<Found>, Unloadable> {
    if depth > 2 {
        return Err(bad("indexes are nested more than two deep"));
    }
    let name = blob_name(digest)?;
    let bytes = archive.document(&name)?;
    match registry::parse_manifest(&bytes, None).map_err(|e| bad(format!("{digest}: {}", crate::chain(&e))))? {
        registry::Document::Image(image) => {
            let config = blob_name(&image.config.digest.to_string())?;
            let layers = image.layers.iter().map(|l| blob_name(&l.digest.to_string())).collect::<Result<_, _>>()?;
            Ok(Some(Found { config, layers, names: Vec::new() }))
        }
        registry::Document::Index(index) => {
            let mut fitting: Vec<_> = index.entries.iter().filter(|e| !e.attestation).collect();
            fitting.retain(|e| e.platform.as_ref().is_none_or(|p| platform.suits(p).is_some()));
            match fitting.first() {
                Some(entry) => manifest(archive, &entry.descriptor.digest.to_string(), platform, depth + 1),
                None => Ok(None),
            }
        }
    }
}
