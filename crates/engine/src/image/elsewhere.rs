//! Steps of builds that were made elsewhere: an image whose config says what steps have made which of its layers.
//!
//! Nothing of it is believed but what digests say of themselves: a layer is unpacked only as what its diff id names. That a step
//! has made this very layer is the word of who wrote the image; whoever takes steps from there trusts it as a base image.

use std::{
    collections::HashMap,
    fs::File,
    sync::{Arc, Mutex, PoisonError},
};

use model::{Descriptor, DiffId, Digest, ErrorKind, ImageRef, StepId};
use registry::Resolved;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::Digest as _;

use super::{
    Credentials, Images, Unmakable, config,
    import::{Archive, Unloadable, layout},
    make,
};
use crate::{
    blocking::blocking,
    error::{About, Error, Step as _},
};

/// The field of an image's config.
pub(crate) const FIELD: &str = "creel.build.cache";
/// What is in it. Another number is another form.
const VERSION: u64 = 1;
/// Steps of one image.
const MOST: usize = 4096;
/// Layers of one image, as registries have it.
const LAYERS: usize = 256;

/// A step, and what it has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CarriedStep {
    pub(crate) id: StepId,
    /// When, as images say it.
    pub(crate) created: String,
    pub(crate) layer: Option<DiffId>,
    /// The instruction, for people.
    pub(crate) what: String,
}

#[derive(Deserialize, Serialize)]
struct Field {
    version: u64,
    steps: Vec<RawStep>,
}

#[derive(Deserialize, Serialize)]
struct RawStep {
    key: String,
    created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layer: Option<String>,
    #[serde(default)]
    what: String,
}

/// The field of an image's config.
pub(crate) fn field(steps: &[CarriedStep]) -> Value {
    let raw = |step: &CarriedStep| RawStep {
        key: step.id.to_string(),
        created: step.created.clone(),
        layer: step.layer.as_ref().map(ToString::to_string),
        what: step.what.clone(),
    };
    json!(Field { version: VERSION, steps: steps.iter().map(raw).collect() })
}

/// An image that is nothing but steps and their layers, each once.
///
/// # Errors
/// More layers than an image can have.
pub(crate) fn draft(steps: &[CarriedStep]) -> Result<make::Draft, Unmakable> {
    let mut layers: Vec<DiffId> = Vec::new();
    for layer in steps.iter().filter_map(|step| step.layer) {
        if !layers.contains(&layer) {
            layers.push(layer);
        }
    }
    if layers.len() > LAYERS {
        return Err(std::io::Error::other(format!("the steps have {} layers: an image has {LAYERS} at most", layers.len())).into());
    }
    let host = registry::Platform::host();
    let mut document = Map::new();
    document.insert("architecture".to_owned(), Value::String(host.architecture));
    document.insert("os".to_owned(), Value::String(host.os));
    document.insert("config".to_owned(), json!({}));
    document.insert(FIELD.to_owned(), field(steps));
    make::Draft::new(document, &layers, 0)
}

/// What a config says; steps whose layers are not the image's are none.
fn steps_of(config: &[u8], layers: &[DiffId]) -> Result<HashMap<StepId, CarriedStep>, String> {
    let document: Map<String, Value> = serde_json::from_slice(config).map_err(|e| e.to_string())?;
    let Some(field) = document.get(FIELD) else { return Err(format!("no steps of builds are in it (no {FIELD} in its config)")) };
    let field = Field::deserialize(field).map_err(|e| format!("{FIELD}: {e}"))?;
    if field.version != VERSION {
        return Err(format!("{FIELD}: version {} is not known", field.version));
    }
    if field.steps.len() > MOST {
        return Err(format!("{FIELD}: more than {MOST} steps"));
    }
    let one = |raw: RawStep| {
        let id: StepId = raw.key.parse().ok()?;
        let layer = raw.layer.map(|layer| layer.parse::<Digest>().map(DiffId::new)).transpose().ok()?;
        let is_time = raw.created.len() <= 40 && raw.created.bytes().all(|c| c.is_ascii_digit() || b"-:.TZ+".contains(&c));
        let known = is_time && layer.is_none_or(|layer| layers.contains(&layer));
        let what = raw.what.chars().filter(|c| !c.is_control()).take(200).collect();
        known.then_some((id, CarriedStep { id, created: raw.created, layer, what }))
    };
    Ok(field.steps.into_iter().filter_map(one).collect())
}

/// Steps that were made elsewhere, and where their layers are to be had.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    /// The digest of the config that says all this.
    pub(crate) digest: Digest,
    pub(crate) steps: HashMap<StepId, CarriedStep>,
    blobs: Blobs,
}

#[derive(Debug)]
enum Blobs {
    Registry(Arc<Resolved>, HashMap<DiffId, Descriptor>),
    Archive(Mutex<Archive>, HashMap<DiffId, String>),
}

fn refused(name: &str) -> impl Fn(String) -> Error {
    let about = About::Image(name.to_owned());
    move |why| Error::new(ErrorKind::InvalidArgument, about.clone(), why)
}

