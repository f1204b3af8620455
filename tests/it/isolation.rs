//! What a container cannot do or see, through CRI: EX-14 to EX-25 and EX-27 of the security tests, as far as they are not
//! tested beside the code (users EX-16 to EX-18 in `engine::spec::user`, profiles EX-22 in `seccomp`).

use std::os::unix::fs::PermissionsExt;

use api::runtime as cri;

use crate::{
    daemon::Daemon,
    pods::{self, BUSYBOX, Runtime},
};

struct Ground {
    daemon: Daemon,
    runtime: Runtime,
    config: cri::PodSandboxConfig,
    pod: String,
}

impl Ground {
    async fn new(name: &str) -> Self {
        Self::with(name, &[]).await
    }

    async fn with(name: &str, env: &[(&str, &str)]) -> Self {
        let daemon = Daemon::with(&[], env).await;
        pods::pull(&daemon, BUSYBOX).await;
        let mut runtime = daemon.runtime().await;
        let config = pods::pod(name);
        let pod = pods::run_pod(&mut runtime, &config).await.expect("run pod");
        Self { daemon, runtime, config, pod }
    }

    async fn run(&mut self, container: &cri::ContainerConfig) -> String {
        pods::run(&mut self.runtime, &self.pod, &self.config, container).await
    }

    /// A container that is refused: the reason.
    async fn refused(&mut self, container: &cri::ContainerConfig) -> tonic::Status {
        match pods::create(&mut self.runtime, &self.pod, &self.config, container).await {
            Err(error) => error,
            Ok(_) => panic!("{:?} was created", container.metadata),
        }
    }

    async fn sh(&mut self, id: &str, script: &str) -> (i32, String, String) {
        pods::exec(&mut self.runtime, id, &["sh", "-c", script]).await
    }
}

fn sleeper(name: &str) -> cri::ContainerConfig {
    pods::container(name, BUSYBOX, "sleep 100000")
}

fn security(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

fn number(value: i64) -> Option<cri::Int64Value> {
    Some(cri::Int64Value { value })
}

fn field<'s>(status: &'s str, name: &str) -> &'s str {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
}

