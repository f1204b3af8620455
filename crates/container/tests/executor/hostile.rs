//! Images, volumes and plans that try to get out.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use model::{Signal, plan::MountKind};
use sys::{
    ns::New,
    process::{self, Fork},
};

use crate::{
    Test,
    world::{NO_FLAGS, World, bind, describe, mount, wait},
};

pub const TESTS: &[Test] = &[
    ("ex_02_descriptors_do_not_leak", ex_02_descriptors_do_not_leak),
    ("ex_02_working_directories_stay_inside", ex_02_working_directories_stay_inside),
    ("ex_03_swapped_mount_points_stay_inside", ex_03_swapped_mount_points_stay_inside),
    ("ex_04a_proc_and_sys_must_be_directories", ex_04a_proc_and_sys_must_be_directories),
    ("ex_04b_nothing_is_mounted_over_proc", ex_04b_nothing_is_mounted_over_proc),
    ("ex_05_masks_do_not_come_from_the_image", ex_05_masks_do_not_come_from_the_image),
    ("ex_06_terminals_do_not_come_from_the_image", ex_06_terminals_do_not_come_from_the_image),
    ("ex_07_linked_directories_touch_nothing_outside", ex_07_linked_directories_touch_nothing_outside),
    ("ex_09_working_directories_are_made_inside", ex_09_working_directories_are_made_inside),
    ("ex_10_files_over_links_stay_inside", ex_10_files_over_links_stay_inside),
];

fn ex_02_descriptors_do_not_leak() {
    let mut world = World::new();
    let leaks: Vec<_> = ["/", "/etc/shadow", "/dev/null"]
        .iter()
        .cycle()
        .take(50)
        .map(|path| rustix::io::dup(fs::File::open(path).unwrap()).unwrap())
        .collect();
    // 3 is the directory being listed.
    let script = "ls /proc/self/fd; cat";
    let plan = world.plan(script);
    let (main, pipes) = world.start(&plan).unwrap();
    let exec = world.exec_plan("ls /proc/self/fd");
    assert_eq!(world.exec(&main, &exec).unwrap().1, "0\n1\n2\n3\n");
    drop(leaks);
    assert_eq!(pipes.read(), "0\n1\n2\n3\n");
    wait(&main);
}

fn ex_02_working_directories_stay_inside() {
    let mut world = World::new();
    let leak = rustix::io::dup(fs::File::open("/").unwrap()).unwrap();
    let image = world.image();
    symlink("/proc/self/fd/7", image.join("link")).unwrap();
    symlink("/proc/1/cwd", image.join("cwd")).unwrap();
    let mut paths: Vec<String> = (3..64).map(|n| format!("/proc/self/fd/{n}")).collect();
    paths.extend(["/proc/self/fd/7/../../..", "/link", "/cwd", "/proc/1/cwd", "/proc/self/root"].map(str::to_owned));
    let plan = world.plan("cat");
    let (main, _pipes) = world.start(&plan).unwrap();
    for path in paths {
        let mut plan = world.plan("pwd");
        plan.process.cwd.clone_from(&path);
        let error = world.refused(&plan);
        assert!(error.contains("leads outside") || error.contains("no such file"), "{path}: {error}");
        let mut plan = world.exec_plan("pwd");
        plan.process.cwd.clone_from(&path);
        let error = describe(&world.exec(&main, &plan).unwrap_err());
        assert!(error.contains("leads outside") || error.contains("no such file"), "{path}: {error}");
    }
    drop(leak);
}

fn ex_03_swapped_mount_points_stay_inside() {
    let mut world = World::new();
    let volume = world.dir.path().join("volume");
    fs::create_dir_all(volume.join("a/b")).unwrap();
    let canary = world.canary();
    symlink(&canary, volume.join("swap")).unwrap();
    let Fork::Parent(racer) = process::fork(New::empty(), None).unwrap() else {
        loop {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            let here = rustix::fs::CWD;
            let _ = rustix::fs::renameat_with(here, volume.join("a"), here, volume.join("swap"), flags);
        }
    };
    let mut made = 0;
    for _ in 0..150 {
        let mut plan = world.plan("true");
        plan.mounts.push(bind(&volume, "/data", NO_FLAGS));
        for target in ["/data/a/b", "/data/a/new/dir", "/data/a/b/c"] {
            plan.mounts.push(mount(target, MountKind::Tmpfs { size: None, mode: 0o755 }, NO_FLAGS));
        }
        // Inside, or a clean refusal.
        if let Ok((created, pipes)) = world.create(&plan) {
            made += 1;
            created.kill();
            drop(pipes);
        }
    }
    process::signal(&racer, Signal::KILL).unwrap();
    wait(&racer);
    world.assert_canary();
    assert!(made > 0, "the race is not so hard that nothing works");
}

