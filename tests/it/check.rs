//! The leak checker: the invariants I01 to I14 that can be seen from outside, after every test.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sha2::Digest as _;

use crate::daemon::Daemon;

/// Tries `probe` until it finds nothing; what the kernel tears down asynchronously (network namespaces) needs a moment.
fn eventually_empty(what: &str, daemon: &Daemon, probe: impl Fn() -> Vec<String>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let left = probe();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{what} left behind: {left:#?}\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// I01 mounts, I03 links, I06 cgroups, I07 supervisors, I14 directories: all pods are removed, the daemon runs.
pub fn nothing_left(daemon: &Daemon) {
    eventually_empty("supervisors", daemon, || shims(daemon).iter().map(ToString::to_string).collect());
    eventually_empty("mounts", daemon, || mounts(daemon));
    eventually_empty("veths", daemon, || {
        links().into_iter().filter(|l| l.master.as_deref() == Some(daemon.bridge.as_str())).map(|l| l.name).collect()
    });
    eventually_empty("cgroups", daemon, || cgroups(daemon).into_iter().map(|p| p.display().to_string()).collect());
    eventually_empty("pod directories", daemon, || entries(&daemon.run_dir().join("pods")));
    eventually_empty("writable layers", daemon, || entries(&daemon.root().join("containers")));
    eventually_empty("records", daemon, || {
        let records = daemon.root().join("records");
        [entries(&records.join("pods")), entries(&records.join("containers")), entries(&records.join("users"))].concat()
    });
    eventually_empty("logs of containers", daemon, || entries(&daemon.root().join("logs")));
}

/// I07: the daemon ended and left no process. Its cgroup parent is a directory that nobody needs any more.
pub fn nothing_runs(daemon: &Daemon) {
    eventually_empty("processes", daemon, || shims(daemon).iter().map(ToString::to_string).collect());
    for parent in cgroup_roots().into_iter().map(|root| root.join(daemon.cgroup.trim_start_matches('/'))) {
        fs::remove_dir(parent).ok();
    }
    remove_link(&daemon.bridge);
}

/// I08: every blob's name is the hash of its bytes, and nothing half-fetched is kept.
pub fn store_is_sound(daemon: &Daemon) {
    let root = daemon.root();
    for name in entries(&root.join("blobs/sha256")) {
        let bytes = fs::read(root.join("blobs/sha256").join(&name)).unwrap();
        let hash: String = sha2::Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(name, hash, "a blob is not what its name says");
    }
    // What is remembered of a build whose client has gone is written when everything else is over.
    eventually_empty("ingests", daemon, || entries(&root.join("ingest")));
}

/// After a failed test: end what is left, by cgroup.
pub fn kill_everything(daemon: &Daemon) {
    for _ in 0..50 {
        let mut pids: Vec<i32> = Vec::new();
        for group in cgroups(daemon) {
            let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            pids.extend(procs.lines().filter_map(|l| l.parse::<i32>().ok()));
        }
        pids.extend(shims(daemon));
        if pids.is_empty() {
            break;
        }
        for pid in pids.into_iter().filter_map(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut groups = cgroups(daemon);
    groups.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    for group in groups {
        fs::remove_dir(group).ok();
    }
    nothing_runs_quietly(daemon);
}

fn nothing_runs_quietly(daemon: &Daemon) {
    for parent in cgroup_roots().into_iter().map(|root| root.join(daemon.cgroup.trim_start_matches('/'))) {
        fs::remove_dir(parent).ok();
    }
    remove_link(&daemon.bridge);
}

fn entries(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

fn mounts(daemon: &Daemon) -> Vec<String> {
    let dir = daemon.dir.path().display().to_string();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(&dir)).map(str::to_owned).collect()
}

/// What a killed supervisor leaves mounted on kernels before 6.15, as a reboot would take it away.
pub fn unmount_shm(daemon: &Daemon) {
    for pod in entries(&daemon.run_dir().join("pods")) {
        std::process::Command::new("umount").arg("-q").arg(daemon.run_dir().join("pods").join(pod).join("shm")).status().ok();
    }
}

/// Processes of this daemon's supervisors, by their command line.
pub fn shims(daemon: &Daemon) -> Vec<i32> {
    let run = daemon.run_dir().display().to_string();
    let pids = entries(Path::new("/proc")).into_iter().filter_map(|name| name.parse::<i32>().ok());
    pids.filter(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        command.starts_with("creel-shim") && command.contains(&run)
    })
    .collect()
}

/// Mount points of the cgroup hierarchies.
pub fn cgroup_roots() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let fields = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|f| f.len() > 2 && f[2].starts_with("cgroup")).map(|f| PathBuf::from(f[1])).collect()
}

/// Every cgroup below the daemon's parent, in all hierarchies.
fn cgroups(daemon: &Daemon) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                walk(&entry.path(), found);
                // Slices are systemd's, and stay.
                if entry.path().extension().is_none_or(|e| e != "slice") {
                    found.push(entry.path());
                }
            }
        }
    }
    let mut found = Vec::new();
    for root in cgroup_roots() {
        walk(&root.join(daemon.cgroup.trim_start_matches('/')), &mut found);
    }
    found
}

/// A network interface of this namespace.
pub struct Link {
    pub name: String,
    pub master: Option<String>,
}

/// The interfaces of this network namespace.
pub fn links() -> Vec<Link> {
    let names = entries(Path::new("/sys/class/net"));
    let master = |name: &str| fs::read_link(format!("/sys/class/net/{name}/master")).ok();
    names
        .into_iter()
        .map(|name| Link { master: master(&name).and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned())), name })
        .collect()
}

fn remove_link(name: &str) {
    if Path::new("/sys/class/net").join(name).exists() {
        std::process::Command::new("ip").args(["link", "del", name]).status().ok();
    }
}
