//! Groups of the machine that the tests run on: its own version of cgroups for limits, v2 where there is a mount of it.
#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

use std::{
    path::Path,
    process::{Child, Command},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use model::Resources;

use super::*;

static NEXT: AtomicU32 = AtomicU32::new(0);

struct Temporary(Group);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = self.0.kill_all(Duration::from_secs(5));
        let _ = self.0.remove();
        let parent = Group::new(&self.0.all, self.0.path.rsplit_once('/').unwrap().0).unwrap();
        let _ = parent.remove();
    }
}

fn group_of(all: &Hierarchies) -> Temporary {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Temporary(Group::new(all, &format!("/creel-test-{}-{number}/inner", std::process::id())).unwrap())
}

fn group() -> Temporary {
    let group = group_of(&Hierarchies::detect().unwrap());
    group.0.create().unwrap();
    group
}

/// A shell that is in the group, with a child.
fn shell(join: &Join, script: &str) -> Child {
    // A test has many threads, so the shell joins by itself.
    let files: Vec<String> = join
        .0
        .iter()
        .map(|fd| std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd))).unwrap())
        .map(|path| format!("echo 0 > '{}'; ", path.display()))
        .collect();
    Command::new("/bin/sh").arg("-c").arg(format!("{}{script}", files.concat())).spawn().unwrap()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{what}");
}

#[test]
fn ex_24_limits_are_set_and_read_back_in_any_order() {
    let group = group();
    let mb = 1 << 20;
    let limits = |memory: i64, both: i64| Resources {
        cpu_period: Some(50_000),
        cpu_quota: Some(20_000),
        cpu_shares: Some(512),
        memory_limit: Some(memory),
        memory_swap_limit: Some(both),
        pids_limit: Some(77),
        ..Resources::default()
    };
    // Up, down, up, and without any: each needs another order of the two memory files on v1.
    for (memory, both) in [(64 * mb, 64 * mb), (256 * mb, 512 * mb), (16 * mb, 16 * mb), (-1, -1), (32 * mb, 64 * mb)] {
        let refused = group.0.apply(&limits(memory, both)).unwrap();
        let read = group.0.read_limits().unwrap();
        assert_eq!(read.memory_limit, Some(memory), "{refused:?}");
        if refused.is_empty() {
            assert_eq!(read.memory_swap_limit, Some(both));
        }
        assert_eq!((read.cpu_quota, read.cpu_period, read.pids_limit), (Some(20_000), Some(50_000), Some(77)));
    }
    let raise = Resources { memory_limit: Some(128 * mb), ..Resources::default() };
    group.0.apply(&raise).unwrap();
    assert_eq!(group.0.stats().unwrap().memory_limit, Some(128 << 20));
    let unlimited = Resources { cpu_quota: Some(-1), pids_limit: Some(-1), ..Resources::default() };
    group.0.apply(&unlimited).unwrap();
    let read = group.0.read_limits().unwrap();
    assert_eq!((read.cpu_quota, read.pids_limit), (Some(-1), Some(-1)));
}

#[test]
fn hugepages_that_the_machine_lacks_may_be_limited_to_nothing() {
    let group = group();
    let mut resources = Resources::default();
    resources.hugepage_limits.insert("3MB".to_owned(), 0);
    assert_eq!(group.0.apply(&resources).unwrap(), []);
    resources.hugepage_limits.insert("3MB".to_owned(), 6 << 20);
    assert_eq!(group.0.apply(&resources).unwrap()[0].what, "hugetlb.3MB");
}

