//! The files of a container of people, whether it runs or not: what is read from it, brought into it, and what it has changed.
//!
//! What is in a container is hostile: a path of it is resolved by openat2(2) in its root, no magic link is followed, and
//! nothing is opened before it is known to be a regular file or a directory.

mod changes;
mod chmod;
mod read;
mod view;
mod write;

use std::{os::fd::OwnedFd, sync::Arc};

use model::ErrorKind;
use rustix::fs::{CWD, Mode, OFlags, openat};
use sys::{
    Errno,
    path::{Links, Root},
};

pub use changes::{Change, ChangeKind};
pub(crate) use chmod::Chmod;
pub(crate) use read::entry;
pub use read::{FileStat, FoundFile, Last};
pub(crate) use view::View;
pub use write::{Owners, Replace, Unpack};
pub(crate) use write::{Place, bring, is_kept};

use self::view::Write;
use super::{UserContainer, places};
use crate::{
    Engine, Inner,
    blocking::blocking,
    error::{About, Error, Step},
};

/// Why something of a container's files cannot be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("Could not find the file {path} in container {container}")]
    Missing { path: String, container: String },
    #[error("{what} {path:?}")]
    Call { what: &'static str, path: String, source: Errno },
    #[error("{path:?} is not a directory")]
    NoDirectory { path: String },
    #[error("cannot overwrite {old} {path:?} with {new}")]
    Kind { path: String, old: &'static str, new: &'static str },
    #[error("container rootfs is marked read-only")]
    ReadOnly,
    #[error("cannot copy into a container that runs in a user namespace of its own: stop it first")]
    OtherIds,
    #[error("entry {path:?} of the archive: {why}")]
    Entry { path: String, why: &'static str },
    #[error("read the archive")]
    Archive(#[source] std::io::Error),
    #[error("pack {path:?}")]
    Pack { path: String, source: Box<layer::Error> },
}

impl Refused {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::Call { source, .. } => sys::kind_of(*source),
            Self::NoDirectory { .. } | Self::Kind { .. } | Self::Entry { .. } | Self::Archive(_) => ErrorKind::InvalidArgument,
            Self::ReadOnly => ErrorKind::PermissionDenied,
            Self::OtherIds => ErrorKind::FailedPrecondition,
            Self::Pack { source, .. } => source.kind(),
        }
    }
}

/// All files of a container as it sees them.
#[derive(Debug)]
pub struct UserFiles {
    view: View,
    user: Arc<UserContainer>,
}

/// Something that would be mounted in a container if it ran.
struct Mount {
    target: String,
    write: Write,
    from: From,
}

enum From {
    /// A path of this machine.
    Path(String),
    Handle(OwnedFd),
}

fn call(what: &'static str, path: &str, source: Errno) -> Refused {
    Refused::Call { what, path: path.to_owned(), source }
}

impl Engine {
    /// The files of a container as it sees them, to read.
    ///
    /// # Errors
    /// They cannot be mounted.
    pub async fn files_of_user(&self, user: &Arc<UserContainer>) -> Result<UserFiles, Error> {
        self.inner().files(user).await
    }

    /// What its writable layer changes of its image, by path.
    ///
    /// # Errors
    /// The disk's.
    pub async fn changes_of_user(&self, user: &Arc<UserContainer>) -> Result<Vec<Change>, Error> {
        let upper = self.writable_of_user(user)?;
        let (inner, found) = (self.inner().clone(), user.clone());
        let mounts = inner.places_of(user).await?;
        let changes = blocking(move || {
            let image = inner
                .images
                .volume(&found.image_info(), "", None)
                .map_err(|e| Error::new(e.kind(), About::Words, e.to_string()))?;
            changes::changes(&upper, &Root::from(image), &mounts).map_err(words)
        });
        changes.await
    }

    /// Brings an archive, which is plain, into a directory of a container.
    ///
    /// # Errors
    /// `NotFound`: there is no such directory. `InvalidArgument`: it is none, or the archive is not good.
    pub async fn unpack_for_user(&self, user: &Arc<UserContainer>, unpack: Unpack) -> Result<(), Error> {
        let (inner, user) = (self.inner().clone(), user.clone());
        let unpacking = inner.clone();
        inner.detached(About::Words, async move { unpacking.unpack(&user, unpack).await }).await
    }
}

impl Inner {
    async fn files(self: &Arc<Self>, user: &Arc<UserContainer>) -> Result<UserFiles, Error> {
        if let Some(files) = self.running_files(user).await? {
            return Ok(files);
        }
        let mounts = self.stopped_mounts(user).await?;
        let (inner, found) = (self.clone(), user.clone());
        let root = blocking(move || inner.images.frozen_rootfs(&found.image_info(), found.id)).await;
        Ok(stopped_files(user, root.step(user.id, "mount its files")?, mounts))
    }

    /// What its main process sees; `None`: it does not run.
    async fn running_files(self: &Arc<Self>, user: &Arc<UserContainer>) -> Result<Option<UserFiles>, Error> {
        // From outside of its user namespace the owners would be those of this machine: what is on disk has its own.
        if !user.is_running() || user.spec().own_userns {
            return Ok(None);
        }
        let Ok(container) = self.table.container(user.id) else { return Ok(None) };
        let Some(pid) = container.main_pid().await else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = match rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()) {
            Ok(root) => Root::from(root),
            // It has ended meanwhile.
            Err(Errno::NOENT | Errno::SRCH) => return Ok(None),
            Err(e) => return Err(words(call("open", "/", e))),
        };
        let mut targets = places::targets(user);
        targets.extend(places::FILES.map(str::to_owned));
        targets.sort_by_key(|target| target.matches('/').count());
        let mut view = View::from(root);
        for target in targets {
            view.mount(&target, Write::Asked, |root, place| root.resolve(place, Links::Refuse));
        }
        Ok(Some(UserFiles { view, user: user.clone() }))
    }

    /// What would be mounted in it if it ran and outlives its runs: directories and files of this machine, and volumes.
    async fn stopped_mounts(self: &Arc<Self>, user: &Arc<UserContainer>) -> Result<Vec<Mount>, Error> {
        let record = user.now.borrow().record.clone();
        let found = super::volumes::resolve(self, &record).await?;
        let write = |readonly: bool| if readonly { Write::No } else { Write::Asked };
        let binds = found.binds.into_iter().map(|bind| Mount {
            target: bind.container_path,
            write: write(bind.readonly),
            from: From::Path(bind.host_path),
        });
        let parts = found.given.mounts.into_iter().map(|given| Mount {
            target: given.target,
            write: write(given.flags.readonly),
            from: From::Handle(given.mount),
        });
        let mut all: Vec<Mount> = binds.chain(parts).collect();
        all.sort_by_key(|mount| mount.target.matches('/').count());
        Ok(all)
    }
}

fn stopped_files(user: &Arc<UserContainer>, root: OwnedFd, mounts: Vec<Mount>) -> UserFiles {
    let mut view = View::from(Root::from(root));
    for mount in mounts {
        view.mount(&mount.target, mount.write, |_, _| match mount.from {
            From::Path(path) => openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()),
            From::Handle(handle) => Ok(handle),
        });
    }
    UserFiles { view, user: user.clone() }
}

/// The whole story in docker's words, as the service says it.
pub(crate) fn words(refused: Refused) -> Error {
    Error::new(refused.kind(), About::Words, crate::chain(&refused))
}
