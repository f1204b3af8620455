//! What plugins want to be different about a container, carried over into its plan before anything of it is made.

use std::{collections::BTreeMap, path::PathBuf};

use ::nri::proto as p;
use minicbor::bytes::ByteVec;
use model::{
    ErrorKind, Resources,
    container::{BindMount, EnvVar, Propagation, ResolvedUser},
    plan::{ContainerPlan, DeviceNode, Hook, HookStage, IoPriority, MountFlags, MountKind, MountPlan, Rlimit, Scheduler},
    pod::{PidMode, PodSpec},
};
use sys::cgroup::{Access, DeviceKind, DeviceRule};

use super::resources;
use crate::spec;

/// Names of setrlimit(2)'s resources by their numbers.
pub(super) const RLIMITS: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// An adjustment that cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// There is no such thing here.
    #[error("NRI plugins ask for {field}, which this engine does not do")]
    Unsupported {
        /// As it is called in the interface.
        field: String,
    },
    /// A value that cannot be.
    #[error("NRI plugins ask for {field} {value:?}: {why}")]
    Value {
        /// As it is called in the interface.
        field: &'static str,
        /// Shortened.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A vendor's device.
    #[error("NRI plugins ask for CDI_devices")]
    Cdi(#[source] cdi::Error),
    /// The same from a client would be refused too.
    #[error("NRI plugins ask for {field}")]
    Spec {
        /// As it is called in the interface.
        field: &'static str,
        /// Why.
        source: spec::Error,
    },
}

impl Refusal {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Unsupported { .. } | Self::Value { .. } => ErrorKind::InvalidArgument,
            Self::Spec { source, .. } => source.kind(),
            Self::Cdi(source) => source.kind(),
        }
    }

    fn value(field: &'static str, value: &str, why: &'static str) -> Self {
        Self::Value { field, value: value.chars().take(128).collect(), why }
    }

    fn spec(field: &'static str) -> impl FnOnce(spec::Error) -> Self {
        move |source| Self::Spec { field, source }
    }
}

fn unsupported<T>(field: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Unsupported { field: field.into() })
}

/// A container that is about to be made.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    /// The client's.
    pub annotations: &'a BTreeMap<String, String>,
    pub plan: &'a mut ContainerPlan,
    pub resources: &'a mut Resources,
    /// What its cgroup allows besides.
    pub rules: &'a mut Vec<DeviceRule>,
    pub pod: &'a PodSpec,
    pub pod_cgroup: &'a str,
    pub pids_limit: i64,
    /// Those to be run, in order.
    pub hooks: &'a mut Vec<Hook>,
    pub user: &'a mut ResolvedUser,
    pub cdi_spec_dirs: &'a [PathBuf],
}

