//! What is mounted where: the standard mounts, the pod's files, the client's binds, the image's volumes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use model::{
    container::{BindMount, ContainerSpec, ImageVolume, Propagation},
    plan::{MountFlags, MountKind, MountPlan},
    pod::{NamespaceMode, PodSpec},
    user::UserMount,
};

use super::{
    error::{Error, cut},
    files, mountinfo, path,
};

/// Files of /proc that may be replaced by a mount: what lxcfs provides, and nothing that anybody acts on.
const PROC_FILES: [&str; 8] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
];
const MAX_MOUNTS: usize = 4096;
const BAD_PATH: &str = "must be an absolute path of less than 4096 bytes without control characters";

/// A directory of the host that an image's VOLUME gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// On the host; made, and filled from the image, by `volumes::prepare`.
    pub source: PathBuf,
    /// In the container; clean.
    pub target: String,
}

/// Everything about mounts in a container's plan.
#[derive(Debug)]
pub(crate) struct Mounts {
    pub(crate) list: Vec<MountPlan>,
    pub(crate) root_propagation: Propagation,
    pub(crate) volumes: Vec<Volume>,
    /// /dev is the client's: no node may be made in it.
    pub(crate) foreign_dev: bool,
}

/// Where things come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) pod: &'a PodSpec,
    /// Holds hosts, hostname and resolv.conf.
    pub(crate) pod_dir: &'a Path,
    /// Where this container's volumes go.
    pub(crate) volumes: &'a Path,
}

/// All mounts, parents before children.
///
/// # Errors
/// Names the mount and what is wrong with it.
pub(crate) fn plan(
    spec: &ContainerSpec,
    image_volumes: &[String],
    devices: Vec<MountPlan>,
    sources: Sources<'_>,
) -> Result<Mounts, Error> {
    if spec.mounts.len() + spec.image_volumes.len() + image_volumes.len() > MAX_MOUNTS {
        return Err(Error::Mount { target: "/".into(), why: "more than 4096 mounts are asked for" });
    }
    let mut binds = Vec::new();
    for mount in &spec.mounts {
        binds.push(bind(mount, spec.security.privileged, sources.pod)?);
    }
    for (index, volume) in (0..).zip(&spec.image_volumes) {
        binds.push(image_volume(index, volume)?);
    }
    for mount in spec.own.as_ref().map_or(&[][..], |own| &own.tmpfs) {
        binds.push(memory(mount)?);
    }
    binds.extend(devices);
    let mut targets = std::collections::HashSet::new();
    if let Some(twice) = binds.iter().find(|mount| !targets.insert(mount.target.as_str())) {
        return Err(Error::Mount { target: cut(&twice.target), why: "is asked for twice" });
    }
    let volumes = volumes(image_volumes, &targets, sources.volumes)?;
    let foreign_dev = targets.contains("/dev");
    let mut list = standard(spec, sources.pod);
    list.extend(pod_files(spec, sources)?);
    let replaced = |target: &str| targets.contains(target) || (foreign_dev && path::within(target, "/dev"));
    list.retain(|mount| !replaced(&mount.target));
    for volume in &volumes {
        list.push(plain_bind(text(&volume.source)?, &volume.target, MountFlags { nodev: true, ..Default::default() }));
    }
    list.extend(binds);
    // Stable, so mounts of one depth stay in the order in which they were asked for.
    list.sort_by_key(|mount| mount.target.matches('/').count());
    let root_propagation = spec.mounts.iter().map(|mount| mount.propagation).fold(Propagation::Private, further);
    Ok(Mounts { list, root_propagation, volumes, foreign_dev })
}

/// What the root needs for two mounts, of which one needs this and one that.
pub(crate) fn further(one: Propagation, other: Propagation) -> Propagation {
    match (one, other) {
        (Propagation::Bidirectional, _) | (_, Propagation::Bidirectional) => Propagation::Bidirectional,
        (Propagation::HostToContainer, _) | (_, Propagation::HostToContainer) => Propagation::HostToContainer,
        (Propagation::Private, Propagation::Private) => Propagation::Private,
    }
}

fn plain_bind(source: String, target: &str, flags: MountFlags) -> MountPlan {
    MountPlan { target: target.to_owned(), kind: MountKind::Bind { source, propagation: Propagation::Private }, flags, idmap: None }
}

