//! `creel inspect` and `creel container inspect`: containers in docker's JSON.

use api::creel::{
    ContainerConfig, ContainerDetails, ContainerState, ContainerSummary, Endpoint, Health, Healthcheck, HostConfig,
    InspectContainerRequest, Limits, Mount, NetworkRef, PublishedPort, VolumeRef, container_state::Status, health::Probe,
    mount::Kind as MountKind,
};
use serde_json::{Map, Value, json};
use tonic::Code;

use super::{
    args::{Inspect, InspectContainers, Kind},
    ps,
};
use crate::{
    client::Client,
    error::{self, Error, Exit},
    format::Format,
    inspect, output, time,
};

/// Containers as one array; what is missing is told at the end.
pub(super) async fn containers(client: &mut Client, format: &Format, args: InspectContainers) -> Result<Exit, Error> {
    let names = Inspect { template: args.template, size: args.size, kind: Some(Kind::Container), names: args.containers };
    inspect(client, format, names).await
}

/// Whatever the names mean.
pub(crate) async fn inspect(client: &mut Client, format: &Format, args: Inspect) -> Result<Exit, Error> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in &args.names {
        match one(client, &args, name).await? {
            Some(value) => found.push(value),
            None => missing.push(name),
        }
    }
    match args.template.as_ref().unwrap_or(format) {
        Format::Table => output::array(&found)?,
        Format::Json => output::print(&format!("{}\n", Value::from(found)))?,
        template => template.print(&found, String::new)?,
    }
    for name in &missing {
        output::note(&match args.kind {
            None => format!("Error: No such object: {name}"),
            Some(kind) => format!("Error: No such {}: {name}", format!("{kind:?}").to_lowercase()),
        });
    }
    Ok(Exit(u8::from(!missing.is_empty())))
}

/// The first thing that has the name.
async fn one(client: &mut Client, args: &Inspect, name: &str) -> Result<Option<Value>, Error> {
    for kind in [Kind::Container, Kind::Image, Kind::Volume, Kind::Network] {
        if args.kind.is_some_and(|wanted| wanted != kind) {
            continue;
        }
        let value = match kind {
            Kind::Container => container(client, name, args.size).await,
            Kind::Image => inspect::image(client, name).await,
            Kind::Volume => volume(client, name).await,
            Kind::Network => network(client, name).await,
        };
        match value {
            Ok(value) => return Ok(Some(value)),
            // A name that no image can have is no image's; what the daemon cannot say of one kind is no error of another.
            Err(status) if matches!(status.code(), Code::NotFound | Code::InvalidArgument | Code::Unimplemented) => {}
            Err(status) => return Err(error::daemon(status)),
        }
    }
    if args.kind.is_none_or(|kind| kind == Kind::Container) {
        return match crate::find::container(client, name).await {
            Ok(container) => super::pod::value(client, &container).await.map(Some),
            Err(Error::Missing { .. }) => Ok(None),
            Err(other) => Err(other),
        };
    }
    Ok(None)
}

async fn container(client: &mut Client, name: &str, size: bool) -> Result<Value, tonic::Status> {
    let request = InspectContainerRequest { container: name.to_owned(), size };
    let details = client.containers.inspect(request).await?.into_inner();
    let mut value = value(&details);
    if let (true, Some(summary), Value::Object(map)) = (size, &details.summary, &mut value) {
        map.insert("SizeRw".into(), summary.size_rw.into());
        map.insert("SizeRootFs".into(), summary.size_root.into());
    }
    Ok(value)
}

async fn volume(client: &mut Client, name: &str) -> Result<Value, tonic::Status> {
    let found = client.volumes.inspect(VolumeRef { name: name.to_owned() }).await?;
    Ok(crate::volume::value(&found.into_inner()))
}

async fn network(client: &mut Client, name: &str) -> Result<Value, tonic::Status> {
    let found = client.networks.inspect(NetworkRef { network: name.to_owned() }).await?;
    Ok(crate::network::value(&found.into_inner()))
}

