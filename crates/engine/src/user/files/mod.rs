//! The files of a container of people, whether it runs or not: what is read from it, brought into it, and what it has changed.
//!
//! What is in a container is hostile: a path of it is resolved by openat2(2) in its root, no magic link is followed, and
//! nothing is opened before it is known to be a regular file or a directory.

mod changes;
mod chmod;
mod read;
mod write;

use std::{path::PathBuf, sync::Arc};

use model::{ErrorKind, container::BindMount};
use rustix::fs::{Mode, OFlags};
use sys::{
    Errno,
    path::{Links, Root},
};

pub use changes::{Change, ChangeKind};
pub(crate) use chmod::Chmod;
pub(crate) use read::entry;
pub use read::{FileStat, FoundFile, Last};
pub(crate) use write::{Attributes, Place, bring};
pub use write::{Owners, Replace, Unpack};

use super::UserContainer;
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
            Self::Pack { source, .. } => source.kind(),
        }
    }
}

/// All files of a container as it sees them.
#[derive(Debug)]
pub struct UserFiles {
    root: Root,
    /// What is mounted where, if nobody has mounted it: the container does not run.
    mounts: Vec<Mounted>,
    user: Arc<UserContainer>,
}

/// Something of this machine that is at a place of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mounted {
    target: String,
    source: PathBuf,
    read_only: bool,
}

impl UserFiles {
    /// The root that a path is in, and the path below it: a mount's own root for what is in a mount.
    fn place(&self, path: &str) -> Result<(Root, String, Option<&Mounted>), Refused> {
        let absolute = format!("/{}", path.trim_start_matches('/'));
        let below = |mount: &&Mounted| {
            let rest = absolute.strip_prefix(&mount.target);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let Some(mount) = self.mounts.iter().filter(below).max_by_key(|mount| mount.target.len()) else {
            let root = self.root.resolve("/", Links::Follow).map_err(|e| call("openat2", path, e))?;
            return Ok((Root::from(root), absolute, None));
        };
        // The rest may be empty: the mount itself.
        let rest = absolute[mount.target.len()..].to_owned();
        let root = Root::open_host(&mount.source).map_err(|e| call("open", path, e))?;
        Ok((root, if rest.is_empty() { "/.".to_owned() } else { rest }, Some(mount)))
    }
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
        if let Some(root) = self.running_root(user).await? {
            return Ok(UserFiles { root, mounts: Vec::new(), user: user.clone() });
        }
        let mounts = self.stopped_mounts(user).await?;
        let (inner, found) = (self.clone(), user.clone());
        let root = blocking(move || inner.images.frozen_rootfs(&found.image_info(), found.id)).await;
        let root = root.step(user.id, "mount its files")?;
        Ok(UserFiles { root: Root::from(root), mounts, user: user.clone() })
    }

    /// The root that its main process sees; `None`: it does not run.
    async fn running_root(self: &Arc<Self>, user: &Arc<UserContainer>) -> Result<Option<Root>, Error> {
        if !user.is_running() {
            return Ok(None);
        }
        let Ok(container) = self.table.container(user.id) else { return Ok(None) };
        let Some(pid) = container.main_pid().await else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()) {
            Ok(root) => Ok(Some(Root::from(root))),
            // It has ended meanwhile.
            Err(Errno::NOENT | Errno::SRCH) => Ok(None),
            Err(e) => Err(words(call("open", "/", e))),
        }
    }

    /// What would be mounted in it if it ran: directories and files of this machine, and volumes.
    async fn stopped_mounts(self: &Arc<Self>, user: &Arc<UserContainer>) -> Result<Vec<Mounted>, Error> {
        let record = user.now.borrow().record.clone();
        let binds = super::volumes::resolve(self, &record).await?.binds;
        let mounted = |bind: BindMount| Mounted {
            target: bind.container_path.trim_end_matches('/').to_owned(),
            source: PathBuf::from(bind.host_path),
            read_only: bind.readonly,
        };
        Ok(binds.into_iter().map(mounted).collect())
    }
}

/// The whole story in docker's words, as the service says it.
pub(crate) fn words(refused: Refused) -> Error {
    Error::new(refused.kind(), About::Words, crate::chain(&refused))
}
