//! What people bring along from docker: images with links where the engine mounts its files, copies through mounts, ports by all
//! their spellings, user namespaces, volumes in memory, events of probes.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    check,
    daemon::{Daemon, bin},
    image::Layer,
    pods,
};

const PATIENCE: Duration = Duration::from_secs(90);
const IMAGE: &str = "base:1";

/// A daemon with an image of the test's own.
struct Ground {
    daemon: Daemon,
    home: tempfile::TempDir,
}

impl Ground {
    async fn new() -> Self {
        let ground = Self { daemon: Daemon::start().await, home: tempfile::tempdir().unwrap() };
        ground.import(Layer::busybox(), IMAGE);
        ground
    }

    fn import(&self, layer: Layer, name: &str) {
        let tar = self.home.path().join("import.tar");
        fs::write(&tar, layer.tar()).unwrap();
        self.ok(&["import", "-c", "ENV PATH=/bin", tar.to_str().unwrap(), name]);
    }

    fn ok(&self, args: &[&str]) -> String {
        self.daemon.creel_ok(args)
    }

    /// Exit code, and what is said of it.
    fn refused(&self, args: &[&str]) -> (i32, String) {
        let output = self.daemon.creel(args);
        assert!(!output.status.success(), "creel {args:?} should fail");
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    fn exec(&self, name: &str, script: &str) -> String {
        self.ok(&["exec", name, "sh", "-c", script])
    }

    fn inspect(&self, name: &str) -> Value {
        let all: Value = serde_json::from_str(&self.ok(&["inspect", name])).unwrap();
        all[0].clone()
    }

    fn until(&self, what: &str, mut probe: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !probe() {
            assert!(Instant::now() < deadline, "never: {what}\n{}", self.daemon.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    async fn finish(self) {
        check::nothing_left(&self.daemon);
        self.daemon.finish().await;
    }
}

/// An image whose files are where systemd-resolved and others have them, or somebody wants them to be.
fn linked() -> Layer {
    Layer::busybox()
        .symlink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
        .symlink("etc/hosts", "/../../../../etc/creel-test-hosts")
        .symlink("etc/hostname", "/data/name")
        .symlink("loop", "loop")
        .symlink("out", "../../../..")
}

const LOOK: &str = "cat /run/systemd/resolve/stub-resolv.conf > /dev/null && cat /etc/creel-test-hosts && cat /etc/hostname";

#[tokio::test(flavor = "multi_thread")]
async fn links_in_images_lead_inside() {
    let ground = Ground::new().await;
    ground.import(linked(), "linked:1");
    let said = ground.ok(&["run", "--name", "one", "--hostname", "me", "linked:1", "sh", "-c", LOOK]);
    assert!(said.contains("localhost") && said.ends_with("me"), "{said}");
    // What was made to mount on is nothing that the container has changed.
    assert_eq!(ground.ok(&["diff", "one"]), "");
    ground.ok(&["rm", "one"]);

    // Through a volume, and through a directory of this machine: what is missing there is made there.
    let host = ground.at("host");
    fs::create_dir(&host).unwrap();
    let bind = format!("{}:/data", host.display());
    ground.ok(&["run", "--rm", "-v", "data:/data", "linked:1", "sh", "-c", LOOK]);
    ground.ok(&["run", "--rm", "-v", &bind, "linked:1", "sh", "-c", LOOK]);
    assert!(fs::metadata(host.join("name")).is_ok_and(|made| made.len() == 0));
    assert!(!Path::new("/etc/creel-test-hosts").exists() && !Path::new("/data/name").exists(), "it has left its root");

    // Other files and directories are mounted by the same rules.
    fs::write(ground.at("file"), "text").unwrap();
    let file = |target: &str| format!("{}:{target}", ground.at("file").display());
    let out = ground.ok(&["run", "--rm", "-v", &file("/out/out/etc/new/file"), "linked:1", "cat", "/etc/new/file"]);
    assert_eq!(out, "text");
    let (code, said) = ground.refused(&["run", "--rm", "-v", &file("/loop/file"), "linked:1", "true"]);
    assert!(code != 0 && said.contains("/loop/file"), "{said}");

    // RUN of a build: its layer has nothing of it.
    fs::create_dir(ground.at("context")).unwrap();
    fs::write(ground.at("context/Dockerfile"), format!("FROM linked:1\nRUN {LOOK} && echo 1 > /made\n")).unwrap();
    ground.ok(&["build", "-q", "-t", "linked:2", ground.at("context").to_str().unwrap()]);
    let gone = "ls /made && ! ls /run/systemd/resolve/x /data";
    ground.ok(&["run", "--rm", "linked:2", "sh", "-c", gone]);
    let tar = ground.at("saved.tar");
    ground.ok(&["create", "--name", "two", "linked:2", "true"]);
    ground.ok(&["export", "-o", tar.to_str().unwrap(), "two"]);
    let names = names(&tar);
    assert!(names.iter().any(|name| name == "made") && !names.iter().any(|name| name.contains("systemd")), "{names:?}");
    ground.ok(&["rm", "two"]);

    // A kubelet's pod.
    let mut runtime = ground.daemon.runtime().await;
    let config = pods::pod("linked");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", "linked:1", "sleep 1000")).await;
    let (code, out, err) = pods::exec(&mut runtime, &id, &["sh", "-c", LOOK]).await;
    assert!(code == 0 && out.ends_with("linked"), "{out}{err}");
    let remove = api::runtime::RemovePodSandboxRequest { pod_sandbox_id: pod };
    runtime.remove_pod_sandbox(remove).await.unwrap();
    ground.ok(&["volume", "rm", "data"]);
    ground.finish().await;
}

/// The names in an archive, without slashes around them.
fn names(tar: &Path) -> Vec<String> {
    let bytes = fs::read(tar).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let name = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        entry.unwrap().path().unwrap().to_string_lossy().trim_matches('/').to_owned()
    };
    archive.entries().unwrap().map(name).collect()
}

/// Copies both ways, through volumes and files of this machine inside of what is copied, running or not.
#[tokio::test(flavor = "multi_thread")]
async fn copies_see_what_the_container_sees() {
    use std::os::unix::fs::MetadataExt as _;
    let ground = Ground::new().await;
    let at = |name: &str| ground.at(name).display().to_string();
    fs::create_dir_all(ground.at("host/sub")).unwrap();
    fs::write(ground.at("host/sub/file"), "of the host").unwrap();
    fs::write(ground.at("config"), "mounted").unwrap();
    let (bind, file) = (format!("{}:/top/bind", at("host")), format!("{}:/top/config", at("config")));
    let setup = "echo 1 > /top/own; echo 2 > /top/volume/in; busybox ln -s volume /top/link; busybox ln /top/own /top/again; \
                 dd if=/dev/zero of=/top/holes bs=1 count=1 seek=33554431 2> /dev/null; sleep 1000";
    let mounts = ["-v", "data:/top/volume", "-v", &bind, "-v", &file, "--tmpfs", "/top/memory"];
    ground.ok(&[&["run", "-d", "--name", "one"][..], &mounts, &[IMAGE, "sh", "-c", setup]].concat());
    ground.until("the files", || {
        ground.daemon.creel(&["exec", "one", "ls", "/top/holes"]).status.success()
            && ground.exec("one", "stat -c %s /top/holes") == "33554432"
    });
    ground.exec("one", "echo 3 > /top/memory/gone");

    for (round, stopped) in [("running", false), ("stopped", true)] {
        if stopped {
            ground.ok(&["stop", "-t", "0", "one"]);
        }
        let out = ground.at(round);
        ground.ok(&["cp", "one:/top", &out.display().to_string()]);
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap_or_else(|e| panic!("{round} {name}: {e}"));
        assert_eq!((read("own"), read("volume/in"), read("link/in")), ("1\n".into(), "2\n".into(), "2\n".into()));
        assert_eq!((read("bind/sub/file"), read("config")), ("of the host".into(), "mounted".into()));
        assert_eq!(out.join("memory/gone").exists(), !stopped, "memory is there while it runs");
        let (own, again) = (fs::metadata(out.join("own")).unwrap(), fs::metadata(out.join("again")).unwrap());
        assert_eq!(own.ino(), again.ino(), "two names are one file");
        let holes = fs::metadata(out.join("holes")).unwrap();
        assert!(holes.len() == 1 << 25 && holes.blocks() * 512 < 1 << 23, "{} {}", holes.len(), holes.blocks());
        // Through a link into a volume, and one file.
        ground.ok(&["cp", "one:/top/link/in", &at("single")]);
        assert_eq!(fs::read_to_string(ground.at("single")).unwrap(), "2\n");
        ground.ok(&["cp", "one:/top/config", &at("single")]);
        assert_eq!(fs::read_to_string(ground.at("single")).unwrap(), "mounted");

        // Into what is mounted below the directory that is copied to.
        let source = ground.at(&format!("in-{round}"));
        fs::create_dir_all(source.join("volume/new")).unwrap();
        fs::create_dir_all(source.join("bind")).unwrap();
        fs::write(source.join("volume/new/file"), round).unwrap();
        fs::write(source.join("bind/back"), round).unwrap();
        ground.ok(&["cp", &format!("{}/.", source.display()), "one:/top"]);
        assert_eq!(fs::read_to_string(ground.at("host/back")).unwrap(), round);
        let seen = ground.ok(&["run", "--rm", "-v", "data:/data", IMAGE, "cat", "/data/new/file"]);
        assert_eq!(seen, round);
        // A file that is mounted there is not taken away.
        let (_, said) = ground.refused(&["cp", &at("single"), "one:/top/config"]);
        assert!(said.contains("busy"), "{said}");
    }
    ground.ok(&["start", "one"]);
    assert_eq!(ground.exec("one", "cat /top/config /top/bind/back"), "mountedstopped");
    ground.ok(&["rm", "-f", "one"]);

    // Before it has ever run.
    ground.ok(&[&["create", "--name", "new"][..], &mounts, &[IMAGE, "true"]].concat());
    ground.ok(&["cp", "new:/top/volume/new/file", &at("single")]);
    assert_eq!(fs::read_to_string(ground.at("single")).unwrap(), "stopped");
    ground.ok(&["rm", "new"]);
    ground.ok(&["volume", "rm", "data"]);
    ground.finish().await;
}

/// What files have beside their bytes goes both ways; archives on standard input and output, links followed or not.
#[tokio::test(flavor = "multi_thread")]
async fn copies_keep_what_files_have() {
    use std::os::unix::fs::MetadataExt as _;
    let ground = Ground::new().await;
    let at = |name: &str| ground.at(name).display().to_string();
    fs::create_dir(ground.at("d")).unwrap();
    fs::write(ground.at("d/a"), "x").unwrap();
    fs::hard_link(ground.at("d/a"), ground.at("d/b")).unwrap();
    std::os::unix::fs::symlink("a", ground.at("d/link")).unwrap();
    std::os::unix::fs::chown(ground.at("d/a"), Some(1234), Some(5678)).unwrap();
    // cap_net_raw, as setcap(8) writes it (struct vfs_cap_data, revision 2).
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    let attributes = rustix::fs::setxattr(ground.at("d/a"), "security.capability", &capability, flags).is_ok()
        && rustix::fs::setxattr(ground.at("d/a"), "user.note", b"kept", flags).is_ok();
    if !attributes {
        eprintln!("SKIPPED: this file system has no extended attributes");
    }
    ground.ok(&["run", "-d", "--name", "one", IMAGE, "sleep", "1000"]);
    ground.ok(&["cp", &at("d"), "one:/plain"]);
    ground.ok(&["cp", "-a", &at("d"), "one:/archive"]);
    assert_eq!(ground.exec("one", "stat -c '%u %g %h' /plain/a /archive/a"), "0 0 2\n1234 5678 2");
    for (flag, owner) in [(None, 0), (Some("-a"), 1234)] {
        let target = at(&format!("out{owner}"));
        ground.ok(&[&["cp"][..], flag.as_slice(), &["one:/archive", &target]].concat());
        let copied = fs::metadata(format!("{target}/a")).unwrap();
        assert_eq!((copied.uid(), copied.nlink()), (owner, 2));
        let mut value = [0; 64];
        for (name, wanted) in [("security.capability", &capability[..]), ("user.note", b"kept")] {
            if attributes {
                let length = rustix::fs::getxattr(format!("{target}/a"), name, &mut value[..]).unwrap();
                assert_eq!(&value[..length], wanted, "{name}");
            }
        }
    }
    // A link is a link, unless what it leads to is asked for.
    ground.ok(&["cp", "one:/plain/link", &at("link")]);
    assert!(fs::symlink_metadata(ground.at("link")).unwrap().is_symlink());
    ground.ok(&["cp", "-L", "one:/plain/link", &at("followed")]);
    assert_eq!(fs::read_to_string(ground.at("followed")).unwrap(), "x");
    ground.ok(&["cp", "-L", &at("d/link"), "one:/followed"]);
    assert_eq!(ground.exec("one", "cat /followed"), "x");

    let tar = ground.at("out.tar");
    let piped = |args: &[&str], stdin: Stdio, stdout: Stdio| {
        let mut command = Command::new(bin("creel"));
        command.args(args).env("CREEL_SOCKET", ground.daemon.socket()).stdin(stdin).stdout(stdout);
        assert!(command.status().unwrap().success(), "{args:?}");
    };
    piped(&["cp", "one:/archive", "-"], Stdio::null(), fs::File::create(&tar).unwrap().into());
    assert_eq!(names(&tar), ["archive", "archive/a", "archive/b", "archive/link"]);
    piped(&["cp", "-a", "-", "one:/tmp"], fs::File::open(&tar).unwrap().into(), Stdio::null());
    assert_eq!(ground.exec("one", "stat -c '%u %h' /tmp/archive/a"), "1234 2");
    ground.ok(&["rm", "-f", "one"]);
    ground.finish().await;
}

/// Ports by all the ways of saying them, and what they say where they are taken.
#[tokio::test(flavor = "multi_thread")]
async fn ports_by_all_their_spellings() {
    let ground = Ground::new().await;
    let flags = ["-p", "127.0.0.1:0:80", "-p", "127.0.0.1::81/udp", "-p", "0:83", "-p", "90-91"];
    ground.ok(&[&["run", "-d", "--name", "one"][..], &flags, &[IMAGE, "sh", "-c", "nc -ll -p 80 -e cat"]].concat());
    let port = |of: &str| {
        let said = ground.ok(&["port", "one", of]);
        let line = said.lines().next().unwrap_or_default().to_owned();
        let (ip, port) = line.rsplit_once(':').unwrap_or_else(|| panic!("{of}: {said:?}"));
        (ip.to_owned(), port.parse::<u16>().unwrap())
    };
    let (ip, first) = port("80");
    assert!(ip == "127.0.0.1" && first > 0);
    assert_eq!(port("81/udp").0, "127.0.0.1");
    assert!(port("83").1 > 0 && port("90").1 > 0 && port("90").1 != port("91").1);
    let all = ground.ok(&["port", "one"]);
    assert!(all.lines().any(|line| line == format!("80/tcp -> 127.0.0.1:{first}")), "{all}");
    let (code, said) = ground.refused(&["port", "one", "99"]);
    assert!(code == 1 && said.contains("99"), "{said}");

    // Who has it is said by name.
    let taken = format!("127.0.0.1:{first}:80");
    let (code, said) = ground.refused(&["run", "--rm", "-p", &taken, IMAGE, "true"]);
    assert!(code == 125 && said.contains(&first.to_string()) && said.contains("container one"), "{said}");
    let range = format!("127.0.0.1:{first}-{}:80-82", first.saturating_add(1));
    let (_, said) = ground.refused(&["run", "--rm", "-p", &range, IMAGE, "true"]);
    assert!(said.contains("ranges"), "{said}");
    // Where the network has no IPv6 that is said.
    let v6 = ground.daemon.creel(&["run", "-d", "--name", "six", "-p", "[::1]:0:80", IMAGE, "sleep", "1000"]);
    if v6.status.success() {
        assert!(ground.ok(&["port", "six", "80"]).starts_with("[::1]:"));
    } else {
        let said = String::from_utf8_lossy(&v6.stderr).into_owned();
        assert!(v6.status.code() == Some(125) && said.contains("no address of the host address's family"), "{said}");
    }
    ground.ok(&["rm", "-f", "six"]);
    for bad in ["80:70000", "1.2.3:80:80", "80/icmp", "a:80"] {
        let (code, said) = ground.refused(&["run", "--rm", "-p", bad, IMAGE, "true"]);
        assert!(code == 125 && said.contains(bad), "{said}");
    }
    ground.ok(&["rm", "-f", "one"]);
    ground.finish().await;
}

/// A user namespace of its own: root in it is nobody on the machine, and its files are its own.
#[tokio::test(flavor = "multi_thread")]
async fn user_namespaces_of_their_own() {
    let ground = Ground::new().await;
    if !ground.daemon.creel(&["run", "--rm", "--userns", "private", IMAGE, "true"]).status.success() {
        let (_, said) = ground.refused(&["run", "--rm", "--userns", "private", IMAGE, "true"]);
        assert!(said.contains("user namespace") || said.contains("idmap"), "{said}");
        eprintln!("SKIPPED: {said}");
        return ground.finish().await;
    }
    let script = "echo 1 > /own; echo 2 > /data/file; cat /proc/self/uid_map > /map; sleep 1000";
    for name in ["one", "two"] {
        let volume = format!("{name}:/data");
        ground.ok(&["run", "-d", "--name", name, "--userns=private", "-v", &volume, IMAGE, "sh", "-c", script]);
        ground.until("its map", || ground.daemon.creel(&["exec", name, "sh", "-c", "wc -l < /map"]).stdout == b"1\n");
    }
    // Inside, everything is as it is anywhere.
    assert_eq!(ground.exec("one", "id -u; stat -c '%u %g' /bin/busybox /own /data/file /data"), "0\n0 0\n0 0\n0 0\n0 0");
    // Outside, root is somebody else for each of them.
    let ids = |name: &str| {
        let pid = ground.inspect(name)["State"]["Pid"].as_u64().unwrap();
        let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
        let map: Vec<u64> = map.split_whitespace().map(|number| number.parse().unwrap()).collect();
        (map[0], map[1], map[2])
    };
    let (one, two) = (ids("one"), ids("two"));
    assert!(one.0 == 0 && one.1 >= 0x7000_0000 && one.2 == 65536 && two.1.abs_diff(one.1) >= 65536, "{one:?} {two:?}");
    assert_eq!(ground.inspect("one")["HostConfig"]["UsernsMode"], "private");

    // Copies and images have the container's own numbers.
    ground.ok(&["cp", "-a", "one:/own", &ground.at("own").display().to_string()]);
    ground.ok(&["cp", "one:/data/file", &ground.at("file").display().to_string()]);
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(ground.at("own")).unwrap()), 0);
    let (_, said) = ground.refused(&["cp", &ground.at("file").display().to_string(), "one:/new"]);
    assert!(said.contains("stop it first"), "{said}");
    ground.ok(&["commit", "one", "kept:1"]);
    assert_eq!(ground.ok(&["run", "--rm", "kept:1", "stat", "-c", "%u", "/own"]), "0");
    ground.ok(&["stop", "-t", "0", "one"]);
    ground.ok(&["cp", &ground.at("file").display().to_string(), "one:/new"]);
    ground.ok(&["start", "one"]);
    assert_eq!(ground.exec("one", "stat -c %u /new /own /data/file"), "0\n0\n0");
    assert_eq!(ground.ok(&["run", "--rm", "-v", "one:/data", IMAGE, "stat", "-c", "%u", "/data/file"]), "0");

    for (flags, text) in [
        (["--userns=keep-id", "-t"], "there are host, and private"),
        (["--userns=private", "--privileged"], "privileged mode is incompatible with user namespaces"),
        (["--userns=private", "--pid=host"], "cannot share the host's PID namespace"),
        (["--userns=private", "--network=container:two"], "user namespace"),
    ] {
        let (code, said) = ground.refused(&[&["run", "--rm"], &flags[..], &[IMAGE, "true"]].concat());
        assert!(code == 125 && said.contains(text), "{said}");
    }
    ground.ok(&["rm", "-f", "one", "two"]);
    ground.ok(&["volume", "rm", "one", "two"]);
    ground.finish().await;
}

/// A volume in memory is one for all who run with it, and gone with the last of them, whatever becomes of the daemon.
#[tokio::test(flavor = "multi_thread")]
async fn volumes_in_memory_are_shared() {
    let mut ground = Ground::new().await;
    ground.ok(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "memory"]);
    for name in ["one", "two"] {
        ground.ok(&["run", "-d", "--name", name, "-v", "memory:/m", IMAGE, "sleep", "1000"]);
    }
    ground.exec("one", "echo said > /m/file");
    assert_eq!(ground.exec("two", "cat /m/file; stat -f -c %T /m"), "said\ntmpfs");
    ground.ok(&["cp", "two:/m/file", &ground.at("file").display().to_string()]);
    ground.ok(&["rm", "-f", "one"]);
    ground.daemon.kill();
    ground.daemon.run().await;
    assert_eq!(ground.ok(&["run", "--rm", "-v", "memory:/m", IMAGE, "cat", "/m/file"]), "said");
    ground.ok(&["stop", "-t", "0", "two"]);
    assert_eq!(ground.ok(&["run", "--rm", "-v", "memory:/m:ro", IMAGE, "ls", "/m"]), "");
    ground.ok(&["start", "two"]);
    assert_eq!(ground.exec("two", "ls /m"), "");
    ground.ok(&["rm", "-f", "two"]);
    ground.ok(&["volume", "rm", "memory"]);
    ground.finish().await;
}