/// A container with docker's names for everything.
fn value(details: &ContainerDetails) -> Value {
    let summary = details.summary.clone().unwrap_or_default();
    let (config, host) = (details.config.clone().unwrap_or_default(), details.host.clone().unwrap_or_default());
    let effective = details.effective.clone().unwrap_or_else(|| config.clone());
    let (path, arguments) =
        summary.command.split_first().map_or_else(Default::default, |(path, rest)| (path.clone(), rest.to_vec()));
    json!({
        "Id": summary.id,
        "Created": time::rfc3339(summary.created_at),
        "Path": path,
        "Args": arguments,
        "State": state(&summary.state.clone().unwrap_or_default()),
        "Image": summary.image_id,
        "ResolvConfPath": details.resolv_conf_path,
        "HostnamePath": details.hostname_path,
        "HostsPath": details.hosts_path,
        "LogPath": details.log_path,
        "Name": format!("/{}", summary.name),
        "RestartCount": summary.state.as_ref().map_or(0, |state| state.restart_count),
        "Driver": "overlay",
        "Platform": details.platform.split('/').next().unwrap_or_default(),
        "Mounts": details.mounts.iter().map(mount_point).collect::<Vec<_>>(),
        "HostConfig": host_config(&host),
        "Config": self::config(&config, &effective, &summary),
        "NetworkSettings": network_settings(&summary.ports, &details.networks),
        "Cgroup": details.cgroup,
        "Warnings": details.warnings,
    })
}

fn state(state: &ContainerState) -> Value {
    let instant = |at: i64| if at == 0 { "0001-01-01T00:00:00Z".to_owned() } else { time::rfc3339(at) };
    let mut value = json!({
        "Status": ps::state_word(state),
        "Running": super::find::runs(state),
        "Paused": state.status() == Status::Paused,
        "Restarting": state.status() == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status() == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": instant(state.started_at),
        "FinishedAt": instant(state.finished_at),
    });
    if let (Some(health), Value::Object(map)) = (&state.health, &mut value) {
        map.insert("Health".into(), self::health(health));
    }
    value
}

fn health(health: &Health) -> Value {
    let probe = |probe: &Probe| {
        json!({
            "Start": time::rfc3339(probe.start),
            "End": time::rfc3339(probe.end),
            "ExitCode": probe.exit_code,
            "Output": probe.output,
        })
    };
    json!({
        "Status": health.status().as_str_name().to_lowercase(),
        "FailingStreak": health.failing_streak,
        "Log": health.log.iter().map(probe).collect::<Vec<_>>(),
    })
}

fn healthcheck(check: &Healthcheck) -> Value {
    let mut value = json!({"Test": check.test});
    let numbers = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
        ("Retries", check.retries.into()),
    ];
    if let Value::Object(map) = &mut value {
        map.extend(numbers.into_iter().filter(|(_, number)| *number != 0).map(|(name, number)| (name.to_owned(), number.into())));
    }
    value
}

fn kind_word(kind: MountKind) -> &'static str {
    match kind {
        MountKind::Bind | MountKind::Unspecified => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Image => "image",
    }
}

fn mount_point(mount: &api::creel::MountPoint) -> Value {
    let mut value = json!({
        "Type": kind_word(mount.kind()),
        "Source": mount.source,
        "Destination": mount.target,
        "Mode": if mount.read_only { "ro" } else { "" },
        "RW": !mount.read_only,
        "Propagation": mount.propagation,
    });
    if let (MountKind::Volume, Value::Object(map)) = (mount.kind(), &mut value) {
        map.insert("Name".into(), mount.name.clone().into());
        map.insert("Driver".into(), "local".into());
    }
    value
}

