//! Everything in a group, dead.

use std::{
    collections::HashSet,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use model::Signal;
use rustix::io::Errno;

use super::{Group, Hierarchy, files};
use crate::{
    Context, Error,
    process::{self, Pid},
};

/// Rounds of plain killing on v1 before the freezer is used. One is enough unless something forks against us.
const PLAIN_ROUNDS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LAST_PAUSE: Duration = Duration::from_millis(10);

impl Group {
    /// The processes in the group and all groups below it, in any hierarchy.
    ///
    /// # Errors
    /// read(2); a group that is not there has none.
    pub fn pids(&self) -> Result<HashSet<Pid>, Error> {
        let mut pids = HashSet::new();
        for hierarchy in self.all.iter() {
            collect(&hierarchy.at(&self.path), &mut pids)?;
        }
        Ok(pids)
    }

    /// The same from one hierarchy, lowest number first: for counting, not for killing.
    ///
    /// # Errors
    /// As [`Self::pids`].
    pub fn processes(&self) -> Result<Vec<Pid>, Error> {
        let mut pids = HashSet::new();
        if let Some(hierarchy) = self.all.with("pids").or_else(|| self.all.iter().next()) {
            collect(&hierarchy.at(&self.path), &mut pids)?;
        }
        let mut pids: Vec<Pid> = pids.into_iter().collect();
        pids.sort_by_key(|pid| pid.as_raw_nonzero());
        Ok(pids)
    }

    /// Kills everything in the group and below it, and waits until it is empty.
    ///
    /// # Errors
    /// Deadline: something did not die (uninterruptible sleep).
    pub fn kill_all(&self, limit: Duration) -> Result<(), Error> {
        kill(&Target { path: &self.path, group: self, only: None }, limit)
    }
}

/// What is to be killed: a path in all hierarchies, or in one of them.
pub(super) struct Target<'a> {
    pub(super) path: &'a str,
    pub(super) group: &'a Group,
    pub(super) only: Option<&'a Hierarchy>,
}

impl Target<'_> {
    fn pids(&self) -> Result<HashSet<Pid>, Error> {
        let Some(hierarchy) = self.only else { return self.group.pids() };
        let mut pids = HashSet::new();
        collect(&hierarchy.at(self.path), &mut pids)?;
        Ok(pids)
    }
}

pub(super) fn kill(target: &Target<'_>, limit: Duration) -> Result<(), Error> {
    let end = Instant::now() + limit;
    let mut pause = FIRST_PAUSE;
    for round in 0.. {
        let pids = target.pids()?;
        if pids.is_empty() {
            return Ok(());
        }
        if round > 0 && Instant::now() >= end {
            let some: Vec<String> = pids.iter().take(8).map(|pid| pid.as_raw_nonzero().to_string()).collect();
            let what = format!("killing {} processes of cgroup {} ({})", pids.len(), target.path, some.join(", "));
            return Err(Error::Deadline { what, limit });
        }
        if !kill_v2(target)? {
            // A frozen group cannot fork, and its ids cannot be reused, so one pass hits all; but it freezes what is
            // outside `only` too, so it is kept for what plain killing does not reach.
            let freezer = if round >= PLAIN_ROUNDS { freeze(target)? } else { None };
            kill_each(target, &target.pids()?)?;
            if let Some(state) = freezer {
                files::write(&state, "THAWED")?;
            }
        }
        sleep(pause);
        pause = (pause * 2).min(LAST_PAUSE);
    }
    Ok(())
}

/// `cgroup.kill` (Linux 5.14) reaches what forks meanwhile too. `false`: not v2, or the kernel is older.
fn kill_v2(target: &Target<'_>) -> Result<bool, Error> {
    let Some(Hierarchy::V2 { .. }) = target.group.all.iter().next() else { return Ok(false) };
    for hierarchy in target.group.all.iter() {
        let file = hierarchy.at(target.path).join("cgroup.kill");
        match files::write(&file, "1") {
            Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(false),
            other => other?,
        }
    }
    Ok(true)
}

/// Freezes the group on v1, if the machine has a freezer; the file that thaws it.
fn freeze(target: &Target<'_>) -> Result<Option<std::path::PathBuf>, Error> {
    let Some(state) = target.group.directory("freezer").map(|directory| directory.join("freezer.state")) else {
        return Ok(None);
    };
    match files::write(&state, "FROZEN") {
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
        other => other.map(|()| Some(state)),
    }
}

/// An id that was read may belong to a stranger by the time a pidfd is opened. So the members are read once more after
/// that: who is a member then was the one behind the pidfd, or died, or is a new member that must go too.
fn kill_each(target: &Target<'_>, pids: &HashSet<Pid>) -> Result<(), Error> {
    let opened: Vec<_> = pids.iter().filter_map(|pid| process::open(*pid).ok().map(|fd| (*pid, fd))).collect();
    let members = target.pids()?;
    for (pid, fd) in opened.iter().filter(|(pid, _)| members.contains(pid)) {
        match process::signal(fd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno).during(|| format!("pidfd_send_signal({}, SIGKILL)", pid.as_raw_nonzero())),
        }
    }
    Ok(())
}

fn collect(directory: &Path, pids: &mut HashSet<Pid>) -> Result<(), Error> {
    // ENODEV: removed while it was open.
    let text = match files::read_if_there(&directory.join("cgroup.procs")) {
        Err(error) if error.errno() == Some(Errno::NODEV) => return Ok(()),
        other => other?,
    };
    let Some(text) = text else { return Ok(()) };
    // 0: a process that our PID namespace cannot see; nothing could be sent to it.
    pids.extend(text.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw)));
    files::children(directory)?.iter().try_for_each(|child| collect(child, pids))
}
