//! User namespaces: who a container's processes are inside and outside, what is theirs, and what they can do with it.

use std::{
    fs,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt, chown},
    },
    path::Path,
};

use container::{Parts, Stdio, create, exec};
use model::{
    Signal,
    pod::{IdMap, PidMode, UserNamespace},
};
use sys::{ns, process};

use crate::{
    Test,
    world::{DEFAULT_CAPS, LIMIT, NO_FLAGS, World, bind, make_pipes, wait},
};

pub const TESTS: &[Test] = &[
    ("root_is_somebody_else_outside", root_is_somebody_else_outside),
    ("files_are_the_containers", files_are_the_containers),
    ("all_namespaces_belong_to_it", all_namespaces_belong_to_it),
    ("pid_modes_with_a_user_namespace", pid_modes_with_a_user_namespace),
    ("sysctls_with_a_user_namespace", sysctls_with_a_user_namespace),
    ("what_was_mounted_stays", what_was_mounted_stays),
    ("binds_are_shown_by_the_mapping", binds_are_shown_by_the_mapping),
    ("terminals_and_execs_with_a_user_namespace", terminals_and_execs_with_a_user_namespace),
    ("users_that_are_not_mapped_are_refused", users_that_are_not_mapped_are_refused),
    ("the_nodes_network_with_a_user_namespace", the_nodes_network_with_a_user_namespace),
];

const UID: u32 = 70_000_000;
const GID: u32 = 80_000_000;
const MAP: UserNamespace =
    UserNamespace { uids: IdMap { host_id: UID, length: 65_536 }, gids: IdMap { host_id: GID, length: 65_536 } };
const SYS_ADMIN: u64 = 1 << 21;
const NET_ADMIN: u64 = 1 << 12;

fn world() -> World {
    World::with(|plan| plan.userns = Some(MAP))
}

fn root_is_somebody_else_outside() {
    let mut world = world();
    let (code, output) = world.sh("id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; hostname");
    let words: Vec<_> = output.split_whitespace().collect();
    assert_eq!(code, 0, "{output}");
    assert_eq!(words, ["0", "0", "0", "70000000", "65536", "0", "80000000", "65536", "allow", "pod"]);
    fs::create_dir(world.image().join("out")).unwrap();
    fs::set_permissions(world.image().join("out"), fs::Permissions::from_mode(0o777)).unwrap();
    let mut plan = world.plan("id -u; id -G; cat /proc/self/status | grep Cap; touch /out/done; sleep 1000");
    (plan.process.uid, plan.process.gid, plan.process.groups) = (1000, 1001, vec![1001, 7]);
    let (main, pipes) = world.start(&plan).unwrap();
    while !world.dir.path().join("upper-2/out/done").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let status = fs::read_to_string(format!("/proc/{}/status", main.pid.as_raw_nonzero())).unwrap();
    assert!(status.contains(&format!("Uid:\t{0}\t{0}\t{0}\t{0}", UID + 1000)), "{status}");
    assert!(status.contains(&format!("Groups:\t{} {}", GID + 7, GID + 1001)), "{status}");
    process::signal(&main, Signal::KILL).unwrap();
    wait(&main);
    let output = pipes.read();
    assert!(output.starts_with("1000\n1001 7\n"), "{output}");
    assert!(output.contains("CapPrm:\t0000000000000000") && output.contains("CapInh:\t0000000000000000"), "EX-14: {output}");
    assert!(output.contains(&format!("CapBnd:\t{DEFAULT_CAPS:016x}")), "{output}");
}

