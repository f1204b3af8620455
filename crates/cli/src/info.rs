//! `creel info` and `creel version`.

use api::{
    creel::{InfoRequest, InfoResponse},
    runtime as cri,
};
use serde_json::json;

use crate::{
    client::Client,
    error::{self, Error, Exit},
    format::Format,
    output,
};

/// What the daemon says of itself.
pub(crate) async fn get(client: &mut Client) -> Result<InfoResponse, Error> {
    Ok(client.creel.info(InfoRequest {}).await.map_err(error::rpc("info"))?.into_inner())
}

/// Shows it.
pub(crate) async fn info(client: &mut Client, format: &Format) -> Result<Exit, Error> {
    let info = get(client).await?;
    one(format, as_json(&info), || as_text(&info))?;
    Ok(Exit(0))
}

fn as_json(info: &InfoResponse) -> serde_json::Value {
    let features: serde_json::Map<_, _> = info.features.iter().map(|f| (f.name.clone(), f.present.into())).collect();
    json!({
        "version": info.version,
        "root": info.root,
        "run": info.run,
        "storage_format": info.storage_format,
        "cgroups": info.cgroups,
        "network": info.network,
        "network_not_ready": info.network_not_ready,
        "kernel": info.kernel,
        "features": features,
        "pods": info.pods,
        "containers": info.containers,
        "containers_running": info.containers_running,
        "images": info.images,
        "warnings": info.warnings,
    })
}

fn as_text(info: &InfoResponse) -> String {
    let network = match info.network_not_ready.as_str() {
        "" => info.network.clone(),
        why => format!("{} (not ready: {why})", info.network),
    };
    let features: Vec<String> = info.features.iter().map(|f| format!("{}{}", if f.present { "" } else { "no " }, f.name)).collect();
    let rows = [
        ("Daemon", info.version.clone()),
        ("Kernel", info.kernel.clone()),
        ("Features", features.join(", ")),
        ("Cgroups", info.cgroups.clone()),
        ("Network", network),
        ("Layers", info.storage_format.clone()),
        ("Root", info.root.clone()),
        ("Run", info.run.clone()),
        ("Pods", info.pods.to_string()),
        ("Containers", format!("{} ({} running)", info.containers, info.containers_running)),
        ("Images", info.images.to_string()),
    ];
    let mut text: String = rows.iter().map(|(name, value)| format!("{:<12}{value}\n", format!("{name}:"))).collect();
    text.extend(info.warnings.iter().map(|warning| format!("Warning:    {warning}\n")));
    text
}

/// Both versions.
pub(crate) async fn version(client: &mut Client, format: &Format) -> Result<Exit, Error> {
    let answer = client.runtime.version(cri::VersionRequest { version: String::new() }).await.map_err(error::rpc("version"))?;
    let daemon = answer.into_inner();
    let own = env!("CARGO_PKG_VERSION");
    let values = json!({
        "client": own,
        "daemon": daemon.runtime_version,
        "cri": daemon.runtime_api_version,
    });
    one(format, values, || {
        let cri::VersionResponse { runtime_name, runtime_version, runtime_api_version, .. } = daemon;
        format!("Client: creel {own}\nDaemon: {runtime_name} {runtime_version} (CRI {runtime_api_version})\n")
    })?;
    Ok(Exit(0))
}

/// One document, not a list of them.
fn one(format: &Format, value: serde_json::Value, text: impl FnOnce() -> String) -> Result<(), Error> {
    match format {
        Format::Json => output::json(&value),
        other => other.print(&[value], text),
    }
}
