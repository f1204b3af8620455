//! Images as volumes (KEP-4639): their layers on each other, read-only, or just one directory or file of that.

use std::os::fd::{AsFd, OwnedFd};

use layer::Overlay;
use model::ErrorKind;
use rustix::fs::FileType;
use sys::{
    Errno, mount,
    path::{Links, Root},
};

use super::{Idmap, ImageInfo, Images, rootfs};
use crate::overlay;

/// Why an image cannot be mounted as a volume.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Layers(#[from] rootfs::Error),
    #[error("overlay of {0} layers")]
    Overlay(usize, #[source] Box<layer::Error>),
    #[error("sub path {path:?} of the image")]
    SubPath { path: String, source: Errno },
    #[error("sub path {0:?} of the image is neither a directory nor a regular file")]
    Kind(String),
}

impl Error {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Layers(e) => e.kind(),
            Self::Overlay(_, e) => e.kind(),
            Self::SubPath { source: Errno::NOENT | Errno::NOTDIR | Errno::LOOP, .. } | Self::Kind(_) => ErrorKind::InvalidArgument,
            Self::SubPath { .. } => ErrorKind::Internal,
        }
    }
}

impl Images {
    /// Mounts an image, detached and read-only. Its layers are pinned by the caller. `sub_path` is relative to the
    /// image's root, and so is every link on its way: none leads out (CVE-2017-1002101).
    pub(crate) fn volume(&self, image: &ImageInfo, sub_path: &str, idmap: Option<&Idmap>) -> Result<OwnedFd, Error> {
        let lowers = self.shared.lowers(image, idmap)?;
        let lowers: Vec<_> = lowers.iter().map(|lower| lower.as_fd()).collect();
        let overlay = Overlay { lowers: &lowers, upper: None };
        let mount = overlay::mount(&overlay, None, None).map_err(|e| Error::Overlay(lowers.len(), Box::new(e)))?;
        if sub_path.is_empty() { Ok(mount) } else { part(&mount, sub_path) }
    }
}

fn part(mount: &OwnedFd, path: &str) -> Result<OwnedFd, Error> {
    let failed = |source| Error::SubPath { path: path.to_owned(), source };
    let root = Root::from(mount.try_clone().map_err(|_| failed(Errno::MFILE))?);
    let inside = root.resolve(path, Links::Follow).map_err(failed)?;
    match FileType::from_raw_mode(rustix::fs::fstat(&inside).map_err(failed)?.st_mode) {
        FileType::Directory | FileType::RegularFile => mount::subtree(mount, &inside).map_err(failed),
        _ => Err(Error::Kind(path.to_owned())),
    }
}
