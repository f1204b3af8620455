//! Exit records on disk: what is left if the supervisor itself is lost before the daemon has heard of an exit.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use model::ContainerId;
use shim_proto::ExitRecord;

use crate::error::Error;

/// The directory of the records.
#[derive(Debug)]
pub(crate) struct Exits {
    directory: PathBuf,
}

impl Exits {
    /// The records below a pod's run directory; the directory is made.
    pub(crate) fn new(pod_dir: &Path) -> Result<Self, Error> {
        let directory = pod_dir.join(ExitRecord::DIRECTORY);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(Error::File { step: "make directory", path: directory, source: error })
            }
            _ => Ok(Self { directory }),
        }
    }

    /// Writes a record, whole or not at all. It has to outlive this process, not the machine: nothing waits for the disk.
    pub(crate) fn write(&self, record: &ExitRecord) -> Result<(), Error> {
        let path = self.path(record.container);
        let draft = path.with_extension("new");
        let written = fs::write(&draft, record.to_bytes()).and_then(|()| fs::rename(&draft, &path));
        written.map_err(|source| Error::File { step: "write", path, source })
    }

    /// Removes a record, if there is one.
    pub(crate) fn remove(&self, container: ContainerId) -> Result<(), Error> {
        let path = self.path(container);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::File { step: "remove", path, source: error }),
            _ => Ok(()),
        }
    }

    fn path(&self, container: ContainerId) -> PathBuf {
        self.directory.join(container.to_string())
    }
}
