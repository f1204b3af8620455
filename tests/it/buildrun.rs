//! RUN of `creel build`: mounts and what they leave, caches, secrets, agents, heredocs, networks, limits and confinement
//! (BU-02, BU-05, BU-06).

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{build::Lab, check, daemon::bin, image::Layer};

/// What nobody is to find anywhere.
const VALUE: &str = "correct-horse-battery-staple";

impl Lab {
    /// Begins a build of a Dockerfile that has its own directory.
    fn begin(&self, dockerfile: &str) -> Child {
        let dir = tempfile::tempdir_in(self.home.path()).unwrap().keep();
        fs::write(dir.join("Dockerfile"), dockerfile).unwrap();
        let mut command = Command::new(bin("creel"));
        command.arg("build").arg(&dir).env("CREEL_SOCKET", self.daemon.socket()).env("HOME", self.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The names in the layers of an image that were made after its base.
    fn names(&self, image: &str) -> Vec<String> {
        let tar = self.home.path().join("saved.tar");
        self.ok(&["save", "-o", tar.to_str().unwrap(), image]);
        let bytes = fs::read(tar).unwrap();
        let mut names = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut blob = Vec::new();
            entry.read_to_end(&mut blob).unwrap();
            let blob = if blob.starts_with(&[0x1f, 0x8b]) { unzipped(&blob) } else { blob };
            assert!(!contains(&blob, VALUE.as_bytes()), "the secret is in {:?}", entry.path());
            if blob.get(257..262) != Some(b"ustar") {
                continue;
            }
            let found: Vec<String> = tar::Archive::new(&blob[..])
                .entries()
                .unwrap()
                .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().trim_end_matches('/').to_owned())
                .collect();
            if !found.iter().any(|name| name == "bin/busybox") {
                names.extend(found);
            }
        }
        // The root itself, and what overlay says of every new directory.
        names.retain(|name| !matches!(name.as_str(), "" | ".") && !name.ends_with("/.wh..wh..opq"));
        names.sort();
        names
    }

    /// The directories of caches.
    fn caches(&self) -> Vec<PathBuf> {
        let dir = fs::read_dir(self.daemon.root().join("caches")).unwrap();
        dir.map(|entry| entry.unwrap().path().join("_data")).collect()
    }

    /// Waits until a file of this name is in a cache.
    fn in_a_cache(&self, name: &str) -> PathBuf {
        let mut found = None;
        eventually(name, || {
            found = self.caches().into_iter().map(|dir| dir.join(name)).find(|path| path.exists());
            found.is_some()
        });
        found.unwrap()
    }
}

