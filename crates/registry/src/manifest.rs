//! Indexes, manifests and configs, read strictly (OCI image spec; docker image manifest v2 schema 2).

use model::{Descriptor, Digest, DigestError, MediaType};
use serde::{Deserialize, de::IgnoredAny};

use crate::{Platform, json::check_unique_keys};

/// Largest manifest, index or config, in bytes.
pub(crate) const DOCUMENT_LIMIT: u64 = 4 << 20;
const MOST_ENTRIES: usize = 1000;
const MOST_LAYERS: usize = 256;
const LAYER_LIMIT: u64 = 16 << 30;
const IMAGE_LIMIT: u64 = 128 << 30;

/// Why a document is not one of an image that we take.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Not JSON, a key twice, a field missing or of the wrong kind.
    #[error("not a well-formed manifest or index")]
    Json(#[source] serde_json::Error),
    /// A descriptor's digest.
    #[error("descriptor of {what}")]
    Digest {
        /// Which descriptor.
        what: &'static str,
        /// What is wrong with it.
        source: DigestError,
    },
    /// Neither the transport nor the document says what it is.
    #[error("the document says in neither mediaType nor Content-Type what it is")]
    NoMediaType,
    /// The transport (or the index above) and the document say different things.
    #[error("announced as {announced}, but says that it is {inside}")]
    Mismatch {
        /// By Content-Type or by the index.
        announced: String,
        /// In the document.
        inside: String,
    },
    /// Something else: an artifact, a web page.
    #[error("{0} is neither an image manifest nor an index")]
    NotAnImage(String),
    /// Fields of more than one kind of document (CVE-2021-41190), or of another kind than it says.
    #[error("ambiguous document: {0}")]
    Ambiguous(&'static str),
    /// Docker's format of before 2016.
    #[error("image manifest version 2, schema 1 is no longer supported: push the image again with a current tool")]
    Schema1,
    /// A count or size beyond what we take.
    #[error("{what}: {found}, more than {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// How many.
        found: u64,
        /// How many are taken.
        limit: u64,
    },
    /// `urls` in a layer, or a media type that says that the layer is elsewhere.
    #[error("layer {0} is to be fetched from elsewhere (foreign layer), which is not supported")]
    Foreign(Digest),
    /// A config or layer that no container can be made of.
    #[error("{what} has the unsupported media type {media_type}")]
    Unsupported {
        /// Config or layer.
        what: &'static str,
        /// Its media type.
        media_type: String,
    },
    /// An index in an index in an index.
    #[error("indexes nested deeper than 2")]
    TooDeep,
    /// The config does not belong to the manifest.
    #[error("config: {0}")]
    Config(String),
}

impl DocumentError {
    /// What a caller can do about it.
    pub fn kind(&self) -> model::ErrorKind {
        match self {
            Self::Json(_)
            | Self::Digest { .. }
            | Self::NoMediaType
            | Self::Mismatch { .. }
            | Self::Ambiguous(_)
            | Self::Config(_) => model::ErrorKind::Corrupted,
            Self::Limit { .. } => model::ErrorKind::ResourceExhausted,
            Self::NotAnImage(_) | Self::Schema1 | Self::Foreign(_) | Self::Unsupported { .. } | Self::TooDeep => {
                model::ErrorKind::Unsupported
            }
        }
    }
}

/// A document that a tag or digest of a repository stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Several images.
    Index(Index),
    /// One image.
    Image(Image),
}

/// An OCI index or a docker manifest list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Which of the two.
    pub media_type: MediaType,
    /// At most 1000.
    pub entries: Vec<IndexEntry>,
}

/// One image of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its manifest, or another index.
    pub descriptor: Descriptor,
    /// What it runs on, if the index says so.
    pub platform: Option<Platform>,
    /// It is about another image (buildkit's attestations), not to be run.
    pub attestation: bool,
}

