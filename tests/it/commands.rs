//! Every container command of `creel` as people and scripts use it: lines, exit codes, a real terminal.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    daemon::{Daemon, bin},
    pods::{self, BUSYBOX},
    sessions::Person,
};

const IMAGE: &str = "busybox:1.35";
const PATIENCE: Duration = Duration::from_secs(60);

async fn ground() -> Daemon {
    let daemon = Daemon::start().await;
    daemon.mirror("docker.io", crate::registry::shared());
    pods::pull(&daemon, BUSYBOX).await;
    daemon
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Code, standard output and standard error.
fn told(output: &Output) -> (i32, String, String) {
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn creel(daemon: &Daemon, args: &[&str]) -> (i32, String, String) {
    told(&daemon.creel(args))
}

fn program(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = Command::new(bin("creel"));
    command.args(args).env("CREEL_SOCKET", daemon.socket());
    command
}

fn until(what: &str, mut probe: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !probe() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn inspect(daemon: &Daemon, name: &str) -> Value {
    let all: Value = serde_json::from_str(&daemon.creel_ok(&["inspect", name])).unwrap();
    all[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn run_and_its_exit_codes() {
    let daemon = ground().await;
    let run = |more: &[&str]| creel(&daemon, &[&["run", "--rm"], more].concat());
    assert_eq!(run(&[IMAGE, "echo", "hello"]), (0, "hello\n".into(), String::new()));
    assert_eq!(run(&[IMAGE, "sh", "-c", "echo out; echo err >&2; exit 42"]), (42, "out\n".into(), "err\n".into()));
    assert_eq!(run(&[IMAGE, "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).0, 137);
    let (code, _, said) = run(&[IMAGE, "no-such-program"]);
    assert_eq!(code, 127, "{said}");
    assert!(said.starts_with("creel: Error response from daemon: ") && said.contains("no-such-program"), "{said}");
    let (code, _, said) = run(&[IMAGE, "/etc/passwd"]);
    assert_eq!(code, 126, "{said}");
    assert_eq!(run(&["--no-such-flag", IMAGE]).0, 125);
    let (code, _, said) = run(&["--pull", "never", "no-such-image"]);
    assert_eq!((code, said.contains("No such image: no-such-image")), (125, true), "{said}");
    assert_eq!(run(&["--restart", "always", IMAGE]).0, 125);

    let env = daemon.dir.path().join("env");
    fs::write(&env, "# remark\nFROM_FILE=1\n").unwrap();
    let script = "echo $FROM_FILE $A; pwd; id -u; hostname; cat";
    let flags = ["-i", "-e", "A=b", "--env-file", env.to_str().unwrap(), "-w", "/tmp/new", "-u", "1000", "-h", "host"];
    let args = [&["run", "--rm"][..], &flags, &[IMAGE, "sh", "-c", script]].concat();
    let mut child = program(&daemon, &args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    assert_eq!(text(&child.wait_with_output().unwrap().stdout), "1 b\n/tmp/new\n1000\nhost\ntyped\n");
    assert_eq!(run(&["--entrypoint", "echo", IMAGE, "-n", "--rm"]), (0, "--rm".into(), String::new()));

    let cidfile = daemon.dir.path().join("cid");
    let id = daemon.creel_ok(&["create", "--name", "made", "--cidfile", cidfile.to_str().unwrap(), IMAGE, "true"]);
    assert_eq!((id.len(), fs::read_to_string(&cidfile).unwrap()), (64, id.clone()));
    let (code, _, said) = run(&["--cidfile", cidfile.to_str().unwrap(), IMAGE]);
    assert!(code == 125 && said.contains("container ID file found"), "{said}");
    let (code, _, said) = run(&["--name", "made", IMAGE]);
    let clash = format!("Conflict. The container name \"/made\" is already in use by container \"{id}\".");
    assert!(code == 125 && said.contains(&clash), "{said}");
    assert_eq!(creel(&daemon, &["start", "-a", "made"]).0, 0);
    // Whatever was run with --rm is gone when the command has ended.
    assert_eq!(daemon.creel_ok(&["ps", "-aq", "--no-trunc"]), id);
    daemon.creel_ok(&["rm", "made"]);
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_missing_is_pulled() {
    let daemon = Daemon::start().await;
    daemon.mirror("docker.io", crate::registry::shared());
    let (code, out, said) = creel(&daemon, &["run", "--rm", IMAGE, "echo", "pulled"]);
    assert_eq!((code, out.as_str()), (0, "pulled\n"), "{said}");
    assert!(said.starts_with("Unable to find image 'busybox:1.35' locally\n"), "{said}");
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life() {
    let daemon = ground().await;
    let id = daemon.creel_ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "-l",
        "a=b",
        IMAGE,
        "sh",
        "-c",
        "echo up >> /log; trap 'exit 3' TERM; echo ready; echo bad >&2; while :; do sleep 0.1; done",
    ]);
    assert_eq!(id.len(), 64);
    until("it is ready", || daemon.creel_ok(&["logs", "web"]).contains("ready"));
    until("both streams are there", || creel(&daemon, &["logs", "web"]) == (0, "ready\n".into(), "bad\n".into()));
    assert_eq!(creel(&daemon, &["logs", "--tail", "0", "web"]), (0, String::new(), String::new()));
    let (_, timed, _) = creel(&daemon, &["logs", "-t", "--since", "1h", "web"]);
    assert!(timed.contains("Z ready\n") && timed.starts_with("20"), "{timed}");

    let table = daemon.creel_ok(&["ps"]);
    let heads: Vec<&str> = table.lines().next().unwrap().split("  ").map(str::trim).filter(|head| !head.is_empty()).collect();
    assert_eq!(heads, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    assert!(table.contains(&id[..12]) && table.contains(IMAGE) && table.contains("Up ") && table.ends_with("web"), "{table}");
    assert_eq!(daemon.creel_ok(&["ps", "--format", "{{.Names}}: {{.State}} {{.Labels}}"]), "web: running a=b");
    assert_eq!(daemon.creel_ok(&["ps", "-q", "--filter", "label=a=c"]), "");
    assert_eq!(daemon.creel_ok(&["container", "ls", "-q", "--filter", "name=we"]), id[..12]);
    assert_eq!(creel(&daemon, &["ps", "--filter", "nonsense=1"]).0, 1);

    let exec = |args: &[&str]| creel(&daemon, &[&["exec"], args].concat());
    assert_eq!(exec(&["-e", "A=1", "-u", "1000", "-w", "/tmp", "web", "sh", "-c", "echo $A $(id -u) $(pwd)"]).1, "1 1000 /tmp\n");
    assert_eq!(exec(&["web", "sh", "-c", "exit 9"]).0, 9);
    assert_eq!(exec(&["web", "no-such-program"]).0, 127);
    assert_eq!(exec(&["-d", "web", "touch", "/detached"]).0, 0);
    until("what was detached has run", || exec(&["web", "test", "-e", "/detached"]).0 == 0);

    let top = daemon.creel_ok(&["top", "web"]);
    assert!(top.starts_with("UID") && top.contains("sleep 0.1") || top.contains("trap"), "{top}");
    assert!(daemon.creel_ok(&["top", "web", "-o", "pid,comm"]).starts_with("PID"));
    let stats = daemon.creel_ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}"]);
    assert!(stats.starts_with("web ") && stats.contains(" / "), "{stats}");

    assert_eq!(daemon.creel_ok(&["pause", "web"]), "web");
    assert!(daemon.creel_ok(&["ps"]).contains("(Paused)"));
    let (code, _, said) = exec(&["web", "true"]);
    assert_eq!(
        (code, said.as_str()),
        (1, "Error response from daemon: Container web is paused, unpause the container before exec\n")
    );
    assert_eq!(daemon.creel_ok(&["unpause", "web"]), "web");

    assert_eq!(daemon.creel_ok(&["update", "-m", "64m", "--memory-swap", "-1", "--restart", "on-failure:2", "web"]), "web");
    let value = inspect(&daemon, "web");
    assert_eq!(
        (&value["HostConfig"]["Memory"], &value["HostConfig"]["RestartPolicy"]["MaximumRetryCount"]),
        (&(64 << 20).into(), &2.into())
    );
    assert_eq!(
        daemon.creel_ok(&["inspect", "-f", "{{.Name}} {{.State.Status}} {{.Config.Image}}", "web"]),
        "/web running busybox:1.35"
    );
    assert_eq!(daemon.creel_ok(&["update", "--restart", "no", "web"]), "web");

    let (code, _, said) = creel(&daemon, &["rm", "web"]);
    let refusal = "cannot remove container \"web\": container is running: stop the container before removing or force remove";
    assert!(code == 1 && said.starts_with(&format!("Error response from daemon: {refusal}")), "{said}");
    daemon.creel_ok(&["rename", "web", "site"]);
    assert_eq!(daemon.creel_ok(&["stop", "-t", "30", "site"]), "site");
    assert_eq!(creel(&daemon, &["stop", "site"]), (0, "site\n".into(), String::new()));
    assert_eq!(daemon.creel_ok(&["wait", "site"]), "3");
    assert!(daemon.creel_ok(&["ps", "-a"]).contains("Exited (3) "));
    let (code, _, said) = exec(&["site", "true"]);
    assert_eq!((code, said), (1, format!("Error response from daemon: container {id} is not running\n")));
    assert_eq!(creel(&daemon, &["kill", "site"]).0, 1);

    // It starts again with its files.
    assert_eq!(daemon.creel_ok(&["start", "site"]), "site");
    until("it has started twice", || exec(&["site", "cat", "/log"]).1 == "up\nup\n");
    assert_eq!(daemon.creel_ok(&["restart", "-t", "0", "site"]), "site");
    until("it has started again", || exec(&["site", "cat", "/log"]).1 == "up\nup\nup\n");
    assert_eq!(daemon.creel_ok(&["kill", "site"]), "site");
    assert_eq!(daemon.creel_ok(&["wait", "site"]), "137");
    let (code, out, said) = creel(&daemon, &["rm", "-f", "site", "nobody"]);
    assert_eq!((code, out.as_str(), said.as_str()), (0, "site\n", "Error response from daemon: No such container: nobody\n"));
    assert_eq!(creel(&daemon, &["inspect", "site"]), (1, "[]\n".into(), "Error: No such object: site\n".into()));

    daemon.creel_ok(&["create", "--name", "old", IMAGE]);
    assert!(creel(&daemon, &["container", "prune"]).2.contains("WARNING! This will remove all stopped containers."));
    assert_eq!(daemon.creel_ok(&["ps", "-aq"]).len(), 12);
    let pruned = daemon.creel_ok(&["container", "prune", "-f"]);
    assert!(pruned.starts_with("Deleted Containers:\n") && pruned.contains("\n\nTotal reclaimed space: "), "{pruned}");
    assert_eq!(daemon.creel_ok(&["ps", "-aq"]), "");
    daemon.finish().await;
}

/// Both ways, for one that runs and one that does not, by docker's rules for names.
#[tokio::test(flavor = "multi_thread")]
async fn files_in_and_out() {
    let daemon = ground().await;
    let dir = daemon.dir.path().join("files");
    fs::create_dir_all(dir.join("tree/sub")).unwrap();
    fs::write(dir.join("tree/sub/f"), "deep\n").unwrap();
    fs::write(dir.join("one"), "one\n").unwrap();
    let here = |name: &str| dir.join(name).display().to_string();
    let cp = |from: &str, to: &str| creel(&daemon, &["cp", from, to]);
    daemon.creel_ok(&["run", "-d", "--name", "up", IMAGE, "sleep", "1000"]);
    daemon.creel_ok(&[
        "create",
        "--name",
        "down",
        IMAGE,
        "sh",
        "-c",
        "cat /tmp/one /tmp/tree/sub/f /new/sub/f /renamed; stat -c %u /tmp/one",
    ]);
    for name in ["up", "down"] {
        let there = |path: &str| format!("{name}:{path}");
        assert_eq!(cp(&here("one"), &there("/tmp")), (0, String::new(), String::new()), "{name}");
        assert_eq!(cp(&here("one"), &there("/renamed")).0, 0);
        assert_eq!(cp(&here("tree"), &there("/tmp/")).0, 0);
        assert_eq!(cp(&here("tree"), &there("/new")).0, 0);
        assert_eq!(cp(&format!("{}/.", here("tree")), &there("/new")).0, 0);
        assert_eq!(cp(&here("tree"), &there("/renamed")).2, "cannot copy directory\n");
        let (code, _, said) = cp(&here("one"), &there("/nowhere/deep/"));
        assert_eq!((code, said.as_str()), (1, "no such directory\n"));
        let (code, _, said) = cp(&there("/missing"), &here("x"));
        assert_eq!(
            (code, said),
            (1, format!("Error response from daemon: Could not find the file /missing in container {name}\n"))
        );

        let out = dir.join(name);
        fs::create_dir(&out).unwrap();
        let out = |file: &str| out.join(file);
        assert_eq!(cp(&there("/tmp/one"), out("").to_str().unwrap()), (0, String::new(), String::new()));
        assert_eq!(cp(&there("/tmp/one"), out("two").to_str().unwrap()).0, 0);
        assert_eq!(cp(&there("/new"), out("made").to_str().unwrap()).0, 0);
        assert_eq!(cp(&there("/new/."), out("").to_str().unwrap()).0, 0);
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!((read(&out("one")), read(&out("two"))), ("one\n".into(), "one\n".into()));
        assert_eq!((read(&out("made/sub/f")), read(&out("sub/f"))), ("deep\n".into(), "deep\n".into()));

        // A tar through pipes.
        let tar = daemon.creel(&["cp", &there("/new"), "-"]).stdout;
        let mut back = program(&daemon, &["cp", "-", &there("/tmp")]).stdin(Stdio::piped()).spawn().unwrap();
        back.stdin.take().unwrap().write_all(&tar).unwrap();
        assert!(back.wait().unwrap().success());
        assert_eq!(cp(&there("/tmp/new/sub/f"), out("again").to_str().unwrap()).0, 0);
        assert_eq!(read(&out("again")), "deep\n");
    }
    assert_eq!(
        daemon.creel_ok(&["exec", "up", "cat", "/tmp/one", "/tmp/tree/sub/f", "/new/sub/f", "/renamed"]),
        "one\ndeep\ndeep\none"
    );
    assert_eq!(creel(&daemon, &["start", "-a", "down"]).1, "one\ndeep\ndeep\none\n0\n");
    assert_eq!(cp("up:/a", "down:/b").2, "copying between containers is not supported\n");

    let changes = daemon.creel_ok(&["diff", "up"]);
    let changes: Vec<&str> = changes.lines().collect();
    for line in ["A /new", "A /new/sub", "A /new/sub/f", "A /renamed", "C /tmp", "A /tmp/one"] {
        assert!(changes.contains(&line), "{line} is not in {changes:?}");
    }
    assert!(
        !changes.iter().any(|line| line.contains("/proc") || line.contains("resolv.conf") || line.contains("/dev")),
        "{changes:?}"
    );
    daemon.creel_ok(&["rm", "-f", "up", "down"]);
    daemon.finish().await;
}

/// What a container has put there does not lead out of it.
#[tokio::test(flavor = "multi_thread")]
async fn links_of_a_container_lead_nowhere() {
    let daemon = ground().await;
    let dir = daemon.dir.path();
    let (secret, target) = (dir.join("secret"), dir.join("target"));
    fs::create_dir(&target).unwrap();
    fs::write(&secret, "secret").unwrap();
    let script = format!(
        "ln -s {} /file; ln -s {} /dir; mkdir -p /d; ln -s {} /d/up; sleep 1000",
        secret.display(),
        target.display(),
        target.display()
    );
    daemon.creel_ok(&["run", "-d", "--name", "hostile", IMAGE, "sh", "-c", &script]);
    until("its links are there", || creel(&daemon, &["exec", "hostile", "test", "-L", "/d/up"]).0 == 0);
    fs::write(dir.join("new"), "x").unwrap();
    let new = dir.join("new").display().to_string();
    for (which, stop) in [("running", false), ("stopped", true)] {
        if stop {
            daemon.creel_ok(&["stop", "-t", "0", "hostile"]);
        }
        let out = dir.join(which);
        fs::create_dir(&out).unwrap();
        assert_eq!(creel(&daemon, &["cp", "-L", "hostile:/file", out.to_str().unwrap()]).0, 1, "{which}");
        creel(&daemon, &["cp", &new, "hostile:/dir/"]);
        creel(&daemon, &["cp", &new, "hostile:/d/up/new"]);
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{which}");
        // The link itself is what is copied, and it is not written through.
        assert_eq!(creel(&daemon, &["cp", "hostile:/file", out.to_str().unwrap()]).0, 0);
        assert!(fs::symlink_metadata(out.join("file")).unwrap().is_symlink());
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    daemon.creel_ok(&["rm", "hostile"]);
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn run_on_a_terminal() {
    let daemon = ground().await;
    let mut person = Person::runs(&daemon, 31, 97, &["run", "-it", "--name", "shell", IMAGE, "sh"]);
    person.has_a_terminal();
    person.types("\u{10}\u{11}");
    assert_eq!(person.ends().code(), Some(0));
    assert_eq!(daemon.creel_ok(&["ps", "--format", "{{.Names}} {{.State}}"]), "shell running");

    let mut person = Person::runs(&daemon, 24, 80, &["attach", "--detach-keys", "ctrl-x,q", "shell"]);
    person.types("echo back$((3+3))\n");
    person.sees("back6");
    person.types("\u{18}q");
    assert_eq!(person.ends().code(), Some(0));
    let mut person = Person::runs(&daemon, 24, 80, &["attach", "shell"]);
    person.types("exit 7\n");
    assert_eq!(person.ends().code(), Some(7));

    // A second time, with -a and -i.
    let mut person = Person::runs(&daemon, 24, 80, &["start", "-ai", "shell"]);
    person.types("echo again$((4+4))\n");
    person.sees("again8");
    person.types("exit\n");
    assert_eq!(person.ends().code(), Some(0));
    let (code, _, said) = creel(&daemon, &["run", "--rm", "-it", IMAGE]);
    assert_eq!((code, said.as_str()), (1, "creel: the input device is not a TTY\n"));
    daemon.creel_ok(&["rm", "shell"]);
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_are_passed_on() {
    let daemon = ground().await;
    let script = "trap 'exit 33' TERM; echo ready; while :; do sleep 0.1; done";
    let mut child =
        program(&daemon, &["run", "--rm", "--name", "sig", IMAGE, "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(33));
    assert_eq!(daemon.creel_ok(&["ps", "-aq"]), "");
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_completion() {
    let daemon = ground().await;
    let begin = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().to_string();
    assert_eq!(creel(&daemon, &["run", "--name", "told", IMAGE, "sh", "-c", "exit 5"]).0, 5);
    until("its end is told", || {
        let told = daemon.creel_ok(&[
            "events",
            "--since",
            &begin,
            "--until",
            "0s",
            "--filter",
            "container=told",
            "--format",
            "{{.Action}}",
        ]);
        told == "create\nattach\nstart\ndie" || told == "create\nstart\nattach\ndie" || told == "create\nstart\ndie"
    });
    let json = daemon.creel_ok(&["events", "--since", &begin, "--until", "0s", "--filter", "event=die", "--format", "json"]);
    let event: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&event["Actor"]["Attributes"]["exitCode"], &event["Type"]), (&"5".into(), &"container".into()));

    // What a shell asks when somebody presses the tab key.
    let complete = |words: &[&str]| {
        let mut command = program(&daemon, &["--"]);
        command.args(words).env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
        text(&command.env("_CLAP_IFS", "\n").output().unwrap().stdout)
    };
    assert_eq!(complete(&["creel", "rm", "to"]).trim(), "told");
    assert_eq!(complete(&["creel", "run", "busy"]).trim(), "busybox:1.35");
    assert!(daemon.creel_ok(&["completions", "bash"]).contains("COMPLETE"));
    daemon.creel_ok(&["rm", "told"]);
    daemon.finish().await;
}

/// A kubelet's containers are seen and not touched.
#[tokio::test(flavor = "multi_thread")]
async fn containers_of_pods_are_another_world() {
    let daemon = ground().await;
    let mut runtime = daemon.runtime().await;
    let mut config = pods::pod("kube");
    config.log_directory = daemon.dir.path().join("logs").display().to_string();
    let pod = pods::run_pod(&mut runtime, &config).await.expect("run pod");
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "echo said; sleep 1000")).await;
    assert_eq!(daemon.creel_ok(&["ps", "-aq"]), "");
    let shown = daemon.creel_ok(&["ps", "--pods"]);
    assert!(shown.contains(&id[..12]) && shown.contains("POD"), "{shown}");
    assert_eq!(creel(&daemon, &["exec", &id[..12], "echo", "inside"]), (0, "inside\n".into(), String::new()));
    until("it has said it", || daemon.creel_ok(&["logs", &id]).contains("said"));
    assert_eq!(daemon.creel_ok(&["inspect", "-f", "{{.State.Status}}", &id]), "running");
    for refused in [&["rm", "-f"][..], &["stop"], &["kill"]] {
        let (_, _, said) = creel(&daemon, &[refused, &[&id]].concat());
        assert!(said.contains("No such container"), "{refused:?}: {said}");
    }
    daemon.creel_ok(&["container", "prune", "-f"]);
    assert_eq!(daemon.creel_ok(&["exec", &id, "echo", "still"]), "still");
    daemon.finish().await;
}
