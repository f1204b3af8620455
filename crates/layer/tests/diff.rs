//! A writable layer becomes an archive: what is applied from it shows the same.

mod common;

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::{Path, PathBuf},
};

use common::{
    apply_as,
    archive::{Archive, Entry},
    chain,
    snapshot::{Kind, Snapshot, file},
};
use layer::{Diffed, Durability, Error, Format, Limits, Overlay, Refusal, Upper, diff, diff_without, pack_with};
use rustix::fs::{CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chown, lsetxattr, makedev, mknodat, utimensat};

fn archive_with(directory: &Path, limits: &Limits) -> Result<(Vec<u8>, Diffed), Error> {
    let mut bytes = Vec::new();
    let diffed = diff(File::open(directory).unwrap().as_fd(), &mut bytes, limits)?;
    Ok((bytes, diffed))
}

fn archive_of(directory: &Path) -> (Vec<u8>, Diffed) {
    archive_with(directory, &Limits::default()).unwrap_or_else(|e| panic!("{}", chain(&e)))
}

/// Applies what a directory becomes, and demands what was said about it.
fn applied(directory: &Path) -> common::Layer {
    let (bytes, diffed) = archive_of(directory);
    let layer = apply_as(Format::Directory, &bytes).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!((layer.applied.diff_id, layer.applied.tar_size), (diffed.diff_id, diffed.size));
    assert_eq!(layer.applied.entries, diffed.entries);
    assert_eq!(layer.applied.implied_directories, 0);
    layer
}

fn time(path: &Path, seconds: i64, nanos: i64) {
    let at = Timespec { tv_sec: seconds, tv_nsec: nanos };
    utimensat(CWD, path, &Timestamps { last_access: at, last_modification: at }, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn everything_that_a_layer_can_hold_goes_there_and_back() {
    let tar = Archive::new()
        .add(Entry::new(b'5', b"./").mode(0o750).owner(7, 8))
        .dir("d")
        .file("d/empty", b"")
        .file("d/block", &[7; 512])
        .file("d/more", &vec![9; 200_000])
        .hard_link("a-hard", "d/more")
        .hard_link("z-hard", "d/more")
        .symlink("link", "../outside")
        .add(Entry::new(b'3', b"null").device(1, 3).mode(0o666))
        .add(Entry::new(b'4', b"disk").device(259, 70_000))
        .add(Entry::new(b'6', b"fifo").mode(0o1600))
        .add(Entry::new(b'0', b"setuid").mode(0o6755).data(b"x"))
        .pax(&[
            ("path", [b"long/".as_slice(), &[b'n'; 200], b"/", &[b'm'; 255]].concat().as_slice()),
            ("uid", b"4000000000"),
            ("gid", b"2097152"),
            ("mtime", b"-1.25"),
            ("SCHILY.xattr.user.text", b"a=b\n\0"),
            ("SCHILY.xattr.trusted.mine", b""),
        ])
        .file("x", b"deep")
        .pax(&[("path", "n\u{e4}me/\n".as_bytes()), ("linkpath", &[b't'; 300]), ("mtime", b"9000000000.000000001")])
        .symlink("x", "y")
        .file("d2/.wh..wh..opq", b"")
        .dir("d2")
        .file("d2/.wh.gone", b"")
        .file(".wh.top", b"")
        .end();
    let first = apply_as(Format::Directory, &tar).unwrap_or_else(|e| panic!("{}", chain(&e)));
    // Directories that the archive only implies have an entry of their own afterwards.
    let second = applied(&first.path);
    assert_eq!(second.snapshot(), first.snapshot());
    assert!(second.snapshot().is_opaque("d2") && second.snapshot().is_whiteout("d2/gone") && second.snapshot().is_whiteout("top"));
    let (again, diffed) = archive_of(&second.path);
    assert_eq!(again, archive_of(&first.path).0, "equal directories are equal bytes");
    assert_eq!(diffed.sockets_left_out, 0);
}

/// An overlay that can be written to, in directories of its own.
struct Writable {
    dir: tempfile::TempDir,
}

impl Writable {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["lower", "upper", "work"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn mount(&self) -> OwnedFd {
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| File::open(self.at(name)).unwrap());
        let over = Upper { upper: upper.as_fd(), work: work.as_fd(), durability: Durability::Volatile };
        Overlay { lowers: &[lower.as_fd()], upper: Some(over) }.mount().unwrap()
    }
}

#[test]
fn what_overlayfs_wrote_shows_the_same_when_it_is_a_layer() {
    let writable = Writable::new();
    let lower = writable.at("lower");
    for path in ["keep", "gone", "changed", "owned"] {
        fs::write(lower.join(path), path).unwrap();
    }
    for dir in ["replaced", "emptied", "kept", "kept/inner", "removed", "to-file", "renamed"] {
        fs::create_dir(lower.join(dir)).unwrap();
        fs::write(lower.join(dir).join("old"), "old").unwrap();
    }
    let merged = writable.mount();
    let root = PathBuf::from(format!("/proc/self/fd/{}", merged.as_raw_fd()));
    fs::remove_file(root.join("gone")).unwrap();
    fs::write(root.join("changed"), "new").unwrap();
    chown(root.join("owned"), Some(Uid::from_raw(70_000)), Some(Gid::from_raw(5))).unwrap();
    fs::remove_dir_all(root.join("replaced")).unwrap();
    fs::create_dir(root.join("replaced")).unwrap();
    fs::write(root.join("replaced/new"), "new").unwrap();
    fs::remove_file(root.join("emptied/old")).unwrap();
    fs::remove_dir_all(root.join("removed")).unwrap();
    fs::remove_dir_all(root.join("to-file")).unwrap();
    fs::write(root.join("to-file"), "file").unwrap();
    fs::write(root.join("kept/inner/new"), "new").unwrap();
    fs::hard_link(root.join("kept/inner/new"), root.join("linked")).unwrap();
    // Refused with EXDEV, since redirects are off: what `mv` then does is copy and remove.
    assert!(fs::rename(root.join("renamed"), root.join("elsewhere")).is_err());
    let wanted = Snapshot::of(merged.as_fd());
    drop(merged);

    let layer = applied(&writable.at("upper"));
    let snapshot = layer.snapshot();
    assert!(snapshot.is_whiteout("gone") && snapshot.is_whiteout("emptied/old") && snapshot.is_opaque("replaced"));
    assert!(!snapshot.has("keep"), "what is as it was is not in the layer");
    let bottom = File::open(&lower).unwrap();
    let shown = Overlay { lowers: &[layer.root.as_fd(), bottom.as_fd()], upper: None }.mount().unwrap();
    let mut seen = Snapshot::of(shown.as_fd());
    // The numbers of links that overlayfs shows for a directory are not those of what is in it.
    let mut wanted = wanted;
    for snapshot in [&mut seen, &mut wanted] {
        snapshot.0.values_mut().filter(|seen| seen.kind == Kind::Directory).for_each(|seen| seen.links = 0);
    }
    assert_eq!(seen, wanted);
}

#[test]
fn the_order_of_making_makes_no_difference() {
    let make = |names: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(dir.path().join(name), name).unwrap();
            time(&dir.path().join(name), 1, 0);
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        time(dir.path(), 2, 3);
        archive_of(dir.path())
    };
    assert_eq!(make(&["b", "a", "c", "\u{ff}"]), make(&["\u{ff}", "c", "a", "b"]));
}

#[test]
fn what_belongs_to_the_host_stays() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), "x").unwrap();
    for (name, value) in [("trusted.overlay.origin", "o"), ("trusted.overlay.metacopy", ""), ("user.kept", "k")] {
        lsetxattr(dir.path().join("f"), name, value.as_bytes(), XattrFlags::empty()).unwrap();
    }
    let _listener = UnixListener::bind(dir.path().join("socket")).unwrap();
    let (bytes, diffed) = archive_of(dir.path());
    assert_eq!((diffed.sockets_left_out, diffed.entries), (1, 2));
    assert!(!bytes.windows(15).any(|window| window == b"trusted.overlay"));
    let layer = applied(dir.path());
    assert_eq!(layer.snapshot().get("f").xattrs.keys().collect::<Vec<_>>(), ["user.kept"]);
    assert_eq!(layer.snapshot().get("f").kind, file(b"x"));
}

