//! Volumes in memory: there from the first run that has one to the end of the last, mounted where the data of other volumes are, so
//! that all containers share them.

use std::{collections::BTreeSet, path::Path};

use model::{ContainerId, VolumeName};
use sys::{
    Errno,
    mount::{self, Attributes, Filesystem},
};

use super::{Error, Memory, Source, Volumes, lock};

impl Volumes {
    /// What a container has for a run; its volumes in memory are there until [`Self::rest`]. Blocks.
    ///
    /// # Errors
    /// They cannot be mounted.
    pub(crate) fn wake(&self, container: ContainerId, names: &[VolumeName]) -> Result<(), Error> {
        for (name, memory) in self.in_memory(names) {
            // Nobody takes it away while it is being mounted, nor the other way round.
            let mut runs = lock(&self.shared.runs);
            let data = self.shared.store.volume_dir(&name).data;
            let failed = |source| Error::Device { volume: name.to_string(), path: data.clone(), source };
            if !is_mounted(&data).map_err(|e| failed(e.into()))? {
                mount_memory(memory, &data).map_err(failed)?;
            }
            runs.entry(name.clone()).or_default().insert(container);
        }
        Ok(())
    }

    /// A run is over. Blocks.
    pub(crate) fn rest(&self, container: ContainerId) {
        let mut runs = lock(&self.shared.runs);
        let ended: Vec<VolumeName> = runs
            .iter_mut()
            .filter_map(|(name, running)| (running.remove(&container) && running.is_empty()).then(|| name.clone()))
            .collect();
        for name in ended {
            runs.remove(&name);
            self.unmount(&name);
        }
    }

    /// After a start of the daemon, when everybody who runs has been woken: what an earlier one has left goes. Blocks.
    pub(crate) fn sweep(&self) {
        let runs = lock(&self.shared.runs);
        let all: Vec<VolumeName> = lock(&self.shared.entries).keys().cloned().collect();
        for (name, _) in self.in_memory(&all) {
            if !runs.contains_key(&name) {
                self.unmount(&name);
            }
        }
    }

    fn in_memory(&self, names: &[VolumeName]) -> Vec<(VolumeName, Memory)> {
        let entries = lock(&self.shared.entries);
        let wanted: BTreeSet<&VolumeName> = names.iter().collect();
        let memory = |name: &VolumeName| match Source::read(&entries.get(name)?.record.options) {
            Ok(Source::Memory(memory)) => Some((name.clone(), memory)),
            _ => None,
        };
        wanted.into_iter().filter_map(memory).collect()
    }

    fn unmount(&self, name: &VolumeName) {
        let data = self.shared.store.volume_dir(name).data;
        if is_mounted(&data).unwrap_or(false)
            && let Err(errno) = mount::detach(&data)
        {
            tracing::warn!(volume = %name, error = %errno, "the memory of a volume could not be given back");
        }
    }
}

fn is_mounted(data: &Path) -> Result<bool, Errno> {
    layer::is_mount(rustix::fs::CWD, data.as_os_str().as_encoded_bytes())
}

fn mount_memory(memory: Memory, data: &Path) -> std::io::Result<()> {
    let made = || {
        let mode = format!("{:o}", memory.mode.unwrap_or(0o1777) & 0o7777);
        let mut filesystem = Filesystem::open("tmpfs")?.set("mode", mode)?;
        if let Some(size) = memory.size {
            filesystem = filesystem.set("size", size.to_string())?;
        }
        filesystem.mount(Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV)
    };
    let made = made().map_err(std::io::Error::other)?;
    Ok(mount::attach_at(made, data)?)
}