impl Target<'_> {
    /// Carries everything over. Blocks: looks at the sources of mounts.
    ///
    /// # Errors
    /// Names the field. The plan is of no use then.
    pub(crate) fn adjust(&mut self, adjust: p::ContainerAdjustment) -> Result<(), Refusal> {
        if !adjust.annotations.is_empty() {
            let known = self.plan.annotations.take().unwrap_or_else(|| self.annotations.clone());
            self.plan.annotations = Some(annotations(known, adjust.annotations));
        }
        if !adjust.args.is_empty() {
            self.plan.process.args = args(adjust.args)?;
        }
        self.env(adjust.env)?;
        self.mounts(adjust.mounts)?;
        self.rlimits(adjust.rlimits)?;
        self.cdi_devices(&adjust.cdi_devices)?;
        if let Some(hooks) = adjust.hooks {
            self.hooks(hooks)?;
        }
        adjust.linux.map_or(Ok(()), |linux| self.linux(linux))
    }

    fn cdi_devices(&mut self, devices: &[p::CdiDevice]) -> Result<(), Refusal> {
        let names: Vec<String> = devices.iter().map(|device| device.name.clone()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let edits = cdi::resolve(self.cdi_spec_dirs, &names).map_err(Refusal::Cdi)?;
        let Self { plan, rules, pod, hooks, user, .. } = self;
        spec::CdiTarget { plan, rules, pod, hooks }.apply(&edits, user).map_err(Refusal::spec("CDI_devices"))
    }

    fn hooks(&mut self, hooks: p::Hooks) -> Result<(), Refusal> {
        let p::Hooks { prestart, create_runtime, create_container, start_container, poststart, poststop } = hooks;
        for (stage, list) in [
            (HookStage::Prestart, prestart),
            (HookStage::CreateRuntime, create_runtime),
            (HookStage::CreateContainer, create_container),
            (HookStage::StartContainer, start_container),
            (HookStage::Poststart, poststart),
            (HookStage::Poststop, poststop),
        ] {
            for hook in list {
                self.hooks.push(one_hook(stage, hook)?);
            }
        }
        Ok(())
    }

    fn linux(&mut self, linux: p::LinuxContainerAdjustment) -> Result<(), Refusal> {
        for (asked, field) in [
            (!linux.sysctl.is_empty(), "linux.sysctl (sysctls are the pod's)"),
            (!linux.net_devices.is_empty(), "linux.net_devices"),
            (linux.rdt.is_some(), "linux.rdt"),
            (linux.memory_policy.is_some(), "linux.memory_policy"),
            (linux.io_priority.is_some() && self.plan.oci.is_some(), "linux.io_priority with a handler that is an OCI runtime"),
            (linux.scheduler.is_some() && self.plan.oci.is_some(), "linux.scheduler with a handler that is an OCI runtime"),
        ] {
            if asked {
                return unsupported(field);
            }
        }
        self.devices(linux.devices)?;
        if let Some(wanted) = &linux.resources {
            let merged = self.resources.updated_by(&resources::wanted(wanted)?);
            *self.resources = spec::effective_resources(&merged, self.pids_limit).map_err(Refusal::spec("linux.resources"))?;
        }
        if let Some(score) = linux.oom_score_adj {
            let valid = i32::try_from(score.value).ok().filter(|score| (-1000..=1000).contains(score));
            let refuse = || Refusal::value("linux.oom_score_adj", &score.value.to_string(), "must be -1000 to 1000");
            self.plan.process.oom_score_adj = Some(valid.ok_or_else(refuse)?);
            self.resources.oom_score_adj = valid;
        }
        if !linux.cgroups_path.is_empty() {
            self.plan.cgroup = self.cgroup(linux.cgroups_path)?;
        }
        if let Some(priority) = linux.io_priority {
            self.plan.process.io_priority = Some(io_priority(priority)?);
        }
        if let Some(wanted) = linux.scheduler {
            self.plan.process.scheduler = Some(scheduler(&wanted)?);
        }
        if let Some(policy) = linux.seccomp_policy {
            self.seccomp(&policy)?;
        }
        linux.namespaces.iter().try_for_each(|namespace| self.namespace(namespace))
    }

    fn env(&mut self, env: Vec<p::KeyValue>) -> Result<(), Refusal> {
        if env.is_empty() {
            return Ok(());
        }
        let removed: Vec<&str> = env.iter().filter_map(|entry| entry.key.strip_prefix('-')).collect();
        let added = env.iter().filter(|entry| !entry.key.starts_with('-'));
        let set: Vec<EnvVar> =
            added.map(|entry| EnvVar { name: entry.key.clone(), value: ByteVec::from(entry.value.clone().into_bytes()) }).collect();
        self.plan.process.env = spec::adjusted_env(&self.plan.process.env, &removed, &set).map_err(Refusal::spec("env"))?;
        Ok(())
    }

    fn mounts(&mut self, mounts: Vec<p::Mount>) -> Result<(), Refusal> {
        if mounts.is_empty() {
            return Ok(());
        }
        for wanted in mounts {
            if let Some(target) = wanted.destination.strip_prefix('-') {
                if ["/proc", "/dev", "/sys"].contains(&target) {
                    return Err(Refusal::value("mounts", target, "cannot be removed: what protects the node is in it"));
                }
                self.plan.mounts.retain(|mount| mount.target != target);
                continue;
            }
            let mount = mount(&wanted, self.pod)?;
            if let MountKind::Bind { propagation, .. } = &mount.kind {
                self.plan.root_propagation = further(self.plan.root_propagation, *propagation);
            }
            self.plan.mounts.retain(|known| known.target != mount.target);
            self.plan.mounts.push(mount);
        }
        // Stable, so mounts of one depth stay in the order in which they were asked for.
        self.plan.mounts.sort_by_key(|mount| mount.target.matches('/').count());
        Ok(())
    }

    fn rlimits(&mut self, rlimits: Vec<p::PosixRlimit>) -> Result<(), Refusal> {
        for wanted in rlimits {
            let (remove, name) = match wanted.r#type.strip_prefix('-') {
                Some(name) => (true, name),
                None => (false, wanted.r#type.as_str()),
            };
            let place = RLIMITS.iter().position(|known| name.strip_prefix("RLIMIT_") == Some(known));
            let refuse = |why| Refusal::value("rlimits", name, why);
            let resource = place.and_then(|n| u32::try_from(n).ok()).ok_or_else(|| refuse("is no resource of setrlimit(2)"))?;
            self.plan.process.rlimits.retain(|known| known.resource != resource);
            if remove {
                continue;
            }
            if wanted.soft > wanted.hard {
                return Err(refuse("its soft limit is above its hard limit"));
            }
            self.plan.process.rlimits.push(Rlimit { resource, soft: wanted.soft, hard: wanted.hard });
        }
        Ok(())
    }

    fn devices(&mut self, devices: Vec<p::LinuxDevice>) -> Result<(), Refusal> {
        for wanted in devices {
            if let Some(path) = wanted.path.strip_prefix('-') {
                self.plan.devices.retain(|node| node.path != path);
                continue;
            }
            let node = device(&wanted)?;
            let kind = if node.block { DeviceKind::Block } else { DeviceKind::Character };
            self.rules.push(DeviceRule { kind, major: Some(node.major), minor: Some(node.minor), access: Access::ALL });
            self.plan.devices.retain(|known| known.path != node.path);
            self.plan.devices.push(node);
        }
        Ok(())
    }

    /// One name directly below the pod's cgroup: there the pod's limits hold, and the container goes with its pod.
    fn cgroup(&self, path: String) -> Result<String, Refusal> {
        let name = path.strip_prefix(self.pod_cgroup).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '@');
        if name.is_empty() || name.len() > 200 || name.starts_with(['.', '-']) || !name.chars().all(plain) {
            return Err(Refusal::value("linux.cgroups_path", &path, "must be a name directly below the pod's cgroup"));
        }
        Ok(path)
    }

    fn seccomp(&mut self, policy: &p::LinuxSeccomp) -> Result<(), Refusal> {
        if !policy.listener_path.is_empty() || !policy.listener_metadata.is_empty() {
            return unsupported("linux.seccomp_policy.listener_path");
        }
        if self.plan.oci.is_some() {
            return unsupported("linux.seccomp_policy with a handler that is an OCI runtime");
        }
        let bounding = self.plan.process.capabilities.bounding;
        let json = serde_json::to_vec(&seccomp_json(policy)).expect("a tree of strings and numbers");
        let program = spec::seccomp_program(&json, bounding).map_err(Refusal::spec("linux.seccomp_policy"))?;
        self.plan.process.seccomp = Some(program);
        Ok(())
    }

    fn namespace(&mut self, namespace: &p::LinuxNamespace) -> Result<(), Refusal> {
        match (namespace.r#type.as_str(), namespace.path.as_str()) {
            ("cgroup", "") => self.plan.own_cgroup_namespace = true,
            ("-cgroup", _) => self.plan.own_cgroup_namespace = false,
            ("pid", "") => self.plan.pid = PidMode::Container,
            ("-pid", _) => self.plan.pid = PidMode::Node,
            ("mount", "") => {}
            (kind, _) => return unsupported(format!("linux.namespaces {:?}", kind.chars().take(32).collect::<String>())),
        }
        Ok(())
    }
}