/// Whoever shares namespaces comes back with the one whose they are.
#[tokio::test(flavor = "multi_thread")]
async fn sharers_come_back() {
    let ground = Ground::new().await;
    ground.ok(&["run", "-d", "--name", "holder", IMAGE, "sleep", "1000"]);
    for (name, flag) in [("net", "--network=container:holder"), ("pid", "--pid=container:holder")] {
        ground.ok(&["run", "-d", "--name", name, "--restart", "always", flag, IMAGE, "sleep", "1000"]);
    }
    let running = |name: &str| ground.inspect(name)["State"]["Status"] == "running";
    ground.ok(&["kill", "holder"]);
    ground.until("the PID namespace is gone", || !running("pid"));
    // One in its network goes on; killed, it cannot come back before the holder does.
    let pid = ground.inspect("net")["State"]["Pid"].as_i64().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    ground.until("it waits", || {
        let state = ground.inspect("net")["State"].clone();
        state["Status"] == "restarting"
            && state["Error"].as_str().unwrap().contains("cannot join network of a non running container")
    });
    ground.ok(&["start", "holder"]);
    ground.until("all are back", || running("net") && running("pid"));
    let of =
        |name: &str, kind: &str| ground.exec(name, &format!("ls -l /proc/self/ns/{kind}")).rsplit(' ').next().map(str::to_owned);
    assert_eq!(of("net", "net"), of("holder", "net"));
    assert_eq!(of("pid", "pid"), of("holder", "pid"));
    ground.ok(&["rm", "-f", "net", "pid", "holder"]);
    ground.finish().await;
}