/// What is in the container: what was asked for over what the image has.
fn config(config: &ContainerConfig, effective: &ContainerConfig, summary: &ContainerSummary) -> Value {
    let set = |names: &[String]| names.iter().map(|name| (name.clone(), json!({}))).collect::<Map<_, _>>();
    let list = |list: &[String]| if list.is_empty() { Value::Null } else { json!(list) };
    let hostname = if effective.hostname.is_empty() { output::short(&summary.id) } else { effective.hostname.clone() };
    json!({
        "Hostname": hostname,
        "Domainname": effective.domainname,
        "User": effective.user,
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.stdin_once,
        "Env": effective.env,
        "Cmd": list(&effective.command),
        "Image": if config.image_name.is_empty() { &config.image } else { &config.image_name },
        "Volumes": set(&effective.volumes),
        "ExposedPorts": set(&effective.exposed_ports),
        "WorkingDir": effective.working_dir,
        "Entrypoint": list(&effective.entrypoint),
        "Labels": effective.labels,
        "StopSignal": effective.stop_signal,
        "StopTimeout": effective.stop_timeout,
        "Healthcheck": effective.healthcheck.as_ref().map(healthcheck),
    })
}

fn bind(mount: &Mount) -> String {
    let mut options: Vec<&str> = Vec::new();
    options.extend(mount.read_only.then_some("ro"));
    options.extend(mount.no_copy.then_some("nocopy"));
    options.extend([mount.relabel.as_str(), mount.propagation.as_str()].into_iter().filter(|option| !option.is_empty()));
    let options = if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
    format!("{}:{}{options}", mount.source, mount.target)
}

fn host_config(host: &HostConfig) -> Value {
    let restart = host.restart.clone().unwrap_or_default();
    let mut bindings: Map<String, Value> = Map::new();
    for port in &host.ports {
        let host_port = if port.host_port == 0 { String::new() } else { port.host_port.to_string() };
        let list = bindings.entry(format!("{}/{}", port.container_port, port.protocol)).or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(json!({"HostIp": port.host_ip, "HostPort": host_port}));
        }
    }
    let of_kind = |kinds: &'static [MountKind]| host.mounts.iter().filter(move |mount| kinds.contains(&mount.kind()));
    let binds = of_kind(&[MountKind::Bind, MountKind::Volume]).filter(|mount| !mount.must_exist && !mount.source.is_empty());
    let tmpfs: Map<String, Value> =
        of_kind(&[MountKind::Tmpfs]).map(|mount| (mount.target.clone(), mount.options.join(",").into())).collect();
    let mode = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let mut value = json!({
        "Binds": binds.map(bind).collect::<Vec<_>>(),
        "Tmpfs": tmpfs,
        "NetworkMode": mode(&host.network, "bridge"),
        "PortBindings": bindings,
        "PublishAllPorts": host.publish_all,
        "RestartPolicy": {"Name": mode(&restart.name, "no"), "MaximumRetryCount": restart.maximum_retries},
        "AutoRemove": host.auto_remove,
        "VolumesFrom": host.volumes_from,
        "CapAdd": host.cap_add,
        "CapDrop": host.cap_drop,
        "Dns": host.dns,
        "DnsOptions": host.dns_options,
        "DnsSearch": host.dns_search,
        "ExtraHosts": host.extra_hosts,
        "IpcMode": mode(&host.ipc, "private"),
        "PidMode": host.pid,
        "UTSMode": host.uts,
        "UsernsMode": host.userns,
        "Privileged": host.privileged,
        "ReadonlyRootfs": host.readonly_rootfs,
        "SecurityOpt": host.security_opt,
        "ShmSize": if host.shm_size == 0 { 64 << 20 } else { host.shm_size },
        "Sysctls": host.sysctls,
        "Runtime": host.runtime,
        "CgroupParent": host.cgroup_parent,
        "OomScoreAdj": host.oom_score_adj,
        "Init": host.init,
        "LogConfig": {"Type": mode(&host.log_driver, "json-file"), "Config": host.log_options},
        "Annotations": host.annotations,
        "CgroupnsMode": mode(&host.cgroupns, "private"),
        "Devices": host.devices,
        "DeviceCgroupRules": host.device_cgroup_rules,
        "Ulimits": host.ulimits.iter().map(|u| json!({"Name": u.name, "Soft": u.soft, "Hard": u.hard})).collect::<Vec<_>>(),
    });
    if let (Value::Object(map), Value::Object(limits)) = (&mut value, limits(&host.limits.clone().unwrap_or_default())) {
        map.extend(limits);
    }
    value
}

