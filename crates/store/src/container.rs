//! Writable layers of containers.

use std::{collections::HashSet, path::PathBuf};

use model::ContainerId;

use crate::{Error, Store, disk, remove};

/// The writable layer of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerDir {
    /// What the container changes: overlay's upper directory, mode 0755.
    pub upper: PathBuf,
    /// overlay's work directory.
    pub work: PathBuf,
}

impl Store {
    /// Where a container's writable layer is or would be.
    pub fn container_path(&self, id: ContainerId) -> PathBuf {
        self.shared.layout.container(&id)
    }

    /// Makes a container's writable layer; there already is fine.
    ///
    /// # Errors
    /// What mkdir(2) says.
    pub fn container_dir(&self, id: ContainerId) -> Result<ContainerDir, Error> {
        let dir = self.container_path(id);
        let made = ContainerDir { upper: dir.join("upper"), work: dir.join("work") };
        disk::make_dir(&dir, 0o700)?;
        // The upper directory's mode is the mode of the container's root.
        let both = disk::make_dir(&made.upper, 0o755).and_then(|()| disk::make_dir(&made.work, 0o700));
        if let Err(e) = both {
            // What is left is swept with the containers that have no record.
            self.remove_container_dir(id).ok();
            return Err(e);
        }
        Ok(made)
    }

    /// Removes a container's writable layer: out of sight at once, its bytes soon after. Not there is fine.
    ///
    /// # Errors
    /// What rename(2) says.
    pub fn remove_container_dir(&self, id: ContainerId) -> Result<(), Error> {
        if let Some(trash) = remove::to_trash(&self.container_path(id), &self.shared.layout)? {
            self.shared.broom.delete(trash);
        }
        Ok(())
    }

    /// Removes all writable layers but these. Answers how many there were.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn sweep_container_dirs(&self, known: &[ContainerId]) -> Result<usize, Error> {
        let known: HashSet<PathBuf> = known.iter().map(|id| self.container_path(*id)).collect();
        let mut strays = 0;
        for path in disk::list(&self.containers_path())? {
            if !known.contains(&path)
                && let Some(trash) = remove::to_trash(&path, &self.shared.layout)?
            {
                self.shared.broom.delete(trash);
                strays += 1;
            }
        }
        Ok(strays)
    }
}
