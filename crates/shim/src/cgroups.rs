//! The cgroups of containers: who is left in one, and what the OOM killer did there.

use std::time::Duration;

use model::Signal;
use rustix::io::Errno;
use sys::cgroup::{Group, Hierarchies, Track};

use crate::error::Error;

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

    /// Kills everything in an exec's cgroup.
    pub(crate) fn kill_exec(&self, path: &str) -> Result<(), Error> {
        Track::at(&self.all, path).and_then(|track| track.kill_all(KILL)).map_err(failed)
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

    /// Processes that the OOM killer has ended in a container's cgroup so far. What cannot be read counts as none: it is
    /// a detail of an exit, and no reason to lose it.
    pub(crate) fn oom_kills(&self, path: &str) -> u64 {
        Group::new(&self.all, path).and_then(|group| group.oom_kills()).unwrap_or(0)
    }
}

fn failed(source: sys::Error) -> Error {
    Error::Kernel { step: "cgroup", source }
}
