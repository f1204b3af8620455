//! Images that are made here: out of a container (`commit`) or out of files (`import`). A layer that is new, a config, one row in
//! the store.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use model::{DiffId, Digest, ErrorKind, ImageId, ImageRef};
use serde_json::{Map, Value, json};
use sha2::Digest as _;
use store::{Document, Name};

use super::{Images, Shared, changes, config, import::point, pull::Unpack};
use crate::{
    blocking::blocking,
    clock,
    error::{About, Error, Step},
};

/// Bytes that may be between who writes a layer and who reads it.
const PIPE: usize = 1 << 20;

/// Why an image cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unmakable {
    #[error("pack what the container has changed")]
    Diff(#[source] Box<layer::Error>),
    #[error(transparent)]
    Unpack(#[from] Box<Unpack>),
    #[error("its config is no JSON object")]
    Config(#[source] Option<serde_json::Error>),
    #[error(transparent)]
    Change(#[from] changes::Unchangeable),
    #[error(transparent)]
    Unusable(#[from] config::Unusable),
    #[error("read its files")]
    Io(#[from] io::Error),
    #[error("keep it")]
    Store(#[from] store::Error),
}

impl Unmakable {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Diff(e) => e.kind(),
            Self::Unpack(e) => e.kind(),
            Self::Config(_) | Self::Unusable(_) => ErrorKind::Corrupted,
            Self::Change(_) => ErrorKind::InvalidArgument,
            Self::Io(_) => ErrorKind::Internal,
            Self::Store(e) => e.kind(),
        }
    }
}

/// What an image out of a container is to be.
#[derive(Debug)]
pub struct Commit {
    /// The container's image.
    pub image: ImageId,
    /// Its writable layer.
    pub upper: OwnedFd,
    /// What the engine itself has made in it to mount something there, relative to the root: it is left out, unless the container
    /// has put something into it.
    pub mounted: BTreeSet<Vec<u8>>,
    /// The container's own values of the image's `config`, with the names that they have there; what is missing is the image's.
    pub config: Map<String, Value>,
    /// Instructions.
    pub changes: Vec<String>,
    /// Who made it; may be empty.
    pub author: String,
    /// What they say of it; may be empty.
    pub comment: String,
    /// What has run.
    pub created_by: String,
    /// None: the image has no name.
    pub name: Option<ImageRef>,
}

/// What an image out of files is to be.
#[derive(Debug)]
pub struct FromFiles {
    /// None: the image has no name.
    pub name: Option<ImageRef>,
    /// Instructions.
    pub changes: Vec<String>,
    /// What is said of it.
    pub comment: String,
    /// None: this machine.
    pub platform: Option<registry::Platform>,
}

impl Images {
    /// Makes an image out of a container's image and writable layer, with a layer for what it has changed, if anything.
    ///
    /// # Errors
    /// `InvalidArgument` for changes that are none; `NotFound` if the image is gone; if the disk fails. Nothing is left then.
    pub async fn commit(&self, commit: Commit) -> Result<ImageId, Error> {
        let shared = self.shared.clone();
        let about = About::Image(commit.image.to_string());
        // The image may have lost its last name meanwhile; its layers are the container's own.
        let base = shared.store.image(&commit.image);
        let base =
            base.ok_or_else(|| Error::new(ErrorKind::NotFound, about.clone(), format!("No such image: {}", commit.image)))?;
        blocking(move || shared.commit_container(&base, commit)).await.step(about, "commit")
    }

    /// Makes an image out of a tar, which may be compressed.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no such archive and for changes that are none; if the disk fails. Nothing is left then.
    pub async fn import_files(&self, archive: File, wanted: FromFiles) -> Result<ImageId, Error> {
        let shared = self.shared.clone();
        let about = About::Image("import".to_owned());
        blocking(move || shared.import_files(archive, wanted)).await.step(about, "import")
    }
}

impl Shared {
    fn commit_container(&self, base: &store::NamedImage, commit: Commit) -> Result<ImageId, Unmakable> {
        let record = &base.record;
        let _pins = self.store.pin(&record.layers);
        let mut document = object(&self.store.blob(record.id.digest())?)?;
        // What is wrong with the changes is known before the work begins.
        let mut config = taken(&mut document, "config");
        config.extend(commit.config);
        let config = changes::change(config, &commit.changes)?;
        let packed = self.pack(commit.upper, &commit.mounted, None)?;
        let mut layers = record.layers.clone();
        let mut size = record.size;
        layers.extend(packed.as_ref().map(|(diff, ..)| *diff));
        size += packed.as_ref().map_or(0, |(_, size, _)| *size);
        let created = model::time::rfc3339(clock::now()).to_string();
        let mut entry = json!({"created": created, "created_by": commit.created_by, "comment": commit.comment});
        if !commit.author.is_empty() {
            entry["author"] = Value::String(commit.author.clone());
        }
        if packed.is_none() {
            entry["empty_layer"] = Value::Bool(true);
        }
        // They are about another container, or say it all once more.
        for key in ["container", "container_config", "docker_version", "id", "parent", "parent_id"] {
            document.remove(key);
        }
        document.insert("author".to_owned(), Value::String(commit.author));
        if commit.comment.is_empty() {
            drop(document.remove("comment"))
        } else {
            drop(document.insert("comment".to_owned(), Value::String(commit.comment)))
        }
        self.put(Making { document, config, created, entry, layers, size, name: commit.name })
    }

    fn import_files(&self, archive: File, wanted: FromFiles) -> Result<ImageId, Unmakable> {
        let config = changes::change(Map::new(), &wanted.changes)?;
        let mut start = [0; 6];
        let n = super::import::read_start(&mut &archive, &mut start)?;
        io::Seek::rewind(&mut &archive)?;
        let compression = layer::Compression::detect(&start[..n]);
        let (diff, size, _pins) = self.unpack_new(archive, compression).map_err(Box::new)?;
        let platform = wanted.platform.unwrap_or_else(registry::Platform::host);
        let mut document = Map::new();
        document.insert("architecture".to_owned(), Value::String(platform.architecture));
        document.insert("os".to_owned(), Value::String(platform.os));
        if !platform.variant.is_empty() {
            document.insert("variant".to_owned(), Value::String(platform.variant));
        }
        let created = model::time::rfc3339(clock::now()).to_string();
        let entry = json!({"created": created, "comment": wanted.comment});
        document.insert("comment".to_owned(), Value::String(wanted.comment));
        self.put(Making { document, config, created, entry, layers: vec![diff], size, name: wanted.name })
    }

    /// What is in a writable layer as a layer of its own, nothing in it younger than `latest`; `None`: nothing.
    pub(super) fn pack(
        &self,
        upper: OwnedFd,
        mounted: &BTreeSet<Vec<u8>>,
        latest: Option<i64>,
    ) -> Result<Option<Packed>, Unmakable> {
        self.pack_by(move |writer| {
            let writer = io::BufWriter::with_capacity(256 << 10, writer);
            layer::diff_without(upper.as_fd(), mounted, latest, writer, &layer::Limits::default())
        })
    }

    /// What is written as a layer; `None`: nothing.
    pub(super) fn pack_by(
        &self,
        write: impl FnOnce(io::PipeWriter) -> Result<layer::Diffed, layer::Error> + Send,
    ) -> Result<Option<Packed>, Unmakable> {
        let (reader, writer) = io::pipe()?;
        // With no more room than usual they wait for each other more often, and that is all.
        rustix::pipe::fcntl_setpipe_size(&writer, PIPE).ok();
        std::thread::scope(|scope| {
            let packing = scope.spawn(move || write(writer));
            let unpacked = self.unpack_new(reader, layer::Compression::None);
            let packed = packing.join().map_err(|_| Box::new(Unpack::Crashed))?;
            // A reader that fails breaks the pipe of the writer: its own reason is the better one.
            let (diff, size, pins) = match (unpacked, packed) {
                (Ok(_), Err(e)) => return Err(Unmakable::Diff(Box::new(e))),
                (Ok(unpacked), Ok(packed)) if packed.entries == 0 => {
                    drop(unpacked);
                    return Ok(None);
                }
                (unpacked, _) => unpacked.map_err(Box::new)?,
            };
            Ok(Some((diff, size, pins)))
        })
    }

    /// Writes the config with one more line of history, and makes the image visible.
    fn put(&self, making: Making) -> Result<ImageId, Unmakable> {
        let Making { mut document, config, created, entry, layers, size, name } = making;
        document.insert("created".to_owned(), Value::String(created));
        document.insert("config".to_owned(), Value::Object(config));
        match document.entry("history").or_insert_with(|| json!([])) {
            Value::Array(history) => history.push(entry),
            other => *other = json!([entry]),
        }
        self.keep(document, &layers, size, name.into_iter().collect())
    }

    /// Writes the config, whose layers it is told here, and makes the image visible. `size`: bytes of its layers.
    pub(super) fn keep(
        &self,
        document: Map<String, Value>,
        layers: &[DiffId],
        size: u64,
        names: Vec<ImageRef>,
    ) -> Result<ImageId, Unmakable> {
        let _pins = self.store.pin(layers);
        let Draft { record, config } = Draft::new(document, layers, size)?;
        let id = record.id;
        let names: Vec<Name> = names.into_iter().map(|name| Name { name, target: None }).collect();
        point("image.layers")?;
        self.store.put_image(&record, &names, &[Document { digest: *id.digest(), bytes: &config }])?;
        point("image.put")?;
        tracing::info!(image = %id, layers = layers.len(), "made");
        Ok(id)
    }
}

/// An image that nobody sees yet, or ever.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) record: store::ImageRecord,
    /// The bytes of its config.
    pub(crate) config: Vec<u8>,
}

impl Draft {
    /// Of a config, whose layers it is told here. `size`: bytes of the layers.
    ///
    /// # Errors
    /// A config that is none.
    pub(crate) fn new(mut document: Map<String, Value>, layers: &[DiffId], size: u64) -> Result<Self, Unmakable> {
        let ids: Vec<String> = layers.iter().map(ToString::to_string).collect();
        document.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": ids}));
        let config = serde_json::to_vec(&document).map_err(|e| Unmakable::Config(Some(e)))?;
        let id = ImageId::new(Digest::Sha256(sha2::Sha256::digest(&config).into()));
        let record = config::parse(&config, layers.len())?.into_record(id, size + config.len() as u64);
        Ok(Self { record, config })
    }
}

/// A layer that was made: its digest, the bytes of its tar, and what keeps it.
pub(crate) type Packed = (DiffId, u64, store::LayerPins);

/// An image whose layers are there.
struct Making {
    /// Its config's fields beside those that follow.
    document: Map<String, Value>,
    config: Map<String, Value>,
    created: String,
    /// The new line of its history.
    entry: Value,
    layers: Vec<DiffId>,
    size: u64,
    name: Option<ImageRef>,
}

pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Unmakable> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Unmakable::Config(None)),
        Err(e) => Err(Unmakable::Config(Some(e))),
    }
}

fn taken(document: &mut Map<String, Value>, key: &str) -> Map<String, Value> {
    match document.remove(key) {
        Some(Value::Object(object)) => object,
        _ => Map::new(),
    }
}
