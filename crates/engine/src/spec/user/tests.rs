//! EX-15 to EX-18: users of hostile images.

use std::{
    fs,
    os::{fd::AsFd, unix::fs::symlink},
    time::{Duration, Instant},
};

use super::*;
use crate::spec::tests::{container, security};

struct Image(tempfile::TempDir);

impl Image {
    fn new(passwd: &str, group: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("etc")).unwrap();
        let image = Self(directory);
        fs::write(image.path("passwd"), passwd).unwrap();
        fs::write(image.path("group"), group).unwrap();
        image
    }

    fn path(&self, file: &str) -> std::path::PathBuf {
        self.0.path().join("etc").join(file)
    }

    fn resolve(&self, security: &SecuritySpec, user: &str) -> Result<ResolvedUser, Error> {
        let spec = ContainerSpec { security: security.clone(), ..container() };
        resolve(&spec, user, fs::File::open(self.0.path()).unwrap().as_fd())
    }

    fn user(&self, user: &str) -> Result<ResolvedUser, Error> {
        self.resolve(&security(), user)
    }
}

const PASSWD_TEXT: &str = "# comment\nroot:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:1000:1001::/srv/web:/bin/sh\n\
    99999999999999999999:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n2147483648:x:0:0::/:\n3proxy:x:13:13::/:\n\
    big:x:4294967295:0::/:\n+nis\n0x0:x:0:0::/:\nminus:x:-1:0::/:\n";
const GROUP_TEXT: &str = "root:x:0:\nweb:x:1001:\nextra:x:2000:root,web\nmore:x:2001:web\n1234:x:0:web\nhuge:x:4294967295:web\n";

fn image() -> Image {
    Image::new(PASSWD_TEXT, GROUP_TEXT)
}

fn resolved(uid: u32, gid: u32, groups: &[u32], home: &str) -> ResolvedUser {
    ResolvedUser { uid, gid, groups: groups.to_vec(), home: home.to_owned() }
}

#[test]
fn the_grammar_of_user() {
    let image = image();
    for (user, expected) in [
        ("", resolved(0, 0, &[0, 2000], "/root")),
        ("0", resolved(0, 0, &[0, 2000], "/root")),
        ("root", resolved(0, 0, &[0, 2000], "/root")),
        ("web", resolved(1000, 1001, &[1001, 2000, 2001, 0], "/srv/web")),
        ("1000", resolved(1000, 1001, &[1001, 2000, 2001, 0], "/srv/web")),
        ("1000:7", resolved(1000, 7, &[7, 2000, 2001, 0], "/srv/web")),
        ("web:extra", resolved(1000, 2000, &[2000, 2001, 0], "/srv/web")),
        ("5000", resolved(5000, 0, &[0], "/")),
        ("5000:5000", resolved(5000, 5000, &[5000], "/")),
        ("5000:extra", resolved(5000, 2000, &[2000], "/")),
        ("2147483647", resolved(2_147_483_647, 0, &[0], "/")),
        ("3proxy", resolved(13, 13, &[13], "/")),
        // A group called `1234` does not catch the number.
        ("web:1234", resolved(1000, 1234, &[1234, 2000, 2001, 0], "/srv/web")),
    ] {
        assert_eq!(image.user(user).unwrap_or_else(|e| panic!("{user}: {e}")), expected, "{user}");
    }
}

#[test]
fn ex_16_what_looks_like_a_number_is_never_a_name() {
    let image = image();
    let long = "a".repeat(1 << 20);
    for bad in [
        "4294967296",
        "2147483648",
        "4294967295",
        "-1",
        "+0",
        "00",
        "0x0",
        "0x",
        "0b1",
        "1e5",
        "1_000",
        " 0",
        "0 ",
        "\u{ff11}",
        "1000:",
        ":1000",
        ":",
        "a:b:c",
        "99999999999999999999",
        "web:",
        "web: ",
        "web:-1",
        "web:4294967296",
        "web:00",
        "web\n",
        "we b",
        "\0",
        "a/b",
        "..",
        &long,
    ] {
        let error = image.user(bad).unwrap_err();
        assert!(matches!(error, Error::User { .. }), "{bad:?}: {error}");
        assert!(error.to_string().len() < 400);
        if !bad.contains(':') {
            let named = SecuritySpec { user: UserSpec::Name(bad.to_owned()), ..security() };
            assert!(image.resolve(&named, "web").is_err(), "{bad:?} by name");
        }
    }
    for missing in ["nobody", "web:nogroup", "minus"] {
        assert!(matches!(image.user(missing).unwrap_err(), Error::NoName { .. }), "{missing}");
    }
    assert!(matches!(image.user("big").unwrap_err(), Error::DatabaseForm { .. }));
}

