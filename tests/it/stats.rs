//! What containers and pods use, as a kubelet reads it: metrics, statistics, limits that change, and who ran out of memory.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    time::Duration,
};

use api::runtime as cri;

use crate::{
    daemon::Daemon,
    pods::{self, BUSYBOX, Runtime},
};

/// A daemon with busybox and one pod on the built-in bridge.
async fn ground(name: &str) -> (Daemon, Runtime, cri::PodSandboxConfig, String) {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::pod(name);
    let pod = pods::run_pod(&mut runtime, &config).await.expect("run pod");
    (daemon, runtime, config, pod)
}

fn resources(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerResources {
    config.linux.as_mut().unwrap().resources.get_or_insert_default()
}

/// A file of a cgroup, in whichever hierarchy has it.
fn cgroup_file(path: &str, file: &str) -> Option<String> {
    let at = |root: &PathBuf| std::fs::read_to_string(root.join(path.trim_start_matches('/')).join(file)).ok();
    crate::check::cgroup_roots().iter().find_map(at).map(|text| text.trim().to_owned())
}

fn is_v2() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_described_and_say_what_is_used() {
    let (daemon, mut runtime, config, pod) = ground("metrics").await;
    let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo x > /file; sync; sleep 1000";
    let mut container = pods::container("busy", BUSYBOX, script);
    resources(&mut container).memory_limit_in_bytes = 64 << 20;
    resources(&mut container).cpu_shares = 512;
    let id = pods::run(&mut runtime, &pod, &config, &container).await;
    pods::exec(&mut runtime, &id, &["true"]).await;

    let described = runtime.list_metric_descriptors(cri::ListMetricDescriptorsRequest {}).await.unwrap().into_inner().descriptors;
    let keys: BTreeMap<_, _> = described.iter().map(|d| (d.name.clone(), d.label_keys.clone())).collect();
    assert_eq!(keys.len(), described.len(), "no name twice");
    let listed = runtime.list_pod_sandbox_metrics(cri::ListPodSandboxMetricsRequest {}).await.unwrap().into_inner().pod_metrics;
    let one = listed.iter().find(|metrics| metrics.pod_sandbox_id == pod).expect("the pod");
    let of_container = &one.container_metrics.iter().find(|metrics| metrics.container_id == id).expect("the container").metrics;
    let mut series = HashSet::new();
    for metric in one.metrics.iter().chain(of_container) {
        let keys = keys.get(&metric.name).unwrap_or_else(|| panic!("{} is not described", metric.name));
        assert_eq!(keys.len(), metric.label_values.len(), "{}", metric.name);
        assert!(metric.value.is_some() && metric.timestamp == 0, "{metric:?}");
        assert!(series.insert((metric.name.clone(), metric.label_values.clone())), "twice: {metric:?}");
    }
    let value =
        |name: &str| of_container.iter().find(|m| m.name == name).unwrap_or_else(|| panic!("no {name}")).value.unwrap().value;
    assert_eq!(value("container_spec_memory_limit_bytes"), 64 << 20);
    assert_eq!(value("container_spec_cpu_shares"), 512);
    assert_eq!(value("container_oom_events_total"), 0);
    assert!(value("container_memory_usage_bytes") > 0 && value("container_memory_max_usage_bytes") > 0);
    assert!(value("container_processes") >= 1 && value("container_file_descriptors") >= 3);
    assert_eq!(value("container_ulimits_soft"), 1024);
    assert!(value("container_fs_usage_bytes") > 0 && value("container_fs_limit_bytes") > value("container_fs_usage_bytes"));
    let started = value("container_start_time_seconds");
    assert!(started > 1_600_000_000 && started <= value("container_last_seen"));
    let labels: BTreeMap<_, _> = keys["container_processes"].iter().zip(&of_container[0].label_values).collect();
    let label = |key: &str| labels[&key.to_owned()].as_str();
    assert_eq!((label("container"), label("pod"), label("namespace"), label("name")), ("busy", "metrics", "it", id.as_str()));
    assert!(label("id").ends_with(&id) && label("image").contains("busybox"));
    assert!(one.metrics.iter().any(|m| m.name == "container_network_receive_bytes_total"), "the pod's network");
    assert!(of_container.iter().all(|m| !m.name.starts_with("container_network")), "which is not its containers'");

    let request = cri::StreamPodSandboxMetricsRequest {};
    let mut stream = runtime.stream_pod_sandbox_metrics(request).await.unwrap().into_inner();
    let chunk = stream.message().await.unwrap().expect("a chunk");
    assert!(chunk.pod_sandbox_metrics.iter().any(|metrics| metrics.pod_sandbox_id == pod));
    let described_again = runtime.list_metric_descriptors(cri::ListMetricDescriptorsRequest {}).await.unwrap().into_inner();
    assert_eq!(described_again.descriptors, described, "the list does not change");
    runtime.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await.unwrap();
    let listed = runtime.list_pod_sandbox_metrics(cri::ListPodSandboxMetricsRequest {}).await.unwrap().into_inner().pod_metrics;
    assert!(listed.iter().all(|metrics| metrics.pod_sandbox_id != pod), "a stopped pod uses nothing");
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_of_containers_and_pods_are_complete() {
    let (daemon, mut runtime, config, pod) = ground("figures").await;
    let script = "head -c 3000000 /dev/urandom > /big; while true; do :; done";
    let mut container = pods::container("busy", BUSYBOX, script);
    resources(&mut container).memory_limit_in_bytes = 64 << 20;
    let id = pods::run(&mut runtime, &pod, &config, &container).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let request = || cri::ContainerStatsRequest { container_id: id.clone() };
    let first = runtime.container_stats(request()).await.unwrap().into_inner().stats.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    let stats = runtime.container_stats(request()).await.unwrap().into_inner().stats.unwrap();
    let attributes = stats.attributes.as_ref().unwrap();
    assert_eq!((attributes.id.as_str(), attributes.metadata.as_ref().unwrap().name.as_str()), (id.as_str(), "busy"));
    let number = |value: &Option<cri::UInt64Value>| value.as_ref().expect("a number").value;
    let cpu = stats.cpu.as_ref().unwrap();
    let used = number(&cpu.usage_core_nano_seconds);
    assert!(used > number(&first.cpu.as_ref().unwrap().usage_core_nano_seconds) && number(&cpu.usage_nano_cores) > 0);
    let memory = stats.memory.as_ref().unwrap();
    assert!(number(&memory.working_set_bytes) <= number(&memory.usage_bytes) && number(&memory.usage_bytes) > 0);
    assert!(number(&memory.available_bytes) < 64 << 20 && number(&memory.page_faults) > 0);
    assert_eq!((memory.psi.is_some(), cpu.psi.is_some(), stats.io.is_some()), (is_v2(), is_v2(), is_v2()));
    let layer = stats.writable_layer.as_ref().unwrap();
    let mountpoint = PathBuf::from(&layer.fs_id.as_ref().unwrap().mountpoint);
    assert!(mountpoint.is_dir() && mountpoint.starts_with(daemon.root()), "{mountpoint:?}");
    assert!(number(&layer.used_bytes) >= 3_000_000 || number(&first.writable_layer.unwrap().used_bytes) < 3_000_000);

    let request = cri::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
    let linux = runtime.pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap().linux.unwrap();
    assert!(number(&linux.cpu.as_ref().unwrap().usage_core_nano_seconds) >= used);
    assert!(number(&linux.process.as_ref().unwrap().process_count) >= 2, "the supervisor and the shell");
    let interface = linux.network.as_ref().unwrap().default_interface.as_ref().unwrap();
    assert_eq!(interface.name, "eth0");
    assert_eq!(linux.containers.len(), 1);

    let fs = daemon.images().await.image_fs_info(cri::ImageFsInfoRequest {}).await.unwrap().into_inner();
    let (images, containers) = (&fs.image_filesystems[0], &fs.container_filesystems[0]);
    assert!(number(&images.used_bytes) > 0 && number(&containers.inodes_used) > 0);
    assert_eq!(containers.fs_id, layer.fs_id, "one file system, one name");
    // The figure of one that has ended is what it left.
    runtime.stop_container(cri::StopContainerRequest { container_id: id.clone(), timeout: 0 }).await.unwrap();
    let fs = daemon.images().await.image_fs_info(cri::ImageFsInfoRequest {}).await.unwrap().into_inner();
    assert!(number(&fs.container_filesystems[0].used_bytes) >= 3_000_000);
    let listed = runtime.list_container_stats(cri::ListContainerStatsRequest::default()).await.unwrap().into_inner().stats;
    assert!(listed.is_empty(), "who has ended uses nothing");
    daemon.finish().await;
}

/// A kubelet resizes a pod: our own cgroup follows, one that belongs to the client is left to the client.
#[tokio::test(flavor = "multi_thread")]
async fn pods_are_resized() {
    let (mut daemon, mut runtime, _, pod) = ground("resize").await;
    let size = |memory: i64, quota: i64| cri::LinuxContainerResources {
        memory_limit_in_bytes: memory,
        cpu_period: 100_000,
        cpu_quota: quota,
        cpu_shares: 512,
        ..Default::default()
    };
    let request = |pod: &str, resources, overhead| cri::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod.to_owned(),
        resources: Some(resources),
        overhead,
    };
    let overhead = Some(cri::LinuxContainerResources { memory_limit_in_bytes: 10 << 20, ..Default::default() });
    let own = format!("{}/{pod}", daemon.cgroup);
    let (memory, quota) = if is_v2() { ("memory.max", "cpu.max") } else { ("memory.limit_in_bytes", "cpu.cfs_quota_us") };
    for (bytes, cpu) in [(100i64 << 20, 50_000), (200 << 20, 80_000), (80 << 20, 20_000)] {
        for _ in 0..2 {
            runtime.update_pod_sandbox_resources(request(&pod, size(bytes, cpu), overhead.clone())).await.expect("resize");
        }
        assert_eq!(cgroup_file(&own, memory), Some((bytes + (10 << 20)).to_string()));
        assert!(cgroup_file(&own, quota).unwrap().starts_with(&cpu.to_string()));
    }
    let error = runtime.update_pod_sandbox_resources(request(&pod, size(1 << 20, -5), None)).await;
    assert!(error.is_ok() || error.unwrap_err().message().contains("cgroup"), "a limit below use is the kernel's to refuse");
    let mut bad = size(100 << 20, 50_000);
    bad.cpu_period = 1;
    let error = runtime.update_pod_sandbox_resources(request(&pod, bad, None)).await.expect_err("not a period");
    assert!(error.message().contains("cpu_period"), "{error}");
    let nobody = request("ffff", size(1 << 30, 1000), None);
    assert_eq!(runtime.update_pod_sandbox_resources(nobody).await.expect_err("unknown").code(), tonic::Code::NotFound);

    // A client's own cgroup: written down, and not touched.
    let parent = format!("{}/client", daemon.cgroup);
    let made: Vec<PathBuf> = crate::check::cgroup_roots().iter().map(|root| root.join(parent.trim_start_matches('/'))).collect();
    for dir in &made {
        std::fs::create_dir_all(dir).unwrap();
        // As a kubelet does: nobody can join a cpuset of v1 that has no CPUs.
        for (file, above) in ["cpuset.cpus", "cpuset.mems"].map(|file| (dir.join(file), dir.parent().unwrap().join(file))) {
            if file.exists() && !is_v2() {
                std::fs::write(file, std::fs::read_to_string(above).unwrap()).unwrap();
            }
        }
    }
    let mut theirs = pods::host_pod("theirs");
    theirs.linux.as_mut().unwrap().cgroup_parent = parent.clone();
    let other = pods::run_pod(&mut runtime, &theirs).await.unwrap();
    let before = cgroup_file(&parent, memory);
    runtime.update_pod_sandbox_resources(request(&other, size(100 << 20, 50_000), None)).await.expect("recorded");
    assert_eq!(cgroup_file(&parent, memory), before);
    let shown = async |runtime: &mut Runtime, pod: &str| {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: pod.to_owned(), verbose: true };
        let info = runtime.pod_sandbox_status(request).await.unwrap().into_inner().info;
        serde_json::from_str::<serde_json::Value>(&info["info"]).unwrap()["resources"]["memoryLimitInBytes"].as_i64()
    };
    assert_eq!(shown(&mut runtime, &other).await, Some(100 << 20));
    daemon.kill();
    daemon.run().await;
    let mut runtime = daemon.runtime().await;
    assert_eq!(shown(&mut runtime, &other).await, Some(100 << 20), "after a restart too");
    runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: other }).await.unwrap();
    made.iter().for_each(|dir| drop(std::fs::remove_dir(dir)));
    daemon.finish().await;
}

