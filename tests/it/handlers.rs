//! Runtime handlers that are OCI runtimes: the same containers, made by runc and crun. The whole suite can be run with one of
//! them (`CREEL_TEST_HANDLER`); here is what is different.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use api::runtime as cri;

use crate::{
    check,
    daemon::{Daemon, RUNTIMES, oci_runtime},
    pods::{self, BUSYBOX, Runtime},
};

/// Handlers that can be tested here.
fn usable() -> Vec<&'static str> {
    let usable = |name: &&&str| {
        let there = oci_runtime(name).exists();
        if !there {
            eprintln!("SKIPPED: {name} is not installed (hack/deps)");
        }
        there
    };
    RUNTIMES.iter().filter(usable).copied().collect()
}

struct Ground {
    daemon: Daemon,
    runtime: Runtime,
    config: cri::PodSandboxConfig,
    pod: String,
}

impl Ground {
    async fn new(handler: &str, name: &str) -> Self {
        Self::with(handler, pods::pod(name)).await
    }

    async fn with(handler: &str, mut config: cri::PodSandboxConfig) -> Self {
        let daemon = Daemon::start().await;
        pods::pull(&daemon, BUSYBOX).await;
        let mut runtime = daemon.runtime().await;
        config.log_directory = daemon.dir.path().join("logs").display().to_string();
        let pod = pods::run_pod_by(&mut runtime, &config, handler).await.unwrap_or_else(|e| panic!("{e}\n{}", daemon.log()));
        Self { daemon, runtime, config, pod }
    }

    async fn run(&mut self, container: &cri::ContainerConfig) -> String {
        pods::run(&mut self.runtime, &self.pod, &self.config, container).await
    }

    async fn end(&mut self, container: &cri::ContainerConfig) -> (cri::ContainerStatus, String) {
        let name = container.metadata.as_ref().unwrap().name.clone();
        let id = self.run(container).await;
        let status = pods::wait_exit(&mut self.runtime, &id).await;
        (status, pods::log_text(&self.daemon.dir.path().join(format!("logs/{name}.log"))))
    }

    /// What the supervisors of this daemon keep for runtimes.
    fn bundles(&self) -> Vec<String> {
        let dir = self.daemon.run_dir().join("pods").join(&self.pod).join("oci");
        let names = |dir: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        names(&dir).into_iter().filter(|name| name != "state").chain(names(&dir.join("state"))).collect()
    }

