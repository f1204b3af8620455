//! Whole plans: golden ones, what annotations must not change, exec.

use std::{fs, os::fd::AsFd, path::PathBuf};

use model::{
    ExecId,
    container::{BindMount, ContainerKey, EnvVar, Propagation, SeccompSpec, SecuritySpec},
    plan::{Capabilities, Rlimit},
    pod::{PodKey, PodNamespaces},
};

use super::*;

pub(crate) fn pod() -> PodSpec {
    PodSpec {
        key: PodKey { namespace: "ns".into(), name: "web".into(), uid: "u".into(), attempt: 0 },
        hostname: "web-0".into(),
        namespaces: PodNamespaces { pid: NamespaceMode::Container, ..Default::default() },
        ..PodSpec::default()
    }
}

pub(super) fn security() -> SecuritySpec {
    SecuritySpec {
        masked_paths: Vec::new(),
        readonly_paths: Vec::new(),
        seccomp: SeccompSpec::Unconfined,
        ..crate::user::confined()
    }
}

pub(crate) fn container() -> ContainerSpec {
    ContainerSpec {
        key: ContainerKey { name: "app".into(), attempt: 0 },
        image: "busybox".into(),
        user_specified_image: String::new(),
        command: Vec::new(),
        args: Vec::new(),
        working_dir: String::new(),
        envs: Vec::new(),
        mounts: Vec::new(),
        devices: Vec::new(),
        labels: Default::default(),
        annotations: Default::default(),
        log_path: String::new(),
        stdin: false,
        stdin_once: false,
        tty: false,
        stop_signal: None,
        resources: Resources::default(),
        security: security(),
        image_annotations: Default::default(),
        image_volumes: Vec::new(),
        block_io_class: None,
        rdt_class: None,
        cdi_devices: Vec::new(),
        own: None,
    }
}

/// The plan of a container of a small image with a shell.
pub(crate) fn container_plan_of(spec: &ContainerSpec) -> ContainerPlan {
    Setting::new().plan(&pod(), spec).unwrap().plan
}

struct Setting {
    home: tempfile::TempDir,
    image: ImageDefaults,
}

impl Setting {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("root/etc")).unwrap();
        fs::create_dir_all(home.path().join("root/data")).unwrap();
        fs::write(home.path().join("root/data/seed"), "x").unwrap();
        fs::write(home.path().join("root/etc/passwd"), "root:x:0:0::/root:\nweb:x:1000:1000::/srv:\n").unwrap();
        let image = ImageDefaults {
            env: vec!["PATH=/bin".into(), "LANG=C".into()],
            cmd: vec!["/bin/sh".into()],
            user: "web".into(),
            working_dir: "/srv".into(),
            stop_signal: "SIGQUIT".into(),
            volumes: vec!["/data".into()],
            ..Default::default()
        };
        Self { home, image }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn plan(&self, pod: &PodSpec, container: &ContainerSpec) -> Result<Prepared, Error> {
        let root = fs::File::open(self.path("root")).unwrap();
        let volumes = self.path("volumes");
        fs::remove_dir_all(&volumes).ok();
        container_plan(&ContainerRequest {
            id: ContainerId::from_bytes([3; 32]),
            pod,
            pod_id: PodId::from_bytes([4; 32]),
            pod_dir: std::path::Path::new("/run/creel/pods/x"),
            pod_cgroup: "/kubepods/podX",
            container,
            image: &self.image,
            rootfs: root.as_fd(),
            volumes: &volumes,
            pids_limit: 4096,
        })
    }
}

#[test]
fn a_golden_plan() {
    let setting = Setting::new();
    let mut spec = container();
    spec.envs = vec![EnvVar { name: "LANG".into(), value: b"de".to_vec().into() }];
    spec.security.masked_paths = vec!["/proc/kcore".into()];
    spec.resources.oom_score_adj = Some(999);
    let prepared = setting.plan(&pod(), &spec).unwrap();
    let ProcessPlan { args, env, cwd, uid, gid, groups, capabilities, rlimits, seccomp, .. } = prepared.plan.process.clone();
    let env: Vec<_> = env.into_iter().map(|string| String::from_utf8(string.into()).unwrap()).collect();
    assert_eq!((args, cwd.as_str()), (vec!["/bin/sh".to_owned()], "/srv"));
    assert_eq!(env, ["PATH=/bin", "HOSTNAME=web-0", "HOME=/srv", "LANG=de"]);
    assert_eq!((uid, gid, groups, seccomp), (1000, 1000, vec![1000], None));
    let default = caps::default_set() & caps::available().unwrap();
    assert_eq!(capabilities, Capabilities { bounding: default, permitted: default, ambient: 0 });
    assert!(matches!(rlimits.as_slice(), [Rlimit { resource: 7, .. }]));
    assert_eq!(prepared.plan.process.oom_score_adj, Some(999));
    assert_eq!(setting.plan(&pod(), &container()).unwrap().plan.process.oom_score_adj, Some(0), "never the supervisor's");
    assert_eq!(prepared.plan.cgroup, format!("/kubepods/podX/{}", "03".repeat(32)));
    assert_eq!(prepared.plan.masked_paths, ["/proc/kcore"]);
    assert_eq!(prepared.resources.pids_limit, Some(4096));
    assert_eq!(prepared.stop_signal.to_string(), "SIGQUIT");
    assert_eq!(prepared.user, ResolvedUser { uid: 1000, gid: 1000, groups: vec![1000], home: "/srv".into() });
    assert_eq!(fs::read_to_string(prepared.volumes[0].source.join("seed")).unwrap(), "x");
    let bytes = minicbor::to_vec(&prepared.plan).unwrap();
    assert_eq!(minicbor::decode::<ContainerPlan>(&bytes).unwrap(), prepared.plan);
}