#[test]
fn limits_and_names_that_would_lie() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        fs::write(dir.path().join(name), vec![0; 1000]).unwrap();
    }
    let refused = |limits| archive_with(dir.path(), &limits).unwrap_err().to_string();
    assert_eq!(refused(Limits { entries: 2, ..Limits::default() }), "the layer has more than 2 entries");
    assert_eq!(refused(Limits { unpacked: 2999, ..Limits::default() }), "the layer has more than 2999 bytes");
    File::create(dir.path().join("c")).unwrap().set_len(1 << 40).unwrap();
    assert!(refused(Limits::default()).contains("bytes"), "a hole is as long as the file says");
    fs::remove_file(dir.path().join("c")).unwrap();
    fs::write(dir.path().join(".wh.a"), "").unwrap();
    let error = archive_with(dir.path(), &Limits::default()).unwrap_err();
    assert!(matches!(error, Error::Entry { reason: Refusal::Whiteout, .. }), "{error}");
}

/// A link, a fifo and a device are written down and not looked through; a deep tree needs no deep stack.
#[test]
fn nothing_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    std::os::unix::fs::symlink("/etc", path.join("etc")).unwrap();
    mknodat(CWD, path.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    mknodat(CWD, path.join("tty"), FileType::CharacterDevice, Mode::RUSR, makedev(5, 0)).unwrap();
    let mut deep = File::open(path).unwrap();
    for _ in 0..500 {
        rustix::fs::mkdirat(&deep, "d", Mode::RWXU).unwrap();
        deep = File::from(rustix::fs::openat(&deep, "d", rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap());
    }
    let snapshot = applied(path).snapshot();
    assert_eq!(snapshot.get("etc").kind, Kind::Symlink(b"/etc".to_vec()));
    assert_eq!(snapshot.paths().iter().map(|path| path.len()).max(), Some(999));
}

/// A writer that fails is an error and no panic.
#[test]
fn a_full_disk_is_an_error() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(rustix::io::Errno::NOSPC.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let error = diff(File::open(dir.path()).unwrap().as_fd(), Full, &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), model::ErrorKind::ResourceExhausted);
}