/// Every field of UpdateContainerResources, read back from the kernel; R20, EX-24.
#[tokio::test(flavor = "multi_thread")]
async fn containers_are_resized_field_by_field() {
    let (mut daemon, mut runtime, config, pod) = ground("fields").await;
    let mut container = pods::container("c", BUSYBOX, "sleep 1000");
    *resources(&mut container) = cri::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() };
    let id = pods::run(&mut runtime, &pod, &config, &container).await;
    let group = format!("{}/{pod}/{id}", daemon.cgroup);
    let update = async |runtime: &mut Runtime, linux: cri::LinuxContainerResources| {
        let request = cri::UpdateContainerResourcesRequest { container_id: id.clone(), linux: Some(linux), ..Default::default() };
        runtime.update_container_resources(request).await
    };
    // Up, down, up: v1 wants another order of its two files each time.
    for (memory, both) in [(128i64 << 20, 256i64 << 20), (32 << 20, 32 << 20), (512 << 20, 512 << 20)] {
        let linux =
            cri::LinuxContainerResources { memory_limit_in_bytes: memory, memory_swap_limit_in_bytes: both, ..Default::default() };
        update(&mut runtime, linux).await.unwrap_or_else(|e| panic!("{memory} {both}: {e}"));
        let file = if is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
        assert_eq!(cgroup_file(&group, file), Some(memory.to_string()));
        match cgroup_file(&group, if is_v2() { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" }) {
            Some(text) if is_v2() => assert_eq!(text, (both - memory).to_string()),
            Some(text) => assert_eq!(text, both.to_string()),
            None => eprintln!("SKIPPED: this kernel does not account swap"),
        }
    }
    let linux = cri::LinuxContainerResources {
        cpu_period: 50_000,
        cpu_quota: 25_000,
        cpu_shares: 2048,
        cpuset_cpus: "0".into(),
        cpuset_mems: "0".into(),
        hugepage_limits: ["64KB", "2MB", "1GB"].map(|size| cri::HugepageLimit { page_size: size.into(), limit: 0 }).into(),
        ..Default::default()
    };
    update(&mut runtime, linux).await.unwrap();
    let expected = match is_v2() {
        true => vec![("cpu.max", "25000 50000"), ("cpuset.cpus", "0"), ("cpuset.mems", "0")],
        false => vec![
            ("cpu.cfs_quota_us", "25000"),
            ("cpu.cfs_period_us", "50000"),
            ("cpu.shares", "2048"),
            ("cpuset.cpus", "0"),
            ("cpuset.mems", "0"),
        ],
    };
    for (file, value) in expected {
        assert_eq!(cgroup_file(&group, file).as_deref(), Some(value), "{file}");
    }
    let high =
        cri::LinuxContainerResources { unified: [("memory.high".to_owned(), "33554432".to_owned())].into(), ..Default::default() };
    match update(&mut runtime, high).await {
        Ok(_) => assert_eq!(cgroup_file(&group, "memory.high").as_deref(), Some("33554432")),
        Err(error) => {
            assert!(!is_v2() && error.message().contains("memory.high") && error.message().contains("cgroup v1"), "{error}")
        }
    }
    let cpus = cri::LinuxContainerResources { cpu_quota: 7_000, cpuset_cpus: "4000".into(), ..Default::default() };
    let error = update(&mut runtime, cpus).await.expect_err("no such CPU");
    assert!(error.message().contains("cpuset.cpus"), "{error}");
    let quota = cgroup_file(&group, if is_v2() { "cpu.max" } else { "cpu.cfs_quota_us" }).unwrap();
    assert!(quota.starts_with("25000"), "all or nothing: {quota}");

    let expected = async |runtime: &mut Runtime| {
        let shown = pods::status(runtime, &id).await.resources.unwrap().linux.unwrap();
        assert_eq!((shown.memory_limit_in_bytes, shown.memory_swap_limit_in_bytes), (512 << 20, 512 << 20));
        assert_eq!((shown.cpu_period, shown.cpu_quota, shown.cpu_shares), (50_000, 25_000, 2048));
        assert_eq!((shown.cpuset_cpus.as_str(), shown.cpuset_mems.as_str(), shown.hugepage_limits.len()), ("0", "0", 3));
    };
    expected(&mut runtime).await;
    daemon.kill();
    daemon.run().await;
    expected(&mut daemon.runtime().await).await;
    daemon.finish().await;
}

