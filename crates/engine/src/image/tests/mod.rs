//! Images from end to end: a registry on loopback, the real store, real mounts.

mod archives;
mod made;
mod people;
mod pulls;
mod registry;
mod roots;

use std::{io::Write, path::Path, sync::Arc, time::Duration};

use model::{ContainerId, Digest, ImageId};
use sha2::Digest as _;

use self::registry::Server;
use super::{Credentials, Images, PullRequest};
use crate::{Config, Error};

/// A store and the images in it.
struct Lab {
    _dir: tempfile::TempDir,
    store: Arc<store::Store>,
    images: Images,
    server: Server,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = Arc::new(store::Store::open(dir.path().join("store")).unwrap());
        store.gc().unwrap();
        let config = Config {
            root: dir.path().join("store"),
            run: dir.path().join("run"),
            cgroup_parent: "/creel".into(),
            shim: "/nowhere".into(),
            certs_dir: dir.path().join("certs.d"),
            plain_http: Vec::new(),
            network: net::Config::Cni(Default::default()),
            criu: std::path::PathBuf::new(),
            pids_limit: 100,
            shm_size: 1 << 20,
            cgroup_driver: None,
            handlers: std::collections::BTreeMap::new(),
            nri: None,
            writable_layer_limit: None,
            build_cache_limit: None,
            block_io: Default::default(),
            pinned_images: Vec::new(),
            cdi_spec_dirs: Vec::new(),
            hooks_dirs: Vec::new(),
        };
        let images = Images::open(&config, store.clone()).unwrap();
        Self { _dir: dir, store, images, server: Server::start() }
    }

    async fn pull(&self, name: &str) -> Result<ImageId, Error> {
        let reference = format!("{}/{name}", self.server.address()).parse().unwrap();
        self.images.pull(PullRequest { reference, credentials: Credentials::anonymous(), platform: None }).await
    }

    /// Nothing is left of what was cancelled or failed, as soon as its last thread has noticed.
    async fn leaves_nothing(&self) {
        let nothing = || {
            self.store.settle();
            ["ingest", "trash", "layers/sha256", "blobs/sha256"].iter().all(|dir| is_empty(&self.store.root().join(dir)))
        };
        for _ in 0..500 {
            if nothing() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("something is left below {}", self.store.root().display());
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::Sha256(sha2::Sha256::digest(bytes).into())
}

fn container(n: u8) -> ContainerId {
    ContainerId::from_bytes([n; 32])
}

/// A ustar archive; names that end in a slash are directories of mode 0750 that belong to 5:6.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files {
        let directory = name.ends_with('/');
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let (mode, uid, gid) = if directory { ("0000750", "0000005", "0000006") } else { ("0000644", "0000000", "0000000") };
        header[100..107].copy_from_slice(mode.as_bytes());
        header[108..115].copy_from_slice(uid.as_bytes());
        header[116..123].copy_from_slice(gid.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[148..156].fill(b' ');
        header[156] = if directory { b'5' } else { b'0' };
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image as documents and blobs.
struct Made {
    config: Vec<u8>,
    manifest: Vec<u8>,
    layers: Vec<Vec<u8>>,
}

impl Made {
    /// Of gzipped layers with these files.
    fn new(layers: &[&[(&str, &[u8])]]) -> Self {
        let tars: Vec<_> = layers.iter().map(|files| tar(files)).collect();
        let diff_ids: Vec<_> = tars.iter().map(|tar| sha256(tar)).collect();
        Self::promising(&tars.iter().map(|tar| gzip(tar)).collect::<Vec<_>>(), &diff_ids)
    }

    /// Of these blobs, with a config that promises these diff ids.
    fn promising(blobs: &[Vec<u8>], diff_ids: &[Digest]) -> Self {
        let ids: Vec<_> = diff_ids.iter().map(ToString::to_string).collect();
        let config = serde_json::json!({
            "architecture": ::registry::Platform::host().architecture, "os": "linux",
            "config": {"User": "12:34", "Env": ["A=b"], "Cmd": ["/x"], "Labels": {"k": "v"}},
            "rootfs": {"type": "layers", "diff_ids": ids},
        });
        let config = config.to_string().into_bytes();
        let descriptor = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": sha256(bytes).to_string(), "size": bytes.len()});
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &config),
            "layers": blobs.iter().map(|blob| descriptor("layer.v1.tar+gzip", blob)).collect::<Vec<_>>(),
        });
        Self { config, manifest: manifest.to_string().into_bytes(), layers: blobs.to_vec() }
    }

    fn id(&self) -> ImageId {
        ImageId::new(sha256(&self.config))
    }
}
