//! One suite for both formats: what a layer says is what the file system shows.

mod common;

use std::io::{Read, Write};

use common::{
    apply_as, apply_with,
    archive::{Archive, Entry},
    chain, formats, image, refused_in_all_formats, same_in_all_formats,
    snapshot::{Kind, file},
};
use layer::{Compression, Error, Limits, Target, apply, tar_reader};
use sha2::Digest;

#[test]
fn every_kind_of_entry() {
    let big: Vec<u8> = (0..100_000u32).map(|i| (i * 7 % 253) as u8).collect();
    let tar = Archive::new()
        .add(Entry::new(b'5', b"./").mode(0o711).owner(1, 2).mtime(5))
        .dir("etc/")
        .file("etc/passwd", b"root:x:0:0\n")
        .add(Entry::new(b'0', b"bin/su").mode(0o4755).data(&big))
        .file("empty", b"")
        .file("exact", &big[..1024])
        .symlink("lib", "usr/lib")
        .hard_link("etc/passwd-", "etc/passwd")
        .add(Entry::new(b'3', b"dev/null").device(1, 3).mode(0o666))
        .add(Entry::new(b'3', b"dev/far").device(4095, 1_048_575).mode(0o600))
        .add(Entry::new(b'4', b"dev/sda").device(8, 0).mode(0o660).owner(0, 6))
        .add(Entry::new(b'6', b"run/fifo").mode(0o620))
        .end();
    let seen = same_in_all_formats(&tar);
    assert_eq!((seen.get("").mode, seen.get("").owner, seen.get("").mtime), (0o711, (1, 2), (5, 0)));
    assert_eq!(seen.get("etc/passwd").kind, file(b"root:x:0:0\n"));
    assert_eq!((&seen.get("bin/su").kind, seen.get("bin/su").mode), (&file(&big), 0o4755));
    assert_eq!(seen.get("empty").kind, file(b""));
    assert_eq!(seen.get("exact").kind, file(&big[..1024]));
    assert_eq!(seen.get("lib").kind, Kind::Symlink(b"usr/lib".to_vec()));
    assert_eq!((seen.get("etc/passwd-").links, &seen.get("etc/passwd-").same_as[..]), (2, "etc/passwd"));
    assert_eq!(seen.get("dev/null").kind, Kind::Char(rustix::fs::makedev(1, 3)));
    assert_eq!(seen.get("dev/far").kind, Kind::Char(rustix::fs::makedev(4095, 1_048_575)));
    assert_eq!(seen.get("dev/sda").kind, Kind::Block(rustix::fs::makedev(8, 0)));
    assert_eq!((&seen.get("run/fifo").kind, seen.get("run/fifo").mode), (&Kind::Fifo, 0o620));
    // Parents without an entry.
    assert_eq!((seen.get("bin").mode, seen.get("bin").owner, seen.get("bin").mtime), (0o755, (0, 0), (0, 0)));
}

#[test]
fn pax_overrides_everything() {
    let long = "long/".repeat(60) + "name";
    let target = "t".repeat(4000);
    let tar = Archive::new()
        .pax(&[
            ("path", long.as_bytes()),
            ("size", b"5"),
            ("uid", b"4000000000"),
            ("gid", b"3000000000"),
            ("mtime", b"1234567890.987654321"),
        ])
        .add(Entry::new(b'0', b"short").data_of_size(b"hello", 0))
        .pax(&[("linkpath", target.as_bytes()), ("mtime", b"-1.5")])
        .add(Entry::new(b'2', b"link").link(b"x"))
        .pax(&[("path", "h\u{e4}rd".as_bytes()), ("linkpath", long.as_bytes())])
        .hard_link("x", "y")
        .end();
    let seen = same_in_all_formats(&tar);
    let found = seen.get(&long);
    assert_eq!(found.kind, file(b"hello"));
    assert_eq!(found.owner, (4_000_000_000, 3_000_000_000));
    assert_eq!(found.mtime, (1_234_567_890, 987_654_321));
    assert_eq!(seen.get("link").kind, Kind::Symlink(target.into_bytes()));
    assert_eq!(seen.get("link").mtime, (-2, 500_000_000));
    assert_eq!(found.links, 2);
}

