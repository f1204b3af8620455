//! Whose memory ran out when the OOM killer came. The kernel's log says it exactly, but keeps silent when it has much to
//! say; then the counters of the cgroups decide, which only grow and so cannot be missed.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    time::{Duration, Instant},
};

use model::container::{ExitStatus, OomScope};
use rustix::fs::OFlags;
use sys::cgroup::{Group, Hierarchies};

/// How long the kernel's log may be read: the supervisor has other things to do.
const READING: Duration = Duration::from_millis(100);
/// The longest record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg).
const RECORD: usize = 8192;

/// The counters of a container's cgroup and of its pod's before the container was there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Before {
    kills: u64,
    container: u64,
    pod: u64,
}

/// A cgroup's ancestors in the hierarchy, nearest first, without the root.
fn above(path: &str) -> impl Iterator<Item = &str> {
    path.rmatch_indices('/').map(|(end, _)| &path[..end]).take_while(|path| !path.is_empty())
}

/// What cannot be read counts as nothing: it is a detail of an exit, and no reason to lose it.
fn read<T: Default>(all: &Hierarchies, path: &str, what: fn(&Group) -> Result<T, sys::Error>) -> T {
    Group::new(all, path).and_then(|group| what(&group)).unwrap_or_default()
}

impl Before {
    /// The counters now.
    pub(crate) fn of(all: &Hierarchies, container: &str) -> Self {
        let pod = pod_of(container).unwrap_or_default();
        Self {
            kills: read(all, container, Group::oom_kills),
            container: read(all, container, Group::memory_limit_hits),
            pod: read(all, pod, Group::memory_limit_hits),
        }
    }

    /// The exit of the main process with what the OOM killer had to do with it.
    pub(crate) fn explain(&self, all: &Hierarchies, container: &str, exit: ExitStatus) -> ExitStatus {
        let now = Self::of(all, container);
        if exit.code == 0 || now.kills <= self.kills {
            return exit;
        }
        let (scope, group) = match from_log(container) {
            Some(Ran::Out(group)) => (scope_of(&group, container), Some(group)),
            Some(Ran::Node) => (OomScope::Node, None),
            None => self.scope_since(all, container, now),
        };
        let oom_limit = group.and_then(|group| read(all, &group, Group::memory_limit));
        ExitStatus { oom_killed: true, oom_scope: Some(scope), oom_limit, ..exit }
    }

    fn scope_since(self, all: &Hierarchies, container: &str, now: Self) -> (OomScope, Option<String>) {
        let pod = pod_of(container).unwrap_or_default();
        if now.container > self.container {
            return (OomScope::Container, Some(container.to_owned()));
        }
        if now.pod > self.pod {
            return (OomScope::Pod, Some(pod.to_owned()));
        }
        let full = |path: &&str| read(all, path, Group::memory_limit).is_some() && read(all, path, Group::memory_limit_hits) > 0;
        match above(container).skip_while(|group| within(group, pod)).find(full) {
            Some(path) => (OomScope::Above, Some(path.to_owned())),
            None => (OomScope::Node, None),
        }
    }
}

/// What ran out of memory.
#[derive(Debug, PartialEq, Eq)]
enum Ran {
    /// A cgroup with a limit.
    Out(String),
    /// The node.
    Node,
}

fn within(path: &str, group: &str) -> bool {
    path.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The group of the pod, where its limit is. With systemd's cgroup driver a pod is a scope, and the limit is on the slice
/// that a kubelet has made for it.
fn pod_of(container: &str) -> Option<&str> {
    above(container).find(|group| !group.ends_with(".scope"))
}

fn scope_of(group: &str, container: &str) -> OomScope {
    if within(group, container) {
        OomScope::Container
    } else if pod_of(container).is_some_and(|pod| within(group, pod)) {
        OomScope::Pod
    } else {
        OomScope::Above
    }
}

/// What the kernel's log says of the last kill in a container. Its name is never used again, so whatever is found is
/// about this one.
fn from_log(container: &str) -> Option<Ran> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut log = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg").ok()?;
    let (end, mut record, mut found) = (Instant::now() + READING, vec![0; RECORD], None);
    while Instant::now() < end {
        match log.read(&mut record) {
            Ok(length) => found = said(&String::from_utf8_lossy(&record[..length]), container).or(found),
            // EPIPE: older records were overwritten meanwhile; reading goes on with the oldest that is left.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::Interrupted) => {}
            Err(_) => break,
        }
    }
    found
}

