//! Hidden and read-only paths of procfs and sysfs. The masks come from a tmpfs of ours, never from the container's /dev
//! (CVE-2025-31133), and each path is looked up once (R05, R08).

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, fstat, mkdirat, openat};
use sys::{
    Errno,
    mount::{self, Attributes, Change, Depth, Filesystem},
    path::{Links, Root},
};

use super::dev::make_null;
use crate::error::{At, Step};

/// What paths are hidden under: a null device for files, an empty directory for directories.
#[derive(Debug)]
pub(crate) struct Masks {
    null: OwnedFd,
    empty: OwnedFd,
}

impl Masks {
    /// Makes both in a tmpfs that is attached below the calling process's root, where it vanishes with pivot_root: before
    /// Linux 6.15 a detached mount cannot be cloned. Not on the root itself, because [`mount::pivot_to_cwd`] takes the
    /// topmost mount away.
    pub(crate) fn new() -> Step<Self> {
        let step = || "make masks".to_owned();
        let tmpfs =
            Filesystem::open("tmpfs").and_then(|tmpfs| tmpfs.set("mode", "755")?.mount(Attributes::MOUNT_ATTR_NOSUID)).at(step)?;
        let null = make_null(&tmpfs).at(step)?;
        mkdirat(&tmpfs, "empty", Mode::from_raw_mode(0o555)).at(step)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let empty = openat(&tmpfs, "empty", flags, Mode::empty()).at(step)?;
        mount::attach_at(&tmpfs, c"/proc").at(step)?;
        super::make_readonly(&tmpfs).at(step)?;
        Ok(Self { null, empty })
    }

    /// Hides paths of the root; those that are not there need no hiding.
    pub(crate) fn hide(&self, root: &Root, paths: &[String]) -> Step<()> {
        for path in paths {
            let step = || format!("mask {path:?}");
            let Some(target) = find(root, path).at(step)? else { continue };
            let directory = FileType::from_raw_mode(fstat(&target).at(step)?.st_mode).is_dir();
            let mask = mount::clone_fd(if directory { &self.empty } else { &self.null }, Depth::Top).at(step)?;
            let mut set = Attributes::MOUNT_ATTR_RDONLY | Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NOEXEC;
            set.set(Attributes::MOUNT_ATTR_NODEV, directory);
            mount::change(&mask, Depth::Top, &Change { set, ..Change::default() }).at(step)?;
            mount::attach(&mask, &target).at(step)?;
        }
        Ok(())
    }
}

/// Makes paths of the root read-only with all mounts below them; those that are not there need not be.
pub(crate) fn protect(root: &Root, paths: &[String]) -> Step<()> {
    for path in paths {
        let step = || format!("make {path:?} read-only");
        let Some(target) = find(root, path).at(step)? else { continue };
        let clone = mount::clone_fd(&target, Depth::Recursive).at(step)?;
        let set = Attributes::MOUNT_ATTR_RDONLY;
        mount::change(&clone, Depth::Recursive, &Change { set, ..Change::default() }).at(step)?;
        mount::attach(&clone, &target).at(step)?;
    }
    Ok(())
}

fn find(root: &Root, path: &str) -> Result<Option<OwnedFd>, Errno> {
    match root.resolve(path, Links::Follow) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        other => other.map(Some),
    }
}