#[test]
fn gnu_names_and_numbers() {
    let long = "d/".repeat(70) + "file";
    let tar = Archive::new()
        .add(Entry::new(b'L', b"././@LongLink").gnu().data(&[long.as_bytes(), b"\0"].concat()))
        .add(Entry::new(b'0', &long.as_bytes()[..100]).gnu().raw(108, &[0x80, 0, 0, 0, 0xee, 0x6b, 0x28, 0]).data(b"x"))
        .add(Entry::new(b'K', b"././@LongLink").gnu().data(&[long.as_bytes(), b"\0"].concat()))
        .add(Entry::new(b'2', b"sym").gnu().link(b"cut"))
        .end();
    let seen = same_in_all_formats(&tar);
    assert_eq!(seen.get(&long).owner.0, 4_000_000_000);
    assert_eq!(seen.get("sym").kind, Kind::Symlink(long.into_bytes()));
}

#[test]
fn sizes_beyond_the_octal_field_are_read() {
    // 8 GiB and one byte in base-256, and the stream ends early: what matters is that the size was understood.
    let tar = Archive::new().add(Entry::new(b'0', b"big").gnu().raw(124, &[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1])).end();
    let error = refused_in_all_formats(&tar);
    assert!(error.to_string().contains("ends within the content"), "{error}");
}

#[test]
fn ustar_prefix() {
    let prefix = "p".repeat(100) + "/" + &"q".repeat(50);
    let tar = Archive::new().add(Entry::new(b'0', b"name").raw(345, prefix.as_bytes()).data(b"1")).end();
    assert!(same_in_all_formats(&tar).has(&format!("{prefix}/name")));
}

