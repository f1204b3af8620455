//! Namespaces: what containers of a pod share, and what they do not.

use std::{fs, os::fd::AsFd, time::Duration};

use container::{Exit, Parts, create};
use model::{ContainerId, Signal, pod::PidMode};
use sys::{
    ns::{self, Kinds, New},
    process::{self, Fork},
};

use crate::{
    Test,
    world::{LIMIT, World, make_pipes, wait},
};

pub const TESTS: &[Test] = &[
    ("the_pod_is_shared", the_pod_is_shared),
    ("pid_namespace_of_the_container", pid_namespace_of_the_container),
    ("pid_namespace_of_the_pod", pid_namespace_of_the_pod),
    ("pid_namespace_of_the_node", pid_namespace_of_the_node),
    ("pid_namespace_of_a_target", pid_namespace_of_a_target),
    ("ex_20_sysctls_are_the_pods", ex_20_sysctls_are_the_pods),
    ("ex_24_cgroups_are_joined_and_shown", ex_24_cgroups_are_joined_and_shown),
    ("the_node_shows_through_where_asked", the_node_shows_through_where_asked),
];

/// A namespace of the process that runs the tests.
fn node(kind: &str) -> std::path::PathBuf {
    let parent = rustix::process::getppid().unwrap().as_raw_nonzero();
    fs::read_link(format!("/proc/{parent}/ns/{kind}")).unwrap()
}

fn the_pod_is_shared() {
    let mut world = World::new();
    assert_eq!(world.sh("hostname; echo x > /dev/shm/note").1, "pod\n");
    assert_eq!(world.sh("cat /dev/shm/note; stat -c %a /dev/shm; grep lo: /proc/net/dev | wc -l").1, "x\n1777\n1\n");
    let (code, output) = world.sh("dd if=/dev/zero of=/dev/shm/big bs=1k count=2000 2>&1; rm /dev/shm/big");
    assert!(code == 0 && output.contains("No space left"), "EX-27: {output}");
    assert_eq!(world.sh("cat /sys/class/net/lo/flags; ls /sys/class/net").1, "0x9\nlo\n");
    let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
    let theirs = world.sh("readlink /proc/self/ns/net").1;
    assert_eq!(own.to_str().unwrap(), theirs.trim());
    assert_ne!(own, node("net"));
    assert!(world.env().network_namespace().is_ok());
}

fn pid_namespace_of_the_container() {
    let mut world = World::new();
    assert_eq!(world.sh("echo $$; ls -d /proc/[0-9]* | wc -l").1, "1\n3\n");
    // The end of the first process is the end of all.
    let plan = world.plan("sleep 1000 & echo $!; exit 4");
    let (main, pipes) = world.start(&plan).unwrap();
    assert_eq!(wait(&main), Exit::Code(4));
    assert_eq!(pipes.read(), "2\n", "the pipe is closed, so the child is dead");
}

