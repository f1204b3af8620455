//! Containers of people as people see them.

use std::{collections::BTreeMap, net::IpAddr};

use api::creel as own;
use engine::{
    Container, Engine,
    user::{UserContainer, UserState, UserStatus, VolumeUse},
};
use model::{
    container::ContainerState,
    pod::{NamespaceMode, Network, PodState, PortMapping, Protocol},
    user::{UserMount, UserMountKind, UserNetwork},
};

use super::{convert, health};
use crate::services::networks::{built_in_id, mac};

/// What a network is called that nobody named.
const DEFAULT_NETWORK: &str = "bridge";

/// A container in a list.
pub(super) fn summary(engine: &Engine, user: &UserContainer) -> own::ContainerSummary {
    let spec = user.spec();
    let run = engine.container_of_user(user);
    let volumes = user.volumes();
    own::ContainerSummary {
        id: user.id.to_string(),
        name: user.name(),
        image: image_name(engine, user, &spec.container.user_specified_image),
        image_id: user.image.id.to_string(),
        command: user.command(),
        created_at: user.created_at,
        state: Some(state(&user.state())),
        ports: ports(run.as_deref().filter(|_| user.is_running()), spec.network.exposed.iter().chain(&user.defaults.exposed_ports)),
        labels: labels(user, &spec.container.labels),
        networks: user.networks().iter().map(|network| network_name(&network.name).to_owned()).collect(),
        mounts: points(&spec.mounts, &volumes, engine).into_iter().map(|mount| named(mount.name, mount.source)).collect(),
        ..own::ContainerSummary::default()
    }
}

fn named(name: String, source: String) -> String {
    if name.is_empty() { source } else { name }
}

/// As the user wrote it, unless that name means another image by now.
fn image_name(engine: &Engine, user: &UserContainer, written: &str) -> String {
    let same = engine.images().status(written).is_some_and(|image| image.id == user.image.id);
    if same { written.to_owned() } else { user.image.id.to_string() }
}

/// The image's, and over them the container's own.
pub(super) fn labels(user: &UserContainer, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut labels = user.defaults.labels.clone();
    labels.extend(own.clone());
    labels
}

/// The name of its network.
pub(super) fn network_name(asked: &str) -> &str {
    match asked {
        "" | "default" => DEFAULT_NETWORK,
        name => name,
    }
}

/// How much it has written, and that with its image.
pub(super) async fn add_size(engine: &Engine, user: &UserContainer, summary: &mut own::ContainerSummary) {
    summary.size_rw = engine.size_of_user(user).await;
    let image = engine.images().footprints().into_iter().find(|(image, _)| image.id == user.image.id);
    summary.size_root = summary.size_rw + image.map_or(0, |(_, footprint)| footprint.unpacked);
}

fn state(state: &UserState) -> own::ContainerState {
    use own::container_state::Status;
    let status = match state.status {
        UserStatus::Created => Status::Created,
        UserStatus::Running => Status::Running,
        UserStatus::Paused => Status::Paused,
        UserStatus::Restarting => Status::Restarting,
        UserStatus::Exited => Status::Exited,
        UserStatus::Removing => Status::Removing,
    };
    own::ContainerState {
        status: status.into(),
        pid: 0,
        exit_code: state.exit_code,
        error: state.error.clone(),
        oom_killed: state.oom_killed,
        started_at: state.started_at.unwrap_or_default(),
        finished_at: state.finished_at.unwrap_or_default(),
        restart_count: state.restarts,
        health: state.health.as_ref().map(health::state),
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// What a run has of the machine's ports; what is only said to be listened on besides.
fn ports<'e>(run: Option<&Container>, exposed: impl Iterator<Item = &'e String>) -> Vec<own::PublishedPort> {
    let Some(run) = run else { return Vec::new() };
    let published = |port: &PortMapping| own::PublishedPort {
        container_port: port.container_port.into(),
        protocol: protocol(port.protocol).to_owned(),
        host_ip: port.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string()),
        host_port: port.host_port.into(),
    };
    let mut ports: Vec<_> = run.pod.spec.port_mappings.iter().map(published).collect();
    for text in exposed {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let container_port = number.parse().unwrap_or_default();
        if !ports.iter().any(|port| port.container_port == container_port && port.protocol == protocol) {
            let (protocol, host_ip) = (protocol.to_owned(), String::new());
            ports.push(own::PublishedPort { container_port, protocol, host_ip, host_port: 0 });
        }
    }
    ports.sort_by(|a, b| (a.container_port, &a.protocol).cmp(&(b.container_port, &b.protocol)));
    ports
}