#[test]
fn extended_attributes() {
    let capability = [&0x0200_0001u32.to_le_bytes()[..], &[0, 0x20, 0, 0], &[0; 12]].concat();
    let acl: Vec<u8> = [2u32.to_le_bytes().to_vec()]
        .into_iter()
        .chain(
            [(1u16, 6u16, u32::MAX), (2, 7, 1000), (4, 4, u32::MAX), (0x10, 7, u32::MAX), (0x20, 4, u32::MAX)]
                .map(|(tag, permissions, id)| [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()),
        )
        .flatten()
        .collect();
    let long = vec![b'v'; 3000];
    let tar = Archive::new()
        .pax(&[
            ("SCHILY.xattr.user.empty", b""),
            ("SCHILY.xattr.user.mime", b"text/plain"),
            ("SCHILY.xattr.user.long", &long),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.security.selinux", b"system_u:object_r:etc_t:s0"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ])
        .add(Entry::new(b'0', b"file").owner(5, 5).mode(0o755).data(b"data"))
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.mine", b"1"),
            ("SCHILY.xattr.user.d", b"2"),
            ("SCHILY.xattr.system.posix_acl_default", &acl),
        ])
        .dir("dir")
        .pax(&[("SCHILY.xattr.system.posix_acl_access", &acl)])
        .add(Entry::new(b'0', b"acl").mode(0o674))
        .pax(&[("SCHILY.xattr.user.not_here", b"1"), ("SCHILY.xattr.trusted.here", b"1")])
        .symlink("link", "file")
        .end();
    let seen = same_in_all_formats(&tar);
    let xattrs = &seen.get("file").xattrs;
    assert_eq!(xattrs["user.mime"], b"text/plain");
    assert_eq!(xattrs["user.empty"], b"");
    assert_eq!(xattrs["user.long"], long);
    assert_eq!(xattrs["security.capability"], capability);
    assert_eq!(xattrs.len(), 4, "{xattrs:?}");
    assert_eq!(seen.get("dir").xattrs.keys().collect::<Vec<_>>(), ["system.posix_acl_default", "trusted.mine", "user.d"]);
    assert_eq!(seen.get("acl").xattrs["system.posix_acl_access"], acl);
    assert_eq!(seen.get("link").xattrs.keys().collect::<Vec<_>>(), ["trusted.here"]);
    let applied = apply_as(formats()[0], &tar).unwrap().applied;
    assert_eq!(applied.stripped_xattrs, 4);
}

#[test]
fn later_entries_win() {
    let tar = Archive::new()
        .file("file", b"first")
        .hard_link("kept", "file")
        .file("file", b"second")
        .dir("dir")
        .file("dir/inside", b"1")
        .add(Entry::new(b'5', b"dir").mode(0o700).owner(7, 7))
        .dir("replaced")
        .file("replaced/a/b/c", b"1")
        .file("replaced", b"now a file")
        .file("back", b"file first")
        .dir("back")
        .file("back/in", b"")
        .symlink("sym", "dir")
        .dir("sym")
        .file("sym/own", b"")
        .end();
    let seen = same_in_all_formats(&tar);
    assert_eq!(seen.get("file").kind, file(b"second"));
    assert_eq!((&seen.get("kept").kind, seen.get("kept").links), (&file(b"first"), 1));
    assert_eq!((seen.get("dir").mode, seen.get("dir").owner), (0o700, (7, 7)));
    assert!(seen.has("dir/inside") && !seen.has("dir/own") && seen.has("sym/own"));
    assert_eq!(seen.get("replaced").kind, file(b"now a file"));
    assert!(seen.has("back/in") && seen.is_opaque("back"));
}

#[test]
fn hard_links_survive_their_first_name() {
    let tar = Archive::new()
        .file("a/first", b"shared")
        .hard_link("b/second", "a/first")
        .hard_link("b/third", "b/second")
        .file("a", b"the directory is gone")
        .symlink("s1", "anywhere")
        .hard_link("s2", "s1")
        .add(Entry::new(b'6', b"p1"))
        .hard_link("p2", "p1")
        .hard_link("b/third", "b/third")
        .end();
    let seen = same_in_all_formats(&tar);
    assert_eq!((&seen.get("b/third").kind, seen.get("b/third").links), (&file(b"shared"), 2));
    assert_eq!(seen.get("b/third").same_as, "b/second");
    assert_eq!(seen.get("s2").same_as, "s1");
    assert_eq!(seen.get("p2").same_as, "p1");
}

#[test]
fn whiteouts() {
    let tar = Archive::new()
        .file("gone/.wh.file", b"")
        .file("keep/.wh.both", b"")
        .file("keep/both", b"here")
        .file("was/.wh.dir", b"")
        .file("was/dir/new", b"")
        .dir("after")
        .file(".wh.after", b"")
        .file("opq/.wh..wh..opq", b"")
        .file("opq/inside", b"")
        .file(".wh..wh.plnk/1.1", b"aufs")
        .hard_link("links/.wh.as_aufs_did", ".wh..wh.aufs")
        .end();
    let seen = same_in_all_formats(&tar);
    assert!(seen.is_whiteout("gone/file") && seen.is_whiteout("links/as_aufs_did"));
    assert_eq!(seen.get("keep/both").kind, file(b"here"));
    assert!(seen.is_opaque("was/dir") && seen.is_opaque("after") && seen.is_opaque("opq"));
    assert!(!seen.is_opaque("keep"));
    assert!(seen.has("opq/inside") && !seen.has(".wh..wh.plnk"));
}

#[test]
fn an_opaque_root_is_told() {
    let tar = Archive::new().file(".wh..wh..opq", b"").file("x", b"").end();
    for format in formats() {
        let layer = apply_as(*format, &tar).unwrap();
        assert!(layer.applied.opaque_root && layer.snapshot().is_opaque(""));
    }
}

#[test]
fn symlinked_parents_lead_inside_the_layer() {
    let tar = Archive::new()
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .file("lib/a", b"1")
        .symlink("abs", "/usr")
        .file("abs/lib/b", b"2")
        .symlink("up", "../../../../usr")
        .file("up/lib/c", b"3")
        .symlink("dangling", "made/on/demand")
        .file("dangling/d", b"4")
        .symlink("chain1", "chain2")
        .symlink("chain2", "lib")
        .file("chain1/e", b"5")
        .hard_link("hl", "chain1/a")
        .file("chain1/.wh.f", b"")
        .end();
    let seen = same_in_all_formats(&tar);
    for name in ["usr/lib/a", "usr/lib/b", "usr/lib/c", "made/on/demand/d", "usr/lib/e"] {
        assert!(seen.has(name), "{name}");
    }
    assert_eq!(seen.get("hl").links, 2);
    assert!(seen.is_whiteout("usr/lib/f"));
    assert_eq!(seen.get("lib").kind, Kind::Symlink(b"usr/lib".to_vec()));
}

#[test]
fn directories_of_many_blocks() {
    let mut tar = Archive::new();
    let mut names = Vec::new();
    for i in 0..3000 {
        // Long and short names, and names that sort before the dots.
        let name = match i % 4 {
            0 => format!("{i}-{}", "n".repeat(80)),
            1 => format!("!{i}"),
            2 => format!("-{i}"),
            _ => format!(".{i}"),
        };
        tar = tar.file(&format!("big/{name}"), name.as_bytes());
        names.push((format!("big/{name}"), name));
    }
    let longest = "l".repeat(255);
    for first in ["a", "b", "c"] {
        let name = format!("{first}{}", &longest[1..]);
        tar = tar.pax(&[("path", format!("edge/{name}").as_bytes())]).file("x", b"");
        names.push((format!("edge/{name}"), String::new()));
    }
    let seen = same_in_all_formats(&tar.end());
    assert_eq!(seen.0.len(), names.len() + 3);
    for (path, content) in names {
        assert_eq!(seen.get(&path).kind, file(content.as_bytes()), "{path}");
    }
}

#[test]
fn symlinks_of_every_length() {
    let mut tar = Archive::new();
    for length in (1..700).step_by(13).chain([4095]) {
        tar = tar.pax(&[("linkpath", &vec![b'x'; length])]).symlink(&format!("l{length}"), "y");
    }
    let seen = same_in_all_formats(&tar.end());
    for length in (1..700).step_by(13).chain([4095]) {
        assert_eq!(seen.get(&format!("l{length}")).kind, Kind::Symlink(vec![b'x'; length]));
    }
}

#[test]
fn sparse_files() {
    let (first, second) = (vec![b'A'; 1024], vec![b'B'; 700]);
    let stored = [&first[..], &second].concat();
    let mut expected = vec![0; 20_000];
    expected[512..1536].copy_from_slice(&first);
    expected[8192..8892].copy_from_slice(&second);
    let numbers = |number: u64| format!("{number:011o}\0").into_bytes();
    let old = Entry::new(b'S', b"old")
        .gnu()
        .raw(386, &numbers(512))
        .raw(398, &numbers(1024))
        .raw(410, &numbers(8192))
        .raw(422, &numbers(700))
        .raw(434, &numbers(20_000))
        .raw(446, &numbers(0))
        .raw(483, &numbers(20_000))
        .data(&stored);
    let mut in_data = b"3\n512\n1024\n8192\n700\n20000\n0\n".to_vec();
    in_data.resize(512, 0);
    in_data.extend_from_slice(&stored);
    let unaligned: Vec<u8> = (0..3000u32).map(|i| (i % 255) as u8 + 1).collect();
    let mut expected_unaligned = vec![0; 9000];
    expected_unaligned[7..1507].copy_from_slice(&unaligned[..1500]);
    expected_unaligned[1600..3100].copy_from_slice(&unaligned[1500..]);
    let tar = Archive::new()
        .add(old)
        .pax(&[
            ("GNU.sparse.size", b"20000"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"512"),
            ("GNU.sparse.numbytes", b"1024"),
            ("GNU.sparse.offset", b"8192"),
            ("GNU.sparse.numbytes", b"700"),
        ])
        .file("v00", &stored)
        .pax(&[
            ("GNU.sparse.size", b"20000"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.name", b"v01"),
            ("GNU.sparse.map", b"512,1024,8192,700"),
        ])
        .file("GNUSparseFile.1/v01", &stored)
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"v10"),
            ("GNU.sparse.realsize", b"20000"),
        ])
        .file("GNUSparseFile.1/v10", &in_data)
        .pax(&[("GNU.sparse.size", b"9000"), ("GNU.sparse.numblocks", b"2"), ("GNU.sparse.map", b"7,1500,1600,1500")])
        .file("unaligned", &unaligned)
        .pax(&[("GNU.sparse.size", b"100000"), ("GNU.sparse.numblocks", b"0"), ("GNU.sparse.map", b"")])
        .file("only_hole", b"")
        .file("after", b"still in step")
        .end();
    let seen = same_in_all_formats(&tar);
    for name in ["old", "v00", "v01", "v10"] {
        assert_eq!(seen.get(name).kind, file(&expected), "{name}");
    }
    assert_eq!(seen.get("unaligned").kind, file(&expected_unaligned));
    assert_eq!(seen.get("only_hole").kind, file(&vec![0; 100_000]));
    assert_eq!(seen.get("after").kind, file(b"still in step"));
}

