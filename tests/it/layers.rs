//! Layers that are kept as directories, where the kernel mounts no EROFS images from files: what is saved and pushed of them is packed
//! again.

use std::{fs, path::Path};

use crate::{
    daemon::{Daemon, cache},
    image::{Image, Layer, digest},
    registry::Registry,
};

/// A daemon whose layers are directories: EROFS mounts nothing out of memory.
async fn in_memory(root: &Path) -> Option<Daemon> {
    let daemon = Daemon::with(&["--root", &root.join("root").display().to_string()], &[]).await;
    let format = daemon.creel_ok(&["info", "--format", "{{json .}}"]);
    if format.contains("\"directory\"") {
        return Some(daemon);
    }
    eprintln!("SKIPPED: this kernel mounts EROFS images out of memory too");
    daemon.finish().await;
    None
}

/// An image whose layers were made here: by a build, and by a commit of all that a layer can say.
fn made(daemon: &Daemon, dir: &Path) -> String {
    let context = dir.join("context");
    fs::create_dir_all(context.join("files/gone")).unwrap();
    fs::write(context.join("files/gone/deep"), "deep").unwrap();
    fs::write(context.join("files/kept"), "kept").unwrap();
    fs::copy(cache("img/busybox"), context.join("busybox")).unwrap();
    fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY busybox /bin/busybox\nCOPY files /files\n").unwrap();
    daemon.creel_ok(&["build", "-q", "-t", "made:0", &context.display().to_string()]);
    let script = "b() { /bin/busybox \"$@\"; }; cd /files; b rm -r gone kept; b mkdir gone; echo new >gone/new; b ln gone/new hard; \
                  b ln -s gone/new soft; b mkfifo pipe; b chmod 4750 hard; b chown 5:6 soft hard; b touch -d @1000000000 gone; \
                  b mkdir -p a/b/c; b head -c 3000000 /dev/urandom >a/b/c/noise; b touch -h -d @1234567890 soft";
    daemon.creel_ok(&["run", "--name", "work", "--network", "none", "made:0", "/bin/busybox", "sh", "-c", script]);
    daemon.creel_ok(&["commit", "work", "made:1"]).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_are_directories_are_saved_and_pushed() {
    let dir = tempfile::tempdir().unwrap();
    let memory = tempfile::Builder::new().prefix("creel-it-").tempdir_in("/dev/shm").unwrap();
    let Some(daemon) = in_memory(memory.path()).await else { return };
    let other = Daemon::start().await;
    let at = |name: &str| dir.path().join(name).display().to_string();
    let id = made(&daemon, dir.path());

    daemon.creel_ok(&["save", "-o", &at("one.tar"), "made:1"]);
    daemon.creel_ok(&["save", "-o", &at("two.tar"), "made:1"]);
    assert!(fs::read(at("one.tar")).unwrap() == fs::read(at("two.tar")).unwrap(), "the same bytes every time");
    assert_eq!(other.creel_ok(&["load", "-i", &at("one.tar")]), "Loaded image: made:1");
    assert_eq!(other.creel_ok(&["images", "-q", "--no-trunc", "made:1"]).trim(), id);

    let registry = Registry::empty();
    let there = format!("127.0.0.1:{}/made:1", registry.port);
    daemon.creel_ok(&["tag", "made:1", &there]);
    let pushed = daemon.creel_ok(&["push", &there]);
    assert_eq!(pushed.lines().filter(|line| line.ends_with(": Pushed")).count(), 3, "{pushed}");
    let again = daemon.creel_ok(&["push", &there]);
    assert_eq!(again.lines().filter(|line| line.ends_with(": Layer already exists")).count(), 3, "{again}");
    assert_eq!(again.lines().last(), pushed.lines().last(), "one manifest");
    other.creel_ok(&["rmi", "-f", &id]);
    other.creel_ok(&["pull", "-q", &there]);
    assert_eq!(other.creel_ok(&["images", "-q", "--no-trunc"]).trim(), id);

    // What was packed by others is not to be had from its files.
    let foreign = Layer::new().dir("etc/").file("etc/motd", 0o644, b"hello").tar();
    fs::write(at("files.tar"), &foreign).unwrap();
    daemon.creel_ok(&["import", &at("files.tar"), &format!("{there}-foreign")]);
    for command in [&["save", "-o", &at("none.tar"), &format!("{there}-foreign")][..], &["push", &format!("{there}-foreign")]] {
        let failed = daemon.creel(command);
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(!failed.status.success() && said.contains(&format!("layer {} is kept as a directory", digest(&foreign))), "{said}");
    }
    assert!(!Path::new(&at("none.tar")).exists());
    assert!(!other.creel(&["pull", "-q", &format!("{there}-foreign")]).status.success(), "nothing of it has become an image");
    daemon.finish().await;
    other.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_were_pulled_are_not_pushed_again_below_one_that_was_made_here() {
    let daemon = Daemon::start().await;
    let (registry, dir) = (Registry::empty(), tempfile::tempdir().unwrap());
    let tars = [Layer::busybox().tar(), Layer::new().dir("srv/").file("srv/a", 0o644, b"a").tar()];
    Image::of(&tars).push(&registry, "lab/base", "1");
    let name = |tag: &str| format!("127.0.0.1:{}/lab/base:{tag}", registry.port);
    daemon.creel_ok(&["pull", "-q", &name("1")]);
    daemon.creel_ok(&["create", "--name", "work", "--network", "none", &name("1"), "true"]);
    fs::write(dir.path().join("new"), "new").unwrap();
    daemon.creel_ok(&["cp", &dir.path().join("new").display().to_string(), "work:/srv/new"]);
    let id = daemon.creel_ok(&["commit", "work", &name("2")]);
    let pushed = daemon.creel_ok(&["push", &name("2")]);
    let lines = |end: &str| pushed.lines().filter(|line| line.ends_with(end)).count();
    assert_eq!((lines(": Layer already exists"), lines(": Pushed")), (2, 1), "{pushed}");
    daemon.creel_ok(&["rm", "work"]);
    daemon.creel_ok(&["rmi", &name("1"), &name("2")]);
    daemon.creel_ok(&["pull", "-q", &name("2")]);
    assert_eq!(daemon.creel_ok(&["images", "-q", "--no-trunc"]), id);
    daemon.finish().await;
}
