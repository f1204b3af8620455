//! Control groups v1 and v2 behind one type. A group is a path below every hierarchy's root; nothing outside that path is
//! changed, but for `cgroup.subtree_control` of its ancestors on v2.

mod apply;
mod block_io;
mod detail;
mod device_program;
mod devices;
mod files;
mod freeze;
mod hierarchy;
mod kill;
mod stats;
mod track;

use std::{io::ErrorKind as Io, path::PathBuf};

use rustix::io::Errno;

pub use apply::Refused;
pub use detail::{Detail, DeviceIo, Hugepages};
pub use devices::{Access, DeviceKind, DeviceRule};
pub use files::Join;
pub use freeze::Freezer;
pub use hierarchy::{Hierarchies, Version};
pub use stats::{Pressure, Psi, Stats};
pub use track::Track;

use self::hierarchy::Hierarchy;
use crate::{Context, Error, path::is_normal};

/// One group, which need not exist.
#[derive(Clone, Debug)]
pub struct Group {
    all: Hierarchies,
    path: String,
}

impl Group {
    /// The group at `path` below the root of every hierarchy, e.g. `/kubepods/podX/creel-ab12`.
    ///
    /// # Errors
    /// Invalid: not an absolute path in normal form, or the root itself.
    pub fn new(all: &Hierarchies, path: &str) -> Result<Self, Error> {
        let why = match path {
            "/" => "the root is not ours",
            path if !is_normal(path) => "must be absolute, without empty, \".\" or \"..\" parts",
            path if path.len() > 2000 => "too long",
            path if path.contains('\n') => "has a line break",
            _ => return Ok(Self { all: all.clone(), path: path.to_owned() }),
        };
        Err(Error::Invalid { what: "cgroup path", value: path.chars().take(200).collect(), why })
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Makes the group and what is missing above it. Where it exists already, that is fine.
    ///
    /// # Errors
    /// mkdir(2); half of the hierarchies may then have it ([`Self::remove`]).
    pub fn create(&self) -> Result<(), Error> {
        for hierarchy in self.all.iter() {
            match hierarchy {
                Hierarchy::V1 { .. } => self.create_v1(hierarchy)?,
                Hierarchy::V2 { .. } => self.create_v2(hierarchy)?,
            }
        }
        Ok(())
    }

    /// Makes the group below one that has processes, and moves a process of that into it. Nothing is handed down before: a
    /// group with processes can give only those controllers that threads may have, and by that becomes a threaded domain,
    /// whose children take no processes (cgroups(7), "No internal processes"). [`Self::create`] does the rest.
    ///
    /// # Errors
    /// mkdir(2), write(2).
    pub fn adopt(&self, pid: u32) -> Result<(), Error> {
        self.all.iter().try_for_each(|hierarchy| {
            let group = hierarchy.at(&self.path);
            files::make(&group)?;
            files::write(&group.join("cgroup.procs"), &pid.to_string())
        })
    }

    /// The leaf first: nearly always only that is missing.
    fn create_v1(&self, hierarchy: &Hierarchy) -> Result<(), Error> {
        let leaf = hierarchy.at(&self.path);
        match files::make(&leaf) {
            Err(error) if error.errno() == Some(Errno::NOENT) => {
                self.lineage().try_for_each(|level| files::make(&hierarchy.at(level)).map(|_| ()))?;
            }
            other => {
                other?;
            }
        }
        if hierarchy.has("cpuset") { inherit_cpuset(&leaf) } else { Ok(()) }
    }

    /// A controller is there for a group if all groups above it hand it down (cgroups(7)). Those that one of them lacks
    /// are left out; using them says so later.
    fn create_v2(&self, hierarchy: &Hierarchy) -> Result<(), Error> {
        let mut above = hierarchy.at("/");
        for level in self.lineage() {
            enable_controllers(&above)?;
            above = hierarchy.at(level);
            files::make(&above)?;
        }
        Ok(())
    }

    /// `/a`, `/a/b`, `/a/b/c` of `/a/b/c`.
    fn lineage(&self) -> impl Iterator<Item = &str> {
        self.path.match_indices('/').skip(1).map(|(end, _)| end).chain([self.path.len()]).map(|end| &self.path[..end])
    }

    /// Whether it is there in every hierarchy.
    pub fn exists(&self) -> bool {
        self.all.iter().all(|hierarchy| hierarchy.at(&self.path).is_dir())
    }

    /// Opens what a process writes to in order to join; done before fork, so that the child only writes.
    ///
    /// # Errors
    /// NotFound: the group is not there.
    pub fn open_join(&self) -> Result<Join, Error> {
        let files = self.all.iter().map(|hierarchy| files::open_join(hierarchy, &self.path));
        files.collect::<Result<_, _>>().map(Join)
    }

    /// Removes the group and everything below it in every hierarchy; not there is fine. No process may be in it.
    ///
    /// # Errors
    /// EBUSY after a second: a process is in it.
    pub fn remove(&self) -> Result<(), Error> {
        let mut failed = None;
        for hierarchy in self.all.iter() {
            // Going on with the others leaves as little behind as possible.
            if let Err(error) = files::remove(&hierarchy.at(&self.path)) {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The directory in the hierarchy that has a controller.
    fn directory(&self, controller: &str) -> Option<PathBuf> {
        self.all.with(controller).map(|hierarchy| hierarchy.at(&self.path))
    }
}

/// A new cpuset of v1 has no CPUs, and no process can join it until it has: ENOSPC (cpuset(7)). The groups above may be just
/// as new, made by somebody else this moment; only the root always has some.
fn inherit_cpuset(group: &std::path::Path) -> Result<(), Error> {
    let Some(parent) = group.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if !files::read(&group.join(file))?.trim().is_empty() {
            continue;
        }
        let mut above = files::read(&parent.join(file))?;
        if above.trim().is_empty() {
            inherit_cpuset(parent)?;
            above = files::read(&parent.join(file))?;
        }
        files::write(&group.join(file), above.trim())?;
    }
    Ok(())
}

fn enable_controllers(group: &std::path::Path) -> Result<(), Error> {
    let enabled = files::read(&group.join("cgroup.subtree_control"))?;
    let enabled: Vec<&str> = enabled.split_ascii_whitespace().collect();
    let available = files::read(&group.join("cgroup.controllers"))?;
    for controller in available.split_ascii_whitespace().filter(|name| !enabled.contains(name)) {
        let file = group.join("cgroup.subtree_control");
        match std::fs::write(&file, format!("+{controller}")) {
            Ok(()) => {}
            // The kernel cannot hand this one down here; that is for the one who uses it to say.
            Err(error) if error.kind() != Io::NotFound && error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {}
            Err(error) => return Err(error).during(|| format!("write({file:?}, \"+{controller}\")")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