#[test]
fn a_golden_pod_plan() {
    let mut spec = pod();
    spec.sysctls = [("net.core.somaxconn".to_owned(), "1024".to_owned())].into();
    let plan = pod_plan(&spec, "/k/creel-x", 64 << 20).unwrap();
    assert_eq!(
        plan,
        PodPlan {
            own_network: true,
            own_ipc: true,
            hostname: Some("web-0".into()),
            shared_pid: false,
            sysctls: spec.sysctls.clone(),
            shm_size: 64 << 20,
            cgroup: "/k/creel-x".into(),
            userns: None,
            domainname: None,
            joined: None,
            mount_label: None,
        }
    );
    spec.namespaces = PodNamespaces { network: NamespaceMode::Node, pid: NamespaceMode::Pod, ipc: NamespaceMode::Node };
    assert!(pod_plan(&spec, "/k", 1).is_err(), "a network sysctl on the host's network");
    spec.sysctls.clear();
    let plan = pod_plan(&spec, "/k", 1).unwrap();
    assert_eq!((plan.own_network, plan.own_ipc, plan.hostname, plan.shared_pid), (false, false, None, true));
    spec.namespaces.ipc = NamespaceMode::Container;
    assert!(pod_plan(&spec, "/k", 1).is_err());
}

#[test]
fn privileged_is_everything_but_only_in_a_privileged_pod() {
    let setting = Setting::new();
    let mut spec = container();
    spec.security.privileged = true;
    spec.security.seccomp = SeccompSpec::RuntimeDefault;
    spec.security.masked_paths = vec!["/proc/kcore".into()];
    assert!(matches!(setting.plan(&pod(), &spec).unwrap_err(), Error::Privileged));
    let plan = setting.plan(&PodSpec { privileged: true, ..pod() }, &spec).unwrap().plan;
    assert_eq!(plan.process.capabilities.bounding, caps::available().unwrap());
    assert_eq!((plan.process.seccomp, plan.masked_paths.len(), plan.own_cgroup_namespace), (None, 0, false));
}

#[test]
fn pid_namespaces_must_be_there() {
    let setting = Setting::new();
    let mut spec = container();
    spec.security.pid = PidMode::Pod;
    assert!(setting.plan(&pod(), &spec).is_err());
    let mut shared = pod();
    shared.namespaces.pid = NamespaceMode::Pod;
    assert_eq!(setting.plan(&shared, &spec).unwrap().plan.pid, PidMode::Pod);
}

#[test]
fn a_log_needs_both_parts() {
    let setting = Setting::new();
    let logs = setting.path("logs");
    let spec = ContainerSpec { log_path: "app/0.log".into(), ..container() };
    assert_eq!(setting.plan(&pod(), &spec).unwrap().plan.log_path, None);
    let with = PodSpec { log_directory: logs.to_str().unwrap().into(), ..pod() };
    assert_eq!(setting.plan(&with, &spec).unwrap().plan.log_path, Some(logs.join("app/0.log").to_str().unwrap().to_owned()));
    assert!(logs.join("app").is_dir());
}

#[test]
fn the_signal_is_the_clients_or_the_images() {
    let mut setting = Setting::new();
    let spec = ContainerSpec { stop_signal: Some(Signal::KILL), ..container() };
    assert_eq!(setting.plan(&pod(), &spec).unwrap().stop_signal, Signal::KILL);
    setting.image.stop_signal = "SIGNOPE".into();
    assert!(matches!(setting.plan(&pod(), &container()).unwrap_err(), Error::StopSignal(_)));
    setting.image.stop_signal.clear();
    assert_eq!(setting.plan(&pod(), &container()).unwrap().stop_signal, Signal::TERM);
}

