//! Images made by tests, good and bad, and pushing them.

use std::io::Write;

use serde_json::{Value, json};
use sha2::Digest as _;

use crate::{daemon::cache, registry::Registry};

/// This machine's architecture as images name it.
pub const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer's tar.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn entry(mut self, name: &str, kind: tar::EntryType, mode: u32, data: &[u8], link: Option<&str>) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(data.len() as u64);
        // By hand: the builder refuses what a hostile image would say.
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        if let Some(link) = link {
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    pub fn dir(self, name: &str) -> Self {
        self.entry(name, tar::EntryType::Directory, 0o755, b"", None)
    }

    pub fn file(self, name: &str, mode: u32, data: &[u8]) -> Self {
        self.entry(name, tar::EntryType::Regular, mode, data, None)
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, tar::EntryType::Symlink, 0o777, b"", Some(target))
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(name, tar::EntryType::Link, 0o755, b"", Some(target))
    }

    /// A shell and some tools.
    pub fn busybox() -> Self {
        let program = std::fs::read(cache("img/busybox")).expect("busybox: hack/deps");
        let mut layer = Self::new().dir("bin/").dir("etc/").dir("tmp/").file("bin/busybox", 0o755, &program);
        for applet in [
            "sh", "sleep", "cat", "echo", "id", "ls", "true", "false", "env", "head", "yes", "ps", "mount", "wc", "nc", "touch",
            "rm", "dd", "kill", "hostname", "ip", "stat", "tail",
        ] {
            layer = layer.link(&format!("bin/{applet}"), "bin/busybox");
        }
        layer.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:n:/:/bin/false\n").file(
            "etc/group",
            0o644,
            b"root:x:0:\n",
        )
    }

    pub fn tar(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// What an image is pushed with; a test bends what it wants to be wrong.
pub struct Image {
    pub layers: Vec<Vec<u8>>,
    pub diff_ids: Vec<String>,
    pub config: Value,
    pub layer_type: &'static str,
}

impl Image {
    /// gzip layers, honest diff ids.
    pub fn of(tars: &[Vec<u8>]) -> Self {
        Self {
            layers: tars.iter().map(|t| gzip(t)).collect(),
            diff_ids: tars.iter().map(|t| digest(t)).collect(),
            config: json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]}),
            layer_type: "application/vnd.oci.image.layer.v1.tar+gzip",
        }
    }

    /// Pushes; answers the manifest's digest.
    pub fn push(&self, registry: &Registry, repository: &str, tag: &str) -> String {
        digest(&self.push_for(registry, repository, tag, ARCH))
    }

    /// Pushes as an image for another architecture; answers the manifest.
    pub fn push_for(&self, registry: &Registry, repository: &str, tag: &str, arch: &str) -> Vec<u8> {
        let config = json!({
            "architecture": arch, "os": "linux", "created": "2020-01-01T00:00:00Z", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
        });
        let config = serde_json::to_vec(&config).unwrap();
        registry.push_blob(repository, &digest(&config), &config);
        for layer in &self.layers {
            registry.push_blob(repository, &digest(layer), layer);
        }
        let descriptor = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": self.layers.iter().map(|l| descriptor(self.layer_type, l)).collect::<Vec<_>>(),
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        registry.push_manifest(repository, tag, kind, &manifest);
        manifest
    }
}
