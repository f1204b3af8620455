//! The daemon dies, the machine reboots, the disk fills: nothing is lost that should not be, nothing pretends to run.

use std::time::Duration;

use api::runtime as cri;

use crate::{
    check,
    daemon::Daemon,
    pods::{self, BUSYBOX, Runtime},
};

async fn pod_state(runtime: &mut Runtime, pod: &str) -> cri::PodSandboxStatus {
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: false };
    runtime.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap()
}

/// A killed daemon: containers run on, no log line is lost, exits meanwhile are reported, ids and labels stay.
#[tokio::test(flavor = "multi_thread")]
async fn f01_a_killed_daemon_loses_nothing() {
    let mut daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let mut config = pods::pod("survivor");
    config.log_directory = daemon.dir.path().join("logs").display().to_string();
    config.labels = pods::labels(&[("k\u{e9}y", " v\n ")]).into_iter().collect();
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let counting = pods::container("counting", BUSYBOX, "i=0; while true; do i=$((i+1)); echo $i; sleep 0.005; done");
    let counting = pods::run(&mut runtime, &pod, &config, &counting).await;
    let ending = pods::run(&mut runtime, &pod, &config, &pods::container("ending", BUSYBOX, "sleep 0.5; exit 7")).await;
    let created =
        pods::create(&mut runtime, &pod, &config, &pods::container("created", BUSYBOX, "echo late; exit 3")).await.unwrap();
    let before = pod_state(&mut runtime, &pod).await;
    let status_before = pods::status(&mut runtime, &counting).await;

    for round in 0..3 {
        daemon.kill();
        tokio::time::sleep(Duration::from_millis(if round == 0 { 800 } else { 50 })).await;
        let started = std::time::Instant::now();
        daemon.run().await;
        runtime = daemon.runtime().await;
        assert!(started.elapsed() < Duration::from_secs(60), "kubelets wait a minute for a runtime");
        assert_eq!(pod_state(&mut runtime, &pod).await, before);
        assert_eq!(pods::status(&mut runtime, &counting).await, status_before);
        let ended = pods::status(&mut runtime, &ending).await;
        assert_eq!((ended.state(), ended.exit_code), (cri::ContainerState::ContainerExited, 7));
        assert!(ended.finished_at > ended.started_at);
    }
    pods::start(&mut runtime, &created).await.expect("a container created before the crash starts after it");
    assert_eq!(pods::wait_exit(&mut runtime, &created).await.exit_code, 3);
    assert_eq!(pods::exec(&mut runtime, &counting, &["echo", "alive"]).await.1, "alive");

    runtime.stop_container(cri::StopContainerRequest { container_id: counting, timeout: 0 }).await.unwrap();
    let text = pods::log_text(&daemon.dir.path().join("logs/counting.log"));
    let numbers: Vec<u64> = text.lines().map(|l| l.parse().unwrap()).collect();
    assert!(numbers.len() > 100);
    assert!(numbers.iter().zip(1..).all(|(n, i)| *n == i), "a line is missing");
    daemon.finish().await;
}

/// F-02: SIGKILL again and again while pods come and go.
#[tokio::test(flavor = "multi_thread")]
async fn f02_kill_loop_under_churn() {
    let mut daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    for round in 0..8 {
        let mut runtime = daemon.runtime().await;
        let mut jobs = tokio::task::JoinSet::new();
        for n in 0..4 {
            let mut runtime = runtime.clone();
            jobs.spawn(async move {
                let config = pods::pod(&format!("churn-{round}-{n}"));
                let pod = pods::run_pod(&mut runtime, &config).await?;
                let id = pods::create(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "sleep 1000")).await?;
                pods::start(&mut runtime, &id).await?;
                runtime.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await?;
                runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: pod }).await
            });
        }
        tokio::time::sleep(Duration::from_millis(5 + 23 * round)).await;
        daemon.kill();
        jobs.join_all().await;
        daemon.run().await;
        runtime = daemon.runtime().await;
        // What is listed is whole: every ready pod has an address and takes a container.
        for pod in runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await.unwrap().into_inner().items {
            let status = pod_state(&mut runtime, &pod.id).await;
            if status.state() == cri::PodSandboxState::SandboxReady {
                assert!(!status.network.unwrap().ip.is_empty());
            }
        }
    }
    daemon.finish().await;
}

