//! A cheap sub-group that only tells processes apart: an exec and all its children can be killed together for the price
//! of one mkdir.

use std::time::Duration;

use super::{Group, Join, files, hierarchy::Hierarchy, kill};
use crate::{Errno, Error, process::Pid};

/// A sub-group of a group: on v1 in one hierarchy only (in the others its processes are in the group itself), on v2 a
/// child without controllers of its own.
#[derive(Clone, Debug)]
pub struct Track {
    parent: Group,
    path: String,
}

impl Track {
    /// The sub-group `name` of a group.
    ///
    /// # Errors
    /// Invalid: not a file name.
    pub fn new(parent: &Group, name: &str) -> Result<Self, Error> {
        if name.contains('/') {
            return Err(Error::Invalid { what: "cgroup name", value: name.to_owned(), why: "has a slash" });
        }
        let own = Group::new(&parent.all, &format!("{}/{name}", parent.path))?;
        Ok(Self { parent: parent.clone(), path: own.path })
    }

    /// The same by the whole path, as [`Self::path`] says it.
    ///
    /// # Errors
    /// Invalid: as [`Group::new`] says of the path and of the one above it.
    pub fn at(all: &super::Hierarchies, path: &str) -> Result<Self, Error> {
        let (parent, name) = path.rsplit_once('/').unwrap_or((path, ""));
        Self::new(&Group::new(all, parent)?, name)
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn hierarchy(&self) -> Result<&Hierarchy, Error> {
        self.parent.all.for_tracking().ok_or_else(|| Error::Missing("cgroup hierarchy".to_owned()))
    }

    /// Makes it below the existing group.
    ///
    /// # Errors
    /// mkdir(2).
    pub fn create(&self) -> Result<(), Error> {
        files::make(&self.hierarchy()?.at(&self.path)).map(|_| ())
    }

    /// As [`Group::open_join`]: the sub-group, and in all other hierarchies the group.
    ///
    /// # Errors
    /// NotFound: one of them is not there.
    pub fn open_join(&self) -> Result<Join, Error> {
        let own = self.hierarchy()?;
        let all = self
            .parent
            .all
            .iter()
            .map(|hierarchy| files::open_join(hierarchy, if hierarchy == own { &self.path } else { &self.parent.path }));
        all.collect::<Result<_, _>>().map(Join)
    }

    /// Moves a process of the group into the sub-group, with its children: those that it had before it was moved are
    /// followed, later ones are born there. One that has ended meanwhile is fine.
    ///
    /// # Errors
    /// NotFound: the sub-group is not there.
    pub fn adopt(&self, pid: Pid) -> Result<(), Error> {
        let file = self.hierarchy()?.at(&self.path).join("cgroup.procs");
        let mut queue = vec![pid.as_raw_nonzero().get()];
        while let Some(pid) = queue.pop() {
            match files::write(&file, &pid.to_string()) {
                Err(error) if error.errno() == Some(Errno::SRCH) => continue,
                other => other?,
            }
            // Nobody there: it has ended, or the kernel lacks the file (CONFIG_PROC_CHILDREN).
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            queue.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
        Ok(())
    }

    /// Kills everything in it and waits until it is empty.
    ///
    /// # Errors
    /// Deadline: something did not die.
    pub fn kill_all(&self, limit: Duration) -> Result<(), Error> {
        kill::kill(&kill::Target { path: &self.path, group: &self.parent, only: Some(self.hierarchy()?) }, limit)
    }

    /// Removes it; not there is fine.
    ///
    /// # Errors
    /// EBUSY after a second: a process is in it.
    pub fn remove(&self) -> Result<(), Error> {
        files::remove(&self.hierarchy()?.at(&self.path))
    }
}