/// Commands that run in containers are told of, those of probes too; events of the past by time and filter.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_commands_and_probes() {
    let ground = Ground::new().await;
    let check = ["--health-cmd", "true", "--health-interval", "100ms"];
    ground.ok(&[&["run", "-d", "--name", "web"][..], &check, &[IMAGE, "sleep", "1000"]].concat());
    ground.until("healthy", || ground.inspect("web")["State"]["Health"]["Status"] == "healthy");
    assert_eq!(ground.daemon.creel(&["exec", "web", "sh", "-c", "exit 7"]).status.code(), Some(7));
    let events = |filters: &[&str]| -> Vec<Value> {
        let filters: Vec<&str> = filters.iter().flat_map(|filter| ["--filter", filter]).collect();
        let said = ground.ok(&[&["--format", "json", "events", "--since", "1h", "--until", "0s"], &filters[..]].concat());
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let mut found = Vec::new();
    ground.until("the end of the command", || {
        found = events(&["container=web", "type=container"]);
        found.iter().any(|event| event["Action"] == "exec_die" && event["Actor"]["Attributes"]["exitCode"] == "7")
    });
    let action = |text: &str| found.iter().find(|event| event["Action"] == text).unwrap_or_else(|| panic!("no {text}: {found:?}"));
    let (made, begun) = (action("exec_create: sh -c exit 7"), action("exec_start: sh -c exit 7"));
    let id = &made["Actor"]["Attributes"]["execID"];
    assert!(id.as_str().is_some_and(|id| id.len() == 64) && *id == begun["Actor"]["Attributes"]["execID"]);
    let died = found.iter().find(|event| event["Action"] == "exec_die" && event["Actor"]["Attributes"]["execID"] == *id).unwrap();
    assert_eq!(died["Actor"]["Attributes"]["exitCode"], "7");
    action("exec_create: /bin/sh -c true");
    action("health_status: healthy");
    let health = events(&["event=health_status"]);
    assert!(!health.is_empty() && health.iter().all(|event| event["Action"].as_str().unwrap().starts_with("health_status")));
    assert!(events(&["event=exec_die"]).iter().all(|event| event["Action"] == "exec_die"));
    assert!(events(&["container=other"]).is_empty());
    ground.ok(&["rm", "-f", "web"]);
    ground.finish().await;
}