fn limits(limits: &Limits) -> Value {
    json!({
        "Memory": limits.memory.unwrap_or_default(),
        "MemorySwap": limits.memory_swap.unwrap_or_default(),
        "MemoryReservation": limits.memory_reservation.unwrap_or_default(),
        "NanoCpus": limits.nano_cpus.unwrap_or_default(),
        "CpuShares": limits.cpu_shares.unwrap_or_default(),
        "CpuPeriod": limits.cpu_period.unwrap_or_default(),
        "CpuQuota": limits.cpu_quota.unwrap_or_default(),
        "CpusetCpus": limits.cpuset_cpus.clone().unwrap_or_default(),
        "CpusetMems": limits.cpuset_mems.clone().unwrap_or_default(),
        "PidsLimit": limits.pids,
    })
}

fn network_settings(ports: &[PublishedPort], endpoints: &[Endpoint]) -> Value {
    let mut bindings: Map<String, Value> = Map::new();
    for port in ports {
        let list = bindings.entry(format!("{}/{}", port.container_port, port.protocol)).or_insert(Value::Null);
        if port.host_port > 0 {
            let binding = json!({"HostIp": port.host_ip, "HostPort": port.host_port.to_string()});
            match list {
                Value::Array(list) => list.push(binding),
                list => *list = json!([binding]),
            }
        }
    }
    let networks: Map<String, Value> = endpoints.iter().map(|end| (end.network.clone(), endpoint(end))).collect();
    // What docker shows at the top is that of its default bridge.
    let mut value = endpoint(&endpoints.first().cloned().unwrap_or_default());
    if let Value::Object(map) = &mut value {
        map.remove("Aliases");
        map.remove("NetworkID");
        map.insert("Ports".into(), bindings.into());
        map.insert("Networks".into(), networks.into());
    }
    value
}

fn endpoint(end: &Endpoint) -> Value {
    json!({
        "IPAddress": end.ip,
        "IPPrefixLen": end.prefix,
        "Gateway": end.gateway,
        "GlobalIPv6Address": end.ip6,
        "GlobalIPv6PrefixLen": end.prefix6,
        "MacAddress": end.mac,
        "NetworkID": end.network_id,
        "Aliases": end.aliases,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scripts_ask_for() {
        let port = |container_port, host_port| PublishedPort {
            container_port,
            protocol: "tcp".into(),
            host_ip: "0.0.0.0".into(),
            host_port,
        };
        let details = ContainerDetails {
            summary: Some(ContainerSummary {
                id: "ab".repeat(32),
                name: "web".into(),
                command: vec!["sh".into(), "-c".into()],
                state: Some(ContainerState { status: Status::Paused.into(), pid: 5, ..Default::default() }),
                ports: vec![port(80, 8080), port(90, 0)],
                ..Default::default()
            }),
            networks: vec![Endpoint { network: "bridge".into(), ip: "10.0.0.2".into(), ..Default::default() }],
            ..Default::default()
        };
        let value = value(&details);
        assert_eq!((&value["Name"], &value["Path"], &value["Args"]), (&json!("/web"), &json!("sh"), &json!(["-c"])));
        assert_eq!((&value["State"]["Running"], &value["State"]["Status"]), (&json!(true), &json!("paused")));
        assert_eq!(value["NetworkSettings"]["IPAddress"], "10.0.0.2");
        assert_eq!(value["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"], "8080");
        assert_eq!(value["NetworkSettings"]["Ports"]["90/tcp"], Value::Null);
        assert_eq!(value["NetworkSettings"]["Networks"]["bridge"]["IPAddress"], "10.0.0.2");
        assert_eq!(
            (&value["Config"]["Hostname"], &value["State"]["FinishedAt"]),
            (&json!("abababababab"), &json!("0001-01-01T00:00:00Z"))
        );
        assert_eq!(value["HostConfig"]["RestartPolicy"]["Name"], "no");
    }
}
