//! `tests/corpus`: a Dockerfile for every instruction and flag. What each becomes (files, config, history) is compared with its
//! `expected`, and with what buildah makes of the same.
//!
//! A case is a directory: `Dockerfile` and its context; `prepare.sh`, run in a copy of the directory, for what git does not keep;
//! `Dockerfile.before`, built first, as `before:1`; `flags`, one word of the command line in a line, with the
//! case's path for CONTEXT; `expected`, written anew with
//! CREEL_WRITE_EXPECTED=1; `differences` from buildah (those of every case are beside the cases), each line with its reason behind ` # `; `no-buildah`, why it cannot build it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    check,
    daemon::{Daemon, bin, cache},
    image::{Layer, digest},
};

/// Fields of a config that say something about the image.
const FIELDS: [&str; 12] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "OnBuild",
    "Shell",
];

/// What an image is: files by path, fields of its config, and what made it.
struct Facts {
    tree: BTreeMap<String, String>,
    config: BTreeMap<String, Value>,
    author: String,
    /// Without those of the base; marked if they have no layer.
    history: Vec<String>,
}

/// A daemon with images to begin with, a storage of buildah's, and a directory for what is made.
struct Lab {
    daemon: Daemon,
    home: tempfile::TempDir,
    buildah: bool,
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

impl Lab {
    async fn new() -> Self {
        let buildah = Command::new("buildah").arg("--version").output().is_ok();
        let lab = Self { daemon: Daemon::start().await, home: tempfile::tempdir().unwrap(), buildah };
        let tar = lab.home.path().join("base.tar");
        fs::write(&tar, base()).unwrap();
        lab.creel(&["import", "-c", "ENV PATH=/bin", tar.to_str().unwrap(), "base:1"]);
        if buildah {
            let saved = lab.home.path().join("saved.tar");
            lab.creel(&["save", "-o", saved.to_str().unwrap(), "base:1"]);
            let id = lab.buildah(&["pull", "-q", &format!("docker-archive:{}", saved.display())]);
            lab.buildah(&["tag", id.trim(), "localhost/base:1"]);
        } else {
            eprintln!("SKIPPED: comparing with buildah, which is not installed");
        }
        lab
    }

    fn creel(&self, args: &[&str]) -> String {
        run(Command::new(bin("creel")).args(args).env("CREEL_SOCKET", self.daemon.socket()).env("HOME", self.home.path()))
    }

    fn buildah(&self, args: &[&str]) -> String {
        let at = |name: &str| self.home.path().join("buildah").join(name);
        let mut command = Command::new("buildah");
        command.arg("--root").arg(at("root")).arg("--runroot").arg(at("run")).args(["--storage-driver", "vfs"]);
        run(command.args(args).env("HOME", self.home.path()).env("BUILDAH_ISOLATION", "chroot"))
    }

    /// A copy of a case, with the same modes everywhere.
    fn copy(&self, case: &Path) -> PathBuf {
        let to = self.home.path().join("cases").join(case.file_name().unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        run(Command::new("cp").arg("-a").arg(case).arg(&to));
        run(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(&to));
        for name in ["expected", "differences", "no-buildah"] {
            fs::remove_file(to.join(name)).ok();
        }
        if to.join("prepare.sh").exists() {
            run(Command::new("sh").args(["-ec", "umask 022; . ./prepare.sh"]).current_dir(&to));
        }
        to
    }

    /// Builds, and answers what has come of it.
    fn by_creel(&self, case: &Path, name: &str) -> Facts {
        let context = case.to_str().unwrap();
        if case.join("Dockerfile.before").exists() {
            let file = case.join("Dockerfile.before");
            self.creel(&["build", "-q", "-t", "before:1", "-f", file.to_str().unwrap(), context]);
        }
        let image = format!("{name}:built");
        let flags = flags(case, context);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        self.creel(&[&["build", "-q", "-t", &image][..], &flags, &[context]].concat());
        self.facts_of(&image, name)
    }

    fn facts_of(&self, image: &str, name: &str) -> Facts {
        let (tar, root) = (self.home.path().join(format!("{name}.tar")), self.home.path().join(format!("{name}.root")));
        // A command for those that have none: it is never run.
        let container = self.creel(&["create", "--entrypoint", "none", image]);
        self.creel(&["export", "-o", tar.to_str().unwrap(), container.trim()]);
        self.creel(&["rm", container.trim()]);
        fs::create_dir(&root).unwrap();
        run(Command::new("tar").args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]).arg(&tar).arg("-C").arg(&root));
        let saved = self.home.path().join(format!("{name}.saved"));
        self.creel(&["save", "-o", saved.to_str().unwrap(), image]);
        let read = |file: &str| run(Command::new("tar").arg("-xOf").arg(&saved).arg(file));
        let manifest: Value = serde_json::from_str(&read("manifest.json")).unwrap();
        let config: Value = serde_json::from_str(&read(manifest[0]["Config"].as_str().unwrap())).unwrap();
        let facts = Facts::new(&root, &config);
        fs::remove_dir_all(&root).unwrap();
        facts
    }

