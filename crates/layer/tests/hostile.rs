//! IM-08, IM-09, IM-10: archives that mean harm. Every one is either refused with a reason or stays inside its layer, the
//! same in both formats; a canary tree beside the layer is never touched.

mod common;

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
};

use common::{
    apply_as, apply_with,
    archive::{Archive, Entry, record},
    formats, refused_in_all_formats, same_in_all_formats,
    snapshot::{Kind, Snapshot, file},
};
use layer::{Compression, Error, Limits, Malformed, Refusal, Target, apply, fuzz_tar};

fn refusal(tar: &[u8]) -> Refusal {
    assert!(fuzz_tar(tar).is_err());
    match refused_in_all_formats(tar) {
        Error::Entry { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

fn malformed(tar: &[u8]) -> Malformed {
    assert!(fuzz_tar(tar).is_err());
    match refused_in_all_formats(tar) {
        Error::Malformed { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

fn named(name: &[u8]) -> Vec<u8> {
    Archive::new().pax(&[("path", name)]).file("x", b"1").end()
}

#[test]
fn im08_names() {
    for name in [&b"../x"[..], b"..", b"a/../../x", b"/../x", b"a/..", b"./../x"] {
        assert_eq!(refusal(&named(name)), Refusal::DotDot);
    }
    for name in [&b".wh."[..], b".wh..", b".wh...", b"a/.wh.", b".wh.x/y", b".wh..wh..opq/y"] {
        assert_eq!(refusal(&named(name)), Refusal::Whiteout);
    }
    for name in [&b"."[..], b"/", b"./.", b"//"] {
        let tar = Archive::new().pax(&[("path", name), ("linkpath", b"t")]).symlink("x", "t").end();
        assert_eq!(refusal(&tar), Refusal::Root);
        let tar = Archive::new().pax(&[("path", name)]).hard_link("x", "t").end();
        assert_eq!(refusal(&tar), Refusal::Root);
    }
    assert_eq!(refusal(&Archive::new().file("", b"").end()), Refusal::EmptyName);
    assert_eq!(malformed(&named(b"a\0b")), Malformed::Nul);
    assert_eq!(refusal(&named(&[b'n'; 256])), Refusal::LongName);
    assert_eq!(refusal(&named(&[&b"d/".repeat(2100)[..], b"f"].concat())), Refusal::LongPath);
    // What looks odd but is a name like any other.
    let odd = [&b"/etc/x"[..], b"...", b" ", b"\xff\xfe", b"a\nb", "\u{202e}x".as_bytes(), b"A", b"a", b".wh", b"-rf", b"*"];
    let mut tar = Archive::new();
    for name in odd {
        tar = tar.pax(&[("path", name)]).file("x", name);
    }
    let seen = same_in_all_formats(&tar.end());
    assert_eq!(seen.0.len(), odd.len() + 2);
    assert_eq!(seen.get("etc/x").kind, file(b"/etc/x"));
    assert_eq!(seen.get("\\xff\\xfe").kind, file(b"\xff\xfe"));
    let longest = [&b"d/".repeat(2040)[..], b"last"].concat();
    for format in formats() {
        let layer = apply_as(*format, &named(&longest)).unwrap();
        let flags = rustix::fs::OFlags::RDONLY;
        assert!(rustix::fs::openat(&layer.root, &longest[..], flags, rustix::fs::Mode::empty()).is_ok());
    }
}

#[test]
fn im08_resolved_paths_are_bounded() {
    // Two short names, but the place they mean is deeper than the kernel can name.
    let deep = "d/".repeat(1500);
    let tar = Archive::new()
        .pax(&[("path", deep.as_bytes())])
        .dir("x")
        .pax(&[("linkpath", deep.as_bytes())])
        .symlink("l", "x")
        .pax(&[("path", format!("l/{deep}f").as_bytes())])
        .file("x", b"")
        .end();
    assert_eq!(refusal(&tar), Refusal::LongPath);
}

#[test]
fn im08_links() {
    let cases: [(Archive, Refusal); 9] = [
        (Archive::new().hard_link("h", "/etc/passwd"), Refusal::LinkTarget("etc/passwd".into())),
        (Archive::new().hard_link("h", "../../etc/passwd"), Refusal::DotDot),
        (Archive::new().symlink("s", "/etc").hard_link("h", "s/passwd"), Refusal::LinkTarget("s/passwd".into())),
        (Archive::new().dir("d").hard_link("h", "d"), Refusal::LinkDirectory("/d".into())),
        (Archive::new().hard_link("h", "/"), Refusal::LinkDirectory("/".into())),
        (Archive::new().file(".wh.w", b"").hard_link("h", "w"), Refusal::LinkTarget("/w".into())),
        (Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", b""), Refusal::Loop),
        (Archive::new().file("f", b"").file("f/x", b""), Refusal::NotADirectory),
        (Archive::new().symlink("s", ""), Refusal::SymlinkTarget),
    ];
    for (archive, expected) in cases {
        let found = refusal(&archive.end());
        assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&expected), "{found:?} {expected:?}");
    }
    // The link replaces the directory that its target is in.
    let tar = Archive::new().file("d/f", b"").hard_link("d", "d/f").end();
    assert!(matches!(refusal(&tar), Refusal::LinkTarget(_)));
    let tar = Archive::new().file("d/f", b"").hard_link("g", "d/f").hard_link("d", "d/f").end();
    assert!(matches!(refusal(&tar), Refusal::LinkTarget(_)));
}

#[test]
fn im08_hard_link_to_a_symlink_is_the_symlink() {
    let tar = Archive::new().symlink("s", "/etc/shadow").hard_link("h", "s").file("h2", b"x").end();
    let seen = same_in_all_formats(&tar);
    assert_eq!(seen.get("h").kind, Kind::Symlink(b"/etc/shadow".to_vec()));
}

#[test]
fn im08_devices_and_owners() {
    let device = |kind, major, minor| Archive::new().add(Entry::new(kind, b"d").device(major, minor)).end();
    for tar in [device(b'3', 4096, 0), device(b'4', 0, 1 << 20)] {
        assert!(matches!(refusal(&tar), Refusal::Device(..)));
    }
    let wide = |at, bytes: [u8; 8]| Archive::new().add(Entry::new(b'3', b"d").raw(at, &bytes)).end();
    assert!(matches!(refusal(&wide(329, [0x80, 0, 0, 1, 0, 0, 0, 0])), Refusal::Device(..)));
    assert!(matches!(refusal(&wide(337, [0xff; 8])), Refusal::Device(..)));
    for owner in ["-1", "4294967295", "4294967296"] {
        let tar = Archive::new().pax(&[("uid", owner.as_bytes())]).file("f", b"").end();
        assert_eq!(refusal(&tar), Refusal::Owner);
    }
    // A device over a symlink replaces it, an entry behind one fails.
    let tar = Archive::new().symlink("d", "/dev").add(Entry::new(b'3', b"d").device(1, 3)).end();
    assert!(matches!(same_in_all_formats(&tar).get("d").kind, Kind::Char(_)));
    let tar = Archive::new().add(Entry::new(b'3', b"d").device(1, 3)).file("d/x", b"").end();
    assert_eq!(refusal(&tar), Refusal::NotADirectory);
}

#[test]
fn im08_attributes_that_the_kernel_would_refuse() {
    for (name, value) in [
        ("security.capability", &b"short"[..]),
        ("system.posix_acl_access", b"\x02\0\0\0\x01\0"),
        ("system.posix_acl_access", b"\x03\0\0\0"),
        ("user.", b"nameless"),
        ("user.big", &[b'x'; 65_530]),
    ] {
        let tar = Archive::new().pax(&[(&format!("SCHILY.xattr.{name}"), value)]).file("f", b"").end();
        assert!(matches!(refusal(&tar), Refusal::Xattr(_)), "{name}");
    }
    let long = format!("SCHILY.xattr.user.{}", "n".repeat(300));
    assert!(matches!(refusal(&Archive::new().pax(&[(&long, b"1")]).file("f", b"").end()), Refusal::Xattr(_)));
}

/// Everything that has broken out of somebody's extractor, aimed at a tree that lies beside the layer.
fn breakouts(canary: &str) -> Vec<Vec<u8>> {
    let outside =
        ["..", "../canary", "../../canary", "/", "/etc", canary, "a/../../../canary", "/proc/self/root", "/proc/self/cwd"];
    let mut corpus = Vec::new();
    for target in outside {
        let link = || Archive::new().pax(&[("linkpath", target.as_bytes())]).symlink("l", "x");
        let dir = || Archive::new().dir("d").pax(&[("linkpath", target.as_bytes())]).symlink("d/l", "x");
        corpus.extend([
            link().file("l/secret", b"overwritten"),
            link().file("l/canary/secret", b"overwritten"),
            link().add(Entry::new(b'5', b"l").mode(0o777).owner(9, 9)),
            link().add(Entry::new(b'5', b"l/").mode(0o777).owner(9, 9)),
            link().add(Entry::new(b'5', b"l/dir").mode(0o777).owner(9, 9)),
            link().add(Entry::new(b'0', b"l").mode(0o777).data(b"x")),
            link().file("l/.wh.secret", b""),
            link().file("l/.wh..wh..opq", b""),
            link().file(".wh.l", b"").file("l/secret", b"x"),
            link().hard_link("h", "l").file("h", b"through the link"),
            link().hard_link("h", "l").add(Entry::new(b'5', b"h").mode(0o777)),
            link().hard_link("h", "l/secret"),
            link().hard_link("l/secret", "l"),
            link().add(Entry::new(b'3', b"l/dev").device(1, 1)),
            link().add(Entry::new(b'6', b"l/fifo")),
            link().symlink("l/deeper", "/").file("l/deeper/etc/x", b"x"),
            link().pax(&[("SCHILY.xattr.user.owned", b"1")]).dir("l/dir"),
            dir().file("d/l/secret", b"overwritten"),
            dir().file("d/l/../secret", b"x"),
            dir().symlink("m", "d/l").file("m/secret", b"x"),
            dir().symlink("m", "d/l").add(Entry::new(b'5', b"m/dir").mode(0o777)),
            link().dir("l2").symlink("l2/l", "../l").file("l2/l/secret", b"x"),
            // A directory that becomes a symlink and is then used as a directory, as TOCTOU attacks do it in one stream.
            Archive::new()
                .dir("d/e")
                .file("d/e/f", b"1")
                .pax(&[("linkpath", target.as_bytes())])
                .symlink("d", "x")
                .file("d/e/f", b"2"),
            Archive::new().dir("d/e").pax(&[("linkpath", target.as_bytes())]).symlink("d/e", "x").file("d/e/secret", b"2"),
        ]);
        let absolute = format!("{canary}/secret");
        corpus.extend([
            Archive::new().pax(&[("path", absolute.as_bytes())]).file("x", b"overwritten"),
            Archive::new().pax(&[("path", format!("{target}/secret").as_bytes())]).file("x", b"overwritten"),
            Archive::new().pax(&[("path", format!("{target}/.wh.secret").as_bytes())]).file("x", b""),
            Archive::new().pax(&[("linkpath", absolute.as_bytes())]).hard_link("h", "x"),
        ]);
    }
    corpus.into_iter().map(Archive::end).collect()
}

#[test]
fn im08_nothing_reaches_the_canary() {
    let dir = tempfile::tempdir().unwrap();
    let canary = dir.path().join("canary");
    std::fs::create_dir_all(canary.join("dir")).unwrap();
    std::fs::write(canary.join("secret"), b"untouched").unwrap();
    std::fs::write(canary.join("dir/inner"), b"untouched").unwrap();
    let canary_fd: OwnedFd = File::open(&canary).unwrap().into();
    let before = Snapshot::of(canary_fd.as_fd());
    let (mut applied, mut refused) = (0, 0);
    for (i, tar) in breakouts(canary.to_str().unwrap()).iter().enumerate() {
        let path = dir.path().join(format!("layer{i}"));
        std::fs::create_dir(&path).unwrap();
        let root: OwnedFd = File::open(&path).unwrap().into();
        let result = apply(&tar[..], Compression::None, Target::Directory(root.as_fd()), &Limits::default());
        assert_eq!(result.is_ok(), fuzz_tar(tar).is_ok());
        if result.is_ok() {
            applied += 1;
            let seen = Snapshot::of(root.as_fd());
            if formats().contains(&layer::Format::Erofs) {
                assert_eq!(apply_as(layer::Format::Erofs, tar).unwrap().snapshot(), seen);
            }
        } else {
            refused += 1;
        }
        assert_eq!(Snapshot::of(canary_fd.as_fd()), before, "archive {i}");
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), i + 2, "something new beside the layers: {names:?}");
    }
    assert!(applied > 100 && refused > 20, "{applied} {refused}");
}

#[test]
fn im09_sizes() {
    // PAX wins over the header, both ways; what it says is where the next header is looked for.
    let inner = Archive::new().file("smuggled", b"").bytes;
    let larger = Archive::new().pax(&[("size", b"512")]).add(Entry::new(b'0', b"f").data_of_size(&inner, 0)).file("g", b"").end();
    assert_eq!(same_in_all_formats(&larger).paths(), ["", "f", "g"]);
    let smaller = Archive::new().pax(&[("size", b"0")]).add(Entry::new(b'0', b"f").data_of_size(&inner, 512)).file("g", b"").end();
    assert_eq!(same_in_all_formats(&smaller).paths(), ["", "f", "g", "smuggled"]);
    for kind in [b'1', b'2', b'3', b'4', b'5', b'6'] {
        let tar = Archive::new().add(Entry::new(kind, b"n").link(b"t").data(&inner)).end();
        assert_eq!(malformed(&tar), Malformed::Content(char::from(kind)));
        let tar = Archive::new().pax(&[("size", b"512")]).add(Entry::new(kind, b"n").link(b"t")).raw(&inner).end();
        assert_eq!(malformed(&tar), Malformed::Content(char::from(kind)));
    }
    assert_eq!(malformed(&Archive::new().add(Entry::new(b'0', b"d/").data(&inner)).end()), Malformed::Content('5'));
    let negative = Archive::new().add(Entry::new(b'0', b"f").raw(124, &[0xff; 12])).end();
    assert_eq!(malformed(&negative), Malformed::Number("size"));
    for value in ["-1", "1.5", "0x10", "18446744073709551616", " 1", "1 "] {
        let tar = Archive::new().pax(&[("size", value.as_bytes())]).file("f", b"").end();
        assert!(matches!(malformed(&tar), Malformed::Pax(_)), "{value}");
    }
    let huge = Archive::new().pax(&[("size", b"18446744073709551615")]).file("f", b"").end();
    assert!(matches!(refused_in_all_formats(&huge), Error::Limit { .. } | Error::Malformed { .. }));
}

#[test]
fn im09_extensions() {
    let long = |kind, name: &[u8]| Entry::new(kind, b"././@LongLink").gnu().data(name);
    let cases = [
        Archive::new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", b""),
        Archive::new().add(long(b'L', b"a\0")).add(long(b'L', b"b\0")).file("c", b""),
        Archive::new().pax(&[("path", b"a")]).add(long(b'L', b"b\0")).file("c", b""),
        Archive::new().pax(&[("linkpath", b"a")]).add(long(b'K', b"b\0")).symlink("c", "d"),
        Archive::new().pax(&[("path", b"a")]).add(Entry::new(b'g', b"g").data(&record("comment", b"x"))).file("c", b""),
    ];
    for archive in cases {
        assert_eq!(malformed(&archive.end()), Malformed::Conflict);
    }
    assert_eq!(malformed(&Archive::new().pax(&[("path", b"a")]).end()), Malformed::Dangling);
    assert_eq!(malformed(&Archive::new().add(long(b'L', b"a\0")).bytes), Malformed::Dangling);
    assert_eq!(malformed(&Archive::new().add(long(b'L', b"a\0b")).file("c", b"").end()), Malformed::Nul);
    for key in ["path", "linkpath", "size", "uid", "mtime", "SCHILY.xattr.user.x", "GNU.sparse.major"] {
        let tar = Archive::new().add(Entry::new(b'g', b"g").data(&record(key, b"1"))).file("c", b"").end();
        assert!(matches!(malformed(&tar), Malformed::Global(_)), "{key}");
    }
    let git = Archive::new().add(Entry::new(b'g', b"pax_global_header").data(&record("comment", b"0123"))).file("c", b"").end();
    assert!(same_in_all_formats(&git).has("c"));
    for data in [&b"garbage"[..], b"5 a=b\n", b"100 path=x\n", b"9 path=a\nx", b"6 path\n", b"\0\0\0\0\0\0\0\0"] {
        let tar = Archive::new().add(Entry::new(b'x', b"x").data(data)).file("c", b"").end();
        assert!(matches!(malformed(&tar), Malformed::Pax(_)), "{data:?}");
    }
}

#[test]
fn im09_framing() {
    let good = Archive::new().file("a", b"1").file("b", b"2");
    let mut checksum = good.bytes.clone();
    checksum[0] = b'z';
    assert_eq!(malformed(&checksum), Malformed::Checksum);
    let lone = Archive::new().file("a", b"1").raw(&[0; 512]).file("b", b"2").end();
    assert_eq!(malformed(&lone), Malformed::LoneZeroBlock);
    for kind in *b"DMNVXAz\xff" {
        let tar = Archive::new().add(Entry::new(kind, b"n")).end();
        assert_eq!(malformed(&tar), Malformed::Type(char::from(kind)));
    }
    // Without its end an archive is complete if it ends between entries, and only there.
    assert_eq!(same_in_all_formats(&good.bytes).paths(), ["", "a", "b"]);
    for length in (1..good.bytes.len()).step_by(37).filter(|length| length % 512 != 0) {
        assert!(matches!(malformed(&good.bytes[..length]), Malformed::Truncated(_)), "{length}");
    }
    for (at, field) in [(100, "mode"), (108, "uid"), (116, "gid"), (124, "size"), (136, "mtime"), (329, "devmajor")] {
        let tar = Archive::new().add(Entry::new(b'0', b"f").raw(at, b"99")).end();
        assert_eq!(malformed(&tar), Malformed::Number(field));
    }
}

#[test]
fn im09_sparse_maps() {
    let mapped = |size: &str, count: &str, map: &str, data: &[u8]| {
        let records =
            [("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.numblocks", count.as_bytes()), ("GNU.sparse.map", map.as_bytes())];
        Archive::new().pax(&records).file("f", data).end()
    };
    for tar in [
        mapped("10", "1", "5,6", b"123456"),
        mapped("10", "2", "5,2,3,2", b"1234"),
        mapped("10", "2", "0,4,2,4", b"12345678"),
        mapped("10", "1", "0,4", b"12345"),
        mapped("10", "2", "0,4", b"1234"),
        mapped("10", "1", "0", b""),
        mapped("10", "1", "0,x", b""),
        mapped("10", "1", "18446744073709551615,2", b"12"),
        mapped("18446744073709551615", "2", "1,18446744073709551610,18446744073709551612,18446744073709551615", b""),
    ] {
        assert!(matches!(malformed(&tar), Malformed::Sparse(_)));
    }
    let in_data = |text: &str| {
        let mut data = text.as_bytes().to_vec();
        data.resize(data.len().next_multiple_of(512), 0);
        let records = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1000")];
        Archive::new().pax(&records).file("f", &data).end()
    };
    for text in ["", "x\n", "99999999999999999999\n", "18446744073709551615\n", "5\n0\n0\n", "1\n0\n", "1\n\n\n", "1\n0\n-1\n"] {
        assert!(matches!(malformed(&in_data(text)), Malformed::Sparse(_) | Malformed::Truncated(_)), "{text:?}");
    }
    // The size with its holes counts against the limit, and an image of it stays small.
    let huge = mapped("99999999999999", "0", "", b"");
    assert!(matches!(refused_in_all_formats(&huge), Error::Limit { what: "bytes of files", .. }));
    let big = mapped("60000000000", "1", "30000000000,3", b"abc");
    for format in formats() {
        let layer = apply_as(*format, &big).unwrap();
        let on_disk = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&layer.path).unwrap()) * 512;
        assert!(on_disk < 8 << 20, "{on_disk}");
        let path = format!("/proc/self/fd/{}/f", std::os::fd::AsRawFd::as_raw_fd(&layer.root));
        let mut bytes = [1; 5];
        std::os::unix::fs::FileExt::read_exact_at(&File::open(path).unwrap(), &mut bytes, 29_999_999_999).unwrap();
        assert_eq!(&bytes, b"\0abc\0");
    }
}

fn limited(tar: &[u8], limits: Limits) -> &'static str {
    let mut found = formats().iter().map(|format| match apply_with(*format, tar, Compression::None, &limits).map(|l| l.applied) {
        Err(Error::Limit { what, .. }) => what,
        other => panic!("{other:?}"),
    });
    let first = found.next().unwrap();
    assert!(found.all(|other| other == first));
    first
}