    /// The supervisor tells of an exit first and lets the runtime clean up then.
    async fn nothing_kept(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.bundles().is_empty() {
            assert!(Instant::now() < deadline, "kept of a container that has ended: {:?}", self.bundles());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn security(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life() {
    for handler in usable() {
        let mut ground = Ground::new(handler, "life").await;
        let (status, log) =
            ground.end(&pods::container("ends", BUSYBOX, "echo out; hostname; sleep 0.2; echo err >&2; exit 3")).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"), "{handler}");
        assert_eq!(log, "out\nlife\nerr\n", "{handler}");
        ground.nothing_kept().await;

        let id = ground.run(&pods::container("runs", BUSYBOX, "trap 'exit 5' TERM; while true; do sleep 0.05; done")).await;
        assert_eq!(ground.bundles().len(), 2, "{handler}: a bundle and a state");
        assert_eq!(
            pods::exec(&mut ground.runtime, &id, &["sh", "-c", "echo o; echo e >&2; exit 4"]).await,
            (4, "o".into(), "e".into())
        );
        let (code, _, why) = pods::exec(&mut ground.runtime, &id, &["no-such-program"]).await;
        assert!(code == 127 && why.contains("no-such-program"), "{handler}: {code} {why}");
        assert_eq!(pods::exec(&mut ground.runtime, &id, &["/etc"]).await.0, 126, "{handler}");
        ground.runtime.stop_container(cri::StopContainerRequest { container_id: id.clone(), timeout: 20 }).await.unwrap();
        assert_eq!(pods::status(&mut ground.runtime, &id).await.exit_code, 5, "{handler}");
        assert_eq!(
            ground.daemon.crictl_ok(&["inspectp", "-o", "go-template", "--template", "{{.status.runtimeHandler}}", &ground.pod]),
            handler
        );
        ground.daemon.finish().await;
    }
}

/// What a container finds is the same whoever made it, but for the owner of /dev/null, which crun gives away with standard input.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_container_as_by_the_executor() {
    // One stream: what two pipes carry may be logged in either order.
    let script = "exec 2>&1; grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups|Umask)' /proc/self/status; \
                  ulimit -n -S; ulimit -n -H; pwd; env | sort; \
                  cat /proc/self/oom_score_adj; ls -l /dev | awk '{print $1,$3,$4,$NF}' | grep -v -e ^total -e kcore -e null; \
                  ls -d /proc/kcore /proc/timer_list; \
                  cat /proc/timer_list | wc -c; touch /proc/sys/kernel/domainname; readlink /proc/1/ns/net | wc -c; \
                  awk '{print $5, $6}' /proc/self/mountinfo | grep -E '^/(data|ro|rro|proc|sys|dev|dev/shm|dev/mqueue|etc/hosts) ' | \
                  sort; touch /ro/x; touch /rro/x; touch /data/x && ls /data; mknod /tmp/n c 1 3; \
                  unshare -m true; ls /sys/fs/cgroup | head -1 | wc -l; cat /etc/hostname";
    let mut expected = String::new();
    for handler in std::iter::once("").chain(usable()) {
        let mut ground = Ground::new(handler, "same").await;
        let host = ground.daemon.dir.path().join("volume");
        for name in ["data", "ro", "rro"] {
            std::fs::create_dir_all(host.join(name)).unwrap();
            std::fs::set_permissions(host.join(name), std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let mount = |name: &str, readonly: bool, recursive: bool| cri::Mount {
            container_path: format!("/{name}"),
            host_path: host.join(name).display().to_string(),
            readonly,
            recursive_read_only: recursive,
            ..Default::default()
        };
        let mut container = pods::container("c", BUSYBOX, script);
        container.mounts = vec![mount("data", false, false), mount("ro", true, false), mount("rro", true, true)];
        container.working_dir = "/made/for/this".into();
        container.envs = vec![cri::KeyValue { key: "A".into(), value: "b c=d".into() }];
        let context = security(&mut container);
        context.run_as_user = Some(cri::Int64Value { value: 1234 });
        context.run_as_group = Some(cri::Int64Value { value: 2345 });
        context.supplemental_groups = vec![3456];
        context.no_new_privs = true;
        context.seccomp = Some(cri::SecurityProfile::default());
        context.masked_paths = vec!["/proc/timer_list".into(), "/proc/kcore".into()];
        context.readonly_paths = vec!["/proc/sys".into()];
        context.capabilities = Some(cri::Capability { drop_capabilities: vec!["KILL".into()], ..Default::default() });
        let (_, log) = ground.end(&container).await;
        if handler.is_empty() {
            expected = log;
        } else {
            assert_eq!(log, expected, "{handler}");
        }
        ground.daemon.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_fails_to_start() {
    for handler in usable() {
        let mut ground = Ground::new(handler, "missing").await;
        for (name, program, code) in [("no", "no-such-program", 127), ("dir", "/etc", 126)] {
            let mut container = pods::container(name, BUSYBOX, "");
            container.command = vec![program.into()];
            let id = pods::create(&mut ground.runtime, &ground.pod, &ground.config, &container).await.expect("create");
            let error = pods::start(&mut ground.runtime, &id).await.expect_err("must not start");
            // crun says of a directory that it is no executable, and not which.
            assert!(error.message().contains(program) || error.message().contains("executable"), "{handler}: {error}");
            let status = pods::status(&mut ground.runtime, &id).await;
            assert_eq!((status.reason.as_str(), status.exit_code), ("StartError", code), "{handler}: {status:?}");
            ground.runtime.remove_container(cri::RemoveContainerRequest { container_id: id }).await.unwrap();
        }
        ground.nothing_kept().await;
        ground.daemon.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn terminals() {
    for handler in usable() {
        let mut ground = Ground::new(handler, "tty").await;
        let mut container = pods::container("c", BUSYBOX, "test -t 0 && test -t 1 && echo terminal; stty size; sleep 1000");
        (container.tty, container.stdin) = (true, true);
        let id = ground.run(&container).await;
        let log = ground.daemon.dir.path().join("logs/c.log");
        for _ in 0..3000 {
            if pods::log_text(&log).lines().count() > 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(pods::log_text(&log).starts_with("terminal"), "{handler}: {}", pods::log_text(&log));
        // A terminal of util-linux' script for crictl, whose command gets one of its own.
        let endpoint = format!("unix://{}", ground.daemon.socket().display());
        let crictl = crate::daemon::cache("bin/crictl");
        let line = format!(
            "stty rows 33 cols 77; {} -r {endpoint} exec -it {id} sh -c 'test -t 0 && echo tty; sleep 0.3; stty size'",
            crictl.display()
        );
        let output = std::process::Command::new("script").args(["-qec", &line, "/dev/null"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        assert!(text.contains("tty\n") && text.contains("33 77"), "{handler}: {text}");
        ground.daemon.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn oom_kills_and_time_outs_and_updates() {
    for handler in usable() {
        let mut ground = Ground::new(handler, "limits").await;
        let mut container = pods::container("oom", BUSYBOX, "tail /dev/zero");
        container.linux.as_mut().unwrap().resources.get_or_insert_default().memory_limit_in_bytes = 32 << 20;
        let (status, _) = ground.end(&container).await;
        assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137), "{handler}");

        let id = ground.run(&pods::container("runs", BUSYBOX, "sleep 1000")).await;
        let request = cri::ExecSyncRequest {
            container_id: id.clone(),
            cmd: vec!["sh".into(), "-c".into(), "sleep 77 & trap '' TERM; sleep 77".into()],
            timeout: 1,
        };
        let error = ground.runtime.exec_sync(request).await.expect_err("must time out");
        assert_eq!(error.code(), tonic::Code::DeadlineExceeded, "{handler}: {error}");
        let (_, processes, _) = pods::exec(&mut ground.runtime, &id, &["ps"]).await;
        assert!(!processes.contains("sleep 77"), "{handler}: {processes}");
        let linux = cri::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() };
        let request = cri::UpdateContainerResourcesRequest { container_id: id.clone(), linux: Some(linux), ..Default::default() };
        ground.runtime.update_container_resources(request).await.unwrap();
        let stats = ground.runtime.container_stats(cri::ContainerStatsRequest { container_id: id }).await.unwrap().into_inner();
        assert!(stats.stats.unwrap().memory.unwrap().working_set_bytes.unwrap().value > 0, "{handler}");
        ground.daemon.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_and_supervisors_that_are_killed() {
    for handler in usable() {
        let mut ground = Ground::new(handler, "killed").await;
        let runs = ground.run(&pods::container("runs", BUSYBOX, "sleep 1000")).await;
        let ends = ground.run(&pods::container("ends", BUSYBOX, "sleep 0.3; exit 7")).await;
        let waits = pods::container("waits", BUSYBOX, "exit 9");
        let waits = pods::create(&mut ground.runtime, &ground.pod, &ground.config, &waits).await.unwrap();
        ground.daemon.kill();
        tokio::time::sleep(Duration::from_millis(600)).await;
        ground.daemon.run().await;
        ground.runtime = ground.daemon.runtime().await;
        assert_eq!(pods::status(&mut ground.runtime, &ends).await.exit_code, 7, "{handler}");
        assert_eq!(pods::exec(&mut ground.runtime, &runs, &["echo", "alive"]).await.1, "alive", "{handler}");
        pods::start(&mut ground.runtime, &waits).await.unwrap();
        assert_eq!(pods::wait_exit(&mut ground.runtime, &waits).await.exit_code, 9, "{handler}");

        let [shim] = check::shims(&ground.daemon)[..] else { panic!("one supervisor") };
        let shim = rustix::process::Pid::from_raw(shim).unwrap();
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
        let status = pods::wait_exit(&mut ground.runtime, &runs).await;
        assert_eq!(status.exit_code, 137, "{handler}: {status:?}");
        ground.daemon.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_pid_namespaces_and_volumes_that_mounts_travel_through() {
    for handler in usable() {
        let mut config = pods::pod("shared");
        let options = |config: &mut cri::PodSandboxConfig| {
            config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
        };
        options(&mut config);
        let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        context.namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Pod.into();
        let mut ground = Ground::with(handler, config).await;
        let host = ground.daemon.dir.path().join("travel");
        for name in ["in", "both"] {
            std::fs::create_dir_all(host.join(name).join("there")).unwrap();
        }
        let mount = |name: &str, propagation: cri::MountPropagation| cri::Mount {
            container_path: format!("/{name}"),
            host_path: host.join(name).display().to_string(),
            propagation: propagation.into(),
            ..Default::default()
        };
        let mut container = pods::container("a", BUSYBOX, "mount -t tmpfs mine /both/there && touch /both/there/seen; sleep 1000");
        container.mounts = vec![
            mount("in", cri::MountPropagation::PropagationHostToContainer),
            mount("both", cri::MountPropagation::PropagationBidirectional),
        ];
        let context = security(&mut container);
        context.privileged = true;
        context.namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Pod.into();
        let a = ground.run(&container).await;
        for _ in 0..3000 {
            if host.join("both/there/seen").exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(host.join("both/there/seen").exists(), "{handler}: a mount of the container's shows on the host");
        let there = host.join("in/there");
        rustix::mount::mount("theirs", &there, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        std::fs::write(there.join("late"), "").unwrap();
        assert_eq!(pods::exec(&mut ground.runtime, &a, &["ls", "/in/there"]).await.1, "late", "{handler}");
        let mut other = pods::container("b", BUSYBOX, "ps | grep -c 'sleep 100[0]'");
        security(&mut other).namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Pod.into();
        assert_eq!(ground.end(&other).await.1, "1\n", "{handler}: the pod's processes are seen");
        for path in [there, host.join("both/there")] {
            rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
        ground.daemon.finish().await;
    }
}

/// Whatever is wrong with a handler is said where it is asked for, by name.
#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_are_not_there_or_do_not_work() {
    let mut daemon = Daemon::prepare(&[], &[]);
    let dir = daemon.dir.path().join("config.d");
    let script = |name: &str, text: &str| {
        let path = daemon.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    };
    let failing = script(
        "failing",
        "#!/bin/sh\n[ \"$1\" = --version ] && { echo failing 1.0; exit; }\n\
         [ \"$1\" = features ] && { echo '{\"linux\":{\"mountExtensions\":{\"idmap\":{\"enabled\":true}}}}'; exit; }\nlog=$4\nfor last; do :; done\n\
         case \" $* \" in *' create '*) echo \"{\\\"level\\\":\\\"error\\\",\\\"msg\\\":\\\"no luck with $last\\\"}\" >$log; exit 1;; esac\n",
    );
    let broken = script("broken", "#!/bin/sh\nexit 3\n");
    let mute = script("mute", "#!/bin/sh\n[ \"$1\" = --version ] && { echo mute 2.0; exit; }\necho '[1'\n");
    std::fs::create_dir(&dir).unwrap();
    let text = format!(
        "[handlers.failing]\nruntime = \"{failing}\"\n[handlers.broken]\nruntime = \"{broken}\"\n[handlers.mute]\nruntime = \"{mute}\"\n\
         [handlers.gone]\nruntime = \"/nonexistent/runtime\"\n"
    );
    std::fs::write(dir.join("handlers.toml"), text).unwrap();
    daemon.run().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::host_pod("p");
    for (handler, code, words) in [
        ("kata", tonic::Code::InvalidArgument, "\"kata\": no such handler; there are [\"\", \"creel\", \"broken\""),
        ("gone", tonic::Code::Unavailable, "runtime /nonexistent/runtime: No such file"),
        ("broken", tonic::Code::Unavailable, "--version: exit status: 3"),
    ] {
        let error = pods::run_pod_by(&mut runtime, &config, handler).await.expect_err("no such pod");
        assert!(error.code() == code && error.message().contains(words), "{error}");
    }
    let status = runtime.status(cri::StatusRequest { verbose: true }).await.unwrap().into_inner();
    let names: Vec<_> = status.runtime_handlers.iter().map(|handler| handler.name.as_str()).collect();
    assert!(names.contains(&"") && names.contains(&"creel") && names.contains(&"failing"), "{names:?}");
    assert!(!names.contains(&"gone") && !names.contains(&"broken"), "{names:?}");
    let said: serde_json::Value = serde_json::from_str(&status.info["handlers"]).unwrap();
    assert_eq!(said["failing"]["version"], "failing 1.0");
    assert_eq!(said["failing"]["features"]["linux"]["mountExtensions"]["idmap"]["enabled"], true, "{said}");
    assert!(said["mute"]["version"] == "mute 2.0" && said["mute"]["features"].is_null(), "{said}");
    // A user namespace, and why not.
    let mut userns = config.clone();
    let context = userns.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    let ids = cri::IdMapping { host_id: 1 << 20, container_id: 0, length: 1 << 16 };
    context.namespace_options.as_mut().unwrap().userns_options =
        Some(cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), uids: vec![ids], gids: vec![ids] });
    for (handler, words) in [
        ("failing", "need the built-in handler: creel joins none with \"failing 1.0\""),
        ("mute", "need the built-in handler: \"mute 2.0\" does not say that it has idmapped mounts"),
    ] {
        let error = pods::run_pod_by(&mut runtime, &userns, handler).await.expect_err("no such pod");
        assert!(error.code() == tonic::Code::Unimplemented && error.message().contains(words), "{error}");
    }
    assert!(daemon.creel_ok(&["info"]).contains("no pods with runtime handler gone: runtime /nonexistent/runtime"));

    let pod = pods::run_pod_by(&mut runtime, &config, "failing").await.unwrap();
    let error =
        pods::create(&mut runtime, &pod, &config, &pods::container("c", BUSYBOX, "true")).await.expect_err("cannot be made");
    assert!(error.message().contains("run failing create: no luck with "), "{error}");
    let left: Vec<_> = std::fs::read_dir(daemon.run_dir().join("pods").join(&pod).join("oci")).unwrap().flatten().collect();
    assert!(left.iter().all(|entry| entry.file_name() == "state"), "{left:?}");
    daemon.finish().await;
}