impl Images {
    /// Steps that an image at a registry says to be made of.
    ///
    /// # Errors
    /// What the registry says; it has none.
    pub(crate) async fn steps_at(&self, name: &ImageRef, credentials: &Credentials) -> Result<Elsewhere, Error> {
        let about = || About::Image(name.to_string());
        let resolved = self.shared.registry.resolve(name, credentials).await.step(about(), "import cache")?;
        let layers = config::parse(&resolved.config_bytes, resolved.layers.len()).step(about(), "import cache")?.diff_ids;
        let steps = steps_of(&resolved.config_bytes, &layers).map_err(refused(&name.to_string()))?;
        let blobs = layers.into_iter().zip(resolved.layers.iter().cloned()).collect();
        Ok(Elsewhere { digest: resolved.config.digest, steps, blobs: Blobs::Registry(Arc::new(resolved), blobs) })
    }

    /// Steps that the image of an OCI layout in a tar says to be made of. Blocks.
    ///
    /// # Errors
    /// It is no such archive; it has none.
    pub(crate) fn steps_in(&self, archive: File) -> Result<Elsewhere, Error> {
        let why = |e: Unloadable| Error::new(e.kind(), About::Words, crate::chain(&e));
        let mut archive = Archive::open(archive).map_err(why)?;
        let found = layout(&mut archive).map_err(why)?.into_iter().next();
        let found = found.ok_or_else(|| refused("cache")("no image is in it".to_owned()))?;
        let config = archive.document(&found.config).map_err(why)?;
        let layers = config::parse(&config, found.layers.len()).step(About::Words, "import cache")?.diff_ids;
        let steps = steps_of(&config, &layers).map_err(refused("cache"))?;
        let digest = Digest::Sha256(sha2::Sha256::digest(&config).into());
        let blobs = layers.into_iter().zip(found.layers).collect();
        Ok(Elsewhere { digest, steps, blobs: Blobs::Archive(Mutex::new(archive), blobs) })
    }

    /// A layer from elsewhere, verified, unless it is here; answers the bytes of its archive. The caller has pinned it.
    ///
    /// # Errors
    /// It cannot be had, or is another one.
    pub(crate) async fn layer_from(&self, elsewhere: &Arc<Elsewhere>, layer: DiffId) -> Result<u64, Error> {
        let missing = move || Error::new(ErrorKind::NotFound, About::Words, format!("layer {layer} is not there"));
        match &elsewhere.blobs {
            Blobs::Registry(resolved, blobs) => {
                let blob = blobs.get(&layer).ok_or_else(missing)?.clone();
                self.shared.layer(resolved.clone(), blob, layer, String::new()).await?;
            }
            Blobs::Archive(..) => {
                let (shared, elsewhere) = (self.shared.clone(), elsewhere.clone());
                blocking(move || {
                    let Blobs::Archive(archive, blobs) = &elsewhere.blobs else { return Err(missing()) };
                    let name = blobs.get(&layer).ok_or_else(missing)?;
                    let mut archive = archive.lock().unwrap_or_else(PoisonError::into_inner);
                    let unpacked = shared.unpack_from(&mut archive, name, layer);
                    unpacked.map_err(|e| Error::new(e.kind(), About::Words, crate::chain(&e)))
                })
                .await?;
            }
        }
        self.shared.store.layer(&layer).map(|info| info.tar_size).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(n: u8) -> DiffId {
        DiffId::new(Digest::Sha256([n; 32]))
    }

    fn step(n: u8, layer: Option<DiffId>) -> CarriedStep {
        let id = StepId::from_bytes([n; 32]);
        CarriedStep { id, created: "2026-01-02T03:04:05Z".into(), layer, what: "RUN true".into() }
    }

    #[test]
    fn steps_come_back() {
        let steps = [step(1, Some(diff(1))), step(2, None), step(3, Some(diff(1)))];
        let draft = draft(&steps).unwrap();
        assert_eq!(draft.record.layers, [diff(1)]);
        let found = steps_of(&draft.config, &draft.record.layers).unwrap();
        assert!(found.len() == 3 && steps.iter().all(|step| found[&step.id] == *step));
        assert_eq!(steps_of(&draft.config, &[]).unwrap().len(), 1, "layers that are not there");
    }

    #[test]
    fn hostile_configs() {
        let of = |field: Value| steps_of(json!({FIELD: field}).to_string().as_bytes(), &[diff(1)]);
        assert!(steps_of(b"{}", &[]).unwrap_err().contains("no steps of builds"));
        assert!(of(json!({"version": 2, "steps": []})).unwrap_err().contains("version 2"));
        assert!(of(json!([1])).is_err());
        let many = vec![json!({"key": "", "created": ""}); MOST + 1];
        assert!(of(json!({"version": 1, "steps": many})).unwrap_err().contains("more than 4096"));
        let key = "ab".repeat(32);
        for (bad, good) in [
            (json!({"key": "../../x", "created": "2026-01-02T03:04:05Z"}), 0),
            (json!({"key": key, "created": "\",\"x"}), 0),
            (json!({"key": key, "created": "2026-01-02T03:04:05Z", "layer": "sha256:ab"}), 0),
            (json!({"key": key, "created": "2026-01-02T03:04:05Z", "what": "a\u{1b}[2Jb"}), 1),
        ] {
            let found = of(json!({"version": 1, "steps": [bad]})).unwrap();
            assert_eq!(found.len(), good);
            assert!(found.values().all(|step| step.what == "a[2Jb"));
        }
    }
}