/// F-06: a killed supervisor takes its pod down, and only its own.
#[tokio::test(flavor = "multi_thread")]
async fn f06_a_killed_supervisor_takes_its_pod_down() {
    let mut daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let (config, other) = (pods::pod("victim"), pods::pod("bystander"));
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    let shim = check::shims(&daemon)[0];
    let bystander = pods::run_pod(&mut runtime, &other).await.unwrap();
    let alive = pods::run(&mut runtime, &bystander, &other, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    for daemon_lives in [true, false] {
        if daemon_lives {
            let pid = rustix::process::Pid::from_raw(shim).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        } else {
            daemon.kill();
            daemon.run().await;
            runtime = daemon.runtime().await;
        }
        let ended = pods::wait_exit(&mut runtime, &id).await;
        assert_eq!(ended.exit_code, 137);
        for _ in 0..100 {
            if pod_state(&mut runtime, &pod).await.state() == cri::PodSandboxState::SandboxNotready {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(pod_state(&mut runtime, &pod).await.state(), cri::PodSandboxState::SandboxNotready);
        assert_eq!(pods::exec(&mut runtime, &alive, &["echo", "alive"]).await.1, "alive");
    }
    runtime.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await.unwrap();
    assert!(
        pods::create(&mut runtime, &pod, &config, &pods::container("d", BUSYBOX, "true")).await.is_err(),
        "a stopped pod is never reused"
    );
    daemon.finish().await;
}

/// F-11: a reboot, as the daemon sees it: nothing runs, /run is empty, another boot id in the records.
#[tokio::test(flavor = "multi_thread")]
async fn f11_after_a_reboot_nothing_pretends_to_run() {
    let mut daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::pod("rebooted");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    daemon.kill();
    check::kill_everything(&daemon);
    check::unmount_shm(&daemon);
    std::fs::remove_dir_all(daemon.run_dir()).unwrap();
    daemon.run().await;
    runtime = daemon.runtime().await;
    assert_eq!(pod_state(&mut runtime, &pod).await.state(), cri::PodSandboxState::SandboxNotready);
    assert_eq!(pods::status(&mut runtime, &id).await.state(), cri::ContainerState::ContainerExited);
    let mut again = config.clone();
    again.metadata.as_mut().unwrap().attempt = 1;
    let fresh = pods::run_pod(&mut runtime, &again).await.expect("the next attempt runs");
    pods::run(&mut runtime, &fresh, &again, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    daemon.finish().await;
}

/// A pod whose record is lost: its supervisor is ended wherever its cgroup is, and nobody is left that cannot be reached.
#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_without_a_record_is_ended() {
    let mut daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let mut config = pods::pod("unknown");
    config.linux.as_mut().unwrap().cgroup_parent = daemon.parent_below("named");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    daemon.kill();
    std::fs::remove_file(daemon.root().join("records/pods").join(&pod)).unwrap();
    daemon.run().await;
    assert_eq!(check::shims(&daemon), [0; 0], "{}", daemon.log());
    assert!(!daemon.run_dir().join("pods").join(&pod).exists());
    // The named parent is the client's, and with it the empty groups in it.
    for root in check::cgroup_roots() {
        let named = root.join(daemon.cgroup.trim_start_matches('/')).join("named");
        std::fs::remove_dir(named.join(format!("creel-{pod}"))).ok();
        std::fs::remove_dir(named).ok();
    }
    daemon.finish().await;
}

/// A second daemon on the same root is refused and says why; a stale socket is no obstacle.
#[tokio::test(flavor = "multi_thread")]
async fn one_daemon_per_root_and_stale_sockets() {
    let mut daemon = Daemon::start().await;
    let mut second = std::process::Command::new(crate::daemon::bin("creeld"));
    let root = daemon.root().display().to_string();
    let run = daemon.dir.path().join("run2").display().to_string();
    let socket = daemon.dir.path().join("second.sock").display().to_string();
    let output = second.args(["--root", &root, "--run", &run, "--socket", &socket, "--network", "bridge"]).output().unwrap();
    assert!(!output.status.success());
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(&root) && text.contains(&daemon.pid().to_string()), "{text}");
    let mut third = std::process::Command::new(crate::daemon::bin("creeld"));
    let root3 = daemon.dir.path().join("root3").display().to_string();
    let socket = daemon.socket().display().to_string();
    let output = third.args(["--root", &root3, "--run", &run, "--socket", &socket, "--network", "bridge"]).output().unwrap();
    assert!(!output.status.success(), "a socket that somebody serves is not taken over");
    daemon.kill();
    assert!(daemon.socket().exists(), "a crash leaves the socket");
    daemon.run().await;
    daemon.finish().await;
}

/// F-25: a damaged database is put aside; what can be rebuilt is, and a pull heals the rest.
#[tokio::test(flavor = "multi_thread")]
async fn f25_a_damaged_database_has_a_defined_outcome() {
    let mut daemon = Daemon::start().await;
    let id = pods::pull(&daemon, BUSYBOX).await;
    daemon.terminate();
    let database =
        std::fs::read_dir(daemon.root()).unwrap().flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "redb"));
    let database = database.expect("a database");
    std::fs::write(&database, b"garbage").unwrap();
    daemon.run().await;
    assert!(daemon.log().contains("database"), "{}", daemon.log());
    assert_eq!(pods::pull(&daemon, BUSYBOX).await, id);
    daemon.finish().await;
}

/// F-20: a full disk is said so; running containers, stopping and removing go on.
#[tokio::test(flavor = "multi_thread")]
async fn f20_a_full_disk_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk");
    let point = dir.path().join("mnt");
    std::fs::create_dir(&point).unwrap();
    let sh = |script: String| std::process::Command::new("bash").args(["-ec", &script]).status().unwrap().success();
    let mounted = sh(format!("truncate -s 160M {0}; mkfs.ext4 -q {0}; mount -o loop {0} {1}", image.display(), point.display()));
    assert!(mounted, "a loop device");
    let root = point.join("root").display().to_string();
    let daemon = Daemon::with(&["--root", &root], &[]).await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod("full");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    sh(format!("dd if=/dev/zero of={}/filler bs=1M 2>/dev/null; sync", point.display()));
    let request = cri::PullImageRequest { image: Some(pods::spec("docker.io/library/nginx:latest")), ..Default::default() };
    let error = daemon.images().await.pull_image(request.clone()).await.expect_err("no room");
    assert_eq!(error.code(), tonic::Code::ResourceExhausted, "{error}");
    assert_eq!(pods::exec(&mut runtime, &id, &["echo", "alive"]).await.1, "alive");
    runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: pod }).await.expect("removal needs no room");
    daemon
        .images()
        .await
        .remove_image(cri::RemoveImageRequest { image: Some(pods::spec(BUSYBOX)) })
        .await
        .expect("removal needs no room");
    std::fs::remove_file(point.join("filler")).unwrap();
    daemon.images().await.pull_image(request).await.expect("room again");
    daemon.finish().await;
    assert!(sh(format!("umount {}", point.display())));
}