#[test]
fn im10_budgets() {
    let limits = Limits::default();
    let many = |n: usize| (0..n).fold(Archive::new(), |tar, i| tar.file(&i.to_string(), b"")).end();
    assert_eq!(limited(&many(11), Limits { entries: 10, ..limits }), "entries");
    let deep = Archive::new().pax(&[("path", &b"d/".repeat(500))]).dir("x").end();
    assert_eq!(limited(&deep, Limits { entries: 100, ..limits }), "entries");
    assert_eq!(limited(&many(100), Limits { unpacked: 10_000, ..limits }), "bytes of archive");
    assert_eq!(limited(&many(100), Limits { metadata: 100, ..limits }), "bytes of metadata");
    let pax = Archive::new().add(Entry::new(b'x', b"x").size(2 << 20)).end();
    assert_eq!(limited(&pax, limits), "bytes in one extended header");
    let name = Archive::new().add(Entry::new(b'L', b"x").gnu().size(1 << 30)).end();
    assert_eq!(limited(&name, limits), "bytes in one extended header");
    // Every parent costs a walk through a long chain of symlinked directories.
    let deep = "d/".repeat(1000);
    let mut walks = Archive::new().pax(&[("path", deep.as_bytes())]).dir("x");
    for (i, name) in (0..200).map(|i| (i, format!("l{i}"))) {
        walks = walks.pax(&[("linkpath", deep.as_bytes())]).symlink(&name, "x").file(&format!("{name}/{i}"), b"");
    }
    assert_eq!(limited(&walks.end(), Limits { link_steps: 100_000, ..limits }), "steps through symlinked parents");
}

