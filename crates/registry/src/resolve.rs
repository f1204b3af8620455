//! From a name to a manifest and config for this machine.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use hyper::body::Incoming;
use model::{At, Descriptor, Digest, ImageRef, MediaType};

use crate::{
    Document, DocumentError, Error, Failure, Image, Index, Platform, Source, Step,
    blob::Hasher,
    endpoint::Endpoint,
    exchange::Ask,
    manifest::{DOCUMENT_LIMIT, check_config, parse_manifest, parse_media_type},
    rounds::Turn,
    source::Session,
};

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
const DEEPEST: usize = 2;

/// An image that was found, all its documents verified.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What the name stands for: an index or a manifest. Its digest is the one that `RepoDigests` shows.
    pub target: Descriptor,
    /// The target's bytes.
    pub target_bytes: Bytes,
    /// The manifest for this machine; the target itself, if that is no index.
    pub manifest: Descriptor,
    /// The manifest's bytes.
    pub manifest_bytes: Bytes,
    /// The config; its digest is the image's id.
    pub config: Descriptor,
    /// The config's bytes.
    pub config_bytes: Bytes,
    /// The layers, lowest first; as many as the config has diff ids.
    pub layers: Vec<Descriptor>,
    /// Where the layers can be had.
    pub source: Source,
}

/// A document and what it is.
struct Fetched {
    bytes: Bytes,
    descriptor: Descriptor,
    document: Document,
}

