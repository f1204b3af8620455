//! Mounts: read-only, recursive, propagating, and the standard tree.

use std::{fs, path::Path, time::Duration};

use model::{
    container::Propagation,
    plan::{DeviceNode, MountFlags, MountKind},
};
use sys::{
    mount::{self as kernel, Attributes, Change, Depth, Filesystem},
    ns::{self, New},
};

use crate::{
    Test,
    world::{NO_FLAGS, READONLY, World, bind, mount, wait},
};

pub const TESTS: &[Test] = &[
    ("the_standard_tree", the_standard_tree),
    ("read_only_roots", read_only_roots),
    ("ex_08_read_only_binds", ex_08_read_only_binds),
    ("mount_points_are_made", mount_points_are_made),
    ("mounts_travel_where_asked", mounts_travel_where_asked),
    ("devices", devices),
    ("nothing_of_the_host_is_left", nothing_of_the_host_is_left),
];

fn the_standard_tree() {
    let mut world = World::new();
    let script = "stat -c '%a %F %n' /dev/null /dev/tty /dev/pts/ptmx; for l in fd ptmx stdin; do readlink /dev/$l; done; \
                  echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; ls -d /dev/mqueue; \
                  touch /sys/x; echo 1 > /proc/sys/kernel/panic; mount | grep ' /dev '";
    let (_, output) = world.sh(script);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], "666 character special file /dev/null", "{output}");
    assert_eq!(
        &lines[2..8],
        ["666 character special file /dev/pts/ptmx", "/proc/self/fd", "pts/ptmx", "/proc/self/fd/0", "3", "3"]
    );
    assert_eq!(output.matches("Read-only file system").count(), 2, "{output}");
    assert!(output.contains("nosuid"), "{output}");
}

fn read_only_roots() {
    let mut world = World::new();
    let mut plan = world.plan("touch /x; touch /etc/x; touch /tmp/x && echo tmp; touch /dev/x && echo dev; touch /data/x; pwd");
    plan.readonly_rootfs = true;
    plan.process.cwd = "/made/for/it".to_owned();
    plan.mounts.push(mount("/tmp", MountKind::Tmpfs { size: Some(1 << 20), mode: 0o1777 }, NO_FLAGS));
    plan.mounts.push(mount("/data", MountKind::Tmpfs { size: None, mode: 0o755 }, READONLY));
    plan.mounts.push(mount("/data/in/it", MountKind::Tmpfs { size: None, mode: 0o755 }, NO_FLAGS));
    let (code, output) = world.run(&plan);
    assert_eq!(code, 0, "{output}");
    assert_eq!(output.matches("Read-only file system").count(), 3, "{output}");
    assert!(output.ends_with("/made/for/it\n") && output.contains("tmp\n") && output.contains("dev\n"), "{output}");
    let mut plan = world.plan("touch /dev/x");
    plan.mounts[1].flags.readonly = true;
    assert!(world.run(&plan).1.contains("Read-only"));
    assert_eq!(world.sh("stat -c %a /tmp").0, 0);
}

fn ex_08_read_only_binds() {
    ns::unshare(New::NEWNS).unwrap();
    kernel::change_all(kernel::Propagation::PRIVATE).unwrap();
    let mut world = World::new();
    let volume = world.dir.path().join("volume");
    fs::create_dir_all(volume.join("below")).unwrap();
    let below = Filesystem::open("tmpfs").unwrap().mount(Attributes::empty()).unwrap();
    kernel::attach_at(&below, volume.join("below").as_path()).unwrap();
    let script = "touch /data/x; touch /data/below/x && echo below; mount | grep ' /data '";
    for (recursive, writable_below) in [(false, true), (true, false)] {
        let mut plan = world.plan(script);
        plan.mounts.push(bind(&volume, "/data", MountFlags { recursive, noexec: true, nosuid: true, nodev: true, ..READONLY }));
        let (_, output) = world.run(&plan);
        assert!(output.contains("/data/x: Read-only file system"), "{output}");
        assert_eq!(output.contains("below\n"), writable_below, "{output}");
        assert!(["ro", "nosuid", "nodev", "noexec"].iter().all(|flag| output.lines().last().unwrap().contains(flag)), "{output}");
    }
    let file = volume.join("file");
    fs::write(&file, "text").unwrap();
    let mut plan = world.plan("cat /etc/motd; echo x > /etc/motd");
    plan.mounts.push(bind(&file, "/etc/motd", READONLY));
    let (_, output) = world.run(&plan);
    assert!(output.starts_with("text") && output.contains("Read-only"), "{output}");
    // The host's own mount stays as it was.
    fs::write(&file, "more").unwrap();
    fs::write(volume.join("below/y"), "more").unwrap();
    let mut plan = world.plan("true");
    plan.mounts.push(bind(Path::new("/no/such/source"), "/data", NO_FLAGS));
    assert_eq!(world.refused(&plan), "bind \"/no/such/source\": no such file or directory");
}

fn mount_points_are_made() {
    let mut world = World::new();
    let volume = world.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "text").unwrap();
    std::os::unix::fs::symlink("/run", world.image().join("var-run")).unwrap();
    let mut plan = world.plan("cat /new/dir/file /new/file /var-run/secrets/file /dev/termination-log; ls -d /run/secrets");
    plan.mounts.push(bind(&volume, "/new/dir", NO_FLAGS));
    plan.mounts.push(bind(&volume.join("file"), "/new/file", NO_FLAGS));
    plan.mounts.push(bind(&volume, "/var-run/secrets", NO_FLAGS));
    plan.mounts.push(bind(&volume.join("file"), "/dev/termination-log", NO_FLAGS));
    assert_eq!(world.run(&plan), (0, format!("{}/run/secrets\n", "text".repeat(4))));
    let mut plan = world.plan("true");
    plan.mounts.push(bind(&volume, "/etc/passwd", NO_FLAGS));
    assert_eq!(world.refused(&plan), "mount \"/etc/passwd\": not a directory");
}