/// What every container has. Privileged ones may write to /sys and the cgroups.
fn standard(spec: &ContainerSpec, pod: &PodSpec) -> Vec<MountPlan> {
    let privileged = spec.security.privileged;
    let closed = MountFlags { nosuid: true, nodev: true, noexec: true, ..Default::default() };
    let system = MountFlags { readonly: !privileged, ..closed };
    let sysfs = if privileged && pod.namespaces.network == NamespaceMode::Node && pod.userns.is_none() {
        MountKind::HostSysfs
    } else {
        MountKind::Sysfs
    };
    [
        ("/proc", MountKind::Proc, closed),
        ("/dev", MountKind::Dev, MountFlags { nosuid: true, ..Default::default() }),
        ("/sys", sysfs, system),
        ("/dev/mqueue", MountKind::Mqueue, closed),
        ("/dev/shm", MountKind::Shm, closed),
        ("/sys/fs/cgroup", MountKind::Cgroup, system),
    ]
    .into_iter()
    .map(|(target, kind, flags)| MountPlan { target: target.to_owned(), kind, flags, idmap: None })
    .collect()
}

/// They are the root's of the pod's user namespace, as they are the root's where there is none.
fn pod_files(spec: &ContainerSpec, sources: Sources<'_>) -> Result<Vec<MountPlan>, Error> {
    let flags = MountFlags { readonly: spec.security.readonly_rootfs, nosuid: true, nodev: true, noexec: true, recursive: false };
    let file = |name: &str| {
        let plain = plain_bind(text(&sources.pod_dir.join(name))?, &format!("/etc/{name}"), flags);
        Ok(MountPlan { idmap: sources.pod.userns, ..plain })
    };
    [files::HOSTS, files::HOSTNAME, files::RESOLV_CONF].into_iter().map(file).collect()
}

/// A path that may be mounted on.
///
/// # Errors
/// The root; /proc and what is in it but a few harmless files: whoever could put a file there would decide where the
/// executor's own writes to /proc go (CVE-2019-16884, CVE-2025-52881).
pub(crate) fn check_target(target: &str) -> Result<(), Error> {
    let refuse = |why| Err(Error::Mount { target: cut(target), why });
    if target == "/" {
        return refuse("the root itself cannot be mounted on");
    }
    if path::within(target, "/proc") && !PROC_FILES.contains(&target) {
        return refuse("nothing may be mounted on /proc");
    }
    Ok(())
}

/// A fresh file system of memory.
///
/// # Errors
/// A place where nothing may be mounted.
pub(crate) fn tmpfs(path: &str, size: Option<u64>, mode: u32) -> Result<MountPlan, Error> {
    let target = path::clean(path).ok_or_else(|| Error::Mount { target: cut(path), why: BAD_PATH })?;
    check_target(&target)?;
    let flags = MountFlags { nosuid: true, nodev: true, ..Default::default() };
    Ok(MountPlan { target, kind: MountKind::Tmpfs { size, mode }, flags, idmap: None })
}

/// A file system of memory that a person asks for, with the flags that docker gives it.
fn memory(mount: &UserMount) -> Result<MountPlan, Error> {
    let mut plan = tmpfs(&mount.target, mount.tmpfs_size, mount.tmpfs_mode.unwrap_or(0o1777))?;
    let last = |on: &str, off: &str| mount.options.iter().rev().find(|option| *option == on || *option == off).map(|o| o == on);
    plan.flags = MountFlags {
        readonly: mount.read_only,
        recursive: false,
        nosuid: last("nosuid", "suid").unwrap_or(true),
        nodev: last("nodev", "dev").unwrap_or(true),
        noexec: last("noexec", "exec").unwrap_or(true),
    };
    Ok(plan)
}

