//! Stacks of layers: what overlayfs makes of whiteouts and opaque directories of ours, in numbers that images have.

mod common;

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use common::{
    Layer, apply_as,
    archive::{Archive, Entry},
    chain, erofs_works, formats,
    snapshot::{Kind, Snapshot, file},
};
use layer::{Durability, Error, Format, Overlay, Upper, mount_erofs, probe};
use rustix::fs::{AtFlags, StatxFlags, statx};

fn stack(format: Format, archives: &[Vec<u8>]) -> Vec<Layer> {
    archives.iter().map(|tar| apply_as(format, tar).unwrap_or_else(|e| panic!("{}", chain(&e)))).collect()
}

/// Topmost first, from layers in the order of a manifest.
fn lowers(layers: &[Layer]) -> Vec<BorrowedFd<'_>> {
    layers.iter().rev().map(|layer| layer.root.as_fd()).collect()
}

struct Writable {
    upper: OwnedFd,
    work: OwnedFd,
    dir: tempfile::TempDir,
}

impl Writable {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| -> OwnedFd {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            File::open(dir.path().join(name)).unwrap().into()
        };
        Self { upper: open("upper"), work: open("work"), dir }
    }

    fn over(&self, durability: Durability) -> Option<Upper<'_>> {
        Some(Upper { upper: self.upper.as_fd(), work: self.work.as_fd(), durability })
    }
}

fn inside(mount: &OwnedFd, path: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{path}", mount.as_raw_fd()).into()
}

fn in_mount_table(mount: &OwnedFd) -> bool {
    let id = statx(mount, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).unwrap().stx_mnt_id;
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').next() == Some(&id.to_string()))
}

#[test]
fn layers_hide_what_they_say() {
    let bottom = Archive::new()
        .dir("etc")
        .file("etc/old", b"old")
        .file("etc/kept", b"kept")
        .dir("var")
        .file("var/a", b"1")
        .file("var/b", b"2")
        .file("dir/was/full", b"3")
        .add(Entry::new(b'0', b"bin/tool").mode(0o4755).data(b"tool"))
        .end();
    let middle = Archive::new()
        .file("etc/.wh.old", b"")
        .dir("etc")
        .dir("var")
        .file("var/.wh..wh..opq", b"")
        .file("var/c", b"3")
        .file("dir/.wh.was", b"")
        .dir("dir/was")
        .file("dir/was/new", b"4")
        .end();
    let top = Archive::new().file("etc/kept", b"changed").symlink("bin2", "bin").end();
    for format in formats() {
        let layers = stack(*format, &[bottom.clone(), middle.clone(), top.clone()]);
        let root = Overlay { lowers: &lowers(&layers), upper: None }.mount().unwrap();
        let seen = Snapshot::of(root.as_fd());
        assert_eq!(
            seen.paths(),
            ["", "bin", "bin/tool", "bin2", "dir", "dir/was", "dir/was/new", "etc", "etc/kept", "var", "var/c"],
            "{format:?}"
        );
        assert_eq!(seen.get("etc/kept").kind, file(b"changed"));
        assert_eq!(seen.get("bin/tool").mode, 0o4755);
        assert!(!in_mount_table(&root) && (*format == Format::Directory || !in_mount_table(&layers[0].root)));
        let error = std::fs::write(inside(&root, "etc/new"), b"").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::ROFS.raw_os_error()));
    }
}

#[test]
fn stacks_of_every_height() {
    let archives: Vec<Vec<u8>> = (0..200)
        .map(|i| {
            Archive::new().dir("d").file(&format!("d/{i}"), i.to_string().as_bytes()).file("top", i.to_string().as_bytes()).end()
        })
        .collect();
    for format in formats() {
        let layers = stack(*format, &archives);
        for height in [1, 2, 64, 200] {
            let below = &layers[..height];
            let writable = Writable::new();
            for upper in [None, writable.over(Durability::Volatile)] {
                let root = Overlay { lowers: &lowers(below), upper }.mount().unwrap_or_else(|e| panic!("{}", chain(&e)));
                let seen = Snapshot::of(root.as_fd());
                assert_eq!(seen.0.len(), height + 3, "{format:?} {height}");
                assert_eq!(seen.get("top").kind, file((height - 1).to_string().as_bytes()));
            }
        }
    }
}

