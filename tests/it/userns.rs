//! Pods with user namespaces, and what mounts can be asked for.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use api::runtime as cri;

use crate::{
    check,
    daemon::Daemon,
    pods::{self, BUSYBOX, Runtime},
};

const HOST_ID: u32 = 131_072;

fn map() -> Vec<cri::IdMapping> {
    vec![cri::IdMapping { host_id: HOST_ID, container_id: 0, length: 65_536 }]
}

fn userns() -> cri::UserNamespace {
    cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), uids: map(), gids: map() }
}

fn options(config: &mut cri::PodSandboxConfig) -> &mut cri::NamespaceOption {
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap()
}

/// A pod with a user namespace, as a kubelet asks for one.
fn pod(name: &str) -> cri::PodSandboxConfig {
    let mut config = pods::pod(name);
    options(&mut config).userns_options = Some(userns());
    config
}

fn security(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

/// A container of such a pod.
fn container(name: &str, script: &str) -> cri::ContainerConfig {
    let mut config = pods::container(name, BUSYBOX, script);
    security(&mut config).namespace_options.as_mut().unwrap().userns_options = Some(userns());
    config
}

fn mount(host: &Path, container: &str) -> cri::Mount {
    cri::Mount { host_path: host.display().to_string(), container_path: container.into(), ..Default::default() }
}

fn mapped(host: &Path, container: &str) -> cri::Mount {
    cri::Mount { uid_mappings: map(), gid_mappings: map(), ..mount(host, container) }
}

async fn pod_status(runtime: &mut Runtime, id: &str) -> cri::PodSandboxStatus {
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
    runtime.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap()
}

/// What /proc shows of the host's processes of this user.
fn processes_of(uid: u32) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let owned = entries.filter(|entry| {
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        status.contains(&format!("\nUid:\t{uid}\t"))
    });
    owned.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// KEP-127: status, ids inside and outside, network and its sysctls, files of the pod, exec, the log, the daemon's death.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_root_only_inside() {
    let mut daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let mut config = pod("inside");
    let logs = daemon.dir.path().join("logs");
    config.log_directory = logs.display().to_string();
    config.linux.as_mut().unwrap().sysctls =
        [("net.ipv4.ip_unprivileged_port_start", "80"), ("kernel.shmmni", "99")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let id = pods::run_pod(&mut runtime, &config).await.unwrap();
    let shown = pod_status(&mut runtime, &id).await.linux.unwrap().namespaces.unwrap().options.unwrap();
    assert_eq!(shown.userns_options, Some(userns()));
    let script =
        "cat /proc/self/uid_map; echo h >> /etc/hosts && echo said > /proc/self/fd/1; touch /new /dev/shm/x; exec sleep 1000";
    let main = pods::run(&mut runtime, &id, &config, &container("c", script)).await;
    let line = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for _ in 0..2 {
        let (code, out, err) = pods::exec(&mut runtime, &main, &["sh", "-c", "id -u; cat /proc/self/uid_map"]).await;
        assert_eq!((code, line(&out)), (0, line(&format!("0 0 {HOST_ID} 65536"))), "{err}");
        let (code, out, _) = pods::exec(&mut runtime, &main, &["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]).await;
        assert_eq!((code, out.as_str()), (0, "80"));
        let (_, out, _) = pods::exec(&mut runtime, &main, &["cat", "/proc/sys/kernel/shmmni"]).await;
        assert_eq!(out, "99");
        let owners =
            ["stat", "-c", "%u:%g", "/", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/dev/shm/x", "/new", "/bin/busybox"];
        let (_, out, _) = pods::exec(&mut runtime, &main, &owners).await;
        assert!(out.lines().all(|owner| owner == "0:0"), "{out}");
        let (code, _, err) = pods::exec(&mut runtime, &main, &["ping", "-c1", "-w5", "127.0.0.1"]).await;
        assert_eq!(code, 0, "{err}");
        // It lives on, and can be entered, after the daemon was killed.
        daemon.kill();
        daemon.run().await;
        runtime = daemon.runtime().await;
    }
    let text = pods::log_text(&logs.join("c.log"));
    assert_eq!(line(&text), line(&format!("0 {HOST_ID} 65536 said")));
    let upper = std::fs::read_dir(daemon.root().join("containers")).unwrap().next().unwrap().unwrap().path().join("upper");
    assert_eq!(upper.join("new").metadata().unwrap().uid(), 0, "on disk are the container's numbers");
    let cgroup = processes_of(HOST_ID)
        .iter()
        .any(|pid| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default().contains(daemon.cgroup.as_str()));
    assert!(cgroup, "EX-24: its processes are below the parent cgroup, with the host's number of its root");
    // It stops when it is told to, and another one can be made.
    runtime.stop_container(cri::StopContainerRequest { container_id: main.clone(), timeout: 0 }).await.unwrap();
    let again = pods::run(&mut runtime, &id, &config, &container("d", "id -u; exit 7")).await;
    assert_eq!(pods::wait_exit(&mut runtime, &again).await.exit_code, 7);
    daemon.finish().await;
}

/// One init for all, the container's own, another one's: each with processes that are not root outside.
#[tokio::test(flavor = "multi_thread")]
async fn every_mode_of_pid_namespaces() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let mut config = pod("shared");
    options(&mut config).pid = cri::NamespaceMode::Pod.into();
    let id = pods::run_pod(&mut runtime, &config).await.unwrap();
    let mut shared = container("a", "exec sleep 1000");
    security(&mut shared).namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Pod.into();
    let first = pods::run(&mut runtime, &id, &config, &shared).await;
    let (_, out, _) = pods::exec(&mut runtime, &first, &["sh", "-c", "cat /proc/1/uid_map; ps | grep -c 'sleep 1000'"]).await;
    assert_eq!(out.split_whitespace().next(), Some("0"), "{out}");
    let own = pods::run(&mut runtime, &id, &config, &container("b", "exec sleep 2000")).await;
    let (_, out, _) = pods::exec(&mut runtime, &own, &["ps"]).await;
    assert!(out.contains("sleep 2000") && !out.contains("sleep 1000"), "{out}");
    let mut target = container("t", "exec sleep 3000");
    let wanted = security(&mut target).namespace_options.as_mut().unwrap();
    (wanted.pid, wanted.target_id) = (cri::NamespaceMode::Target.into(), own.clone());
    let third = pods::run(&mut runtime, &id, &config, &target).await;
    let (_, out, _) = pods::exec(&mut runtime, &third, &["ps"]).await;
    assert!(out.contains("sleep 2000") && out.contains("sleep 3000") && !out.contains("sleep 1000"), "{out}");
    let mut node = container("n", "true");
    security(&mut node).namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Node.into();
    let refused = pods::create(&mut runtime, &id, &config, &node).await.unwrap_err();
    assert!(refused.message().contains("NODE: not in a pod with a user namespace"), "{refused}");
    daemon.finish().await;
}

/// KEP-5607, and pods that share nothing else with the node.
#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_network() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let features = runtime.status(cri::StatusRequest { verbose: false }).await.unwrap().into_inner();
    assert!(features.runtime_handlers.iter().any(|h| h.name.is_empty() && h.features.unwrap().user_namespaces));
    let features = features.features.unwrap();
    assert!(features.user_namespaces_host_network && features.mount_options);
    let mut config = pods::host_pod("host");
    options(&mut config).userns_options = Some(userns());
    let id = pods::run_pod(&mut runtime, &config).await.unwrap();
    let mut all = container("c", "exec sleep 1000");
    let capabilities = cri::Capability { add_capabilities: vec!["ALL".into()], ..Default::default() };
    security(&mut all).capabilities = Some(capabilities);
    let main = pods::run(&mut runtime, &id, &config, &all).await;
    let (code, out, err) = pods::exec(&mut runtime, &main, &["sh", "-c", "readlink /proc/self/ns/net; ls /sys/class/net"]).await;
    assert_eq!(code, 0, "{err}");
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert!(out.starts_with(own.to_str().unwrap()) && out.contains(&daemon.bridge), "{out}");
    for refused in [&["hostname", "x"][..], &["ip", "link", "set", "lo", "down"], &["mount", "-t", "sysfs", "x", "/tmp"]] {
        let (code, _, _) = pods::exec(&mut runtime, &main, refused).await;
        assert_ne!(code, 0, "{refused:?}");
    }
    for wrong in ["pid", "ipc"] {
        let mut config = pod(wrong);
        let node = cri::NamespaceMode::Node.into();
        if wrong == "pid" {
            options(&mut config).pid = node
        } else {
            options(&mut config).ipc = node
        }
        let refused = pods::run_pod(&mut runtime, &config).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains(&format!("namespace_options.{wrong}: NODE")), "{refused}");
    }
    daemon.finish().await;
}

/// Volumes: with the kubelet's mappings, without, where they cannot be; options; read-only with everything below (R43).
#[tokio::test(flavor = "multi_thread")]
async fn volumes_and_their_options() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pod("volumes");
    let id = pods::run_pod(&mut runtime, &config).await.unwrap();
    let volume = daemon.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("run"), "#!/bin/sh\necho ran\n").unwrap();
    std::fs::set_permissions(volume.join("run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    // Something is mounted below, which has to be read-only too.
    let below = volume.join("below");
    std::fs::create_dir(&below).unwrap();
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "below"]).arg(&below).status().unwrap();
    assert!(mounted.success());
    let mut with = container("c", "exec sleep 1000");
    let options = ["noexec", "nodev", "nosuid"].map(str::to_owned).to_vec();
    with.mounts = vec![
        mapped(&volume, "/mapped"),
        mount(&volume, "/plain"),
        cri::Mount { mount_options: options.clone(), ..mapped(&volume, "/tight") },
        cri::Mount { readonly: true, recursive_read_only: true, ..mapped(&volume, "/ro") },
        cri::Mount { readonly: true, ..mapped(&volume, "/top") },
    ];
    let main = pods::run(&mut runtime, &id, &config, &with).await;
    let shown = pods::status(&mut runtime, &main).await.mounts;
    for asked in &with.mounts {
        assert!(shown.contains(asked), "{asked:?} is not in {shown:?}");
    }
    let (_, out, _) = pods::exec(&mut runtime, &main, &["stat", "-c", "%u", "/mapped", "/plain", "/tight", "/ro"]).await;
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "65534", "0", "0"]);
    assert_eq!(pods::exec(&mut runtime, &main, &["/mapped/run"]).await.1, "ran");
    assert_ne!(pods::exec(&mut runtime, &main, &["/tight/run"]).await.0, 0);
    assert_eq!(pods::exec(&mut runtime, &main, &["touch", "/mapped/new"]).await.0, 0);
    for (path, writable) in [("/ro/new", false), ("/ro/below/new", false), ("/top/new", false), ("/top/below/new", true)] {
        let (code, _, err) = pods::exec(&mut runtime, &main, &["touch", path]).await;
        assert_eq!(code == 0, writable, "{path}: {err}");
    }
    assert_eq!(volume.join("new").metadata().unwrap().uid(), 0);
    let (_, out, _) = pods::exec(&mut runtime, &main, &["grep", " /tight ", "/proc/self/mountinfo"]).await;
    assert!(options.iter().all(|option| out.contains(option.as_str())), "{out}");
    for (code, why, bad) in [
        (tonic::Code::InvalidArgument, "\"exec\": not noexec, nodev or nosuid", {
            cri::Mount { mount_options: vec!["exec".into()], ..mount(&volume, "/x") }
        }),
        (tonic::Code::InvalidArgument, "not the mapping of the pod's user namespace", {
            let other = vec![cri::IdMapping { host_id: 7, container_id: 0, length: 65_536 }];
            cri::Mount { uid_mappings: other.clone(), gid_mappings: other, ..mount(&volume, "/x") }
        }),
        (tonic::Code::InvalidArgument, "bind \"/proc/sys/kernel\": its file system cannot show owners", {
            mapped(Path::new("/proc/sys/kernel"), "/x")
        }),
        (tonic::Code::InvalidArgument, "out of a user namespace", {
            cri::Mount { propagation: cri::MountPropagation::PropagationBidirectional.into(), ..mount(&volume, "/x") }
        }),
    ] {
        let mut config_of_it = container("bad", "true");
        config_of_it.mounts = vec![bad];
        let refused = pods::create(&mut runtime, &id, &config, &config_of_it).await.unwrap_err();
        assert!(refused.message().contains(why) || why.starts_with("out of"), "{refused}");
        assert_eq!(refused.code(), code, "{refused}");
    }
    runtime.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: id }).await.unwrap();
    assert!(std::process::Command::new("umount").arg(&below).status().unwrap().success());
    daemon.finish().await;
}

