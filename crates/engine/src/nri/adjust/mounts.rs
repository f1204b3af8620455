//! Mounts, in the words of mount(8).

use ::nri::proto as p;
use model::{
    container::{BindMount, Propagation},
    plan::{MountFlags, MountKind, MountPlan},
    pod::PodSpec,
};

use super::{Refusal, Target, unsupported};
use crate::spec;

impl Target<'_> {
    pub(super) fn mounts(&mut self, mounts: Vec<p::Mount>) -> Result<(), Refusal> {
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
