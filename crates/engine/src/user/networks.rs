//! What network a run gets.

use std::sync::Arc;

use model::{
    ErrorKind,
    pod::{NamespaceMode, PodSpec, PortMapping},
};

use super::record::UserRecord;
use crate::{
    Inner,
    error::{About, Error},
};

/// The names that are built in.
const BRIDGE: [&str; 3] = ["", "bridge", "default"];

/// Writes what `record` asks for into the pod of a run.
pub(super) async fn resolve(_inner: &Arc<Inner>, record: &UserRecord, pod: &mut PodSpec) -> Result<(), Error> {
    let network = &record.spec.network;
    let refuse = |why: String| Err(Error::new(ErrorKind::Unsupported, About::Words, why));
    match network.name.as_str() {
        "host" => {
            pod.namespaces.network = NamespaceMode::Node;
            return Ok(());
        }
        "none" => {
            pod.own.get_or_insert_default().no_network = true;
            return Ok(());
        }
        name if BRIDGE.contains(&name) => {}
        name => return refuse(format!("network {name}: only bridge, host and none are there yet")),
    }
    if network.publish_all || network.ports.iter().any(|port| port.host_port == 0) {
        return refuse("ports without a host port cannot be published yet".to_owned());
    }
    if !network.ip.is_empty() || !network.aliases.is_empty() {
        return refuse("addresses and aliases are for user-defined networks only".to_owned());
    }
    let port = |port: &model::user::UserPort| PortMapping {
        protocol: port.protocol,
        container_port: port.container_port,
        host_port: port.host_port,
        host_ip: port.host_ip,
    };
    pod.port_mappings = network.ports.iter().map(port).collect();
    Ok(())
}