/// Everything about a container.
pub(super) async fn details(engine: &Engine, user: &UserContainer) -> own::ContainerDetails {
    let spec = user.spec();
    let run = engine.container_of_user(user).filter(|_| user.is_running());
    let mut summary = summary(engine, user);
    if let (Some(run), Some(state)) = (&run, summary.state.as_mut()) {
        state.pid = engine.main_pid(run).await.unwrap_or_default();
    }
    let (config, host) = convert::request(&spec);
    let file = |name: &str| run.as_ref().map(|run| run.pod.file(name).to_string_lossy().into_owned()).unwrap_or_default();
    own::ContainerDetails {
        summary: Some(summary),
        effective: Some(effective(user, &config)),
        mounts: points(&spec.mounts, &user.volumes(), engine),
        networks: user.networks().iter().map(|network| endpoint(engine, network, run.as_deref())).collect(),
        log_path: engine.log_of_user(user).to_string_lossy().into_owned(),
        hosts_path: file("hosts"),
        hostname_path: file("hostname"),
        resolv_conf_path: file("resolv.conf"),
        cgroup: run.as_ref().map(|run| run.plan().cgroup.clone()).unwrap_or_default(),
        platform: user.platform.clone(),
        warnings: user.warnings(),
        config: Some(config),
        host: Some(host),
    }
}

/// What was asked for, with the image's part.
fn effective(user: &UserContainer, asked: &own::ContainerConfig) -> own::ContainerConfig {
    let mut config = asked.clone();
    let image = &user.defaults;
    if config.entrypoint.is_empty() && !config.reset_entrypoint {
        config.entrypoint.clone_from(&image.entrypoint);
        if config.command.is_empty() {
            config.command.clone_from(&image.cmd);
        }
    }
    config.env = merged_env(&image.env, &asked.env);
    for (field, default) in [
        (&mut config.working_dir, &image.working_dir),
        (&mut config.user, &image.user),
        (&mut config.stop_signal, &image.stop_signal),
    ] {
        if field.is_empty() {
            field.clone_from(default);
        }
    }
    if config.hostname.is_empty() {
        config.hostname = user.id.short();
    }
    for volume in &image.volumes {
        if !config.volumes.contains(volume) {
            config.volumes.push(volume.clone());
        }
    }
    let image_check = image.healthcheck.clone().unwrap_or_default();
    let check = user.spec().healthcheck.unwrap_or_default().over(&image_check);
    config.healthcheck = Some(health::shown(&check)).filter(|check| *check != own::Healthcheck::default());
    config.labels = labels(user, &asked.labels.clone().into_iter().collect()).into_iter().collect();
    config
}

/// A later variable replaces an earlier one of its name, at its place.
fn merged_env(image: &[String], asked: &[String]) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in image.iter().chain(asked) {
        match env.iter_mut().find(|known| name(known) == name(entry)) {
            Some(known) => known.clone_from(entry),
            None => env.push(entry.clone()),
        }
    }
    env
}

