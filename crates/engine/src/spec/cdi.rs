//! What a vendor's device specification says, carried over into a container's plan.

use std::{fs, io, path::Path};

use cdi::{DeviceType, Edits, IntelRdt, Permissions};
use minicbor::bytes::ByteVec;
use model::{
    container::{BindMount, EnvVar, Propagation, ResolvedUser},
    plan::{ContainerPlan, DeviceNode, Hook, HookStage, MountFlags, MountKind, MountPlan},
    pod::PodSpec,
};
use sys::cgroup::{Access, DeviceKind, DeviceRule};

use super::{
    devices, env,
    error::{Error, cut},
    mounts, path,
};

/// Seconds that a hook may take if nobody says how long; runtimes of the field wait for ever.
pub(crate) const HOOK_TIMEOUT: u32 = 30;
/// Seconds that a hook may take at most: whoever creates a container waits for it.
pub(crate) const HOOK_LIMIT: u32 = 120;

/// A container that is about to be made.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    /// Its plan so far.
    pub(crate) plan: &'a mut ContainerPlan,
    /// What its cgroup allows besides.
    pub(crate) rules: &'a mut Vec<DeviceRule>,
    /// Its pod.
    pub(crate) pod: &'a PodSpec,
    /// Hooks, in order.
    pub(crate) hooks: &'a mut Vec<Hook>,
}

