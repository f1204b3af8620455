//! cgroup v2 and systemd's cgroup driver, with whole containers. On a machine with cgroup v1 only the refusals can be seen;
//! hack/test-vm runs the rest.

use std::path::{Path, PathBuf};

use api::runtime as cri;

use crate::{
    daemon::{self, Daemon},
    pods::{self, BUSYBOX, Runtime},
};

async fn ground(name: &str) -> (Daemon, Runtime, cri::PodSandboxConfig, String) {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod(name);
    let pod = pods::run_pod(&mut runtime, &config).await.expect("run pod");
    (daemon, runtime, config, pod)
}

/// Whether cgroup v2 is all there is.
fn is_v2() -> bool {
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !v2 {
        eprintln!("SKIPPED: this machine has cgroup v1");
    }
    v2
}

fn at(cgroup: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(cgroup.trim_start_matches('/'))
}

fn read(file: PathBuf) -> String {
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).trim().to_owned()
}

fn resources(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerResources {
    config.linux.as_mut().unwrap().resources.get_or_insert_default()
}

/// Where systemd is not the manager or the machine has cgroup v1, its driver is refused with the reason; RuntimeConfig
/// says which driver is in force.
#[tokio::test(flavor = "multi_thread")]
async fn the_driver_is_said_and_refused_where_it_cannot_be() {
    let daemon = Daemon::start().await;
    let mut runtime = daemon.runtime().await;
    let config = runtime.runtime_config(cri::RuntimeConfigRequest {}).await.unwrap().into_inner();
    let driver = config.linux.unwrap().cgroup_driver();
    let expected = if daemon::systemd() { cri::CgroupDriver::Systemd } else { cri::CgroupDriver::Cgroupfs };
    assert_eq!(driver, expected);
    // The other driver's form of a parent.
    let mut wrong = pods::host_pod("wrong");
    let parent = if daemon::systemd() { "/kubepods/podX" } else { "kubepods-podX.slice" };
    wrong.linux.as_mut().unwrap().cgroup_parent = parent.into();
    let error = pods::run_pod(&mut runtime, &wrong).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
    assert!(error.message().contains("cgroup driver"), "{error}");
    daemon.finish().await;
    if Path::new("/run/systemd/system").exists() && is_v2() {
        return;
    }
    let mut systemd = Daemon::prepare(&["--cgroup-driver", "systemd"], &[]);
    systemd.spawn();
    systemd.wait_death();
    assert!(systemd.log().contains("the systemd cgroup driver cannot be used here: "), "{}", systemd.log());
}

/// Groups are leaves with all controllers, a container sees its own group as the root, and limits are where they belong.
#[tokio::test(flavor = "multi_thread")]
async fn groups_limits_and_the_containers_view() {
    if !is_v2() {
        return;
    }
    let (daemon, mut runtime, config, pod) = ground("limits").await;
    let mut container = pods::container("c", BUSYBOX, "sleep 1000");
    *resources(&mut container) = cri::LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        memory_swap_limit_in_bytes: 64 << 20,
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 1024,
        cpuset_cpus: "0".into(),
        unified: [("memory.oom.group", "1"), ("memory.high", "60000000")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..Default::default()
    };
    let id = pods::run(&mut runtime, &pod, &config, &container).await;
    let group = at(&daemon.cgroup_of(&pod)).join(&id);
    for (file, value) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("cpu.max", "50000 100000"),
        ("cpu.weight", "100"),
        ("cpuset.cpus", "0"),
        ("memory.oom.group", "1"),
        ("pids.max", "4096"),
    ] {
        assert_eq!(read(group.join(file)), value, "{file}");
    }
    assert!(read(group.join("memory.high")).starts_with("5999"), "whole pages");
    // No process is in a group that hands controllers down.
    let pod_group = at(&daemon.cgroup_of(&pod));
    assert_eq!(read(pod_group.join("cgroup.procs")), "");
    assert!(read(pod_group.join("cgroup.subtree_control")).contains("memory"));
    assert_eq!(pods::exec(&mut runtime, &id, &["cat", "/proc/1/cgroup"]).await.1, "0::/");
    let (_, seen, _) = pods::exec(&mut runtime, &id, &["cat", "/sys/fs/cgroup/memory.max"]).await;
    assert_eq!(seen, "67108864");
    assert_ne!(pods::exec(&mut runtime, &id, &["sh", "-c", "echo max >/sys/fs/cgroup/memory.max"]).await.0, 0, "read-only");
    // An exec has a group below, which has no controllers of its own.
    let (_, own, _) = pods::exec(&mut runtime, &id, &["cat", "/proc/self/cgroup"]).await;
    assert!(own.starts_with("0::/exec-"), "{own}");
    let stats = cri::ContainerStatsRequest { container_id: id.clone() };
    let stats = runtime.container_stats(stats).await.unwrap().into_inner().stats.unwrap();
    assert!(stats.cpu.unwrap().psi.is_some() && stats.memory.as_ref().unwrap().psi.is_some(), "pressure");
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);
    let mut bad = pods::container("bad", BUSYBOX, "true");
    resources(&mut bad).unified = [("cgroup.procs".to_owned(), "1".to_owned())].into();
    assert!(pods::create(&mut runtime, &pod, &config, &bad).await.unwrap_err().message().contains("cgroup.procs"));
    daemon.finish().await;
}