/// Whose memory ran out: the container's, the pod's. The node's cannot be tried here.
#[tokio::test(flavor = "multi_thread")]
async fn oom_kills_are_told_apart() {
    let (daemon, mut runtime, config, pod) = ground("scopes").await;
    let greedy = "sleep 0.2; tail /dev/zero";
    let mut own = pods::container("own", BUSYBOX, greedy);
    resources(&mut own).memory_limit_in_bytes = 20 << 20;
    let id = pods::run(&mut runtime, &pod, &config, &own).await;
    let status = pods::wait_exit(&mut runtime, &id).await;
    assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137));
    assert_eq!(status.message, "the container reached its memory limit of 20971520 bytes");

    let limit = cri::LinuxContainerResources { memory_limit_in_bytes: 40 << 20, ..Default::default() };
    let request =
        cri::UpdatePodSandboxResourcesRequest { pod_sandbox_id: pod.clone(), resources: Some(limit), ..Default::default() };
    runtime.update_pod_sandbox_resources(request).await.unwrap();
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("pods", BUSYBOX, greedy)).await;
    let status = pods::wait_exit(&mut runtime, &id).await;
    assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137));
    assert_eq!(status.message, "the pod reached its memory limit of 41943040 bytes");

    // An exit that has nothing to do with memory says nothing.
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("plain", BUSYBOX, "exit 4")).await;
    let status = pods::wait_exit(&mut runtime, &id).await;
    assert_eq!((status.reason.as_str(), status.message.as_str()), ("Error", ""));
    daemon.finish().await;
}