/// An OCI or docker manifest of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Which of the two.
    pub media_type: MediaType,
    /// Its config.
    pub config: Descriptor,
    /// Its layers, lowest first; at most 256.
    pub layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: u64,
    media_type: Option<String>,
    manifests: Option<Vec<RawDescriptor>>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    fs_layers: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    urls: Vec<IgnoredAny>,
    platform: Option<RawPlatform>,
    annotations: Option<RawAnnotations>,
}

#[derive(Deserialize)]
struct RawPlatform {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: String,
}

#[derive(Deserialize)]
struct RawAnnotations {
    #[serde(rename = "vnd.docker.reference.type")]
    reference_type: Option<String>,
}

/// Reads an index or manifest. `announced` is what the `Content-Type` or the descriptor above it says, if that says
/// anything specific.
///
/// # Errors
/// See [`DocumentError`]; the digest is the caller's to check.
pub fn parse_manifest(bytes: &[u8], announced: Option<&MediaType>) -> Result<Document, DocumentError> {
    let length = bytes.len() as u64;
    if length > DOCUMENT_LIMIT {
        return Err(DocumentError::Limit { what: "bytes of the document", found: length, limit: DOCUMENT_LIMIT });
    }
    if announced.is_some_and(|kind| is_schema1(kind.as_str())) {
        return Err(DocumentError::Schema1);
    }
    if let Some(other) = announced.filter(|kind| !kind.is_index() && !kind.is_manifest()) {
        return Err(DocumentError::NotAnImage(shown(other.as_str())));
    }
    check_unique_keys(bytes).map_err(DocumentError::Json)?;
    let raw: RawDocument = match serde_json::from_slice(bytes) {
        Ok(raw) => raw,
        Err(e) => return Err(DocumentError::Json(e)),
    };
    if raw.schema_version == 1 || raw.fs_layers.is_some() || raw.media_type.as_deref().is_some_and(is_schema1) {
        return Err(DocumentError::Schema1);
    }
    if raw.schema_version != 2 {
        return Err(DocumentError::Ambiguous("schemaVersion is not 2"));
    }
    let media_type = media_type(raw.media_type.as_deref(), announced)?;
    match (raw.manifests, raw.config, raw.layers) {
        (Some(manifests), None, None) if media_type.is_index() => Ok(Document::Index(index(media_type, manifests)?)),
        (None, Some(config), Some(layers)) if media_type.is_manifest() => Ok(Document::Image(image(media_type, &config, &layers)?)),
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            Err(DocumentError::Ambiguous("it has both manifests and config or layers"))
        }
        _ if media_type.is_index() => Err(DocumentError::Ambiguous("it says that it is an index, but has no manifests")),
        _ => Err(DocumentError::Ambiguous("it says that it is a manifest, but has not both config and layers")),
    }
}

