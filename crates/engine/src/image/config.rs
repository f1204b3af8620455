//! Image configs (OCI image spec, config.md): hostile bytes of at most 4 MiB, already verified by digest.

use model::{DiffId, Digest, ImageId, container::ImageDefaults, user::Healthcheck};
use oci_spec::image::ImageConfiguration;
use serde::Deserialize;
use store::ImageRecord;

use crate::clock;

/// What an image's config says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) diff_ids: Vec<DiffId>,
    pub(super) defaults: ImageDefaults,
    pub(super) created: String,
    pub(super) os: String,
    pub(super) architecture: String,
    pub(super) variant: String,
}

impl Parsed {
    /// The row of the image with this config. `size`: bytes of the config and of the layers as they came.
    pub(super) fn into_record(self, id: ImageId, size: u64) -> ImageRecord {
        ImageRecord {
            id,
            layers: self.diff_ids,
            size,
            created: self.created,
            os: self.os,
            architecture: self.architecture,
            variant: self.variant,
            defaults: self.defaults,
            pulled_at: clock::now(),
        }
    }
}

/// Why a config cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("config: {0}")]
    Json(String),
    #[error("config: rootfs is of type {0:?}, not \"layers\"")]
    Type(String),
    #[error("config: {0}")]
    DiffId(#[from] model::DigestError),
    #[error("config has {config} diff ids, the manifest has {manifest} layers")]
    Count { config: usize, manifest: usize },
}

/// Reads a config that belongs to a manifest with `layers` layers.
pub(super) fn parse(bytes: &[u8], layers: usize) -> Result<Parsed, Unusable> {
    let config: ImageConfiguration = serde_json::from_slice(bytes).map_err(|e| Unusable::Json(e.to_string()))?;
    let rootfs = config.rootfs();
    if rootfs.typ() != "layers" {
        return Err(Unusable::Type(rootfs.typ().chars().take(80).collect()));
    }
    let digests = rootfs.diff_ids().iter().map(|text| text.parse::<Digest>());
    let diff_ids: Vec<_> = digests.map(|d| d.map(DiffId::new)).collect::<Result<_, _>>()?;
    if diff_ids.len() != layers {
        return Err(Unusable::Count { config: diff_ids.len(), manifest: layers });
    }
    Ok(Parsed {
        diff_ids,
        defaults: defaults(&config, dockers(bytes)),
        created: config.created().clone().unwrap_or_default(),
        os: config.os().to_string(),
        architecture: config.architecture().to_string(),
        variant: config.variant().clone().unwrap_or_default(),
    })
}

/// What docker adds to the specification's configs.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Dockers {
    healthcheck: Option<DockersCheck>,
    shell: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DockersCheck {
    test: Vec<String>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: i64,
}

/// One that makes no sense says nothing: it is no part of the specification that a config has to follow.
fn dockers(bytes: &[u8]) -> Dockers {
    #[derive(Deserialize)]
    struct Outer {
        config: Option<Dockers>,
    }
    serde_json::from_slice::<Outer>(bytes).ok().and_then(|outer| outer.config).unwrap_or_default()
}

fn healthcheck(check: DockersCheck) -> Healthcheck {
    let time = |nanoseconds: i64| u64::try_from(nanoseconds).unwrap_or_default();
    Healthcheck {
        test: check.test,
        interval: time(check.interval),
        timeout: time(check.timeout),
        start_period: time(check.start_period),
        start_interval: time(check.start_interval),
        retries: u32::try_from(check.retries).unwrap_or_default(),
    }
}

fn defaults(config: &ImageConfiguration, dockers: Dockers) -> ImageDefaults {
    let Some(config) = config.config() else { return ImageDefaults::default() };
    ImageDefaults {
        env: config.env().clone().unwrap_or_default(),
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        cmd: config.cmd().clone().unwrap_or_default(),
        user: config.user().clone().unwrap_or_default(),
        working_dir: config.working_dir().clone().unwrap_or_default(),
        stop_signal: config.stop_signal().clone().unwrap_or_default(),
        volumes: config.volumes().clone().unwrap_or_default(),
        labels: config.labels().clone().unwrap_or_default().into_iter().collect(),
        exposed_ports: config.exposed_ports().clone().unwrap_or_default(),
        healthcheck: dockers.healthcheck.map(healthcheck),
        shell: dockers.shell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(rootfs: &str) -> String {
        format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"User":"1:2","Env":["A=b"],"Volumes":{{"/v":{{}}}},"Labels":{{"k":"v"}}}},"rootfs":{rootfs}}}"#
        )
    }

    #[test]
    fn a_config_is_read() {
        let id = format!("sha256:{}", "0a".repeat(32));
        let parsed = parse(json(&format!(r#"{{"type":"layers","diff_ids":["{id}"]}}"#)).as_bytes(), 1).unwrap();
        assert_eq!((parsed.diff_ids.len(), parsed.defaults.user.as_str(), parsed.defaults.volumes.len()), (1, "1:2", 1));
        assert_eq!(parse(json(r#"{"type":"layers","diff_ids":[]}"#).as_bytes(), 0).unwrap().diff_ids, []);
    }

    #[test]
    fn what_docker_adds_is_read() {
        let with = |more: &str| {
            let text = json(r#"{"type":"layers","diff_ids":[]}"#).replace(r#""User":"1:2""#, more);
            parse(text.as_bytes(), 0).unwrap().defaults
        };
        let read = with(r#""Healthcheck":{"Test":["CMD-SHELL","x"],"Interval":5000000000,"Retries":2},"Shell":["/bin/ash","-c"]"#);
        let check = read.healthcheck.unwrap();
        assert_eq!((check.test.len(), check.interval, check.timeout, check.retries), (2, 5_000_000_000, 0, 2));
        assert_eq!(read.shell, ["/bin/ash", "-c"]);
        let read = with(r#""Healthcheck":{"Interval":-5,"Retries":-1}"#).healthcheck.unwrap();
        assert_eq!(read, Healthcheck::default());
        assert_eq!(with(r#""Healthcheck":{"Test":7}"#).healthcheck, None);
    }

    #[test]
    fn im07_what_does_not_fit_is_refused() {
        let id = format!("sha256:{}", "0a".repeat(32));
        for (rootfs, layers) in [
            (format!(r#"{{"type":"layers","diff_ids":["{id}"]}}"#), 2),
            (r#"{"type":"layers","diff_ids":["sha256:../../x"]}"#.into(), 1),
            (r#"{"type":"other","diff_ids":[]}"#.into(), 0),
            ("[]".into(), 0),
        ] {
            assert!(parse(json(&rootfs).as_bytes(), layers).is_err(), "{rootfs}");
        }
        assert!(parse(b"", 0).is_err());
        assert!(parse("[".repeat(100_000).as_bytes(), 0).is_err());
    }
}