/// Endless zeros.
fn bomb(compression: Compression, size: u64) -> Vec<u8> {
    let zeros = std::io::repeat(0).take(size);
    match compression {
        Compression::Gzip => {
            let mut out = Vec::new();
            flate2::read::GzEncoder::new(zeros, flate2::Compression::default()).read_to_end(&mut out).unwrap();
            out
        }
        Compression::Zstd => zstd::encode_all(zeros, 3).unwrap(),
        Compression::Bzip2 => common::bzip2(zeros),
        Compression::Xz => common::xz(zeros, 1),
        Compression::None => Vec::new(),
    }
}

const COMPRESSIONS: [Compression; 4] = [Compression::Gzip, Compression::Zstd, Compression::Bzip2, Compression::Xz];

#[test]
fn im10_bombs() {
    let limits = Limits { ratio_from: 4 << 20, ratio: 200, ..Limits::default() };
    for compression in COMPRESSIONS {
        let bytes = bomb(compression, 8 << 20);
        for format in formats() {
            let error = apply_with(*format, &bytes, compression, &limits).map(|l| l.applied).unwrap_err();
            assert!(matches!(error, Error::Limit { what: "bytes of archive per compressed byte", .. }), "{error}");
            assert_eq!(error.kind(), model::ErrorKind::ResourceExhausted);
        }
        // As much is fine where there is little of it.
        assert!(apply_with(formats()[0], &bomb(compression, 3 << 20), compression, &limits).is_ok());
    }
}

