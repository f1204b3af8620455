//! The built-in bridge and CNI plugins.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use api::runtime as cri;

use crate::{
    daemon::{Daemon, cache},
    pods::{self, BUSYBOX, Runtime},
    registry::free_port,
};

async fn ip_of(runtime: &mut Runtime, pod: &str) -> cri::PodSandboxNetworkStatus {
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: false };
    runtime.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap().network.unwrap()
}

fn fetch(address: &str) -> Option<String> {
    for _ in 0..500 {
        if let Ok(mut stream) = TcpStream::connect(address) {
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            stream.write_all(b"x\n").ok();
            let mut text = String::new();
            if stream.read_to_string(&mut text).is_ok() && !text.is_empty() {
                return Some(text);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

const SERVER: &str = "while true; do echo served | nc -l -p 8080; done";

/// Pods reach each other and the host reaches them, over IPv4 and IPv6; host ports lead into the pod.
#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_connects_pods_and_host_ports() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let port = free_port();
    let mut server = pods::pod("server");
    server.port_mappings = vec![
        cri::PortMapping { container_port: 8080, host_port: i32::from(port), ..Default::default() },
        cri::PortMapping { container_port: 9999, host_port: 0, ..Default::default() },
    ];
    let pod = pods::run_pod(&mut runtime, &server).await.unwrap();
    pods::run(&mut runtime, &pod, &server, &pods::container("c", BUSYBOX, SERVER)).await;
    let network = ip_of(&mut runtime, &pod).await;
    assert_eq!(network.additional_ips.len(), 1, "an IPv6 address besides: {network:?}");
    let client = pods::pod("client");
    let other = pods::run_pod(&mut runtime, &client).await.unwrap();
    let id = pods::run(&mut runtime, &other, &client, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    assert!(fetch(&format!("{}:8080", network.ip)).is_some(), "host to pod");
    for address in [&network.ip, &network.additional_ips[0].ip] {
        let (code, out, err) = pods::exec(
            &mut runtime,
            &id,
            &["sh", "-c", &format!("for _ in $(seq 50); do echo | nc -w 5 {address} 8080 && exit; sleep 0.2; done; exit 1")],
        )
        .await;
        assert_eq!((code, out.as_str()), (0, "served"), "pod to pod at {address}: {err}");
    }
    let host = std::fs::read_to_string("/proc/net/fib_trie").is_ok();
    assert!(host && fetch(&format!("127.0.0.1:{port}")).is_some(), "host port on loopback");
    // Two pods cannot have one port.
    let mut rival = pods::pod("rival");
    rival.port_mappings = server.port_mappings.clone();
    let error = pods::run_pod(&mut runtime, &rival).await.expect_err("the port is taken");
    assert!(error.message().contains(&port.to_string()), "{error}");
    runtime.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: pod }).await.unwrap();
    pods::run_pod(&mut runtime, &rival).await.expect("the port is free again");
    daemon.finish().await;
}

/// Addresses are unique, used up in turn, and free again; a restart forgets none.
#[tokio::test(flavor = "multi_thread")]
async fn i05_addresses() {
    let mut daemon = Daemon::start().await;
    let mut runtime = daemon.runtime().await;
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..10 {
        if n == 5 {
            daemon.kill();
            daemon.run().await;
            runtime = daemon.runtime().await;
        }
        let pod = pods::run_pod(&mut runtime, &pods::pod(&format!("p{n}"))).await.unwrap();
        assert!(seen.insert(ip_of(&mut runtime, &pod).await.ip), "an address was given twice");
    }
    daemon.finish().await;
}

fn cni_flags(dir: &std::path::Path) -> Vec<String> {
    let conf = dir.join("net.d");
    std::fs::create_dir_all(&conf).unwrap();
    let path = |p: std::path::PathBuf| p.display().to_string();
    vec!["--network".into(), "cni".into(), "--cni-conf-dir".into(), path(conf), "--cni-bin-dir".into(), path(cache("cni"))]
}

/// CNI with Debian's plugins: not ready without a configuration, ready once there is one, and everything is given back.
#[tokio::test(flavor = "multi_thread")]
async fn cni_plugins() {
    let dir = tempfile::tempdir().unwrap();
    let flags = cni_flags(dir.path());
    let daemon = Daemon::with(&flags.iter().map(String::as_str).collect::<Vec<_>>(), &[]).await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let ready = async |runtime: &mut Runtime| {
        let status = runtime.status(cri::StatusRequest::default()).await.unwrap().into_inner().status.unwrap();
        status.conditions.into_iter().find(|c| c.r#type == "NetworkReady").unwrap()
    };
    let condition = ready(&mut runtime).await;
    assert!(!condition.status && !condition.message.is_empty(), "{condition:?}");
    assert!(pods::run_pod(&mut runtime, &pods::pod("early")).await.is_err());
    let leases = dir.path().join("leases");
    let name = format!("itcni{}", std::process::id() % 10_000);
    let conf = serde_json::json!({
        "cniVersion": "1.0.0", "name": "it", "plugins": [{
            "type": "bridge", "bridge": name, "isGateway": true,
            "ipam": {"type": "host-local", "dataDir": leases, "ranges": [[{"subnet": "10.99.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }],
    });
    std::fs::write(dir.path().join("net.d/10-it.conflist"), conf.to_string()).unwrap();
    for _ in 0..100 {
        if ready(&mut runtime).await.status {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let config = pods::pod("late");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap_or_else(|e| panic!("{e}\n{}", daemon.log()));
    let ip = ip_of(&mut runtime, &pod).await.ip;
    assert!(ip.starts_with("10.99.0."), "{ip}");
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    assert!(pods::exec(&mut runtime, &id, &["ip", "-4", "addr", "show", "eth0"]).await.1.contains(&ip));
    // DEL uses the configuration that ADD used.
    std::fs::remove_file(dir.path().join("net.d/10-it.conflist")).unwrap();
    runtime.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: pod }).await.unwrap();
    let left = std::fs::read_dir(leases.join("it"))
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("10."))
        .count();
    assert_eq!(left, 0, "the lease is given back");
    std::process::Command::new("ip").args(["link", "del", &name]).status().unwrap();
    daemon.finish().await;
}

/// F-30, F-31: a plugin that fails at ADD leaves no pod; one that fails at DEL is asked again until it succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn f30_f31_failing_plugins() {
    let dir = tempfile::tempdir().unwrap();
    let mut flags = cni_flags(dir.path());
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    *flags.last_mut().unwrap() = bin.display().to_string();
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let plugin = format!(
        "#!/bin/sh\nS={}\necho $CNI_COMMAND >>$S/calls\ncase $CNI_COMMAND in\nVERSION) echo '{{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"1.0.0\"]}}';;\n\
         ADD) [ ! -e $S/fail-add ] || {{ echo '{{\"cniVersion\":\"1.0.0\",\"code\":7,\"msg\":\"add says no\"}}'; exit 1; }}\n\
         echo '{{\"cniVersion\":\"1.0.0\",\"ips\":[{{\"address\":\"10.98.0.5/24\"}}]}}';;\n\
         DEL) [ ! -e $S/fail-del ] || {{ echo 'del says no' >&2; exit 1; }};;\nesac\n",
        state.display()
    );
    let path = bin.join("it");
    std::fs::write(&path, plugin).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(dir.path().join("net.d/1.conflist"), r#"{"cniVersion":"1.0.0","name":"it","plugins":[{"type":"it"}]}"#).unwrap();
    let daemon = Daemon::with(&flags.iter().map(String::as_str).collect::<Vec<_>>(), &[]).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::pod("p");
    std::fs::write(state.join("fail-add"), "").unwrap();
    let error = pods::run_pod(&mut runtime, &config).await.expect_err("ADD fails");
    assert!(error.message().contains("add says no"), "{error}");
    crate::check::nothing_left(&daemon);
    assert_eq!(std::fs::read_to_string(state.join("calls")).unwrap().lines().filter(|l| *l == "DEL").count(), 1);
    std::fs::remove_file(state.join("fail-add")).unwrap();
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    assert_eq!(ip_of(&mut runtime, &pod).await.ip, "10.98.0.5");
    std::fs::write(state.join("fail-del"), "").unwrap();
    for _ in 0..2 {
        let stop = runtime.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await;
        assert!(stop.expect_err("DEL is owed").message().contains("del says no"));
    }
    assert!(daemon.crictl_ok(&["pods"]).contains("NotReady"));
    std::fs::remove_file(state.join("fail-del")).unwrap();
    runtime.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: pod }).await.expect("paid at last");
    daemon.finish().await;
}