fn files_are_the_containers() {
    let mut world = world();
    fs::write(world.image().join("etc/mine"), "x").unwrap();
    chown(world.image().join("etc/mine"), Some(33), Some(34)).unwrap();
    let script = "stat -c '%u:%g %n' / /etc/mine /dev /dev/null /dev/pts /dev/pts/ptmx /dev/shm /dev/mqueue /sys/fs/cgroup /dev/fd
        touch /new /dev/new /dev/shm/new && echo y >> /etc/mine && stat -c '%u:%g %n' /new /dev/new /etc/mine
        echo out > /proc/self/fd/1; : > /dev/null; head -c 1 /dev/zero | wc -c; mkdir -p /a/b; ls /proc/self/fd/ > /dev/null";
    let (code, output) = world.sh(script);
    assert_eq!(code, 0, "{output}");
    for line in output.lines().filter(|line| line.contains('/')) {
        let expected = if line.ends_with("/etc/mine") { "33:34 " } else { "0:0 " };
        assert!(line.starts_with(expected), "{line}\n{output}");
    }
    assert!(output.ends_with("out\n1\n"), "{output}");
    let upper = world.dir.path().join("upper-1");
    let owner = |name: &str| upper.join(name).metadata().map(|found| (found.uid(), found.gid())).unwrap();
    assert_eq!((owner("new"), owner("etc/mine"), owner("a/b")), ((0, 0), (33, 34), (0, 0)), "on disk");
    // Of a user that is not root the pipes are, too.
    let mut plan = world.plan("echo hello > /dev/stdout; cat /proc/self/mounts > /dev/null");
    (plan.process.uid, plan.process.gid) = (1000, 1000);
    assert_eq!(world.run(&plan), (0, "hello\n".to_owned()));
}