#[test]
fn im10_zstd_windows() {
    let window = |log: u32| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.set_parameter(zstd::zstd_safe::CParameter::WindowLog(log)).unwrap();
        encoder.include_contentsize(false).unwrap();
        std::io::Write::write_all(&mut encoder, &[0; 1024]).unwrap();
        encoder.finish().unwrap()
    };
    assert!(apply_with(formats()[0], &window(27), Compression::Zstd, &Limits::default()).is_ok());
    let error = apply_with(formats()[0], &window(28), Compression::Zstd, &Limits::default()).map(|l| l.applied).unwrap_err();
    assert!(matches!(error, Error::Decompress { .. }), "{error:?}");
}

/// A dictionary is reserved before a byte of it is written.
#[test]
fn im10_xz_dictionaries() {
    let bytes = common::xz(&[0; 1024][..], 9);
    assert!(apply_with(formats()[0], &bytes, Compression::Xz, &Limits::default()).is_ok());
    let limits = Limits { window_log: 25, ..Limits::default() };
    let error = apply_with(formats()[0], &bytes, Compression::Xz, &limits).map(|l| l.applied).unwrap_err();
    assert!(matches!(error, Error::Decompress { .. }), "{error:?}");
}

/// Damaged streams are errors, or what they were: their checksums see to that.
#[test]
fn im10_damaged_streams() {
    let mut random = Random(0xbad);
    let plain: Vec<u8> = (0..3000u32).flat_map(|n| (n * n).to_le_bytes()).collect();
    let streams = [(Compression::Bzip2, common::bzip2(&plain[..])), (Compression::Xz, common::xz(&plain[..], 6))];
    for (compression, good) in streams {
        for _ in 0..2000 {
            let mut bytes = good.clone();
            let at = random.next(bytes.len());
            match random.next(3) {
                0 => bytes.truncate(at),
                1 => bytes[at] ^= 1 << random.next(8),
                _ => bytes[at] = u8::try_from(random.next(256)).unwrap(),
            }
            let mut out = Vec::new();
            let read = layer::decompress(&bytes[..], compression, &Limits::default()).unwrap().read_to_end(&mut out);
            assert!(read.is_err() || out == plain || out.is_empty(), "{compression}");
        }
    }
}

