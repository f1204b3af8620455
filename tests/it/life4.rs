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
    let many = ["--rm", "--name", "talker", "--log-opt", "max-size=2k", "--log-opt", "max-file=1000"];
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
    daemon.wait_death();
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
