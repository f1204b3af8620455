//! Pods and containers as plugins see them.

use ::nri::proto as p;
use model::{
    ContainerId, PodId, Resources,
    container::{ContainerImage, ContainerSpec, ContainerState, Propagation, ResolvedUser, SeccompSpec},
    plan::{ContainerPlan, DeviceNode, MountKind, MountPlan},
    pod::{NamespaceMode, Network, PidMode, PodSpec, PodState, Timestamp},
};

use crate::{container::Container, pod::Pod};

/// What is known of a pod; its set-up may not have ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodFacts<'a> {
    pub id: PodId,
    pub spec: &'a PodSpec,
    pub cgroup: &'a str,
    /// The supervisor's; its namespaces are the pod's.
    pub pid: Option<u32>,
    pub network: Option<&'a Network>,
}

impl PodFacts<'_> {
    pub(super) fn message(&self) -> p::PodSandbox {
        let Self { id, spec, cgroup, pid, network } = *self;
        let ips = match network {
            Some(Network::Pod { ip, additional }) => std::iter::once(ip).chain(additional).map(ToString::to_string).collect(),
            Some(Network::Host) | None => Vec::new(),
        };
        p::PodSandbox {
            id: id.to_string(),
            name: spec.key.name.clone(),
            uid: spec.key.uid.clone(),
            namespace: spec.key.namespace.clone(),
            labels: spec.labels.clone(),
            annotations: spec.annotations.clone(),
            runtime_handler: spec.runtime_handler.clone(),
            linux: Some(p::LinuxPodSandbox {
                pod_overhead: Some(super::resources::message(&spec.overhead)),
                pod_resources: Some(super::resources::message(&spec.resources)),
                cgroup_parent: spec.cgroup_parent.clone(),
                cgroups_path: cgroup.to_owned(),
                namespaces: pod_namespaces(spec, pid),
                resources: None,
            }),
            pid: pid.unwrap_or_default(),
            ips,
        }
    }
}

/// A pod of the table.
pub(super) fn pod(pod: &Pod) -> p::PodSandbox {
    let network = match pod.state() {
        PodState::Ready { network } => Some(network),
        PodState::NotReady { .. } => None,
    };
    let (spec, cgroup, size) = (&pod.spec, pod.cgroup.as_str(), pod.size());
    let facts = PodFacts { id: pod.id, spec, cgroup, pid: pod.supervisor_pid(), network: network.as_ref() };
    let mut pod = facts.message();
    let linux = pod.linux.get_or_insert_default();
    linux.pod_overhead = Some(super::resources::message(&size.overhead));
    linux.pod_resources = Some(super::resources::message(&size.resources));
    pod
}

fn pod_namespaces(spec: &PodSpec, pid: Option<u32>) -> Vec<p::LinuxNamespace> {
    let Some(pid) = pid else { return Vec::new() };
    let own = |mode, kind: &str, file: &str| {
        (mode == NamespaceMode::Pod).then(|| p::LinuxNamespace { r#type: kind.into(), path: format!("/proc/{pid}/ns/{file}") })
    };
    let (network, ipc) = (spec.namespaces.network, spec.namespaces.ipc);
    [own(network, "network", "net"), own(network, "uts", "uts"), own(ipc, "ipc", "ipc")].into_iter().flatten().collect()
}

/// What is known of a container; it may be about to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContainerFacts<'a> {
    pub id: ContainerId,
    pub pod: PodId,
    pub spec: &'a ContainerSpec,
    pub plan: &'a ContainerPlan,
    pub resources: &'a Resources,
    pub image: &'a ContainerImage,
    pub user: &'a ResolvedUser,
    pub created_at: Timestamp,
    /// `None`: it is being made.
    pub state: Option<&'a ContainerState>,
}

impl ContainerFacts<'_> {
    pub(super) fn message(&self) -> p::Container {
        let Self { spec, plan, user, .. } = *self;
        let mut container = p::Container {
            id: self.id.to_string(),
            pod_sandbox_id: self.pod.to_string(),
            name: spec.key.name.clone(),
            state: p::ContainerState::ContainerUnknown.into(),
            labels: spec.labels.clone(),
            annotations: spec.annotations.clone(),
            args: plan.process.args.clone(),
            env: plan.process.env.iter().map(|entry| String::from_utf8_lossy(entry).into_owned()).collect(),
            mounts: plan.mounts.iter().map(mount).collect(),
            hooks: Some(p::Hooks::default()),
            linux: Some(self.linux()),
            rlimits: plan.process.rlimits.iter().filter_map(rlimit).collect(),
            created_at: self.created_at,
            user: Some(p::User { uid: user.uid, gid: user.gid, additional_gids: user.groups.clone() }),
            image: Some(image(spec, self.image)),
            ..Default::default()
        };
        if let Some(annotations) = &plan.annotations {
            container.annotations.clone_from(annotations);
        }
        if let Some(state) = self.state {
            describe(state, &mut container);
        }
        container
    }

    fn linux(&self) -> p::LinuxContainer {
        let Self { spec, plan, .. } = *self;
        p::LinuxContainer {
            namespaces: namespaces(plan),
            devices: plan.devices.iter().map(device).collect(),
            resources: Some(super::resources::message(self.resources)),
            oom_score_adj: plan.process.oom_score_adj.map(|score| p::OptionalInt { value: score.into() }),
            cgroups_path: plan.cgroup.clone(),
            seccomp_profile: Some(seccomp(spec)),
            ..Default::default()
        }
    }
}

