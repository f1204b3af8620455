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
