//! A whole plan as config.json, as it is.

use std::path::Path;

use model::{
    ContainerId,
    container::Propagation,
    plan::{
        Capabilities, ContainerPlan, DeviceNode, Hook, HookStage, HooksPlan, IoPriority, MountFlags, MountKind, MountPlan, PodPlan,
        ProcessPlan, Rlimit, Scheduler,
    },
    pod::PidMode,
};
use serde_json::{Value, json};
use sys::cgroup::DeviceRule;

use super::{Request, config, process};

fn a_process() -> ProcessPlan {
    ProcessPlan {
        args: vec!["sh".into(), "-c".into(), "true".into()],
        env: vec![b"PATH=/bin".to_vec().into(), "NAME=wert=ü".as_bytes().to_vec().into()],
        cwd: "/work".into(),
        uid: 1000,
        gid: 1001,
        groups: vec![1001, 2000],
        capabilities: Capabilities { bounding: 0b11, permitted: 0b11, ambient: 0b10 },
        no_new_privs: true,
        seccomp: Some(vec![0; 8].into()),
        rlimits: vec![Rlimit { resource: 7, soft: 1024, hard: u64::MAX }],
        oom_score_adj: Some(-998),
        tty: true,
        umask: Some(0o27),
        apparmor: Some("profile".into()),
        selinux: Some("u:r:t:s0".into()),
        io_priority: Some(IoPriority { class: 2, level: 3 }),
        scheduler: Some(Scheduler { policy: 1, priority: 5, flags: 1, ..Scheduler::default() }),
    }
}

fn mount(target: &str, kind: MountKind, flags: MountFlags) -> MountPlan {
    MountPlan { target: target.into(), kind, flags, idmap: None }
}

fn a_plan() -> ContainerPlan {
    let closed = MountFlags { nosuid: true, nodev: true, noexec: true, ..Default::default() };
    let readonly = MountFlags { readonly: true, ..closed };
    let bind = |propagation| MountKind::Bind { source: "/host".into(), propagation };
    let mounts = vec![
        mount("/proc", MountKind::Proc, closed),
        mount("/dev", MountKind::Dev, MountFlags { nosuid: true, ..Default::default() }),
        mount("/sys", MountKind::Sysfs, readonly),
        mount("/dev/mqueue", MountKind::Mqueue, closed),
        mount("/dev/shm", MountKind::Shm, closed),
        mount("/sys/fs/cgroup", MountKind::Cgroup, readonly),
        mount("/tmp", MountKind::Tmpfs { size: Some(4096), mode: 0o1777 }, closed),
        mount("/plain", bind(Propagation::Private), MountFlags { readonly: true, ..Default::default() }),
        mount("/in", bind(Propagation::HostToContainer), MountFlags::default()),
        mount("/both", bind(Propagation::Bidirectional), MountFlags::default()),
        mount("/rro", bind(Propagation::Private), MountFlags { readonly: true, recursive: true, ..Default::default() }),
        mount("/image", MountKind::Detached { index: 0 }, readonly),
        mount("/host-sys", MountKind::HostSysfs, closed),
    ];
    ContainerPlan {
        id: ContainerId::from_bytes([7; 32]),
        process: a_process(),
        pid: PidMode::Pod,
        readonly_rootfs: true,
        mounts,
        devices: vec![DeviceNode { path: "/dev/x".into(), block: true, major: 8, minor: 1, mode: 0o660, uid: 1, gid: 2 }],
        masked_paths: vec!["/proc/kcore".into()],
        readonly_paths: vec!["/proc/sys".into()],
        cgroup: "/kubepods/pod1/c".into(),
        own_cgroup_namespace: true,
        log_path: None,
        log_limit: None,
        stdin: false,
        stdin_once: false,
        root_propagation: Propagation::Bidirectional,
        hooks: Some(a_hooks_plan()),
        mount_label: Some("u:r:f:s0".into()),
        annotations: None,
        oci: None,
    }
}

fn a_hooks_plan() -> HooksPlan {
    let hook = |stage, path: &str| Hook { stage, path: path.into(), args: vec![path.into()], env: vec!["A=b".into()], timeout: 5 };
    let list =
        vec![hook(HookStage::Poststop, "/after"), hook(HookStage::CreateRuntime, "/one"), hook(HookStage::CreateRuntime, "/two")];
    HooksPlan { list, bundle: "/b".into(), config: Vec::new().into(), annotations: [("k".to_owned(), "v".to_owned())].into() }
}

fn a_pod() -> PodPlan {
    PodPlan {
        own_network: true,
        own_ipc: true,
        hostname: Some("p".into()),
        shared_pid: true,
        sysctls: [].into(),
        shm_size: 0,
        cgroup: "/x".into(),
        domainname: None,
        joined: None,
        mount_label: None,
        userns: None,
    }
}

fn made(plan: &ContainerPlan, pod: &PodPlan) -> Value {
    let seccomp = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    let devices = [DeviceRule::standard()[0]];
    let request = Request { plan, pod, devices: &devices, seccomp: Some(&seccomp), bundle: Path::new("/run/b") };
    config(&request).unwrap()
}

#[test]
fn a_whole_plan() {
    let mut config = made(&a_plan(), &a_pod());
    let golden: Value = serde_json::from_str(include_str!("golden.json")).unwrap();
    assert_eq!(config, golden, "{config:#}");
    // The types of the specification take it, and nothing of it is lost on them but what they do not know.
    // They spell the scheduler's flags otherwise than the specification and the runtimes do.
    config.pointer_mut("/process/scheduler/flags").unwrap().take();
    let spec: oci_spec::runtime::Spec = serde_json::from_value(config).unwrap();
    assert_eq!(spec.linux().as_ref().unwrap().namespaces().as_ref().unwrap().len(), 6);
    assert_eq!(spec.mounts().as_ref().unwrap().len(), a_plan().mounts.len() + 1);
}

#[test]
fn namespaces_of_the_host_are_not_listed() {
    let plan = ContainerPlan { pid: PidMode::Node, own_cgroup_namespace: false, ..a_plan() };
    let pod = PodPlan { own_network: false, own_ipc: false, hostname: None, ..a_pod() };
    assert_eq!(made(&plan, &pod)["linux"]["namespaces"], json!([{ "type": "mount" }]));
    let own = ContainerPlan { pid: PidMode::Container, ..plan };
    assert_eq!(made(&own, &pod)["linux"]["namespaces"], json!([{ "type": "mount" }, { "type": "pid" }]));
}

#[test]
fn a_value_that_is_no_text_is_refused_by_name() {
    let plan = ProcessPlan { env: vec![b"GOOD=1".to_vec().into(), b"BAD=\xff".to_vec().into()], ..a_process() };
    assert!(process(&plan).unwrap_err().to_string().contains("\"BAD\""));
}
