//! Stopping everything in a group at once, without any of it noticing (cgroups(7): freezer; admin-guide/cgroup-v2.rst,
//! "cgroup.freeze").

use std::path::PathBuf;

use super::{Group, Hierarchy, files};
use crate::Error;

/// What is asked of a group's freezer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freezer {
    /// Nothing in it runs.
    Frozen,
    /// It runs.
    Thawed,
}

impl Group {
    /// Asks the kernel to freeze the group and all below it, or to let it run. Freezing takes effect when each of its threads
    /// comes to the end of what it does in the kernel: see [`Self::is_frozen`].
    ///
    /// # Errors
    /// Missing: v1 without a freezer. ENOENT: the group is not there.
    pub fn set_freezer(&self, wanted: Freezer) -> Result<(), Error> {
        let (directory, v2) = self.freezer()?;
        let (file, value) = match (v2, wanted) {
            (true, Freezer::Frozen) => ("cgroup.freeze", "1"),
            (true, Freezer::Thawed) => ("cgroup.freeze", "0"),
            (false, Freezer::Frozen) => ("freezer.state", "FROZEN"),
            (false, Freezer::Thawed) => ("freezer.state", "THAWED"),
        };
        files::write(&directory.join(file), value)
    }

    /// Whether everything in it stands still.
    ///
    /// # Errors
    /// As [`Self::set_freezer`].
    pub fn is_frozen(&self) -> Result<bool, Error> {
        let (directory, v2) = self.freezer()?;
        if v2 {
            Ok(files::read(&directory.join("cgroup.events"))?.lines().any(|line| line == "frozen 1"))
        } else {
            Ok(files::read(&directory.join("freezer.state"))?.trim() == "FROZEN")
        }
    }

    /// The directory with the group's freezer, for a program that is to use it too.
    ///
    /// # Errors
    /// Missing: v1 without a freezer.
    pub fn freezer_directory(&self) -> Result<PathBuf, Error> {
        self.freezer().map(|(directory, _)| directory)
    }

    fn freezer(&self) -> Result<(PathBuf, bool), Error> {
        let hierarchy = self.all.with("freezer").ok_or_else(|| Error::Missing("cgroup freezer".to_owned()))?;
        Ok((hierarchy.at(&self.path), matches!(hierarchy, Hierarchy::V2 { .. })))
    }
}