#[test]
fn bytes_behind_a_file_stay_hidden() {
    // The padding of the archive is not zero, and the file ends within a page.
    let mut tar = Archive::new().file("f", &[b'x'; 600]).end();
    let start = 512 + 600;
    tar[start..start + 424].fill(b'!');
    for format in formats() {
        let layer = apply_as(*format, &tar).unwrap();
        assert_eq!(layer.snapshot().get("f").kind, file(&[b'x'; 600]));
    }
}

#[test]
fn the_diff_id_covers_the_whole_stream() {
    let mut tar = Archive::new().file("f", b"1").end();
    tar.extend_from_slice(&[0; 9000]);
    tar.extend_from_slice(b"whatever follows the end of the archive, not a multiple of anything");
    let digest: [u8; 32] = sha2::Sha256::digest(&tar).into();
    for format in formats() {
        let applied = apply_as(*format, &tar).unwrap().applied;
        assert_eq!(applied.diff_id.digest().as_bytes(), digest);
        assert_eq!(applied.tar_size, tar.len() as u64);
        assert_eq!((applied.entries, applied.inodes, applied.content), (1, 2, 1));
    }
}

#[test]
fn the_archive_comes_back_out_of_an_image() {
    let mut tar = Archive::new().dir("d").file("d/f", &[7; 5000]).symlink("s", "d").end();
    tar.extend_from_slice(b"tail");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let applied = apply(&tar[..], Compression::None, Target::Erofs(&image(&path)), &Limits::default()).unwrap();
    let mut reader = tar_reader(std::fs::File::open(&path).unwrap()).unwrap();
    assert_eq!((reader.diff_id(), reader.remaining()), (applied.diff_id, tar.len() as u64));
    let mut back = Vec::new();
    reader.read_to_end(&mut back).unwrap();
    assert!(back == tar);
    // Other files, and images that were cut off, are told apart.
    let file = image(&dir.path().join("other"));
    (&file).write_all(&tar).unwrap();
    assert!(matches!(tar_reader(file), Err(Error::NotAnImage(_))));
    image_cut_off(&path);
}