/// Which document, and what is known about it.
enum Wanted<'a> {
    Tag(&'a str),
    Digest(Digest),
    /// An entry of an index that was read.
    Entry(&'a Descriptor),
}

pub(crate) async fn resolve(source: Source, image: &ImageRef, platform: &Platform) -> Result<Resolved, Error> {
    let session = Arc::clone(&source.0);
    let refused = |source| Error::Document { name: image.to_string(), source };
    let target = match &image.at {
        At::Tag(tag) => session.document(image, Wanted::Tag(tag.as_str())).await?,
        At::Digest(digest) => session.document(image, Wanted::Digest(*digest)).await?,
    };
    let (target_descriptor, target_bytes) = (target.descriptor.clone(), target.bytes.clone());
    let mut current = target;
    let mut depth = 0;
    let manifest = loop {
        match current.document {
            Document::Image(image) => break image,
            Document::Index(index) => {
                depth += 1;
                if depth > DEEPEST {
                    return Err(refused(DocumentError::TooDeep));
                }
                let entry = choose(&index, platform).map_err(|available| Error::Platform {
                    name: image.to_string(),
                    wanted: platform.clone(),
                    available,
                })?;
                current = session.document(image, Wanted::Entry(&entry)).await?;
            }
        }
    };
    let Image { config, layers, .. } = manifest;
    let config_bytes = session.config(image, &config).await?;
    let built_for = check_config(&config_bytes, layers.len()).map_err(refused)?;
    // An index that says nothing or something else about an entry does not make its programs run here.
    if let Some(other) = built_for.filter(|built_for| platform.suits(built_for).is_none()) {
        return Err(Error::Platform { name: image.to_string(), wanted: platform.clone(), available: vec![other.to_string()] });
    }
    Ok(Resolved {
        target: target_descriptor,
        target_bytes,
        manifest: current.descriptor,
        manifest_bytes: current.bytes,
        config,
        config_bytes,
        layers,
        source,
    })
}

/// The entry that suits best; among equals the first. An entry that does not say its platform is taken if no other
/// fits: its config will say.
fn choose(index: &Index, platform: &Platform) -> Result<Descriptor, Vec<String>> {
    let mut best: Option<(u32, &Descriptor)> = None;
    let images = || index.entries.iter().filter(|e| !e.attestation);
    for entry in images() {
        let score = entry.platform.as_ref().and_then(|offered| platform.suits(offered));
        if let Some(score) = score.filter(|score| best.is_none_or(|(known, _)| *score > known)) {
            best = Some((score, &entry.descriptor));
        }
    }
    let silent = || images().find(|e| e.platform.is_none()).map(|e| &e.descriptor);
    match best.map(|(_, descriptor)| descriptor).or_else(silent) {
        Some(descriptor) => Ok(descriptor.clone()),
        None => {
            let mut names: Vec<String> = images().filter_map(|e| e.platform.as_ref()).map(Platform::to_string).collect();
            names.sort();
            names.dedup();
            names.truncate(40);
            if names.is_empty() {
                names.push("none at all".to_owned());
            }
            Err(names)
        }
    }
}

impl Session {
    /// Fetches a manifest or index from the first place that has a good one.
    async fn document(&self, image: &ImageRef, wanted: Wanted<'_>) -> Result<Fetched, Error> {
        let (step, mut rounds) = match wanted {
            Wanted::Tag(_) => (Step::Resolve, self.rounds(|can| can.resolve)),
            Wanted::Digest(_) | Wanted::Entry(_) => (Step::Manifest, self.rounds(|can| can.pull)),
        };
        loop {
            match rounds.turn() {
                Turn::Ask(number) => {
                    let endpoint = self.endpoint(number);
                    let answer = self.document_from(endpoint, &wanted).await;
                    endpoint.set_down(answer.as_ref().is_err_and(Failure::is_down));
                    match answer {
                        Ok(fetched) => return Ok(fetched),
                        Err(failure) => rounds.failed(failure),
                    }
                }
                Turn::Wait(wait) => tokio::time::sleep(wait).await,
                Turn::Over => {
                    let name = match wanted {
                        Wanted::Tag(_) => image.to_string(),
                        Wanted::Digest(digest) => format!("{}@{digest}", image.name()),
                        Wanted::Entry(entry) => format!("{}@{}", image.name(), entry.digest),
                    };
                    return Err(self.gave_up(step, name, rounds.into_failures()));
                }
            }
        }
    }

    async fn document_from(&self, endpoint: &Endpoint, wanted: &Wanted<'_>) -> Result<Fetched, Failure> {
        let at = match wanted {
            Wanted::Tag(tag) => (*tag).to_owned(),
            Wanted::Digest(digest) => digest.to_string(),
            Wanted::Entry(entry) => entry.digest.to_string(),
        };
        let url = endpoint.url(&self.repository, &format!("manifests/{at}"));
        let response = self.ask(endpoint, url, &Ask { accept: Some(ACCEPT), ..Ask::default() }).await?;
        let response = self.only_ok(response).await?;
        let content_type = content_type(&response);
        let hint = response.headers().get("docker-content-digest").and_then(|v| v.to_str().ok()?.parse::<Digest>().ok());
        let bytes = self.read_all(response, DOCUMENT_LIMIT).await?;
        let expected = match wanted {
            // For a tag the registry's word is a hint; if it gives one, its own bytes have to fit it.
            Wanted::Tag(_) => hint,
            Wanted::Digest(digest) => Some(*digest),
            Wanted::Entry(entry) => {
                same_length(entry, bytes.len())?;
                Some(entry.digest)
            }
        };
        let digest = match expected {
            Some(expected) => verify(&bytes, &expected)?,
            None => Hasher::sha256_of(&bytes),
        };
        let entry_type = match wanted {
            Wanted::Entry(entry) => Some(entry.media_type.clone()),
            Wanted::Tag(_) | Wanted::Digest(_) => None,
        };
        let announced = agreed(content_type, entry_type).map_err(Failure::Document)?;
        let document = parse_manifest(&bytes, announced.as_ref()).map_err(Failure::Document)?;
        let media_type = match &document {
            Document::Index(index) => index.media_type.clone(),
            Document::Image(image) => image.media_type.clone(),
        };
        Ok(Fetched { descriptor: Descriptor { media_type, digest, size: bytes.len() as u64 }, bytes, document })
    }

    /// Fetches an image's config.
    async fn config(&self, image: &ImageRef, config: &Descriptor) -> Result<Bytes, Error> {
        let mut rounds = self.rounds(|can| can.pull);
        loop {
            match rounds.turn() {
                Turn::Ask(number) => {
                    let endpoint = self.endpoint(number);
                    let answer = self.config_from(endpoint, config).await;
                    endpoint.set_down(answer.as_ref().is_err_and(Failure::is_down));
                    match answer {
                        Ok(bytes) => return Ok(bytes),
                        Err(failure) => rounds.failed(failure),
                    }
                }
                Turn::Wait(wait) => tokio::time::sleep(wait).await,
                Turn::Over => {
                    let name = format!("{}@{}", image.name(), config.digest);
                    return Err(self.gave_up(Step::Config, name, rounds.into_failures()));
                }
            }
        }
    }

    async fn config_from(&self, endpoint: &Endpoint, config: &Descriptor) -> Result<Bytes, Failure> {
        let url = endpoint.url(&self.repository, &format!("blobs/{}", config.digest));
        let response = self.ask(endpoint, url, &Ask::default()).await?;
        let bytes = self.read_all(self.only_ok(response).await?, config.size).await?;
        same_length(config, bytes.len())?;
        verify(&bytes, &config.digest)?;
        Ok(bytes)
    }

    /// 200 and nothing else.
    pub(crate) async fn only_ok(&self, response: Response<Incoming>) -> Result<Response<Incoming>, Failure> {
        if response.status() == StatusCode::OK { Ok(response) } else { Err(self.status_failure(response, str::to_owned).await) }
    }
}

fn same_length(descriptor: &Descriptor, found: usize) -> Result<(), Failure> {
    let found = found as u64;
    if found == descriptor.size { Ok(()) } else { Err(Failure::Length { expected: descriptor.size, found }) }
}

fn verify(bytes: &[u8], expected: &Digest) -> Result<Digest, Failure> {
    let found = Hasher::of(expected, bytes);
    if found == *expected { Ok(found) } else { Err(Failure::Digest { expected: Box::new(*expected), found: Box::new(found) }) }
}

/// The media type of an answer, if it says a specific one: parameters are dropped, and what servers say of any file
/// says nothing.
fn content_type(response: &Response<Incoming>) -> Option<MediaType> {
    let text = response.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    let name = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match name.as_str() {
        "" | "application/json" | "application/octet-stream" | "text/plain" | "binary/octet-stream" => None,
        name => Some(parse_media_type(name)),
    }
}

/// Content-Type and the index above must say the same.
fn agreed(transport: Option<MediaType>, above: Option<MediaType>) -> Result<Option<MediaType>, DocumentError> {
    match (transport, above) {
        (Some(transport), Some(above)) if transport != above => {
            Err(DocumentError::Mismatch { announced: transport.to_string(), inside: above.to_string() })
        }
        (transport, above) => Ok(transport.or(above)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IndexEntry;

    fn index(entries: &[&str]) -> Index {
        let entry = |(n, text): (usize, &&str)| IndexEntry {
            descriptor: Descriptor { media_type: MediaType::OciManifest, digest: Digest::Sha256([n as u8; 32]), size: 1 },
            platform: Platform::parse(text),
            attestation: text.starts_with("unknown"),
        };
        Index { media_type: MediaType::OciIndex, entries: entries.iter().enumerate().map(entry).collect() }
    }

    #[test]
    fn the_best_entry_is_chosen() {
        let chosen =
            |entries: &[&str]| choose(&index(entries), &Platform::parse("linux/amd64").unwrap()).map(|d| d.digest.as_bytes()[0]);
        assert_eq!(chosen(&["linux/arm64", "linux/amd64", "linux/amd64"]), Ok(1));
        assert_eq!(chosen(&["", "linux/amd64"]), Ok(1));
        assert_eq!(chosen(&["unknown/unknown", "linux/arm64", ""]), Ok(2));
        assert_eq!(
            chosen(&["linux/s390x", "linux/arm/v7", "unknown/unknown", "linux/s390x"]),
            Err(vec!["linux/arm/v7".into(), "linux/s390x".into()])
        );
        assert_eq!(chosen(&[]), Err(vec!["none at all".into()]));
    }
}