fn one_hook(stage: HookStage, hook: p::Hook) -> Result<Hook, Refusal> {
    let refuse = |why| Err(Refusal::value("hooks", &hook.path, why));
    if !hook.path.starts_with('/') {
        return refuse("its path must be absolute");
    }
    if [&hook.args, &hook.env].into_iter().flatten().chain([&hook.path]).any(|text| text.contains('\0')) {
        return refuse("has a NUL");
    }
    let timeout = hook.timeout.and_then(|timeout| u32::try_from(timeout.value).ok()).filter(|seconds| *seconds > 0);
    let timeout = timeout.unwrap_or(spec::HOOK_TIMEOUT).min(spec::HOOK_LIMIT);
    let args = if hook.args.is_empty() { vec![hook.path.clone()] } else { hook.args };
    Ok(Hook { stage, path: hook.path, args, env: hook.env, timeout })
}

fn annotations(mut known: BTreeMap<String, String>, wanted: BTreeMap<String, String>) -> BTreeMap<String, String> {
    wanted.keys().filter_map(|key| key.strip_prefix('-')).for_each(|key| drop(known.remove(key)));
    known.extend(wanted.into_iter().filter(|(key, _)| !key.starts_with('-')));
    known
}

fn args(args: Vec<String>) -> Result<Vec<String>, Refusal> {
    match args.iter().find(|arg| arg.contains('\0')) {
        Some(arg) => Err(Refusal::value("args", arg, "has a NUL")),
        None => Ok(args),
    }
}

