//! The store's contract, on a real disk: what is there after success, failure, death and damage.
#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

mod damage;
mod faults;
mod full;
mod images;
mod records;
mod rights;
mod volumes;

use std::{
    collections::HashSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use model::{ContainerId, DiffId, Digest, ImageId, ImageRef};
use sha2::{Digest as _, Sha256};

use crate::{Document, Error, ImageRecord, LayerFacts, LayerKind, LayerPins, Name, Store, envelope, layout::Layout};

/// A directory for one test.
pub(super) struct Dir {
    dir: tempfile::TempDir,
}

impl Dir {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// In memory, for tests with hundreds of stores.
    pub(super) fn fast() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self { dir: tempfile::tempdir_in(memory).unwrap() } } else { Self::new() }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// A store that frees things.
    pub(super) fn open(&self) -> Store {
        let store = Store::open(self.root()).unwrap();
        store.gc().unwrap();
        store
    }
}

pub(super) fn sha256(bytes: &[u8]) -> Digest {
    Digest::Sha256(Sha256::digest(bytes).into())
}

pub(super) fn name(text: &str) -> ImageRef {
    text.parse().unwrap()
}

pub(super) fn container(n: u8) -> ContainerId {
    ContainerId::from_bytes([n; 32])
}

/// Puts a layer with this content in; its "tar" is the content.
pub(super) fn put_layer(store: &Store, content: &str, kind: LayerKind) -> Result<(DiffId, LayerPins), Error> {
    let diff_id = DiffId::new(sha256(content.as_bytes()));
    let mut ingest = store.layer_ingest();
    match kind {
        LayerKind::Erofs => {
            let mut file = ingest.create_file()?;
            file.write_all(content.as_bytes()).map_err(|e| Error::io("write", "layer", e))?;
        }
        LayerKind::Directory => {
            let dir = ingest.create_directory()?;
            let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
            let file = rustix::fs::openat(&dir, "file", flags, rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
            rustix::io::write(&file, content.as_bytes()).unwrap();
        }
    }
    let size = content.len() as u64;
    let blob = sha256(format!("compressed {content}").as_bytes());
    let blob = Some(crate::Form { digest: blob, size, packing: crate::Packing::Gzip });
    let facts = LayerFacts { diff_id, tar_size: size, content: size, inodes: 2, blob };
    Ok((diff_id, ingest.commit(&facts)?))
}

/// An image of these layers, and its documents.
pub(super) struct Made {
    pub(super) record: ImageRecord,
    config: String,
    manifest: String,
}

impl Made {
    pub(super) fn new(title: &str, layers: Vec<DiffId>) -> Self {
        let (config, manifest) = (format!("config of {title}"), format!("manifest of {title}"));
        let record = ImageRecord {
            id: ImageId::new(sha256(config.as_bytes())),
            layers,
            size: 7,
            created: "2026-01-02T03:04:05Z".into(),
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: String::new(),
            defaults: Default::default(),
            pulled_at: 1,
        };
        Self { record, config, manifest }
    }

    pub(super) fn target(&self) -> Digest {
        sha256(self.manifest.as_bytes())
    }

    pub(super) fn put(&self, store: &Store, names: &[&str]) -> Result<(), Error> {
        let names: Vec<Name> = names.iter().map(|n| Name { name: name(n), target: Some(self.target()) }).collect();
        let documents =
            [&self.config, &self.manifest].map(|text| Document { digest: sha256(text.as_bytes()), bytes: text.as_bytes() });
        store.put_image(&self.record, &names, &documents)
    }
}

/// Puts images in, all at once, each under a name.
pub(super) fn put_all(store: &Store, made: &[Made], name_of: impl Fn(usize) -> String) -> Result<(), Error> {
    let names: Vec<_> = (0..made.len()).map(|n| [Name { name: name(&name_of(n)), target: None }]).collect();
    let documents: Vec<_> =
        made.iter().map(|made| [Document { digest: sha256(made.config.as_bytes()), bytes: made.config.as_bytes() }]).collect();
    let all = made.iter().zip(&names).zip(&documents);
    let images = all.map(|((made, names), documents)| crate::NewImage { record: &made.record, names, documents });
    store.put_images(&images.collect::<Vec<_>>())
}

/// Pulls an image as the engine does.
pub(super) fn pull(store: &Store, title: &str, layers: &[&str], names: &[&str]) -> Result<ImageId, Error> {
    let mut pins = Vec::new();
    let mut ids = Vec::new();
    for (n, content) in layers.iter().enumerate() {
        let kind = if n % 2 == 0 { LayerKind::Erofs } else { LayerKind::Directory };
        let (id, pin) = put_layer(store, content, kind)?;
        ids.push(id);
        pins.push(pin);
    }
    let made = Made::new(title, ids);
    made.put(store, names)?;
    Ok(made.record.id)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.parent().is_some_and(|p| p.ends_with("sha256") || p.ends_with("sha512")) || !path.is_dir() {
            all.push(path);
        } else {
            all.extend(files(&path));
        }
    }
    all.sort();
    all
}

/// I08, I09: names are digests of contents, rows and files are the same set, nothing is left over.
pub(super) fn check(store: &Store) {
    store.settle();
    let root = store.root();
    let layout = Layout::new(root.to_owned());
    let state = store.shared.state();
    for directory in ["ingest", "trash"] {
        assert_eq!(fs::read_dir(root.join(directory)).unwrap().count(), 0, "{directory} is not empty");
    }
    let mut blobs = HashSet::new();
    for path in files(&root.join("blobs")) {
        let digest = sha256(&fs::read(&path).unwrap());
        assert_eq!(path, layout.blob(&digest));
        blobs.insert(digest);
    }
    assert_eq!(blobs, state.used_blobs());
    let layers: HashSet<PathBuf> = files(&root.join("layers")).into_iter().collect();
    let rows: HashSet<PathBuf> = state.layers.iter().map(|(id, row)| layout.layer(id, row.kind)).collect();
    assert_eq!(layers, rows);
    for (id, row) in &state.layers {
        let path = layout.layer(id, row.kind);
        let file = if row.kind == LayerKind::Directory { path.join("file") } else { path };
        assert_eq!(sha256(&fs::read(file).unwrap()), *id.digest());
    }
    for row in state.images.values() {
        assert!(row.record.layers.iter().all(|id| state.layers.contains_key(id)));
        let backup = fs::read(layout.backup(&row.record.id)).unwrap();
        assert_eq!(backup, crate::backup::encode(&state, row));
        envelope::open(&backup).unwrap();
    }
    assert_eq!(files(&root.join("images")).len(), state.images.len());
    for row in state.names.values() {
        assert!(state.images.contains_key(&row.image));
    }
}
