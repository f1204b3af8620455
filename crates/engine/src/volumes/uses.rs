//! Who has which volume: what containers with a life cycle ask of volumes.

use std::path::PathBuf;

use model::{ContainerId, VolumeName};

use super::{Error, NewVolume, Source, Volumes, fill::finish, lock};

/// Where a volume's data are to be mounted from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// A directory of this machine; it is there.
    pub(crate) path: PathBuf,
    /// The volume itself cannot be written to.
    pub(crate) readonly: bool,
}

impl Volumes {
    /// Gives a container that is being made its volumes, in the order of `asked`: those that are there, and new ones for those
    /// that are not or have no name. They are in use until [`Self::release`], and none of them is claimed if this fails; new
    /// ones stay then, as with docker, but for those that nobody has named. Blocks.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub(crate) fn claim(&self, container: ContainerId, asked: Vec<NewVolume>) -> Result<Vec<VolumeName>, Error> {
        let _writer = lock(&self.shared.writer);
        let mut names = Vec::with_capacity(asked.len());
        for new in asked {
            match self.make(new) {
                Ok(name) => {
                    self.uses(&name, |users| users.insert(container));
                    names.push(name);
                }
                Err(e) => {
                    self.let_go(container, true)?;
                    return Err(e);
                }
            }
        }
        Ok(names)
    }

    /// Says after a start of the daemon what a container has. A volume that has gone meanwhile is missed when the container
    /// starts.
    pub(crate) fn reclaim(&self, container: ContainerId, names: &[VolumeName]) {
        for name in names {
            self.uses(name, |users| users.insert(container));
        }
    }

    /// A container is no more, or never came to be. Answers the anonymous volumes that went with it, if they were to. Blocks.
    ///
    /// # Errors
    /// If the disk fails; the container has no volumes then either, and what is left is dangling.
    pub(crate) fn release(&self, container: ContainerId, anonymous_too: bool) -> Result<Vec<VolumeName>, Error> {
        let _writer = lock(&self.shared.writer);
        self.let_go(container, anonymous_too)
    }

    /// The writer's lock is the caller's to hold.
    fn let_go(&self, container: ContainerId, anonymous_too: bool) -> Result<Vec<VolumeName>, Error> {
        let mut last = Vec::new();
        for (name, entry) in lock(&self.shared.entries).iter_mut() {
            if entry.users.remove(&container) && entry.users.is_empty() && entry.record.anonymous && anonymous_too {
                last.push(name.clone());
            }
        }
        last.into_iter().map(|name| self.take(self.get(name.as_str())?).map(|gone| gone.name)).collect()
    }

    /// Where a volume is to be mounted from, every time that a container with it starts. Blocks.
    ///
    /// # Errors
    /// It is not there, or what it leads to is not.
    pub(crate) fn place(&self, name: &VolumeName) -> Result<Place, Error> {
        let missing = || Error::Missing(name.to_string());
        let entry = lock(&self.shared.entries).get(name).map(|entry| (entry.record.clone(), entry.filling.clone()));
        let (record, filling) = entry.ok_or_else(missing)?;
        let device = |path: &PathBuf, source| Error::Device { volume: name.to_string(), path: path.clone(), source };
        match Source::read(&record.options)? {
            Source::Own => {
                let _one_at_a_time = lock(&filling);
                let dir = self.shared.store.volume_dir(name);
                finish(&dir).map_err(|e| device(&dir.data, e))?;
                std::fs::metadata(&dir.data).map_err(|e| device(&dir.data, e))?;
                Ok(Place { path: dir.data, readonly: false })
            }
            Source::Bind { path, readonly } => {
                std::fs::metadata(&path).map_err(|e| device(&path, e))?;
                Ok(Place { path, readonly })
            }
            Source::Memory(memory) => Ok(Place { path: self.shared.store.volume_dir(name).data, readonly: memory.readonly }),
        }
    }

    fn uses<T: Default>(&self, name: &VolumeName, change: impl FnOnce(&mut std::collections::BTreeSet<ContainerId>) -> T) -> T {
        lock(&self.shared.entries).get_mut(name).map(|entry| change(&mut entry.users)).unwrap_or_default()
    }
}
