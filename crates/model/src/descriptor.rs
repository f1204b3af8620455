//! Descriptors and media types (OCI image spec, descriptor.md; docker image manifest v2 schema 2).

use std::{fmt, str::FromStr};

use crate::Digest;

/// What a blob is said to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// OCI image index.
    OciIndex,
    /// OCI image manifest.
    OciManifest,
    /// OCI image config.
    OciConfig,
    /// OCI layer, plain tar.
    OciLayer,
    /// OCI layer, gzip.
    OciLayerGzip,
    /// OCI layer, zstd.
    OciLayerZstd,
    /// Docker manifest list.
    DockerList,
    /// Docker manifest, schema 2.
    DockerManifest,
    /// Docker image config.
    DockerConfig,
    /// Docker layer, plain tar.
    DockerLayer,
    /// Docker layer, gzip.
    DockerLayerGzip,
    /// Docker layer, zstd (buildkit writes it).
    DockerLayerZstd,
    /// Anything else; kept as it is.
    Other(Box<str>),
}

const NAMES: &[(MediaType, &str)] = &[
    (MediaType::OciIndex, "application/vnd.oci.image.index.v1+json"),
    (MediaType::OciManifest, "application/vnd.oci.image.manifest.v1+json"),
    (MediaType::OciConfig, "application/vnd.oci.image.config.v1+json"),
    (MediaType::OciLayer, "application/vnd.oci.image.layer.v1.tar"),
    (MediaType::OciLayerGzip, "application/vnd.oci.image.layer.v1.tar+gzip"),
    (MediaType::OciLayerZstd, "application/vnd.oci.image.layer.v1.tar+zstd"),
    (MediaType::DockerList, "application/vnd.docker.distribution.manifest.list.v2+json"),
    (MediaType::DockerManifest, "application/vnd.docker.distribution.manifest.v2+json"),
    (MediaType::DockerConfig, "application/vnd.docker.container.image.v1+json"),
    (MediaType::DockerLayer, "application/vnd.docker.image.rootfs.diff.tar"),
    (MediaType::DockerLayerGzip, "application/vnd.docker.image.rootfs.diff.tar.gzip"),
    (MediaType::DockerLayerZstd, "application/vnd.docker.image.rootfs.diff.tar.zstd"),
];

impl MediaType {
    /// The media type's name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(name) => name,
            known => NAMES.iter().find(|(kind, _)| kind == known).map_or("", |(_, name)| name),
        }
    }

    /// An index or manifest list.
    pub fn is_index(&self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerList)
    }

    /// A manifest of one platform.
    pub fn is_manifest(&self) -> bool {
        matches!(self, Self::OciManifest | Self::DockerManifest)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MediaType {
    type Err = std::convert::Infallible;
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = NAMES.iter().find(|(_, known)| *known == name);
        Ok(known.map_or_else(|| Self::Other(name.into()), |(kind, _)| kind.clone()))
    }
}

/// Names a blob: what it is, its digest and its size in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What the blob is said to be.
    pub media_type: MediaType,
    /// The digest of the blob's bytes.
    pub digest: Digest,
    /// The blob's size in bytes.
    pub size: u64,
}