    fn by_buildah(&self, case: &Path, name: &str) -> Facts {
        let context = case.to_str().unwrap();
        let fixed = ["bud", "-q", "--layers", "--format", "docker", "--pull-never"];
        if case.join("Dockerfile.before").exists() {
            let file = case.join("Dockerfile.before");
            self.buildah(&[&fixed[..], &["-t", "localhost/before:1", "-f", file.to_str().unwrap(), context]].concat());
        }
        let image = format!("localhost/{name}:built");
        let flags = flags(case, context);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        self.buildah(&[&fixed[..], &["-t", &image], &flags, &[context]].concat());
        let inspected: Value = serde_json::from_str(&self.buildah(&["inspect", "--type", "image", &image])).unwrap();
        // What it says of ONBUILD comes before.
        let said = self.buildah(&["from", "--pull-never", &image]);
        let container = said.lines().last().unwrap_or_default();
        let root = self.buildah(&["mount", container]);
        let mut facts = Facts::new(Path::new(root.trim()), &inspected["Docker"]);
        // buildah says who made it.
        if let Some(Value::Object(labels)) = facts.config.get_mut("Labels") {
            labels.remove("io.buildah.version");
            if labels.is_empty() {
                facts.config.remove("Labels");
            }
        }
        self.buildah(&["umount", container]);
        self.buildah(&["rm", container]);
        facts
    }
}

/// Busybox with everything that it can do.
fn base() -> Vec<u8> {
    let program = cache("img/busybox");
    let applets = run(Command::new(&program).arg("--list"));
    let mut layer = Layer::new().dir("bin/").dir("etc/").dir("home/").dir("root/").dir("tmp/").dir("var/");
    layer = layer.file("bin/busybox", 0o755, &fs::read(&program).expect("busybox: hack/deps"));
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        layer = layer.link(&format!("bin/{applet}"), "bin/busybox");
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:n:/:/bin/false\n";
    layer.file("etc/passwd", 0o644, passwd).file("etc/group", 0o644, b"root:x:0:\ndaemon:x:1:\nbin:x:2:\n").tar()
}

fn flags(case: &Path, context: &str) -> Vec<String> {
    let text = fs::read_to_string(case.join("flags")).unwrap_or_default();
    text.lines().map(|line| line.replace("CONTEXT", context)).collect()
}

impl Facts {
    fn new(root: &Path, config: &Value) -> Self {
        let mut tree = BTreeMap::new();
        let mut inodes = BTreeMap::new();
        walk(root, root, &mut tree, &mut inodes);
        let fields = FIELDS.iter().filter_map(|name| Some(((*name).to_owned(), config["config"].get(*name)?.clone())));
        let says =
            |value: &Value| !(value.is_null() || *value == "" || *value == Value::Array(vec![]) || *value == serde_json::json!({}));
        let entry = |entry: &Value| {
            let empty = if entry["empty_layer"] == true { " (empty)" } else { "" };
            format!("{}{empty}", entry["created_by"].as_str().unwrap_or_default())
        };
        let history = config["history"].as_array().into_iter().flatten().map(entry).collect();
        let author = config["author"].as_str().unwrap_or_default().to_owned();
        Self { tree, config: fields.filter(|(_, value)| says(value)).collect(), author, history }
    }

    /// What it has beyond its base, as text.
    fn beyond(&self, base: &Self) -> String {
        let mut text = String::from("files\n");
        for (path, entry) in &self.tree {
            match base.tree.get(path) {
                Some(before) if before == entry => {}
                Some(_) => text.push_str(&format!("~ {path} {entry}\n")),
                None => text.push_str(&format!("+ {path} {entry}\n")),
            }
        }
        for path in base.tree.keys().filter(|path| !self.tree.contains_key(*path)) {
            text.push_str(&format!("- {path}\n"));
        }
        text.push_str("config\n");
        for (name, value) in &self.config {
            text.push_str(&format!("{name} {value}\n"));
        }
        if !self.author.is_empty() {
            text.push_str(&format!("author {}\n", self.author));
        }
        text.push_str("history\n");
        for entry in self.history.iter().skip(base.history.len()) {
            text.push_str(&format!("{}\n", entry.escape_debug()));
        }
        text
    }

    /// What another has made otherwise.
    fn differences(&self, other: &Self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let absent = "absent".to_owned();
        for path in self.tree.keys().chain(other.tree.keys()) {
            let (ours, theirs) = (self.tree.get(path).unwrap_or(&absent), other.tree.get(path).unwrap_or(&absent));
            if ours != theirs {
                found.insert(format!("{path}: {ours}; buildah: {theirs}"));
            }
        }
        let none = Value::Null;
        for name in self.config.keys().chain(other.config.keys()) {
            let (ours, theirs) = (self.config.get(name).unwrap_or(&none), other.config.get(name).unwrap_or(&none));
            if ours != theirs {
                found.insert(format!("{name}: {ours}; buildah: {theirs}"));
            }
        }
        if self.author != other.author {
            found.insert(format!("author: {:?}; buildah: {:?}", self.author, other.author));
        }
        found
    }
}