/// Classes of block I/O are the administrator's, RDT classes the kernel's: what is not there is refused, by name.
#[tokio::test(flavor = "multi_thread")]
async fn classes_are_asked_for_by_annotation() {
    let mut daemon = Daemon::prepare(&[], &[]);
    let file = daemon.dir.path().join("blockio.toml");
    std::fs::write(&file, "[[Classes.slow]]\nDevices = [\"/dev/[sv]d*\", \"/dev/nvme*\"]\nThrottleReadBps = \"50M\"\n").unwrap();
    let config = daemon.dir.path().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("blockio_config = \"{}\"\n{text}", file.display())).unwrap();
    daemon.run().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let mut config = pods::host_pod("classes");
    for (key, class) in [
        ("blockio.resources.beta.kubernetes.io/pod", "slow"),
        ("blockio.resources.beta.kubernetes.io/container.other", "no-such-class"),
        ("rdt.resources.beta.kubernetes.io/container.rdt", "no-such-group"),
    ] {
        config.annotations.insert(key.into(), class.into());
    }
    let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("slow", BUSYBOX, "sleep 1000")).await;
    let limits =
        cgroup_file(&format!("{}/{pod}/{id}", daemon.cgroup), if is_v2() { "io.max" } else { "blkio.throttle.read_bps_device" });
    assert!(limits.is_some_and(|text| text.contains("50000000")), "every device of the machine");
    for (name, word) in [("other", "no-such-class"), ("rdt", "no-such-group")] {
        let container = pods::container(name, BUSYBOX, "true");
        let error = pods::create(&mut runtime, &pod, &config, &container).await.expect_err(name);
        assert!(error.message().contains(word), "{error}");
    }
    daemon.finish().await;
}

