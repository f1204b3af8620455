//! CheckpointContainer, CheckpointPod and RestorePod: what the messages say, and what a verbose status says of them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use api::runtime as cri;
use engine::Engine;
use model::{ContainerId, container::ContainerSpec, pod::PodSpec};
use serde_json::json;
use tonic::{Request, Status};

use super::{convert, ids, status};

/// The deadline that a caller has set on a call.
pub(super) fn deadline<T>(request: &Request<T>) -> Option<Duration> {
    crate::edge::deadline(request.metadata().get("grpc-timeout")?.to_str().ok()?)
}

/// The shorter of two limits.
pub(super) fn shorter(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

/// A path that is given.
pub(super) fn path(field: &str, text: String) -> Result<PathBuf, Status> {
    match text.as_str() {
        "" => Err(status::bad_field(field, "missing")),
        text if text.contains(['\0', '\n']) => Err(status::bad_field(field, "contains a NUL or a line break")),
        _ => Ok(text.into()),
    }
}

/// Options have to be known, and none are.
pub(super) fn no_options(options: &BTreeMap<String, String>) -> Result<(), Status> {
    match options.keys().next() {
        Some(key) => Err(status::bad_field("options", &format!("{key:?}: creel knows no options for checkpoints"))),
        None => Ok(()),
    }
}

/// Containers by their ids.
pub(super) fn containers(engine: &Engine, ids: &[String]) -> Result<Vec<ContainerId>, Status> {
    if ids.is_empty() {
        return Err(status::bad_field("container_ids", "empty"));
    }
    ids.iter().map(|id| ids::container(engine, id).map(|container| container.id)).collect()
}

/// What is to be made of a checkpoint.
pub(super) fn restore(request: cri::RestorePodRequest) -> Result<(PodSpec, Vec<ContainerSpec>, PathBuf), Status> {
    no_options(&request.options)?;
    let from = path("checkpoint_path", request.checkpoint_path)?;
    let pod = convert::pod::spec(request.config, request.runtime_handler).map_err(|e| status::of_request(&e))?;
    if request.container_configs.is_empty() {
        return Err(status::bad_field("container_configs", "empty"));
    }
    let specs = request.container_configs.into_iter().map(|config| {
        let spec = convert::container::spec(Some(config), &pod).map_err(|e| status::of_request(&e))?;
        if spec.key.name.is_empty() { Err(status::bad_field("container_configs", "a container has no name")) } else { Ok(spec) }
    });
    let specs = specs.collect::<Result<Vec<_>, _>>()?;
    Ok((pod, specs, from))
}

/// Whether checkpoints can be made now, and if not, why.
pub(super) async fn info(engine: &Engine) -> serde_json::Value {
    match engine.criu().await {
        Ok(criu) => json!({ "available": true, "criu": criu.to_string() }),
        Err(why) => json!({ "available": false, "reason": why }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_from_the_header() {
        let read = |text: &str| {
            let mut request = Request::new(());
            request.metadata_mut().insert("grpc-timeout", text.parse().unwrap());
            deadline(&request)
        };
        assert_eq!(read("90S"), Some(Duration::from_secs(90)));
        assert_eq!(read("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "S", "1x", "-1S", "999999999S", "1.5S"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(shorter(None, Some(Duration::ZERO)), Some(Duration::ZERO));
        assert_eq!(shorter(Some(Duration::MAX), None), Some(Duration::MAX));
    }
}
