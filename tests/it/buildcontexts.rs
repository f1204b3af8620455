//! `creel build`: contexts with names, caches in directories, the limit of what builds leave, and what is never written down.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{build::Lab, daemon::Daemon};

const VALUE: &str = "tops3cret-never-written-down";

fn files(dir: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path().file_name().unwrap().into()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn layouts_and_images_are_contexts() {
    let lab = Lab::new().await;
    let dir = lab.home.path().join("layout").display().to_string();
    let output = format!("type=oci,dest={dir},tar=false");
    lab.build("FROM base:1\nENV LAID=out\nRUN echo laid out > /from\n", &["-t", "laid:7", "-o", &output]);
    lab.ok(&["builder", "prune", "-af"]);
    let index: Value = serde_json::from_slice(&fs::read(format!("{dir}/index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let file = "FROM out\nCOPY --from=out /from /also\nRUN echo $LAID\nCMD cat /from /also\n";
    for place in [format!("oci-layout://{dir}"), format!("oci-layout://{dir}:7"), format!("oci-layout://{dir}@{digest}")] {
        let (_, progress) = lab.build(file, &["-t", "of-layout:1", "--build-context", &format!("out={place}")]);
        assert!(progress.contains("] FROM out\n") && (progress.contains(" out\n") || progress.contains("CACHED")), "{progress}");
        assert_eq!(lab.ok(&["run", "--rm", "of-layout:1"]).out, "laid out\nlaid out\n");
    }
    assert!(!lab.ok(&["images", "-a"]).out.contains("laid:7"), "nothing was loaded");
    for (context, part) in
        [(format!("out=oci-layout://{dir}:8"), "no image in it is called 8"), ("out=oci-layout:///nowhere".into(), "No such file")]
    {
        let context_dir = lab.context().display().to_string();
        let said = lab.says(&["build", &context_dir, "--build-context", &context], None);
        assert!(said.code != 0 && said.err.contains(part), "{said:?}");
    }
    let (_, progress) =
        lab.build("FROM nowhere.example/x:1\nRUN true\n", &["--build-context", "nowhere.example/x:1=docker-image://base:1"]);
    assert!(progress.contains("FROM base:1") || progress.contains("FROM nowhere.example/x:1"), "{progress}");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_are_contexts() {
    let lab = Lab::new().await;
    let (source, out) = (lab.at("src"), lab.home.path().join("out"));
    let (here, local) = (source.display().to_string(), format!("type=local,dest={}", out.display()));
    // Instead of a stage, and of everything that it needs.
    let file = "FROM nowhere.example/y AS needed\nRUN false\nFROM needed AS build\nRUN false\nFROM scratch\nCOPY --from=build /page /copied\n";
    lab.makes(file, &["--build-context", &format!("build={here}"), "-o", &local]);
    assert_eq!(fs::read_to_string(out.join("copied")).unwrap(), "first\n");
    // Instead of an image, under any of its names.
    for name in ["pages", "docker.io/library/pages:latest"] {
        let progress =
            lab.makes("FROM pages\nENV A=b\nCOPY Dockerfile /d\n", &["--build-context", &format!("{name}={here}"), "-o", &local]);
        assert!(progress.contains("[1/2] FROM pages\n"), "{progress}");
        assert_eq!((fs::read_to_string(out.join("page")).unwrap().as_str(), out.join("d").exists()), ("first\n", true));
    }
    lab.build("FROM pages\nENV A=b\n", &["-t", "pages:1", "--build-context", &format!("pages={here}")]);
    let env = lab.ok(&["image", "inspect", "-f", "{{json .Config.Env}}", "pages:1"]).out;
    assert!(env.contains("A=b") && env.contains("PATH="), "{env}");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_in_directories_have_what_they_name() {
    let lab = Lab::new().await;
    let file = |word: &str| {
        format!("FROM base:1 AS a\nRUN echo {word} > /one\nFROM base:1\nCOPY --from=a /one /one\nRUN cat /one > /two\n")
    };
    let dir = |name: &str| lab.home.path().join(name);
    let to = |name: &str, mode: &str| format!("type=local,dest={},mode={mode}", dir(name).display());
    // Bases of other machines are imported at other times.
    let fixed = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000"];
    let caches = ["--cache-to", &to("min", "min"), "--cache-to", &to("max", "max"), "--cache-to", &to("again", "max")];
    lab.build(&file("first"), &[fixed.as_slice(), &caches].concat());
    // Another machine: of the result all, and with the larger one all of what it needs.
    for (name, cached) in [("min", 2), ("max", 3)] {
        let other = Lab::new().await;
        let from = format!("type=local,src={}", dir(name).display());
        let (_, progress) = other.build(&file("first"), &[fixed.as_slice(), &["--cache-from", &from]].concat());
        assert_eq!(progress.matches("CACHED").count(), cached, "{name}: {progress}");
        other.finish().await;
    }
    // What the next build needs no longer goes; what is somebody's else stays.
    fs::write(dir("again").join("blobs/sha256/notes"), "mine").unwrap();
    lab.build(&file("second"), &["--cache-to", &to("again", "max"), "--cache-to", &to("fresh", "max")]);
    let (mut again, fresh) = (files(&dir("again").join("blobs/sha256")), files(&dir("fresh").join("blobs/sha256")));
    assert!(again.remove(Path::new("notes")));
    assert_eq!(again, fresh);
    lab.finish().await;
}

/// A daemon that keeps so many bytes of what builds leave.
async fn limited(bytes: u64) -> Lab {
    let mut daemon = Daemon::prepare(&[], &[]);
    let file = daemon.log_path().parent().unwrap().join("config.toml");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("build_cache_limit = {bytes}\n{config}")).unwrap();
    daemon.run().await;
    Lab::with(daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_builds_leave_has_a_limit() {
    let lab = limited(5 << 20).await;
    let step = |name: &str| format!("RUN head -c 2000000 /dev/urandom > /{name}\n");
    let output = format!("type=tar,dest={}", lab.home.path().join("out.tar").display());
    let build = |name: &str| lab.makes(&format!("FROM base:1\n{}", step(name)), &["-o", &output]);
    build("a");
    build("b");
    assert_eq!(build("a").matches("CACHED").count(), 1, "both are there");
    // The third is too much: the one goes that was used the longest time ago.
    build("c");
    let kept = lab.ok(&["system", "df", "-v"]).out;
    let has = |name: &str| kept.contains(&format!("> /{name}"));
    assert!(has("a") && has("c") && !has("b"), "{kept}");
    // What an image has too counts for nothing and stays.
    lab.build(&format!("FROM base:1\n{}{}{}", step("x"), step("y"), step("z")), &["-t", "large:1"]);
    let (_, progress) = lab.build(&format!("FROM base:1\n{}{}{}", step("x"), step("y"), step("z")), &["-t", "large:1"]);
    assert_eq!(progress.matches("CACHED").count(), 3, "{progress}");

    // By hand: filters, and what may stay.
    let pruned = |flags: &[&str]| lab.ok(&[&["builder", "prune", "-f"], flags].concat()).out;
    assert_eq!(pruned(&["--filter", "inuse=true"]), "Total:\t0B\n");
    assert_eq!(pruned(&["--reserved-space", "1gb"]), "Total:\t0B\n");
    let gone = pruned(&["--filter", "description=> /a", "--filter", "private=true"]);
    assert!(gone.starts_with("ID ") && gone.lines().count() == 3, "{gone}");
    let said = lab.says(&["builder", "prune", "-f", "--filter", "inuse=maybe"], None);
    assert!(said.code != 0 && said.err.contains("use true or false"), "{said:?}");
    lab.finish().await;
}

/// Everything below a directory that has the secret in it.
fn with_the_secret(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map_while(Result::ok) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(with_the_secret(&path));
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            found.extend(bytes.windows(VALUE.len()).any(|window| window == VALUE.as_bytes()).then_some(path));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_written_down_nowhere() {
    let lab = Lab::new().await;
    let (file, agent) = (lab.home.path().join("key"), lab.home.path().join(VALUE));
    fs::write(&file, VALUE).unwrap();
    let _listener = UnixListener::bind(&agent).unwrap();
    let flags = [
        "--secret".to_owned(),
        format!("id=key,src={}", file.display()),
        "--ssh".to_owned(),
        format!("default={}", agent.display()),
        "--build-arg".to_owned(),
        format!("TOKEN={VALUE}"),
        "--cache-to".to_owned(),
        format!("type=local,dest={},mode=max", lab.home.path().join("cache").display()),
        "--progress=rawjson".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    // The argument is for another stage, which is not built: where one is declared, the image's history has it, as docker's has.
    let text = "FROM base:1 AS other\nARG TOKEN\nFROM base:1\n\
                RUN --mount=type=secret,id=key,env=KEY,target=/run/secrets/key --mount=type=ssh test -n \"$KEY\" && test -S $SSH_AUTH_SOCK && wc -c /run/secrets/key\n";
    let (_, told) = lab.build(text, &[&["-t", "quiet:1"], flags.as_slice()].concat());
    assert!(!told.contains(VALUE), "{told}");
    let failed = lab.fails(&format!("{text}RUN --mount=type=secret,id=key exit 9\n"), &flags);
    assert!(failed.contains("exit code: 9") && !failed.contains(VALUE), "{failed}");
    for words in [&["inspect"][..], &["inspect", "--format", "json"], &["logs"], &["logs", "^1"], &["inspect", "^1"]] {
        let said = lab.ok(&[&["build", "history"], words].concat());
        assert!(!said.out.contains(VALUE) && !said.err.contains(VALUE), "{said:?}");
    }
    for dir in [lab.daemon.root(), lab.daemon.run_dir(), lab.home.path().join("cache")] {
        assert_eq!(with_the_secret(&dir), Vec::<PathBuf>::new());
    }
    assert!(!lab.daemon.log().contains(VALUE));
    lab.finish().await;
}
