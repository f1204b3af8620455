//! Volumes: a directory each, with its record beside its data, so that both come and go by one rename(2). The loss of
//! power loses none.

use std::path::PathBuf;

use model::VolumeName;
use rustix::{
    fs::{CWD, RenameFlags},
    io::Errno,
};

use crate::{
    Error, Store,
    disk::{self, Sync},
    envelope,
    error::During,
    fault::reach,
    remove,
};

/// A record with labels and options at all their limits is far below this.
const LIMIT: u64 = 16 << 20;
pub(crate) const RECORD: &str = "record";
pub(crate) const DATA: &str = "_data";

/// Where a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeDir {
    /// What containers see: a directory of their own making, but for itself.
    pub data: PathBuf,
    /// For what is to be in it one day and is not yet whole. May be there, is nobody's business.
    pub staging: PathBuf,
    /// What is whole and on its way into `data`.
    pub staged: PathBuf,
}

/// A volume as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundVolume {
    /// Its name.
    pub name: VolumeName,
    /// Its record, or what is wrong with it. The data are there either way.
    pub record: Result<Vec<u8>, String>,
}

impl Store {
    /// Where a volume is or would be.
    pub fn volume_dir(&self, name: &VolumeName) -> VolumeDir {
        let dir = self.volume_path(name);
        VolumeDir { data: dir.join(DATA), staging: dir.join("staging"), staged: dir.join("staged") }
    }

    fn volume_path(&self, name: &VolumeName) -> PathBuf {
        self.shared.layout.at("volumes").join(name.as_str())
    }

    /// Makes an empty volume. `false`: there is one with this name, and it stays as it is.
    ///
    /// # Errors
    /// If the disk is full or fails; there is no such volume then, or a whole one.
    pub fn create_volume(&self, name: &VolumeName, record: &[u8]) -> Result<bool, Error> {
        let created = self.create_with_record(&self.volume_path(name), record, |_| Ok(()))?;
        if created {
            disk::sync_parent(&self.volume_path(name))?;
        }
        Ok(created)
    }

    /// Makes a directory with data and their record, which `fill` finds empty. `false`: there is one.
    pub(crate) fn create_with_record(
        &self,
        path: &std::path::Path,
        record: &[u8],
        fill: impl FnOnce(&std::path::Path) -> std::io::Result<()>,
    ) -> Result<bool, Error> {
        let new = self.shared.layout.temporary();
        let made = self.fill_new(&new, record, fill).and_then(|()| {
            let renamed = reach("rename").map_err(|_| Errno::IO);
            match renamed.and_then(|()| rustix::fs::renameat_with(CWD, &new, CWD, path, RenameFlags::NOREPLACE)) {
                Err(Errno::EXIST) => Ok(false),
                other => other.map(|()| true).during("rename", &new),
            }
        });
        if !matches!(made, Ok(true)) {
            // What is left is swept at the next start.
            remove::to_trash(&new, &self.shared.layout)
                .ok()
                .flatten()
                .into_iter()
                .for_each(|trash| self.shared.broom.delete(trash));
        }
        made
    }

    fn fill_new(
        &self,
        new: &std::path::Path,
        record: &[u8],
        fill: impl FnOnce(&std::path::Path) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        disk::make_dir(new, 0o700)?;
        let data = new.join(DATA);
        disk::make_dir(&data, 0o755)?;
        fill(&data).during("fill", &data)?;
        disk::write(&new.join(RECORD), &self.shared.layout.temporary(), &envelope::seal(record), Sync::Now)
    }

    /// Removes a volume: out of sight at once, its bytes soon after. Not there is fine.
    ///
    /// # Errors
    /// What rename(2) says.
    pub fn remove_volume(&self, name: &VolumeName) -> Result<(), Error> {
        let path = self.volume_path(name);
        if let Some(trash) = remove::to_trash(&path, &self.shared.layout)? {
            self.shared.broom.delete(trash);
            disk::sync_parent(&path)?;
        }
        Ok(())
    }

    /// All volumes, by name. What is in the directory and cannot be a volume is left alone.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn load_volumes(&self) -> Result<Vec<FoundVolume>, Error> {
        let mut found = Vec::new();
        for path in disk::list(&self.shared.layout.at("volumes"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().parse::<VolumeName>();
            let Ok(name) = name else { continue };
            let record = match disk::read(&path.join(RECORD), LIMIT) {
                Ok(Some(bytes)) => envelope::open(&bytes).map(<[u8]>::to_vec).map_err(|e| e.to_string()),
                Ok(None) => Err("it is not there".to_owned()),
                Err(e) => Err(e.to_string()),
            };
            found.push(FoundVolume { name, record });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}
