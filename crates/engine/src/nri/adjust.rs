//! What plugins want to be different about a container, carried over into its plan before anything of it is made.

mod mounts;
mod process;

use std::{collections::BTreeMap, path::PathBuf};

use ::nri::proto as p;
use model::{
    ErrorKind, Resources,
    container::ResolvedUser,
    plan::{ContainerPlan, DeviceNode, Hook},
    pod::{PidMode, PodSpec},
};
use sys::cgroup::{Access, DeviceKind, DeviceRule};

use super::resources;
use crate::spec;
pub(super) use process::RLIMITS;
use process::{args, io_priority, scheduler};

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

fn annotations(mut known: BTreeMap<String, String>, wanted: BTreeMap<String, String>) -> BTreeMap<String, String> {
    wanted.keys().filter_map(|key| key.strip_prefix('-')).for_each(|key| drop(known.remove(key)));
    known.extend(wanted.into_iter().filter(|(key, _)| !key.starts_with('-')));
    known
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

#[cfg(test)]
mod tests;