/// EX-14: every way to start a process, every kind of user and set; and a program with capabilities of its own.
#[tokio::test(flavor = "multi_thread")]
async fn ex_14_capabilities() {
    let mut ground = Ground::new("caps").await;
    let programs = tempfile::tempdir_in(ground.daemon.dir.path()).unwrap();
    std::fs::set_permissions(programs.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (default, none, admin) = ("00000000a80425fb", "0000000000000000", "0000000000001000");
    let drop_all = |add: &[&str]| {
        let add_capabilities = add.iter().map(ToString::to_string).collect();
        Some(cri::Capability { add_capabilities, drop_capabilities: vec!["ALL".into()], ..Default::default() })
    };
    for (name, uid, capabilities, effective, bounding) in [
        ("root", 0, None, default, default),
        ("user", 1000, None, none, default),
        ("root-none", 0, drop_all(&[]), none, none),
        ("user-none", 1000, drop_all(&[]), none, none),
        ("root-one", 0, drop_all(&["NET_ADMIN"]), admin, admin),
        ("user-one", 1000, drop_all(&["NET_ADMIN"]), none, admin),
    ] {
        let mut container = sleeper(name);
        container.mounts = vec![cri::Mount {
            container_path: "/programs".into(),
            host_path: programs.path().display().to_string(),
            ..Default::default()
        }];
        (security(&mut container).run_as_user, security(&mut container).capabilities) = (number(uid), capabilities);
        let id = ground.run(&container).await;
        for (who, file) in [("main", "/proc/1/status"), ("exec", "/proc/self/status")] {
            let status = pods::exec(&mut ground.runtime, &id, &["cat", file]).await.1;
            let sets = ["CapInh", "CapAmb", "CapPrm", "CapEff", "CapBnd"].map(|set| field(&status, set));
            assert_eq!(sets, [none, none, effective, effective, bounding], "{name}, {who}");
        }
        if programs.path().join("cat").exists() {
            // Its own capabilities: what is not in the bounding set or inherited is not gained.
            let status = pods::exec(&mut ground.runtime, &id, &["/programs/cat", "/proc/self/status"]).await.1;
            let permitted = u64::from_str_radix(field(&status, "CapPrm"), 16).unwrap();
            assert_eq!(permitted & !u64::from_str_radix(bounding, 16).unwrap(), 0, "{name}: {permitted:x}");
        } else {
            // The first container brings the program; it is given capabilities from outside.
            let copied = pods::exec(&mut ground.runtime, &id, &["cp", "/bin/busybox", "/programs/cat"]).await;
            assert_eq!(copied.0, 0, "{copied:?}");
            give_capabilities(&programs.path().join("cat"));
        }
    }
    ground.daemon.finish().await;
}

/// SYS_ADMIN and SYS_MODULE, permitted and inheritable (struct vfs_cap_data, version 2, of linux/capability.h).
fn give_capabilities(path: &std::path::Path) {
    let wanted: u32 = (1 << 21) | (1 << 16);
    let data: Vec<u8> = [0x0200_0000_u32, wanted, wanted, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    rustix::fs::setxattr(path, "security.capability", &data, rustix::fs::XattrFlags::empty()).unwrap();
}

/// EX-15: whoever is in a group is held to what the group may not do.
#[tokio::test(flavor = "multi_thread")]
async fn ex_15_groups() {
    let mut ground = Ground::new("groups").await;
    let shared = tempfile::tempdir_in(ground.daemon.dir.path()).unwrap();
    std::fs::set_permissions(shared.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = shared.path().join("not-for-1234");
    std::fs::write(&file, "secret").unwrap();
    std::os::unix::fs::chown(&file, Some(0), Some(1234)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o604)).unwrap();
    for (name, gid, extra, readable) in
        [("primary", 1234, vec![5], false), ("extra", 5, vec![1234], false), ("other", 5, vec![6], true)]
    {
        let mut container = sleeper(name);
        container.mounts = vec![cri::Mount {
            container_path: "/shared".into(),
            host_path: shared.path().display().to_string(),
            ..Default::default()
        }];
        let context = security(&mut container);
        (context.run_as_user, context.run_as_group, context.supplemental_groups) = (number(1000), number(gid), extra.clone());
        let id = ground.run(&container).await;
        let (code, text, _) = ground.sh(&id, "id -G; cat /shared/not-for-1234").await;
        assert_eq!(code == 0, readable, "{name}: {text}");
        let groups: Vec<i64> = text.lines().next().unwrap().split(' ').map(|group| group.parse().unwrap()).collect();
        let mut expected = [vec![gid], extra].concat();
        expected.sort_unstable();
        let mut sorted = groups.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected, "{name}: the daemon's groups, or one missing");
    }
    ground.daemon.finish().await;
}

/// EX-16, EX-18: users and names that are not what they seem.
#[tokio::test(flavor = "multi_thread")]
async fn ex_16_ex_18_hostile_words() {
    let mut ground = Ground::new("words").await;
    for uid in [-1, 1 << 32, (1 << 32) - 1, i64::MAX, i64::MIN] {
        let mut container = sleeper("user");
        security(&mut container).run_as_user = number(uid);
        assert_eq!(ground.refused(&container).await.code(), tonic::Code::InvalidArgument, "{uid}");
    }
    for user in ["0x0", "+0", " 0", "0 ", "\u{ff11}", "99999999999999999999", "a:b:c", "root\nroot2", "no-such-user", "4294967296"]
    {
        let mut container = sleeper("user");
        security(&mut container).run_as_username = user.into();
        let error = ground.refused(&container).await;
        assert!(
            matches!(error.code(), tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition | tonic::Code::NotFound),
            "{user:?}: {error}"
        );
    }
    for home in ["/root\nevil::0:0::/:/bin/sh", "/a\rb"] {
        let mut container = sleeper("home");
        container.envs = vec![cri::KeyValue { key: "HOME".into(), value: home.into() }];
        ground.refused(&container).await;
    }
    for (number, hostname) in ["a\nb", "a b", "a\0b", "-a", "\u{2028}", &"x".repeat(300)].into_iter().enumerate() {
        let config = cri::PodSandboxConfig { hostname: hostname.into(), ..pods::pod(&format!("host-{number}")) };
        let error = pods::run_pod(&mut ground.runtime, &config).await.expect_err(hostname);
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{hostname:?}: {error}");
    }
    let dns = |servers: &[&str], searches: &[&str]| cri::DnsConfig {
        servers: servers.iter().map(ToString::to_string).collect(),
        searches: searches.iter().map(ToString::to_string).collect(),
        options: Vec::new(),
    };
    for (number, dns) in [dns(&["10.0.0.1\nnameserver 6.6.6.6"], &[]), dns(&[], &["a\nnameserver 6.6.6.6"]), dns(&["x y"], &[])]
        .into_iter()
        .enumerate()
    {
        let config = cri::PodSandboxConfig { dns_config: Some(dns.clone()), ..pods::pod(&format!("dns-{number}")) };
        let error = pods::run_pod(&mut ground.runtime, &config).await.expect_err("hostile DNS");
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{dns:?}: {error}");
    }
    ground.daemon.finish().await;
}

/// EX-19: a process has its image's and its client's environment and nothing of the daemon's or of another container's.
#[tokio::test(flavor = "multi_thread")]
async fn ex_19_environments() {
    let mut ground = Ground::with("environments", &[("SENTINEL", "of the daemon"), ("LD_PRELOAD_TEST", "x")]).await;
    let variable = |key: &str, value: &str| vec![cri::KeyValue { key: key.into(), value: value.into() }];
    let mut ids = Vec::new();
    for name in ["first", "second"] {
        let mut container = sleeper(name);
        container.envs = variable(&name.to_uppercase(), "own");
        ids.push((name, ground.run(&container).await));
    }
    for (name, id) in &ids {
        let script = "cat /proc/1/environ | tr '\\0' '\\n'; echo --; env";
        let (_, text, _) = ground.sh(id, script).await;
        for part in text.split("--") {
            let names: Vec<_> = part.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
            assert!(names.contains(&name.to_uppercase().as_str()), "{name}: {names:?}");
            let other = if *name == "first" { "SECOND" } else { "FIRST" };
            let strange: Vec<_> = ["SENTINEL", "LD_PRELOAD_TEST", "RUST_BACKTRACE", "CREEL_BIN", other]
                .into_iter()
                .filter(|n| names.contains(n))
                .collect();
            assert!(strange.is_empty(), "{name}: {strange:?}");
        }
    }
    for key in ["", "=x", "A=B", "A\0"] {
        let mut container = sleeper("bad");
        container.envs = variable(key, "x");
        assert_eq!(ground.refused(&container).await.code(), tonic::Code::InvalidArgument, "{key:?}");
    }
    ground.daemon.finish().await;
}

/// EX-20: sysctls of the pod's own namespaces, and no others.
#[tokio::test(flavor = "multi_thread")]
async fn ex_20_sysctls() {
    let mut ground = Ground::new("sysctls").await;
    let before = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let set = |config: &mut cri::PodSandboxConfig, key: &str, value: &str| {
        config.linux.as_mut().unwrap().sysctls = [(key.to_owned(), value.to_owned())].into_iter().collect();
    };
    for (number, (key, value)) in [
        ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x"),
        ("kernel.shm_rmid_forced=1+kernel.core_pattern", "|/x"),
        ("kernel.core_pattern", "|/x"),
        ("net/../kernel/core_pattern", "|/x"),
        ("net..ipv4", "1"),
        ("kernel.domainname", "x"),
        ("vm.swappiness", "1"),
        ("net.ipv4.ip_forward", "1\n0"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut config = pods::pod(&format!("bad-{number}"));
        set(&mut config, key, value);
        pods::run_pod(&mut ground.runtime, &config).await.expect_err(key);
    }
    let mut host = pods::host_pod("on-the-host");
    set(&mut host, "net.ipv4.ip_forward", "1");
    assert_eq!(pods::run_pod(&mut ground.runtime, &host).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let mut ipc = pods::pod("host-ipc");
    ipc.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options.as_mut().unwrap().ipc =
        cri::NamespaceMode::Node.into();
    set(&mut ipc, "kernel.msgmax", "4242");
    assert_eq!(pods::run_pod(&mut ground.runtime, &ipc).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
    let mut good = pods::pod("good");
    set(&mut good, "net.ipv4.ip_local_port_range", "4000 5000");
    let pod = pods::run_pod(&mut ground.runtime, &good).await.unwrap();
    let id = pods::run(&mut ground.runtime, &pod, &good, &sleeper("c")).await;
    let range = ground.sh(&id, "cat /proc/sys/net/ipv4/ip_local_port_range").await.1;
    assert_eq!(range.split_whitespace().collect::<Vec<_>>(), ["4000", "5000"]);
    ground.daemon.finish().await;
}

/// EX-21: what others take as commands is text to us.
#[tokio::test(flavor = "multi_thread")]
async fn ex_21_annotations_are_text() {
    let mut ground = Ground::new("annotations").await;
    let magic = [
        ("io.containerd.runc.v2.group", "x"),
        ("containerd.io/restart.loguri", "binary:///bin/sh"),
        ("io.kubernetes.cri.untrusted-workload", "true"),
        ("io.kubernetes.cri-o.Devices", "/dev/sda:/dev/sda:rwm"),
        ("io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw", "true"),
        ("io.kubernetes.cri-o.userns-mode", "auto"),
        ("cpu-quota.crio.io", "disable"),
        ("org.systemd.property.ExecStart", "'/bin/sh'"),
        ("run.oci.keep_original_groups", "1"),
        ("run.oci.seccomp_fail_unknown_syscall", "0"),
        ("run.oci.mount_context_type", "context"),
        ("module.wasm.image/variant", "compat"),
        ("cdi.k8s.io/vendor", "vendor.com/device=all"),
        ("io.podman.annotations.privileged", "TRUE"),
        ("io.podman.annotations.checkpoint.runtime.name", "runc"),
        ("creel.name", "privileged"),
        ("creel.privileged", "true"),
        ("container.apparmor.security.beta.kubernetes.io/c", "unconfined"),
        ("seccomp.security.alpha.kubernetes.io/pod", "unconfined"),
    ];
    let mut seen = Vec::new();
    for (name, annotations) in [("plain", &[][..]), ("magic", &magic[..])] {
        let mut config = pods::pod(name);
        config.annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let pod = pods::run_pod(&mut ground.runtime, &config).await.unwrap();
        let mut container = sleeper("c");
        container.annotations.clone_from(&config.annotations);
        let id = pods::run(&mut ground.runtime, &pod, &config, &container).await;
        let look = "grep -E '^(Cap|Uid|Gid|Groups|NoNewPrivs|Seccomp)' /proc/1/status; ls -l /dev | awk '{print $1,$NF}'; \
                    awk '{print $4,$5,$6}' /proc/1/mountinfo | sed 's,/tmp/[^ ]*,HOST,;s,[0-9a-f]\\{64\\},ID,g' | sort; env | sort | grep -v HOSTNAME";
        seen.push(ground.sh(&id, look).await.1);
        let status = pods::status(&mut ground.runtime, &id).await;
        assert_eq!(status.annotations, container.annotations, "{name}: kept as they are");
    }
    assert_eq!(seen[0], seen[1]);
    ground.daemon.finish().await;
}

/// EX-22: profiles that are not there are refused, never left out.
#[tokio::test(flavor = "multi_thread")]
async fn ex_22_profiles_that_are_not_there() {
    let mut ground = Ground::new("profiles").await;
    let localhost = cri::security_profile::ProfileType::Localhost.into();
    for reference in ["", "missing.json", "../../etc/passwd", "/nonexistent/profile.json", "relative/profile.json", "/etc/passwd"] {
        let mut container = sleeper("c");
        security(&mut container).seccomp = Some(cri::SecurityProfile { profile_type: localhost, localhost_ref: reference.into() });
        ground.refused(&container).await;
    }
    let mut container = sleeper("default");
    security(&mut container).seccomp = Some(cri::SecurityProfile::default());
    let id = ground.run(&container).await;
    for script in ["mount -t tmpfs x /tmp", "unshare -U true", "chroot / true && swapon /x", "nsenter -t 1 -m true"] {
        assert_ne!(ground.sh(&id, script).await.0, 0, "{script}");
    }
    ground.daemon.finish().await;
}

/// EX-23, EX-24: what a kubelet asks to be hidden is, and cgroups are to look at.
#[tokio::test(flavor = "multi_thread")]
async fn ex_23_ex_24_hidden_paths_and_cgroups() {
    let mut ground = Ground::new("hidden").await;
    let mut container = sleeper("c");
    security(&mut container).masked_paths =
        ["/proc/interrupts", "/proc/keys", "/sys/firmware", "/proc/none"].map(Into::into).to_vec();
    security(&mut container).readonly_paths = ["/proc/sys", "/proc/bus", "/proc/sysrq-trigger"].map(Into::into).to_vec();
    let id = ground.run(&container).await;
    assert_eq!(ground.sh(&id, "cat /proc/interrupts /proc/keys | wc -c; ls -A /sys/firmware | wc -l").await.1, "0\n0");
    for script in [
        "echo 1 > /proc/sys/kernel/panic",
        "echo h > /proc/sysrq-trigger",
        "umount /proc/interrupts",
        "rm -f /proc/interrupts",
        "find /sys/fs/cgroup -name release_agent | head -n1 | xargs -r sh -c 'echo /x > $0'",
        "echo 1 > /sys/fs/cgroup/pids/cgroup.procs || echo 1 > /sys/fs/cgroup/cgroup.procs",
        "mkdir /sys/fs/cgroup/memory/escape || mkdir /sys/fs/cgroup/escape",
        "echo a > /sys/fs/cgroup/devices/devices.allow",
    ] {
        let (code, out, _) = ground.sh(&id, script).await;
        assert!(code != 0 || script.starts_with("find") && out.is_empty(), "{script} worked");
    }
    ground.daemon.finish().await;
}

/// EX-25: no devices but the harmless ones, made or mounted.
#[tokio::test(flavor = "multi_thread")]
async fn ex_25_devices() {
    let mut ground = Ground::new("devices").await;
    let id = ground.run(&sleeper("c")).await;
    let (_, nodes, _) = ground.sh(&id, "find /dev -type b -o -type c | sort").await;
    let nodes: Vec<_> = nodes.lines().filter(|node| !node.starts_with("/dev/pts/")).collect();
    assert_eq!(nodes, ["/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"]);
    // A node can be made, as everywhere in the field; it opens nothing.
    for (node, kind) in [("sda", "b 8 0"), ("mem", "c 1 1"), ("kmsg", "c 1 11"), ("kvm", "c 10 232"), ("loop", "c 10 237")] {
        let (code, _, _) = ground.sh(&id, &format!("mknod /tmp/{node} {kind} && head -c 1 /tmp/{node}")).await;
        assert_ne!(code, 0, "{node} opens");
    }
    let volume = tempfile::tempdir_in(ground.daemon.dir.path()).unwrap();
    let mut container = sleeper("volume");
    container.mounts =
        vec![cri::Mount { container_path: "/v".into(), host_path: volume.path().display().to_string(), ..Default::default() }];
    let id = ground.run(&container).await;
    let (code, _, _) = ground.sh(&id, "mknod /v/null c 1 5 && head -c 1 /v/mem && mknod /v/mem c 1 1").await;
    assert_ne!(code, 0);
    for host_path in ["/dev/../etc/passwd", "/etc/passwd", "relative", "/dev/none", ""] {
        let mut container = sleeper("bad");
        container.devices =
            vec![cri::Device { container_path: "/dev/x".into(), host_path: host_path.into(), permissions: "rwm".into() }];
        ground.refused(&container).await;
    }
    for permissions in ["x", "rwmx", "r w"] {
        let mut container = sleeper("bad");
        container.devices =
            vec![cri::Device { container_path: "/dev/x".into(), host_path: "/dev/null".into(), permissions: permissions.into() }];
        ground.refused(&container).await;
    }
    ground.daemon.finish().await;
}

/// EX-27: a pod's shared memory has an end, outlives the container that filled it, and not the pod.
#[tokio::test(flavor = "multi_thread")]
async fn ex_27_shared_memory() {
    let mut ground = Ground::new("shm").await;
    let filler = pods::container("filler", BUSYBOX, "dd if=/dev/zero of=/dev/shm/fill bs=1M; exit 0");
    let id = ground.run(&filler).await;
    assert_eq!(pods::wait_exit(&mut ground.runtime, &id).await.exit_code, 0);
    let looker = ground.run(&sleeper("looker")).await;
    let size: u64 = ground.sh(&looker, "stat -c %s /dev/shm/fill").await.1.parse().unwrap();
    assert_eq!(size, 64 << 20, "shm_size");
    assert_ne!(ground.sh(&looker, "echo more > /dev/shm/more").await.0, 0);
    assert!(!std::path::Path::new("/dev/shm/fill").exists(), "the pod's, not the node's");
    // Another pod has its own.
    let config = pods::pod("other");
    let pod = pods::run_pod(&mut ground.runtime, &config).await.unwrap();
    let other = pods::run(&mut ground.runtime, &pod, &config, &sleeper("other")).await;
    assert_eq!(ground.sh(&other, "ls -A /dev/shm | wc -l").await.1, "0");
    ground.daemon.finish().await;
}
