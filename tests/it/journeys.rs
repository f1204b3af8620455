//! The main job, as a person with crictl and creel sees it.

use serde_json::Value;

use crate::{
    daemon::Daemon,
    pods::{self, BUSYBOX},
};

fn write_json(daemon: &Daemon, name: &str, value: &Value) -> String {
    let path = daemon.dir.path().join(name);
    std::fs::write(&path, serde_json::to_vec(value).unwrap()).unwrap();
    path.display().to_string()
}

/// Pull, run, create, start, exec, logs, stats, stop, remove: all with the real crictl.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_from_a_real_image_through_a_real_crictl() {
    let daemon = Daemon::start().await;
    daemon.mirror("docker.io", crate::registry::shared());
    let version = daemon.crictl_ok(&["version"]);
    assert!(version.contains("RuntimeName:  creel") && version.contains("RuntimeApiVersion:  v1"), "{version}");
    daemon.crictl_ok(&["pull", BUSYBOX]);
    let images = daemon.crictl_ok(&["images"]);
    assert!(images.contains("docker.io/library/busybox"), "{images}");

    let logs = daemon.dir.path().join("logs");
    let pod = serde_json::json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1", "attempt": 0},
        "hostname": "web", "log_directory": logs, "labels": {"app": "web"}, "linux": {},
        "dns_config": {"servers": ["10.0.0.10"], "searches": ["svc.local"], "options": ["ndots:5"]},
    });
    let container = serde_json::json!({
        "metadata": {"name": "main"}, "image": {"image": BUSYBOX}, "log_path": "main.log",
        "command": ["sh", "-c", "echo out; echo err >&2; hostname; cat /etc/resolv.conf; sleep 1000"],
        "envs": [{"key": "A", "value": "b c"}], "linux": {},
    });
    let (pod_file, container_file) = (write_json(&daemon, "pod.json", &pod), write_json(&daemon, "container.json", &container));
    let pod_id = daemon.crictl_ok(&["runp", &pod_file]);
    let id = daemon.crictl_ok(&["create", &pod_id, &container_file, &pod_file]);
    assert!(daemon.crictl_ok(&["ps", "-a"]).contains("Created"));
    daemon.crictl_ok(&["start", &id]);
    assert!(daemon.crictl_ok(&["ps"]).contains("Running"));
    assert_eq!(daemon.crictl_ok(&["exec", "--sync", &id, "sh", "-c", "echo $A; exit 0"]), "b c");
    let failed = daemon.crictl(&["exec", "--sync", &id, "sh", "-c", "exit 3"]);
    assert!(!failed.status.success());

    let logged = pods::log_text(&logs.join("main.log"));
    for line in ["out\n", "err\n", "web\n", "nameserver 10.0.0.10\n", "search svc.local\n", "options ndots:5\n"] {
        assert!(logged.contains(line), "{line:?} is missing in {logged:?}");
    }
    assert!(daemon.crictl_ok(&["logs", &id]).contains("out"));
    let inspected: Value = serde_json::from_str(&daemon.crictl_ok(&["inspectp", &pod_id])).unwrap();
    let ip = inspected["status"]["network"]["ip"].as_str().unwrap();
    assert!(ip.starts_with("10."), "{ip}");
    let inspected: Value = serde_json::from_str(&daemon.crictl_ok(&["inspect", &id])).unwrap();
    assert_eq!(inspected["status"]["state"], "CONTAINER_RUNNING");
    let stats = daemon.crictl_ok(&["stats", "-a"]);
    assert!(stats.contains("main"), "{stats}");
    daemon.crictl_ok(&["update", "--memory", "67108864", &id]);
    daemon.crictl_ok(&["stop", "--timeout", "1", &id]);
    assert!(daemon.crictl_ok(&["ps", "-a"]).contains("Exited"));
    daemon.crictl_ok(&["rm", &id]);
    daemon.crictl_ok(&["stopp", &pod_id]);
    daemon.crictl_ok(&["rmp", &pod_id]);
    assert_eq!(daemon.crictl_ok(&["pods", "-q"]), "");
    daemon.crictl_ok(&["rmi", BUSYBOX]);
    assert!(!daemon.crictl_ok(&["images"]).contains("busybox"));
    daemon.finish().await;
}

/// The first commands of creel itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line() {
    let daemon = Daemon::start().await;
    daemon.mirror("docker.io", crate::registry::shared());
    assert!(daemon.creel_ok(&["info"]).contains("creel"));
    daemon.creel_ok(&["pull", "busybox:1.35"]);
    let images: Value = serde_json::from_str(&daemon.creel_ok(&["images", "--format", "json"])).unwrap();
    assert!(images.to_string().contains("busybox"), "{images}");
    assert_eq!(daemon.creel_ok(&["run", "--rm", "busybox:1.35", "echo", "hello"]), "hello");
    let failed = daemon.creel(&["run", "--rm", "busybox:1.35", "sh", "-c", "exit 42"]);
    assert_eq!(failed.status.code(), Some(42), "{}", String::from_utf8_lossy(&failed.stderr));
    let missing = daemon.creel(&["run", "--rm", "busybox:1.35", "no-such-program"]);
    assert_eq!(missing.status.code(), Some(127), "{}", String::from_utf8_lossy(&missing.stderr));

    daemon.creel_ok(&["run", "-d", "--name", "web", "busybox:1.35", "sh", "-c", "echo started; sleep 1000"]);
    assert!(daemon.creel_ok(&["ps"]).contains("web"));
    for _ in 0..100 {
        if daemon.creel_ok(&["logs", "web"]).contains("started") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(daemon.creel_ok(&["logs", "web"]), "started");
    daemon.creel_ok(&["stop", "-t", "0", "web"]);
    assert!(!daemon.creel_ok(&["ps"]).contains("web"));
    assert!(daemon.creel_ok(&["ps", "-a"]).contains("web"));
    daemon.creel_ok(&["rm", "web"]);
    assert!(!daemon.creel_ok(&["ps", "-a"]).contains("web"));
    daemon.creel_ok(&["rmi", "busybox:1.35"]);
    let gone = daemon.creel(&["run", "--rm", "no-such-registry.invalid/x:1", "true"]);
    assert_eq!(gone.status.code(), Some(125));
    daemon.finish().await;
}

/// A person who forgot to start the daemon is told so.
#[test]
fn no_daemon_is_said_so() {
    let output = std::process::Command::new(crate::daemon::bin("creel"))
        .args(["--socket", "/nonexistent/creel.sock", "ps"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("/nonexistent/creel.sock") && text.contains("creeld"), "{text}");
}