/// Keys that other engines act on, and one that looks like ours.
const MAGIC: [&str; 24] = [
    "containerd.io/restart.loguri",
    "containerd.io/restart.status",
    "containerd.io/snapshot/uidmapping",
    "containerd.io/gc.root",
    "io.containerd.image.source",
    "io.kubernetes.cri.container-type",
    "io.kubernetes.cri.sandbox-id",
    "io.kubernetes.cri.untrusted-workload",
    "io.kubernetes.cri-o.Annotations",
    "io.kubernetes.cri-o.userns-mode",
    "io.kubernetes.cri-o.Devices",
    "io.kubernetes.cri-o.ShmSize",
    "cpu-load-balancing.crio.io",
    "irq-load-balancing.crio.io",
    "seccomp-profile.kubernetes.cri-o.io",
    "org.systemd.property.ExecStartPre",
    "run.oci.keep_original_groups",
    "run.oci.mount_context_type",
    "cdi.k8s.io/vendor",
    "io.podman.annotations.privileged",
    "io.podman.annotations.seccomp",
    "container.seccomp.security.alpha.kubernetes.io/app",
    "container.apparmor.security.beta.kubernetes.io/app",
    "creel.io/privileged",
];

#[test]
fn ex_21_labels_and_annotations_change_nothing() {
    let mut setting = Setting::new();
    let (plain_pod, plain) = (pod(), container());
    let expected = setting.plan(&plain_pod, &plain).unwrap();
    let expected_pod = pod_plan(&plain_pod, "/k", 1).unwrap();
    for value in ["true", "unconfined", "/", "binary:///bin/sh?x", "*", "0:0:1\n", "ALL"] {
        let map: std::collections::BTreeMap<_, _> = MAGIC.iter().map(|key| ((*key).to_owned(), value.to_owned())).collect();
        let magic_pod = PodSpec { labels: map.clone(), annotations: map.clone(), ..plain_pod.clone() };
        let magic =
            ContainerSpec { labels: map.clone(), annotations: map.clone(), image_annotations: map.clone(), ..plain.clone() };
        setting.image.labels = map;
        let got = setting.plan(&magic_pod, &magic).unwrap();
        assert_eq!(minicbor::to_vec(&got.plan).unwrap(), minicbor::to_vec(&expected.plan).unwrap(), "{value}");
        assert_eq!((&got.user, &got.resources, got.stop_signal), (&expected.user, &expected.resources, expected.stop_signal));
        assert_eq!(pod_plan(&magic_pod, "/k", 1).unwrap(), expected_pod);
    }
}

#[test]
fn ex_14_an_exec_has_what_the_container_has() {
    let mut spec = container();
    spec.security.drop_capabilities = vec!["ALL".into()];
    spec.security.seccomp = SeccompSpec::RuntimeDefault;
    spec.security.no_new_privs = true;
    spec.tty = true;
    let plan = container_plan_of(&spec);
    let id = ExecId::from_bytes([9; 32]);
    let exec = exec_plan(&plan, id, vec!["id".into(), "-G".into()]).unwrap();
    assert_eq!(exec.process, ProcessPlan { args: vec!["id".into(), "-G".into()], tty: false, ..plan.process.clone() });
    assert_eq!(exec.process.capabilities, Capabilities::default());
    assert_eq!((exec.container, exec.cgroup), (plan.id, format!("{}/exec-{}", plan.cgroup, "09".repeat(32))));
    let terminal = exec_plan_with_terminal(&container_plan_of(&container()), id, vec!["sh".into()]).unwrap();
    assert!(terminal.process.tty && terminal.process.env.iter().any(|string| string.as_slice() == b"TERM=xterm"));
    for bad in [vec![], vec![String::new()], vec!["a".into(), "\0".into()]] {
        assert!(exec_plan(&plan, id, bad).is_err());
    }
}

#[test]
fn ex_12_large_requests_are_refused_in_words() {
    let setting = Setting::new();
    let mount = |at: usize| BindMount {
        container_path: format!("/m{at}"),
        host_path: "/tmp".into(),
        readonly: true,
        recursive_read_only: false,
        propagation: Propagation::Private,
        selinux_relabel: false,
        mount_options: Vec::new(),
        idmap: None,
    };
    let many = ContainerSpec { mounts: (0..10_000).map(mount).collect(), ..container() };
    let long = ContainerSpec { working_dir: format!("/{}", "a".repeat(65_536)), ..container() };
    for spec in [many, long] {
        let error = setting.plan(&pod(), &spec).unwrap_err();
        assert!(error.to_string().len() < 500, "{error}");
        assert_eq!(error.kind(), model::ErrorKind::InvalidArgument);
    }
}