/// A container of the table.
pub(super) fn container(container: &Container) -> p::Container {
    let (resources, state) = (container.resources(), container.state());
    ContainerFacts {
        id: container.id,
        pod: container.pod.id,
        spec: &container.spec,
        plan: &container.plan,
        resources: &resources,
        image: &container.image,
        user: &container.user,
        created_at: container.created_at,
        state: Some(&state),
    }
    .message()
}

fn describe(state: &ContainerState, container: &mut p::Container) {
    let name = match state {
        ContainerState::Created => p::ContainerState::ContainerCreated,
        ContainerState::Running { started_at } => {
            container.started_at = *started_at;
            p::ContainerState::ContainerRunning
        }
        ContainerState::Exited { started_at, finished_at, exit, reason, message } => {
            container.started_at = started_at.unwrap_or_default();
            container.finished_at = *finished_at;
            container.exit_code = exit.code;
            container.status_reason = (*reason).to_owned();
            container.status_message.clone_from(message);
            p::ContainerState::ContainerStopped
        }
    };
    container.state = name.into();
}

fn image(spec: &ContainerSpec, image: &ContainerImage) -> p::Image {
    let asked = if spec.user_specified_image.is_empty() { &image.name } else { &spec.user_specified_image };
    let digest = image.digest.as_deref().and_then(|full| full.split_once('@')).map(|(_, digest)| digest.to_owned());
    p::Image { name: asked.clone(), digest: digest.unwrap_or_default(), config_digest: image.id.to_string() }
}

fn seccomp(spec: &ContainerSpec) -> p::SecurityProfile {
    use p::security_profile::ProfileType;
    let (kind, path) = match &spec.security.seccomp {
        _ if spec.security.privileged => (ProfileType::Unconfined, ""),
        SeccompSpec::Unconfined => (ProfileType::Unconfined, ""),
        SeccompSpec::RuntimeDefault => (ProfileType::RuntimeDefault, ""),
        SeccompSpec::Localhost(path) => (ProfileType::Localhost, path.as_str()),
    };
    p::SecurityProfile { profile_type: kind.into(), localhost_ref: path.to_owned() }
}

fn namespaces(plan: &ContainerPlan) -> Vec<p::LinuxNamespace> {
    let own = |own: bool, kind: &str| own.then(|| p::LinuxNamespace { r#type: kind.into(), path: String::new() });
    let list = [own(true, "mount"), own(plan.own_cgroup_namespace, "cgroup"), own(plan.pid == PidMode::Container, "pid")];
    list.into_iter().flatten().collect()
}

fn device(node: &DeviceNode) -> p::LinuxDevice {
    p::LinuxDevice {
        path: node.path.clone(),
        r#type: if node.block { "b" } else { "c" }.to_owned(),
        major: node.major.into(),
        minor: node.minor.into(),
        file_mode: Some(p::OptionalFileMode { value: node.mode }),
        uid: Some(p::OptionalUInt32 { value: node.uid }),
        gid: Some(p::OptionalUInt32 { value: node.gid }),
    }
}

fn rlimit(limit: &model::plan::Rlimit) -> Option<p::PosixRlimit> {
    let name = super::adjust::RLIMITS.get(usize::try_from(limit.resource).ok()?)?;
    Some(p::PosixRlimit { r#type: format!("RLIMIT_{name}"), hard: limit.hard, soft: limit.soft })
}

fn mount(mount: &MountPlan) -> p::Mount {
    let (kind, source) = match &mount.kind {
        MountKind::Proc => ("proc", "proc"),
        MountKind::Sysfs | MountKind::HostSysfs => ("sysfs", "sysfs"),
        MountKind::Dev | MountKind::Tmpfs { .. } => ("tmpfs", "tmpfs"),
        MountKind::Mqueue => ("mqueue", "mqueue"),
        MountKind::Cgroup => ("cgroup", "cgroup"),
        MountKind::Shm => ("bind", "shm"),
        MountKind::Bind { source, .. } => ("bind", source.as_str()),
        MountKind::Detached { .. } => ("bind", "image"),
    };
    let flags = &mount.flags;
    let said = [
        (kind == "bind", "rbind"),
        (flags.readonly && flags.recursive, "rro"),
        (flags.readonly && !flags.recursive, "ro"),
        (!flags.readonly, "rw"),
        (flags.nosuid, "nosuid"),
        (flags.nodev, "nodev"),
        (flags.noexec, "noexec"),
    ];
    let mut options: Vec<String> = said.into_iter().filter(|(is, _)| *is).map(|(_, word)| word.to_owned()).collect();
    if let MountKind::Bind { propagation, .. } = &mount.kind {
        let word = match propagation {
            Propagation::Private => "rprivate",
            Propagation::HostToContainer => "rslave",
            Propagation::Bidirectional => "rshared",
        };
        options.push(word.to_owned());
    }
    p::Mount { destination: mount.target.clone(), r#type: kind.to_owned(), source: source.to_owned(), options }
}