/// Names in the archive of what is not left out.
fn told(directory: &Path, mounted: &[&str]) -> (Vec<String>, u64) {
    let mounted = mounted.iter().map(|path| path.as_bytes().to_vec()).collect();
    let mut bytes = Vec::new();
    let diffed = diff_without(File::open(directory).unwrap().as_fd(), &mounted, None, &mut bytes, &Limits::default()).unwrap();
    (names(&bytes), diffed.entries)
}

fn names(bytes: &[u8]) -> Vec<String> {
    let (mut names, mut at) = (Vec::new(), 0);
    while bytes[at] != 0 || bytes[at + 156] != 0 {
        let field = |range: std::ops::Range<usize>| {
            String::from_utf8(bytes[at..][range].iter().copied().take_while(|byte| *byte != 0).collect()).unwrap()
        };
        let size = usize::from_str_radix(&field(124..136), 8).unwrap();
        // A PAX header is about the next entry.
        if bytes[at + 156] != b'x' {
            names.push(field(0..100));
        }
        at += 512 + size.next_multiple_of(512);
    }
    names
}

#[test]
fn places_that_were_made_to_mount_on_are_left_out_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert_eq!(told(dir.path(), &[]), (vec![], 0));
    fs::create_dir_all(at("etc")).unwrap();
    fs::write(at("etc/hosts"), b"").unwrap();
    fs::create_dir_all(at("a/b/c")).unwrap();
    let mounted = ["etc/hosts", "a/b/c"];
    assert_eq!(told(dir.path(), &mounted), (vec![], 0), "the directories are there for the places alone");
    fs::create_dir_all(at("a/empty")).unwrap();
    fs::write(at("etc/motd"), b"x").unwrap();
    let (names, entries) = told(dir.path(), &mounted);
    assert_eq!((names, entries), (["./", "a/", "a/empty/", "etc/", "etc/motd"].map(str::to_owned).to_vec(), 5));
    fs::write(at("a/b/c/own"), b"x").unwrap();
    fs::write(at("etc/hosts"), b"own").unwrap();
    let (names, _) = told(dir.path(), &mounted);
    let all = ["./", "a/", "a/b/", "a/b/c/", "a/b/c/own", "a/empty/", "etc/", "etc/hosts", "etc/motd"];
    assert_eq!(names, all.map(str::to_owned).to_vec(), "what the container has put there is its own");
}

/// Overlay says of every directory that is made in it that it hides what is below.
#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says why")]
fn new_directories_for_places_to_mount_on_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("run/secrets")).unwrap();
    fs::write(at("run/secrets/key"), b"").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    if let Err(e) = rustix::fs::setxattr(at("run"), "trusted.overlay.opaque", b"y", flags) {
        eprintln!("SKIPPED: trusted.overlay.opaque cannot be set here: {e}");
        return;
    }
    assert_eq!(told(dir.path(), &["run/secrets/key"]), (vec![], 0));
    fs::write(at("run/own"), b"x").unwrap();
    let (names, _) = told(dir.path(), &["run/secrets/key"]);
    assert_eq!(names, ["./", "run/", "run/.wh..wh..opq", "run/own"].map(str::to_owned).to_vec());
}

/// What is mounted in a directory is in its archive if it was asked for; other mounts are not, nor is what is below them.
#[test]
fn mounts_are_packed_as_they_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for path in ["top/data", "top/sub", "volume/deep"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    for path in ["top/data/hidden", "top/hosts", "volume/deep/seen", "file"] {
        fs::write(at(path), path).unwrap();
    }
    fs::hard_link(at("file"), at("volume/other")).unwrap();
    let open = |name: &str| OwnedFd::from(File::open(at(name)).unwrap());
    let mounts = |front: &str| {
        let all = [("data", "volume"), ("hosts", "file"), ("new", "volume"), ("sub/far/away", "volume")];
        all.map(|(path, of)| (format!("{front}{path}").into_bytes(), open(of))).into_iter().collect()
    };
    let packed = |shown: &[u8], front: &str| {
        let mut bytes = Vec::new();
        let top = File::open(dir.path()).unwrap();
        pack_with((top.as_fd(), b"top"), shown, &mounts(front), &mut bytes, &Limits::default()).unwrap();
        names(&bytes)
    };
    let below = ["data/", "data/deep/", "data/deep/seen", "data/other", "hosts", "new/", "new/deep/", "new/deep/seen", "new/other"];
    let contents: Vec<String> = ["./"].iter().chain(&below).chain(&["sub/"]).map(|path| (*path).to_owned()).collect();
    assert_eq!(packed(b"", ""), contents);
    let named: Vec<String> = contents.iter().map(|path| format!("x/{}", path.trim_start_matches("./"))).collect();
    assert_eq!(packed(b"x", "x/"), named);
}