fn ex_04a_proc_and_sys_must_be_directories() {
    for name in ["proc", "sys", "dev"] {
        let mut world = World::new();
        let image = world.image();
        fs::remove_dir(image.join(name)).unwrap();
        symlink("/x", image.join(name)).unwrap();
        fs::create_dir(image.join("x")).unwrap();
        let plan = world.plan("true");
        let error = world.refused(&plan);
        assert_eq!(error, format!("mount \"/{name}\": must be an ordinary directory, not a symbolic link"));
        fs::remove_file(image.join(name)).unwrap();
        fs::write(image.join(name), "").unwrap();
        assert!(world.refused(&plan).ends_with("must be an ordinary directory"));
    }
}

fn ex_04b_nothing_is_mounted_over_proc() {
    let mut world = World::new();
    let volume = world.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "mine").unwrap();
    symlink("/proc", world.image().join("link")).unwrap();
    let directories =
        ["/proc", "/proc/self", "/proc/self/attr", "/proc/sys", "/proc/../proc", "/link/sys", "/proc/1", "//proc//sys"];
    for target in directories {
        let mut plan = world.plan("true");
        plan.mounts.push(bind(&volume, target, NO_FLAGS));
        let error = world.refused(&plan);
        assert!(error.contains("the target is inside of /proc") || error.contains("permission"), "{target}: {error}");
    }
    for target in ["/proc/sysrq-trigger", "/proc/self/attr/current", "/proc/self/exe", "/link/version"] {
        let mut plan = world.plan("true");
        plan.mounts.push(bind(&volume.join("file"), target, NO_FLAGS));
        let error = world.refused(&plan);
        assert!(!error.is_empty(), "{target}: {error}");
    }
    for target in ["/", "/.", "/data/..", "//"] {
        let mut plan = world.plan("true");
        plan.mounts.push(bind(&volume, target, NO_FLAGS));
        assert!(world.refused(&plan).ends_with("the target is the container's root"), "{target}");
    }
    let mut plan = world.plan("cat /proc/meminfo");
    plan.mounts.push(bind(&volume.join("file"), "/proc/meminfo", NO_FLAGS));
    assert_eq!(world.run(&plan), (0, "mine".to_owned()));
    // The whole of another procfs may be shown there.
    let mut plan = world.plan("test -d /proc/1");
    plan.mounts.push(bind(Path::new("/proc"), "/proc", NO_FLAGS));
    assert_eq!(world.run(&plan).0, 0);
}

fn ex_05_masks_do_not_come_from_the_image() {
    let mut world = World::new();
    let image = world.image();
    symlink("/proc/sys/kernel/core_pattern", image.join("dev/null")).unwrap();
    // Without a /dev of ours the image's own is seen, as with a volume bound there.
    let mut plan = world.plan(
        "for f in /proc/keys /proc/timer_list; do cat $f || exit 1; : > $f; done; ls /proc/acpi /proc/scsi /sys/firmware; \
         touch /sys/firmware/x 2>/dev/null; umount /proc/keys 2>/dev/null; rm /proc/keys 2>/dev/null; \
         cat /proc/keys | wc -c; echo x > /proc/sys/kernel/core_pattern; mount | grep -c ' /proc/k'",
    );
    plan.mounts.retain(|mount| !mount.target.starts_with("/dev"));
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let (_, output) = world.run(&plan);
    assert!(output.contains("core_pattern: Read-only file system"), "{output}");
    assert!(output.contains("\n0\n") || output.starts_with("0\n"), "masked files are empty: {output}");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
}