#[test]
fn everything_in_a_group_is_killed_and_the_group_removed() {
    let group = group();
    let track = Track::new(&group.0, "exec-1").unwrap();
    track.create().unwrap();
    let mut main = shell(&group.0.open_join().unwrap(), "sleep 1000 & sleep 1000 & wait");
    let mut exec = shell(&track.open_join().unwrap(), "sleep 1000 & wait");
    wait_for("all five run", || group.0.pids().unwrap().len() == 5);
    assert_eq!(group.0.stats().unwrap().pids, Some(5));
    assert!(group.0.stats().unwrap().cpu_ns.unwrap() > 0);

    track.kill_all(Duration::from_secs(5)).unwrap();
    exec.wait().unwrap();
    track.remove().unwrap();
    track.remove().unwrap();
    assert_eq!(group.0.pids().unwrap().len(), 3);
    assert!(main.try_wait().unwrap().is_none());

    let again = Track::at(&group.0.all, &format!("{}/exec-2", group.0.path())).unwrap();
    again.create().unwrap();
    group.0.kill_all(Duration::from_secs(5)).unwrap();
    main.wait().unwrap();
    assert!(group.0.exists());
    group.0.remove().unwrap();
    group.0.remove().unwrap();
    assert!(!group.0.exists());
    assert_eq!(group.0.pids().unwrap().len(), 0);
}

#[test]
fn f_51_a_fork_bomb_dies() {
    let group = group();
    group.0.apply(&Resources { pids_limit: Some(200), ..Resources::default() }).unwrap();
    let bomb = "f() { while :; do sleep 0 & done; }; f 2>/dev/null & f 2>/dev/null & f 2>/dev/null & wait";
    let mut bomb = shell(&group.0.open_join().unwrap(), bomb);
    wait_for("it is busy", || group.0.pids().unwrap().len() > 3);
    group.0.kill_all(Duration::from_secs(20)).unwrap();
    bomb.wait().unwrap();
}

#[test]
fn oom_kills_are_counted() {
    let group = group();
    let mb = 1 << 20;
    group.0.apply(&Resources { memory_limit: Some(8 * mb), memory_swap_limit: Some(8 * mb), ..Resources::default() }).unwrap();
    assert_eq!(group.0.oom_kills().unwrap(), 0);
    let mut hungry = shell(&group.0.open_join().unwrap(), "exec tail /dev/zero");
    assert!(!hungry.wait().unwrap().success());
    wait_for("the kill is counted", || group.0.oom_kills().unwrap() == 1);
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let all = Hierarchies::detect().unwrap();
    for path in ["", "/", "a", "/a/../b", "/a//b", "/a/", "/a\0", "/a\nb"] {
        assert!(Group::new(&all, path).is_err(), "{path:?}");
    }
    let group = Group::new(&all, "/a/b/c").unwrap();
    assert_eq!(group.lineage().collect::<Vec<_>>(), ["/a", "/a/b", "/a/b/c"]);
    assert!(Track::new(&group, "x/y").is_err() && Track::new(&group, "..").is_err());
}

#[test]
fn ex_25_devices_are_what_is_allowed() {
    let group = group();
    group.0.allow_devices(&DeviceRule::standard()).unwrap();
    let script = "cat /dev/null && head -c1 /dev/zero >/dev/null && ! mknod /tmp/creel-test-$$ c 1 1";
    assert!(shell(&group.0.open_join().unwrap(), script).wait().unwrap().success());
    group.0.allow_devices(&[DeviceRule::ALL]).unwrap();
    let script = "mknod /tmp/creel-test-$$ c 1 1 && rm /tmp/creel-test-$$";
    assert!(shell(&group.0.open_join().unwrap(), script).wait().unwrap().success());
}

