//! The formats against each other, over generated archives, and against GNU tar, over archives that GNU tar wrote.

#![allow(clippy::print_stderr, reason = "tests say what they skip")]

mod common;

use std::{
    ffi::CString,
    fs::{self, File},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, PermissionsExt, chown, symlink},
        },
    },
    path::Path,
    process::Command,
};

use common::{
    apply_as,
    archive::{Archive, Entry},
    chain, formats,
    snapshot::{Kind, Snapshot},
};
use layer::fuzz_tar;
use proptest::prelude::*;

/// Few names, so that entries meet.
fn path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "c", "dir", ".", "s1", "s2"]);
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

fn target() -> impl Strategy<Value = String> {
    prop_oneof![path(), path().prop_map(|path| format!("/{path}")), path().prop_map(|path| format!("../{path}")), Just("..".into())]
}

#[derive(Clone, Debug)]
enum Op {
    Dir(String, u64),
    File(String, usize),
    Sparse(String, usize, usize),
    Symlink(String, String),
    HardLink(String, String),
    Device(String, u64),
    Fifo(String),
    Whiteout(String),
    Opaque(String),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (path(), prop::sample::select(vec![0o755, 0o700, 0o1777, 0o2750])).prop_map(|(path, mode)| Op::Dir(path, mode)),
        5 => (path(), 0..3000usize).prop_map(|(path, size)| Op::File(path, size)),
        1 => (path(), 0..5000usize, 0..2000usize).prop_map(|(path, at, size)| Op::Sparse(path, at, size)),
        3 => (path(), target()).prop_map(|(path, target)| Op::Symlink(path, target)),
        3 => (path(), path()).prop_map(|(path, target)| Op::HardLink(path, target)),
        1 => (path(), 0..300u64).prop_map(|(path, minor)| Op::Device(path, minor)),
        1 => path().prop_map(Op::Fifo),
        2 => path().prop_map(Op::Whiteout),
        1 => path().prop_map(Op::Opaque),
    ]
}

