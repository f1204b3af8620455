//! What criu made, asked of the kernel: that each process is in the container's namespaces and the pod's, stands still, and
//! has no more rights than the plan gives; that the mounts are the plan's, and no descriptor leads out of them.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd, OwnedFd},
};

use model::plan::{ContainerPlan, ProcessPlan};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, StatxFlags, openat, readlinkat, statx};
use sys::{Errno, cgroup::Group, process::Pid};

use super::mountinfo;
use crate::{Error, PodEnv};

/// The container's first process, once everything has been found to be as it must.
pub(super) fn verify(env: &PodEnv, plan: &ContainerPlan, group: &Group, expected: &str) -> Result<Pid, Error> {
    let members = group.pids().map_err(Error::host("list restored processes"))?;
    let mut root = None;
    for pid in &members {
        let process = Suspect { env, pid: *pid };
        for thread in process.threads()? {
            process.thread(plan, &thread)?;
        }
        process.namespaces(plan.own_cgroup_namespace)?;
        process.oom_score(&plan.process)?;
        if process.is_first()? {
            root = Some(process);
        }
    }
    let Some(root) = root else { return Err(wrong("none of its processes is the first of its PID namespace, and ours")) };
    let table = mountinfo::parse(&root.read("mountinfo")?);
    if let Some(difference) = mountinfo::difference(&mountinfo::parse(expected), &table) {
        return Err(wrong(difference));
    }
    let mounts: BTreeSet<u64> = table.iter().map(|mount| mount.id).collect();
    let own = root.namespace("mnt")?;
    for pid in &members {
        let process = Suspect { env, pid: *pid };
        if process.namespace("mnt")? != own {
            return Err(wrong("its processes are in several mount namespaces"));
        }
        process.descriptors(&mounts)?;
    }
    Ok(root.pid)
}

fn wrong(why: impl Into<String>) -> Error {
    Error::Restore { why: why.into() }
}

/// A process that criu made.
struct Suspect<'a> {
    env: &'a PodEnv,
    pid: Pid,
}

impl Suspect<'_> {
    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.pid.as_raw_nonzero())
    }

    fn read(&self, name: &str) -> Result<String, Error> {
        self.env.proc.read(&self.file(name)).map_err(Error::host("read about a restored process"))
    }

    fn open(&self, name: &str) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        self.env.proc.open(&self.file(name), flags).map_err(Error::host("open a restored process"))
    }

    fn names(&self, name: &str) -> Result<Vec<String>, Error> {
        let directory = self.open(name)?;
        let entries = Dir::read_from(&directory).map_err(Error::call("getdents of a restored process"))?;
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_str().ok()?.to_owned()));
        Ok(names.filter(|name| !name.starts_with('.')).collect())
    }

    fn threads(&self) -> Result<Vec<String>, Error> {
        self.names("task")
    }

    fn thread(&self, plan: &ContainerPlan, thread: &str) -> Result<(), Error> {
        let status = self.read(&format!("task/{thread}/status"))?;
        match field(&status, "State").chars().next() {
            Some('T' | 't' | 'Z') => {}
            other => return Err(wrong(format!("a process does not stand still (state {other:?})"))),
        }
        rights(&status, &plan.process).map_or(Ok(()), |why| Err(wrong(why)))
    }

    /// The number of a namespace, as /proc/PID/ns says it.
    fn namespace(&self, name: &str) -> Result<String, Error> {
        link(&self.open("ns")?, name)
    }

    fn namespaces(&self, own_cgroup: bool) -> Result<(), Error> {
        if self.is_dead()? {
            return Ok(());
        }
        let ours = self.env.proc.open("self/ns", OFlags::RDONLY | OFlags::DIRECTORY).map_err(Error::host("open own namespaces"))?;
        let shared = [("net", true), ("ipc", true), ("uts", true), ("user", true), ("time", true), ("mnt", false), ("pid", false)];
        for (name, shared) in shared.into_iter().chain([("cgroup", !own_cgroup)]) {
            if (self.namespace(name)? == link(&ours, name)?) != shared {
                let what = if shared { "is not in the pod's" } else { "is in the host's" };
                return Err(wrong(format!("a process {what} {name} namespace")));
            }
        }
        Ok(())
    }

    fn is_dead(&self) -> Result<bool, Error> {
        Ok(field(&self.read("status")?, "State").starts_with('Z'))
    }

    /// Process 1 of its namespace, and our child.
    fn is_first(&self) -> Result<bool, Error> {
        let status = self.read("status")?;
        let ours = rustix::process::getpid().as_raw_nonzero().to_string();
        Ok(field(&status, "NSpid").split_ascii_whitespace().last() == Some("1") && field(&status, "PPid") == ours)
    }

    /// The score is the plan's and not the images'.
    fn oom_score(&self, plan: &ProcessPlan) -> Result<(), Error> {
        let Some(score) = plan.oom_score_adj else { return Ok(()) };
        match self.env.proc.write(&self.file("oom_score_adj"), &score.to_string()) {
            // As for any container: without CAP_SYS_RESOURCE it cannot be lowered, and then criu could not either.
            Err(error) if matches!(error.errno(), Some(Errno::ACCESS | Errno::PERM)) => Ok(()),
            other => other.map_err(Error::host("set oom_score_adj of a restored process")),
        }
    }

    /// Everything that is a path, and the directories it stands in, is on the container's own mounts.
    fn descriptors(&self, mounts: &BTreeSet<u64>) -> Result<(), Error> {
        if self.is_dead()? {
            return Ok(());
        }
        let directory = self.open("fd")?;
        for name in self.names("fd")? {
            let target = link(&directory, &name)?;
            let number = name.parse::<u32>().unwrap_or(u32::MAX);
            // Streams come from outside of it, as for any container.
            let inside = number <= 2 || !target.starts_with('/') || mounts.contains(&mount_of(&directory, &name)?);
            if !inside {
                return Err(wrong(format!("descriptor {name} ({target:?}) is not of the container's mounts")));
            }
        }
        let own = self.open(".")?;
        for name in ["cwd", "root"] {
            if !mounts.contains(&mount_of(&own, name)?) {
                return Err(wrong(format!("its {name} is not on the container's mounts")));
            }
        }
        Ok(())
    }
}

