//! A CreateContainerRequest becomes what the engine makes: docker's rules, and its words where something is wrong.

use api::creel as own;
use model::{
    container::{ContainerKey, ContainerSpec, EnvVar},
    pod::{Dns, PodNamespaces, PodSpec},
    user::{OwnContainer, OwnPod, RestartPolicy, Shares, UserContainerSpec},
};
use prost::Message;
use tonic::Status;

use super::{
    devices, health, limits,
    logging::{self, Kept},
    mounts, network, security,
};

type Result<T> = std::result::Result<T, Status>;

/// Longest text of a request that is shown back.
const SHOWN: usize = 80;
/// All of a request, encoded: it is kept with the container.
const LARGEST: usize = 8 << 20;

pub(super) fn invalid(text: impl Into<String>) -> Status {
    Status::invalid_argument(text)
}

pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// The container that is asked for. The request is kept with it, without the name, which may change.
pub(super) fn spec(config: Option<own::ContainerConfig>, host: Option<own::HostConfig>) -> Result<UserContainerSpec> {
    let kept = own::CreateContainerRequest { name: String::new(), config, host };
    let request = kept.encode_to_vec();
    if request.len() > LARGEST {
        return Err(invalid(format!("the configuration is {} bytes long, more than {LARGEST}", request.len())));
    }
    let (config, host) = (kept.config.unwrap_or_default(), kept.host.unwrap_or_default());
    if config.image.is_empty() {
        return Err(invalid("no image specified"));
    }
    let restart = restart(host.restart.as_ref(), host.auto_remove)?;
    let mounts = mounts::all(&host.mounts)?;
    let volumes = config.volumes.iter().map(|path| mounts::target(path)).collect::<Result<_>>()?;
    Ok(UserContainerSpec {
        pod: pod(&config, &host)?,
        mounts,
        volumes,
        volumes_from: host.volumes_from.clone(),
        network: network::of(&config, &host)?,
        restart,
        auto_remove: host.auto_remove,
        stop_timeout: stop_timeout(config.stop_timeout)?,
        healthcheck: health::check(config.healthcheck.as_ref())?,
        more_networks: host.more_networks.iter().map(network::attachment).collect(),
        platform: config.platform.clone(),
        shares: Shares { pid: container_of(&host.pid), ipc: container_of(&host.ipc) },
        own_userns: own_userns(&host)?,
        container: container(config, &host)?,
        request: request.into(),
    })
}

/// What the client wrote when it made the container, updates included.
pub(super) fn request(spec: &UserContainerSpec) -> (own::ContainerConfig, own::HostConfig) {
    let request = own::CreateContainerRequest::decode(spec.request.as_slice()).unwrap_or_default();
    (request.config.unwrap_or_default(), request.host.unwrap_or_default())
}

/// Seconds to SIGKILL; never is longer than anybody waits.
fn stop_timeout(seconds: Option<i32>) -> Result<Option<u32>> {
    match seconds {
        None => Ok(None),
        Some(-1) => Ok(Some(u32::MAX)),
        Some(seconds) => {
            let seconds = u32::try_from(seconds).map_err(|_| invalid(format!("invalid stop timeout: {seconds}")))?;
            Ok(Some(seconds))
        }
    }
}