fn pid_namespace_of_the_pod() {
    let mut world = World::with(|plan| plan.shared_pid = true);
    let mut plan = world.plan("(sleep 0.05 &) ; ls -d /proc/1 /proc/$$; echo $$; cat");
    plan.pid = PidMode::Pod;
    let (first, first_pipes) = world.start(&plan).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    plan.process = crate::world::shell("ps -o pid,comm; ls /proc/1/root /proc/1/cwd /proc/1/exe; readlink /proc/1/exe");
    let (_, output) = world.run(&plan);
    assert!(output.contains("cat"), "the other container is seen: {output}");
    assert!(!output.contains("Z"), "orphans are collected: {output}");
    assert!(output.contains("Permission denied") || output.contains("cannot"), "the init cannot be looked into: {output}");
    let init = world.env().init_pid().unwrap().as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    assert!(status.contains("CapPrm:\t0000000000000000") && status.contains("NoNewPrivs:\t1"), "{status}");
    assert_eq!(fs::read_dir(format!("/proc/{init}/fd")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(format!("/proc/{init}/root")).unwrap().count(), 0);
    // The end of one container is not the end of the others; the end of the init is.
    assert_eq!(process::try_wait(&first), Ok(None));
    let exec = world.exec_plan("echo $PPID; ls -d /proc/1");
    assert_eq!(world.exec(&first, &exec).unwrap().1, "0\n/proc/1\n");
    process::signal(world.env().init().unwrap(), Signal::KILL).unwrap();
    assert_eq!(wait(&first), Exit::Signal(Signal::KILL));
    plan.process = crate::world::shell("true");
    assert!(world.refused(&plan).contains("ended"));
    world.env.take().unwrap().close().unwrap();
    drop(first_pipes);
}

fn pid_namespace_of_the_node() {
    let mut world = World::new();
    let mut plan = world.plan("echo $$");
    plan.pid = PidMode::Node;
    let (main, pipes) = world.start(&plan).unwrap();
    wait(&main);
    assert_eq!(pipes.read().trim(), main.pid.as_raw_nonzero().to_string());
    plan.pid = PidMode::Pod;
    assert_eq!(world.refused(&plan), "pid namespace: the pod has no shared one");
}

fn pid_namespace_of_a_target() {
    let mut world = World::new();
    let plan = world.plan("sleep 1000");
    let (target, _target_pipes) = world.start(&plan).unwrap();
    let mut plan = world.plan("ps -o pid,args | grep 'sleep 100[0]'; ls /proc/1/root/; echo $PPID");
    plan.pid = PidMode::Target(ContainerId::from_bytes([7; 32]));
    assert_eq!(world.refused(&plan), "pid namespace: no target is given");
    let (stdio, pipes) = make_pipes();
    let parts = Parts { rootfs: world.rootfs(), mounts: Vec::new(), stdio, target: Some(target.as_fd()) };
    let (main, _) = create(world.env(), &plan, parts).unwrap().start().unwrap();
    wait(&main);
    let output = pipes.read();
    assert!(output.starts_with("    1 sleep 1000\n") && output.ends_with("\n0\n"), "{output}");
    process::signal(&target, Signal::KILL).unwrap();
    wait(&target);
    let (stdio, _pipes) = make_pipes();
    let parts = Parts { rootfs: world.rootfs(), mounts: Vec::new(), stdio, target: Some(target.as_fd()) };
    assert!(create(world.env(), &plan, parts).unwrap_err().to_string().contains("ended"));
}

fn ex_20_sysctls_are_the_pods() {
    let read = |file: &str| fs::read_to_string(format!("/proc/sys/{file}")).unwrap();
    let files = ["net/ipv4/ip_unprivileged_port_start", "kernel/shm_rmid_forced"];
    let before = files.map(read);
    let node =
        [("net", Kinds::NETWORK), ("ipc", Kinds::INTER_PROCESS_COMMUNICATION)].map(|(name, kind)| (ns::own(name).unwrap(), kind));
    let mut world = World::with(|plan| {
        plan.sysctls = [("net.ipv4.ip_unprivileged_port_start", "77"), ("kernel.shm_rmid_forced", "1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
    });
    assert_eq!(world.sh(&format!("cat /proc/sys/{} /proc/sys/{}", files[0], files[1])).1, "77\n1\n");
    // And what the node has, asked from its namespaces.
    let Fork::Parent(asker) = process::fork(New::empty(), None).unwrap() else {
        for (namespace, kind) in &node {
            ns::enter_link(namespace, *kind).unwrap();
        }
        process::exit_now(i32::from(files.map(read) != before));
    };
    assert_eq!(wait(&asker), Exit::Code(0));
}

fn ex_24_cgroups_are_joined_and_shown() {
    let mut world = World::new();
    let path = format!("{}/container", world.base);
    let plan = world.plan("cat /proc/self/cgroup; cat");
    let (main, pipes) = world.start(&plan).unwrap();
    let host = fs::read_to_string(format!("/proc/{}/cgroup", main.pid.as_raw_nonzero())).unwrap();
    let joined = host.lines().filter(|line| line.ends_with(&format!(":{path}"))).count();
    assert_eq!(joined, world.hierarchies.mounts().count(), "in every hierarchy: {host}");
    let exec = world.exec_plan(
        "ls /sys/fs/cgroup; for d in /sys/fs/cgroup/*; do mkdir $d/x; done; for f in /sys/fs/cgroup/*/tasks; do echo 0 > $f; done",
    );
    let (_, output) = world.exec(&main, &exec).unwrap();
    assert!(!output.is_empty() && !output.contains("unified"), "{output}");
    let attempts = output.matches("Read-only file system").count();
    assert!(attempts > world.hierarchies.mounts().count(), "mkdir and write are refused: {output}");
    drop(pipes.stdin);
    let script = "cat /proc/self/cgroup | grep -v ':/$' | grep -v '^0::' | wc -l; find /sys/fs/cgroup -name release_agent | wc -l";
    assert_eq!(world.sh(script).1, "0\n0\n", "the own group is the root");
    let mut plan = world.plan("mkdir /sys/fs/cgroup/pids/x && ls -d /sys/fs/cgroup/pids/x");
    plan.mounts.last_mut().unwrap().flags.readonly = false;
    if world.hierarchies.has("pids") && world.hierarchies.version() == sys::cgroup::Version::V1 {
        assert_eq!(world.run(&plan).1, "/sys/fs/cgroup/pids/x\n");
    }
    process::wait(&main, LIMIT).unwrap();
}

fn the_node_shows_through_where_asked() {
    let mut world = World::with(|plan| {
        plan.own_network = false;
        plan.own_ipc = false;
        plan.hostname = None;
    });
    let output = world.sh("for kind in net ipc uts; do readlink /proc/self/ns/$kind; done").1;
    let lines: Vec<&str> = output.lines().collect();
    for (line, kind) in lines.iter().zip(["net", "ipc", "uts"]) {
        assert_eq!(*line, node(kind).to_str().unwrap());
    }
    assert_eq!(lines.len(), 3);
    let mut plan = world.plan("cat /sys/kernel/mm/transparent_hugepage/enabled > /dev/null; mount | grep -c ' /sys '");
    for mount in &mut plan.mounts {
        if mount.target == "/sys" {
            (mount.kind, mount.flags.readonly) = (model::plan::MountKind::HostSysfs, false);
        }
    }
    assert_eq!(world.run(&plan), (0, "1\n".to_owned()));
}
