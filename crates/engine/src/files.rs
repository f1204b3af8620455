//! Directories of our own below the run directory.

use std::{fs, io, os::unix::fs::DirBuilderExt, path::Path};

/// Makes a directory that only root may enter, and its parents; there already is fine.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Removes a pod's run directory. A supervisor that was killed leaves its /dev/shm mounted in it on kernels before 6.15
/// (`container::PodEnv::new`).
pub(crate) fn remove_pod_dir(dir: &Path) -> io::Result<()> {
    sys::mount::detach(dir.join("shm").as_path())?;
    remove_tree(dir)
}

/// Removes a directory and everything in it without following links; not there is fine.
pub(crate) fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
