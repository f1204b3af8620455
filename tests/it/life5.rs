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
    let setup = "echo 1 > /top/own; echo 2 > /top/volume/in; ln -s volume /top/link; ln /top/own /top/again; \
                 dd if=/dev/zero of=/top/holes bs=1 count=1 seek=268435455 2> /dev/null; sleep 1000";
    let mounts = ["-v", "data:/top/volume", "-v", &bind, "-v", &file, "--tmpfs", "/top/memory"];
    ground.ok(&[&["run", "-d", "--name", "one"][..], &mounts, &[IMAGE, "sh", "-c", setup]].concat());
    ground.until("the files", || {
        ground.daemon.creel(&["exec", "one", "ls", "/top/holes"]).status.success()
            && ground.exec("one", "stat -c %s /top/holes") == "268435456"
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
        assert!(holes.len() == 1 << 28 && holes.blocks() * 512 < 1 << 26, "{} {}", holes.len(), holes.blocks());
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