/// Mounts, and where they come from.
fn points(mounts: &[UserMount], volumes: &[VolumeUse], engine: &Engine) -> Vec<own::MountPoint> {
    let mut points: Vec<_> = mounts
        .iter()
        .filter(|mount| mount.kind != UserMountKind::Volume)
        .map(|mount| own::MountPoint {
            kind: kind(mount.kind).into(),
            name: String::new(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            read_only: mount.read_only || mount.kind == UserMountKind::Image,
            propagation: if mount.propagation.is_empty() { "rprivate".to_owned() } else { mount.propagation.clone() },
        })
        .collect();
    points.extend(volumes.iter().map(|volume| {
        let found = engine.volumes().get(&volume.name);
        own::MountPoint {
            kind: own::mount::Kind::Volume.into(),
            name: volume.name.clone(),
            source: found.map(|volume| volume.mountpoint.to_string_lossy().into_owned()).unwrap_or_default(),
            target: volume.target.clone(),
            read_only: volume.read_only,
            propagation: String::new(),
        }
    }));
    points
}

fn kind(kind: UserMountKind) -> own::mount::Kind {
    match kind {
        UserMountKind::Bind => own::mount::Kind::Bind,
        UserMountKind::Volume => own::mount::Kind::Volume,
        UserMountKind::Tmpfs => own::mount::Kind::Tmpfs,
        UserMountKind::Image => own::mount::Kind::Image,
    }
}

fn endpoint(engine: &Engine, network: &UserNetwork, run: Option<&Container>) -> own::Endpoint {
    let name = network_name(&network.name);
    let mut endpoint = own::Endpoint { network: name.to_owned(), aliases: network.aliases.clone(), ..own::Endpoint::default() };
    let Some(run) = run else { return endpoint };
    if let Some(place) = engine.place_of(run, name) {
        let own = place.network.map(|id| id.to_string());
        endpoint.network_id = own.unwrap_or_else(|| built_in_id(name));
        let v4 = |ip: &IpAddr| ip.is_ipv4();
        endpoint.gateway = place.gateways.into_iter().find(v4).map(|ip| ip.to_string()).unwrap_or_default();
        let of = |v4: bool| place.addresses.iter().find(|(ip, _)| ip.is_ipv4() == v4);
        let text = |v4: bool| of(v4).map(|(ip, length)| (ip.to_string(), u32::from(*length))).unwrap_or_default();
        (endpoint.ip, endpoint.prefix) = text(true);
        (endpoint.ip6, endpoint.prefix6) = text(false);
        endpoint.mac = mac(place.mac);
    } else if let (DEFAULT_NETWORK, PodState::Ready { network: Network::Pod { ip, additional } }) = (name, run.pod.state()) {
        // A plugin's: no more is known of it.
        for ip in std::iter::once(ip).chain(additional) {
            let place = if ip.is_ipv4() { &mut endpoint.ip } else { &mut endpoint.ip6 };
            if place.is_empty() {
                *place = ip.to_string();
            }
        }
    }
    endpoint
}

/// The containers of CRI's pods, for a list.
pub(super) fn of_pods(engine: &Engine, request: &own::ListContainersRequest) -> Vec<own::ContainerSummary> {
    // What only containers of people have does not select these.
    if !request.filters.is_empty() {
        return Vec::new();
    }
    let shown =
        |container: &Container| request.all || request.last > 0 || matches!(container.state(), ContainerState::Running { .. });
    engine.containers().iter().filter(|container| shown(container)).map(|container| of_pod(container)).collect()
}

fn of_pod(container: &Container) -> own::ContainerSummary {
    use own::container_state::Status;
    let mut state = own::ContainerState::default();
    let status = match container.state() {
        ContainerState::Created => Status::Created,
        ContainerState::Running { started_at } => {
            state.started_at = started_at;
            Status::Running
        }
        ContainerState::Exited { started_at, finished_at, exit, message, .. } => {
            state.started_at = started_at.unwrap_or_default();
            state.finished_at = finished_at;
            state.exit_code = exit.code;
            state.oom_killed = exit.oom_killed;
            state.error = message;
            Status::Exited
        }
    };
    state.status = status.into();
    let key = &container.pod.spec.key;
    let network = match container.pod.spec.namespaces.network {
        NamespaceMode::Node => "host",
        NamespaceMode::Pod | NamespaceMode::Container => "",
    };
    own::ContainerSummary {
        id: container.id.to_string(),
        name: container.spec.key.name.clone(),
        image: super::super::view::image_name(container),
        image_id: container.image.id.to_string(),
        command: container.plan().process.args.clone(),
        created_at: container.created_at,
        state: Some(state),
        ports: ports(Some(container), std::iter::empty()),
        labels: container.spec.labels.clone(),
        networks: Some(network.to_owned()).filter(|name| !name.is_empty()).into_iter().collect(),
        mounts: container.spec.mounts.iter().map(|mount| mount.host_path.clone()).collect(),
        pod: format!("{}/{}", key.namespace, key.name),
        pod_id: container.pod.id.to_string(),
        ..own::ContainerSummary::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_variable_replaces_an_earlier_one() {
        let list = |entries: &[&str]| entries.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>();
        assert_eq!(merged_env(&list(&["A=1", "B=2"]), &list(&["B=3", "C=4", "C=5"])), ["A=1", "B=3", "C=5"]);
    }
}