/// When it starts again.
pub(super) fn restart(policy: Option<&own::RestartPolicy>, auto_remove: bool) -> Result<RestartPolicy> {
    let Some(policy) = policy else { return Ok(RestartPolicy::No) };
    let retries = policy.maximum_retries;
    let read = match policy.name.as_str() {
        "" | "no" => RestartPolicy::No,
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        "on-failure" => RestartPolicy::OnFailure { maximum: retries },
        other => {
            return Err(invalid(format!(
                "invalid restart policy: unknown policy '{}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
                shown(other)
            )));
        }
    };
    if retries > 0 && !matches!(read, RestartPolicy::OnFailure { .. }) {
        return Err(invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'"));
    }
    if auto_remove && read != RestartPolicy::No {
        return Err(invalid("can't create 'AutoRemove' container with restart policy"));
    }
    Ok(read)
}

/// Whether it has a user namespace of its own; what is the machine's cannot be had in one.
fn own_userns(host: &own::HostConfig) -> Result<bool> {
    match host.userns.as_str() {
        "" | "host" => return Ok(false),
        "private" | "auto" => {}
        other => {
            let why = format!("--userns {}: there are host, and private with ids that are found by themselves", shown(other));
            return Err(invalid(why));
        }
    }
    let shared = [("PID", &host.pid), ("IPC", &host.ipc), ("UTS", &host.uts), ("network", &host.network)];
    if let Some((name, _)) = shared.into_iter().find(|(_, mode)| *mode == "host") {
        return Err(invalid(format!("cannot share the host's {name} namespace when user namespaces are enabled")));
    }
    if host.privileged {
        let why = "privileged mode is incompatible with user namespaces. You must run the container in the host namespace when \
                   running privileged mode";
        return Err(invalid(why));
    }
    if host.mounts.iter().any(|mount| mount.kind() == own::mount::Kind::Volume && !mount.subpath.is_empty()) {
        return Err(Status::unimplemented("a part of a volume cannot be had in a user namespace of its own"));
    }
    Ok(true)
}

fn pod(config: &own::ContainerConfig, host: &own::HostConfig) -> Result<PodSpec> {
    if host.uts == "host" && (!config.hostname.is_empty() || !config.domainname.is_empty()) {
        return Err(invalid("conflicting options: hostname and the UTS mode"));
    }
    let dns = Dns { servers: host.dns.clone(), searches: host.dns_search.clone(), options: host.dns_options.clone() };
    Ok(PodSpec {
        hostname: config.hostname.clone(),
        dns: Some(dns).filter(|dns| *dns != Dns::default()),
        cgroup_parent: host.cgroup_parent.clone(),
        namespaces: namespaces(host)?,
        sysctls: host.sysctls.clone().into_iter().collect(),
        privileged: host.privileged,
        runtime_handler: host.runtime.clone(),
        user_made: true,
        own: Some(OwnPod {
            hosts: host.extra_hosts.iter().map(|entry| extra_host(entry)).collect::<Result<_>>()?,
            shm_size: Some(host.shm_size).filter(|size| *size > 0).or(Some(SHM_SIZE)),
            host_uts: host.uts == "host",
            domainname: config.domainname.clone(),
            ..OwnPod::default()
        }),
        ..PodSpec::default()
    })
}

/// /dev/shm, where nobody says how large.
const SHM_SIZE: u64 = 64 << 20;

/// PID and IPC; the network is the engine's to find.
fn namespaces(host: &own::HostConfig) -> Result<PodNamespaces> {
    use model::pod::NamespaceMode;
    let refuse = |flag: &str, text: &str| Err(invalid(format!("--{flag}: invalid {} mode: {}", flag.to_uppercase(), shown(text))));
    let pid = match host.pid.as_str() {
        "host" if host.init => return Err(Status::unimplemented("--init with --pid host: an init needs a PID namespace")),
        "host" => NamespaceMode::Node,
        // The pod's PID namespace is held by an init, which collects orphans.
        "" | "private" if host.init => NamespaceMode::Pod,
        "" | "private" => NamespaceMode::Container,
        other if !container_of(other).is_empty() && host.init => {
            return Err(Status::unimplemented("--init with --pid container: an init needs a PID namespace"));
        }
        // Its own until a run, which finds the other one.
        other if !container_of(other).is_empty() => NamespaceMode::Container,
        other => return refuse("pid", other),
    };
    let ipc = match host.ipc.as_str() {
        "host" => NamespaceMode::Node,
        "" | "private" | "shareable" => NamespaceMode::Pod,
        other if !container_of(other).is_empty() => NamespaceMode::Pod,
        other => return refuse("ipc", other),
    };
    if !matches!(host.uts.as_str(), "" | "private" | "host") {
        return refuse("uts", &host.uts);
    }
    Ok(PodNamespaces { pid, ipc, ..PodNamespaces::default() })
}

/// The container of `container:NAME`; empty: it is none.
fn container_of(mode: &str) -> String {
    mode.strip_prefix("container:").unwrap_or_default().to_owned()
}

pub(in crate::services) fn extra_host(entry: &str) -> Result<(String, String)> {
    let bad = || invalid(format!("bad format for add-host: {:?}", shown(entry)));
    let (name, address) = entry.split_once(['=', ':']).ok_or_else(bad)?;
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    if name.is_empty() {
        return Err(bad());
    }
    if bare != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(invalid(format!("invalid IP address in add-host: {:?}", shown(address))));
    }
    Ok((name.to_owned(), bare.to_owned()))
}