fn write(archive: Archive, (i, op): (usize, &Op)) -> Archive {
    let content = |size: usize| (0..size).map(|at| u8::try_from((at + i) % 255).unwrap() + 1).collect::<Vec<_>>();
    let hidden = |path: &str, name: &str| match path.rsplit_once('/') {
        Some((parent, last)) => format!("{parent}/{}", name.replace("NAME", last)),
        None => name.replace("NAME", path),
    };
    match op {
        Op::Dir(path, mode) => archive.add(Entry::new(b'5', path.as_bytes()).mode(*mode).mtime(1000 + i as u64)),
        Op::File(path, size) => archive.add(Entry::new(b'0', path.as_bytes()).owner(i as u64, 1).data(&content(*size))),
        Op::Sparse(path, at, size) => archive
            .pax(&[
                ("GNU.sparse.size", (at + size + 100).to_string().as_bytes()),
                ("GNU.sparse.numblocks", b"1"),
                ("GNU.sparse.map", format!("{at},{size}").as_bytes()),
            ])
            .file(path, &content(*size)),
        Op::Symlink(path, target) => archive.symlink(path, target),
        Op::HardLink(path, target) => archive.hard_link(path, target),
        Op::Device(path, minor) => archive.add(Entry::new(b'3', path.as_bytes()).device(1, *minor)),
        Op::Fifo(path) => archive.add(Entry::new(b'6', path.as_bytes())),
        Op::Whiteout(path) => archive.file(&hidden(path, ".wh.NAME"), b""),
        Op::Opaque(path) => archive.file(&format!("{path}/.wh..wh..opq"), b""),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_formats_agree(ops in prop::collection::vec(op(), 1..25)) {
        // Entries that are refused are left out one by one, so that what is left is long and full of conflicts.
        let mut archive = Archive::new();
        for op in ops.iter().enumerate() {
            let longer = write(archive.clone(), op);
            if fuzz_tar(&longer.bytes).is_ok() {
                archive = longer;
            }
        }
        let tar = archive.end();
        let seen: Vec<Snapshot> = formats()
            .iter()
            .map(|format| apply_as(*format, &tar).unwrap_or_else(|e| panic!("{format:?}: {}", chain(&e))).snapshot())
            .collect();
        for other in &seen[1..] {
            prop_assert_eq!(other, &seen[0]);
        }
    }
}

/// A tree with everything that GNU tar can pack.
fn make_tree(root: &Path) {
    let write = |name: &str, data: &[u8], mode: u32| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, data).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    for i in 0..200usize {
        write(&format!("many/{}/{i}", i % 7), &vec![u8::try_from(i).unwrap(); i * 37], 0o644);
    }
    let tool = write("bin/tool", &[1; 70_000], 0o755);
    chown(&tool, Some(1000), Some(70_000)).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o6755)).unwrap();
    let attributes = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(&tool, "user.note", b"kept", attributes).unwrap();
    fs::hard_link(&tool, root.join("bin/again")).unwrap();
    symlink("../bin/tool", root.join("many/link")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    symlink("x".repeat(300), root.join("long-target")).unwrap();
    write(&format!("{}/{}", "deep/".repeat(40), "n".repeat(200)), b"far down", 0o600);
    write("name with \u{e4} and \n newline", b"odd", 0o640);
    let sparse = File::create(root.join("sparse")).unwrap();
    for (at, byte) in [(0u64, 1u8), (1 << 20, 2), ((1 << 20) + 70_000, 3), (5 << 20, 4)] {
        sparse.write_all_at(&vec![byte; 5000], at).unwrap();
    }
    sparse.set_len(9 << 20).unwrap();
    let special = |name: &str, kind, device| {
        rustix::fs::mknodat(rustix::fs::CWD, root.join(name), kind, rustix::fs::Mode::from_raw_mode(0o620), device).unwrap();
    };
    special("fifo", rustix::fs::FileType::Fifo, 0);
    special("null", rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    fs::create_dir(root.join("sticky")).unwrap();
    fs::set_permissions(root.join("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
}

fn tar(arguments: &[&str], dir: &Path) -> bool {
    let archive = CString::new(dir.as_os_str().as_bytes()).unwrap();
    let status = Command::new("tar").args(arguments).arg("-C").arg(dir).arg(".").status();
    assert!(!archive.is_empty());
    status.is_ok_and(|status| status.success())
}

/// Link counts of directories are a property of the file system below GNU tar's copy.
fn comparable(mut snapshot: Snapshot, with_xattrs: bool, with_nanos: bool) -> Snapshot {
    for seen in snapshot.0.values_mut() {
        if seen.kind == Kind::Directory {
            seen.links = 0;
        }
        if !with_xattrs {
            seen.xattrs.clear();
        }
        if !with_nanos {
            seen.mtime.1 = 0;
        }
    }
    snapshot
}

#[test]
fn gnu_tar_unpacks_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    make_tree(&source);
    let variants: [(&str, &[&str]); 6] = [
        ("gnu", &["--format=gnu"]),
        ("gnu-sparse", &["--format=gnu", "--sparse"]),
        ("pax", &["--format=pax", "--xattrs"]),
        ("pax-sparse-0.0", &["--format=pax", "--sparse", "--sparse-version=0.0"]),
        ("pax-sparse-0.1", &["--format=pax", "--sparse", "--sparse-version=0.1"]),
        ("pax-sparse-1.0", &["--format=pax", "--sparse", "--sparse-version=1.0"]),
    ];
    for (name, options) in variants {
        let archive = dir.path().join(name).with_extension("tar");
        let mut pack = options.to_vec();
        pack.extend(["-cf", archive.to_str().unwrap()]);
        if !tar(&pack, &source) {
            eprintln!("SKIPPED: no GNU tar here");
            return;
        }
        let bytes = fs::read(&archive).unwrap();
        let unpacked = dir.path().join(format!("{name}.d"));
        fs::create_dir(&unpacked).unwrap();
        let unpack = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", archive.to_str().unwrap()];
        assert!(tar(&unpack, &unpacked));
        let root: OwnedFd = File::open(&unpacked).unwrap().into();
        let pax = name.starts_with("pax");
        let expected = comparable(Snapshot::of(root.as_fd()), true, pax);
        for format in formats() {
            let layer = apply_as(*format, &bytes).unwrap_or_else(|e| panic!("{name} {format:?}: {}", chain(&e)));
            let seen = comparable(layer.snapshot(), true, pax);
            for (path, entry) in &expected.0 {
                assert_eq!(seen.0.get(path), Some(entry), "{name} {format:?} {path}");
            }
            assert_eq!(seen.paths(), expected.paths(), "{name} {format:?}");
        }
    }
}

/// Images are checked by the format's own tool where it is new enough to know 512-byte blocks.
#[test]
fn fsck_accepts_the_images() {
    if !common::erofs_works() {
        return;
    }
    let Ok(version) = Command::new("fsck.erofs").arg("--version").output() else {
        eprintln!("SKIPPED: no fsck.erofs here");
        return;
    };
    let text = String::from_utf8_lossy(&version.stdout).into_owned() + &String::from_utf8_lossy(&version.stderr);
    let number = text.split_whitespace().find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()));
    let parts: Vec<u32> = number.unwrap_or("0").split('.').map_while(|part| part.parse().ok()).collect();
    if parts < vec![1, 6] {
        eprintln!("SKIPPED: fsck.erofs {number:?} knows 4096-byte blocks only");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    make_tree(dir.path());
    let archive = dir.path().with_extension("tar");
    let packed = tar(&["--format=pax", "--xattrs", "--sparse", "-cf", archive.to_str().unwrap()], dir.path());
    let bytes = fs::read(&archive);
    fs::remove_file(&archive).ok();
    if !packed {
        eprintln!("SKIPPED: no GNU tar here");
        return;
    }
    let layer = apply_as(layer::Format::Erofs, &bytes.unwrap()).unwrap();
    let checked = Command::new("fsck.erofs").arg(&layer.path).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