/// CR-06: what cannot be mounted, and where nothing can be.
#[tokio::test(flavor = "multi_thread")]
async fn cr06_mounts_that_are_refused() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pods::pod("cr06");
    let id = pods::run_pod(&mut runtime, &config).await.unwrap();
    let dir = daemon.dir.path().to_owned();
    std::fs::create_dir(dir.join("v")).unwrap();
    std::os::unix::fs::symlink("v", dir.join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    let refused = [
        vec![mount(Path::new("relative"), "/x")],
        vec![mount(Path::new(""), "/x")],
        vec![mount(&dir.join("v"), "relative")],
        vec![mount(&dir.join("v"), "")],
        vec![mount(&dir.join("v"), "/")],
        vec![mount(&dir.join("v"), "/x/..")],
        vec![mount(&dir.join("v"), "/proc")],
        vec![mount(&dir.join("v"), "/proc/sys")],
        vec![mount(&dir.join("v"), "/proc/../proc/self")],
        vec![mount(&dir.join("v"), "/x"), mount(&dir.join("link"), "//x/")],
        vec![cri::Mount { recursive_read_only: true, ..mount(&dir.join("v"), "/x") }],
        vec![cri::Mount { readonly: true, recursive_read_only: true, propagation: 1, ..mount(&dir.join("v"), "/x") }],
    ];
    for mounts in refused {
        let mut bad = pods::container("bad", BUSYBOX, "true");
        bad.mounts = mounts.clone();
        let error = pods::create(&mut runtime, &id, &config, &bad).await.map(drop).expect_err(&format!("{mounts:?}"));
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
    }
    let mut good = pods::container("good", BUSYBOX, "test -S /s && touch /l/f /m/f && echo -n fine");
    good.log_path = String::new();
    good.mounts = vec![mount(&dir.join("socket"), "/s"), mount(&dir.join("link"), "/l"), mount(&dir.join("missing"), "/m")];
    let main = pods::run(&mut runtime, &id, &config, &good).await;
    assert_eq!(pods::wait_exit(&mut runtime, &main).await.exit_code, 0);
    assert!(dir.join("v/f").exists() && dir.join("missing/f").exists());
    daemon.finish().await;
}

