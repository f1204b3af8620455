//! `creel build`: Dockerfiles become images that run, earlier builds are made use of, and what is wrong leaves everything as it was.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    check,
    daemon::{Daemon, bin},
    image::Layer,
};

const TWO_STAGES: &str = r#"ARG BASE=base:1
FROM $BASE AS build
ARG WHO=world
WORKDIR /src
COPY src/ .
RUN echo "for $WHO: $(cat page)" > /out
FROM nowhere.example/unused AS unused
RUN false
FROM ${BASE}
COPY --from=build /out /app/out
COPY --chown=nobody --chmod=640 . /ctx/
ENV GREET=hi
LABEL a=b
CMD ["sh", "-c", "cat /app/out; echo $GREET; stat -c '%u %g %a' /ctx/src/page; ls /ctx"]
"#;

/// A daemon with an image to begin with, and a directory to build in.
pub struct Lab {
    pub daemon: Daemon,
    pub home: tempfile::TempDir,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Lab {
    pub async fn new() -> Self {
        Self::with(Daemon::start().await)
    }

    pub fn with(daemon: Daemon) -> Self {
        let lab = Self { daemon, home: tempfile::tempdir().unwrap() };
        let tar = lab.home.path().join("base.tar");
        fs::write(&tar, Layer::busybox().tar()).unwrap();
        lab.ok(&["import", "-c", "ENV PATH=/bin", tar.to_str().unwrap(), "base:1"]);
        fs::create_dir_all(lab.at("src")).unwrap();
        fs::write(lab.at("src/page"), "first\n").unwrap();
        lab
    }

    pub fn context(&self) -> PathBuf {
        self.home.path().join("context")
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.context().join(name)
    }

    pub fn says(&self, args: &[&str], input: Option<&Path>) -> Said {
        let mut command = Command::new(bin("creel"));
        command.args(args).env("CREEL_SOCKET", self.daemon.socket()).env("HOME", self.home.path());
        command.stdin(input.map_or_else(Stdio::null, |file| fs::File::open(file).unwrap().into()));
        let output = command.output().expect("creel runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    pub fn ok(&self, args: &[&str]) -> Said {
        let said = self.says(args, None);
        assert_eq!(said.code, 0, "creel {args:?}: {said:?}\n{}", self.daemon.log());
        said
    }

    /// Builds what is written there, and answers the id and the progress.
    pub fn build(&self, dockerfile: &str, args: &[&str]) -> (String, String) {
        fs::write(self.at("Dockerfile"), dockerfile).unwrap();
        let id = self.home.path().join("id");
        let context = self.context();
        let fixed = ["build", "--iidfile", id.to_str().unwrap(), context.to_str().unwrap()];
        let said = self.ok(&[&fixed, args].concat());
        (fs::read_to_string(id).unwrap(), said.err)
    }

    /// Builds what becomes no image, and answers the progress.
    pub fn makes(&self, dockerfile: &str, args: &[&str]) -> String {
        fs::write(self.at("Dockerfile"), dockerfile).unwrap();
        let context = self.context();
        self.ok(&[&["build", context.to_str().unwrap()], args].concat()).err
    }

    pub fn fails(&self, dockerfile: &str, args: &[&str]) -> String {
        fs::write(self.at("Dockerfile"), dockerfile).unwrap();
        let context = self.context();
        let said = self.says(&[&["build", context.to_str().unwrap()], args].concat(), None);
        assert_eq!(said.code, 1, "{dockerfile}: {said:?}");
        said.err
    }

    pub async fn finish(self) {
        check::nothing_left(&self.daemon);
        check::store_is_sound(&self.daemon);
        self.daemon.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stages_become_an_image_that_runs() {
    let lab = Lab::new().await;
    fs::write(lab.at("secret.key"), "key").unwrap();
    fs::write(lab.at(".dockerignore"), "*.key\n.dockerignore\n").unwrap();
    let (first, progress) = lab.build(TWO_STAGES, &["-t", "built:1", "-t", "built:also"]);
    assert!(progress.contains("[build 4/4] RUN echo") && !progress.contains("CACHED"), "{progress}");
    assert!(!progress.contains("nowhere.example"), "a stage that nobody needs: {progress}");
    let run = lab.ok(&["run", "--rm", "built:also"]);
    assert_eq!(run.out, "for world: first\nhi\n65534 65534 640\nDockerfile\nsrc\n");

    // The same once more, with other times: no work, and the same image.
    Command::new("touch").args(["-d", "2001-01-01"]).arg(lab.at("src/page")).status().unwrap();
    let (again, progress) = lab.build(TWO_STAGES, &["-t", "built:1"]);
    assert_eq!(again, first, "{progress}");
    assert_eq!(progress.matches("CACHED").count(), 5, "{progress}");

    // Another argument, another file: what comes after that is done again.
    let (other, progress) = lab.build(TWO_STAGES, &["-t", "built:2", "--build-arg", "WHO=you"]);
    assert_ne!(other, first);
    assert_eq!(progress.matches("CACHED").count(), 2, "what comes before the argument is used: {progress}");
    fs::write(lab.at("src/page"), "second\n").unwrap();
    lab.build(TWO_STAGES, &["-t", "built:2"]);
    assert!(lab.ok(&["run", "--rm", "built:2"]).out.starts_with("for world: second\n"));
    assert!(lab.ok(&["run", "--rm", "built:1"]).out.starts_with("for world: first\n"));
    let (_, progress) = lab.build(TWO_STAGES, &["--no-cache"]);
    assert!(!progress.contains("CACHED"), "{progress}");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_outlives_the_daemon() {
    let mut lab = Lab::new().await;
    let (first, _) = lab.build(TWO_STAGES, &["-t", "built:1"]);
    lab.daemon.kill();
    lab.daemon.run().await;
    let (again, progress) = lab.build(TWO_STAGES, &["-t", "built:1"]);
    assert_eq!(again, first, "{progress}");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_shown_and_leaves_the_earlier_image() {
    let lab = Lab::new().await;
    let (first, _) = lab.build("FROM base:1\nCMD true\n", &["-t", "mine:1"]);
    let told = lab.fails("FROM base:1\nRUN echo before && false\nRUN true\n", &["-t", "mine:1"]);
    assert!(told.contains("before\n"), "{told}");
    assert!(
        told.contains("Dockerfile:2\n--------------------\n   1 |     FROM base:1\n   2 | >>> RUN echo before && false\n"),
        "{told}"
    );
    assert!(told.contains("did not complete successfully: exit code: 1"), "{told}");
    let id = lab.ok(&["image", "inspect", "--format", "{{.Id}}", "mine:1"]).out;
    assert_eq!(id.trim(), first);
    for (dockerfile, part) in [
        ("FROM base:1\nCOYP a b\n", "unknown instruction: COYP (did you mean COPY?)"),
        ("FROM base:1\nCOPY missing /x\n", "\"/missing\": not found"),
        ("FROM base:1\nCOPY ../../etc/passwd /x\n", "\"/../../etc/passwd\": not found"),
        ("FROM base:1\nRUN --mount=type=cahce,target=/x true\n", "unsupported mount type \"cahce\" (did you mean cache?)"),
        ("FROM base:1\nRUN --network=host true\n", "not started with --network host"),
        ("FROM --platform=nonsense base:1\n", "not OS/ARCHITECTURE"),
        ("# syntax=someone/else\nFROM base:1\n", "frontends of others are not run"),
    ] {
        let told = lab.fails(dockerfile, &["-t", "mine:1"]);
        assert!(told.contains(part), "{dockerfile}: {told}");
    }
    let told = lab.fails("FROM base:1 AS one\n", &["--target", "ono"]);
    assert!(told.contains("target stage \"ono\" could not be found (did you mean one?)"), "{told}");
    lab.finish().await;
}

/// BU-06: a step has what any container has and no more.
#[tokio::test(flavor = "multi_thread")]
async fn steps_are_confined() {
    let lab = Lab::new().await;
    let (_, progress) = lab.build(
        "FROM base:1\nRUN cat /proc/self/status\nRUN --network=none ls /sys/class/net && touch /etc/hosts\n",
        &["-t", "confined"],
    );
    assert!(progress.contains("Seccomp:\t2"), "{progress}");
    assert!(progress.contains("CapEff:\t00000000a80425fb"), "{progress}");
    // What was mounted leaves no trace.
    let run = lab.ok(&["history", "--format", "{{.Size}}", "confined"]);
    assert!(run.out.lines().take(2).all(|size| size == "0B"), "{}", run.out);
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_is_a_dockerfile_or_a_tar() {
    let lab = Lab::new().await;
    let file = lab.home.path().join("file");
    fs::write(&file, "FROM base:1\nRUN echo made > /made\nCMD cat /made\n").unwrap();
    let said = lab.says(&["build", "-q", "-t", "piped", "-"], Some(&file));
    assert!(said.code == 0 && said.out.starts_with("sha256:") && said.err.is_empty(), "{said:?}");
    assert_eq!(lab.ok(&["run", "--rm", "piped"]).out, "made\n");
    let tar = Layer::new().file("D", 0o644, b"FROM base:1\nCOPY x /x\nCMD cat /x\n").file("x", 0o644, b"text").tar();
    fs::write(&file, crate::image::gzip(&tar)).unwrap();
    let said = lab.says(&["build", "-t", "piped", "-f", "D", "-"], Some(&file));
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(lab.ok(&["run", "--rm", "piped"]).out, "text");
    lab.finish().await;
}
