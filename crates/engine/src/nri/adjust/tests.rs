//! Adjustments one by one.

use model::plan::{HookStage, IoPriority, MountKind, MountPlan, Rlimit, Scheduler};

use super::*;
use crate::spec::tests::{container, container_plan_of, pod};

/// What became of a container.
#[derive(Debug)]
struct Made {
    plan: ContainerPlan,
    resources: Resources,
    rules: Vec<DeviceRule>,
    hooks: Vec<Hook>,
}

fn adjusted(adjust: p::ContainerAdjustment) -> Result<Made, String> {
    let (spec, pod) = (container(), pod());
    let mut made = Made { plan: container_plan_of(&spec), resources: Resources::default(), rules: Vec::new(), hooks: Vec::new() };
    let mut target = Target {
        annotations: &spec.annotations,
        plan: &mut made.plan,
        resources: &mut made.resources,
        rules: &mut made.rules,
        pod: &pod,
        pod_cgroup: "/pods/p",
        pids_limit: 100,
        hooks: &mut made.hooks,
        user: &mut ResolvedUser::default(),
        cdi_spec_dirs: &[],
    };
    target.adjust(adjust).map(|()| made).map_err(|e| crate::chain(&e))
}

fn linux(linux: p::LinuxContainerAdjustment) -> Result<Made, String> {
    adjusted(p::ContainerAdjustment { linux: Some(linux), ..Default::default() })
}

fn mounted(mount: p::Mount) -> Result<MountPlan, String> {
    let made = adjusted(p::ContainerAdjustment { mounts: vec![mount.clone()], ..Default::default() })?;
    Ok(made.plan.mounts.into_iter().find(|known| known.target == mount.destination).expect("it is there"))
}