/// EX-14 with a user namespace; procMount: Unmasked; ambient capabilities; privileged.
#[tokio::test(flavor = "multi_thread")]
async fn ex14_capabilities_and_proc_mounts() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let mut config = pod("caps");
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let id = pods::run_pod(&mut runtime, &config).await.unwrap();
    const DEFAULT: u64 = 0xa804_25fb;
    const NET_BIND: u64 = 1 << 10;
    for (name, user, add, drop, ambient, [bnd, prm, amb]) in [
        ("root", 0, &[][..], &[][..], &[][..], [DEFAULT, DEFAULT, 0]),
        ("user", 1000, &[], &[], &[], [DEFAULT, 0, 0]),
        ("none", 0, &[], &["ALL"], &[], [0, 0, 0]),
        ("one", 0, &["NET_BIND_SERVICE"], &["ALL"], &[], [NET_BIND, NET_BIND, 0]),
        ("ambient", 1000, &[], &[], &["NET_BIND_SERVICE"], [DEFAULT, NET_BIND, NET_BIND]),
    ] {
        let mut one = container(name, "exec sleep 1000");
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        let context = security(&mut one);
        context.run_as_user = Some(cri::Int64Value { value: user });
        context.capabilities = Some(cri::Capability {
            add_capabilities: words(add),
            drop_capabilities: words(drop),
            add_ambient_capabilities: words(ambient),
        });
        let main = pods::run(&mut runtime, &id, &config, &one).await;
        for pid in ["1", "self"] {
            let (_, out, _) = pods::exec(&mut runtime, &main, &["grep", "Cap", &format!("/proc/{pid}/status")]).await;
            let set = |kind: &str| {
                let line = out.lines().find(|line| line.starts_with(kind)).unwrap_or_else(|| panic!("{out}"));
                u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
            };
            assert_eq!([set("CapBnd"), set("CapPrm"), set("CapAmb")], [bnd, prm, amb], "{name} {pid}: {out}");
            assert_eq!((set("CapInh"), set("CapEff")), (amb, prm), "{name} {pid}: {out}");
        }
    }
    let mut unmasked = container("unmasked", "exec sleep 1000");
    let script = "unshare -r -m -p -f sh -c 'mount -t proc x /proc && mount -t tmpfs x /mnt && echo nested'";
    security(&mut unmasked).capabilities =
        Some(cri::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() });
    // AppArmor's default profile lets nobody mount.
    let unconfined = cri::security_profile::ProfileType::Unconfined.into();
    security(&mut unmasked).apparmor = Some(cri::SecurityProfile { profile_type: unconfined, ..Default::default() });
    let main = pods::run(&mut runtime, &id, &config, &unmasked).await;
    let (code, out, err) = pods::exec(&mut runtime, &main, &["sh", "-c", &format!("mkdir -p /mnt; {script}")]).await;
    assert_eq!((code, out.as_str()), (0, "nested"), "{err}");
    // Privileged means everything inside, and nothing outside.
    let mut privileged = container("privileged", "exec sleep 1000");
    security(&mut privileged).privileged = true;
    let main = pods::run(&mut runtime, &id, &config, &privileged).await;
    let (code, out, err) = pods::exec(&mut runtime, &main, &["sh", "-c", "mkdir -p /mnt; mount -t tmpfs x /mnt && id -u"]).await;
    assert_eq!((code, out.as_str()), (0, "0"), "{err}");
    let (code, _, _) = pods::exec(&mut runtime, &main, &["sh", "-c", "echo 1 > /proc/sys/vm/drop_caches"]).await;
    assert_ne!(code, 0);
    daemon.finish().await;
}

