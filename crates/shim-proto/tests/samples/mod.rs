//! One of every message, with every field set.
#![allow(dead_code, reason = "each test binary uses some of it")]

use model::{
    ContainerId, ErrorKind, ExecId, Signal,
    checkpoint::{CapturePlan, RestorePlan},
    container::{ExitStatus, OomScope, Propagation},
    plan::{
        Capabilities, ContainerPlan, DeviceNode, ExecPlan, Hook, HookStage, HooksPlan, IoPriority, MountFlags, MountKind,
        MountPlan, OciPlan, PodPlan, ProcessPlan, Rlimit, Scheduler,
    },
    pod::PidMode,
};
use shim_proto::{
    ContainerEntry, Event, ExecEntry, ExecPlanWithStdin, Exit, ExitRecord, Failure, FdRole, REVISION, Reply, Request, Scope, State,
    Status, VERSION,
};

pub(crate) fn container() -> ContainerId {
    ContainerId::from_bytes([0xc0; 32])
}

pub(crate) fn exec() -> ExecId {
    ExecId::from_bytes([0xe0; 32])
}

pub(crate) fn exit() -> ExitStatus {
    ExitStatus { code: 137, signal: Some(Signal::KILL), oom_killed: true, ..ExitStatus::default() }
}

pub(crate) fn record() -> ExitRecord {
    ExitRecord { container: container(), pid: 42, started_at: Some(1), finished_at: 2, exit: exit(), lost_log_bytes: 3 }
}

/// One that says whose memory ran out.
fn oom() -> ExitRecord {
    let exit = ExitStatus { oom_scope: Some(OomScope::Pod), oom_limit: Some(64 << 20), ..exit() };
    ExitRecord { exit, ..record() }
}