fn tmpfs(destination: &str, options: &[&str]) -> p::Mount {
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    p::Mount { destination: destination.into(), r#type: "tmpfs".into(), source: String::new(), options }
}

#[test]
fn nothing_asked_is_nothing_changed() {
    let made = adjusted(p::ContainerAdjustment::default()).unwrap();
    // But for the volume, which is made anew for every plan.
    let plan = container_plan_of(&container());
    assert_eq!(made.plan, ContainerPlan { mounts: made.plan.mounts.clone(), ..plan });
    assert!(made.rules.is_empty() && made.hooks.is_empty());
}

#[test]
fn variables_and_arguments() {
    let env = [("NEW", "a=b"), ("-PATH", "")].map(|(key, value)| p::KeyValue { key: key.into(), value: value.into() });
    let made = adjusted(p::ContainerAdjustment { env: env.into(), args: vec!["x".into(), "y".into()], ..Default::default() });
    let process = made.unwrap().plan.process;
    assert_eq!(process.args, ["x", "y"]);
    assert!(process.env.iter().any(|entry| entry.as_slice() == b"NEW=a=b"));
    assert!(!process.env.iter().any(|entry| entry.starts_with(b"PATH=")));
    for key in ["", "A=B", "A\0"] {
        let env = vec![p::KeyValue { key: key.into(), value: String::new() }];
        assert!(adjusted(p::ContainerAdjustment { env, ..Default::default() }).is_err(), "{key:?}");
    }
    assert!(adjusted(p::ContainerAdjustment { args: vec!["\0".into()], ..Default::default() }).is_err());
}

#[test]
fn mounts_in_the_words_of_mount() {
    let mount = mounted(tmpfs("/m", &["size=2m", "mode=755", "noexec", "ro"])).unwrap();
    assert_eq!(mount.kind, MountKind::Tmpfs { size: Some(2 << 20), mode: 0o755 });
    assert!(mount.flags.noexec && mount.flags.readonly && mount.flags.nosuid);
    let source = tempfile::tempdir().unwrap();
    let bind = |options: &[&str]| p::Mount {
        r#type: "bind".into(),
        source: source.path().to_str().unwrap().into(),
        ..tmpfs("/b", options)
    };
    let mount = mounted(bind(&["rbind", "rro", "nosuid"])).unwrap();
    assert!(mount.flags.recursive && mount.flags.readonly && mount.flags.nosuid && mount.flags.nodev);
    let gone = adjusted(p::ContainerAdjustment { mounts: vec![tmpfs("-/dev/shm", &[])], ..Default::default() }).unwrap();
    assert!(!gone.plan.mounts.iter().any(|mount| mount.target == "/dev/shm"));
    for (mount, why) in [
        (tmpfs("/proc/sys", &[]), "nothing may be mounted on /proc"),
        (tmpfs("relative", &[]), "must be an absolute path"),
        (tmpfs("-/proc", &[]), "cannot be removed"),
        (tmpfs("/m", &["size=x"]), "size=x"),
        (tmpfs("/m", &["lowerdir=/"]), "lowerdir=/"),
        (p::Mount { r#type: "overlay".into(), ..tmpfs("/m", &[]) }, "overlay"),
        (p::Mount { source: "relative".into(), ..bind(&[]) }, "must be absolute"),
    ] {
        let error = adjusted(p::ContainerAdjustment { mounts: vec![mount], ..Default::default() }).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn limits_of_the_process() {
    let rlimit = |name: &str, soft, hard| p::PosixRlimit { r#type: name.into(), hard, soft };
    let set = |list: Vec<_>| adjusted(p::ContainerAdjustment { rlimits: list, ..Default::default() });
    let made = set(vec![rlimit("RLIMIT_CORE", 1, 2), rlimit("RLIMIT_NOFILE", 3, 4)]).unwrap();
    assert!(made.plan.process.rlimits.contains(&Rlimit { resource: 4, soft: 1, hard: 2 }));
    assert_eq!(made.plan.process.rlimits.iter().filter(|limit| limit.resource == 7).count(), 1);
    assert!(set(vec![rlimit("CORE", 1, 2)]).is_err());
    assert!(set(vec![rlimit("RLIMIT_CORE", 2, 1)]).is_err());
    let score = |value| linux(p::LinuxContainerAdjustment { oom_score_adj: Some(p::OptionalInt { value }), ..Default::default() });
    assert_eq!(score(-5).unwrap().plan.process.oom_score_adj, Some(-5));
    assert!(score(1001).unwrap_err().contains("-1000 to 1000"));
}

#[test]
fn limits_of_the_cgroup_are_laid_over_and_checked() {
    let cpu = |shares, cpus: &str| {
        let cpu = p::LinuxCpu { shares: Some(p::OptionalUInt64 { value: shares }), cpus: cpus.into(), ..Default::default() };
        let resources = Some(p::LinuxResources { cpu: Some(cpu), ..Default::default() });
        linux(p::LinuxContainerAdjustment { resources, ..Default::default() })
    };
    let made = cpu(1 << 40, "0-1").unwrap();
    assert_eq!((made.resources.cpu_shares, made.resources.pids_limit), (Some(262_144), Some(100)));
    assert_eq!(made.resources.cpuset_cpus.as_deref(), Some("0-1"));
    assert!(cpu(2, "zero").unwrap_err().contains("cpuset_cpus"));
    let memory = p::LinuxMemory { swappiness: Some(p::OptionalUInt64 { value: 1 }), ..Default::default() };
    let resources = Some(p::LinuxResources { memory: Some(memory), ..Default::default() });
    let error = linux(p::LinuxContainerAdjustment { resources, ..Default::default() }).unwrap_err();
    assert!(error.contains("linux.resources.memory.swappiness"), "{error}");
}

#[test]
fn devices_bring_their_rules() {
    let device = |path: &str, kind: &str| {
        let device = p::LinuxDevice { path: path.into(), r#type: kind.into(), major: 1, minor: 5, ..Default::default() };
        linux(p::LinuxContainerAdjustment { devices: vec![device], ..Default::default() })
    };
    let made = device("/dev/x", "c").unwrap();
    let [node] = made.plan.devices.as_slice() else { panic!("{made:?}") };
    assert_eq!((node.path.as_str(), node.block, node.major, node.minor, node.mode), ("/dev/x", false, 1, 5, 0o666));
    let rule = DeviceRule { kind: DeviceKind::Character, major: Some(1), minor: Some(5), access: Access::ALL };
    assert_eq!(made.rules, [rule]);
    for (path, kind) in [("/dev/x", "p"), ("/etc/x", "c"), ("/dev/null", "c"), ("/dev/../x", "c"), ("dev/x", "b"), ("/dev", "c")] {
        assert!(device(path, kind).is_err(), "{path} {kind}");
    }
}

#[test]
fn a_cgroup_stays_below_its_pod() {
    let path = |path: &str| linux(p::LinuxContainerAdjustment { cgroups_path: path.into(), ..Default::default() });
    assert_eq!(path("/pods/p/mine").unwrap().plan.cgroup, "/pods/p/mine");
    for bad in ["/pods/p", "/pods/p/", "/pods/p/a/b", "/pods/px", "/pods/p/..", "/other", "mine", "system.slice:a:b"] {
        assert!(path(bad).unwrap_err().contains("directly below the pod's cgroup"), "{bad}");
    }
}

#[test]
fn when_it_runs() {
    let scheduler = |scheduler| linux(p::LinuxContainerAdjustment { scheduler: Some(scheduler), ..Default::default() });
    let given = p::LinuxScheduler { policy: 3, priority: 9, flags: vec![0, 2], ..Default::default() };
    let wanted = Scheduler { policy: 2, priority: 9, flags: 5, ..Scheduler::default() };
    assert_eq!(scheduler(given.clone()).unwrap().plan.process.scheduler, Some(wanted));
    assert!(scheduler(p::LinuxScheduler { policy: 0, ..given.clone() }).is_err());
    assert!(scheduler(p::LinuxScheduler { priority: 100, ..given.clone() }).is_err());
    assert!(scheduler(p::LinuxScheduler { nice: 20, ..given.clone() }).is_err());
    assert!(scheduler(p::LinuxScheduler { flags: vec![63], ..given.clone() }).is_err());
    assert!(scheduler(p::LinuxScheduler { flags: vec![-1], ..given }).is_err());
    let io = |class, priority| {
        linux(p::LinuxContainerAdjustment { io_priority: Some(p::LinuxIoPriority { class, priority }), ..Default::default() })
    };
    assert_eq!(io(2, 7).unwrap().plan.process.io_priority, Some(IoPriority { class: 2, level: 7 }));
    for (class, priority) in [(0, 0), (4, 0), (2, 8), (2, -1)] {
        assert!(io(class, priority).is_err());
    }
}

#[test]
fn a_seccomp_policy_is_compiled() {
    let policy = |action: &str| p::LinuxSeccomp {
        default_action: action.into(),
        syscalls: vec![p::LinuxSyscall { names: vec!["mkdir".into()], action: "SCMP_ACT_ERRNO".into(), ..Default::default() }],
        ..Default::default()
    };
    let set = |policy| linux(p::LinuxContainerAdjustment { seccomp_policy: Some(policy), ..Default::default() });
    assert!(set(policy("SCMP_ACT_ALLOW")).unwrap().plan.process.seccomp.is_some());
    assert!(set(policy("SCMP_ACT_NONSENSE")).is_err());
    let listening = p::LinuxSeccomp { listener_path: "/x".into(), ..policy("SCMP_ACT_ALLOW") };
    assert!(set(listening).unwrap_err().contains("listener_path"));
}

#[test]
fn namespaces_as_far_as_they_are_a_containers_own() {
    let namespace = |kind: &str, path: &str| {
        let namespace = p::LinuxNamespace { r#type: kind.into(), path: path.into() };
        linux(p::LinuxContainerAdjustment { namespaces: vec![namespace], ..Default::default() })
    };
    assert!(!namespace("-cgroup", "").unwrap().plan.own_cgroup_namespace);
    assert_eq!(namespace("pid", "").unwrap().plan.pid, PidMode::Container);
    for (kind, path) in [("network", ""), ("-network", ""), ("pid", "/proc/1/ns/pid"), ("user", "")] {
        assert!(namespace(kind, path).unwrap_err().contains("linux.namespaces"), "{kind}");
    }
}

#[test]
fn annotations_are_the_clients_until_somebody_changes_them() {
    let known = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into();
    let wanted = [("-a".to_owned(), String::new()), ("c".to_owned(), "3".to_owned())].into();
    assert_eq!(annotations(known, wanted), [("b".to_owned(), "2".to_owned()), ("c".to_owned(), "3".to_owned())].into());
}

#[test]
fn hooks_have_a_limit() {
    let hook =
        |path: &str, seconds| p::Hook { path: path.into(), timeout: Some(p::OptionalInt { value: seconds }), ..Default::default() };
    let add = |hook| {
        let hooks = Some(p::Hooks { create_runtime: vec![hook], ..Default::default() });
        adjusted(p::ContainerAdjustment { hooks, ..Default::default() })
    };
    let made = add(hook("/bin/x", 1_000_000)).unwrap();
    assert_eq!((made.hooks[0].timeout, made.hooks[0].stage), (spec::HOOK_LIMIT, HookStage::CreateRuntime));
    assert_eq!(made.hooks[0].args, ["/bin/x"]);
    assert!(add(hook("x", 1)).is_err());
}