/// What `crictl inspect` shows besides the status.
#[tokio::test(flavor = "multi_thread")]
async fn inspect_shows_pid_and_plan() {
    let (daemon, mut runtime, config, pod) = ground("inspect").await;
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    let shown: serde_json::Value = serde_json::from_str(&daemon.crictl_ok(&["inspect", &id])).unwrap();
    let info = &shown["info"];
    assert_eq!(info["sandboxID"], pod.as_str());
    let pid = info["pid"].as_u64().expect("a pid");
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(command, "sleep\x001000\0");
    assert_eq!(info["runtimeSpec"]["process"]["args"][0], "sh");
    assert!(info["runtimeSpec"]["linux"]["cgroupsPath"].as_str().unwrap().ends_with(&id));
    assert_eq!(info["config"]["metadata"]["name"], "c");
    let shown: serde_json::Value = serde_json::from_str(&daemon.crictl_ok(&["inspectp", &pod])).unwrap();
    assert!(std::path::Path::new(&format!("/proc/{}", shown["info"]["pid"])).exists());
    daemon.finish().await;
}

/// Many who ask at once get everything of many containers.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_containers_are_counted_for_all_who_ask() {
    const PODS: usize = 10;
    const EACH: usize = 20;
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let runtime = daemon.runtime().await;
    let made = (0..PODS).map(|number| {
        let mut runtime = runtime.clone();
        async move {
            let config = pods::host_pod(&format!("load-{number}"));
            let pod = pods::run_pod(&mut runtime, &config).await.expect("run pod");
            let mut ids = Vec::new();
            for one in 0..EACH {
                let container = pods::container(&format!("c{one}"), BUSYBOX, "exec sleep 1000");
                ids.push(pods::run(&mut runtime, &pod, &config, &container).await);
            }
            ids
        }
    });
    let mut wanted = futures_util::future::join_all(made).await.concat();
    wanted.sort_unstable();
    let asked = (0..8).map(|_| {
        let (mut runtime, wanted) = (runtime.clone(), &wanted);
        async move {
            let stats = runtime.list_container_stats(cri::ListContainerStatsRequest::default()).await.unwrap().into_inner().stats;
            let mut ids: Vec<_> = stats.iter().map(|one| one.attributes.as_ref().unwrap().id.clone()).collect();
            ids.sort_unstable();
            assert_eq!(&ids, wanted);
            assert!(stats.iter().all(|one| one.cpu.is_some() && one.memory.is_some()));
            let pods = runtime.list_pod_sandbox_stats(cri::ListPodSandboxStatsRequest::default()).await.unwrap().into_inner().stats;
            let each: Vec<_> = pods.iter().map(|pod| pod.linux.as_ref().unwrap().containers.len()).collect();
            assert_eq!(each, [EACH; PODS]);
            let request = cri::ListPodSandboxMetricsRequest::default();
            let metrics = runtime.list_pod_sandbox_metrics(request).await.unwrap().into_inner().pod_metrics;
            let each: Vec<_> = metrics.iter().map(|pod| pod.container_metrics.len()).collect();
            assert_eq!(each, [EACH; PODS]);
        }
    });
    futures_util::future::join_all(asked).await;
    daemon.finish().await;
}
