//! The container's mount tree. All mounts are made detached first ([`Sources`]), from what the host has; then they are
//! attached to descriptors of places inside the new root ([`Sources::attach`]). No path of the root is used twice.

mod bind;
mod cgroup;
mod dev;
mod protect;

use std::os::fd::{AsFd, OwnedFd};

use model::plan::{ContainerPlan, MountFlags, MountKind, MountPlan};
use rustix::fs::fstatfs;
use sys::{
    Errno,
    mount::{self, Attributes, Change, Depth, Filesystem},
    path::{Links, Root, same},
    proc,
};

use crate::{
    PodEnv,
    error::{At, Step, refuse},
    report::Reporter,
};

pub(crate) use dev::make_nodes_outside_dev;
pub(crate) use protect::{Masks, protect};

/// Files of procfs that something may be mounted on, because it shows a container its own limits (lxcfs); what else is
/// there decides about security (CVE-2019-16884, CVE-2025-52881).
const PROC_TARGETS: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/sys/kernel/ns_last_pid",
];

/// Detached mounts in the order of the plan.
#[derive(Debug)]
pub(crate) struct Sources<'p>(Vec<(&'p MountPlan, Source)>);

#[derive(Debug)]
enum Source {
    /// A filesystem or bind mount with its attributes set.
    Mount(OwnedFd),
    /// A bind of a single file.
    File(OwnedFd),
    Dev(dev::Dev),
    Cgroup(cgroup::View),
}

/// Mounts that were made before the fork.
#[derive(Debug)]
pub(crate) struct Given {
    /// What [`PodEnv::shm`] made.
    pub(crate) shm: Option<OwnedFd>,
    /// For [`MountKind::Detached`].
    pub(crate) detached: Vec<OwnedFd>,
}

/// What [`Sources::attach`] leaves for later.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    /// Mounts to make read-only when nothing has to be made in them any more.
    readonly: Vec<OwnedFd>,
    dev: Option<dev::Dev>,
}

impl<'p> Sources<'p> {
    /// Makes them. The calling process sees the host's mounts, with their propagation, and is in the namespaces that the
    /// mounts are of.
    pub(crate) fn prepare(env: &PodEnv, plan: &'p ContainerPlan, given: Given, reporter: &Reporter) -> Step<Self> {
        let Given { mut shm, detached } = given;
        let mut detached: Vec<_> = detached.into_iter().map(Some).collect();
        let mut sources = Vec::with_capacity(plan.mounts.len());
        for mount in &plan.mounts {
            let step = || format!("prepare mount {:?}", mount.target);
            let source = match &mount.kind {
                MountKind::Proc => Source::Mount(filesystem("proc", &[], mount.flags).at(step)?),
                MountKind::Sysfs => Source::Mount(filesystem("sysfs", &[], mount.flags).at(step)?),
                MountKind::Mqueue => Source::Mount(filesystem("mqueue", &[], mount.flags).at(step)?),
                MountKind::HostSysfs => Source::Mount(env.as_host(|| bind::host_sysfs(mount.flags).at(step))?),
                MountKind::Tmpfs { size, mode } => {
                    Source::Mount(tmpfs((*size, *mode), mount.flags, plan.mount_label.as_deref()).at(step)?)
                }
                MountKind::Dev => Source::Dev(dev::Dev::build(env, plan, mount)?),
                MountKind::Cgroup => Source::Cgroup(cgroup::View::prepare(&env.hierarchies, plan, mount.flags)?),
                MountKind::Shm => match shm.take() {
                    Some(clone) => Source::Mount(with_flags(clone, mount.flags).at(step)?),
                    None => return refuse(step(), "the plan mounts /dev/shm twice"),
                },
                MountKind::Detached { index } => {
                    match usize::try_from(*index).ok().and_then(|index| detached.get_mut(index)?.take()) {
                        Some(volume) => bind::finish(volume, mount.flags, &step)?,
                        None => return refuse(step(), "the plan names a descriptor that did not come, or was used"),
                    }
                }
                MountKind::Bind { source, propagation } => {
                    let bind = bind::Bind { source, propagation: *propagation, flags: mount.flags, idmap: mount.idmap };
                    env.as_host(|| bind.prepare(env, &|text: &str| reporter.warn(text)))?
                }
            };
            sources.push((mount, source));
        }
        Ok(Self(sources))
    }

    /// Attaches them inside of `root`.
    pub(crate) fn attach(self, root: &Root) -> Step<Attached> {
        let mut attached = Attached::default();
        for (plan, source) in self.0 {
            attach_one(root, plan, source, &mut attached)?;
        }
        Ok(attached)
    }
}

impl Sources<'_> {
    /// Attaches them at paths of the calling process's own mount namespace, in the order of the plan; each is made there as
    /// a directory or file. Only for what `MountPlan::ready_made` says.
    pub(crate) fn attach_at(self, paths: impl IntoIterator<Item = std::path::PathBuf>) -> Step<()> {
        for ((_, source), path) in self.0.into_iter().zip(paths) {
            let step = || format!("attach {path:?}");
            let mode = rustix::fs::Mode::from_raw_mode(0o700);
            let (mount, made) = match source {
                Source::Mount(mount) => (mount, rustix::fs::mkdir(&path, mode)),
                Source::File(mount) => {
                    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::EXCL | rustix::fs::OFlags::CLOEXEC;
                    (mount, rustix::fs::open(&path, flags, mode).map(drop))
                }
                Source::Dev(_) | Source::Cgroup(_) => return refuse(step(), "is no single mount"),
            };
            made.at(step)?;
            mount::attach_at(&mount, &path).at(step)?;
        }
        Ok(())
    }
}

