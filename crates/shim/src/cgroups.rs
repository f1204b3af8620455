//! The cgroups of containers: who is left in one, and what the OOM killer did there.

use std::time::Duration;

use model::{Signal, container::ExitStatus};
use rustix::{io::Errno, process::Pid};
use sys::cgroup::{Freezer, Group, Hierarchies, Track};

use crate::{error::Error, oom};

/// How long killing a cgroup may hold up the loop. Whoever is left then is in an uninterruptible system call.
const KILL: Duration = Duration::from_secs(2);

/// The machine's cgroup hierarchies.
#[derive(Debug)]
pub(crate) struct Cgroups {
    all: Hierarchies,
}

impl Cgroups {
    /// Looks at what is mounted.
    pub(crate) fn detect() -> Result<Self, Error> {
        Ok(Self { all: Hierarchies::detect().map_err(|source| Error::Kernel { step: "find cgroup hierarchies", source })? })
    }

    /// Kills everything in a container's cgroup and below it.
    pub(crate) fn kill(&self, path: &str) -> Result<(), Error> {
        Group::new(&self.all, path).and_then(|group| group.kill_all(KILL)).map_err(failed)
    }

    /// Has the kernel freeze everything in a container's cgroup.
    pub(crate) fn freeze(&self, path: &str) -> Result<(), Error> {
        Group::new(&self.all, path).and_then(|group| group.set_freezer(Freezer::Frozen)).map_err(failed)
    }

    /// Lets it run again; a group that is gone has nothing in it.
    pub(crate) fn thaw(&self, path: &str) -> Result<(), Error> {
        match Group::new(&self.all, path).and_then(|group| group.set_freezer(Freezer::Thawed)) {
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(()),
            other => other.map_err(failed),
        }
    }

    /// Kills everything in an exec's cgroup.
    pub(crate) fn kill_exec(&self, path: &str) -> Result<(), Error> {
        Track::at(&self.all, path).and_then(|track| track.kill_all(KILL)).map_err(failed)
    }

    /// Moves a process and its children into an exec's cgroup.
    pub(crate) fn adopt(&self, path: &str, pid: Pid) -> Result<(), Error> {
        Track::at(&self.all, path).and_then(|track| track.adopt(pid)).map_err(failed)
    }

    /// Sends a signal to everything that is in a container's cgroup or below it now.
    pub(crate) fn signal(&self, path: &str, signal: Signal) -> Result<(), Error> {
        if signal == Signal::KILL {
            return self.kill(path);
        }
        let members = || Group::new(&self.all, path).and_then(|group| group.pids()).map_err(failed);
        let opened: Vec<_> = members()?.into_iter().filter_map(|pid| Some((pid, sys::process::open(pid).ok()?))).collect();
        // A process id may have gone to a stranger between reading and opening; who is still a member was not.
        let still = members()?;
        for (_, pidfd) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
            match sys::process::signal(pidfd, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(source) => return Err(Error::Sys { step: "pidfd_send_signal", source }),
            }
        }
        Ok(())
    }

    /// The OOM killer's counters of a container that is about to be made.
    pub(crate) fn oom_before(&self, path: &str) -> oom::Before {
        oom::Before::of(&self.all, path)
    }

    /// An exit with what the OOM killer had to do with it since then.
    pub(crate) fn explain(&self, path: &str, before: oom::Before, exit: ExitStatus) -> ExitStatus {
        before.explain(&self.all, path, exit)
    }
}

fn failed(source: sys::Error) -> Error {
    Error::Kernel { step: "cgroup", source }
}