impl Target<'_> {
    /// Carries everything over. Blocks: looks at devices and at the sources of mounts.
    ///
    /// # Errors
    /// What of it cannot be, by its name. The plan is of no use then.
    pub(crate) fn apply(&mut self, edits: &Edits, user: &mut ResolvedUser) -> Result<(), Error> {
        if let Some(device) = edits.net_devices.first() {
            let why = format!(
                "interface {:?} of the host cannot be moved: a pod's network is made by its network plugin",
                cut(&device.host_name)
            );
            return Err(Error::Cdi { field: "netDevices", why });
        }
        if edits.intel_rdt.is_some() {
            return Err(Error::Cdi { field: "intelRdt", why: "only for devices that the client asks for".to_owned() });
        }
        self.env(&edits.env)?;
        edits.device_nodes.iter().try_for_each(|node| self.device(node))?;
        edits.mounts.iter().try_for_each(|mount| self.mount(mount))?;
        self.plan.mounts.sort_by_key(|mount| mount.target.matches('/').count());
        for gid in &edits.additional_gids {
            for groups in [&mut self.plan.process.groups, &mut user.groups] {
                if !groups.contains(gid) {
                    groups.push(*gid);
                }
            }
        }
        self.hooks.extend(edits.hooks.iter().map(hook));
        Ok(())
    }

    fn env(&mut self, added: &[String]) -> Result<(), Error> {
        let set = |(name, value): (&str, &str)| EnvVar { name: name.to_owned(), value: ByteVec::from(value.as_bytes().to_vec()) };
        let set: Vec<_> = added.iter().filter_map(|variable| variable.split_once('=')).map(set).collect();
        self.plan.process.env = env::adjusted(&self.plan.process.env, &[], &set)?;
        Ok(())
    }

    fn device(&mut self, wanted: &cdi::DeviceNode) -> Result<(), Error> {
        let refuse = |why: &'static str| Error::Device { path: cut(&wanted.path), why };
        let target = path::clean(&wanted.path).filter(|_| !path::climbs(&wanted.path)).ok_or_else(|| refuse("has `..`"))?;
        let node = self.node(wanted, target)?;
        self.rules.push(rule(&node, wanted.permissions));
        if devices::is_standard(&node.path) {
            return Err(refuse("is made with every /dev"));
        }
        if !path::within(&node.path, "/dev") {
            mounts::check_target(&node.path)?;
            let mount = devices::bound(wanted.host_path.clone(), node.path)?;
            self.plan.mounts.retain(|known| known.target != mount.target);
            self.plan.mounts.push(mount);
        } else if !self.has_foreign_dev() {
            self.plan.devices.retain(|known| known.path != node.path);
            self.plan.devices.push(node);
        }
        Ok(())
    }

    /// The client has mounted a /dev of its own: nothing is made in it.
    fn has_foreign_dev(&self) -> bool {
        self.plan.mounts.iter().any(|mount| mount.target == "/dev" && mount.kind != MountKind::Dev)
    }

    /// What is not said is as on the host; what is said by type and number need not be there.
    fn node(&self, wanted: &cdi::DeviceNode, target: String) -> Result<DeviceNode, Error> {
        let refuse = |why: &'static str| Error::Device { path: cut(&wanted.path), why };
        let host = match (devices::host_node(Path::new(&wanted.host_path), &target), wanted.kind, wanted.numbers) {
            (Ok(found), ..) => found,
            (Err(_), Some(_), Some(_)) => None,
            (Err(source), ..) => {
                return Err(Error::HostPath { operation: "find CDI device", path: wanted.host_path.clone().into(), source });
            }
        };
        let block = match (wanted.kind, &host) {
            (Some(DeviceType::Fifo), _) => return Err(refuse("is a FIFO, and a volume can be one: only devices are made")),
            (Some(kind), _) => kind == DeviceType::Block,
            (None, Some(host)) => host.block,
            (None, None) => return Err(refuse("is not a device on the host")),
        };
        let (major, minor) = match (wanted.numbers, &host) {
            (Some(numbers), _) => numbers,
            (None, Some(host)) if host.block == block => (host.major, host.minor),
            (None, Some(_)) => return Err(refuse("is of another type on the host")),
            (None, None) => return Err(refuse("is not a device on the host")),
        };
        Ok(DeviceNode {
            path: target,
            block,
            major,
            minor,
            mode: wanted.mode.or(host.map(|host| host.mode)).unwrap_or(0o666),
            uid: wanted.uid.unwrap_or(self.plan.process.uid),
            gid: wanted.gid.unwrap_or(self.plan.process.gid),
        })
    }

    fn mount(&mut self, wanted: &cdi::Mount) -> Result<(), Error> {
        let refuse = |why: String| Error::Cdi { field: "mounts", why: format!("on {:?}: {why}", cut(&wanted.container_path)) };
        let bound = wanted.options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind"));
        let mount = match wanted.kind.as_str() {
            "tmpfs" if !bound => tmpfs(wanted).map_err(refuse)?,
            "" | "bind" | "none" => self.bind(wanted)?,
            _ if bound => self.bind(wanted)?,
            kind => return Err(refuse(format!("type {:?} is none of bind and tmpfs", cut(kind)))),
        };
        if let MountKind::Bind { propagation, .. } = &mount.kind {
            self.plan.root_propagation = mounts::further(self.plan.root_propagation, *propagation);
        }
        self.plan.mounts.retain(|known| known.target != mount.target);
        self.plan.mounts.push(mount);
        Ok(())
    }

    /// Unlike a client's, its source has to be there: a driver that is not installed shall not be an empty directory.
    fn bind(&self, wanted: &cdi::Mount) -> Result<MountPlan, Error> {
        let failed = |source: io::Error| Error::HostPath {
            operation: "find CDI mount source",
            path: wanted.host_path.clone().into(),
            source,
        };
        fs::metadata(&wanted.host_path).map_err(failed)?;
        let mut bind = BindMount {
            container_path: wanted.container_path.clone(),
            host_path: wanted.host_path.clone(),
            readonly: false,
            recursive_read_only: false,
            propagation: Propagation::Private,
            selinux_relabel: false,
            mount_options: Vec::new(),
            idmap: self.pod.userns,
        };
        for option in &wanted.options {
            match option.as_str() {
                "ro" => bind.readonly = true,
                "rro" => (bind.readonly, bind.recursive_read_only) = (true, true),
                "rw" => (bind.readonly, bind.recursive_read_only) = (false, false),
                "nosuid" | "nodev" | "noexec" => bind.mount_options.push(option.clone()),
                "private" | "rprivate" => bind.propagation = Propagation::Private,
                "slave" | "rslave" => bind.propagation = Propagation::HostToContainer,
                "shared" | "rshared" => bind.propagation = Propagation::Bidirectional,
                // What a bind has anyway, and times of access that it takes from the file system below it.
                "bind" | "rbind" | "suid" | "dev" | "exec" | "relatime" | "norelatime" | "noatime" | "nodiratime"
                | "strictatime" => {}
                other => {
                    let why = format!("on {:?}: option {:?} is not known", cut(&wanted.container_path), cut(other));
                    return Err(Error::Cdi { field: "mounts", why });
                }
            }
        }
        // Whether it may have devices is for the vendor to say, who is root.
        mounts::bind(&bind, true, self.pod)
    }
}