/// What contradicts the pod, what cannot be mapped, whom nobody maps.
#[tokio::test(flavor = "multi_thread")]
async fn contradictions_are_refused() {
    let daemon = Daemon::start().await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pod("one");
    let id = pods::run_pod(&mut runtime, &config).await.unwrap();
    let plain = pods::pod("two");
    let plain_id = pods::run_pod(&mut runtime, &plain).await.unwrap();
    let node = cri::UserNamespace { mode: cri::NamespaceMode::Node.into(), ..Default::default() };
    let mut nodes = container("c", "true");
    security(&mut nodes).namespace_options.as_mut().unwrap().userns_options = Some(node);
    for (id, config, container) in [(&id, &config, nodes), (&plain_id, &plain, container("c", "true"))] {
        let refused = pods::create(&mut runtime, id, config, &container).await.unwrap_err();
        assert!(refused.message().contains("not the user namespace of the pod"), "{refused}");
    }
    let mut high = container("high", "true");
    security(&mut high).run_as_user = Some(cri::Int64Value { value: 70_000 });
    let refused = pods::create(&mut runtime, &id, &config, &high).await.unwrap_err();
    assert!(refused.message().contains("uid 70000") && refused.message().contains("too short"), "{refused}");
    daemon.finish().await;
}

/// Whatever fails on the way, nothing is left and the retry works.
#[tokio::test(flavor = "multi_thread")]
async fn failed_setups_are_undone() {
    let points = ["pod.setup=error:1", "pod.network=error:1", "ctr.userns=error:1", "ctr.process=error:1"].join(",");
    let daemon = Daemon::with(&[], &[("CREEL_FAILPOINTS", &points)]).await;
    pods::pull(&daemon, BUSYBOX).await;
    let mut runtime = daemon.runtime().await;
    let config = pod("fails");
    for step in ["pod.setup", "pod.network"] {
        let error = pods::run_pod(&mut runtime, &config).await.expect_err(step);
        assert!(error.message().contains(step), "{step}: {error}");
        check::nothing_left(&daemon);
    }
    let id = pods::run_pod(&mut runtime, &config).await.unwrap();
    for step in ["ctr.userns", "ctr.process"] {
        let error = pods::create(&mut runtime, &id, &config, &container("c", "true")).await.expect_err(step);
        assert!(error.message().contains(step), "{step}: {error}");
        assert_eq!(std::fs::read_dir(daemon.root().join("containers")).map(|d| d.count()).unwrap_or(0), 0, "{step}");
    }
    let main = pods::run(&mut runtime, &id, &config, &container("c", "exit 3")).await;
    assert_eq!(pods::wait_exit(&mut runtime, &main).await.exit_code, 3);
    daemon.finish().await;
}
