//! Edits become a plan.

use super::{super::tests as fixture, *};
use crate::spec::Prepared;
use model::Signal;

fn prepared() -> Prepared {
    Prepared {
        plan: fixture::container_plan_of(&fixture::container()),
        user: ResolvedUser { uid: 1000, gid: 1000, groups: vec![1000], home: "/srv".into() },
        stop_signal: Signal::TERM,
        resources: Default::default(),
        volumes: Vec::new(),
        rules: Vec::new(),
        hooks: Vec::new(),
        rdt_class: None,
    }
}

fn node(path: &str, host: &str) -> cdi::DeviceNode {
    cdi::DeviceNode {
        path: path.into(),
        host_path: host.into(),
        kind: None,
        numbers: None,
        mode: None,
        permissions: Permissions { read: true, write: false, mknod: false },
        uid: None,
        gid: None,
    }
}

fn mount(options: &[&str], kind: &str) -> cdi::Mount {
    cdi::Mount {
        host_path: "/etc/hostname".into(),
        container_path: "/run/vendor".into(),
        kind: kind.into(),
        options: options.iter().map(ToString::to_string).collect(),
    }
}

fn injected(edits: &Edits) -> Result<Prepared, Error> {
    let mut prepared = prepared();
    prepared.inject(edits.clone(), &fixture::pod()).map(|()| prepared)
}

#[test]
fn env_groups_and_hooks() {
    let hook = cdi::Hook {
        stage: cdi::HookStage::Poststop,
        path: "/bin/x".into(),
        args: vec![],
        env: vec!["A=b".into()],
        timeout: Some(9999),
    };
    let edits = Edits {
        env: vec!["LANG=vendor".into(), "NEW=a=b".into()],
        additional_gids: vec![44, 1000],
        hooks: vec![hook],
        ..Edits::default()
    };
    let Prepared { plan, user, hooks, .. } = injected(&edits).unwrap();
    let has = |text: &str| plan.process.env.iter().filter(|variable| variable.as_slice() == text.as_bytes()).count();
    assert_eq!((has("LANG=vendor"), has("LANG=C"), has("NEW=a=b")), (1, 0, 1));
    assert!(plan.process.groups.ends_with(&[44]) && user.groups == [1000, 44]);
    assert_eq!(
        (hooks[0].stage, hooks[0].args.as_slice(), hooks[0].timeout),
        (HookStage::Poststop, ["/bin/x".to_owned()].as_slice(), HOOK_LIMIT)
    );
}

#[test]
fn nodes_are_as_on_the_host_or_as_said() {
    let said = cdi::DeviceNode {
        kind: Some(DeviceType::Block),
        numbers: Some((259, 7)),
        mode: Some(0o640),
        uid: Some(3),
        gid: Some(4),
        ..node("/dev/vendor/b", "/dev/nowhere")
    };
    let edits =
        Edits { device_nodes: vec![node("/dev/vendor/a", "/dev/zero"), said, node("/opt/null", "/dev/null")], ..Edits::default() };
    let Prepared { plan, rules, .. } = injected(&edits).unwrap();
    let [a, b] = plan.devices.as_slice() else { panic!("{:?}", plan.devices) };
    assert_eq!((a.path.as_str(), a.block, a.major, a.minor, a.mode, a.uid), ("/dev/vendor/a", false, 1, 5, 0o666, 1000));
    assert_eq!((b.block, b.major, b.minor, b.mode, b.uid, b.gid), (true, 259, 7, 0o640, 3, 4));
    assert!(plan.mounts.iter().any(|mount| mount.target == "/opt/null"));
    let read = Access { read: true, write: false, mknod: false };
    assert!(rules.len() == 3 && rules.iter().all(|rule| rule.access == read));
    for (bad, why) in [
        (node("/dev/x", "/dev/nowhere"), "find CDI device /dev/nowhere"),
        (node("/dev/x", "/etc"), "is not a device on the host"),
        (cdi::DeviceNode { kind: Some(DeviceType::Block), ..node("/dev/x", "/dev/null") }, "another type"),
        (cdi::DeviceNode { kind: Some(DeviceType::Fifo), ..node("/dev/x", "/dev/null") }, "FIFO"),
        (node("/dev/null", "/dev/zero"), "made with every /dev"),
        (node("/dev/../x", "/dev/zero"), "`..`"),
        (node("/proc/x", "/dev/zero"), "/proc"),
    ] {
        let error = injected(&Edits { device_nodes: vec![bad], ..Edits::default() }).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn mounts_have_their_options_and_their_sources() {
    let edits = Edits {
        mounts: vec![mount(&["ro", "nosuid", "rbind", "rprivate"], "none"), mount(&["bind", "noexec"], "")],
        ..Edits::default()
    };
    let plan = injected(&edits).unwrap().plan;
    let found: Vec<_> = plan.mounts.iter().filter(|mount| mount.target == "/run/vendor").collect();
    assert_eq!(found.len(), 1, "the last one");
    assert_eq!((found[0].flags.noexec, found[0].flags.readonly, found[0].flags.nodev), (true, false, false));
    let plan =
        injected(&Edits { mounts: vec![mount(&["size=1024", "mode=700", "nosuid"], "tmpfs")], ..Edits::default() }).unwrap().plan;
    let found = plan.mounts.iter().find(|mount| mount.target == "/run/vendor").unwrap();
    assert_eq!(found.kind, MountKind::Tmpfs { size: Some(1024), mode: 0o700 });
    for (bad, why) in [
        (mount(&["bind", "uid=5"], ""), "option \"uid=5\""),
        (mount(&[], "ext4"), "type \"ext4\""),
        (mount(&["size=x"], "tmpfs"), "option \"size=x\""),
        (cdi::Mount { host_path: "/no/where".into(), ..mount(&["bind"], "") }, "find CDI mount source /no/where"),
        (cdi::Mount { container_path: "/proc/x".into(), ..mount(&["bind"], "") }, "/proc"),
    ] {
        let error = injected(&Edits { mounts: vec![bad], ..Edits::default() }).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn what_cannot_be_had_is_refused() {
    let interface = cdi::NetDevice { host_name: "eth7".into(), name: "net1".into() };
    for (edits, why) in [
        (Edits { net_devices: vec![interface], ..Edits::default() }, "CDI netDevices: interface \"eth7\""),
        (Edits { intel_rdt: Some(Default::default()), ..Edits::default() }, "CDI intelRdt: "),
    ] {
        let error = injected(&edits).unwrap_err();
        assert!(error.to_string().starts_with(why) && error.kind() == model::ErrorKind::Unsupported, "{error}");
    }
}

#[test]
fn classes_are_those_that_are_there() {
    let with = |rdt: IntelRdt| injected(&Edits { intel_rdt: Some(rdt), ..Edits::default() }).map(|prepared| prepared.rdt_class);
    let class = |id: &str| IntelRdt { clos_id: id.into(), ..IntelRdt::default() };
    assert_eq!(with(class("gold")).unwrap().as_deref(), Some("gold"));
    assert_eq!(with(class("/")).unwrap(), None);
    assert!(with(IntelRdt { schemata: vec!["L3:0=f".into()], ..class("gold") }).is_err());
    assert!(with(IntelRdt { monitoring: true, ..class("gold") }).is_err());
}
