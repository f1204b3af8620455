//! What /proc says of a container's processes: for monitoring only, because it costs per process.

use std::{fs, path::PathBuf};

use sys::{cgroup::Group, process::Pid};

/// A container with more processes than this, or with more descriptors, is not looked into one by one.
const PROCESSES: usize = 512;
const DESCRIPTORS: u64 = 1 << 16;

/// The processes of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// How many.
    pub count: u64,
    /// Their open descriptors; `None`: too many to count.
    pub descriptors: Option<u64>,
    /// Sockets among them.
    pub sockets: Option<u64>,
    /// How many descriptors the first process may have open (its soft limit); `None`: not known.
    pub descriptors_limit: Option<u64>,
}

impl Processes {
    /// Those in a cgroup. What ends meanwhile does not count.
    pub(super) fn of(group: &Group) -> Option<Self> {
        let pids = group.processes().ok()?;
        let (descriptors, sockets) = descriptors(&pids).unzip();
        let count = u64::try_from(pids.len()).unwrap_or(u64::MAX);
        Some(Self { count, descriptors, sockets, descriptors_limit: pids.first().and_then(descriptors_limit) })
    }
}

fn descriptors(pids: &[Pid]) -> Option<(u64, u64)> {
    if pids.len() > PROCESSES {
        return None;
    }
    let (mut all, mut sockets) = (0, 0);
    for pid in pids {
        let Ok(entries) = fs::read_dir(PathBuf::from(format!("/proc/{}/fd", pid.as_raw_nonzero()))) else { continue };
        for entry in entries.flatten() {
            all += 1;
            if all > DESCRIPTORS {
                return None;
            }
            let socket =
                fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
            sockets += u64::from(socket);
        }
    }
    Some((all, sockets))
}

/// The soft limit in "Max open files  1024  524288  files" of /proc/PID/limits.
fn descriptors_limit(pid: &Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Max open files")?.split_ascii_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process() {
        let (_here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
        let own = rustix::process::getpid();
        let (all, sockets) = descriptors(&[own]).unwrap();
        assert!(all >= 5 && sockets >= 2, "{all} {sockets}");
        assert!(descriptors_limit(&own).is_some_and(|limit| limit > 0));
        assert_eq!(descriptors(&vec![own; PROCESSES + 1]), None);
    }
}