pub fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// All files below a directory that contain the secret.
fn with_the_secret(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            found.extend(with_the_secret(&path));
        } else if kind.is_file() && fs::read(&path).is_ok_and(|bytes| contains(&bytes, VALUE.as_bytes())) {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn bind_mounts_show_files_and_leave_nothing() {
    let lab = Lab::new().await;
    let (_, progress) = lab.build(
        "FROM base:1 AS other\nRUN echo from-stage > /made\nFROM base:1\nWORKDIR /w\n\
         RUN --mount=target=/ctx cat /ctx/src/page && ! touch /ctx/x\n\
         RUN --mount=type=bind,source=src,target=in,rw echo changed > in/page && cat in/page\n\
         RUN --mount=type=bind,source=src,target=in cat in/page > /kept\n\
         ARG WHERE=/m/file\n\
         RUN --mount=from=other,source=/made,target=$WHERE --mount=type=tmpfs,target=/t,size=1m cat /m/file && stat -fc %b:%s /t\n",
        &["-t", "bound"],
    );
    for part in ["first\n", "Read-only file system", "changed\n", "from-stage\n", "256:4096\n"] {
        assert!(progress.contains(part), "{part}: {progress}");
    }
    assert_eq!(lab.ok(&["run", "--rm", "bound", "cat", "/kept"]).out, "first\n", "what is written to a mount is lost");
    assert_eq!(lab.names("bound"), ["kept", "w"], "nothing else is in a layer");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_mounted_on_links_leaves_nothing_either() {
    let lab = Lab::new().await;
    let tar = lab.home.path().join("linked.tar");
    let linked = Layer::busybox()
        .dir("run/")
        .dir("usr/")
        .dir("run/resolver/")
        .symlink("etc/resolv.conf", "../run/resolver/stub.conf")
        .file("run/resolver/stub.conf", 0o644, b"")
        .symlink("lib", "usr/lib");
    fs::write(&tar, linked.tar()).unwrap();
    lab.ok(&["import", "-c", "ENV PATH=/bin", tar.to_str().unwrap(), "linked:1"]);
    let (_, progress) = lab.build(
        "FROM linked:1\nRUN --mount=type=tmpfs,target=/lib/a/b --mount=type=cache,target=/var/cache/x \
         --mount=type=secret,id=key --mount=type=ssh cat /etc/hosts /run/secrets/key; ls /lib/a\n\
         RUN echo x > /etc/hosts && busybox mkdir /run/secrets && echo y > /run/secrets/own\n",
        &["-t", "linked:2", "--secret", "id=key,src=/etc/hostname"],
    );
    assert!(progress.contains("localhost") && progress.contains(" b\n"), "{progress}");
    assert_eq!(lab.names("linked:2"), ["run", "run/secrets", "run/secrets/own"], "{progress}");
    assert_eq!(lab.ok(&["history", "--format", "{{.Size}}", "linked:2"]).out.lines().nth(1), Some("0B"));
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_outlive_builds_and_the_daemon() {
    let mut lab = Lab::new().await;
    let run = |flags: &str, text: &str| format!("FROM base:1\nRUN --mount=type=cache,{flags} {text}\n");
    lab.build(&run("id=../../x,target=/c,uid=7,mode=0750", "echo one > /c/file; stat -c %u:%a /c > /c/own"), &[]);
    assert_eq!(fs::read_to_string(lab.in_a_cache("own")).unwrap(), "7:750\n");
    lab.daemon.kill();
    lab.daemon.run().await;
    let (_, progress) = lab.build(&run("id=../../x,target=/other,uid=7,mode=0750", "cat /other/file"), &["-t", "c"]);
    assert!(progress.contains(" one\n"), "{progress}");
    let (_, progress) = lab.build(&run("id=y,target=/c", "ls /c | wc -l"), &[]);
    assert!(progress.contains(" 0\n"), "another name is another cache: {progress}");
    // A cache that begins with something.
    let text = "FROM base:1 AS full\nRUN busybox mkdir /d && echo full > /d/file\nFROM base:1\n\
        RUN --mount=type=cache,id=z,from=full,source=/d,target=/c cat /c/file && echo more >> /c/file\n\
        RUN --mount=type=cache,id=z,from=full,source=/d,target=/c wc -l /c/file\n";
    let (_, progress) = lab.build(text, &[]);
    assert!(progress.contains(" full\n") && progress.contains(" 2 /c/file\n"), "{progress}");
    assert_eq!(lab.names("c"), Vec::<String>::new(), "no layer has it");
    // They are freed with everything else that builds leave.
    assert_eq!(lab.caches().len(), 3);
    lab.ok(&["builder", "prune", "--all", "--force"]);
    assert_eq!(lab.caches().len(), 0);
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_are_shared_as_they_say() {
    let lab = Lab::new().await;
    let waiting = |sharing: &str, name: &str| {
        format!(
            "FROM base:1\nRUN --mount=type=cache,id=it,target=/c,sharing={sharing} \
             echo > /c/{name}; while [ ! -e /c/go ]; do sleep 0.1; done; ls /c\n"
        )
    };
    // One has it alone; a second one waits, and goes away in peace.
    let mut first = lab.begin(&waiting("locked", "first"));
    let started = lab.in_a_cache("first");
    let mut second = lab.begin(&waiting("locked", "second"));
    let mut shown = second.stderr.take().unwrap();
    let mut told = Vec::new();
    eventually("the second build", || {
        let mut piece = [0; 1000];
        let read = shown.read(&mut piece).unwrap();
        told.extend_from_slice(&piece[..read]);
        contains(&told, b"RUN")
    });
    second.kill().unwrap();
    second.wait().unwrap();
    // One that wants its own does not wait.
    let private = lab.begin(&waiting("private", "third"));
    let own = lab.in_a_cache("third");
    assert_ne!(own.parent(), started.parent());
    fs::write(own.with_file_name("go"), "").unwrap();
    let said = private.wait_with_output().unwrap();
    assert!(said.status.success(), "{said:?}");
    assert!(first.try_wait().unwrap().is_none(), "it waits for the file");
    fs::write(started.with_file_name("go"), "").unwrap();
    assert!(first.wait().unwrap().success());
    assert!(!started.with_file_name("second").exists(), "who went away has never had it");
    // Now it is free for everybody.
    let shared = lab.begin(&waiting("shared", "fourth")).wait_with_output().unwrap();
    assert!(shared.status.success(), "{shared:?}");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_seen_by_their_step_alone() {
    let lab = Lab::new().await;
    let file = lab.home.path().join("secret");
    fs::write(&file, format!("{VALUE}\n")).unwrap();
    let source = format!("id=key,src={}", file.display());
    let text = "FROM base:1\n\
        RUN --mount=type=secret,id=key wc -c /run/secrets/key && stat -c %u:%g:%a /run/secrets/key && ! touch /run/secrets/key\n\
        RUN --mount=type=secret,id=key,env=KEY,target=/x/y,uid=65534,mode=0440 echo ${#KEY}; stat -c %u:%g:%a /x/y\n\
        RUN --mount=type=secret,id=none,env=NONE ls -A / && echo \"<$NONE>\"\n\
        USER nobody\nRUN --mount=type=secret,id=key,uid=65534 wc -c /run/secrets/key\n";
    let (first, progress) = lab.build(text, &["-t", "s", "--secret", &source]);
    for part in [" 29 /run/secrets/key\n", " 0:0:400\n", " 65534:0:440\n", " <>\n"] {
        assert!(progress.contains(part), "{part}: {progress}");
    }
    assert!(!progress.contains(VALUE));
    assert_eq!(lab.names("s"), Vec::<String>::new());
    // Not in records, caches, databases or logs.
    assert_eq!(with_the_secret(&lab.daemon.root()), Vec::<PathBuf>::new());
    assert_eq!(with_the_secret(&lab.daemon.run_dir()), Vec::<PathBuf>::new());
    assert!(!lab.daemon.log().contains(VALUE));
    // Another value is no other step; another name is.
    fs::write(&file, "another\n").unwrap();
    assert_eq!(lab.build(text, &["--secret", &source]).0, first);
    let told = lab.fails("FROM base:1\nRUN --mount=type=secret,id=needed,required true\n", &[]);
    assert!(told.contains("secret needed: not found"), "{told}");
    let told = lab.fails("FROM base:1\nRUN --mount=type=secret,id=env,env=V sh -c 'exit $V'\n", &["--secret", "id=env,env=HOME"]);
    assert!(!told.contains(lab.home.path().to_str().unwrap()) || told.contains("exit code"), "{told}");
    lab.finish().await;
}

/// The agent answers through the build's own stream.
#[tokio::test(flavor = "multi_thread")]
async fn agents_are_asked_through_the_client() {
    let lab = Lab::new().await;
    let socket = lab.home.path().join("agent");
    let agent = UnixListener::bind(&socket).unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = agent.accept().unwrap();
        let mut question = [0; 9];
        stream.read_exact(&mut question).unwrap();
        assert_eq!(&question, b"question?");
        stream.write_all(b"answer!").unwrap();
    });
    let text = "FROM base:1\nRUN --mount=type=ssh --mount=type=cache,target=/c,id=agent \
        echo $SSH_AUTH_SOCK; stat -c %F:%a $SSH_AUTH_SOCK; echo $$ > /c/started; while [ ! -e /c/go ]; do sleep 0.1; done\n";
    let begun = {
        fs::write(lab.at("Dockerfile"), text).unwrap();
        let mut command = Command::new(bin("creel"));
        command.args(["build", "-t", "asked", "--ssh", &format!("default={}", socket.display())]).arg(lab.context());
        command.env("CREEL_SOCKET", lab.daemon.socket()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let started = lab.in_a_cache("started");
    // There is no program in the image that talks to sockets: the test is one in the step's file system.
    let root = roots_with("run/buildkit/ssh_agent.0");
    let mut stream = UnixStream::connect(root.join("run/buildkit/ssh_agent.0")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream.write_all(b"question?").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer!");
    answering.join().unwrap();
    fs::write(started.with_file_name("go"), "").unwrap();
    let said = begun.wait_with_output().unwrap();
    let progress = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success() && progress.contains(" /run/buildkit/ssh_agent.0\n"), "{progress}");
    assert!(progress.contains(" socket:600\n"), "{progress}");
    assert_eq!(lab.names("asked"), Vec::<String>::new());
    let told = lab.fails("FROM base:1\nRUN --mount=type=ssh,required true\n", &[]);
    assert!(told.contains("ssh forward: default: not found"), "{told}");
    let key = lab.home.path().join("id_rsa");
    fs::write(&key, "key").unwrap();
    let said = lab.says(&["build", "--ssh", &format!("default={}", key.display()), lab.context().to_str().unwrap()], None);
    assert!(said.code != 0 && said.err.contains("add it to an agent"), "{said:?}");
    lab.finish().await;
}

/// The root of a process that has this file and is not this one's.
fn roots_with(name: &str) -> PathBuf {
    let mut found = None;
    eventually(name, || {
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("root"));
        found = processes.filter(|root| root.join(name).exists()).find(|root| fs::read_link(root).is_ok());
        found.is_some()
    });
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn heredocs_run() {
    let lab = Lab::new().await;
    let text = "FROM base:1\nARG A=arg\nRUN <<EOF\necho one $A\n  echo two\nEOF\n\
        RUN <<-'EOF'\n\techo three $A\n\tEOF\n\
        RUN cat <<EOF > /x && cat <<\"END\" >> /x\nx $A\nEOF\ny $A\nEND\n\
        RUN <<SCRIPT\n#!/bin/busybox sh\necho by $0 as $1\nSCRIPT\n\
        RUN sh <<EOF\necho inner\nEOF\n\
        SHELL [\"/bin/sh\", \"-e\", \"-c\"]\nRUN <<EOF\necho $-\nEOF\n\
        RUN [\"echo\", \"$A\", \"exec form\"]\nCMD cat /x\n";
    let (_, progress) = lab.build(text, &["-t", "here"]);
    for part in [
        " one arg\n",
        " two\n",
        " three arg\n",
        " by /dev/pipes/SCRIPT as\n",
        " inner\n",
        " $A exec form\n",
        "RUN <<EOF (echo one $A...)",
    ] {
        assert!(progress.contains(part), "{part}: {progress}");
    }
    assert_eq!(lab.ok(&["run", "--rm", "here"]).out, "x arg\ny $A\n");
    assert!(lab.names("here").iter().all(|name| !name.contains("pipes")));
    let told = lab.fails("FROM base:1\nRUN <<EOF\nexit 7\nEOF\n", &[]);
    assert!(told.contains("exit code: 7"), "{told}");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_reach_the_steps() {
    let lab = Lab::new().await;
    let text = "FROM base:1\nRUN cat /etc/hosts && stat -fc %b:%s /dev/shm && sh -c 'ulimit -n'\n\
        RUN cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true\n";
    let flags = ["--add-host", "example:192.0.2.7", "--shm-size", "1m", "--ulimit", "nofile=77:88", "-m", "64m"];
    let (_, progress) = lab.build(text, &flags);
    for part in ["192.0.2.7\texample", " 256:4096\n", " 77\n", " 67108864\n"] {
        assert!(progress.contains(part), "{part}: {progress}");
    }
    // Proxies are there, and count for nothing.
    let proxy = "FROM base:1\nRUN echo \"<$http_proxy>\"\n";
    let (first, progress) = lab.build(proxy, &["-t", "proxied", "--build-arg", "http_proxy=http://user:word@proxy"]);
    assert!(progress.contains("<http://user:word@proxy>"), "{progress}");
    let (again, progress) = lab.build(proxy, &["--build-arg", "http_proxy=other"]);
    assert!(first == again && progress.contains("CACHED"), "{progress}");
    assert!(!lab.ok(&["history", "--no-trunc", "proxied"]).out.contains("proxy@"));
    for (line, part) in [
        ("RUN --security=insecure true", "confined like any container"),
        ("RUN --security=perhaps true", "use sandbox"),
        ("RUN --device=vendor.example/thing true", "get no devices"),
        ("RUN --network=there true", "use default, none or host"),
        ("RUN --mount=type=bind,target=/ true", "invalid mount target \"/\""),
        ("RUN --mount=type=bind,target=/proc/self true", "nothing may be mounted on /proc"),
        ("RUN --mount=type=bind,source=missing,target=/x true", "\"/missing\": not found"),
        ("RUN --mount=type=bind,source=../../../etc/passwd,target=/x true", "\"/etc/passwd\": not found"),
        ("RUN --mount=type=tmpfs,target=/x --mount=type=tmpfs,target=/x/ true", "/x is mounted on twice"),
        ("RUN --mount=type=bind,target=/x,bind-propagation=shared true", "unexpected key 'bind-propagation'"),
        ("RUN --mount=from=$X,target=/x true", "define alias stage instead"),
    ] {
        let told = lab.fails(&format!("FROM base:1\n{line}\n"), &[]);
        assert!(told.contains(part) && told.contains(">>> RUN"), "{line}: {told}");
    }
    lab.finish().await;
}

/// BU-02: whatever links an image, a context or a cache has, nothing of the machine is seen or written.
#[tokio::test(flavor = "multi_thread")]
async fn bu_02_mounts_stay_inside() {
    let lab = Lab::new().await;
    let canary = lab.home.path().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("file"), "untouched").unwrap();
    let shown = canary.to_str().unwrap();
    std::os::unix::fs::symlink(shown, lab.at("src/out")).unwrap();
    std::os::unix::fs::symlink("../../../../../../etc", lab.at("src/up")).unwrap();
    let tar = lab.home.path().join("hostile.tar");
    let hostile = Layer::busybox().symlink("root-link", "/").symlink("out", shown).symlink("proc-link", "/proc");
    fs::write(&tar, hostile.tar()).unwrap();
    lab.ok(&["import", "-c", "ENV PATH=/bin", tar.to_str().unwrap(), "hostile:1"]);
    for (mount, wanted) in [
        // The source leads out: it is looked for inside.
        ("source=src/out,target=/x", "not found"),
        ("source=src/up,target=/x", "not found"),
        ("source=src/out/file,target=/x", "not found"),
        ("from=hostile:1,source=/out,target=/x", "not found"),
        // The target is the root, or procfs, by a link.
        ("type=tmpfs,target=/root-link", "the target is the container's root"),
        ("type=tmpfs,target=/proc-link/self", "the target is inside of /proc"),
    ] {
        let told = lab.fails(&format!("FROM hostile:1\nRUN --mount={mount} ls -R /x\n"), &[]);
        assert!(told.contains(wanted), "{mount}: {told}");
    }
    // A target behind a link is made in the image, and goes again.
    lab.build(
        "FROM hostile:1\nRUN --mount=type=cache,id=links,target=/out/new --mount=type=secret,id=s,target=/out/key \
         busybox ln -s / /out/new/root && busybox ln -s /out /out/new/sub && echo x > /out/new/sub-file\n",
        &["-t", "hostile:2", "--secret", "id=s,src=/etc/hostname"],
    );
    // A cache has links: what is mounted behind them is in the step's own files.
    lab.build(
        "FROM hostile:1\nRUN --mount=type=cache,id=links,target=/c --mount=type=tmpfs,target=/c/root/below echo y > /c/root/below/file\n",
        &[],
    );
    assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 1);
    assert_eq!(lab.names("hostile:2"), Vec::<String>::new());
    // Mounts of a step are seen by nobody else.
    check::nothing_left(&lab.daemon);
    lab.finish().await;
}

/// BU-05: a step is another one if anything differs that it is made from.
#[tokio::test(flavor = "multi_thread")]
async fn bu_05_everything_counts() {
    let lab = Lab::new().await;
    lab.ok(&["import", "-c", "ENV PATH=/bin", "-c", "LABEL a=b", lab.home.path().join("base.tar").to_str().unwrap(), "base:2"]);
    let other = lab.home.path().join("other.tar");
    fs::write(&other, Layer::busybox().file("other", 0o644, b"x").tar()).unwrap();
    lab.ok(&["import", "-c", "ENV PATH=/bin", other.to_str().unwrap(), "base:3"]);
    let steps = [
        "FROM base:1\nRUN true",
        "FROM base:3\nRUN true",
        "FROM base:1\nRUN true ",
        "FROM base:1\nRUN false || true",
        "FROM base:1\nARG A=1\nRUN true",
        "FROM base:1\nARG A=2\nRUN true",
        "FROM base:1\nENV A=2\nENV B=1\nRUN true",
        "FROM base:1\nUSER nobody\nRUN true",
        "FROM base:1\nSHELL [\"/bin/busybox\", \"sh\", \"-c\"]\nRUN true",
        "FROM base:1\nRUN [\"true\"]",
        "FROM base:1\nRUN --network=none true",
        "FROM base:1\nRUN --mount=type=tmpfs,target=/t true",
        "FROM base:1\nRUN --mount=type=tmpfs,target=/t,size=1m true",
        "FROM base:1\nRUN --mount=type=tmpfs,target=/u true",
        "FROM base:1\nRUN --mount=type=cache,target=/t true",
        "FROM base:1\nRUN --mount=type=cache,target=/t,id=x true",
        "FROM base:1\nRUN --mount=type=secret,id=a true",
        "FROM base:1\nRUN --mount=type=secret,id=b true",
        "FROM base:1\nRUN --mount=type=secret,id=b,env=B true",
        "FROM base:1\nRUN --mount=type=ssh true",
        "FROM base:1\nRUN --mount=target=/t true",
        "FROM base:1\nRUN --mount=target=/t,rw true",
        "FROM base:1\nRUN --mount=source=src,target=/t true",
        "FROM base:1\nRUN --mount=from=base:3,target=/t true",
        "FROM base:1\nRUN <<EOF\n#!/bin/sh\ntrue\nEOF",
        "FROM base:1\nRUN <<EOF\n#!/bin/sh\nfalse\ntrue\nEOF",
    ];
    // The same text without its blank at the end is the same step.
    let same = [2];
    for (number, text) in steps.iter().enumerate() {
        let (_, progress) = lab.build(&format!("{text}\n"), &[]);
        assert_eq!(progress.contains("CACHED"), same.contains(&number), "{text}: {progress}");
    }
    for text in &steps {
        let (_, progress) = lab.build(&format!("{text}\n"), &[]);
        assert!(progress.contains("CACHED"), "{text}: {progress}");
    }
    // A file that is mounted counts by what it is.
    let mounted = "FROM base:1\nRUN --mount=source=src,target=/t true\n";
    Command::new("touch").args(["-d", "2001-01-01"]).arg(lab.at("src/page")).status().unwrap();
    assert!(lab.build(mounted, &[]).1.contains("CACHED"), "its time does not count");
    fs::write(lab.at("src/page"), "second\n").unwrap();
    assert!(!lab.build(mounted, &[]).1.contains("CACHED"));
    // Values of hosts count as well.
    assert!(!lab.build(steps[0], &["--add-host", "a:192.0.2.1"]).1.contains("CACHED"));
    lab.finish().await;
}

/// BU-06: a step has what any container has, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn bu_06_steps_are_confined() {
    let lab = Lab::new().await;
    let text = "FROM base:1\nRUN cat /proc/self/status && ls -l /proc/self/ns/ && ls /dev && hostname\n\
        RUN --network=none ls /sys/class/net\n\
        RUN echo $$ && ! mount -t tmpfs none /tmp && ! busybox mknod /tmp/d b 8 0 && ! cat /proc/kcore && ! touch /sys/x\n\
        USER nobody\nRUN id && grep=1 && cat /proc/self/status\n";
    let (_, progress) = lab.build(text, &["-t", "confined"]);
    for part in ["Seccomp:\t2", "CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb", " lo\n", "CapEff:\t0000000000000000"] {
        assert!(progress.contains(part), "{part}: {progress}");
    }
    for kind in ["net", "mnt", "pid", "ipc", "uts", "cgroup"] {
        let own = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert!(progress.contains(&format!(" {kind}:[")), "{kind}: {progress}");
        assert!(!progress.contains(own.to_str().unwrap()), "{kind} is the machine's: {progress}");
    }
    for device in [" fuse\n", " kmsg\n", " mem\n", " loop-control\n"] {
        assert!(!progress.contains(device), "{device}: {progress}");
    }
    let (_, progress) = lab.build("FROM base:1\nRUN --network=host ls -l /proc/self/ns/net\n", &["--network", "host"]);
    let own = fs::read_link(format!("/proc/{}/ns/net", lab.daemon.pid())).unwrap();
    assert!(progress.contains(own.to_str().unwrap()), "{progress}");
    let told = lab.fails("FROM base:1\nRUN --network=host true\n", &[]);
    assert!(told.contains("not started with --network host"), "{told}");
    let told = lab.fails("FROM base:1\nRUN --security=insecure true\n", &["--network", "host"]);
    assert!(told.contains("--security=insecure"), "{told}");
    lab.finish().await;
}