/// The class that a container is put into. Groups of resctrl are the administrator's: none is made or changed.
///
/// # Errors
/// What else is asked for.
pub(crate) fn rdt_class(wanted: IntelRdt) -> Result<Option<String>, Error> {
    let refuse = |why: &str| Err(Error::Cdi { field: "intelRdt", why: why.to_owned() });
    if wanted.monitoring {
        return refuse("creel makes no monitoring groups of resctrl");
    }
    if !wanted.schemata.is_empty() || wanted.clos_id.is_empty() {
        return refuse("creel puts containers into classes that are there (closID) and sets no schema of one");
    }
    Ok(Some(wanted.clos_id).filter(|class| class != "/"))
}

fn tmpfs(wanted: &cdi::Mount) -> Result<MountPlan, String> {
    let (mut size, mut mode) = (None, 0o755);
    let mut flags = MountFlags::default();
    for option in &wanted.options {
        let bad = || format!("option {:?} is not known", cut(option));
        match option.split_once('=') {
            Some(("size", bytes)) => size = Some(bytes.parse().map_err(|_| bad())?),
            Some(("mode", bits)) => mode = u32::from_str_radix(bits, 8).map_err(|_| bad())?,
            None if option == "ro" => flags.readonly = true,
            None if option == "nosuid" => flags.nosuid = true,
            None if option == "nodev" => flags.nodev = true,
            None if option == "noexec" => flags.noexec = true,
            None if matches!(option.as_str(), "rw" | "relatime" | "noatime" | "strictatime") => {}
            _ => return Err(bad()),
        }
    }
    let plan = mounts::tmpfs(&wanted.container_path, size, mode).map_err(|error| error.to_string())?;
    Ok(MountPlan { flags, ..plan })
}

fn rule(node: &DeviceNode, Permissions { read, write, mknod }: Permissions) -> DeviceRule {
    let kind = if node.block { DeviceKind::Block } else { DeviceKind::Character };
    DeviceRule { kind, major: Some(node.major), minor: Some(node.minor), access: Access { read, write, mknod } }
}

fn hook(hook: &cdi::Hook) -> Hook {
    Hook {
        stage: match hook.stage {
            cdi::HookStage::Prestart => HookStage::Prestart,
            cdi::HookStage::CreateRuntime => HookStage::CreateRuntime,
            cdi::HookStage::CreateContainer => HookStage::CreateContainer,
            cdi::HookStage::StartContainer => HookStage::StartContainer,
            cdi::HookStage::Poststart => HookStage::Poststart,
            cdi::HookStage::Poststop => HookStage::Poststop,
        },
        path: hook.path.clone(),
        args: if hook.args.is_empty() { vec![hook.path.clone()] } else { hook.args.clone() },
        env: hook.env.clone(),
        timeout: hook.timeout.unwrap_or(HOOK_TIMEOUT).min(HOOK_LIMIT),
    }
}

#[cfg(test)]
mod tests;