pub(crate) fn pod_plan() -> PodPlan {
    PodPlan {
        own_network: true,
        own_ipc: true,
        hostname: Some("web-0".into()),
        shared_pid: true,
        sysctls: [("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())].into(),
        shm_size: 64 << 20,
        cgroup: "/kubepods/pod1/creel-ab12".into(),
        userns: None,
        domainname: None,
        joined: None,
        mount_label: None,
    }
}

pub(crate) fn process() -> ProcessPlan {
    ProcessPlan {
        args: vec!["sh".into(), "-c".into(), "true".into()],
        env: vec![b"PATH=/bin".to_vec().into(), b"X=\xff".to_vec().into()],
        cwd: "/".into(),
        uid: 1000,
        gid: 1001,
        groups: vec![1001, 2000],
        capabilities: Capabilities { bounding: 0xa80425fb, permitted: 0xa80425fb, ambient: 1 << 40 },
        no_new_privs: true,
        seccomp: Some(vec![6, 0, 0, 0, 0, 0, 0xff, 0x7f].into()),
        rlimits: vec![Rlimit { resource: 7, soft: 1024, hard: u64::MAX }],
        oom_score_adj: Some(-998),
        tty: true,
        umask: Some(0o27),
        io_priority: None,
        scheduler: None,
        apparmor: None,
        selinux: None,
    }
}

fn hooks() -> HooksPlan {
    let hook = Hook {
        stage: HookStage::Poststop,
        path: "/usr/bin/hook".into(),
        args: vec!["hook".into(), "x".into()],
        env: vec!["A=b".into()],
        timeout: 30,
    };
    HooksPlan {
        list: vec![hook],
        bundle: "/run/creel/pods/p/hooks/c".into(),
        config: b"{}".to_vec().into(),
        annotations: [("k".to_owned(), "v".to_owned())].into(),
    }
}

pub(crate) fn container_plan() -> ContainerPlan {
    let flags = MountFlags { readonly: true, recursive: true, nosuid: true, nodev: true, noexec: true };
    let bind = MountKind::Bind { source: "/src".into(), propagation: Propagation::Bidirectional };
    let kinds = [
        MountKind::Proc,
        MountKind::Sysfs,
        MountKind::Dev,
        MountKind::Mqueue,
        MountKind::Shm,
        MountKind::Cgroup,
        MountKind::Tmpfs { size: Some(1 << 16), mode: 0o1777 },
        bind,
        MountKind::HostSysfs,
    ];
    ContainerPlan {
        id: container(),
        process: process(),
        pid: PidMode::Target(container()),
        readonly_rootfs: true,
        mounts: kinds.into_iter().map(|kind| MountPlan { target: "/t".into(), kind, flags, idmap: None }).collect(),
        devices: vec![DeviceNode { path: "/dev/x".into(), block: true, major: 8, minor: 1, mode: 0o660, uid: 1, gid: 2 }],
        masked_paths: vec!["/proc/kcore".into()],
        readonly_paths: vec!["/proc/sys".into()],
        cgroup: "/kubepods/pod1/c".into(),
        own_cgroup_namespace: true,
        log_path: Some("/var/log/pods/p/c/0.log".into()),
        stdin: true,
        stdin_once: true,
        root_propagation: Propagation::HostToContainer,
        annotations: None,
        oci: None,
        hooks: None,
        mount_label: None,
        log_limit: None,
    }
}

/// What NRI plugins may ask for.
/// Alone, because the lines of older samples never change.
fn detached_plan() -> ContainerPlan {
    let mount = MountPlan { kind: MountKind::Detached { index: 3 }, ..container_plan().mounts.remove(0) };
    ContainerPlan { mounts: vec![mount], ..container_plan() }
}

fn adjusted_plan() -> ContainerPlan {
    let scheduler = Scheduler { policy: 2, flags: 1, nice: -5, priority: 50, runtime: 1, deadline: 2, period: 3 };
    let io_priority = Some(IoPriority { class: 2, level: 7 });
    let process = ProcessPlan { io_priority, scheduler: Some(scheduler), ..process() };
    ContainerPlan { process, annotations: Some([("a".to_owned(), "b".to_owned())].into()), ..container_plan() }
}

pub(crate) fn oci_plan() -> OciPlan {
    OciPlan {
        handler: "runc".into(),
        runtime: "/usr/bin/runc".into(),
        args: vec!["--debug".into()],
        bundle: "/run/creel/pods/p/oci/c".into(),
        config: b"{}".to_vec().into(),
    }
}

fn capture_plan() -> CapturePlan {
    CapturePlan { args: vec!["/usr/sbin/criu".into(), "dump".into()], directory: "/var/lib/creel/c".into(), limit: 10_000 }
}

fn restore_plan() -> RestorePlan {
    RestorePlan {
        criu: "/usr/sbin/criu".into(),
        images: "/var/lib/creel/c/restore".into(),
        stage: "/run/creel/pods/p/stage".into(),
        streams: ["file[3a:3]".into(), "pipe:[5]".into(), String::new()],
        limit: 20_000,
    }
}

pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let (container, exec) = (container(), exec());
    let plan = ExecPlan { id: exec, container, process: process(), cgroup: "/kubepods/pod1/c/e".into(), oci_process: None };
    let oci_exec = ExecPlan { oci_process: Some(b"{}".to_vec().into()), ..plan.clone() };
    vec![
        ("hello", Request::Hello { version: VERSION, revision: REVISION }),
        ("setup", Request::Setup(pod_plan())),
        ("create", Request::Create(container_plan())),
        ("create_detached", Request::Create(detached_plan())),
        ("create_adjusted", Request::Create(adjusted_plan())),
        ("create_hooks", Request::Create(ContainerPlan { hooks: Some(hooks()), ..container_plan() })),
        ("create_oci", Request::Create(ContainerPlan { oci: Some(oci_plan()), ..container_plan() })),
        ("start", Request::Start { container }),
        ("signal", Request::Signal { container, signal: Signal::TERM, scope: Scope::Main }),
        ("signal_all", Request::Signal { container, signal: Signal::KILL, scope: Scope::All }),
        ("exec", Request::Exec(ExecPlanWithStdin { plan, stdin: true })),
        ("exec_oci", Request::Exec(ExecPlanWithStdin { plan: oci_exec, stdin: false })),
        ("signal_exec", Request::SignalExec { exec, signal: Signal::KILL }),
        ("resize_tty", Request::ResizeTty { container, width: 80, height: 24 }),
        ("close_stdin", Request::CloseStdin { container }),
        ("reopen_log", Request::ReopenLog { container }),
        ("attach", Request::Attach { container }),
        ("state", Request::State),
        ("ack", Request::Ack { sequence: 5 }),
        ("forget", Request::Forget { container }),
        ("shutdown", Request::Shutdown),
        ("freeze", Request::Freeze { containers: vec![container] }),
        ("thaw", Request::Thaw),
        ("capture", Request::Capture(capture_plan())),
        ("restore", Request::Restore { plan: container_plan(), restore: restore_plan() }),
    ]
}

pub(crate) fn state() -> State {
    let entry = |status| ContainerEntry { container: container(), pid: 42, status, lost_log_bytes: 9 };
    State {
        set_up: true,
        init_pid: Some(2),
        containers: vec![
            entry(Status::Created),
            entry(Status::Running { started_at: 1 }),
            entry(Status::Exited { started_at: None, finished_at: 2, exit: exit() }),
        ],
        execs: vec![ExecEntry { exec: exec(), container: container(), pid: 43 }],
        exits: vec![
            Exit::Container { sequence: 1, record: record() },
            Exit::Exec { sequence: 2, exec: exec(), container: container(), exit: exit(), at: 3 },
        ],
        stopping: true,
    }
}

pub(crate) fn replies() -> Vec<(&'static str, Reply)> {
    let failure = |kind| Reply::Failed(Failure { step: "exec".into(), message: "no such file".into(), kind, exit_code: Some(127) });
    vec![
        ("hello", Reply::Hello { version: VERSION, revision: REVISION, pid: 99 }),
        ("done", Reply::Done),
        ("created", Reply::Created { pid: 42, warnings: vec!["oom_score_adj".into()] }),
        ("started", Reply::Started { at: 1_700_000_000_000_000_000 }),
        ("exec", Reply::Exec { pid: 43, fds: vec![FdRole::Stdin, FdRole::Stdout, FdRole::Stderr, FdRole::Terminal] }),
        ("attached", Reply::Attached { fds: vec![FdRole::Terminal, FdRole::Stdout] }),
        ("state", Reply::State(state())),
        ("captured", Reply::Captured { code: 137 }),
        ("failed.invalid_argument", failure(ErrorKind::InvalidArgument)),
        ("failed.not_found", failure(ErrorKind::NotFound)),
        ("failed.already_exists", failure(ErrorKind::AlreadyExists)),
        ("failed.failed_precondition", failure(ErrorKind::FailedPrecondition)),
        ("failed.permission_denied", failure(ErrorKind::PermissionDenied)),
        ("failed.unavailable", failure(ErrorKind::Unavailable)),
        ("failed.resource_exhausted", failure(ErrorKind::ResourceExhausted)),
        ("failed.deadline_exceeded", failure(ErrorKind::DeadlineExceeded)),
        ("failed.cancelled", failure(ErrorKind::Cancelled)),
        ("failed.corrupted", failure(ErrorKind::Corrupted)),
        ("failed.unsupported", failure(ErrorKind::Unsupported)),
        ("failed.internal", failure(ErrorKind::Internal)),
    ]
}

pub(crate) fn events() -> Vec<(&'static str, Event)> {
    vec![
        ("exited", Event::Exited(Exit::Container { sequence: 1, record: record() })),
        ("exited_oom", Event::Exited(Exit::Container { sequence: 1, record: oom() })),
        ("exec_exited", Event::Exited(Exit::Exec { sequence: 2, exec: exec(), container: container(), exit: exit(), at: 3 })),
        ("warning", Event::Warning { container: Some(container()), message: "log: no space".into() }),
        ("init_exited", Event::InitExited { exit: exit(), at: 4 }),
    ]
}

pub(crate) fn encoded() -> Vec<(String, Vec<u8>)> {
    let requests = requests().into_iter().map(|(name, it)| (format!("request.{name}"), shim_proto::encode_request(7, &it)));
    let replies = replies().into_iter().map(|(name, it)| (format!("reply.{name}"), shim_proto::encode_reply(7, &it)));
    let events = events().into_iter().map(|(name, it)| (format!("event.{name}"), shim_proto::encode_event(&it)));
    requests.chain(replies).chain(events).chain([("record".to_owned(), record().to_bytes())]).collect()
}