#[test]
fn ex_15_groups_are_complete_and_the_clients_word_goes_first() {
    let image = image();
    let spec = |user, group, groups: &[u32], strict| SecuritySpec {
        user,
        group,
        supplemental_groups: groups.to_vec(),
        supplemental_groups_strict: strict,
        ..security()
    };
    for (spec, expected) in [
        (spec(UserSpec::Id(1000), None, &[50, 50, 1001], false), resolved(1000, 1001, &[1001, 50, 2000, 2001, 0], "/srv/web")),
        (spec(UserSpec::Id(1000), None, &[50], true), resolved(1000, 1001, &[1001, 50], "/srv/web")),
        (spec(UserSpec::Id(1000), Some(9), &[], true), resolved(1000, 9, &[9], "/srv/web")),
        (spec(UserSpec::Id(77), Some(9), &[1], false), resolved(77, 9, &[9, 1], "/")),
        (spec(UserSpec::Name("web".into()), Some(0), &[], true), resolved(1000, 0, &[0], "/srv/web")),
        (spec(UserSpec::Name("1000".into()), None, &[], true), resolved(1000, 1001, &[1001], "/srv/web")),
    ] {
        assert_eq!(image.resolve(&spec, "nobody:nogroup").unwrap(), expected, "{spec:?}");
    }
    for bad in [
        spec(UserSpec::Image, Some(5), &[], false),
        spec(UserSpec::Id(u32::MAX), None, &[], false),
        spec(UserSpec::Id(1), Some(2_147_483_648), &[], false),
        spec(UserSpec::Id(1), None, &[4_294_967_295], false),
        spec(UserSpec::Name("web:root".into()), None, &[], false),
        spec(UserSpec::Name(String::new()), None, &[], false),
    ] {
        assert!(image.resolve(&bad, "root").is_err(), "{bad:?}");
    }
}

#[test]
fn an_image_without_databases_has_numbers_only() {
    let directory = tempfile::tempdir().unwrap();
    let image = Image(directory);
    assert_eq!(image.user("1:2").unwrap(), resolved(1, 2, &[2], "/"));
    assert!(image.user("root").is_err());
}

#[test]
fn ex_17_databases_that_are_traps() {
    let started = Instant::now();
    type Make = dyn Fn(&std::path::Path);
    let traps: [(&str, &Make); 6] = [
        ("zero", &|p| symlink("/dev/zero", p).unwrap()),
        ("fifo", &|p| {
            rustix::fs::mknodat(rustix::fs::CWD, p, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        }),
        ("dir", &|p| fs::create_dir(p).unwrap()),
        ("socket", &|p| drop(std::os::unix::net::UnixListener::bind(p).unwrap())),
        ("sparse", &|p| fs::File::create(p).unwrap().set_len(10 << 30).unwrap()),
        ("one more", &|p| fs::write(p, "a\n".repeat(5 << 20) + "x").unwrap()),
    ];
    for (name, make) in traps {
        let image = image();
        fs::remove_file(image.path("passwd")).unwrap();
        make(&image.path("passwd"));
        // A link to /dev/zero leads into the image, where nothing is.
        let error = image.user("web").unwrap_err();
        let expected = if name == "zero" { "is not in" } else { "of the image" };
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
    let outside = image();
    fs::remove_file(outside.path("passwd")).unwrap();
    symlink("/etc/shadow", outside.path("passwd")).unwrap();
    assert!(matches!(outside.user("root").unwrap_err(), Error::NoName { .. }), "a host file was read");
    assert!(started.elapsed() < Duration::from_secs(30), "something blocked");
}

#[test]
fn ex_17_full_size_and_long_lines_are_read_in_bounds() {
    let image = image();
    let line = "web:x:1000:1001::/srv/web:/bin/sh\n";
    let padding = "#".repeat((10 << 20) - line.len() - 1) + "\n";
    fs::write(image.path("passwd"), padding + line).unwrap();
    let members = "m,".repeat(4 << 20) + "web";
    fs::write(image.path("group"), format!("huge:x:7:{members}\n")).unwrap();
    assert_eq!(image.user("web").unwrap().groups, [1001, 7]);
    fs::write(image.path("group"), (0..70_000).map(|gid| format!("g:x:{gid}:web\n")).collect::<String>()).unwrap();
    assert!(image.user("web").unwrap_err().to_string().contains("65536 groups"));
}

#[test]
fn ex_18_homes_with_line_breaks_are_refused() {
    for home in ["/a\rb", "/a\u{1}", "/a\u{2028}b"] {
        let image = Image::new(&format!("web:x:1:1::{home}:/bin/sh\n"), "");
        assert!(image.user("web").is_err(), "{home:?}");
    }
}

proptest::proptest! {
    /// No text of digits, signs and spaces ever reaches a look-up by name.
    #[test]
    fn ex_16_numeric_texts_are_numbers_or_errors(text in "[ 0-9+_xX-]{0,24}") {
        match parse(&text) {
            Ok((Who::Id(id), None)) => proptest::prop_assert!(text.is_empty() || text == id.to_string()),
            Ok(other) => proptest::prop_assert!(matches!(&other, (Who::Name(name), None) if name.starts_with(['_', 'x', 'X'])), "{other:?}"),
            Err(_) => {}
        }
    }
}