/// Of two ways in which mounts travel, the one that includes the other.
fn further(one: Propagation, other: Propagation) -> Propagation {
    match (one, other) {
        (Propagation::Bidirectional, _) | (_, Propagation::Bidirectional) => Propagation::Bidirectional,
        (Propagation::HostToContainer, _) | (_, Propagation::HostToContainer) => Propagation::HostToContainer,
        (Propagation::Private, Propagation::Private) => Propagation::Private,
    }
}

fn mount(wanted: &p::Mount, pod: &PodSpec) -> Result<MountPlan, Refusal> {
    let mut options = Options::default();
    wanted.options.iter().try_for_each(|option| options.take(option))?;
    let mut mount = match wanted.r#type.as_str() {
        "bind" => options.bind(wanted, pod)?,
        "" | "none" if options.bind => options.bind(wanted, pod)?,
        "tmpfs" => {
            spec::tmpfs_mount(&wanted.destination, options.size, options.mode.unwrap_or(0o1777)).map_err(Refusal::spec("mounts"))?
        }
        other => return unsupported(format!("a mount of type {:?}", other.chars().take(32).collect::<String>())),
    };
    let said = options.flags;
    let flags = &mut mount.flags;
    flags.readonly |= said.readonly;
    flags.nosuid |= said.nosuid;
    flags.nodev |= said.nodev;
    flags.noexec |= said.noexec;
    Ok(mount)
}

/// A mount's options, in the words of mount(8).
#[derive(Debug, Default)]
struct Options {
    bind: bool,
    flags: MountFlags,
    propagation: Propagation,
    size: Option<u64>,
    mode: Option<u32>,
}

impl Options {
    fn take(&mut self, option: &str) -> Result<(), Refusal> {
        match option {
            "bind" | "rbind" => self.bind = true,
            "ro" => self.flags.readonly = true,
            "rro" => (self.flags.readonly, self.flags.recursive) = (true, true),
            "rw" => self.flags.readonly = false,
            "nosuid" => self.flags.nosuid = true,
            "nodev" => self.flags.nodev = true,
            "noexec" => self.flags.noexec = true,
            "suid" | "dev" | "exec" | "relatime" | "private" | "rprivate" => {}
            "slave" | "rslave" => self.propagation = Propagation::HostToContainer,
            "shared" | "rshared" => self.propagation = Propagation::Bidirectional,
            other => return self.take_value(other),
        }
        Ok(())
    }

    fn take_value(&mut self, option: &str) -> Result<(), Refusal> {
        let refuse = || Refusal::value("mounts.options", option, "is not known");
        match option.split_once('=').ok_or_else(refuse)? {
            ("size", value) => self.size = Some(bytes(value).ok_or_else(refuse)?),
            ("mode", value) => {
                self.mode = Some(u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(refuse)?)
            }
            _ => return Err(refuse()),
        }
        Ok(())
    }

