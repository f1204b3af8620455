//! Networks and ports of containers of people.

use api::creel as own;
use model::{
    pod::{PortMapping, Protocol},
    user::UserNetwork,
};
use tonic::Status;

use super::convert::{invalid, shown};

/// Most ports of one container.
const MOST: usize = 65_535;

/// What is asked for; whether there is such a network is the engine's to say.
pub(super) fn of(config: &own::ContainerConfig, host: &own::HostConfig) -> Result<UserNetwork, Status> {
    if host.ports.len() > MOST {
        return Err(invalid(format!("{} ports, more than {MOST}", host.ports.len())));
    }
    for exposed in &config.exposed_ports {
        let (number, name) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
        port(number.parse().unwrap_or_default())?;
        protocol(name)?;
    }
    let shared = host.network.starts_with("container:");
    if shared {
        check_shared(config, host)?;
    }
    let own_namespace = !matches!(host.network.as_str(), "host" | "none") && !shared;
    if !own_namespace && (!host.network_aliases.is_empty() || !host.ip.is_empty()) {
        return Err(invalid("user specified IP address and aliases are supported on user defined networks only"));
    }
    Ok(UserNetwork {
        name: host.network.clone(),
        aliases: host.network_aliases.clone(),
        ip: host.ip.clone(),
        publish_all: host.publish_all,
        // Published ports mean nothing where there is no network of its own, as with docker.
        ports: if own_namespace { host.ports.iter().map(binding).collect::<Result<_, _>>()? } else { Vec::new() },
        exposed: config.exposed_ports.clone(),
    })
}

/// A place in a network as the engine takes it.
pub(in super::super) fn attachment(asked: &own::NetworkAttachment) -> UserNetwork {
    UserNetwork { name: asked.network.clone(), aliases: asked.aliases.clone(), ip: asked.ip.clone(), ..UserNetwork::default() }
}

/// What only the container can have whose network it is.
fn check_shared(config: &own::ContainerConfig, host: &own::HostConfig) -> Result<(), Status> {
    let both = |what: &str| Err(invalid(format!("conflicting options: {what} and the network mode")));
    let mode = |what: &str| Err(invalid(format!("conflicting options: {what} and the container type network mode")));
    match () {
        () if !config.hostname.is_empty() => both("hostname"),
        () if !config.domainname.is_empty() => both("domain name"),
        () if !host.dns.is_empty() || !host.dns_search.is_empty() || !host.dns_options.is_empty() => both("dns"),
        () if !host.extra_hosts.is_empty() => both("custom host-to-IP mapping"),
        () if !host.ports.is_empty() || host.publish_all => mode("port publishing"),
        () if !config.exposed_ports.is_empty() => mode("port exposing"),
        () => Ok(()),
    }
}

fn binding(asked: &own::PortBinding) -> Result<PortMapping, Status> {
    let host_ip = match asked.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| invalid(format!("invalid IP address: {}", shown(text))))?),
    };
    let host_port = u16::try_from(asked.host_port).map_err(|_| invalid(format!("invalid hostPort: {}", asked.host_port)))?;
    Ok(PortMapping { protocol: protocol(&asked.protocol)?, container_port: port(asked.container_port)?, host_port, host_ip })
}

fn port(number: u32) -> Result<u16, Status> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    port.ok_or_else(|| invalid(format!("invalid containerPort: {number}")))
}

fn protocol(name: &str) -> Result<Protocol, Status> {
    match name {
        "" | "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        other => Err(invalid(format!("invalid proto: {}", shown(other)))),
    }
}