/// A small generator, so that a failing seed can be run again.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % below
    }
}

/// Mutations of archives that use everything, with their checksums put right so that they get past the first door.
#[test]
fn im10_mutated_archives_never_panic() {
    let sparse = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1000")];
    let seed = Archive::new()
        .dir("d")
        .pax(&[("path", b"d/long"), ("mtime", b"1.5"), ("SCHILY.xattr.user.x", b"v")])
        .file("x", &[7; 700])
        .add(Entry::new(b'L', b"l").gnu().data(b"gnu/name\0"))
        .hard_link("x", "d/long")
        .symlink("s", "d")
        .file("s/.wh.hidden", b"")
        .pax(&sparse)
        .file("sparse", &[b"1\n0\n5\n".to_vec(), vec![0; 506], b"hello".to_vec()].concat())
        .add(
            Entry::new(b'S', b"old")
                .gnu()
                .raw(386, b"00000000000\0")
                .raw(398, b"00000000005\0")
                .raw(483, b"00000000010\0")
                .data(b"12345"),
        )
        .add(Entry::new(b'3', b"dev").device(1, 3))
        .end();
    assert!(fuzz_tar(&seed).is_ok());
    let mut random = Random(0x5eed);
    let mut accepted = 0;
    for _ in 0..10_000 {
        let mut tar = seed.clone();
        for _ in 0..=random.next(4) {
            let at = random.next(tar.len());
            match random.next(4) {
                0 => tar[at] = u8::try_from(random.next(256)).unwrap(),
                1 => tar[at] = b"0179/.\0 =\n-"[random.next(11)],
                2 => tar.truncate(at.max(1)),
                _ => {
                    let (block, from) = (at / 512 * 512, random.next(tar.len()) / 512 * 512);
                    let copied = tar[from..(from + 512).min(tar.len())].to_vec();
                    tar.splice(block..block, copied);
                }
            }
        }
        for block in tar.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
        accepted += u32::from(fuzz_tar(&tar).is_ok());
    }
    assert!(accepted > 250, "{accepted}: the mutations no longer reach anything");
}

#[test]
fn im10_garbage_is_refused_at_every_length() {
    let mut random = Random(1);
    let noise: Vec<u8> = (0..70_000).map(|_| u8::try_from(random.next(256)).unwrap()).collect();
    for length in (1..noise.len()).step_by(4096) {
        for compression in COMPRESSIONS.into_iter().chain([Compression::None]) {
            assert!(apply_with(formats()[0], &noise[..length], compression, &Limits::default()).is_err());
        }
    }
}
