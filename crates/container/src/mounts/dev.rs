//! /dev: a tmpfs of our own with the standard nodes, finished before anything of the image can see it (CVE-2026-41579).

use std::os::fd::OwnedFd;

use model::plan::{ContainerPlan, DeviceNode, MountFlags, MountPlan};
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, fstat, makedev, mkdirat, mknodat, openat, symlinkat};
use sys::{
    Errno,
    mount::{self, Depth},
    path::{Links, Root},
};

use super::{filesystem, labelled};
use crate::{
    PodEnv,
    error::{At, Step, refuse},
};

/// Name, major, minor.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Link, target (OCI runtime spec, runtime-linux.md#dev-symbolic-links).
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];
/// Group "tty", the same number in every distribution.
const TTY_GROUP: u32 = 5;

/// The two filesystems.
#[derive(Debug)]
pub(super) struct Dev {
    tmpfs: OwnedFd,
    devpts: OwnedFd,
}

impl Dev {
    /// Makes them with all nodes. Before the process joins the container's cgroup, whose device rules may allow to use a
    /// device but not to make it.
    pub(super) fn build(env: &PodEnv, plan: &ContainerPlan, mount: &MountPlan) -> Step<Self> {
        let step = || format!("make {:?}", mount.target);
        // Nodes have to work, and mount points have to be made in it, whatever the plan's flags say.
        let flags = MountFlags { nodev: false, readonly: false, ..mount.flags };
        let mut options = vec![("mode", "755"), ("size", "65536k")];
        options.extend(labelled(plan.mount_label.as_deref()));
        let tmpfs = filesystem("tmpfs", &options, flags).at(step)?;
        for (name, major, minor) in NODES {
            make_node(&tmpfs, name, FileType::CharacterDevice, (major, minor, 0o666)).at(step)?;
        }
        for (name, target) in LINKS {
            symlinkat(target, &tmpfs, name).at(step)?;
        }
        mkdirat(&tmpfs, "pts", Mode::from_raw_mode(0o755)).at(step)?;
        let below = Root::from(tmpfs.try_clone().map_err(|_| Errno::MFILE).at(step)?);
        let prefix = format!("{}/", mount.target.trim_end_matches('/'));
        for device in &plan.devices {
            if let Some(path) = device.path.strip_prefix(&prefix) {
                make_device(&below, &format!("/{path}"), device)?;
            }
        }
        Ok(Self { tmpfs, devpts: devpts(env, plan.mount_label.as_deref())? })
    }

    pub(super) fn attach(&self, target: &OwnedFd) -> Step<()> {
        mount::attach(&self.tmpfs, target).at(|| "mount /dev".to_owned())?;
        let pts = openat(&self.tmpfs, "pts", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        mount::attach(&self.devpts, pts.at(|| "open /dev/pts".to_owned())?).at(|| "mount /dev/pts".to_owned())
    }

    pub(super) fn devpts(&self) -> &OwnedFd {
        &self.devpts
    }

    pub(super) fn tmpfs(&self) -> Result<OwnedFd, Errno> {
        self.tmpfs.try_clone().map_err(|_| Errno::MFILE)
    }

    /// A bind of the terminal itself, by descriptor.
    pub(super) fn attach_console(&self, slave: &OwnedFd) -> Step<()> {
        let step = || "mount /dev/console".to_owned();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = match openat(&self.tmpfs, "console", flags, Mode::from_raw_mode(0o600)) {
            // The plan has put something else there.
            Err(Errno::EXIST) => return Ok(()),
            other => other.at(step)?,
        };
        let terminal = mount::clone_fd(slave, Depth::Top).at(step)?;
        mount::attach(&terminal, &place).at(step)
    }
}

fn devpts(env: &PodEnv, label: Option<&str>) -> Step<OwnedFd> {
    let step = || "make /dev/pts".to_owned();
    let group = env.userns.as_ref().map_or(Ok(TTY_GROUP), |userns| userns.gid(TTY_GROUP))?.to_string();
    let mut options = vec![("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", group.as_str())];
    options.extend(labelled(label));
    let mut devpts = mount::Filesystem::open("devpts").at(step)?;
    for (key, value) in options {
        devpts = if value.is_empty() { devpts.flag(key) } else { devpts.set(key, value) }.at(step)?;
    }
    let attributes = mount::Attributes::MOUNT_ATTR_NOSUID | mount::Attributes::MOUNT_ATTR_NOEXEC;
    let devpts = devpts.mount(attributes).at(step)?;
    if let Some(userns) = &env.userns {
        // It goes by the user namespace of the process that mounts it, not by that process's ids for files.
        let (uid, gid) = userns.root();
        for name in ["", "ptmx"] {
            let flags = rustix::fs::AtFlags::EMPTY_PATH | rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            chownat(&devpts, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags).at(step)?;
        }
    }
    Ok(devpts)
}

/// Devices of the plan that are not below a /dev of ours, made in the root itself.
pub(crate) fn make_nodes_outside_dev(root: &Root, plan: &ContainerPlan) -> Step<()> {
    let mut devs = plan.mounts.iter().filter(|mount| matches!(mount.kind, model::plan::MountKind::Dev));
    let dev = devs.next().map(|mount| format!("{}/", mount.target.trim_end_matches('/')));
    let outside = plan.devices.iter().filter(|device| !dev.as_ref().is_some_and(|dev| device.path.starts_with(dev)));
    outside.into_iter().try_for_each(|device| make_device(root, &device.path, device))
}

fn make_device(root: &Root, path: &str, device: &DeviceNode) -> Step<()> {
    let step = || format!("make device {:?}", device.path);
    let kind = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let (parent, name) = root.make_parent(path, Links::Refuse).at(step)?;
    match make_node(&parent, name, kind, (device.major, device.minor, device.mode & 0o777)) {
        Err(Errno::EXIST) => return check_node(&parent, name, kind, device),
        other => other.at(step)?,
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    chownat(&parent, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW).at(step)
}

/// A node that is there already is fine if it is the same device.
fn check_node(parent: &OwnedFd, name: &str, kind: FileType, device: &DeviceNode) -> Step<()> {
    let step = || format!("make device {:?}", device.path);
    let there = openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).at(step)?;
    let stat = fstat(&there).at(step)?;
    let same = FileType::from_raw_mode(stat.st_mode) == kind && stat.st_rdev == makedev(device.major, device.minor);
    if same { Ok(()) } else { refuse(step(), "something else is there") }
}

/// The mode is set apart, because mknod(2) takes the umask off it.
fn make_node(parent: &OwnedFd, name: &str, kind: FileType, (major, minor, mode): (u32, u32, u32)) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(mode);
    mknodat(parent, name, kind, mode, makedev(major, minor))?;
    // Not a link: mknod(2) has just made it, in a directory that nobody else can write yet, or fails with EEXIST.
    chmodat(parent, name, mode, rustix::fs::AtFlags::empty())
}

/// A character device 1:3 in `parent`, checked (R05).
pub(super) fn make_null(parent: &OwnedFd) -> Result<OwnedFd, Errno> {
    make_node(parent, "null", FileType::CharacterDevice, (1, 3, 0o666))?;
    let null = openat(parent, "null", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&null)?;
    let right = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3);
    if right { Ok(null) } else { Err(Errno::NODEV) }
}