fn mounts_travel_where_asked() {
    // A host of its own, whose mounts may be shared without doing so to the machine's.
    ns::unshare(New::NEWNS).unwrap();
    kernel::change_all(kernel::Propagation::PRIVATE).unwrap();
    let mut world = World::new();
    let volume = world.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let travelling = |propagation| {
        let source = volume.to_str().unwrap().to_owned();
        mount("/data", MountKind::Bind { source, propagation }, NO_FLAGS)
    };
    let mut plan = world.plan("true");
    plan.mounts.push(travelling(Propagation::Bidirectional));
    let error = world.refused(&plan);
    assert!(error.contains("is mounted on \"/\" but it is not a shared mount"), "{error}");
    let mut plan = world.plan("true");
    plan.mounts.push(travelling(Propagation::HostToContainer));
    let (created, _pipes) = world.create(&plan).unwrap();
    assert!(created.warnings[0].contains("it is not a shared or slave mount"), "{:?}", created.warnings);
    created.kill();

    let tmpfs = |mode: Option<kernel::Propagation>| {
        let tmpfs = Filesystem::open("tmpfs").unwrap().mount(Attributes::empty()).unwrap();
        kernel::change(&tmpfs, Depth::Top, &Change { propagation: mode, ..Change::default() }).unwrap();
        tmpfs
    };
    kernel::attach_at(tmpfs(Some(kernel::Propagation::SHARED)), volume.as_path()).unwrap();
    for name in ["host", "inside"] {
        fs::create_dir(volume.join(name)).unwrap();
    }
    for (propagation, arrives_inside, arrives_outside) in [
        (Propagation::Private, false, false),
        (Propagation::HostToContainer, true, false),
        (Propagation::Bidirectional, true, true),
    ] {
        let mut plan = world.plan("mount -t tmpfs x /data/inside && touch /data/inside/seen; cat > /dev/null; ls /data/host");
        plan.mounts.push(travelling(propagation));
        plan.root_propagation = propagation;
        plan.process.capabilities = model::plan::Capabilities { bounding: u64::MAX, permitted: u64::MAX, ambient: 0 };
        let (main, pipes) = world.start(&plan).unwrap();
        let host = tmpfs(None);
        kernel::attach_at(&host, volume.join("host").as_path()).unwrap();
        fs::write(volume.join("host/arrived"), "").unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(volume.join("inside/seen").exists(), arrives_outside, "{propagation:?}");
        let output = pipes.read();
        wait(&main);
        assert_eq!(output == "arrived\n", arrives_inside, "{propagation:?}: {output}");
        kernel::detach(volume.join("host").as_path()).unwrap();
        kernel::detach(volume.join("inside").as_path()).unwrap();
    }
    kernel::detach(volume.as_path()).unwrap();
}

fn devices() {
    let mut world = World::new();
    let node = |path: &str, minor| DeviceNode { path: path.to_owned(), block: false, major: 1, minor, mode: 0o640, uid: 5, gid: 6 };
    let mut plan = world.plan("stat -c '%a %u %g %t:%T %n' /dev/sub/mine /data/zero /dev/zero; head -c 2 /data/zero | wc -c");
    plan.devices = vec![node("/dev/sub/mine", 3), node("/data/zero", 5), node("/dev/zero", 5)];
    let expected = "640 5 6 1:3 /dev/sub/mine\n640 5 6 1:5 /data/zero\n666 0 0 1:5 /dev/zero\n2\n";
    assert_eq!(world.run(&plan).1, expected);
    plan.devices = vec![node("/dev/null", 5)];
    assert_eq!(world.refused(&plan), "make device \"/dev/null\": something else is there");
    plan.devices = vec![node("/etc/passwd", 5)];
    assert_eq!(world.refused(&plan), "make device \"/etc/passwd\": something else is there");
    std::os::unix::fs::symlink("/etc", world.image().join("link")).unwrap();
    plan.devices = vec![node("/link/x", 5)];
    assert!(world.refused(&plan).starts_with("make device \"/link/x\""));
}

fn nothing_of_the_host_is_left() {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut world = World::new();
    let (_, output) = world.sh("cat /proc/self/mountinfo; ls /");
    let upper = world.dir.path().to_str().unwrap().to_owned();
    let foreign: Vec<&str> =
        output.lines().filter(|line| line.contains(" - ") && !line.contains(" - overlay") && line.contains("ext4")).collect();
    assert_eq!(foreign, Vec::<&str>::new(), "{output}");
    assert!(output.lines().next().unwrap().contains(" / / "), "{output}");
    assert!(output.lines().filter(|line| line.contains(" - overlay")).count() == 1 && output.contains(&upper));
    drop(world);
    let mounts = |text: &str| text.lines().map(|line| line.split(' ').nth(4).unwrap().to_owned()).collect::<Vec<_>>();
    let after = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let new: Vec<_> =
        mounts(&after).into_iter().filter(|place| !mounts(&before).contains(place) && place.contains("creel")).collect();
    assert_eq!(new, Vec::<String>::new());
}
