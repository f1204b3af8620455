//! Root file systems: an overlay of an image's layers and a container's own writable layer, mounted detached.

use std::{
    collections::HashMap,
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use layer::{Overlay, Upper, mount_erofs};
use model::{ContainerId, DiffId, ErrorKind};
use rustix::fs::{Gid, Mode, Uid};
use store::LayerKind;

use super::{ImageInfo, Images, Shared};

/// What happens to a container's changes when the machine crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// They are on disk when the container has ended.
    Durable,
    /// They need not survive: a kubelet makes a new container after a crash.
    Volatile,
}

impl Durability {
    /// Containers that people made start again after a reboot.
    pub(crate) fn of_user(user_made: bool) -> Self {
        if user_made { Self::Durable } else { Self::Volatile }
    }
}

/// Mounts of layer images, shared by all containers, so that they share the page cache too.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    open: Mutex<HashMap<DiffId, Arc<OwnedFd>>>,
}

impl Mounts {
    fn get(&self, diff: DiffId, path: &Path) -> Result<Arc<OwnedFd>, layer::Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mount) = open.get(&diff) {
            return Ok(mount.clone());
        }
        let mount = Arc::new(mount_erofs(path)?);
        open.insert(diff, mount.clone());
        Ok(mount)
    }

    /// Lets go of mounts whose files are about to be removed: a mounted file keeps its blocks.
    pub(super) fn forget(&self, layers: &[DiffId]) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            open.remove(layer);
        }
    }
}

/// Why there is no root file system.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("layer {0} is gone: pull the image again")]
    Gone(DiffId),
    #[error("layer {0}")]
    Layer(DiffId, #[source] Box<layer::Error>),
    #[error("open layer directory {0:?}")]
    Open(std::path::PathBuf, #[source] std::io::Error),
    #[error("writable layer")]
    Writable(#[source] store::Error),
    #[error("overlay of {0} layers")]
    Overlay(usize, #[source] Box<layer::Error>),
}

impl Error {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Gone(_) => ErrorKind::NotFound,
            Self::Layer(_, e) | Self::Overlay(_, e) => e.kind(),
            Self::Open(..) => ErrorKind::Internal,
            Self::Writable(e) => e.kind(),
        }
    }
}

impl Images {
    /// Mounts the root of a container, detached. Its layers are pinned by the caller.
    pub(crate) fn rootfs(&self, image: &ImageInfo, container: ContainerId, durability: Durability) -> Result<OwnedFd, Error> {
        let shared = &self.shared;
        // The topmost first.
        let lowers = image.layers.iter().rev().map(|diff| shared.lower(*diff)).collect::<Result<Vec<_>, _>>()?;
        let dir = shared.store.container_dir(container).map_err(Error::Writable)?;
        let (upper, work) = (open(&dir.upper)?, open(&dir.work)?);
        if let Some(top) = lowers.first() {
            dress(&upper, top).map_err(|e| Error::Open(dir.upper, e))?;
        }
        let durability = match durability {
            Durability::Durable => layer::Durability::Durable,
            Durability::Volatile => layer::Durability::Volatile,
        };
        let lowers: Vec<_> = lowers.iter().map(|lower| lower.as_fd()).collect();
        let upper = Upper { upper: upper.as_fd(), work: work.as_fd(), durability };
        Overlay { lowers: &lowers, upper: Some(upper) }.mount().map_err(|e| Error::Overlay(lowers.len(), Box::new(e)))
    }
}

impl Shared {
    fn lower(&self, diff: DiffId) -> Result<Arc<OwnedFd>, Error> {
        let info = self.store.layer(&diff).ok_or(Error::Gone(diff))?;
        match info.kind {
            LayerKind::Erofs => self.mounts.get(diff, &info.path).map_err(|e| Error::Layer(diff, Box::new(e))),
            LayerKind::Directory => open(&info.path).map(Arc::new),
        }
    }
}

/// The root directory of an overlay has the mode and owner of the upper one, whatever the layers say about it.
fn dress(upper: &OwnedFd, top: &OwnedFd) -> std::io::Result<()> {
    let wanted = rustix::fs::fstat(top)?;
    rustix::fs::fchown(upper, Some(Uid::from_raw(wanted.st_uid)), Some(Gid::from_raw(wanted.st_gid)))?;
    Ok(rustix::fs::fchmod(upper, Mode::from_raw_mode(wanted.st_mode))?)
}

fn open(dir: &Path) -> Result<OwnedFd, Error> {
    File::open(dir).map(OwnedFd::from).map_err(|e| Error::Open(dir.to_owned(), e))
}