fn image_cut_off(path: &std::path::Path) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    file.set_len(5000).unwrap();
    assert!(matches!(tar_reader(file), Err(Error::NotAnImage(_))));
}

#[test]
fn compressions_give_the_same_layer() {
    let data: Vec<u8> = (0..2_000_000u32).map(|i| (i / 7 % 251) as u8).collect();
    let tar = Archive::new().file("data", &data).end();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let (start, rest) = tar.split_at(1_000_001);
    let variants = [
        (Compression::None, tar.clone()),
        (Compression::Gzip, gzip(&tar)),
        (Compression::Gzip, [gzip(start), gzip(rest)].concat()),
        (Compression::Zstd, zstd(&tar)),
        (Compression::Zstd, [zstd(start), zstd(rest)].concat()),
        (Compression::Bzip2, common::bzip2(&tar[..])),
        (Compression::Bzip2, [common::bzip2(start), common::bzip2(rest)].concat()),
        (Compression::Xz, common::xz(&tar[..], 6)),
        (Compression::Xz, [common::xz(start, 1), common::xz(rest, 1)].concat()),
    ];
    for format in formats() {
        let plain = apply_as(*format, &tar).unwrap().applied;
        for (compression, bytes) in &variants {
            assert_eq!(Compression::detect(bytes), *compression);
            let applied = apply_with(*format, bytes, *compression, &Limits::default()).unwrap().applied;
            assert_eq!(applied.diff_id, plain.diff_id);
            assert_eq!(applied.compressed_size, bytes.len() as u64);
            if *compression != Compression::None {
                let cut = apply_with(*format, &bytes[..bytes.len() - 9], *compression, &Limits::default());
                assert!(matches!(cut.map(|l| l.applied), Err(Error::Decompress { .. })));
                let garbage = [&bytes[..], b"garbage"].concat();
                assert!(apply_with(*format, &garbage, *compression, &Limits::default()).is_err());
            }
        }
    }
}

