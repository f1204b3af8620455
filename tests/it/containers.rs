//! What a container config can say, and what the kernel then shows.

use std::collections::BTreeMap;

use api::runtime as cri;

use crate::{
    daemon::Daemon,
    pods::{self, BUSYBOX, Runtime},
};

/// A daemon with busybox and one pod.
async fn ground(name: &str) -> (Daemon, Runtime, cri::PodSandboxConfig, String) {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let mut config = pods::host_pod(name);
    config.log_directory = daemon.dir.path().join("logs").display().to_string();
    let pod = pods::run_pod(&mut runtime, &config).await.expect("run pod");
    (daemon, runtime, config, pod)
}

fn security(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

fn resources(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerResources {
    config.linux.as_mut().unwrap().resources.get_or_insert_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_reasons_and_times() {
    let (daemon, mut runtime, config, pod) = ground("exits").await;
    for (name, script, code, reason) in [
        ("ok", "true", 0, "Completed"),
        ("three", "exit 3", 3, "Error"),
        ("killed", "kill -9 $$", 137, "Error"),
        ("term", "kill -TERM $$; sleep 5", 143, "Error"),
    ] {
        // A process that signals itself is not the init of its PID namespace only in a shell below it.
        let script = if name == "ok" || name == "three" { script.to_owned() } else { format!("sh -c '{script}'; exit $?") };
        let id = pods::run(&mut runtime, &pod, &config, &pods::container(name, BUSYBOX, &script)).await;
        let status = pods::wait_exit(&mut runtime, &id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (code, reason), "{name}");
        assert!(
            status.created_at > 0 && status.created_at <= status.started_at && status.started_at <= status.finished_at,
            "{status:?}"
        );
        // The reference is what a registry knows, the id what ListImages says.
        assert!(status.image_ref.starts_with("docker.io/library/busybox@sha256:"), "{}", status.image_ref);
        assert!(status.image_id.starts_with("sha256:"), "{}", status.image_id);
    }
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_fails_to_start_with_the_reason() {
    let (daemon, mut runtime, config, pod) = ground("missing").await;
    let mut container = pods::container("c", BUSYBOX, "");
    container.command = vec!["no-such-program".into()];
    let id = pods::create(&mut runtime, &pod, &config, &container).await.expect("create");
    let error = pods::start(&mut runtime, &id).await.expect_err("must not start");
    assert!(error.message().contains("no-such-program"), "{error}");
    let status = pods::status(&mut runtime, &id).await;
    assert_eq!(
        (status.state(), status.exit_code, status.reason.as_str()),
        (cri::ContainerState::ContainerExited, 127, "StartError")
    );
    assert!(pods::start(&mut runtime, &id).await.is_err(), "a container starts once");
    daemon.finish().await;
}

/// EX-14, EX-15: the credentials of the process, as the kernel shows them.
#[tokio::test(flavor = "multi_thread")]
async fn ex14_ex15_credentials() {
    let (daemon, mut runtime, config, pod) = ground("creds").await;
    let default = "00000000a80425fb";
    let read = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)' /proc/self/status; sleep 1000";
    let mut cases: Vec<(&str, cri::ContainerConfig, Vec<(&str, &str)>)> = Vec::new();
    cases.push((
        "plain",
        pods::container("plain", BUSYBOX, read),
        vec![
            ("CapEff", default),
            ("CapBnd", default),
            ("CapInh", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "0"),
        ],
    ));
    let mut user = pods::container("user", BUSYBOX, read);
    security(&mut user).run_as_user = Some(cri::Int64Value { value: 1000 });
    security(&mut user).run_as_group = Some(cri::Int64Value { value: 1234 });
    security(&mut user).supplemental_groups = vec![5, 6];
    security(&mut user).no_new_privs = true;
    cases.push((
        "user",
        user,
        vec![
            ("CapEff", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
            ("CapBnd", default),
            ("Groups", "5 6 1234"),
            ("Uid", "1000\t1000\t1000\t1000"),
            ("NoNewPrivs", "1"),
        ],
    ));
    let mut dropped = pods::container("dropped", BUSYBOX, read);
    security(&mut dropped).capabilities = Some(cri::Capability {
        drop_capabilities: vec!["ALL".into()],
        add_capabilities: vec!["NET_ADMIN".into()],
        ..Default::default()
    });
    security(&mut dropped).seccomp = Some(cri::SecurityProfile { profile_type: 0, localhost_ref: String::new() });
    cases.push(("dropped", dropped, vec![("CapEff", "0000000000001000"), ("CapBnd", "0000000000001000"), ("Seccomp", "2")]));
    for (name, container, expected) in cases {
        let id = pods::run(&mut runtime, &pod, &config, &container).await;
        let (code, text, _) = pods::exec(&mut runtime, &id, &["cat", "/proc/1/status"]).await;
        let own = pods::exec(&mut runtime, &id, &["cat", "/proc/self/status"]).await.1;
        assert_eq!(code, 0);
        for (who, text) in [("main", text), ("exec", own)] {
            let fields: BTreeMap<_, _> = text.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k, v.trim())).collect();
            for (key, value) in &expected {
                assert_eq!(fields.get(key), Some(value), "{name} {who} {key}");
            }
        }
    }
    daemon.finish().await;
}

/// EX-02: no descriptor of ours is in the container; EX-22: what the default profile blocks.
#[tokio::test(flavor = "multi_thread")]
async fn ex02_descriptors_and_ex22_default_seccomp() {
    let (daemon, mut runtime, config, pod) = ground("fds").await;
    let mut container = pods::container("c", BUSYBOX, "sleep 1000");
    security(&mut container).seccomp = Some(cri::SecurityProfile { profile_type: 0, localhost_ref: String::new() });
    let id = pods::run(&mut runtime, &pod, &config, &container).await;
    let (_, fds, _) = pods::exec(&mut runtime, &id, &["ls", "/proc/1/fd"]).await;
    assert_eq!(fds.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"]);
    let (code, _, err) = pods::exec(&mut runtime, &id, &["mount", "-t", "tmpfs", "x", "/tmp"]).await;
    assert_ne!(code, 0, "mount(2) must be refused: {err}");
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_read_only_roots_masks_and_sysfs() {
    let (daemon, mut runtime, config, pod) = ground("mounts").await;
    let data = daemon.dir.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("f"), "from the host").unwrap();
    let bind = |path: &str, readonly| cri::Mount {
        container_path: path.into(),
        host_path: data.display().to_string(),
        readonly,
        ..Default::default()
    };
    let mut container = pods::container("c", BUSYBOX, "sleep 1000");
    container.mounts = vec![bind("/rw", false), bind("/ro", true)];
    security(&mut container).readonly_rootfs = true;
    security(&mut container).masked_paths = vec!["/proc/kcore".into(), "/proc/acpi".into(), "/etc/passwd".into()];
    security(&mut container).readonly_paths = vec!["/proc/sys".into()];
    let id = pods::run(&mut runtime, &pod, &config, &container).await;
    for (script, ok) in [
        ("echo x > /rw/new", true),
        ("echo x > /ro/new", false),
        ("echo x > /new", false),
        ("echo x > /dev/shm/new", true),
        ("echo 1 > /proc/sys/kernel/dmesg_restrict", false),
        ("mkdir /sys/fs/cgroup/x", false),
        ("test ! -s /etc/passwd", true),
        ("test ! -s /proc/kcore", true),
        ("test -c /dev/null && test -c /dev/tty && test -e /dev/pts/ptmx && test -L /dev/fd", true),
        ("grep -q 'from the host' /ro/f", true),
        ("touch /sys/x", false),
    ] {
        let (code, out, err) = pods::exec(&mut runtime, &id, &["sh", "-c", script]).await;
        assert_eq!(code == 0, ok, "{script}: {code} {out} {err}");
    }
    assert_eq!(std::fs::read_to_string(data.join("new")).unwrap(), "x\n");
    let status = pods::status(&mut runtime, &id).await;
    assert!(status.mounts.iter().any(|m| m.container_path == "/ro" && m.readonly), "{:?}", status.mounts);
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oom_is_reported_as_such() {
    let (daemon, mut runtime, config, pod) = ground("oom").await;
    let mut container = pods::container("c", BUSYBOX, "tail /dev/zero");
    resources(&mut container).memory_limit_in_bytes = 15 << 20;
    let id = pods::run(&mut runtime, &pod, &config, &container).await;
    let status = pods::wait_exit(&mut runtime, &id).await;
    assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137));
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_sync_times_out_and_takes_everything_with_it() {
    let (daemon, mut runtime, config, pod) = ground("execs").await;
    let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "sleep 1000")).await;
    let request = |script: &str, timeout| cri::ExecSyncRequest {
        container_id: id.clone(),
        cmd: vec!["sh".into(), "-c".into(), script.into()],
        timeout,
    };
    let error = runtime.exec_sync(request("trap '' TERM; sleep 77 & sleep 77", 1)).await.expect_err("must time out");
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded, "{error}");
    let (_, processes, _) = pods::exec(&mut runtime, &id, &["ps"]).await;
    assert!(!processes.contains("sleep 77"), "{processes}");
    // CR-01: a child in the background keeps the pipe open; the answer comes all the same.
    let answer = runtime.exec_sync(request("sleep 1000 & echo done", 10)).await.unwrap().into_inner();
    assert_eq!((answer.exit_code, String::from_utf8_lossy(&answer.stdout).trim_end()), (0, "done"));
    // A hook that starts a daemon: what a command leaves on purpose runs on, and goes with the container.
    let answer = runtime.exec_sync(request("sleep 4321 >/dev/null 2>&1 &", 10)).await.unwrap().into_inner();
    assert_eq!(answer.exit_code, 0);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(pods::exec(&mut runtime, &id, &["ps"]).await.1.contains("sleep 4321"));
    // More output than a reply may have.
    let answer =
        runtime.exec_sync(request("head -c 17000000 /dev/zero; head -c 17000000 /dev/zero >&2", 60)).await.unwrap().into_inner();
    assert!(answer.stdout.len() + answer.stderr.len() <= 15 << 20, "{} {}", answer.stdout.len(), answer.stderr.len());
    assert!(answer.stdout.ends_with(b"]\n"), "cut output is marked");
    let (code, _, err) = pods::exec(&mut runtime, &id, &["no-such-program"]).await;
    assert_eq!(code, 127, "{err}");
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_in_cri_format_with_long_lines_and_rotation() {
    let (daemon, mut runtime, config, pod) = ground("logs").await;
    let path = daemon.dir.path().join("logs/c.log");
    let script = "echo one; head -c 100000 /dev/zero | tr '\\0' x; echo; printf 'no newline'; sleep 0.2; echo; while true; do echo tick; sleep 0.05; done";
    let container = pods::container("c", BUSYBOX, script);
    let id = pods::run(&mut runtime, &pod, &config, &container).await;
    tokio::time::sleep(std::time::Duration::from_millis(800)).await;
    let text = pods::log_text(&path);
    assert!(text.starts_with("one\n") && text.contains(&"x".repeat(100_000)) && text.contains("no newline\n"), "{}", text.len());
    std::fs::rename(&path, path.with_extension("log.1")).unwrap();
    runtime.reopen_container_log(cri::ReopenContainerLogRequest { container_id: id.clone() }).await.unwrap();
    assert!(path.exists(), "exists when the call returns");
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(pods::log_text(&path).contains("tick"));
    daemon.finish().await;
}

/// What is not there yet is refused, never silently run without.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_refused() {
    let (daemon, mut runtime, config, pod) = ground("refusals").await;
    let mut cases: Vec<(&str, cri::ContainerConfig)> = Vec::new();
    let mut c = pods::container("apparmor", BUSYBOX, "true");
    security(&mut c).apparmor = Some(cri::SecurityProfile { profile_type: 2, localhost_ref: "nope".into() });
    cases.push(("apparmor", c));
    let mut c = pods::container("group", BUSYBOX, "true");
    security(&mut c).run_as_group = Some(cri::Int64Value { value: 1 });
    cases.push(("group without user", c));
    let mut c = pods::container("image", BUSYBOX, "true");
    c.mounts = vec![cri::Mount { container_path: "/i".into(), image: Some(pods::spec(BUSYBOX)), ..Default::default() }];
    cases.push(("image volume", c));
    let mut c = pods::container("rro", BUSYBOX, "true");
    c.mounts =
        vec![cri::Mount { container_path: "/i".into(), host_path: "/tmp".into(), recursive_read_only: true, ..Default::default() }];
    cases.push(("rro without readonly", c));
    let mut c = pods::container("seccomp", BUSYBOX, "true");
    security(&mut c).seccomp = Some(cri::SecurityProfile { profile_type: 2, localhost_ref: "/nonexistent.json".into() });
    cases.push(("missing seccomp profile", c));
    let mut c = pods::container("priv", BUSYBOX, "true");
    security(&mut c).privileged = true;
    cases.push(("privileged in a plain pod", c));
    let c = pods::container("noimage", "docker.io/library/never-pulled:1", "true");
    cases.push(("missing image", c));
    for (name, container) in cases {
        let error = pods::create(&mut runtime, &pod, &config, &container).await.expect_err(name);
        assert!(error.message().len() > 10, "{name}: {error}");
    }
    let mut userns = pods::pod("userns");
    let options = userns.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options.as_mut().unwrap();
    options.userns_options = Some(cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), ..Default::default() });
    assert!(pods::run_pod(&mut runtime, &userns).await.is_err());
    let mut sysctl = pods::pod("sysctl");
    sysctl.linux.as_mut().unwrap().sysctls.insert("kernel.core_pattern".into(), "|/x".into());
    assert!(pods::run_pod(&mut runtime, &sysctl).await.is_err());
    daemon.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_are_applied_updated_and_shown() {
    let (daemon, mut runtime, config, pod) = ground("resources").await;
    let mut container = pods::container("c", BUSYBOX, "sleep 1000");
    *resources(&mut container) = cri::LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        hugepage_limits: vec![cri::HugepageLimit { page_size: "2MB".into(), limit: 0 }],
        ..Default::default()
    };
    let id = pods::run(&mut runtime, &pod, &config, &container).await;
    let read = |file: &str| {
        let roots = crate::check::cgroup_roots();
        let path = |root: &std::path::PathBuf| root.join(daemon.cgroup_of(&pod).trim_start_matches('/')).join(&id).join(file);
        roots.iter().find_map(|root| std::fs::read_to_string(path(root)).ok()).map(|t| t.trim().to_owned())
    };
    let (memory, quota) =
        if read("memory.max").is_some() { ("memory.max", "cpu.max") } else { ("memory.limit_in_bytes", "cpu.cfs_quota_us") };
    assert_eq!(read(memory).as_deref(), Some("67108864"));
    assert!(read(quota).unwrap().starts_with("50000"));
    let newer = cri::LinuxContainerResources {
        memory_limit_in_bytes: 128 << 20,
        cpu_quota: 20_000,
        cpu_period: 100_000,
        ..Default::default()
    };
    let update = cri::UpdateContainerResourcesRequest { container_id: id.clone(), linux: Some(newer), ..Default::default() };
    runtime.update_container_resources(update.clone()).await.unwrap();
    runtime.update_container_resources(update).await.expect("again is fine");
    assert_eq!(read(memory).as_deref(), Some("134217728"));
    assert!(read(quota).unwrap().starts_with("20000"));
    let shown = pods::status(&mut runtime, &id).await.resources.unwrap().linux.unwrap();
    assert_eq!((shown.memory_limit_in_bytes, shown.cpu_quota, shown.cpu_shares), (128 << 20, 20_000, 512));
    daemon.finish().await;
}