fn all_namespaces_belong_to_it() {
    let mut world = world();
    let plan = world.plan("sleep 1000");
    let (main, _pipes) = world.start(&plan).unwrap();
    let pid = main.pid.as_raw_nonzero();
    let inode = |file: &fs::File| file.metadata().unwrap().ino();
    let open = |kind: &str| fs::File::open(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let user = inode(&open("user"));
    for kind in ["net", "ipc", "uts", "mnt", "cgroup", "pid"] {
        let owner = fs::File::from(ns::owner(open(kind)).unwrap());
        assert_eq!(inode(&owner), user, "{kind}");
    }
    assert_eq!(inode(&fs::File::open("/proc/self/ns/ipc").unwrap()), inode(&open("ipc")));
    assert_ne!(inode(&fs::File::open("/proc/self/ns/user").unwrap()), user, "the supervisor stays outside");
    process::signal(&main, Signal::KILL).unwrap();
    wait(&main);
    let mut plan = world.plan("hostname other && hostname; mount -t tmpfs x /mnt && mount -t proc x /mnt && umount /mnt; echo $?");
    plan.process.capabilities.permitted |= SYS_ADMIN;
    plan.process.capabilities.bounding |= SYS_ADMIN;
    plan.masked_paths.clear();
    plan.readonly_paths.clear();
    fs::create_dir_all(world.image().join("mnt")).unwrap();
    assert_eq!(world.run(&plan), (0, "other\n0\n".to_owned()), "procMount: Unmasked");
    // A sysctl of the network is its root's to write.
    let mut plan = world.plan("echo 1 > /proc/sys/net/ipv4/ip_forward && cat /proc/sys/net/ipv4/ip_forward");
    plan.process.capabilities.permitted |= NET_ADMIN;
    plan.process.capabilities.bounding |= NET_ADMIN;
    plan.readonly_paths.clear();
    assert_eq!(world.run(&plan), (0, "1\n".to_owned()));
}

fn pid_modes_with_a_user_namespace() {
    let mut world = World::with(|plan| (plan.shared_pid, plan.userns) = (true, Some(MAP)));
    let init = fs::metadata(format!("/proc/{}", world.env().init_pid().unwrap().as_raw_nonzero())).unwrap();
    assert_ne!(init.uid(), 0, "or owned by root for not being dumpable");
    let mut plan = world.plan("cat /proc/1/uid_map; echo $$; sleep 1000");
    plan.pid = PidMode::Pod;
    let (first, pipes) = world.start(&plan).unwrap();
    let (stdio, others) = make_pipes();
    let mut target = world.plan("ls -d /proc/1 >/dev/null && id -u");
    target.pid = PidMode::Target(target.id);
    let parts = Parts { rootfs: world.rootfs(), mounts: Vec::new(), stdio, target: Some(first.as_fd()) };
    let (second, _) = create(world.env(), &target, parts).unwrap().start().unwrap();
    assert_eq!((wait(&second).code(), others.read()), (0, "0\n".to_owned()));
    process::signal(&first, Signal::KILL).unwrap();
    wait(&first);
    let output = pipes.read();
    let words: Vec<_> = output.split_whitespace().collect();
    assert_eq!(words[..3], ["0", "70000000", "65536"], "{output}");
    assert_ne!(words[3], "1");
    assert_eq!(world.sh("echo $$").1, "1\n", "its own");
}

fn sysctls_with_a_user_namespace() {
    let wanted = [
        ("net.ipv4.ip_unprivileged_port_start", "7"),
        ("kernel.shmmni", "77"),
        ("kernel.msgmax", "9000"),
        ("fs.mqueue.msg_max", "11"),
        ("kernel.domainname", "example"),
    ];
    let mut world = World::with(|plan| {
        plan.userns = Some(MAP);
        plan.sysctls = wanted.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    });
    let files = wanted.map(|(key, _)| format!("/proc/sys/{}", key.replace('.', "/"))).join(" ");
    assert_eq!(world.sh(&format!("cat {files}")).1, "7\n77\n9000\n11\nexample\n");
}

fn what_was_mounted_stays() {
    let mut world = world();
    let volume = world.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let script = "umount /dev/shm; umount /proc/keys; mount -o remount,bind,rw /data; touch /data/x; umount -l /data; touch /data/x
        mount -t tmpfs x /tmp && umount /tmp && echo fine; head -c 1 /proc/keys | wc -c";
    let mut plan = world.plan(script);
    plan.mounts.push(bind(&volume, "/data", crate::world::READONLY));
    plan.process.capabilities.permitted |= SYS_ADMIN;
    plan.process.capabilities.bounding |= SYS_ADMIN;
    fs::create_dir_all(world.image().join("tmp")).unwrap();
    let (_, output) = world.run(&plan);
    assert!(output.ends_with("fine\n0\n"), "{output}");
    assert_eq!(fs::read_dir(&volume).unwrap().count(), 0);
}

fn binds_are_shown_by_the_mapping() {
    let mut world = world();
    let volume = world.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "x").unwrap();
    fs::set_permissions(volume.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    chown(volume.join("file"), Some(12), Some(13)).unwrap();
    let mut plan = world.plan(
        "stat -c %u:%g /plain /plain/file /mapped /mapped/file; cat /mapped/file; echo; cat /plain/file
        touch /mapped/new; touch /plain/new; cat /single",
    );
    for (target, idmap) in [("/plain", None), ("/mapped", Some(MAP))] {
        plan.mounts.push(model::plan::MountPlan { idmap, ..bind(&volume, target, NO_FLAGS) });
    }
    plan.mounts.push(model::plan::MountPlan { idmap: Some(MAP), ..bind(&volume.join("file"), "/single", NO_FLAGS) });
    let (_, output) = world.run(&plan);
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines[..5], ["65534:65534", "65534:65534", "0:0", "12:13", "x"], "{output}");
    assert!(lines[5].contains("Permission denied") && lines[6].contains("Permission denied"), "{output}");
    assert!(output.ends_with('x'), "{output}");
    let made = volume.join("new").metadata().unwrap();
    assert_eq!((made.uid(), made.gid()), (0, 0));
    let mut plan = world.plan("true");
    plan.mounts.push(model::plan::MountPlan { idmap: Some(MAP), ..bind(Path::new("/proc/sys/kernel"), "/k", NO_FLAGS) });
    let why = world.refused(&plan);
    assert!(why.contains("bind \"/proc/sys/kernel\": its file system cannot show owners by a mapping"), "{why}");
    // With other mounts below, what can be shown is.
    let mut plan = world.plan("stat -c %u /host /host/etc; stat -c %u /host/proc/version");
    plan.mounts.push(model::plan::MountPlan { idmap: Some(MAP), ..bind(Path::new("/"), "/host", crate::world::READONLY) });
    let (created, pipes) = world.create(&plan).unwrap();
    assert!(created.warnings.iter().any(|text| text.contains("mounts below \"/\"")), "{:?}", created.warnings);
    let (main, _) = created.start().unwrap();
    assert_eq!((wait(&main).code(), pipes.read()), (0, "0\n0\n65534\n".to_owned()));
}

