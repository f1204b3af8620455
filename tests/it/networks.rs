//! Networks of people's containers: names, borders, ports.

use std::{
    io::Read,
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    daemon::Daemon,
    pods::{self, BUSYBOX},
    registry::free_port,
};

const PATIENCE: Duration = Duration::from_secs(60);
const SERVER: &str = "while true; do echo served | nc -l -p 8080; done";

async fn ground() -> Daemon {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    daemon
}

fn refused(daemon: &Daemon, args: &[&str]) -> (i32, String) {
    let output = daemon.creel(args);
    assert!(!output.status.success(), "creel {args:?} should fail");
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap().trim().to_owned())
}

fn start(daemon: &Daemon, flags: &[&str], script: &str) -> String {
    daemon.creel_ok(&[&["run", "-d"], flags, &[BUSYBOX, "sh", "-c", script]].concat())
}

/// Until a command in a container says what it is to say.
fn eventually(daemon: &Daemon, container: &str, script: &str, wanted: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = daemon.creel(&["exec", container, "sh", "-c", script]);
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if said == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{container}: {script}: {said:?}, not {wanted:?}: {output:?}\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What a command in a container says now.
fn now(daemon: &Daemon, container: &str, script: &str) -> (i32, String) {
    let output = daemon.creel(&["exec", container, "sh", "-c", script]);
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn inspect(daemon: &Daemon, network: &str) -> Value {
    let all: Value = serde_json::from_str(&daemon.creel_ok(&["network", "inspect", network])).unwrap();
    all[0].clone()
}

fn address(daemon: &Daemon, network: &str, name: &str) -> String {
    let members = inspect(daemon, network)["Containers"].clone();
    let found = members.as_object().unwrap().values().find(|member| member["Name"] == name).cloned();
    let found = found.unwrap_or_else(|| panic!("{name} is not in {members}"));
    found["IPv4Address"].as_str().unwrap().split('/').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_made_listed_and_removed() {
    let daemon = ground().await;
    let id = daemon.creel_ok(&["network", "create", "--label", "a=b", "my-net"]);
    assert!(id.len() == 64 && id.bytes().all(|c| c.is_ascii_hexdigit()), "{id}");
    let listed = daemon.creel_ok(&["network", "ls"]);
    let row = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<_> = listed.lines().map(row).collect();
    assert_eq!(rows[0], ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]);
    let names: Vec<_> = rows[1..].iter().map(|row| (row[1].as_str(), row[2].as_str())).collect();
    assert_eq!(names, [("bridge", "bridge"), ("host", "host"), ("my-net", "bridge"), ("none", "null")]);
    assert_eq!(daemon.creel_ok(&["network", "ls", "-q", "--no-trunc", "--filter", "type=custom"]), id);
    let network = inspect(&daemon, "my-net");
    assert_eq!((&network["Id"], &network["Driver"], &network["Labels"]["a"]), (&id.as_str().into(), &"bridge".into(), &"b".into()));
    let gateway = network["IPAM"]["Config"][0]["Gateway"].as_str().unwrap().to_owned();
    let subnet = network["IPAM"]["Config"][0]["Subnet"].as_str().unwrap().to_owned();
    assert!(gateway.starts_with("10.") && gateway.ends_with(".1") && subnet.ends_with(".0/24"), "{network}");
    start(&daemon, &["--name", "c1", "--network", "my-net"], "sleep 1000");
    for (args, text) in [
        (&["network", "create", "my-net"][..], "Error response from daemon: network with name my-net already exists".to_owned()),
        (&["network", "create", "host"], "Error response from daemon: network with name host already exists".to_owned()),
        (
            &["network", "create", "--subnet", &subnet, "other"],
            "Error response from daemon: invalid pool request: Pool overlaps".to_owned(),
        ),
        (
            &["network", "create", "--subnet", "10.0.0.0/33", "other"],
            "Error response from daemon: subnet \"10.0.0.0/33\"".to_owned(),
        ),
        (&["network", "create", "-d", "overlay", "other"], "Error response from daemon: could not find plugin overlay".to_owned()),
        (&["network", "rm", "none-such"], "Error response from daemon: network none-such not found".to_owned()),
        (&["network", "inspect", "none-such"], "Error response from daemon: network none-such not found".to_owned()),
        (
            &["network", "rm", "bridge"],
            "Error response from daemon: bridge is a pre-defined network and cannot be removed".to_owned(),
        ),
        (
            &["network", "rm", "my-net"],
            "Error response from daemon: error while removing network: network my-net has active endpoints (name:\"c1\" id:"
                .to_owned(),
        ),
    ] {
        let (code, said) = refused(&daemon, args);
        assert!(code == 1 && said.starts_with(&text), "{args:?}: {code} {said}");
    }
    let (_, said) = refused(&daemon, &["run", "--rm", "--network", "none-such", BUSYBOX, "true"]);
    assert!(said.contains("network none-such not found"), "{said}");
    assert_eq!(daemon.creel_ok(&["network", "prune", "-f"]), "", "a container is in it");
    daemon.creel_ok(&["rm", "-f", "c1"]);
    assert_eq!(daemon.creel_ok(&["network", "prune", "-f"]), "Deleted Networks:\nmy-net");
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_find_each_other_by_name_and_nobody_else() {
    let mut daemon = ground().await;
    daemon.creel_ok(&["network", "create", "inner"]);
    daemon.creel_ok(&["network", "create", "outer"]);
    let web = start(&daemon, &["--name", "web", "--network", "inner", "--network-alias", "www", "--hostname", "box"], SERVER);
    start(&daemon, &["--name", "client", "--network", "inner"], "sleep 1000");
    start(&daemon, &["--name", "stranger", "--network", "outer"], "sleep 1000");
    start(&daemon, &["--name", "plain"], "sleep 1000");
    let ask = |name: &str| format!("echo | nc -w 5 {name} 8080");
    for name in ["web", "www", "box", "WEB", &web[..12], "web.inner"] {
        eventually(&daemon, "client", &ask(name), "served");
    }
    let ip = address(&daemon, "inner", "web");
    eventually(&daemon, "client", &ask(&ip), "served");
    assert_ne!(now(&daemon, "stranger", &ask("web")).1, "served", "another network does not know the name");
    for container in ["stranger", "plain"] {
        assert_ne!(now(&daemon, container, &format!("echo | nc -w 2 {ip} 8080")).1, "served", "nor reach the address: {container}");
    }
    // A daemon that comes back answers again, whatever way the earlier one went.
    daemon.kill();
    daemon.run().await;
    eventually(&daemon, "client", &ask("web"), "served");
    // Names follow: of a container that starts again, and of one that has another name.
    daemon.creel_ok(&["stop", "-t", "0", "web"]);
    assert_ne!(now(&daemon, "client", &ask("web")).1, "served", "nobody is called so now");
    daemon.creel_ok(&["start", "web"]);
    eventually(&daemon, "client", &ask("web"), "served");
    daemon.creel_ok(&["rename", "web", "renamed"]);
    eventually(&daemon, "client", &ask("renamed"), "served");
    assert_ne!(now(&daemon, "client", &ask("web")).1, "served");
    daemon.creel_ok(&["rm", "-f", "renamed", "client", "stranger", "plain"]);
    daemon.creel_ok(&["network", "rm", "inner", "outer"]);
    daemon.finish().await;
}

fn fetch(port: u16) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut text = String::new();
            if stream.read_to_string(&mut text).is_ok() && text == "served\n" {
                return true;
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_and_addresses() {
    let daemon = ground().await;
    daemon.creel_ok(&["network", "create", "one"]);
    daemon.creel_ok(&["network", "create", "two"]);
    let port = free_port();
    let publish = format!("{port}:8080");
    let gateway = inspect(&daemon, "one")["IPAM"]["Config"][0]["Gateway"].as_str().unwrap().to_owned();
    let wanted = gateway.trim_end_matches(".1").to_owned() + ".77";
    start(&daemon, &["--name", "server", "--network", "one", "--ip", &wanted, "-p", &publish], SERVER);
    assert_eq!(address(&daemon, "one", "server"), wanted);
    assert!(fetch(port), "the port leads into the container\n{}", daemon.log());
    // A port is one for all networks, the built-in one too.
    for flags in [&["--network", "two"][..], &[]] {
        let (_, said) = refused(&daemon, &[&["run", "--rm", "-p", &publish], flags, &[BUSYBOX, "true"]].concat());
        assert!(said.contains(&port.to_string()), "{said}");
    }
    let (_, said) = refused(&daemon, &["run", "--rm", "--network", "one", "--ip", &wanted, BUSYBOX, "true"]);
    assert!(said.contains(&format!("address {wanted} is in use")), "{said}");
    let (_, said) = refused(&daemon, &["run", "--rm", "--network", "one", "--ip", "192.0.2.1", BUSYBOX, "true"]);
    assert!(said.contains("192.0.2.1"), "{said}");
    let hosts = daemon.creel_ok(&[
        "run",
        "--rm",
        "--network",
        "one",
        "--add-host",
        "me:host-gateway",
        BUSYBOX,
        "sh",
        "-c",
        "grep me /etc/hosts; cat /etc/resolv.conf",
    ]);
    assert!(hosts.contains(&format!("{gateway}\tme")) && hosts.contains(&format!("nameserver {gateway}")), "{hosts}");
    daemon.creel_ok(&["rm", "-f", "server"]);
    daemon.creel_ok(&["network", "create", "--internal", "closed"]);
    let (_, said) = refused(&daemon, &["run", "--rm", "--network", "closed", "-p", &publish, BUSYBOX, "true"]);
    assert!(said.contains("network closed is internal"), "{said}");
    assert_eq!(
        daemon.creel_ok(&["run", "--rm", "--network", "closed", BUSYBOX, "sh", "-c", "ip route | grep default | wc -l"]),
        "0"
    );
    daemon.creel_ok(&["network", "rm", "one", "two", "closed"]);
    daemon.finish().await;
}

/// The daemon dies in the middle of making and removing networks.
#[tokio::test(flavor = "multi_thread")]
async fn death_leaves_no_halves() {
    let mut daemon = Daemon::start().await;
    for (point, args) in [
        ("network.record", &["network", "create", "n1"][..]),
        ("network.bridge", &["network", "create", "n2"]),
        ("network.remove", &["network", "rm", "n1"]),
        ("network.removed", &["network", "rm", "n2"]),
    ] {
        daemon.terminate();
        daemon.set_env("CREEL_FAILPOINTS", Some(&format!("{point}=kill:1")));
        daemon.run().await;
        assert!(!daemon.creel(args).status.success(), "{point}");
        daemon.wait_death();
        daemon.set_env("CREEL_FAILPOINTS", None);
        daemon.run().await;
        // What is listed is whole.
        for name in daemon.creel_ok(&["network", "ls", "--filter", "type=custom", "--format", "{{.Name}}"]).lines() {
            let interface = inspect(&daemon, name)["Interface"].as_str().unwrap().to_owned();
            let there = std::fs::read_to_string("/proc/self/net/dev").unwrap().contains(&format!("{interface}:"));
            assert!(there, "{point}: {name}");
        }
    }
    daemon.creel_ok(&["network", "rm", "-f", "n1", "n2"]);
    assert_eq!(daemon.creel_ok(&["network", "ls", "-q", "--filter", "type=custom"]), "");
    daemon.finish().await;
}
