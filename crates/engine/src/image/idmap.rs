//! Layers with the owners that a pod's user namespace gives them (R22): copies of mounts that show what is 0 on disk as the
//! namespace's root. Nothing is ever chowned, and on disk there are always the container's own numbers.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic::resume_unwind,
};

use model::pod::UserNamespace;
use sys::{
    Errno,
    mount::{self, Depth},
    userns,
};

/// The mapping of a user namespace.
#[derive(Debug)]
pub(crate) struct Idmap {
    userns: OwnedFd,
    map: UserNamespace,
}

impl Idmap {
    /// `userns` is a descriptor of a user namespace that has this mapping.
    pub(crate) fn new(userns: OwnedFd, map: UserNamespace) -> Self {
        Self { userns, map }
    }

    /// Shows the owners in a detached mount by the mapping.
    pub(super) fn show(&self, mount: BorrowedFd<'_>) -> Result<(), Errno> {
        mount::idmap(mount, Depth::Top, self.userns.as_fd())
    }

    /// Does something as the namespace's root as far as files go, in a thread of its own. The host's root has no number in
    /// a mount that shows owners by the mapping, so it cannot make anything there; overlayfs keeps the credentials that it
    /// is mounted with, and makes its files by them.
    pub(super) fn as_root<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Errno> {
        let (uid, gid) = (self.map.uids.host_id, self.map.gids.host_id);
        let work = move || userns::set_file_ids(uid, gid).map(|()| work());
        std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }
}