    fn bind(&self, wanted: &p::Mount, pod: &PodSpec) -> Result<MountPlan, Refusal> {
        let mount = BindMount {
            container_path: wanted.destination.clone(),
            host_path: wanted.source.clone(),
            readonly: self.flags.readonly,
            recursive_read_only: self.flags.recursive,
            propagation: self.propagation,
            selinux_relabel: false,
            mount_options: Vec::new(),
            idmap: None,
        };
        spec::extra_bind(&mount, false, pod).map_err(Refusal::spec("mounts"))
    }
}

/// A size as tmpfs(5) takes it.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << unit)
}

fn device(wanted: &p::LinuxDevice) -> Result<DeviceNode, Refusal> {
    let refuse = |why| Refusal::value("linux.devices", &wanted.path, why);
    let block = match wanted.r#type.as_str() {
        "c" | "u" => false,
        "b" => true,
        _ => return Err(refuse("is neither a character nor a block device")),
    };
    let number = |number: i64| u32::try_from(number).map_err(|_| refuse("its numbers are none"));
    let path = spec::device_path(&wanted.path).map_err(Refusal::spec("linux.devices"))?;
    Ok(DeviceNode {
        path,
        block,
        major: number(wanted.major)?,
        minor: number(wanted.minor)?,
        mode: wanted.file_mode.map_or(0o666, |mode| mode.value & 0o777),
        uid: wanted.uid.map_or(0, |uid| uid.value),
        gid: wanted.gid.map_or(0, |gid| gid.value),
    })
}

/// The numbers of the interface are the kernel's.
fn io_priority(wanted: p::LinuxIoPriority) -> Result<IoPriority, Refusal> {
    let class = u8::try_from(wanted.class).ok().filter(|class| (1..=3).contains(class));
    let level = u8::try_from(wanted.priority).ok().filter(|level| *level < 8);
    match (class, level) {
        (Some(class), Some(level)) => Ok(IoPriority { class, level }),
        _ => {
            let value = format!("class {}, priority {}", wanted.class, wanted.priority);
            Err(Refusal::value("linux.io_priority", &value, "must be class 1 to 3 and priority 0 to 7"))
        }
    }
}

fn scheduler(wanted: &p::LinuxScheduler) -> Result<Scheduler, Refusal> {
    use p::LinuxSchedulerPolicy as Policy;
    let refuse = |value: &str, why| Err(Refusal::value("linux.scheduler", value, why));
    let policy = match wanted.policy() {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => 6,
        other @ (Policy::SchedNone | Policy::SchedIso) => return refuse(other.as_str_name(), "is no policy of Linux"),
    };
    if !(-20..=19).contains(&wanted.nice) {
        return refuse(&format!("nice {}", wanted.nice), "must be -20 to 19");
    }
    let Some(priority) = u32::try_from(wanted.priority).ok().filter(|priority| *priority <= 99) else {
        return refuse(&format!("priority {}", wanted.priority), "must be 0 to 99");
    };
    // The interface counts the bits of sched.h.
    let flags = wanted.flags.iter().try_fold(0, |flags, bit| Some(flags | 1_u64.checked_shl(u32::try_from(*bit).ok()?)?));
    let Some(flags) = flags.filter(|flags| *flags < 1 << 7) else { return refuse("flags", "are not known") };
    let p::LinuxScheduler { nice, runtime, deadline, period, .. } = *wanted;
    Ok(Scheduler { policy, flags, nice, priority, runtime, deadline, period })
}

/// As `LinuxSeccomp` of the OCI runtime spec.
fn seccomp_json(policy: &p::LinuxSeccomp) -> serde_json::Value {
    let syscalls: Vec<_> = policy
        .syscalls
        .iter()
        .map(|rule| {
            let args = rule.args.iter();
            let args: Vec<_> = args
                .map(|arg| serde_json::json!({"index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op}))
                .collect();
            let mut json = serde_json::json!({"names": rule.names, "action": rule.action, "args": args});
            if let Some(errno) = rule.errno_ret {
                json["errnoRet"] = errno.value.into();
            }
            json
        })
        .collect();
    let mut json = serde_json::json!({
        "defaultAction": policy.default_action,
        "architectures": policy.architectures,
        "flags": policy.flags,
        "syscalls": syscalls,
    });
    if let Some(errno) = policy.default_errno {
        json["defaultErrnoRet"] = errno.value.into();
    }
    json
}

#[cfg(test)]
mod tests;
