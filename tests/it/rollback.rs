//! For every step of a set-up: the step fails, nothing is left, the retry works; the daemon dies there, likewise.

use crate::{
    check,
    daemon::Daemon,
    pods::{self, BUSYBOX},
};

const POD_STEPS: &[&str] =
    &["pod.record", "pod.cgroup", "pod.spawn", "pod.setup", "pod.network", "pod.network-done", "pod.files", "pod.ready"];
const CONTAINER_STEPS: &[&str] = &["ctr.rootfs", "ctr.plan", "ctr.record", "ctr.cgroup", "ctr.process", "ctr.created"];

/// Every step fails once in one daemon: the first attempt fails there, nothing is left, and so on to the last step.
#[tokio::test(flavor = "multi_thread")]
async fn every_step_of_a_pod_can_fail() {
    for step in POD_STEPS {
        let daemon = Daemon::with(&[], &[("CREEL_FAILPOINTS", &format!("{step}=error:1"))]).await;
        let mut runtime = daemon.runtime().await;
        let config = pods::pod("fails");
        let error = pods::run_pod(&mut runtime, &config).await.expect_err(step);
        assert!(error.message().contains(step), "{step}: {error}");
        check::nothing_left(&daemon);
        assert_eq!(daemon.crictl_ok(&["pods", "-q"]), "", "{step}");
        pods::run_pod(&mut runtime, &config).await.unwrap_or_else(|e| panic!("retry after {step}: {e}"));
        daemon.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_of_a_container_can_fail() {
    let points = CONTAINER_STEPS.iter().map(|step| format!("{step}=error:1")).collect::<Vec<_>>().join(",");
    let daemon = Daemon::with(&[], &[("CREEL_FAILPOINTS", &points)]).await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::pod("fails");
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let container = pods::container("c", BUSYBOX, "sleep 1000");
    for step in CONTAINER_STEPS {
        let error = pods::create(&mut runtime, &pod, &config, &container).await.expect_err(step);
        assert!(error.message().contains(step), "{step}: {error}");
        assert_eq!(daemon.crictl_ok(&["ps", "-aq"]), "", "{step}");
        let left = std::fs::read_dir(daemon.root().join("containers")).map(|d| d.count()).unwrap_or(0);
        assert_eq!(left, 0, "{step} left a writable layer");
    }
    pods::run(&mut runtime, &pod, &config, &container).await;
    daemon.finish().await;
}

/// The daemon dies at the step; the next one undoes what is half made.
#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_can_die_at_every_step() {
    for step in POD_STEPS.iter().chain(CONTAINER_STEPS) {
        let mut daemon = Daemon::prepare(&[], &[]);
        daemon.run().await;
        pods::pull(&daemon, BUSYBOX).await;
        daemon.terminate();
        daemon.set_env("CREEL_FAILPOINTS", Some(&format!("{step}=kill")));
        daemon.run().await;
        let mut runtime = daemon.runtime().await;
        let config = pods::pod("dies");
        let container = pods::container("c", BUSYBOX, "sleep 1000");
        match pods::run_pod(&mut runtime, &config).await {
            Err(_) => {}
            Ok(pod) => drop(pods::create(&mut runtime, &pod, &config, &container).await.expect_err(step)),
        }
        daemon.wait_death();
        daemon.set_env("CREEL_FAILPOINTS", None);
        daemon.run().await;
        let mut runtime = daemon.runtime().await;
        if step.starts_with("pod.") {
            check::nothing_left(&daemon);
        }
        let pod =
            pods::run_pod(&mut runtime, &config).await.unwrap_or_else(|e| panic!("retry after {step}: {e}\n{}", daemon.log()));
        pods::run(&mut runtime, &pod, &config, &container).await;
        daemon.finish().await;
    }
}

/// R45: a client that goes away and comes back gets the pod that its first call made.
#[tokio::test(flavor = "multi_thread")]
async fn cr08_a_retry_joins() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::pod("joined");
    for _ in 0..5 {
        tokio::time::timeout(std::time::Duration::from_millis(1), pods::run_pod(&mut runtime, &config)).await.ok();
    }
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let all = (0..10).map(|_| {
        let (mut runtime, config) = (runtime.clone(), config.clone());
        async move { pods::run_pod(&mut runtime, &config).await.unwrap() }
    });
    for same in futures_util::future::join_all(all).await {
        assert_eq!(same, pod);
    }
    assert_eq!(daemon.crictl_ok(&["pods", "-q"]), pod);
    let container = pods::container("c", BUSYBOX, "sleep 1000");
    let id = pods::create(&mut runtime, &pod, &config, &container).await.unwrap();
    assert_eq!(pods::create(&mut runtime, &pod, &config, &container).await.unwrap(), id);
    daemon.finish().await;
}
