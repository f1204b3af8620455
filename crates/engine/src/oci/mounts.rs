//! Mounts as the OCI runtime spec has them.

use std::path::Path;

use model::{
    container::Propagation,
    plan::{ContainerPlan, MountFlags, MountKind, MountPlan, oci},
};
use serde_json::{Value, json};

/// Size of /dev, as the executor has it.
const DEV: &str = "size=65536k";
/// Group "tty", the same number in every distribution.
const TTY: &str = "gid=5";

pub(super) fn mounts(plan: &ContainerPlan, bundle: &Path) -> Vec<Value> {
    let mut list = Vec::with_capacity(plan.mounts.len() + 1);
    for (index, mount) in plan.mounts.iter().enumerate() {
        list.push(one(mount, bundle.join(oci::mount(index))));
        if matches!(mount.kind, MountKind::Dev) {
            let target = format!("{}/pts", mount.target.trim_end_matches('/'));
            let options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", TTY];
            list.push(json!({ "destination": target, "type": "devpts", "source": "devpts", "options": options }));
        }
    }
    list
}

fn one(mount: &MountPlan, ready_made: std::path::PathBuf) -> Value {
    let mut options = flags(mount.flags);
    let mut add = |more: &[&str]| options.extend(more.iter().map(ToString::to_string));
    let (kind, source) = if mount.ready_made() {
        add(&["rbind", propagation(propagation_of(&mount.kind))]);
        ("bind", ready_made.to_string_lossy().into_owned())
    } else {
        match &mount.kind {
            MountKind::Bind { source, propagation: wanted } => {
                add(&["rbind", propagation(*wanted)]);
                ("bind", source.clone())
            }
            MountKind::HostSysfs => {
                add(&["rbind", "rprivate"]);
                ("bind", "/sys".to_owned())
            }
            MountKind::Dev => {
                add(&["mode=755", DEV]);
                ("tmpfs", "tmpfs".to_owned())
            }
            MountKind::Tmpfs { size, mode } => {
                options.push(format!("mode={mode:o}"));
                options.extend(size.map(|size| format!("size={size}")));
                ("tmpfs", "tmpfs".to_owned())
            }
            MountKind::Proc => ("proc", "proc".to_owned()),
            MountKind::Sysfs => ("sysfs", "sysfs".to_owned()),
            MountKind::Mqueue => ("mqueue", "mqueue".to_owned()),
            MountKind::Cgroup => ("cgroup", "cgroup".to_owned()),
            MountKind::Shm | MountKind::Detached { .. } => ("bind", ready_made.to_string_lossy().into_owned()),
        }
    };
    json!({ "destination": mount.target, "type": kind, "source": source, "options": options })
}

fn propagation_of(kind: &MountKind) -> Propagation {
    match kind {
        MountKind::Bind { propagation, .. } => *propagation,
        _ => Propagation::Private,
    }
}

fn flags(flags: MountFlags) -> Vec<String> {
    let named = [
        (flags.readonly, "ro"),
        (!flags.readonly, "rw"),
        (flags.nosuid, "nosuid"),
        (flags.nodev, "nodev"),
        (flags.noexec, "noexec"),
    ];
    named.iter().filter(|(is, _)| *is).map(|(_, name)| (*name).to_owned()).collect()
}

pub(super) fn propagation(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    }
}