fn is_schema1(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.distribution.manifest.v1+")
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

fn media_type(inside: Option<&str>, announced: Option<&MediaType>) -> Result<MediaType, DocumentError> {
    let inside = inside.map(|name| (name, parse_media_type(name)));
    match (inside, announced) {
        (Some((name, inside)), Some(announced)) if inside != *announced => {
            Err(DocumentError::Mismatch { announced: shown(announced.as_str()), inside: shown(name) })
        }
        (Some((_, kind)), _) if kind.is_index() || kind.is_manifest() => Ok(kind),
        (Some((name, _)), _) => Err(DocumentError::NotAnImage(shown(name))),
        (None, Some(announced)) => Ok(announced.clone()),
        (None, None) => Err(DocumentError::NoMediaType),
    }
}

pub(crate) fn parse_media_type(name: &str) -> MediaType {
    match name.parse() {
        Ok(kind) => kind,
        Err(never) => match never {},
    }
}

fn limit(what: &'static str, found: u64, limit: u64) -> Result<(), DocumentError> {
    if found > limit { Err(DocumentError::Limit { what, found, limit }) } else { Ok(()) }
}

fn descriptor(what: &'static str, raw: &RawDescriptor, most: u64) -> Result<Descriptor, DocumentError> {
    let digest = raw.digest.parse().map_err(|source| DocumentError::Digest { what, source })?;
    limit(what, raw.size, most)?;
    Ok(Descriptor { media_type: parse_media_type(&raw.media_type), digest, size: raw.size })
}

fn index(media_type: MediaType, raw: Vec<RawDescriptor>) -> Result<Index, DocumentError> {
    limit("entries of the index", raw.len() as u64, MOST_ENTRIES as u64)?;
    let entry = |raw: RawDescriptor| {
        let descriptor = descriptor("bytes of an index entry", &raw, DOCUMENT_LIMIT)?;
        let unknown = raw.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown");
        let about_another = raw.annotations.is_some_and(|a| a.reference_type.as_deref() == Some("attestation-manifest"));
        let platform =
            raw.platform.map(|p| Platform { os: shown(&p.os), architecture: shown(&p.architecture), variant: shown(&p.variant) });
        Ok(IndexEntry { descriptor, platform, attestation: unknown || about_another })
    };
    Ok(Index { media_type, entries: raw.into_iter().map(entry).collect::<Result<_, DocumentError>>()? })
}

fn image(media_type: MediaType, config: &RawDescriptor, layers: &[RawDescriptor]) -> Result<Image, DocumentError> {
    limit("layers", layers.len() as u64, MOST_LAYERS as u64)?;
    let config = descriptor("bytes of the config", config, DOCUMENT_LIMIT)?;
    if !matches!(config.media_type, MediaType::OciConfig | MediaType::DockerConfig) {
        return Err(DocumentError::Unsupported { what: "the config", media_type: shown(config.media_type.as_str()) });
    }
    let mut taken = Vec::with_capacity(layers.len());
    let mut total = 0;
    for raw in layers {
        let layer = descriptor("bytes of a layer", raw, LAYER_LIMIT)?;
        if !raw.urls.is_empty() || raw.media_type.contains(".foreign.") || raw.media_type.contains(".nondistributable.") {
            return Err(DocumentError::Foreign(layer.digest));
        }
        if !is_layer(&layer.media_type) {
            return Err(DocumentError::Unsupported { what: "a layer", media_type: shown(layer.media_type.as_str()) });
        }
        total += layer.size;
        limit("bytes of all layers", total, IMAGE_LIMIT)?;
        taken.push(layer);
    }
    Ok(Image { media_type, config, layers: taken })
}

fn is_layer(kind: &MediaType) -> bool {
    match kind {
        MediaType::OciLayer
        | MediaType::OciLayerGzip
        | MediaType::OciLayerZstd
        | MediaType::DockerLayer
        | MediaType::DockerLayerGzip
        | MediaType::DockerLayerZstd => true,
        MediaType::OciIndex
        | MediaType::OciManifest
        | MediaType::OciConfig
        | MediaType::DockerList
        | MediaType::DockerManifest
        | MediaType::DockerConfig
        | MediaType::Other(_) => false,
    }
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

/// Checks what ties a config to its manifest (R30): as many well-formed diff ids as layers.
/// Returns the platform it was built for, if it says one.
pub(crate) fn check_config(bytes: &[u8], layers: usize) -> Result<Option<Platform>, DocumentError> {
    let raw: RawConfig = serde_json::from_slice(bytes).map_err(|e| DocumentError::Config(format!("not well-formed: {e}")))?;
    if raw.rootfs.kind != "layers" {
        return Err(DocumentError::Config(format!("rootfs.type is {:?}, not \"layers\"", shown(&raw.rootfs.kind))));
    }
    let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.len() != layers {
        return Err(DocumentError::Config(format!("{} diff ids for {layers} layers", diff_ids.len())));
    }
    for diff_id in &diff_ids {
        diff_id.parse::<Digest>().map_err(|e| DocumentError::Config(format!("diff id: {e}")))?;
    }
    let known = !raw.os.is_empty() && !raw.architecture.is_empty();
    Ok(known.then(|| Platform { os: shown(&raw.os), architecture: shown(&raw.architecture), variant: shown(&raw.variant) }))
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