fn ex_06_terminals_do_not_come_from_the_image() {
    let mut world = World::new();
    let (image, canary) = (world.image(), world.canary());
    fs::create_dir(image.join("dev/pts")).unwrap();
    for name in ["dev/pts/0", "dev/ptmx", "dev/console"] {
        symlink(canary.join("ptmx"), image.join(name)).unwrap();
    }
    let mut plan = world.plan("tty > /tty; stat -c %F /dev/console >> /tty; cat /tty > /dev/console; sleep 1000");
    plan.process.tty = true;
    let (created, _) = world.create(&plan).unwrap();
    let (main, console) = created.start().unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 256]);
    while !text.contains("file") {
        let length = rustix::io::read(console.as_ref().unwrap(), &mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    assert_eq!(text, "/dev/pts/0\r\ncharacter special file\r\n", "{text}");
    // An exec looks for the terminals of the container, and finds something else there.
    let evil = world.plan("rm -f /dev/console; umount /dev/pts; ln -s /proc/self/fd /dev/x; sleep 1000");
    let mut evil_plan = evil;
    evil_plan.process.capabilities = all_capabilities();
    let (other, pipes) = world.start(&evil_plan).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let mut exec = world.exec_plan("tty");
    exec.process.tty = true;
    let error = container::exec(world.env(), std::os::fd::AsFd::as_fd(&other), &exec, container::Stdio::Terminal).unwrap_err();
    assert_eq!(describe(&error), "open /dev/pts: the container has no devpts there");
    for process in [main, other] {
        process::signal(&process, Signal::KILL).unwrap();
        wait(&process);
    }
    drop(pipes);
    world.assert_canary();
}

fn all_capabilities() -> model::plan::Capabilities {
    model::plan::Capabilities { bounding: u64::MAX, permitted: u64::MAX, ambient: 0 }
}

fn ex_07_linked_directories_touch_nothing_outside() {
    let names = ["dev", "run", "etc", "data"];
    for name in names {
        let mut world = World::new();
        let (image, canary) = (world.image(), world.canary());
        let place = image.join(name);
        fs::remove_dir_all(&place).unwrap();
        symlink(&canary, &place).unwrap();
        let file = world.dir.path().join("hosts-file");
        fs::write(&file, "host").unwrap();
        let mut plan = world.plan("cat /etc/hosts");
        plan.process.cwd = format!("/{name}/work");
        plan.mounts.push(bind(&file, "/etc/hosts", NO_FLAGS));
        plan.mounts.push(mount(&format!("/{name}/sub"), MountKind::Tmpfs { size: None, mode: 0o755 }, NO_FLAGS));
        // The link is absolute: in the root it leads to a directory that is made there.
        match world.create(&plan) {
            Ok((created, pipes)) => {
                assert_ne!(name, "dev");
                let (main, _) = created.start().unwrap();
                assert_eq!(wait(&main).code(), 0);
                assert_eq!(pipes.read(), "host");
            }
            Err(error) => assert_eq!(name, "dev", "{}", describe(&error)),
        }
        world.assert_canary();
    }
    // Below /dev everything is on a tmpfs of ours.
    let mut world = World::new();
    for name in ["pts", "shm", "mqueue", "fd"] {
        symlink(world.canary(), world.image().join("dev").join(name)).unwrap();
    }
    assert_eq!(world.sh("touch /dev/shm/x && test -c /dev/pts/ptmx && readlink /dev/fd"), (0, "/proc/self/fd\n".to_owned()));
    world.assert_canary();
}

fn ex_09_working_directories_are_made_inside() {
    for link in ["/", "/proc/1/root", "../../../..", "CANARY"] {
        let mut world = World::new();
        let target = if link == "CANARY" { world.canary() } else { PathBuf::from(link) };
        symlink(&target, world.image().join("a")).unwrap();
        let mut plan = world.plan("pwd; test -d /a/b/c");
        plan.process.cwd = "/a/b/c".to_owned();
        let outside = Path::new("/b").exists();
        match world.create(&plan) {
            Ok((created, pipes)) => {
                let (main, _) = created.start().unwrap();
                assert_eq!(wait(&main).code(), 0, "{link}");
                assert!(pipes.read().contains("/b/c"));
            }
            Err(error) => assert!(describe(&error).contains("leads outside"), "{link}: {}", describe(&error)),
        }
        assert_eq!(Path::new("/b").exists(), outside);
        world.assert_canary();
    }
}

fn ex_10_files_over_links_stay_inside() {
    let mut world = World::new();
    let (image, canary) = (world.image(), world.canary());
    let file = world.dir.path().join("ours");
    fs::write(&file, "ours").unwrap();
    for kind in ["link", "relative", "dangling", "fifo", "directory"] {
        let place = image.join("etc/hosts");
        let _ = fs::remove_file(&place);
        let _ = fs::remove_dir(&place);
        match kind {
            "link" => symlink(canary.join("hosts"), &place).unwrap(),
            "relative" => symlink("../../../../../../../../etc/hostname", &place).unwrap(),
            "dangling" => symlink("/nowhere/at/all", &place).unwrap(),
            "fifo" => rustix::fs::mkfifoat(rustix::fs::CWD, &place, rustix::fs::Mode::from_raw_mode(0o600)).unwrap(),
            _ => fs::create_dir(&place).unwrap(),
        }
        let mut plan = world.plan("cat /etc/hosts");
        plan.mounts.push(bind(&file, "/etc/hosts", NO_FLAGS));
        match world.create(&plan) {
            Ok((created, pipes)) => {
                let (main, _) = created.start().unwrap();
                wait(&main);
                assert_eq!(pipes.read(), "ours", "{kind}");
            }
            Err(error) => assert!(describe(&error).starts_with("mount \"/etc/hosts\": "), "{kind}: {}", describe(&error)),
        }
        world.assert_canary();
    }
}