impl Attached {
    /// The container's devpts, for its terminal.
    pub(crate) fn devpts(&self) -> Option<&OwnedFd> {
        self.dev.as_ref().map(dev::Dev::devpts)
    }

    /// Shows a terminal at /dev/console.
    pub(crate) fn attach_console(&self, slave: &OwnedFd) -> Step<()> {
        self.dev.as_ref().map_or(Ok(()), |dev| dev.attach_console(slave))
    }

    /// Makes read-only what was to be.
    pub(crate) fn seal(&self) -> Step<()> {
        self.readonly.iter().try_for_each(|mount| make_readonly(mount).at(|| "make mount read-only".to_owned()))
    }
}

fn attach_one(root: &Root, plan: &MountPlan, source: Source, attached: &mut Attached) -> Step<()> {
    let step = || format!("mount {:?}", plan.target);
    let target = target_of(root, plan, matches!(source, Source::File(_)))?;
    match source {
        Source::File(mount) => mount::attach(&mount, &target).at(step),
        Source::Mount(mount) => {
            let bound_proc = proc::is_proc(fstatfs(&mount).at(step)?.f_type);
            check_target(root, &target, plan, bound_proc)?;
            mount::attach(&mount, &target).at(step)?;
            if plan.flags.readonly && matches!(plan.kind, MountKind::Tmpfs { .. }) {
                attached.readonly.push(mount);
            }
            Ok(())
        }
        Source::Dev(dev) => {
            dev.attach(&target)?;
            if plan.flags.readonly {
                attached.readonly.push(dev.tmpfs().at(step)?);
            }
            attached.dev = Some(dev);
            Ok(())
        }
        Source::Cgroup(view) => view.attach(&target),
    }?;
    Ok(())
}

/// The place in the root, made if it is not there.
fn target_of(root: &Root, plan: &MountPlan, is_file: bool) -> Step<OwnedFd> {
    let step = || format!("mount {:?}", plan.target);
    if !plan.target.starts_with('/') || plan.target.contains('\0') {
        return refuse(step(), "the target is not an absolute path");
    }
    // What the kernel's own filesystems are mounted on has to be what it seems (CVE-2023-28642, CVE-2025-54867).
    let ours = !matches!(plan.kind, MountKind::Bind { .. } | MountKind::Detached { .. } | MountKind::Tmpfs { .. });
    let links = if ours { Links::Refuse } else { Links::Follow };
    let made = if is_file { root.make_file(&plan.target, links) } else { root.make_directories(&plan.target, links) };
    match made {
        Err(Errno::LOOP) if ours => refuse(step(), "must be an ordinary directory, not a symbolic link"),
        Err(Errno::NOTDIR) if ours => refuse(step(), "must be an ordinary directory"),
        other => {
            let target = other.at(step)?;
            if is_file {
                check_target(root, &target, plan, false)?;
            }
            Ok(target)
        }
    }
}

/// Nothing may hide the root, and nothing but another procfs may hide a part of procfs.
fn check_target(root: &Root, target: &OwnedFd, plan: &MountPlan, source_is_proc: bool) -> Step<()> {
    let step = || format!("mount {:?}", plan.target);
    if same(root, target).at(step)? {
        return refuse(step(), "the target is the container's root");
    }
    let on_proc = proc::is_proc(fstatfs(target).at(step)?.f_type);
    if on_proc && !source_is_proc && !PROC_TARGETS.contains(&plan.target.as_str()) {
        return refuse(step(), "the target is inside of /proc");
    }
    Ok(())
}

fn attributes(flags: MountFlags) -> Attributes {
    let mut attributes = Attributes::empty();
    attributes.set(Attributes::MOUNT_ATTR_RDONLY, flags.readonly);
    attributes.set(Attributes::MOUNT_ATTR_NOSUID, flags.nosuid);
    attributes.set(Attributes::MOUNT_ATTR_NODEV, flags.nodev);
    attributes.set(Attributes::MOUNT_ATTR_NOEXEC, flags.noexec);
    attributes
}

fn filesystem(kind: &str, options: &[(&str, &str)], flags: MountFlags) -> Result<OwnedFd, sys::Error> {
    let mut filesystem = Filesystem::open(kind)?;
    for (key, value) in options {
        filesystem = filesystem.set(key, *value)?;
    }
    filesystem.mount(attributes(flags))
}

/// The option that gives all files of a file system one SELinux label.
fn labelled(label: Option<&str>) -> Option<(&str, &str)> {
    label.map(|label| ("context", label))
}

/// Read-only comes later ([`Attached::seal`]), because mount points may have to be made in it.
fn tmpfs((size, mode): (Option<u64>, u32), flags: MountFlags, label: Option<&str>) -> Result<OwnedFd, sys::Error> {
    let mode = format!("{:o}", mode & 0o7777);
    let size = size.map(|size| size.to_string());
    let mut options = vec![("mode", mode.as_str())];
    options.extend(size.as_deref().map(|size| ("size", size)));
    options.extend(labelled(label));
    filesystem("tmpfs", &options, MountFlags { readonly: false, ..flags })
}

/// Sets flags on one mount; others that it has already stay.
fn with_flags(mount: OwnedFd, flags: MountFlags) -> Result<OwnedFd, Errno> {
    let set = attributes(flags);
    if !set.is_empty() {
        mount::change(&mount, Depth::Top, &Change { set, ..Change::default() })?;
    }
    Ok(mount)
}

/// R43: asked of the kernel again, because a mount that is said to be read-only and is not is worse than an error.
pub(crate) fn make_readonly(mount: impl AsFd) -> Result<(), Errno> {
    mount::change(&mount, Depth::Top, &Change { set: Attributes::MOUNT_ATTR_RDONLY, ..Change::default() })?;
    if mount::is_readonly(&mount)? { Ok(()) } else { Err(Errno::ROFS) }
}
