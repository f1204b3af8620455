//! Bind mounts of the host's files and directories, and how later mounts travel through them.

use std::os::fd::{AsFd, OwnedFd};

use model::{container::Propagation, plan::MountFlags, pod::UserNamespace};
use rustix::fs::FileType;
use sys::{
    Errno,
    mount::{self, Attributes, Change, Depth},
    proc::Proc,
};

use super::Source;
use crate::{
    PodEnv,
    error::{At, Step, refuse},
};

/// A bind of the plan's.
#[derive(Debug)]
pub(super) struct Bind<'p> {
    pub(super) source: &'p str,
    pub(super) propagation: Propagation,
    pub(super) flags: MountFlags,
    pub(super) idmap: Option<UserNamespace>,
}

impl Bind<'_> {
    /// A detached copy of the source and everything below it. It is taken while the calling process's mounts are still peers
    /// of the host's, so that it is a peer too and mounts can travel.
    pub(super) fn prepare(&self, env: &PodEnv, warn: &dyn Fn(&str)) -> Step<Source> {
        let step = || format!("bind {:?}", self.source);
        let clone = mount::clone_path(self.source, Depth::Recursive).at(step)?;
        if self.propagation != Propagation::Private {
            check_peers(self.source, &clone, self.propagation, warn, &env.proc)?;
        }
        let mode = match self.propagation {
            Propagation::Private => mount::Propagation::PRIVATE,
            Propagation::HostToContainer => mount::Propagation::DOWNSTREAM,
            Propagation::Bidirectional => mount::Propagation::SHARED,
        };
        let mut all = Change { propagation: Some(mode), ..Change::default() };
        if self.flags.readonly && self.flags.recursive {
            all.set = Attributes::MOUNT_ATTR_RDONLY;
        }
        mount::change(&clone, Depth::Recursive, &all).at(step)?;
        if let Some(map) = self.idmap {
            self.show_owners(&clone, map, env, warn)?;
        }
        finish(clone, self.flags, &step)
    }

    /// The source itself must be shown by the mapping. Of what is mounted below it some may not have the means for it (/proc
    /// below a bind of the host's root), and then shows as belonging to nobody.
    fn show_owners(&self, clone: &OwnedFd, map: UserNamespace, env: &PodEnv, warn: &dyn Fn(&str)) -> Step<()> {
        let step = || format!("bind {:?}", self.source);
        let Some(userns) = env.userns.as_ref().filter(|userns| userns.map() == map) else {
            return refuse(step(), "its owners are to be shown by a mapping that is not the pod's");
        };
        if mount::idmap(clone, Depth::Recursive, userns).is_ok() {
            return Ok(());
        }
        match mount::idmap(clone, Depth::Top, userns) {
            Ok(()) => {
                warn(&format!("mounts below {:?} cannot show owners by a mapping: they belong to nobody in it", self.source));
                Ok(())
            }
            Err(Errno::INVAL) => refuse(step(), "its file system cannot show owners by a mapping (idmapped mounts)"),
            Err(Errno::PERM) => refuse(step(), "it is a mount that shows owners by another mapping already"),
            Err(errno) => Err(errno).at(step),
        }
    }
}

/// A detached mount of a file or directory, with its flags.
pub(super) fn finish(mount: OwnedFd, flags: MountFlags, step: &dyn Fn() -> String) -> Step<Source> {
    let mount = super::with_flags(mount, flags).at(step)?;
    if flags.readonly && !mount::is_readonly(&mount).at(step)? {
        return refuse(step(), "the mount is not read-only although it was made so");
    }
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&mount).at(step)?.st_mode);
    Ok(if kind.is_dir() { Source::Mount(mount) } else { Source::File(mount) })
}

/// The host's /sys with what is mounted below it.
pub(super) fn host_sysfs(flags: MountFlags) -> Result<OwnedFd, Errno> {
    let clone = mount::clone_path(c"/sys", Depth::Recursive)?;
    let private = Change { propagation: Some(mount::Propagation::PRIVATE), ..Change::default() };
    mount::change(&clone, Depth::Recursive, &private)?;
    super::with_flags(clone, flags)
}

/// Mounts can travel only if the mount that the source lies on has peers (mount_namespaces(7)).
fn check_peers(source: &str, clone: &OwnedFd, propagation: Propagation, warn: &dyn Fn(&str), proc: &Proc) -> Step<()> {
    let step = || format!("bind {source:?}");
    let original = rustix::fs::openat(
        rustix::fs::CWD,
        source,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    let id = mount::mount_id(original.at(step)?.as_fd()).or_else(|_| mount::mount_id(clone.as_fd())).at(step)?;
    let table = proc.read("self/mountinfo").at(step)?;
    let Some((place, peers)) = find(&table, id) else { return refuse(step(), "its mount is not in /proc/self/mountinfo") };
    let (shared, slave) = (peers.contains("shared:"), peers.contains("master:"));
    match propagation {
        Propagation::Bidirectional if !shared => {
            refuse(step(), format!("path {source:?} is mounted on {place:?} but it is not a shared mount"))
        }
        Propagation::HostToContainer if !shared && !slave => {
            let state = "it is not a shared or slave mount";
            warn(&format!("path {source:?} is mounted on {place:?} but {state}: later mounts of the host will not appear"));
            Ok(())
        }
        Propagation::Private | Propagation::HostToContainer | Propagation::Bidirectional => Ok(()),
    }
}

/// Mount point and optional fields of a mount by id.
fn find(table: &str, id: u64) -> Option<(&str, &str)> {
    let id = id.to_string();
    let line = table.lines().find(|line| line.split(' ').next() == Some(&id))?;
    let fields = line.split_once(" - ")?.0;
    let place = fields.split(' ').nth(4)?;
    let optional = fields.match_indices(' ').nth(5).map_or("", |(at, _)| &fields[at..]);
    Some((place, optional))
}

#[cfg(test)]
mod tests {
    #[test]
    fn peers_are_read_from_the_right_line() {
        let table = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n127 27 0:9 / /mnt rw shared:4 master:2 - tmpfs tmpfs rw\n";
        assert_eq!(super::find(table, 27), Some(("/", "")));
        assert_eq!(super::find(table, 127), Some(("/mnt", " shared:4 master:2")));
        assert_eq!(super::find(table, 7), None);
    }
}