/// Several containers share the pod's namespaces as asked; a shared PID namespace has an init.
#[tokio::test(flavor = "multi_thread")]
async fn namespaces_of_pod_container_node_and_target() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let mut config = pods::pod("shared");
    let options = config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options.as_mut().unwrap();
    options.pid = cri::NamespaceMode::Pod.into();
    let pod = pods::run_pod(&mut runtime, &config).await.expect("run pod");
    let with_pid = |name: &str, mode: cri::NamespaceMode, target: &str| {
        let mut c = pods::container(name, BUSYBOX, "sleep 1000");
        let options = security(&mut c).namespace_options.as_mut().unwrap();
        options.pid = mode.into();
        options.target_id = target.to_owned();
        c
    };
    let a = pods::run(&mut runtime, &pod, &config, &with_pid("a", cri::NamespaceMode::Pod, "")).await;
    let b = pods::run(&mut runtime, &pod, &config, &with_pid("b", cri::NamespaceMode::Container, "")).await;
    let c = pods::run(&mut runtime, &pod, &config, &with_pid("c", cri::NamespaceMode::Target, &b)).await;
    let link = async |runtime: &mut Runtime, id: &str, ns: &str| {
        pods::exec(runtime, id, &["stat", "-Lc", "%i", &format!("/proc/self/ns/{ns}")]).await.1
    };
    for ns in ["net", "ipc", "uts"] {
        assert_eq!(link(&mut runtime, &a, ns).await, link(&mut runtime, &b, ns).await, "{ns}");
    }
    let pids = [link(&mut runtime, &a, "pid").await, link(&mut runtime, &b, "pid").await, link(&mut runtime, &c, "pid").await];
    assert_ne!(pids[0], pids[1]);
    assert_eq!(pids[1], pids[2], "the target's");
    assert_ne!(pods::exec(&mut runtime, &a, &["sh", "-c", "echo $PPID; cat /proc/1/comm"]).await.1, "");
    assert_eq!(pods::exec(&mut runtime, &b, &["cat", "/proc/1/comm"]).await.1, "sleep");
    daemon.finish().await;
}

/// Clients may give many pods one parent: a pod that goes leaves the others in it alone, and the last takes it away.
#[tokio::test(flavor = "multi_thread")]
async fn pods_may_share_a_cgroup() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let mut made = Vec::new();
    for name in ["first", "second"] {
        let mut config = pods::pod(name);
        config.linux.as_mut().unwrap().cgroup_parent = daemon.parent_below("shared");
        let pod = pods::run_pod(&mut runtime, &config).await.unwrap();
        let id = pods::run(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "sleep 1000")).await;
        made.push((pod, id));
    }
    let request = cri::RemovePodSandboxRequest { pod_sandbox_id: made[0].0.clone() };
    runtime.remove_pod_sandbox(request).await.unwrap();
    assert_eq!(pods::exec(&mut runtime, &made[1].1, &["echo", "alive"]).await.1, "alive");
    daemon.finish().await;
}