#[test]
fn the_callers_own_errors_come_through() {
    struct Failing(usize);
    impl Read for Failing {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "connection lost"));
            }
            self.0 -= 1;
            buf.fill(0);
            Ok(buf.len().min(512))
        }
    }
    let compressed = [Compression::Gzip, Compression::Zstd, Compression::Bzip2, Compression::Xz];
    for compression in compressed.into_iter().chain([Compression::None]) {
        let dir = tempfile::tempdir().unwrap();
        let file = image(&dir.path().join("image"));
        let error = apply(Failing(0), compression, Target::Erofs(&file), &Limits::default()).unwrap_err();
        assert!(matches!(error, Error::Read(_)), "{error:?}");
        assert_eq!(chain(&error), "read the layer: connection lost");
        assert_eq!(error.kind(), model::ErrorKind::Unavailable);
    }
}

#[test]
fn an_empty_archive_is_an_empty_layer() {
    for tar in [vec![], vec![0; 512], vec![0; 1024], vec![0; 10_240]] {
        let seen = same_in_all_formats(&tar);
        assert_eq!(seen.paths(), [""]);
    }
}

#[test]
fn files_of_an_archive_are_found_in_it() {
    let tar = Archive::new()
        .file("a/layer.tar", b"abc")
        .symlink("b/layer.tar", "../a/layer.tar")
        .symlink("absolute", "/b/layer.tar")
        .symlink("around", "around")
        .symlink("nowhere", "../../gone")
        .file("./manifest.json", b"[]")
        .end();
    let mut entries = layer::archive_entries(&tar[..]).unwrap();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let found: Vec<(&str, &[u8])> = entries
        .iter()
        .map(|entry| {
            let start = usize::try_from(entry.offset).unwrap();
            (&entry.name[..], &tar[start..start + usize::try_from(entry.size).unwrap()])
        })
        .collect();
    assert_eq!(found, [("a/layer.tar", &b"abc"[..]), ("absolute", b"abc"), ("b/layer.tar", b"abc"), ("manifest.json", b"[]")]);
}
