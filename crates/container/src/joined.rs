//! Namespaces of other containers that a pod is in instead of its own.

use std::os::fd::OwnedFd;

use model::plan::{JoinedNamespace, PodPlan};
use sys::{
    mount::{self, Depth},
    ns::{self, Kinds},
};

use crate::error::Error;

/// Those of one pod, until it is in them.
#[derive(Debug)]
pub(crate) struct Joined(Vec<(JoinedNamespace, OwnedFd)>);

impl Joined {
    /// What the plan says of them, with their descriptors.
    pub(crate) fn pair(plan: &PodPlan, fds: Vec<OwnedFd>) -> Result<Self, Error> {
        if plan.joined().len() != fds.len() {
            let why = "there is not one descriptor for each";
            return Err(Error::Plan { what: "joined namespaces".to_owned(), why });
        }
        Ok(Self(plan.joined().iter().copied().zip(fds).collect()))
    }

    /// The calling process is in their network and IPC from now on.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        for (kind, fd) in &self.0 {
            match kind {
                JoinedNamespace::Network => ns::enter_link(fd, Kinds::NETWORK).map_err(Error::call("setns(CLONE_NEWNET)"))?,
                JoinedNamespace::Ipc => {
                    ns::enter_link(fd, Kinds::INTER_PROCESS_COMMUNICATION).map_err(Error::call("setns(CLONE_NEWIPC)"))?
                }
                JoinedNamespace::Shm | JoinedNamespace::Pid => {}
            }
        }
        Ok(())
    }

    fn take(&mut self, wanted: JoinedNamespace) -> Option<OwnedFd> {
        let at = self.0.iter().position(|(kind, _)| *kind == wanted)?;
        Some(self.0.swap_remove(at).1)
    }

    /// A detached mount of their /dev/shm. A mount can be cloned only by who is in its mount namespace, so this process is for
    /// a moment: it can, because it has one thread, and nobody in there sees it.
    pub(crate) fn take_shm(&mut self) -> Result<Option<OwnedFd>, Error> {
        let Some(theirs) = self.take(JoinedNamespace::Shm) else { return Ok(None) };
        let own = ns::own("mnt").map_err(Error::call("open own mount namespace"))?;
        ns::enter_link(&theirs, Kinds::MOUNT).map_err(Error::call("setns(CLONE_NEWNS)"))?;
        let mount = mount::clone_path(c"/dev/shm", Depth::Top);
        ns::enter_link(&own, Kinds::MOUNT).map_err(Error::call("setns back to the own mount namespace"))?;
        mount.map(Some).map_err(Error::call("clone /dev/shm of the other container"))
    }

    /// The PID namespace for containers.
    pub(crate) fn take_pids(&mut self) -> Option<OwnedFd> {
        self.take(JoinedNamespace::Pid)
    }
}