/// One record: "PRIORITY,SEQUENCE,TIME,FLAGS;oom-kill:constraint=..,oom_memcg=GROUP,task_memcg=GROUP,task=..", with
/// "global_oom" in place of a group if it was the node (mm/oom_kill.c, mm/memcontrol.c).
fn said(record: &str, container: &str) -> Option<Ran> {
    let (head, text) = record.split_once(';')?;
    // What programs write has a facility in its priority; only the kernel's own word counts.
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    let text = text.strip_prefix("oom-kill:").filter(|_| priority < 8)?;
    let (before, after) = text.split_once(",task_memcg=")?;
    // The name of the task comes last and is the container's own to choose.
    let (task, _) = after.split_once(",task=")?;
    if !within(task, container) {
        return None;
    }
    match before.split_once(",oom_memcg=") {
        Some((_, group)) => Some(Ran::Out(group.to_owned())),
        None => Some(Ran::Node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINER: &str = "/kubepods/pod1/c1";

    fn record(text: &str) -> String {
        format!("6,339,5140900,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c1,mems_allowed=0{text}\n")
    }

    #[test]
    fn the_log_names_the_group() {
        let told = |text: &str| said(&record(text), CONTAINER);
        let out = |group: &str| Some(Ran::Out(group.to_owned()));
        let task = ",task_memcg=/kubepods/pod1/c1,task=tail,pid=7,uid=0";
        assert_eq!(told(&format!(",oom_memcg=/kubepods/pod1/c1{task}")), out(CONTAINER));
        assert_eq!(told(&format!(",oom_memcg=/kubepods/pod1{task}")), out("/kubepods/pod1"));
        assert_eq!(told(&format!(",global_oom{task}")), Some(Ran::Node));
        assert_eq!(told(",global_oom,task_memcg=/kubepods/pod1/c1/exec-5,task=x,pid=7,uid=0"), Some(Ran::Node));
        assert_eq!(told(",oom_memcg=/a,task_memcg=/kubepods/pod1/c11,task=x,pid=7,uid=0"), None);
        // A program that calls itself so, and one that writes to the log.
        assert_eq!(told(",global_oom,task_memcg=/b,task=,task_memcg=/kubepods/pod1/c1,pid=7,uid=0"), None);
        assert_eq!(said(&record(&format!(",global_oom{task}")).replace("6,339", "14,339"), CONTAINER), None);
        assert_eq!(said("", CONTAINER), None);
    }

    #[test]
    fn scopes() {
        assert_eq!(above(CONTAINER).collect::<Vec<_>>(), ["/kubepods/pod1", "/kubepods"]);
        for (group, scope) in [
            (CONTAINER, OomScope::Container),
            ("/kubepods/pod1/c1/inner", OomScope::Container),
            ("/kubepods/pod1", OomScope::Pod),
            ("/kubepods", OomScope::Above),
        ] {
            assert_eq!(scope_of(group, CONTAINER), scope, "{group}");
        }
        let systemd = "/kubepods.slice/kubepods-pod1.slice/creel-ab.scope/c1";
        for (group, scope) in [
            ("/kubepods.slice/kubepods-pod1.slice/creel-ab.scope", OomScope::Pod),
            ("/kubepods.slice/kubepods-pod1.slice", OomScope::Pod),
            ("/kubepods.slice", OomScope::Above),
        ] {
            assert_eq!(scope_of(group, systemd), scope, "{group}");
        }
    }
}