/// Everything of a file but its times, and small contents in full.
fn walk(root: &Path, dir: &Path, tree: &mut BTreeMap<String, String>, inodes: &mut BTreeMap<u64, String>) {
    let mut names: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in names {
        let shown = format!("/{}", path.strip_prefix(root).unwrap().to_string_lossy()).escape_debug().to_string();
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            "directory".to_owned()
        } else if kind.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_fifo() {
            "pipe".to_owned()
        } else if meta.nlink() > 1 && inodes.contains_key(&meta.ino()) {
            format!("= {}", inodes[&meta.ino()])
        } else {
            inodes.insert(meta.ino(), shown.clone());
            content(&fs::read(&path).unwrap())
        };
        tree.insert(shown, format!("{:04o} {}:{} {what}", meta.mode() & 0o7777, meta.uid(), meta.gid()));
        if kind.is_dir() {
            walk(root, &path, tree, inodes);
        }
    }
}

fn content(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() < 200 => format!("{text:?}"),
        _ => format!("{} bytes, {}", bytes.len(), digest(bytes)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dockerfile_becomes_what_it_says() {
    let lab = Lab::new().await;
    let base = lab.facts_of("base:1", "base");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut cases: Vec<PathBuf> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| case.join("Dockerfile").exists());
    cases.sort();
    assert!(cases.len() > 15, "{cases:?}");
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case.file_name().unwrap().to_str().unwrap();
        if std::env::var("CREEL_CORPUS").is_ok_and(|only| only != name) {
            continue;
        }
        let copy = lab.copy(case);
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let ours = lab.by_creel(&copy, name);
            let theirs = (lab.buildah && !case.join("no-buildah").exists()).then(|| lab.by_buildah(&copy, name));
            (ours, theirs)
        }));
        match made {
            Ok((ours, theirs)) => wrong.extend(judge(case, &ours.beyond(&base), theirs.map(|theirs| ours.differences(&theirs)))),
            Err(why) => wrong.push(format!("{name}: {}", why.downcast_ref::<String>().cloned().unwrap_or_default())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    check::nothing_left(&lab.daemon);
    check::store_is_sound(&lab.daemon);
    lab.daemon.finish().await;
}

/// What is not as the case's files say.
fn judge(case: &Path, made: &str, differences: Option<BTreeSet<String>>) -> Vec<String> {
    let (name, mut wrong) = (case.file_name().unwrap().to_str().unwrap(), Vec::new());
    if std::env::var("CREEL_WRITE_EXPECTED").is_ok() {
        fs::write(case.join("expected"), made).unwrap();
    }
    let expected = fs::read_to_string(case.join("expected")).unwrap_or_default();
    if expected != made {
        wrong.push(format!("{name}: expected:\n{expected}\nmade:\n{made}"));
    }
    if let Some(mut found) = differences {
        let explained = |file: PathBuf| -> BTreeSet<String> {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.lines().filter_map(|line| Some(line.rsplit_once(" # ")?.0.to_owned())).collect()
        };
        let everywhere = explained(case.with_file_name("differences"));
        found.retain(|line| !everywhere.contains(line));
        let explained = explained(case.join("differences"));
        wrong.extend(found.difference(&explained).map(|line| format!("{name}: not explained: {line}")));
        wrong.extend(explained.difference(&found).map(|line| format!("{name}: no longer so: {line}")));
    }
    wrong
}

/// `tests/corpus/errors`: behind `===` what an error says, then the Dockerfile; a first comment may give a flag.
#[tokio::test(flavor = "multi_thread")]
async fn every_error_says_what_is_wrong() {
    let lab = Lab::new().await;
    let context = lab.home.path().join("context");
    fs::create_dir(&context).unwrap();
    let mut wrong = Vec::new();
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/errors")).unwrap();
    for case in text.split("=== ").skip(1) {
        let (expected, dockerfile) = case.split_once('\n').unwrap();
        fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        let mut command = Command::new(bin("creel"));
        command
            .args(["build", "-q", "-t", "wrong:1"])
            .arg(&context)
            .env("CREEL_SOCKET", lab.daemon.socket())
            .env("HOME", lab.home.path());
        if let Some(flag) = dockerfile.lines().next().and_then(|line| line.strip_prefix("# --")) {
            command.arg(format!("--{flag}"));
        }
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() != Some(1) || !expected.split(" ... ").all(|part| told.contains(part)) {
            wrong.push(format!("{dockerfile}expected: {expected}\ntold ({}): {told}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    check::nothing_left(&lab.daemon);
    lab.daemon.finish().await;
}
