//! Room kept back so that removing things works on a full disk: a transaction that forgets rows needs blocks first.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::error::Error;

/// Enough for many removals: redb grows its file by at most a few megabytes at a time.
const SIZE: u64 = 8 << 20;

#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Takes the room back if it is there; on a full disk it is tried again after the next removal.
    pub(crate) fn fill(&self) {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path);
        let filled = file.and_then(|file| allocate(&file));
        if filled.is_err() {
            // A half-filled file would only hide how much room there is.
            self.release();
        }
    }

    /// Gives the room to whoever writes next.
    pub(crate) fn release(&self) {
        std::fs::remove_file(&self.path).ok();
    }

    /// Runs `work`; if the disk is full, once more with the reserve given up.
    pub(crate) fn lend<T>(&self, mut work: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        match work() {
            Err(e) if e.is_full() => {
                self.release();
                work()
            }
            other => other,
        }
    }
}

fn allocate(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, SIZE)?)
}
