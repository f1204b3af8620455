//! What a verbose status adds for people: `crictl inspect` and `inspectp` print it under `info`. Its words are those of the
//! OCI runtime specification where that has some; nothing else depends on them.

use engine::{Container, Pod};
use model::{
    Resources,
    container::ContainerSpec,
    plan::{ContainerPlan, MountFlags, MountKind, MountPlan},
    pod::{PidMode, PodState},
};
use serde_json::{Value, json};

/// A pod.
pub(crate) fn pod(pod: &Pod) -> Value {
    let why = match pod.state() {
        PodState::Ready { .. } => None,
        PodState::NotReady { why } => Some(why.to_string()),
    };
    let (spec, size) = (&pod.spec, pod.size());
    json!({
        "pid": pod.supervisor_pid(),
        "notReadyBecause": why,
        "userMade": spec.user_made,
        "runtimeHandler": spec.runtime_handler,
        "cgroup": pod.cgroup(),
        "resources": resources(&size.resources),
        "overhead": resources(&size.overhead),
        "config": {
            "metadata": {
                "name": spec.key.name, "namespace": spec.key.namespace, "uid": spec.key.uid, "attempt": spec.key.attempt,
            },
            "hostname": spec.hostname,
            "log_directory": spec.log_directory,
            "labels": spec.labels,
            "annotations": spec.annotations,
            "linux": { "cgroup_parent": spec.cgroup_parent, "sysctls": spec.sysctls, "privileged": spec.privileged },
        },
    })
}

/// A container; `pid`: its main process, while there is one.
pub(crate) fn container(container: &Container, pid: Option<u32>) -> Value {
    json!({
        "sandboxID": container.pod.id.to_string(),
        "pid": pid,
        "removing": false,
        "snapshotter": null,
        "privileged": container.spec.security.privileged,
        "runtimeHandler": container.pod.spec.runtime_handler,
        "warnings": container.warnings,
        "config": config(&container.spec),
        "runtimeSpec": runtime_spec(container.plan(), &container.resources()),
    })
}

fn config(spec: &ContainerSpec) -> Value {
    let envs = spec.envs.iter().map(|env| json!({ "key": env.name, "value": String::from_utf8_lossy(&env.value) }));
    let mounts = spec
        .mounts
        .iter()
        .map(|mount| json!({ "container_path": mount.container_path, "host_path": mount.host_path, "readonly": mount.readonly }));
    json!({
        "metadata": { "name": spec.key.name, "attempt": spec.key.attempt },
        "image": { "image": spec.image, "user_specified_image": spec.user_specified_image },
        "command": spec.command,
        "args": spec.args,
        "working_dir": spec.working_dir,
        "envs": envs.collect::<Vec<_>>(),
        "mounts": mounts.collect::<Vec<_>>(),
        "labels": spec.labels,
        "annotations": spec.annotations,
        "log_path": spec.log_path,
        "stdin": spec.stdin,
        "stdin_once": spec.stdin_once,
        "tty": spec.tty,
        "linux": { "resources": resources(&spec.resources) },
    })
}

fn runtime_spec(plan: &ContainerPlan, limits: &Resources) -> Value {
    let process = &plan.process;
    let env: Vec<_> = process.env.iter().map(|variable| String::from_utf8_lossy(variable)).collect();
    let set = |mask: u64| model::capability::names(mask).map(|name| format!("CAP_{name}")).collect::<Vec<_>>();
    let (bounding, permitted, ambient) =
        (set(process.capabilities.bounding), set(process.capabilities.permitted), set(process.capabilities.ambient));
    let limit = |limit: &model::plan::Rlimit| json!({ "type": limit.resource, "soft": limit.soft, "hard": limit.hard });
    let device = |device: &model::plan::DeviceNode| {
        let kind = if device.block { "b" } else { "c" };
        json!({
            "path": device.path, "type": kind, "major": device.major, "minor": device.minor, "fileMode": device.mode,
            "uid": device.uid, "gid": device.gid,
        })
    };
    json!({
        "process": {
            "args": process.args,
            "env": env,
            "cwd": process.cwd,
            "terminal": process.tty,
            "user": { "uid": process.uid, "gid": process.gid, "additionalGids": process.groups },
            "capabilities": {
                "bounding": bounding, "effective": permitted, "permitted": permitted, "inheritable": [], "ambient": ambient,
            },
            "noNewPrivileges": process.no_new_privs,
            "apparmorProfile": process.apparmor,
            "selinuxLabel": process.selinux,
            "oomScoreAdj": process.oom_score_adj,
            "rlimits": process.rlimits.iter().map(limit).collect::<Vec<_>>(),
        },
        "root": { "readonly": plan.readonly_rootfs },
        "mounts": plan.mounts.iter().map(mount).collect::<Vec<_>>(),
        "linux": {
            "cgroupsPath": plan.cgroup,
            "devices": plan.devices.iter().map(device).collect::<Vec<_>>(),
            "maskedPaths": plan.masked_paths,
            "readonlyPaths": plan.readonly_paths,
            "namespaces": { "pid": pid_mode(plan.pid), "cgroup": plan.own_cgroup_namespace },
            "resources": resources(limits),
            "mountLabel": plan.mount_label,
            "seccomp": process.seccomp.as_ref().map(|program| json!({ "instructions": program.len() / 8 })),
        },
    })
}

fn pid_mode(mode: PidMode) -> String {
    match mode {
        PidMode::Pod => "pod".to_owned(),
        PidMode::Container => "container".to_owned(),
        PidMode::Node => "node".to_owned(),
        PidMode::Target(container) => format!("container:{container}"),
    }
}

fn mount(mount: &MountPlan) -> Value {
    let source = match &mount.kind {
        MountKind::Bind { source, .. } => Some(source),
        _ => None,
    };
    let kind = format!("{:?}", mount.kind);
    let kind = kind.split([' ', '{', '(']).next().unwrap_or_default().to_ascii_lowercase();
    json!({ "destination": mount.target, "type": kind, "source": source, "options": options(mount.flags) })
}

fn options(flags: MountFlags) -> Vec<&'static str> {
    let readonly = if flags.readonly && flags.recursive { "rro" } else { "ro" };
    [(flags.readonly, readonly), (flags.nosuid, "nosuid"), (flags.nodev, "nodev"), (flags.noexec, "noexec")]
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
        .collect()
}

fn resources(limits: &Resources) -> Value {
    json!({
        "cpuPeriod": limits.cpu_period,
        "cpuQuota": limits.cpu_quota,
        "cpuShares": limits.cpu_shares,
        "memoryLimitInBytes": limits.memory_limit,
        "memorySwapLimitInBytes": limits.memory_swap_limit,
        "cpusetCpus": limits.cpuset_cpus,
        "cpusetMems": limits.cpuset_mems,
        "pidsLimit": limits.pids_limit,
        "hugepageLimits": limits.hugepage_limits,
        "unified": limits.unified,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_mount_options() {
        let flags = MountFlags { readonly: true, recursive: true, nosuid: true, ..MountFlags::default() };
        assert_eq!(options(flags), ["rro", "nosuid"]);
        assert_eq!(options(MountFlags { readonly: true, ..MountFlags::default() }), ["ro"]);
        assert!(options(MountFlags::default()).is_empty());
    }
}
