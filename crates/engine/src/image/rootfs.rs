//! Root file systems: an overlay of an image's layers and a container's own writable layer, mounted detached.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use layer::{Overlay, Upper, mount_erofs};
use model::{ContainerId, DiffId, ErrorKind};
use rustix::fs::{Gid, Mode, OFlags, Uid, openat};
use store::{ContainerDir, LayerKind};
use sys::{
    Errno,
    mount::{self, Depth},
};

use super::{Idmap, ImageInfo, Images, Shared};
use crate::overlay;

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
    #[error("show the owners in {path:?} by the pod's user namespace")]
    Idmap { path: std::path::PathBuf, source: Errno },
    #[error("make files as the root of the pod's user namespace")]
    Credentials(#[source] Errno),
}

impl Error {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Gone(_) => ErrorKind::NotFound,
            Self::Layer(_, e) | Self::Overlay(_, e) => e.kind(),
            Self::Open(..) | Self::Credentials(_) => ErrorKind::Internal,
            Self::Idmap { source: Errno::INVAL, .. } => ErrorKind::Unsupported,
            Self::Idmap { source, .. } => sys::kind_of(*source),
            Self::Writable(e) => e.kind(),
        }
    }
}

impl Images {
    /// Mounts the root of a container, detached, with owners as its pod's user namespace has them, and an SELinux label. Its
    /// layers are pinned by the caller.
    pub(crate) fn rootfs(
        &self,
        image: &ImageInfo,
        container: ContainerId,
        durability: Durability,
        (idmap, label): (Option<&Idmap>, Option<&str>),
    ) -> Result<OwnedFd, Error> {
        let shared = &self.shared;
        let dir = shared.store.container_dir(container).map_err(Error::Writable)?;
        if let Some(top) = image.layers.last() {
            let top = shared.lower(*top)?;
            dress(&open(&dir.upper)?, &top).map_err(|e| Error::Open(dir.upper.clone(), e))?;
        }
        let lowers = shared.lowers(image, idmap)?;
        let writable = Writable::open(&dir, idmap)?;
        let durability = match durability {
            Durability::Durable => layer::Durability::Durable,
            Durability::Volatile => layer::Durability::Volatile,
        };
        let lowers: Vec<_> = lowers.iter().map(|lower| lower.as_fd()).collect();
        let upper = Upper { upper: writable.upper.as_fd(), work: writable.work.as_fd(), durability };
        let overlay = Overlay { lowers: &lowers, upper: Some(upper) };
        let mount = || overlay::mount(&overlay, writable.copy.as_ref().map(AsFd::as_fd), label);
        let mounted = match idmap {
            None => mount(),
            Some(idmap) => idmap.as_root(mount).map_err(Error::Credentials)?,
        };
        mounted.map_err(|e| Error::Overlay(lowers.len(), Box::new(e)))
    }
}

impl Images {
    /// The files of a container that does not run, detached and read-only: its writable layer is the topmost one.
    pub(crate) fn frozen_rootfs(&self, image: &ImageInfo, container: ContainerId) -> Result<OwnedFd, Error> {
        let dir = self.shared.store.container_dir(container).map_err(Error::Writable)?;
        let upper = Arc::new(open(&dir.upper)?);
        let mut lowers = self.shared.lowers(image, None)?;
        lowers.insert(0, upper);
        let lowers: Vec<_> = lowers.iter().map(|lower| lower.as_fd()).collect();
        let overlay = Overlay { lowers: &lowers, upper: None };
        overlay::mount(&overlay, None, None).map_err(|e| Error::Overlay(lowers.len(), Box::new(e)))
    }
}

impl Shared {
    /// The layers of an image, the topmost first. overlayfs takes no directory twice (ELOOP), and an image may have a layer twice: the
    /// upper one says everything that the lower one does.
    pub(super) fn lowers(&self, image: &ImageInfo, idmap: Option<&Idmap>) -> Result<Vec<Arc<OwnedFd>>, Error> {
        let mut seen = HashSet::new();
        let layers = image.layers.iter().rev().filter(|diff| seen.insert(**diff));
        match idmap {
            None => layers.map(|diff| self.lower(*diff)).collect(),
            Some(idmap) => layers.map(|diff| self.idmapped_lower(*diff, idmap).map(Arc::new)).collect(),
        }
    }

    fn idmapped_lower(&self, diff: DiffId, idmap: &Idmap) -> Result<OwnedFd, Error> {
        let info = self.store.layer(&diff).ok_or(Error::Gone(diff))?;
        if info.kind == LayerKind::Directory {
            return idmapped(idmap, &info.path, mount::clone_path(&info.path, Depth::Top));
        }
        let failed = |e| Error::Layer(diff, Box::new(e));
        let shared = self.mounts.get(diff, &info.path).map_err(failed)?;
        match mount::clone_fd(&*shared, Depth::Top) {
            // Before Linux 6.15 what is attached nowhere cannot be copied.
            Err(Errno::INVAL) => {
                let own = mount_erofs(&info.path).map_err(failed)?;
                idmapped(idmap, &info.path, Ok(own))
            }
            copy => idmapped(idmap, &info.path, copy),
        }
    }

    pub(super) fn lower(&self, diff: DiffId) -> Result<Arc<OwnedFd>, Error> {
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

/// The two directories of a writable layer.
struct Writable {
    upper: OwnedFd,
    work: OwnedFd,
    /// The mount that both are in: it is gone when this is closed, whatever else is open in it (open_tree(2)).
    copy: Option<OwnedFd>,
}

impl Writable {
    fn open(dir: &ContainerDir, idmap: Option<&Idmap>) -> Result<Self, Error> {
        let Some(idmap) = idmap else { return Ok(Self { upper: open(&dir.upper)?, work: open(&dir.work)?, copy: None }) };
        // One copy for both, because overlayfs wants them on one mount.
        let parent = dir.upper.with_file_name("");
        let copy = idmapped(idmap, &parent, mount::clone_path(&parent, Depth::Top))?;
        Ok(Self { upper: inside(&copy, &dir.upper)?, work: inside(&copy, &dir.work)?, copy: Some(copy) })
    }
}

/// A copy of what is mounted at `path`, with owners by the mapping.
fn idmapped(idmap: &Idmap, path: &Path, copy: Result<OwnedFd, Errno>) -> Result<OwnedFd, Error> {
    let failed = |source| Error::Idmap { path: path.to_owned(), source };
    let copy = copy.map_err(failed)?;
    idmap.show(copy.as_fd()).map_err(failed)?;
    Ok(copy)
}

/// What is called as the last component of `path` in the directory `parent`.
fn inside(parent: &OwnedFd, path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(parent, path.file_name().unwrap_or_default(), flags, Mode::empty());
    opened.map_err(|e| Error::Open(path.to_owned(), e.into()))
}

fn open(dir: &Path) -> Result<OwnedFd, Error> {
    File::open(dir).map(OwnedFd::from).map_err(|e| Error::Open(dir.to_owned(), e))
}