/// What bash offers for the beginning of a line, with the ends of words that it has by itself.
#[tokio::test(flavor = "multi_thread")]
async fn bash_completes_names() {
    let ground = Ground::new().await;
    ground.ok(&["create", "--name", "web-1", IMAGE, "true"]);
    ground.ok(&["volume", "create", "data-1"]);
    ground.ok(&["network", "create", "shop-net"]);
    let offered = |line: &str| {
        let script = r#"source <("$0" completions bash); COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9
            COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'; _creel_complete; printf '%s\n' "${COMPREPLY[@]}""#;
        let mut command = Command::new("bash");
        command.args(["-c", script]).arg(bin("creel")).arg(line).env("CREEL_SOCKET", ground.daemon.socket());
        let said = String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned();
        said.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(offered("creel rm web"), ["web-1"]);
    assert_eq!(offered("creel run bas"), ["base:1"]);
    // What stands in front of a colon is there already.
    assert_eq!(offered("creel run base:"), ["1"]);
    assert_eq!(offered("creel volume rm da"), ["data-1"]);
    assert_eq!(offered("creel run --network=shop"), ["shop-net"]);
    let all = offered("creel inspect ");
    assert!(["web-1", "base:1", "data-1", "shop-net"].iter().all(|name| all.iter().any(|offered| offered == name)), "{all:?}");
    ground.ok(&["rm", "web-1"]);
    ground.ok(&["volume", "rm", "data-1"]);
    ground.ok(&["network", "rm", "shop-net"]);
    ground.finish().await;
}

/// Templates as scripts have them.
#[tokio::test(flavor = "multi_thread")]
async fn templates_of_scripts() {
    let ground = Ground::new().await;
    ground.ok(&["run", "-d", "--name", "web", "-p", "127.0.0.1:0:80", "-l", "a.b=c", IMAGE, "sleep", "1000"]);
    let port = ground.ok(&["port", "web", "80"]);
    let port = port.rsplit(':').next().unwrap();
    for (template, wanted) in [
        ("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}", port),
        ("{{range $p, $c := .NetworkSettings.Ports}}{{$p}} -> {{(index $c 0).HostPort}}{{end}}", &format!("80/tcp -> {port}")),
        ("{{index .Config.Labels \"a.b\"}}{{index .Config.Labels \"none\"}}", "c"),
        ("{{if and .State.Running (not .State.Paused)}}up{{else}}down{{end}} {{slice .Name 1}}", "up web"),
        ("{{printf \"%s:%d\" .State.Status .State.ExitCode}}", "running:0"),
        ("{{with .Config}}{{json .Cmd}}{{end}}", "[\"sleep\",\"1000\"]"),
    ] {
        assert_eq!(ground.ok(&["inspect", "-f", template, "--type", "container", "web"]), wanted, "{template}");
    }
    assert_eq!(ground.ok(&["image", "inspect", "-f", "{{join .RepoTags \" \"}} {{len .RootFS.Layers}}", IMAGE]), "base:1 1");
    let (code, said) = ground.refused(&["inspect", "-f", "{{frobnicate .Id}}", "web"]);
    assert!(code != 0 && said.contains("function \"frobnicate\" not defined"), "{said}");
    let (code, said) = ground.refused(&["inspect", "-f", "{{.Nope}}", "web"]);
    assert!(code != 0 && said.contains("can't evaluate field Nope"), "{said}");
    ground.ok(&["rm", "-f", "web"]);
    ground.finish().await;
}
