//! Copy-on-write: what containers share takes the disk once.

use std::{fs, path::Path, process::Command};

use crate::{
    daemon::Daemon,
    pods::{self, BUSYBOX},
};

const MIB: u64 = 1 << 20;
/// A file of the image that no container writes to.
const BIG: u64 = 500 * MIB;
const CONTAINERS: u64 = 10;
/// What records, logs and directories of all containers may take together.
const SLACK: u64 = 8 * MIB;

/// Bytes that a directory takes on the disk.
fn taken(path: &Path) -> u64 {
    let output = Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_containers_of_a_big_image_take_what_they_write() {
    let daemon = Daemon::start().await;
    daemon.mirror("docker.io", crate::registry::shared());
    pods::pull(&daemon, BUSYBOX).await;
    let at = |name: &str| daemon.dir.path().join(name).display().to_string();
    daemon.creel_ok(&["create", "--name", "base", "busybox:1.35", "true"]);
    daemon.creel_ok(&["export", "-o", &at("files.tar"), "base"]);
    daemon.creel_ok(&["rm", "base"]);
    let big = daemon.dir.path().join("big");
    let made = Command::new("dd")
        .args(["if=/dev/urandom", "bs=1M", "status=none", &format!("count={}", BIG / MIB), &format!("of={}", big.display())])
        .status();
    assert!(made.unwrap().success());
    let added = Command::new("tar").args(["-rf", &at("files.tar"), "-C", &at(""), "big"]).status();
    assert!(added.unwrap().success());
    let before = taken(&daemon.root());
    daemon.creel_ok(&["import", &at("files.tar"), "big:1"]);
    for file in ["big", "files.tar"] {
        fs::remove_file(daemon.dir.path().join(file)).unwrap();
    }
    let image = taken(&daemon.root());
    assert!((BIG..BIG + BIG / 4).contains(&(image - before)), "{} bytes for the image", image - before);

    let script = "test $(stat -c %s /big) = 524288000 && dd if=/dev/zero of=/own bs=1M count=1 2>/dev/null && sync";
    for number in 0..CONTAINERS {
        daemon.creel_ok(&["run", "--name", &format!("c{number}"), "big:1", "sh", "-c", script]);
    }
    let grown = taken(&daemon.root()).saturating_sub(image);
    assert!((CONTAINERS * MIB..CONTAINERS * MIB + SLACK).contains(&grown), "{grown} bytes for {CONTAINERS} containers");

    // An image that is made of one of them shares what it had.
    daemon.creel_ok(&["commit", "c0", "more:1"]);
    let committed = taken(&daemon.root()).saturating_sub(image + grown);
    assert!(committed < MIB + SLACK, "{committed} bytes for a commit");
    let sizes = daemon.creel_ok(&["images", "--tree"]);
    assert!(sizes.contains("big:1") && sizes.contains("more:1"), "{sizes}");

    daemon.creel_ok(&["container", "prune", "-f"]);
    daemon.creel_ok(&["rmi", "more:1", "big:1"]);
    let left = taken(&daemon.root()).saturating_sub(before);
    assert!(left < SLACK, "{left} bytes are left");
    daemon.finish().await;
}