fn container(config: own::ContainerConfig, host: &own::HostConfig) -> Result<ContainerSpec> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        let why = format!("the working directory '{}' is invalid, it needs to be an absolute path", shown(&config.working_dir));
        return Err(invalid(why));
    }
    let stop_signal = match config.stop_signal.as_str() {
        "" => None,
        text => Some(signal(text)?),
    };
    let own = own_container(&config, host)?;
    let (devices, cdi_devices) = devices::all(&host.devices)?;
    let mut resources = limits::resources(host.limits.as_ref())?;
    resources.oom_score_adj = Some(host.oom_score_adj).filter(|score| *score != 0);
    Ok(ContainerSpec {
        key: ContainerKey { name: String::new(), attempt: 0 },
        user_specified_image: if config.image_name.is_empty() { config.image.clone() } else { config.image_name },
        image: config.image,
        command: config.entrypoint,
        args: config.command,
        working_dir: config.working_dir,
        envs: config.env.iter().map(|entry| env(entry)).collect::<Result<_>>()?,
        mounts: Vec::new(),
        devices,
        labels: config.labels.into_iter().collect(),
        annotations: host.annotations.clone().into_iter().collect(),
        log_path: String::new(),
        stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        stop_signal,
        resources,
        security: security::of(host)?,
        image_annotations: Default::default(),
        image_volumes: Vec::new(),
        block_io_class: None,
        rdt_class: None,
        cdi_devices,
        own: Some(own),
    })
}

/// What CRI cannot say.
fn own_container(config: &own::ContainerConfig, host: &own::HostConfig) -> Result<OwnContainer> {
    if let Some(rule) = host.device_cgroup_rules.iter().find(|rule| engine::spec::device_rule(rule).is_none()) {
        return Err(invalid(format!("invalid device cgroup format '{}'", shown(rule))));
    }
    let log_limit = match logging::of(host)? {
        Kept::Newest(limit) => Some(limit),
        Kept::Nothing => None,
    };
    Ok(OwnContainer {
        log_limit,
        no_log: log_limit.is_none(),
        device_rules: host.device_cgroup_rules.clone(),
        own_cgroup_namespace: match host.cgroupns.as_str() {
            "" => None,
            "private" => Some(true),
            "host" => Some(false),
            other => return Err(invalid(format!("invalid cgroup namespace mode: {}", shown(other)))),
        },
        user: config.user.clone(),
        groups: config.groups.clone(),
        no_entrypoint: config.reset_entrypoint && config.entrypoint.is_empty(),
        rlimits: limits::ulimits(&host.ulimits)?,
        tmpfs: Vec::new(),
    })
}

/// A signal by name or number.
pub(super) fn signal(text: &str) -> Result<model::Signal> {
    text.parse().map_err(|_| invalid(format!("invalid signal: {}", shown(text))))
}

fn env(entry: &str) -> Result<EnvVar> {
    let bad = |why: &str| invalid(format!("invalid environment variable: {}: {why}", shown(entry)));
    let (name, value) = entry.split_once('=').ok_or_else(|| bad("without a value"))?;
    if name.is_empty() || entry.contains('\0') {
        return Err(bad("no name, or a NUL"));
    }
    Ok(EnvVar { name: name.to_owned(), value: value.as_bytes().to_vec().into() })
}