/// A bind mount, as a client or a plugin asks for it.
///
/// # Errors
/// Names the mount and what is wrong with it.
pub(crate) fn bind(mount: &BindMount, privileged: bool, pod: &PodSpec) -> Result<MountPlan, Error> {
    let refuse = |why| Error::Mount { target: cut(&mount.container_path), why };
    let target = path::clean(&mount.container_path).ok_or_else(|| refuse(BAD_PATH))?;
    check_target(&target)?;
    if mount.recursive_read_only {
        let refuse = |why| Err(Error::RecursiveReadOnly { target: cut(&target), why });
        if !mount.readonly {
            return refuse("recursive_read_only needs readonly");
        }
        if mount.propagation != Propagation::Private {
            return refuse("recursive_read_only needs private propagation");
        }
    }
    let source = host_source(&mount.host_path).map_err(|source| match source {
        Some(source) => Error::HostPath { operation: "find mount source", path: mount.host_path.clone().into(), source },
        None => refuse("its path on the host must be absolute, of less than 4096 bytes, without control characters"),
    })?;
    check_propagation(&source, mount.propagation).map_err(|error| error.unwrap_or_else(|| refuse(NOT_SHARED)))?;
    if pod.userns.is_some() && mount.propagation == Propagation::Bidirectional {
        return Err(refuse("mounts cannot travel to the host out of a user namespace of the pod's own"));
    }
    if mount.idmap.is_some() && mount.idmap != pod.userns {
        return Err(refuse("its owners can be shown by the mapping of the pod's user namespace only"));
    }
    let wants = |option: &str| mount.mount_options.iter().any(|wanted| wanted == option);
    let flags = MountFlags {
        readonly: mount.readonly,
        recursive: mount.recursive_read_only,
        nosuid: wants("nosuid"),
        // Devices come by `devices`, whose cgroup rules they need anyway; privileged containers see the host's (R21).
        nodev: !privileged || wants("nodev"),
        noexec: wants("noexec"),
    };
    let kind = MountKind::Bind { source: text(&source)?, propagation: mount.propagation };
    Ok(MountPlan { target, kind, flags, idmap: mount.idmap })
}

/// Programs in it may run, and those of others with set-user-id too, as those in the container's own image may.
fn image_volume(index: u32, volume: &ImageVolume) -> Result<MountPlan, Error> {
    let given = &volume.container_path;
    let target = path::clean(given).ok_or_else(|| Error::Mount { target: cut(given), why: BAD_PATH })?;
    check_target(&target)?;
    let wants = |option: &str| volume.mount_options.iter().any(|wanted| wanted == option);
    let flags = MountFlags { readonly: true, recursive: false, nosuid: wants("nosuid"), nodev: true, noexec: wants("noexec") };
    Ok(MountPlan { target, kind: MountKind::Detached { index }, flags, idmap: None })
}

const NOT_SHARED: &str = "mounts cannot travel: the host's mount under it is not shared (mount --make-rshared)";

/// The source with its links resolved; made as a directory if it is not there, as the field does. `None`: not a path.
fn host_source(given: &str) -> Result<PathBuf, Option<io::Error>> {
    let clean = path::clean(given).ok_or(None)?;
    match fs::canonicalize(&clean) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(&clean)?;
            Ok(fs::canonicalize(&clean)?)
        }
        other => Ok(other?),
    }
}

/// `Err(None)`: mounts do not travel there.
fn check_propagation(source: &Path, propagation: Propagation) -> Result<(), Option<Error>> {
    if propagation == Propagation::Private {
        return Ok(());
    }
    let failed = |source| Error::HostPath { operation: "read", path: "/proc/self/mountinfo".into(), source };
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
    if mountinfo::peers(&mountinfo, source).allow(propagation) { Ok(()) } else { Err(None) }
}

/// The image's VOLUMEs, but those that the client mounts over. They are class 2: a path that could hide the engine's own
/// mounts is passed over (images that run systemd declare /sys/fs/cgroup), one that is no path is refused.
fn volumes(given: &[String], targets: &std::collections::HashSet<&str>, directory: &Path) -> Result<Vec<Volume>, Error> {
    let mut volumes: Vec<Volume> = Vec::new();
    for volume in given {
        let refuse = |why| Error::Mount { target: cut(volume), why };
        let target = path::clean(volume).ok_or_else(|| refuse("as a VOLUME of the image, must be an absolute path"))?;
        if target == "/" {
            return Err(refuse("a VOLUME of the image cannot be its root"));
        }
        let ours = ["/proc", "/sys", "/dev"].iter().any(|top| path::within(&target, top));
        if ours || targets.contains(target.as_str()) || volumes.iter().any(|known| known.target == target) {
            continue;
        }
        volumes.push(Volume { source: directory.join(volumes.len().to_string()), target });
    }
    Ok(volumes)
}

fn text(path: &Path) -> Result<String, Error> {
    let refuse = || Error::Mount { target: cut(&path.to_string_lossy()), why: "its path on the host is not UTF-8" };
    path.to_str().map(str::to_owned).ok_or_else(refuse)
}

/// Masked or read-only paths exactly as the client gave them; empty means none and not "the defaults".
pub(crate) fn protected(list: &'static str, given: &[String]) -> Result<Vec<String>, Error> {
    let refuse = |path: &String| Error::ProtectedPath { list, path: cut(path) };
    given.iter().map(|path| path::clean(path).filter(|_| !path::climbs(path)).ok_or_else(|| refuse(path))).collect()
}

#[cfg(test)]
mod tests;