fn terminals_and_execs_with_a_user_namespace() {
    let mut world = world();
    let mut plan = world.plan("tty; stat -c %u:%g $(tty) /dev/console; sleep 1000");
    plan.process.tty = true;
    let (created, _) = world.create(&plan).unwrap();
    let (main, console) = created.start().unwrap();
    let mut text = String::new();
    let console = console.unwrap();
    while text.lines().count() < 3 {
        process::readable(console.as_fd(), LIMIT).unwrap();
        let mut buffer = [0; 1024];
        let length = rustix::io::read(&console, &mut buffer).unwrap();
        text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["/dev/pts/0", "0:5", "0:5"], "{text}");
    let script = "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/mnt /proc/1/ns/mnt | sort -u | wc -l; echo y > /dev/stdout";
    let mut exec_plan = world.exec_plan(script);
    (exec_plan.process.uid, exec_plan.process.gid) = (5, 6);
    let (code, output) = world.exec(&main, &exec_plan).unwrap();
    let words: Vec<_> = output.split_whitespace().collect();
    assert_eq!((code, &words[..4], words.last()), (0, &["5", "0", "70000000", "65536"][..], Some(&"y")), "{output}");
    let (code, output) = world
        .exec(&main, &world.exec_plan("id -u; touch /made; stat -c %u /made; for p in self 1; do for n in user mnt pid net ipc uts cgroup; do readlink /proc/$p/ns/$n; done; done"))
        .unwrap();
    let lines: Vec<_> = output.lines().collect();
    assert_eq!((code, &lines[..2]), (0, &["0", "0"][..]), "{output}");
    let namespaces = &lines[2..];
    assert_eq!(namespaces[..namespaces.len() / 2], namespaces[namespaces.len() / 2..], "{output}");
    let mut terminal = world.exec_plan("tty; stat -c %u:%g $(tty)");
    terminal.process.tty = true;
    (terminal.process.uid, terminal.process.gid) = (5, 6);
    let made = exec(world.env(), main.as_fd(), &terminal, Stdio::Terminal).unwrap();
    assert_eq!(wait(&made.process).code(), 0);
    let mut buffer = [0; 1024];
    let length = rustix::io::read(made.console.unwrap(), &mut buffer).unwrap();
    assert!(String::from_utf8_lossy(&buffer[..length]).contains("/dev/pts/1"));
    process::signal(&main, Signal::KILL).unwrap();
    wait(&main);
}

fn users_that_are_not_mapped_are_refused() {
    let mut world = world();
    let mut plan = world.plan("true");
    plan.process.uid = 65_536;
    let why = world.refused(&plan);
    assert_eq!(why, "user 65536: is not among the ids of the pod's user namespace");
    let mut plan = world.plan("true");
    (plan.process.gid, plan.process.groups) = (70_000, vec![]);
    let started = world.create(&plan).map(drop);
    assert!(started.is_err(), "setresgid(2) has no such group");
}

fn the_nodes_network_with_a_user_namespace() {
    let mut world = World::with(|plan| {
        (plan.own_network, plan.hostname, plan.userns) = (false, None, Some(MAP));
    });
    let (code, output) =
        world.sh("id -u; ls /sys/class/net > /dev/null && readlink /proc/self/ns/net; cat /proc/net/dev | grep -c lo:");
    assert_eq!(code, 0, "{output}");
    let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
    assert_eq!(output, format!("0\n{}\n1\n", own.display()));
    let mut plan = world.plan("hostname changed; echo 1 > /proc/sys/net/ipv4/ip_forward; mount -t sysfs x /sys");
    plan.readonly_paths.clear();
    plan.process.capabilities.permitted |= NET_ADMIN | SYS_ADMIN;
    plan.process.capabilities.bounding |= NET_ADMIN | SYS_ADMIN;
    let (code, output) = world.run(&plan);
    assert!(code != 0 && output.lines().count() == 3, "what is the node's stays the node's: {output}");
}
