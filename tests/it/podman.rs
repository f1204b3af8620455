//! podman and buildah as the other side: archives and registries between them and creel, both ways, with the same digests.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::{
    daemon::{Daemon, bin},
    image::{Image, Layer},
    registry::Registry,
};

/// podman and buildah with a store of their own, and nothing of the machine's configuration.
struct Other {
    dir: tempfile::TempDir,
}

impl Other {
    /// None, and it is said, where they are not installed.
    fn new() -> Option<Self> {
        for program in ["podman", "buildah"] {
            if Command::new(program).arg("--version").stdout(Stdio::null()).status().is_err() {
                eprintln!("SKIPPED: {program} is not installed: hack/deps packages");
                return None;
            }
        }
        let other = Self { dir: tempfile::tempdir().unwrap() };
        let write = |name: &str, text: String| fs::write(other.dir.path().join(name), text).unwrap();
        fs::create_dir(other.dir.path().join("tmp")).unwrap();
        let (root, run) = (other.at("root"), other.at("run"));
        // vfs needs no mounts, and nothing in them a service of the machine.
        write("storage.conf", format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{root}\"\nrunroot = \"{run}\"\n"));
        let engine = format!(
            "events_logger = \"none\"\nlock_type = \"file\"\ncgroup_manager = \"cgroupfs\"\ntmp_dir = \"{}\"\n",
            other.at("libpod")
        );
        write("containers.conf", format!("[engine]\n{engine}"));
        write("registries.conf", "unqualified-search-registries = []\n".into());
        write("auth.json", "{}".into());
        write("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#.into());
        Some(other)
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn runs(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        for (name, file) in [
            ("CONTAINERS_STORAGE_CONF", "storage.conf"),
            ("CONTAINERS_CONF", "containers.conf"),
            ("CONTAINERS_REGISTRIES_CONF", "registries.conf"),
            ("REGISTRY_AUTH_FILE", "auth.json"),
            ("TMPDIR", "tmp"),
            ("HOME", ""),
            ("XDG_RUNTIME_DIR", "run"),
        ] {
            command.env(name, self.at(file));
        }
        command.args(args).stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{program}: {e}"))
    }

    /// The output of a command that succeeds.
    fn ok(&self, program: &str, args: &[&str]) -> String {
        let output = self.runs(program, args);
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn podman(&self, args: &[&str]) -> String {
        self.ok("podman", args)
    }

    fn buildah(&self, args: &[&str]) -> String {
        self.ok("buildah", args)
    }

    /// The image's id, as creel writes it.
    fn id(&self, name: &str) -> String {
        format!("sha256:{}", self.podman(&["image", "inspect", "--format", "{{.Id}}", name]))
    }

    /// What it would give a program: config and layers.
    fn inspected(&self, name: &str) -> (Value, Value) {
        let all: Value = serde_json::from_str(&self.podman(&["image", "inspect", name])).unwrap();
        (all[0]["Config"].clone(), all[0]["RootFS"]["Layers"].clone())
    }

    /// An image of buildah's own making upon `base`: a file, a removal, a config.
    fn made(&self, base: &str, name: &str) {
        let file = self.dir.path().join("made.txt");
        fs::write(&file, "made by buildah\n").unwrap();
        let container = self.buildah(&["from", "--pull-never", base]);
        self.buildah(&["copy", &container, file.to_str().unwrap(), "/etc/made"]);
        let flags = ["--env", "MADE=yes", "--label", "by=buildah", "--workingdir", "/etc", "--cmd", "cat made"];
        self.buildah(&[&["config"][..], &flags, &[&container]].concat());
        self.buildah(&["commit", "--quiet", &container, name]);
        self.buildah(&["rm", &container]);
    }
}

fn id(daemon: &Daemon, name: &str) -> String {
    daemon.creel_ok(&["image", "inspect", "--format", "{{.Id}}", name])
}

fn inspected(daemon: &Daemon, name: &str) -> (Value, Value) {
    let all: Value = serde_json::from_str(&daemon.creel_ok(&["image", "inspect", name])).unwrap();
    (all[0]["Config"].clone(), all[0]["RootFS"]["Layers"].clone())
}

/// A registry with an image of two layers in it, and the image's names there.
fn upstream() -> (Registry, String, String) {
    let registry = Registry::empty();
    let mut image = Image::of(&[Layer::busybox().tar(), Layer::new().dir("srv/").file("srv/page", 0o644, b"hello\n").tar()]);
    image.config = serde_json::json!({
        "Env": ["PATH=/bin", "A=b c"], "Cmd": ["cat", "/srv/page"], "Labels": {"l": "v"}, "WorkingDir": "/srv",
        "ExposedPorts": {"80/tcp": {}}, "User": "65534",
    });
    let manifest = image.push(&registry, "team/app", "1");
    let name = format!("127.0.0.1:{}/team/app:1", registry.port);
    (registry, name, manifest)
}

fn compress(program: &str, archive: &str) -> String {
    let output = Command::new(program).args(["-c", archive]).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    let path = format!("{archive}.{program}");
    fs::write(&path, output.stdout).unwrap();
    path
}

/// Archives of podman's and buildah's in all their forms are images here: the same id, the same layers, and they run.
#[tokio::test(flavor = "multi_thread")]
async fn what_podman_and_buildah_save_loads() {
    let Some(other) = Other::new() else { return };
    let daemon = Daemon::start().await;
    let (_registry, upstream, _) = upstream();
    other.podman(&["pull", "--tls-verify=false", &upstream]);
    let mine = "localhost/mine:1";
    other.podman(&["tag", &upstream, mine]);
    let expected = other.id(mine);
    let (config, layers) = other.inspected(mine);
    for format in ["docker-archive", "oci-archive"] {
        let archive = other.at(&format!("{format}.tar"));
        other.podman(&["save", "--quiet", "--format", format, "-o", &archive, mine]);
        let packed = ["gzip", "bzip2", "xz", "zstd"].map(|program| compress(program, &archive));
        for archive in packed.iter().chain([&archive]) {
            assert_eq!(daemon.creel_ok(&["load", "-i", archive]), format!("Loaded image: {mine}"), "{archive}");
            assert_eq!(id(&daemon, mine), expected, "{archive}");
            let (here, layers_here) = inspected(&daemon, mine);
            for key in ["Env", "Cmd", "Labels", "WorkingDir", "ExposedPorts", "User"] {
                assert_eq!(here[key], config[key], "{key} of {archive}");
            }
            assert_eq!(layers_here, layers);
            assert_eq!(daemon.creel_ok(&["run", "--rm", mine]), "hello");
            daemon.creel_ok(&["rmi", mine]);
        }
    }

    // buildah's own image, and both in one archive.
    let made = "localhost/made:2";
    other.made(mine, made);
    let archive = other.at("made.tar");
    other.buildah(&["push", "--quiet", made, &format!("oci-archive:{archive}:{made}")]);
    assert_eq!(daemon.creel_ok(&["load", "-i", &archive]), format!("Loaded image: {made}"));
    assert_eq!(id(&daemon, made), other.id(made));
    assert_eq!(daemon.creel_ok(&["run", "--rm", made]), "made by buildah");
    daemon.creel_ok(&["rmi", made]);
    let both = other.at("both.tar");
    other.podman(&["save", "--quiet", "--multi-image-archive", "-o", &both, mine, made]);
    let mut loaded: Vec<String> = daemon.creel_ok(&["load", "-i", &both]).lines().map(str::to_owned).collect();
    loaded.sort();
    assert_eq!(loaded, [format!("Loaded image: {made}"), format!("Loaded image: {mine}")]);
    assert_eq!((id(&daemon, mine), id(&daemon, made)), (expected, other.id(made)));
    daemon.creel_ok(&["rmi", mine, made]);
    daemon.finish().await;
}

/// What creel saves, podman and buildah load: one image, several, what was committed here.
#[tokio::test(flavor = "multi_thread")]
async fn what_creel_saves_loads_in_podman_and_buildah() {
    let Some(other) = Other::new() else { return };
    let daemon = Daemon::start().await;
    let (_registry, upstream, _) = upstream();
    daemon.creel_ok(&["pull", &upstream]);
    let (mine, made) = ("localhost/mine:1", "localhost/made:2");
    daemon.creel_ok(&["tag", &upstream, mine]);
    let change = "echo made here >/tmp/file && rm /srv/page";
    daemon.creel_ok(&["run", "--name", "change", "-u", "0", mine, "sh", "-c", change]);
    let changes = ["-c", "ENV MADE=yes", "-c", "CMD cat /tmp/file", "-m", "by hand", "-a", "me"];
    daemon.creel_ok(&[&["commit"][..], &changes, &["change", made]].concat());
    daemon.creel_ok(&["rm", "change"]);

    let archive = other.at("both.tar");
    daemon.creel_ok(&["save", "-o", &archive, mine, made]);
    let said = other.podman(&["load", "--quiet", "-i", &archive]);
    assert!(said.contains(mine) && said.contains(made), "{said}");
    for name in [mine, made] {
        assert_eq!(other.id(name), id(&daemon, name));
        let (config, layers) = other.inspected(name);
        let (here, layers_here) = inspected(&daemon, name);
        for key in ["Env", "Cmd", "Labels", "WorkingDir", "ExposedPorts", "User"] {
            assert_eq!(config[key], here[key], "{key} of {name}");
        }
        assert_eq!(layers, layers_here);
    }
    // What is in it, through the eyes of buildah: what was changed is, what was removed is not.
    let container = other.buildah(&["from", "--pull-never", made]);
    let root = other.buildah(&["mount", &container]);
    assert_eq!(fs::read_to_string(Path::new(&root).join("tmp/file")).unwrap(), "made here\n");
    assert!(!Path::new(&root).join("srv/page").exists() && Path::new(&root).join("bin/busybox").exists());
    other.buildah(&["umount", &container]);
    other.buildah(&["rm", &container]);

    // As an OCI layout, too: the archive is both.
    other.podman(&["rmi", mine, made]);
    let one = other.at("one.tar");
    daemon.creel_ok(&["save", "-o", &one, made]);
    let pulled = other.buildah(&["pull", "--quiet", &format!("oci-archive:{one}")]);
    assert_eq!(format!("sha256:{pulled}"), id(&daemon, made));
    other.podman(&["rmi", &pulled]);
    let piped = Command::new(bin("creel")).args(["save", made]).env("CREEL_SOCKET", daemon.socket()).output().unwrap();
    assert_eq!(piped.stdout, fs::read(&one).unwrap(), "the same bytes every time");

    // There and back: what podman makes of it is the same image here, and the same archive.
    other.podman(&["load", "--quiet", "-i", &one]);
    other.podman(&["save", "--quiet", "-o", &other.at("back.tar"), made]);
    let before = id(&daemon, made);
    daemon.creel_ok(&["rmi", made]);
    daemon.creel_ok(&["load", "-i", &other.at("back.tar")]);
    daemon.creel_ok(&["save", "-o", &other.at("again.tar"), made]);
    assert_eq!(id(&daemon, made), before);
    assert_eq!(fs::read(other.at("again.tar")).unwrap(), fs::read(&one).unwrap());
    daemon.creel_ok(&["rmi", mine, made, &upstream]);
    daemon.finish().await;
}

/// The manifest that a name of an image stands for.
fn manifest(daemon: &Daemon, name: &str) -> String {
    let repository = name.rsplit_once(':').unwrap().0;
    let all: Value = serde_json::from_str(&daemon.creel_ok(&["image", "inspect", name])).unwrap();
    let digests = all[0]["RepoDigests"].as_array().unwrap();
    let mut found = digests.iter().filter_map(|name| name.as_str()?.strip_prefix(&format!("{repository}@")));
    found.next_back().unwrap_or_else(|| panic!("{name}: {digests:?}")).to_owned()
}

/// Through a registry: pulled from each other's pushes, with the same manifest's digest and the same id at every station.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_between_podman_buildah_and_creel() {
    let Some(other) = Other::new() else { return };
    let daemon = Daemon::start().await;
    let (registry, upstream, digest) = upstream();
    let at = |name: &str| format!("127.0.0.1:{}/{name}", registry.port);
    let pushed = |digest_file: &str| fs::read_to_string(other.at(digest_file)).unwrap().trim().to_owned();

    // The same pull on both sides.
    daemon.creel_ok(&["pull", &upstream]);
    other.podman(&["pull", "--quiet", "--tls-verify=false", &upstream]);
    assert_eq!(id(&daemon, &upstream), other.id(&upstream));
    assert_eq!(other.podman(&["image", "inspect", "--format", "{{.Digest}}", &upstream]), digest);
    assert_eq!(manifest(&daemon, &upstream), digest);

    // buildah makes and pushes, creel pulls, runs, and pushes on: its digest stays what it was.
    let (theirs, on) = (at("theirs/made:1"), at("on/made:2"));
    other.made(&upstream, &theirs);
    other.buildah(&["push", "--quiet", "--tls-verify=false", "--digestfile", &other.at("digest"), &theirs]);
    let digest = pushed("digest");
    daemon.creel_ok(&["pull", &theirs]);
    assert_eq!((id(&daemon, &theirs), manifest(&daemon, &theirs)), (other.id(&theirs), digest.clone()));
    assert_eq!(daemon.creel_ok(&["run", "--rm", &theirs]), "made by buildah");
    daemon.creel_ok(&["tag", &theirs, &on]);
    let said = daemon.creel_ok(&["push", &on]);
    assert!(said.lines().last().unwrap().starts_with(&format!("2: digest: {digest} size: ")), "{said}");
    let by_digest = format!("{}@{digest}", at("on/made"));
    other.podman(&["pull", "--quiet", "--tls-verify=false", &by_digest]);
    assert_eq!(other.id(&by_digest), id(&daemon, &on));

    // creel makes and pushes, podman pulls and pushes on, creel pulls that back.
    let (ours, back) = (at("ours/made:1"), at("back/made:1"));
    daemon.creel_ok(&["run", "--name", "change", "-u", "0", &upstream, "sh", "-c", "echo ours >/srv/page"]);
    let made = daemon.creel_ok(&["commit", "-c", "CMD cat /srv/page", "change", &ours]);
    daemon.creel_ok(&["rm", "change"]);
    let said = daemon.creel_ok(&["push", &ours]);
    let digest = said.lines().last().unwrap().split(' ').nth(2).unwrap().to_owned();
    other.podman(&["pull", "--quiet", "--tls-verify=false", &ours]);
    assert_eq!(other.podman(&["image", "inspect", "--format", "{{.Digest}}", &ours]), digest);
    assert_eq!((other.id(&ours), id(&daemon, &ours)), (made.clone(), made.clone()));
    other.podman(&["push", "--quiet", "--tls-verify=false", "--digestfile", &other.at("back"), &ours, &back]);
    daemon.creel_ok(&["rmi", "-f", &made]);
    daemon.creel_ok(&["pull", &back]);
    assert_eq!((id(&daemon, &back), manifest(&daemon, &back)), (made, pushed("back")));
    assert_eq!(daemon.creel_ok(&["run", "--rm", &back]), "ours");
    for name in [&upstream, &theirs, &on, &back] {
        daemon.creel_ok(&["rmi", name]);
    }
    daemon.finish().await;
}
