//! What network a run gets.

use std::{net::IpAddr, sync::Arc};

use model::{
    ErrorKind,
    pod::{Dns, NamespaceMode, PodSpec, PortMapping, Protocol},
    user::{OwnNetwork, UserContainerSpec},
};

use super::{join, record::UserRecord, shares};
use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error},
    networks::UserNetwork,
};

/// The names of the network of all pods.
pub(super) const BRIDGE: [&str; 3] = ["", "bridge", "default"];
/// What stands for the address of this machine in a network.
const HOST_GATEWAY: &str = "host-gateway";

fn refuse<T>(kind: ErrorKind, why: impl Into<String>) -> Result<T, Error> {
    Err(Error::new(kind, About::Words, why))
}

/// The network of people's that is asked for, if it is one.
pub(super) fn own(inner: &Inner, name: &str) -> Result<Option<Arc<UserNetwork>>, Error> {
    match name {
        "host" | "none" => Ok(None),
        name if BRIDGE.contains(&name) || shares::network_of(name).is_some() => Ok(None),
        name => find(inner, name).map(Some),
    }
}

/// A network of people's.
pub(super) fn find(inner: &Inner, name: &str) -> Result<Arc<UserNetwork>, Error> {
    inner.networks.find(name).map_err(|e| Error::new(e.kind(), About::Words, e.to_string()))
}

/// Whether what is asked for can be, as far as that is known before a run.
pub(super) fn check(inner: &Inner, spec: &UserContainerSpec) -> Result<(), Error> {
    check_one(inner, &spec.network)?;
    for (at, more) in spec.more_networks.iter().enumerate() {
        check_one(inner, more)?;
        let id = own(inner, &more.name)?.map(|network| network.id);
        let same = |other: &model::user::UserNetwork| own(inner, &other.name).is_ok_and(|other| other.map(|other| other.id) == id);
        if id.is_none() || matches!(spec.network.name.as_str(), "host" | "none") || shares::network_of(&spec.network.name).is_some()
        {
            return refuse(ErrorKind::InvalidArgument, format!("network {} does not go together with others", more.name));
        }
        if join::all(&spec.network, &spec.more_networks[..at]).any(same) {
            return refuse(ErrorKind::InvalidArgument, format!("network {} is specified multiple times", more.name));
        }
    }
    Ok(())
}

/// The same for one of its networks.
pub(super) fn check_one(inner: &Inner, network: &model::user::UserNetwork) -> Result<(), Error> {
    let own = own(inner, &network.name)?;
    if own.is_none() && !network.ip.is_empty() {
        return refuse(ErrorKind::InvalidArgument, "user specified IP address is supported on user defined networks only");
    }
    if own.is_none() && !network.aliases.is_empty() {
        let why = "network-scoped alias is supported only for containers in user defined networks";
        return refuse(ErrorKind::InvalidArgument, why);
    }
    if let Some(own) = own {
        if !network.ip.is_empty() {
            let ip = address(&network.ip)?;
            if !own.subnets().iter().any(|subnet| subnet.contains(ip)) {
                let why = format!("invalid address {ip}: it is in none of the subnets of network {}", own.name());
                return refuse(ErrorKind::InvalidArgument, why);
            }
        }
        if own.is_internal() && (network.publish_all || !network.ports.is_empty()) {
            let why = format!("ports cannot be published: network {} is internal", own.name());
            return refuse(ErrorKind::InvalidArgument, why);
        }
    }
    Ok(())
}

pub(super) fn address(text: &str) -> Result<IpAddr, Error> {
    text.parse().or_else(|_| refuse(ErrorKind::InvalidArgument, format!("invalid IP address: {text:?}")))
}

/// Writes what `record` asks for into the pod of a run.
pub(super) async fn resolve(inner: &Arc<Inner>, record: &UserRecord, pod: &mut PodSpec) -> Result<(), Error> {
    let network = &record.spec.network;
    // It may have gone since the container was made.
    let own = own(inner, &network.name)?;
    match network.name.as_str() {
        "host" => pod.namespaces.network = NamespaceMode::Node,
        "none" => pod.own.get_or_insert_default().no_network = true,
        name if shares::network_of(name).is_some() => {}
        _ => pod.port_mappings = ports(inner, record).await?,
    }
    let gateway = match &own {
        Some(own) => own.gateways().into_iter().next(),
        None => inner.networks.pods_gateway(),
    };
    if let Some(own) = own {
        let ip = if network.ip.is_empty() { None } else { Some(address(&network.ip)?) };
        pod.own.get_or_insert_default().network = Some(OwnNetwork { id: own.id, ip });
    }
    pod.dns = dns(inner, &record.spec).await?;
    host_gateway(pod, gateway)
}