fn link(directory: impl AsFd, name: &str) -> Result<String, Error> {
    let target = readlinkat(directory, name, Vec::new()).map_err(Error::call("readlinkat in procfs"))?;
    Ok(target.to_string_lossy().into_owned())
}

/// Only a handle is opened, which does nothing to what it is of.
fn mount_of(directory: impl AsFd, name: &str) -> Result<u64, Error> {
    let handle =
        openat(directory, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(Error::call("open a restored file"))?;
    let stat = statx(handle, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map_err(Error::call("statx of a restored file"))?;
    Ok(stat.stx_mnt_id)
}

fn field<'s>(status: &'s str, name: &str) -> &'s str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim()
}

/// What a thread has and must not have, from its /proc/PID/task/TID/status.
fn rights(status: &str, plan: &ProcessPlan) -> Option<String> {
    if field(status, "State").starts_with('Z') {
        return None;
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let Ok(has) = u64::from_str_radix(field(status, set), 16) else { return Some(format!("{set} is not to be read")) };
        if has & !plan.capabilities.bounding != 0 {
            return Some(format!("a process has capabilities that its container has not ({set} {has:x})"));
        }
    }
    if plan.no_new_privs && field(status, "NoNewPrivs") != "1" {
        return Some("a process may get privileges that its container may not (no_new_privs)".to_owned());
    }
    if plan.seccomp.is_some() && field(status, "Seccomp") != "2" {
        return Some("a process has no seccomp filter, and its container has".to_owned());
    }
    let all = |name: &str, id: u32| field(status, name).split_ascii_whitespace().all(|text| text == id.to_string());
    // Without a way to change them they are what the plan says.
    const SETUID: u64 = 1 << 7;
    const SETGID: u64 = 1 << 6;
    let can_change = plan.capabilities.bounding & (SETUID | SETGID) != 0 && (plan.uid == 0 || !plan.no_new_privs);
    let same = all("Uid", plan.uid) && all("Gid", plan.gid);
    if !can_change && !same {
        return Some(format!("a process is not user {}:{}, as its container is", plan.uid, plan.gid));
    }
    None
}

#[cfg(test)]
mod tests {
    use model::plan::Capabilities;

    use super::*;

    fn plan() -> ProcessPlan {
        ProcessPlan {
            uid: 1000,
            gid: 1000,
            capabilities: Capabilities { bounding: 0xa80425fb, permitted: 0, ambient: 0 },
            no_new_privs: true,
            seccomp: Some(vec![0; 8].into()),
            ..minimal()
        }
    }

    /// No user, no rights, nothing that an optional field says.
    fn minimal() -> ProcessPlan {
        let bytes = [0x8c, 0x80, 0x80, 0x61, b'/', 0, 0, 0x80, 0x83, 0, 0, 0, 0xf4, 0xf6, 0x80, 0xf6, 0xf4];
        minicbor::decode(&bytes).expect("a process plan")
    }

    const STATUS: &str = "Name:\tx\nState:\tT (stopped)\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nCapInh:\t0000000000000000
CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";

    #[test]
    fn rights_are_the_plans_at_most() {
        assert_eq!(rights(STATUS, &plan()), None);
        for (from, to, words) in [
            ("CapEff:\t0000000000000000", "CapEff:\t0000000000200000", "CapEff 200000"),
            ("CapBnd:\t00000000a80425fb", "CapBnd:\t000001ffffffffff", "CapBnd"),
            ("CapAmb:\t0000000000000000", "CapAmb:\tgarbage", "CapAmb is not to be read"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "no_new_privs"),
            ("Seccomp:\t2", "Seccomp:\t0", "seccomp"),
            ("Uid:\t1000\t1000", "Uid:\t1000\t0", "user 1000:1000"),
            ("Gid:\t1000\t1000", "Gid:\t0\t0", "user 1000:1000"),
        ] {
            let why = rights(&STATUS.replace(from, to), &plan()).unwrap();
            assert!(why.contains(words), "{why}");
        }
        // Root with CAP_SETUID may have become anybody.
        let root = ProcessPlan { uid: 0, gid: 0, ..plan() };
        assert_eq!(rights(STATUS, &root), None);
    }
}
