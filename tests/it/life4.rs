//! Containers of people: logs that stay bounded, health checks, namespaces and networks that they share.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    daemon::Daemon,
    pods::{self, BUSYBOX},
};

const PATIENCE: Duration = Duration::from_secs(60);

async fn ground() -> Daemon {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    daemon
}

fn until(daemon: &Daemon, what: &str, mut probe: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !probe() {
        assert!(Instant::now() < deadline, "never: {what}\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Starts a script in the background.
fn start(daemon: &Daemon, flags: &[&str], script: &str) -> String {
    daemon.creel_ok(&[&["run", "-d"], flags, &[BUSYBOX, "sh", "-c", script]].concat())
}

/// Exit code, and what is said of it.
fn refused(daemon: &Daemon, args: &[&str]) -> (i32, String) {
    let output = daemon.creel(args);
    assert!(!output.status.success(), "creel {args:?} should fail");
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn inspect(daemon: &Daemon, name: &str) -> Value {
    let all: Value = serde_json::from_str(&daemon.creel_ok(&["inspect", name])).unwrap();
    all[0].clone()
}

fn exec(daemon: &Daemon, name: &str, script: &str) -> String {
    daemon.creel_ok(&["exec", name, "sh", "-c", script])
}

/// Says `line 0`, `line 1`, ...
fn counting(lines: u32) -> String {
    format!("i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); done; ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_stays_bounded() {
    let daemon = ground().await;
    let limits = ["--log-opt", "max-size=20k", "--log-opt", "max-file=3"];
    let id = start(&daemon, &[&["--name", "flood"], &limits[..]].concat(), &(counting(3000) + "sleep 1000"));
    until(&daemon, "the last line", || daemon.creel_ok(&["logs", "-n", "1", "flood"]) == "line 2999");
    let files: Vec<u64> =
        fs::read_dir(daemon.root().join("logs").join(&id)).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    assert!(files.len() == 3 && files.iter().all(|bytes| *bytes <= 20_000), "{files:?}");
    let kept = daemon.creel_ok(&["logs", "flood"]);
    let lines: Vec<u32> = kept.lines().map(|line| line.strip_prefix("line ").unwrap().parse().unwrap()).collect();
    assert!((500..3000).contains(&lines.len()) && lines.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{} lines", lines.len());
    assert_eq!(daemon.creel_ok(&["logs", "--tail", "600", "flood"]).lines().next(), Some("line 2400"));
    let config = &inspect(&daemon, "flood")["HostConfig"]["LogConfig"];
    assert_eq!((&config["Type"], &config["Config"]["max-file"]), (&"json-file".into(), &"3".into()));
    daemon.creel_ok(&["rm", "-f", "flood"]);
    assert!(!daemon.root().join("logs").join(&id).exists());

    // Who follows misses nothing, however often the file changes under him.
    let many = ["--name", "talker", "--log-opt", "max-size=2k", "--log-opt", "max-file=1000"];
    start(&daemon, &many, &("while [ ! -e /go ]; do sleep 0.1; done; ".to_owned() + &counting(2000)));
    let follower = std::process::Command::new(crate::daemon::bin("creel"))
        .args(["logs", "-f", "talker"])
        .env("CREEL_SOCKET", daemon.socket())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    exec(&daemon, "talker", "touch /go");
    let said = String::from_utf8(follower.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!((said.lines().count(), said.lines().last()), (2000, Some("line 1999")));
    daemon.creel_ok(&["rm", "talker"]);

    daemon.creel_ok(&["run", "--name", "quiet", "--log-driver", "none", BUSYBOX, "echo", "hello"]);
    let (code, said) = refused(&daemon, &["logs", "quiet"]);
    assert!(code == 1 && said.ends_with("configured logging driver does not support reading"), "{said}");
    daemon.creel_ok(&["rm", "quiet"]);
    for (flags, text) in [
        (["--log-driver", "syslog"], "logger: no log driver named 'syslog' is registered"),
        (["--log-opt", "max-file=0"], "max-file cannot be less than 1"),
        (["--log-opt", "tag=x"], "unknown log opt 'tag' for json-file log driver"),
    ] {
        let (code, said) = refused(&daemon, &[&["run", "--rm"], &flags[..], &[BUSYBOX, "true"]].concat());
        assert!(code == 125 && said.contains(text), "{said}");
    }
    daemon.finish().await;
}

fn health(daemon: &Daemon, name: &str) -> String {
    inspect(daemon, name)["State"]["Health"]["Status"].as_str().unwrap_or("none").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_looked_after() {
    let mut daemon = ground().await;
    let check = ["--health-cmd", "cat /ok", "--health-interval", "100ms", "--health-retries", "2", "--health-timeout", "20s"];
    start(&daemon, &[&["--name", "web"], &check[..]].concat(), "sleep 1000");
    until(&daemon, "unhealthy", || health(&daemon, "web") == "unhealthy");
    let found = inspect(&daemon, "web");
    let probe = &found["State"]["Health"]["Log"][0];
    assert_eq!(probe["ExitCode"], 1, "{found}");
    assert!(probe["Output"].as_str().unwrap().contains("/ok") && probe["End"].as_str() >= probe["Start"].as_str(), "{found}");
    assert_eq!(found["Config"]["Healthcheck"]["Test"], serde_json::json!(["CMD-SHELL", "cat /ok"]));
    assert_eq!(found["Config"]["Healthcheck"]["Interval"], 100_000_000);
    assert!(daemon.creel_ok(&["ps"]).contains("(unhealthy)"));
    exec(&daemon, "web", "touch /ok");
    until(&daemon, "healthy", || daemon.creel_ok(&["ps"]).contains("(healthy)"));
    until(&daemon, "five probes", || inspect(&daemon, "web")["State"]["Health"]["Log"].as_array().unwrap().len() == 5);
    assert_eq!(inspect(&daemon, "web")["State"]["Health"]["FailingStreak"], 0);
    let named = |filter: &str| daemon.creel_ok(&["ps", "-a", "--filter", filter, "--format", "{{.Names}}"]);
    assert_eq!((named("health=healthy"), named("health=unhealthy"), named("health=none")), ("web".into(), "".into(), "".into()));
    let events = daemon.creel_ok(&["events", "--since", "1h", "--until", "0s", "--filter", "event=health_status"]);
    let told: Vec<&str> =
        events.lines().filter_map(|line| Some(line.split_once("health_status: ")?.1.split(' ').next().unwrap())).collect();
    assert_eq!(told, ["unhealthy", "healthy"], "{events}");

    // The next daemon knows it, and goes on looking.
    daemon.kill();
    daemon.run().await;
    assert_eq!(health(&daemon, "web"), "healthy");
    exec(&daemon, "web", "rm /ok");
    until(&daemon, "unhealthy again", || health(&daemon, "web") == "unhealthy");
    daemon.creel_ok(&["stop", "-t", "0", "web"]);
    assert!(health(&daemon, "web") == "unhealthy" && !daemon.creel_ok(&["ps", "-a"]).contains("healthy"));
    daemon.creel_ok(&["rm", "web"]);
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_of_images() {
    let daemon = ground().await;
    daemon.creel_ok(&["create", "--name", "base", BUSYBOX, "sleep", "1000"]);
    let change = "HEALTHCHECK --interval=50ms --start-period=1h --start-interval=100ms CMD cat /ok";
    daemon.creel_ok(&["commit", "--change", change, "base", "checked"]);
    daemon.creel_ok(&["run", "-d", "--name", "one", "checked"]);
    // In the start period failures do not count.
    until(&daemon, "probes", || inspect(&daemon, "one")["State"]["Health"]["Log"].as_array().is_some_and(|log| log.len() == 5));
    assert_eq!((health(&daemon, "one").as_str(), daemon.creel_ok(&["ps"]).contains("(health: starting)")), ("starting", true));
    exec(&daemon, "one", "touch /ok");
    until(&daemon, "healthy", || health(&daemon, "one") == "healthy");
    daemon.creel_ok(&["run", "-d", "--name", "slow", "--health-cmd", "sleep 1000", "--health-timeout", "200ms", "checked"]);
    let last = || inspect(&daemon, "slow")["State"]["Health"]["Log"][0].clone();
    until(&daemon, "a probe that is too slow", || !last().is_null());
    assert_eq!((&last()["ExitCode"], &last()["Output"]), (&(-1).into(), &"Health check exceeded timeout (200ms)".into()));
    daemon.creel_ok(&["run", "-d", "--name", "none", "--no-healthcheck", "checked"]);
    assert_eq!(health(&daemon, "none"), "none");
    let (code, said) = refused(&daemon, &["run", "--no-healthcheck", "--health-retries", "2", "checked"]);
    assert!(code == 125 && said.contains("conflicts with --health-* options"), "{said}");
    let (code, said) = refused(&daemon, &["run", "--health-interval", "10us", "checked"]);
    assert!(code == 125 && said.contains("Interval in Healthcheck cannot be less than 1ms"), "{said}");
    daemon.creel_ok(&["rm", "-f", "base", "one", "slow", "none"]);
    daemon.finish().await;
}

fn networks(daemon: &Daemon, name: &str) -> Value {
    inspect(daemon, name)["NetworkSettings"]["Networks"].clone()
}

/// What a script in a container says, when it says it.
fn eventually(daemon: &Daemon, name: &str, script: &str, wanted: &str) {
    let mut said = String::new();
    until(daemon, &format!("{name}: {script}: {wanted}"), || {
        said = String::from_utf8_lossy(&daemon.creel(&["exec", name, "sh", "-c", script]).stdout).trim().to_owned();
        said == wanted
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_come_and_go_with_a_container_that_runs() {
    let mut daemon = ground().await;
    for network in ["front", "back"] {
        daemon.creel_ok(&["network", "create", network]);
    }
    start(
        &daemon,
        &["--name", "server", "--network", "back", "--network-alias", "db"],
        "while true; do echo served | nc -l -p 80; done",
    );
    start(&daemon, &["--name", "client", "--network", "front"], "sleep 1000");
    let ask = |name: &str| format!("timeout 5 nc {name} 80 </dev/null");
    assert_ne!(daemon.creel(&["exec", "client", "sh", "-c", &ask("db")]).status.code(), Some(0));
    daemon.creel_ok(&["network", "connect", "--alias", "desk", "back", "client"]);
    // Names of both networks, whichever it asks; and the way out is what it was.
    eventually(&daemon, "client", &ask("db"), "served");
    assert_eq!(exec(&daemon, "client", "ls /sys/class/net | grep -c eth"), "2");
    assert_eq!(exec(&daemon, "client", "ip route | grep default | grep -c eth0"), "1");
    eventually(&daemon, "server", "nslookup desk >/dev/null && echo found", "found");
    let both = networks(&daemon, "client");
    assert_eq!(both.as_object().unwrap().len(), 2, "{both}");
    assert_eq!(both["back"]["Aliases"], serde_json::json!(["desk"]));
    assert!(both["front"]["IPAddress"] != both["back"]["IPAddress"] && both["back"]["IPAddress"] != "", "{both}");
    let (code, said) = refused(&daemon, &["network", "connect", "back", "client"]);
    assert!(code == 1 && said.ends_with("endpoint with name client already exists in network back"), "{said}");
    assert_eq!(daemon.creel_ok(&["ps", "--filter", "network=back", "--format", "{{.Names}}"]).lines().count(), 2);

    // The next daemon knows it, and takes it back.
    daemon.kill();
    daemon.run().await;
    assert_eq!(networks(&daemon, "client"), both);
    eventually(&daemon, "client", &ask("db"), "served");
    daemon.creel_ok(&["network", "disconnect", "back", "client"]);
    assert_eq!(exec(&daemon, "client", "ls /sys/class/net | grep -c eth"), "1");
    let (code, said) = refused(&daemon, &["network", "disconnect", "back", "client"]);
    assert!(code == 1 && said.contains("is not connected to network back"), "{said}");

    // Its first network goes, and it leaves by the other one.
    daemon.creel_ok(&["network", "connect", "back", "client"]);
    daemon.creel_ok(&["network", "disconnect", "front", "client"]);
    assert_eq!(exec(&daemon, "client", "ip route | grep default | grep -c eth1"), "1");
    eventually(&daemon, "client", &ask("server"), "served");
    daemon.creel_ok(&["network", "disconnect", "back", "client"]);
    assert_eq!(exec(&daemon, "client", "ls /sys/class/net"), "lo");
    daemon.creel_ok(&["network", "connect", "front", "client"]);
    assert_eq!(exec(&daemon, "client", "ip route | grep -c default"), "1");

    // What is so now is so at the next start.
    daemon.creel_ok(&["stop", "-t", "0", "client"]);
    let back: Value = serde_json::from_str(&daemon.creel_ok(&["network", "inspect", "back"])).unwrap();
    let subnet = back[0]["IPAM"]["Config"][0]["Subnet"].as_str().unwrap();
    let address = subnet.replace(".0/24", ".77");
    daemon.creel_ok(&["network", "connect", "--ip", &address, "back", "client"]);
    daemon.creel_ok(&["start", "client"]);
    assert_eq!(networks(&daemon, "client")["back"]["IPAddress"], address.as_str());
    eventually(&daemon, "client", &ask("db"), "served");
    let (_, said) = refused(&daemon, &["network", "connect", "host", "client"]);
    assert!(said.ends_with("container cannot be disconnected from host network or connected to host network"), "{said}");
    daemon.creel_ok(&[
        "run",
        "--rm",
        "--network",
        "front",
        "--network",
        "name=back,alias=x",
        BUSYBOX,
        "sh",
        "-c",
        "ip addr show eth1",
    ]);
    let events =
        daemon.creel_ok(&["events", "--since", "1h", "--until", "0s", "--filter", "type=network", "--filter", "event=connect"]);
    assert!(events.lines().count() >= 2 && events.contains("name=front"), "{events}");
    daemon.creel_ok(&["rm", "-f", "client", "server"]);
    daemon.creel_ok(&["network", "rm", "front", "back"]);
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_of_other_containers() {
    let daemon = ground().await;
    let holder =
        start(&daemon, &["--name", "holder", "-h", "held", "--add-host", "x:1.2.3.4"], "echo here >/dev/shm/file; sleep 1000");
    until(&daemon, "the file", || daemon.creel_ok(&["exec", "holder", "sh", "-c", "cat /dev/shm/file; true"]) == "here");
    let namespace = |kind: &str, flags: &[&str]| {
        let script = format!("readlink /proc/self/ns/{kind}");
        daemon.creel_ok(&[&["run", "--rm"], flags, &[BUSYBOX, "sh", "-c", &script]].concat())
    };
    for (kind, flag) in [("net", "--network"), ("pid", "--pid"), ("ipc", "--ipc")] {
        let held = exec(&daemon, "holder", &format!("readlink /proc/self/ns/{kind}"));
        assert_eq!(namespace(kind, &[flag, "container:holder"]), held);
        assert_ne!(namespace(kind, &[]), held);
    }
    let shared = [
        "run",
        "--rm",
        "--network",
        "container:holder",
        BUSYBOX,
        "sh",
        "-c",
        "hostname; grep 1.2.3.4 /etc/hosts; ls /sys/class/net",
    ];
    let said = daemon.creel_ok(&shared);
    assert!(said.starts_with("held\n1.2.3.4\tx\n") && said.contains("eth0"), "{said}");
    assert_eq!(daemon.creel_ok(&["run", "--rm", "--ipc", "container:holder", BUSYBOX, "cat", "/dev/shm/file"]), "here");
    let seen = daemon.creel_ok(&["run", "--rm", "--pid", "container:holder", BUSYBOX, "ps"]);
    assert!(seen.contains("sleep 1000"), "{seen}");
    let host = std::process::Command::new("hostname").output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap().trim().to_owned();
    assert_eq!(daemon.creel_ok(&["run", "--rm", "--uts", "host", BUSYBOX, "hostname"]), host);
    let named = [
        "run",
        "--rm",
        "-h",
        "one",
        "--domainname",
        "example.org",
        BUSYBOX,
        "sh",
        "-c",
        "cat /proc/sys/kernel/domainname; hostname -f",
    ];
    assert_eq!(daemon.creel_ok(&named), "example.org\none.example.org");
    daemon.creel_ok(&["run", "--rm", "--userns", "host", BUSYBOX, "true"]);
    for (flags, text) in [
        (&["--network", "container:none-such"][..], "No such container: none-such"),
        (&["--network", "container:holder", "-h", "x"], "conflicting options: hostname and the network mode"),
        (
            &["--network", "container:holder", "-p", "80"],
            "conflicting options: port publishing and the container type network mode",
        ),
        (&["--pid", "container:holder", "--init"], "an init needs a PID namespace"),
        (&["--uts", "host", "-h", "x"], "conflicting options: hostname and the UTS mode"),
        (&["--pid", "nonsense"], "invalid PID mode: nonsense"),
    ] {
        let (code, said) = refused(&daemon, &[&["run", "--rm"], flags, &[BUSYBOX, "true"]].concat());
        assert!(code == 125 && said.contains(text), "{flags:?}: {said}");
    }
    daemon.creel_ok(&["create", "--name", "guest", "--network", "container:holder", BUSYBOX, "true"]);
    assert_eq!(inspect(&daemon, "guest")["HostConfig"]["NetworkMode"], "container:holder");
    daemon.creel_ok(&["rename", "holder", "renamed"]);
    assert_eq!(daemon.creel(&["start", "-a", "guest"]).status.code(), Some(0));
    daemon.creel_ok(&["stop", "-t", "0", "renamed"]);
    let (_, said) = refused(&daemon, &["start", "guest"]);
    assert!(said.contains(&format!("cannot join network of a non running container: {holder}")), "{said}");
    daemon.creel_ok(&["rm", "guest", "renamed"]);
    daemon.finish().await;
}

/// What a command of `creel` says, with its input and output in our hands.
fn attached(daemon: &Daemon, args: &[&str]) -> std::process::Child {
    // Whoever runs the tests may ignore interrupts: what a shell has started in the background does.
    std::process::Command::new("env")
        .arg("--default-signal=INT")
        .arg(crate::daemon::bin("creel"))
        .args(args)
        .env("CREEL_SOCKET", daemon.socket())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

fn interrupt(child: &std::process::Child) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

/// The first line that it says: it listens for signals by then.
fn first_line(child: &mut std::process::Child) -> String {
    use std::io::BufRead as _;
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_of_those_attached() {
    let daemon = ground().await;
    let talk = "while :; do echo here; sleep 0.1; done";
    start(&daemon, &["--name", "polite"], &format!("trap 'exit 7' INT; {talk}"));
    let mut silent = attached(&daemon, &["attach", "--sig-proxy=false", "polite"]);
    assert_eq!(first_line(&mut silent), "here");
    interrupt(&silent);
    assert_eq!(silent.wait().unwrap().code(), None, "it ends by the signal");
    assert_eq!(inspect(&daemon, "polite")["State"]["Running"], true);
    let mut passing = attached(&daemon, &["attach", "polite"]);
    assert_eq!(first_line(&mut passing), "here");
    interrupt(&passing);
    assert_eq!(passing.wait().unwrap().code(), Some(7));

    // Who insists leaves what does not listen.
    start(&daemon, &["--name", "deaf"], &format!("trap 'echo heard' INT; {talk}"));
    let mut insisting = attached(&daemon, &["attach", "deaf"]);
    assert_eq!(first_line(&mut insisting), "here");
    for number in 1..=3 {
        interrupt(&insisting);
        if number < 3 {
            until(&daemon, "the signal", || daemon.creel_ok(&["logs", "deaf"]).matches("heard").count() == number);
        }
    }
    let end = insisting.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&end.stderr).into_owned();
    assert!(end.status.code() == Some(1) && said.contains("got 3 SIGTERM/SIGINTs, forcefully exiting"), "{said}");
    assert_eq!(inspect(&daemon, "deaf")["State"]["Running"], true);
    daemon.creel_ok(&["rm", "-f", "polite", "deaf"]);
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn export_port_exec_and_init() {
    let daemon = ground().await;
    start(&daemon, &["--name", "web", "-p", "127.0.0.1::80", "-p", "127.0.0.1::53/udp"], "echo mine >/file; sleep 1000");
    let all = daemon.creel_ok(&["port", "web"]);
    let lines: Vec<&str> = all.lines().collect();
    assert!(lines.len() == 2 && lines.iter().any(|line| line.starts_with("80/tcp -> 127.0.0.1:")), "{all}");
    let one = daemon.creel_ok(&["port", "web", "53/udp"]);
    assert!(lines.contains(&format!("53/udp -> {one}").as_str()), "{one} {all}");
    let (code, said) = refused(&daemon, &["port", "web", "99"]);
    assert!(code == 1 && said.contains("99/tcp"), "{said}");

    until(&daemon, "the file", || daemon.creel(&["exec", "web", "cat", "/file"]).status.success());
    let archive = daemon.dir.path().join("web.tar");
    daemon.creel_ok(&["export", "-o", archive.to_str().unwrap(), "web"]);
    let listed = std::process::Command::new("tar").args(["-xOf", archive.to_str().unwrap(), "file"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "mine\n");
    let names = std::process::Command::new("tar").args(["-tf", archive.to_str().unwrap()]).output().unwrap();
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    assert!(names.lines().any(|name| name == "etc/passwd") && !names.lines().any(|name| name.starts_with("proc/1")), "{names}");

    let effective = "grep CapEff /proc/self/status";
    let plain = exec(&daemon, "web", effective);
    let privileged = daemon.creel_ok(&["exec", "--privileged", "web", "sh", "-c", effective]);
    assert!(plain != privileged && exec(&daemon, "web", effective) == plain, "{plain} {privileged}");

    // The orphans of whoever does not wait for them are somebody's, and nothing is left of them.
    start(&daemon, &["--name", "orphans", "--init"], "sh -c 'sleep 0.1 & sleep 0.1 & exec true'; touch /made; exec sleep 1000");
    until(&daemon, "orphans", || daemon.creel(&["exec", "orphans", "ls", "/made"]).status.success());
    let left = "for p in /proc/[0-9]*; do grep -s 'State:.*Z' $p/status; done; ps | grep -c '[s]leep 0.1'";
    eventually(&daemon, "orphans", left, "0");
    assert_ne!(exec(&daemon, "orphans", "tr '\\0' ' ' </proc/1/cmdline"), "sleep 1000");
    daemon.creel_ok(&["rm", "-f", "web", "orphans"]);
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_flags() {
    let daemon = ground().await;
    let rule = "c 10:229 rwm";
    let flags = ["--name", "all", "--memory-reservation", "16m", "--device-cgroup-rule", rule, "--annotation", "a=b"];
    let more = ["--stop-timeout", "-1", "--cgroupns", "host", "--platform", "linux", "--label", "one=1", "--label", "two=2,3"];
    start(&daemon, &[&flags[..], &more].concat(), "sleep 1000");
    let found = inspect(&daemon, "all");
    assert_eq!(
        (&found["HostConfig"]["MemoryReservation"], &found["HostConfig"]["CgroupnsMode"]),
        (&(16 << 20).into(), &"host".into())
    );
    assert_eq!((&found["HostConfig"]["Annotations"]["a"], &found["Config"]["StopTimeout"]), (&"b".into(), &(-1).into()));
    assert_eq!(found["HostConfig"]["DeviceCgroupRules"], serde_json::json!([rule]));
    // A node of that device can be made there, and nowhere else.
    exec(&daemon, "all", "mknod /fuse c 10 229");
    assert!(!daemon.creel(&["run", "--rm", BUSYBOX, "mknod", "/loop", "b", "7", "0"]).status.success());
    let own = daemon.creel_ok(&["run", "--rm", BUSYBOX, "readlink", "/proc/self/ns/cgroup"]);
    assert_ne!(exec(&daemon, "all", "readlink /proc/self/ns/cgroup"), own);
    assert_eq!(
        daemon.creel_ok(&["ps", "--format", r#"{{.Names}} {{.Label "two"}} {{.Label "one"}} {{.Label "none"}}"#]),
        "all 2,3 1"
    );
    let (_, said) = refused(&daemon, &["run", "--rm", "--platform", "linux/none", "--pull", "never", BUSYBOX]);
    assert!(said.contains("does not match the specified platform: wanted linux/none, actual: linux/"), "{said}");
    for (flags, text) in [
        (["--storage-opt", "size=1g"], "--storage-opt"),
        (["--device-cgroup-rule", "c 1 r"], "invalid device cgroup format 'c 1 r'"),
        (["--cgroupns", "mine"], "invalid cgroup namespace mode: mine"),
        (["--memory-reservation", "1m"], "Minimum memory reservation allowed is 6MB"),
    ] {
        let (code, said) = refused(&daemon, &[&["run", "--rm"], &flags[..], &[BUSYBOX, "true"]].concat());
        assert!(code == 125 && said.contains(text), "{said}");
    }
    daemon.creel_ok(&["rm", "-f", "all"]);
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_volumes_and_volumes_of_memory() {
    let daemon = ground().await;
    daemon.creel_ok(&["volume", "create", "data"]);
    let fill = "mkdir -p /v/a/b; echo deep >/v/a/b/file; ln -s /etc /v/out; ln -s a/b /v/in";
    daemon.creel_ok(&["run", "--rm", "-v", "data:/v", BUSYBOX, "sh", "-c", fill]);
    let part = |subpath: &str| format!("type=volume,source=data,target=/part,volume-subpath={subpath}");
    let run = |mount: &str, script: &str| daemon.creel(&["run", "--rm", "--mount", mount, BUSYBOX, "sh", "-c", script]);
    let said = |mount: &str, script: &str| String::from_utf8_lossy(&run(mount, script).stdout).trim().to_owned();
    assert_eq!(said(&part("a"), "cat /part/b/file; ls /part"), "deep\nb");
    assert_eq!(said(&part("in"), "cat /part/file"), "deep");
    assert_eq!(said(&part("a/b/file"), "cat /part"), "deep");
    // A link leads nowhere else than in the volume, whatever it says.
    assert_eq!(run(&part("out"), "true").status.code(), Some(125));
    assert!(!run(&(part("a") + ",readonly"), "touch /part/new").status.success());
    assert!(run(&part("a"), "touch /part/new").status.success());
    for (mount, text) in [
        (part("../.."), "subpath must be a relative path within the volume"),
        (part("/a"), "subpath must be a relative path within the volume"),
        (part("none"), "cannot access path none of volume data"),
    ] {
        let (code, said) = refused(&daemon, &["run", "--rm", "--mount", &mount, BUSYBOX, "true"]);
        assert!(code == 125 && said.contains(text), "{said}");
    }

    let memory = ["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=2m,mode=700", "memory"];
    daemon.creel_ok(&memory);
    let look = "stat -f -c %T /m; stat -c %a /m; dd if=/dev/zero of=/m/x bs=1M count=5 2>/dev/null; wc -c </m/x";
    assert_eq!(daemon.creel_ok(&["run", "--rm", "-v", "memory:/m", BUSYBOX, "sh", "-c", look]), "tmpfs\n700\n2097152");
    let (_, said) = refused(&daemon, &["volume", "create", "-o", "type=nfs", "-o", "o=addr=1.2.3.4", "-o", "device=:/x", "net"]);
    assert!(said.contains("file systems are not mounted by volumes"), "{said}");
    let place = daemon.dir.path().join("place");
    fs::create_dir(&place).unwrap();
    daemon.creel_ok(&[
        "volume",
        "create",
        "-o",
        "type=none",
        "-o",
        "o=bind",
        "-o",
        &format!("device={}", place.display()),
        "bound",
    ]);
    daemon.creel_ok(&["run", "--rm", "-v", "bound:/b", BUSYBOX, "touch", "/b/here"]);
    assert!(place.join("here").exists());
    let (code, said) = refused(&daemon, &["volume", "inspect", "none-such", "data"]);
    assert!(code == 1 && said.contains("none-such"), "{said}");
    daemon.creel_ok(&["volume", "rm", "data", "memory", "bound"]);
    daemon.finish().await;
}