/// Where a container asks for names: in the first of its networks that knows those of containers. Servers of its own are asked by
/// that network's.
pub(super) async fn dns(inner: &Inner, spec: &UserContainerSpec) -> Result<Option<Dns>, Error> {
    for network in join::all(&spec.network, &spec.more_networks) {
        if let Some(own) = own(inner, &network.name)? {
            let searches = blocking(crate::networks::node_searches).await;
            return Ok(Some(join::asking(spec.pod.dns.clone(), &own.gateways(), searches)));
        }
    }
    Ok(spec.pod.dns.clone())
}

fn host_gateway(pod: &mut PodSpec, gateway: Option<IpAddr>) -> Result<(), Error> {
    for (name, address) in pod.own.iter_mut().flat_map(|own| &mut own.hosts) {
        if address != HOST_GATEWAY {
            continue;
        }
        match gateway {
            Some(gateway) => *address = gateway.to_string(),
            None => {
                return refuse(ErrorKind::FailedPrecondition, format!("{name}:{HOST_GATEWAY}: the network has no such address"));
            }
        }
    }
    Ok(())
}

/// The ports of a run; those of the node that nobody has named are found anew for each.
async fn ports(inner: &Arc<Inner>, record: &UserRecord) -> Result<Vec<PortMapping>, Error> {
    let mut wanted = record.spec.network.ports.clone();
    if record.spec.network.publish_all {
        for exposed in record.spec.network.exposed.iter().chain(&record.defaults.exposed_ports) {
            let Some((protocol, container_port)) = exposed_port(exposed) else { continue };
            if !wanted.iter().any(|port| (port.protocol, port.container_port) == (protocol, container_port)) {
                wanted.push(PortMapping { protocol, container_port, host_port: 0, host_ip: None });
            }
        }
    }
    let book = inner.networks.ports().clone();
    let mapped = blocking(move || {
        let mut mapped: Vec<PortMapping> = Vec::with_capacity(wanted.len());
        for PortMapping { protocol, container_port, host_port, host_ip } in wanted {
            let host_port = match host_port {
                0 => {
                    let taken = |port: &u16| mapped.iter().any(|other| (other.protocol, other.host_port) == (protocol, *port));
                    let mut candidates = (0..100).filter_map(|_| book.free(protocol, host_ip));
                    candidates.find(|port| !taken(port)).ok_or(container_port)?
                }
                port => port,
            };
            mapped.push(PortMapping { protocol, container_port, host_port, host_ip });
        }
        Ok(mapped)
    });
    mapped.await.or_else(|port: u16| refuse(ErrorKind::ResourceExhausted, format!("no free port of this machine for port {port}")))
}

/// A port that another container has, in docker's words and with that container's name.
pub(super) fn port_taken(inner: &Inner, error: Error) -> Error {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = at {
        if let Some(net::Error::PortTaken { port, holder }) = cause.downcast_ref() {
            let user = inner.table.pod(*holder).ok().and_then(|pod| inner.users.get(pod.of_user()?));
            let by = user.map_or_else(|| format!("pod {}", holder.short()), |user| format!("container {}", user.name()));
            let why = format!("Bind for {port} failed: port is already allocated by {by}");
            return Error::new(ErrorKind::FailedPrecondition, About::Words, why);
        }
        at = cause.source();
    }
    error
}

/// `PORT[/PROTOCOL]`.
fn exposed_port(text: &str) -> Option<(Protocol, u16)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    port.parse().ok().filter(|port| *port > 0).map(|port| (protocol, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposed_ports() {
        assert_eq!(exposed_port("80"), Some((Protocol::Tcp, 80)));
        assert_eq!(exposed_port("53/udp"), Some((Protocol::Udp, 53)));
        for bad in ["", "0", "80/x", "x/tcp", "70000", "80-90"] {
            assert_eq!(exposed_port(bad), None, "{bad}");
        }
    }
}