/// The v2 side on a machine of v1: a cgroup2 mount is there without controllers, so groups, joining, killing and device
/// programs can be tested, limits cannot.
#[test]
fn v2_groups_join_kill_and_restrict_devices() {
    let Some(root) = v2_mount() else {
        eprintln!("skipped: no cgroup2 mount on this machine");
        return;
    };
    let group = group_of(&Hierarchies::v2_at(root));
    group.0.create().unwrap();
    let rules = [DeviceRule::standard(), vec![]].concat();
    match group.0.allow_devices(&rules) {
        Err(error) if error.kind() == model::ErrorKind::Unsupported || error.errno() == Some(Errno::INVAL) => {
            eprintln!("skipped: no cgroup device programs in this kernel: {error}");
        }
        other => {
            other.unwrap();
            group.0.allow_devices(&rules).unwrap();
            let script = "cat /dev/null && ! mknod /tmp/creel-test-$$ c 1 1";
            assert!(shell(&group.0.open_join().unwrap(), script).wait().unwrap().success());
            group.0.allow_devices(&[DeviceRule::ALL]).unwrap();
            let script = "mknod /tmp/creel-test-$$ c 1 1 && rm /tmp/creel-test-$$";
            assert!(shell(&group.0.open_join().unwrap(), script).wait().unwrap().success());
        }
    }
    let track = Track::new(&group.0, "exec").unwrap();
    track.create().unwrap();
    let mut child = shell(&track.open_join().unwrap(), "sleep 1000 & wait");
    wait_for("both run", || group.0.pids().unwrap().len() == 2);
    track.kill_all(Duration::from_secs(5)).unwrap();
    child.wait().unwrap();
    let stats = group.0.stats().unwrap();
    assert!(stats.cpu_psi.is_some() || !Path::new("/proc/pressure").exists());
    group.0.remove().unwrap();
    assert!(!group.0.exists());
}

fn v2_mount() -> Option<std::path::PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    Some(line.split(' ').nth(4)?.into())
}

#[test]
fn a_frozen_group_stands_still_and_goes_on() {
    let all = Hierarchies::detect().unwrap();
    let unified = Path::new("/sys/fs/cgroup/unified");
    let others = unified.join("cgroup.procs").exists().then(|| Hierarchies::v2_at(unified));
    for all in others.into_iter().chain([all]) {
        let group = group_of(&all);
        group.0.create().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let size = || file.as_file().metadata().unwrap().len();
        let script = format!("while :; do echo >>'{}'; sleep 0.01; done", file.path().display());
        let mut child = shell(&group.0.open_join().unwrap(), &script);
        wait_for("it runs", || size() > 3);
        group.0.set_freezer(Freezer::Frozen).unwrap();
        wait_for("it is frozen", || group.0.is_frozen().unwrap());
        let before = size();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(size(), before, "{:?}", all.version());
        group.0.set_freezer(Freezer::Thawed).unwrap();
        wait_for("it goes on", || size() > before);
        assert!(!group.0.is_frozen().unwrap());
        group.0.set_freezer(Freezer::Frozen).unwrap();
        group.0.kill_all(Duration::from_secs(5)).unwrap();
        child.wait().unwrap();
    }
}

/// Whoever finds a group above that somebody else makes this moment waits for its CPUs, so that processes can join.
#[test]
fn groups_below_a_new_one_can_be_made_at_once() {
    let all = Hierarchies::detect().unwrap();
    let Some(cpuset @ Hierarchy::V1 { .. }) = all.with("cpuset") else {
        return eprintln!("SKIPPED: there is no cpuset hierarchy of v1");
    };
    let name = format!("/creel-test-{}-together", std::process::id());
    for round in 0..50 {
        let parent = Group::new(&all, &format!("{name}/{round}")).unwrap();
        let start = std::sync::Barrier::new(6);
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let (all, start, path) = (&all, &start, format!("{}/{thread}", parent.path));
                scope.spawn(move || {
                    let group = Group::new(all, &path).unwrap();
                    start.wait();
                    group.create().unwrap();
                    for file in ["cpuset.cpus", "cpuset.mems"] {
                        assert!(!files::read(&cpuset.at(&path).join(file)).unwrap().trim().is_empty(), "{file}");
                    }
                });
            }
        });
        parent.remove().unwrap();
    }
    Group::new(&all, &name).unwrap().remove().unwrap();
}