/// Devices by a BPF program; OOM by `memory.events`; everything dies by `cgroup.kill`, however it forks.
#[tokio::test(flavor = "multi_thread")]
async fn devices_oom_and_kill() {
    if !is_v2() {
        return;
    }
    let (daemon, mut runtime, config, pod) = ground("devices").await;
    let script = "mknod /tmp/null c 1 3 && echo x >/tmp/null && mknod /tmp/disk b 254 0; cat /tmp/disk";
    let mut container = pods::container("devices", BUSYBOX, "sleep 1000");
    let capabilities = cri::Capability { add_capabilities: vec!["MKNOD".into()], ..Default::default() };
    container.linux.as_mut().unwrap().security_context.as_mut().unwrap().capabilities = Some(capabilities);
    let id = pods::run(&mut runtime, &pod, &config, &container).await;
    let (code, _, said) = pods::exec(&mut runtime, &id, &["sh", "-c", script]).await;
    assert!(code != 0 && said.contains("not permitted"), "{code} {said}");
    let mut hungry = pods::container("hungry", BUSYBOX, "dd if=/dev/zero of=/dev/null bs=200M");
    resources(&mut hungry).memory_limit_in_bytes = 32 << 20;
    let hungry = pods::run(&mut runtime, &pod, &config, &hungry).await;
    let ended = pods::wait_exit(&mut runtime, &hungry).await;
    assert_eq!((ended.reason.as_str(), ended.exit_code), ("OOMKilled", 137));
    let mut bomb = pods::container("bomb", BUSYBOX, "f() { f & f & sleep 1000; }; f; wait");
    resources(&mut bomb).unified = [("pids.max".to_owned(), "200".to_owned())].into();
    let bomb = pods::run(&mut runtime, &pod, &config, &bomb).await;
    runtime.stop_container(cri::StopContainerRequest { container_id: bomb.clone(), timeout: 0 }).await.unwrap();
    let group = at(&daemon.cgroup_of(&pod)).join(&bomb);
    assert!(!group.exists() || read(group.join("cgroup.events")).contains("populated 0"));
    daemon.finish().await;
}

fn show(unit: &str, property: &str) -> String {
    let output = std::process::Command::new("systemctl").args(["show", "--value", "-p", property, unit]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A pod is a delegated scope in the slice that its client names (by its path, as a kubelet does), and is gone when the pod is; a daemon that dies does not
/// matter to it.
#[tokio::test(flavor = "multi_thread")]
async fn systemd_pods_are_scopes() {
    if !daemon::systemd() {
        eprintln!("SKIPPED: the tests run with the cgroupfs driver");
        return;
    }
    let mut daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let mut config = pods::host_pod("scope");
    let slice = daemon.parent_below("podx_1");
    config.linux.as_mut().unwrap().cgroup_parent = format!("{}/{slice}", daemon.cgroup);
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    let scope = format!("creel-{pod}.scope");
    let group = format!("{}/{slice}/{scope}", daemon.cgroup);
    for (property, value) in [
        ("ActiveState", "active"),
        ("Slice", slice.as_str()),
        ("Delegate", "yes"),
        ("ControlGroup", group.as_str()),
        ("TasksMax", "infinity"),
    ] {
        assert_eq!(show(&scope, property), value, "{property}");
    }
    assert!(read(at(&group).join(&id).join("cgroup.procs")).lines().count() > 0);
    // systemd leaves what is below the scope alone.
    std::process::Command::new("systemctl").arg("daemon-reload").status().unwrap();
    let update = cri::LinuxContainerResources { memory_limit_in_bytes: 48 << 20, ..Default::default() };
    let update = cri::UpdateContainerResourcesRequest { container_id: id.clone(), linux: Some(update), ..Default::default() };
    runtime.update_container_resources(update).await.unwrap();
    assert_eq!(read(at(&group).join(&id).join("memory.max")), (48 << 20).to_string());
    daemon.kill();
    daemon.run().await;
    runtime = daemon.runtime().await;
    assert_eq!(pods::exec(&mut runtime, &id, &["echo", "alive"]).await.1, "alive");
    runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: pod }).await.unwrap();
    assert_eq!(show(&scope, "LoadState"), "not-found");
    daemon.finish().await;
}

/// Each step of the scope's making can fail, and nothing of it is left.
#[tokio::test(flavor = "multi_thread")]
async fn systemd_scopes_that_fail_leave_nothing() {
    if !daemon::systemd() {
        eprintln!("SKIPPED: the tests run with the cgroupfs driver");
        return;
    }
    for step in ["pod.scope", "pod.setup", "pod.ready"] {
        let daemon = Daemon::with(&[], &[("CREEL_FAILPOINTS", &format!("{step}=error:1"))]).await;
        let mut runtime = daemon.runtime().await;
        pods::run_pod(&mut runtime, &pods::host_pod("fails")).await.expect_err(step);
        let units =
            std::process::Command::new("systemctl").args(["list-units", "--all", "--plain", "--no-legend"]).output().unwrap();
        let units = String::from_utf8(units.stdout).unwrap();
        let ours = daemon.cgroup.trim_matches('/').to_owned();
        assert!(
            !units.lines().any(|unit| unit.contains(".scope") && show(unit.split(' ').next().unwrap(), "Slice") == ours),
            "{units}"
        );
        daemon.finish().await;
    }
}
