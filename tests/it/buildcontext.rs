//! What `creel build` makes of a context that changes: everything that has changed comes into the image and nothing else is done
//! again, whatever times files have and whoever has died in between; and what COPY comes upon.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Command,
};

use crate::build::Lab;

const ALL: &str = "FROM base:1\nCOPY tree /app\n";
/// Gives busybox its other names.
const INSTALL: &str = "busybox mkdir -p /tmp/bin && busybox --install -s /tmp/bin && export PATH=/bin:/tmp/bin";
/// Everything of a directory but times.
const SHOW: &str = "find . | sort; find . -type f | sort | xargs md5sum; find . ! -type l | sort | xargs stat -c '%a %n'";

fn shell(script: &str, lab: &Lab) -> String {
    let output = Command::new("sh").args(["-ec", script]).current_dir(lab.at("tree")).env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Builds, and says whether the copy was there already. The image has what the directory has.
fn build(lab: &Lab, why: &str) -> bool {
    let (_, progress) = lab.build(ALL, &["-t", "all:1"]);
    let inside = lab.ok(&["run", "--rm", "all:1", "sh", "-c", &format!("{INSTALL} && cd /app && {SHOW}")]).out;
    assert_eq!(inside, shell(SHOW, lab), "{why}: {progress}");
    progress.contains("[2/2] COPY tree /app") && progress.contains("CACHED")
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_seen_whatever_files_look_like() {
    let mut lab = Lab::new().await;
    for n in 0..300 {
        let path = lab.at(&format!("tree/d{}/f{n}", n / 20));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("file {n}")).unwrap();
    }
    shell("touch -d 2001-01-01 ../before", &lab);
    assert!(!build(&lab, "the first"));
    assert!(build(&lab, "nothing has changed"));
    for (what, script) in [
        ("content, with size and times as they were", "printf 'FILE 7' >d0/f7 && touch -r ../before d0/f7"),
        ("the same once more", "printf 'file X' >d0/f7 && touch -r ../before d0/f7"),
        ("another inode in its place", "printf 'file 8' >new && touch -r d0/f8 new && mv new d0/f8 && printf 'FILE 8' >d0/f8"),
        ("permissions of a file", "chmod 600 d1/f21"),
        ("permissions of a directory", "chmod 700 d1"),
        ("a name", "mv d2/f41 d2/g41"),
        ("names that change places", "mv d3/f61 x && mv d3/f62 d3/f61 && mv x d3/f62"),
        ("something that is gone", "rm d4/f81"),
        ("a directory that is gone", "rm -r d5"),
        ("a directory for a file", "rm d6/f121 && mkdir d6/f121 && echo x >d6/f121/x"),
        ("a file for a directory", "rm -r d7 && echo x >d7"),
        ("a link for a file", "rm d8/f161 && ln -s f162 d8/f161"),
        ("where a link leads", "ln -sfn f163 d8/f161"),
        ("something new and empty", "mkdir -p d9/empty && : >d9/none"),
    ] {
        shell(script, &lab);
        assert!(!build(&lab, what), "{what}: not noticed");
        assert!(build(&lab, what), "{what}: done again");
    }
    // What is known of files is known after a death too.
    lab.daemon.kill();
    lab.daemon.run().await;
    assert!(build(&lab, "after a death"));
    shell("printf 'FILE 9' >d0/f9", &lab);
    assert!(!build(&lab, "a change after a death"));
    shell("touch d0/f9 d10/*", &lab);
    assert!(build(&lab, "times alone"));
    shell("printf 'file 9' >d0/f9", &lab);
    build(&lab, "what was there before");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_and_patterns_count() {
    let lab = Lab::new().await;
    fs::create_dir_all(lab.at("tree/sub")).unwrap();
    for name in ["tree/a.txt", "tree/b.md", "tree/sub/c.md", "beside"] {
        fs::write(lab.at(name), name).unwrap();
    }
    symlink("tree", lab.at("link")).unwrap();
    let file = "FROM base:1\nCOPY --exclude=**/*.md link /app\nCOPY tree/*.md /notes/\n";
    let cached = |args: &[&str]| lab.build(file, args).1.matches("CACHED").count();
    assert_eq!(cached(&[]), 0);
    assert_eq!(cached(&[]), 2);
    fs::write(lab.at("beside"), "BESIDE").unwrap();
    assert_eq!(cached(&[]), 2, "nobody copies it");
    fs::write(lab.at("tree/sub/c.md"), "other").unwrap();
    assert_eq!(cached(&[]), 2, "it is left out");
    fs::write(lab.at("tree/b.md"), "other").unwrap();
    assert_eq!(cached(&[]), 1, "one takes it and one leaves it out");
    fs::rename(lab.at("tree/b.md"), lab.at("tree/c.md")).unwrap();
    assert_eq!(cached(&[]), 1, "its name counts");
    let flags = rustix::fs::XattrFlags::empty();
    match rustix::fs::setxattr(lab.at("tree/a.txt"), "user.name", b"value", flags) {
        Ok(()) => assert_eq!(cached(&[]), 0, "the second one comes upon the first"),
        Err(e) => eprintln!("SKIPPED: the file system has no extended attributes: {e}"),
    }
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_comes_upon_what_is_there() {
    let lab = Lab::new().await;
    fs::create_dir_all(lab.at("tree/sub/deep")).unwrap();
    fs::create_dir_all(lab.at("empty")).unwrap();
    for name in ["tree/top", "tree/sub/new", "tree/sub/deep/f"] {
        fs::write(lab.at(name), name).unwrap();
    }
    fs::set_permissions(lab.at("tree/sub"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(lab.at("tree/top"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("top", lab.at("tree/link")).unwrap();
    let dockerfile = r#"FROM base:1
RUN busybox mkdir -p /app/sub/other && echo old >/app/sub/old && echo old >/app/top && busybox chmod 711 /app /app/sub/other && busybox chown 3:4 /app && busybox ln -s /app /way
COPY tree /app
COPY tree /way/through
COPY --chown=5:6 --chmod=600 tree/top tree/sub/new /app/new/two/
COPY tree/top /app/sub/old
COPY --link --chown=7:8 tree/sub /linked/
COPY --chmod=u=rwX,go= tree /changed
COPY empty /
"#;
    lab.build(dockerfile, &["-t", "upon:1"]);
    let script = "stat -c '%u %g %a %F %n' /app /app/sub /app/sub/other /app/sub/old /app/sub/deep/f /app/top /app/link \
         /way/through/sub/new /app/new /app/new/two /app/new/two/new /linked /linked/deep /changed /changed/top /changed/sub; \
         cat /app/sub/old; busybox readlink /app/link";
    let shown = lab.ok(&["run", "--rm", "upon:1", "sh", "-c", script]).out;
    assert_eq!(
        shown,
        "3 4 711 directory /app\n0 0 750 directory /app/sub\n0 0 711 directory /app/sub/other\n0 0 4755 regular file /app/sub/old\n\
         0 0 644 regular file /app/sub/deep/f\n0 0 4755 regular file /app/top\n0 0 777 symbolic link /app/link\n\
         0 0 644 regular file /way/through/sub/new\n5 6 755 directory /app/new\n5 6 755 directory /app/new/two\n\
         5 6 600 regular file /app/new/two/new\n7 8 755 directory /linked\n7 8 755 directory /linked/deep\n\
         0 0 700 directory /changed\n0 0 700 regular file /changed/top\n0 0 700 directory /changed/sub\n\
         tree/toptop\n"
    );
    let sizes = lab.ok(&["history", "--format", "{{.Size}}", "upon:1"]).out;
    assert!(sizes.starts_with("0B\n"), "nothing was copied: {sizes}");
    for (line, part) in [
        ("COPY tree/top /app/sub", ""),
        ("COPY tree/top /app/top/", "cannot copy to non-directory"),
        ("COPY tree /app/top", "cannot copy to non-directory"),
        ("RUN rm /app/top && busybox mkdir /app/top\nCOPY tree /app", "cannot overwrite directory"),
        ("RUN rm -r /app/sub && echo >/app/sub\nCOPY tree /app", "with directory"),
    ] {
        let text = format!("FROM upon:1\n{line}\n");
        if part.is_empty() {
            lab.build(&text, &[]);
        } else {
            let told = lab.fails(&text, &[]);
            assert!(told.contains(part), "{line}: {told}");
        }
    }
    lab.finish().await;
}