#[test]
fn no_layers_are_an_empty_root() {
    let root = Overlay { lowers: &[], upper: None }.mount().unwrap();
    assert_eq!(Snapshot::of(root.as_fd()).paths(), [""]);
    let writable = Writable::new();
    let root = Overlay { lowers: &[], upper: writable.over(Durability::Durable) }.mount().unwrap();
    std::fs::write(inside(&root, "made"), b"1").unwrap();
    assert_eq!(Snapshot::of(root.as_fd()).paths(), ["", "made"]);
    assert!(writable.dir.path().join("upper/made").exists());
}

#[test]
fn changes_go_to_the_upper_directory() {
    let tar = Archive::new().file("etc/conf", b"one").dir("full").file("full/x", b"").end();
    for format in formats() {
        let layers = stack(*format, std::slice::from_ref(&tar));
        let before = layers[0].snapshot();
        let writable = Writable::new();
        let root = Overlay { lowers: &lowers(&layers), upper: writable.over(Durability::Durable) }.mount().unwrap();
        std::fs::write(inside(&root, "etc/conf"), b"two").unwrap();
        std::fs::remove_dir_all(inside(&root, "full")).unwrap();
        std::fs::create_dir(inside(&root, "full")).unwrap();
        let seen = Snapshot::of(root.as_fd());
        assert_eq!(seen.get("etc/conf").kind, file(b"two"));
        assert!(!seen.has("full/x"));
        assert_eq!(layers[0].snapshot(), before);
        drop(root);
        let again = Overlay { lowers: &lowers(&layers), upper: writable.over(Durability::Durable) }.mount().unwrap();
        assert_eq!(Snapshot::of(again.as_fd()), seen);
    }
}

#[test]
fn inode_numbers_are_of_one_file_system() {
    // find -xdev, tar --one-file-system and du must see one file system, hard links included.
    let tar = Archive::new().file("a", b"1").hard_link("b", "a").dir("d").file("d/c", b"").end();
    for format in formats() {
        let layers = stack(*format, &[tar.clone(), tar.clone()]);
        let writable = Writable::new();
        let root = Overlay { lowers: &lowers(&layers), upper: writable.over(Durability::Volatile) }.mount().unwrap();
        let device = |path| std::os::unix::fs::MetadataExt::dev(&std::fs::symlink_metadata(inside(&root, path)).unwrap());
        assert_eq!(device("a"), device("d"));
        assert_eq!(device("d/c"), device("."));
        assert_eq!(Snapshot::of(root.as_fd()).get("b").same_as, "a");
    }
}

#[test]
fn programs_run_from_an_image() {
    // Executed and mapped, not only read: a static program would not need the loader, a copy of one that is there does.
    let program = std::fs::read("/bin/true").unwrap();
    for format in formats() {
        let tar = Archive::new().add(Entry::new(b'0', b"true").mode(0o755).data(&program)).end();
        let layers = stack(*format, &[tar]);
        let root = Overlay { lowers: &lowers(&layers), upper: None }.mount().unwrap();
        let status = std::process::Command::new(inside(&root, "true")).status().unwrap();
        assert!(status.success());
    }
}

#[test]
fn devices_of_layers_are_usable() {
    let tar = Archive::new().add(Entry::new(b'3', b"zero").device(1, 5).mode(0o666)).end();
    for format in formats() {
        let layers = stack(*format, std::slice::from_ref(&tar));
        let root = Overlay { lowers: &lowers(&layers), upper: None }.mount().unwrap();
        assert_eq!(Snapshot::of(root.as_fd()).get("zero").kind, Kind::Char(rustix::fs::makedev(1, 5)));
        let mut byte = [1];
        std::io::Read::read_exact(&mut File::open(inside(&root, "zero")).unwrap(), &mut byte).unwrap();
        assert_eq!(byte, [0]);
    }
}

#[test]
fn mount_errors_name_what_failed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rubbish");
    std::fs::write(&path, vec![7; 8192]).unwrap();
    let error = mount_erofs(&path).unwrap_err();
    assert!(matches!(error, Error::Mount { .. }) && error.to_string().contains("rubbish"), "{error}");
    assert!(mount_erofs(&dir.path().join("missing")).is_err());
}

#[test]
fn the_probe_says_why_not() {
    if !erofs_works() {
        return;
    }
    // Not a directory: the probe cannot make its file, so the answer is the format that always works.
    let probed = probe(std::path::Path::new("/proc/version"));
    assert_eq!(probed.format, Format::Directory);
    assert!(probed.reason.is_some());
    // memfd and tmpfs files cannot be mounted by EROFS, which the version of the kernel would not have told.
    let shm = probe(std::path::Path::new("/dev/shm"));
    assert_eq!(shm.format == Format::Directory, shm.reason.is_some());
}
