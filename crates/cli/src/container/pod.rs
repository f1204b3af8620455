//! A container of a CRI client's pod, in the same shape as a person's as far as CRI knows it.

use api::runtime as cri;
use serde_json::{Value, json};

use crate::{client::Client, error::Error, follow, time};

/// What CRI says of it.
pub(super) async fn value(client: &mut Client, container: &cri::Container) -> Result<Value, Error> {
    let status = follow::status(client, &container.id).await?;
    let instant = |at: i64| if at == 0 { "0001-01-01T00:00:00Z".to_owned() } else { time::rfc3339(at) };
    let word = match status.state() {
        cri::ContainerState::ContainerCreated => "created",
        cri::ContainerState::ContainerRunning => "running",
        cri::ContainerState::ContainerExited => "exited",
        cri::ContainerState::ContainerUnknown => "unknown",
    };
    let mounts = status.mounts.iter().map(
        |mount| json!({"Type": "bind", "Source": mount.host_path, "Destination": mount.container_path, "RW": !mount.readonly}),
    );
    let metadata = status.metadata.clone().unwrap_or_default();
    Ok(json!({
        "Id": status.id,
        "Created": time::rfc3339(status.created_at),
        "State": {
            "Status": word,
            "Running": word == "running",
            "OOMKilled": status.reason == "OOMKilled",
            "ExitCode": status.exit_code,
            "Error": status.message,
            "StartedAt": instant(status.started_at),
            "FinishedAt": instant(status.finished_at),
        },
        "Image": status.image_id,
        "Name": format!("/{}", metadata.name),
        "RestartCount": metadata.attempt,
        "LogPath": status.log_path,
        "Mounts": mounts.collect::<Vec<_>>(),
        "Config": {"Image": status.image.unwrap_or_default().image, "Labels": status.labels},
        "Annotations": status.annotations,
        "PodID": container.pod_sandbox_id,
    }))
}
