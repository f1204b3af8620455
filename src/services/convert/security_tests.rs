//! Every mapping and refusal of security contexts.

use cri::security_profile::ProfileType;

use super::*;

type Asked = cri::LinuxContainerSecurityContext;

const NONE: Host = Host { apparmor: false, selinux: false };
const ALL: Host = Host { apparmor: true, selinux: true };

fn profile(kind: ProfileType, name: &str) -> Option<cri::SecurityProfile> {
    Some(cri::SecurityProfile { profile_type: kind.into(), localhost_ref: name.into() })
}

fn converted(asked: Asked, host: Host) -> Result<SecuritySpec> {
    container(asked, NamespaceMode::Container, host)
}

fn refusal(asked: Asked, host: Host) -> String {
    converted(asked, host).expect_err("refused").to_string()
}

#[test]
fn nothing_said_is_the_images_user_unconfined_and_the_pods_pid_namespace() {
    let spec = converted(Asked::default(), ALL).unwrap();
    assert_eq!((spec.user, spec.seccomp, spec.pid), (UserSpec::Image, SeccompSpec::Unconfined, PidMode::Container));
    for (mode, pid) in [(NamespaceMode::Pod, PidMode::Pod), (NamespaceMode::Node, PidMode::Node)] {
        assert_eq!(container(Asked::default(), mode, NONE).unwrap().pid, pid);
    }
}

#[test]
#[expect(deprecated, reason = "the old field is under test")]
fn seccomp_old_and_new() {
    let old = |text: &str| Asked { seccomp_profile_path: text.into(), ..Asked::default() };
    for (text, spec) in [
        ("", SeccompSpec::Unconfined),
        ("unconfined", SeccompSpec::Unconfined),
        ("runtime/default", SeccompSpec::RuntimeDefault),
        ("docker/default", SeccompSpec::RuntimeDefault),
        ("localhost//a/b.json", SeccompSpec::Localhost("/a/b.json".into())),
    ] {
        assert_eq!(converted(old(text), NONE).unwrap().seccomp, spec, "{text}");
    }
    let new = |kind, name: &str| Asked { seccomp: profile(kind, name), ..old("nonsense") };
    assert_eq!(converted(new(ProfileType::RuntimeDefault, ""), NONE).unwrap().seccomp, SeccompSpec::RuntimeDefault);
    assert_eq!(converted(new(ProfileType::Unconfined, ""), NONE).unwrap().seccomp, SeccompSpec::Unconfined);
    for bad in ["", "a.json", "../a.json", "/a/../../b", "/a\0b"] {
        assert!(refusal(new(ProfileType::Localhost, bad), NONE).starts_with("linux.security_context.seccomp: "), "{bad}");
    }
    for bad in ["localhost/", "localhost/a", "nonsense"] {
        assert!(refusal(old(bad), NONE).starts_with("linux.security_context.seccomp_profile_path: "), "{bad}");
    }
    let unknown =
        Asked { seccomp: Some(cri::SecurityProfile { profile_type: 7, localhost_ref: String::new() }), ..Asked::default() };
    assert_eq!(refusal(unknown, NONE), "linux.security_context.seccomp.profile_type: 7: no such value");
    let privileged = Asked { privileged: true, seccomp: profile(ProfileType::RuntimeDefault, ""), ..Asked::default() };
    assert_eq!(converted(privileged, NONE).unwrap().seccomp, SeccompSpec::Unconfined);
}

#[test]
#[expect(deprecated, reason = "the old field is under test")]
fn apparmor_is_refused_where_it_would_matter() {
    let new = |kind, name: &str| Asked { apparmor: profile(kind, name), ..Asked::default() };
    let old = |text: &str| Asked { apparmor_profile: text.into(), ..Asked::default() };
    for fine in
        [new(ProfileType::Unconfined, ""), new(ProfileType::RuntimeDefault, ""), old("runtime/default"), old("unconfined"), old("")]
    {
        assert!(converted(fine, NONE).is_ok());
    }
    for host in [NONE, ALL] {
        for bad in
            [new(ProfileType::Localhost, "p"), new(ProfileType::Localhost, ""), old("localhost/p"), old("localhost/"), old("p")]
        {
            assert!(refusal(bad, host).starts_with("linux.security_context.apparmor"));
        }
    }
    assert!(matches!(converted(new(ProfileType::RuntimeDefault, ""), ALL), Err(super::super::Refused::Unsupported { .. })));
    // The new field wins.
    assert!(converted(Asked { apparmor: profile(ProfileType::Unconfined, ""), ..old("localhost/p") }, ALL).is_ok());
}

#[test]
fn selinux_labels_mean_nothing_where_selinux_is_off() {
    let asked =
        Asked { selinux_options: Some(cri::SeLinuxOption { level: "s0:c1".into(), ..Default::default() }), ..Asked::default() };
    assert!(converted(asked.clone(), NONE).is_ok());
    assert!(refusal(asked, ALL).starts_with("linux.security_context.selinux_options: "));
    let empty = Asked { selinux_options: Some(Default::default()), ..Asked::default() };
    assert!(converted(empty, ALL).is_ok());
}

#[test]
fn users_and_groups() {
    let id = |value| Some(cri::Int64Value { value });
    let asked = Asked { run_as_user: id(1000), run_as_group: id(0), supplemental_groups: vec![5, 6], ..Asked::default() };
    let spec = converted(asked, NONE).unwrap();
    assert_eq!((spec.user, spec.group, spec.supplemental_groups), (UserSpec::Id(1000), Some(0), vec![5, 6]));
    let named = Asked { run_as_username: "nobody".into(), run_as_group: id(7), supplemental_groups_policy: 1, ..Asked::default() };
    let spec = converted(named, NONE).unwrap();
    assert_eq!((spec.user, spec.supplemental_groups_strict), (UserSpec::Name("nobody".into()), true));
    for (field, bad) in [
        (".run_as_group", Asked { run_as_group: id(1), ..Asked::default() }),
        (".run_as_user", Asked { run_as_user: id(-1), ..Asked::default() }),
        (".run_as_user", Asked { run_as_user: id(4_294_967_295), ..Asked::default() }),
        (".run_as_group", Asked { run_as_user: id(1), run_as_group: id(-1), ..Asked::default() }),
        (".supplemental_groups", Asked { supplemental_groups: vec![1, -2], ..Asked::default() }),
        (".run_as_username", Asked { run_as_username: "a:b".into(), ..Asked::default() }),
        ("", Asked { run_as_username: "a".into(), run_as_user: id(1), ..Asked::default() }),
        (".supplemental_groups_policy", Asked { supplemental_groups_policy: 2, ..Asked::default() }),
    ] {
        let text = refusal(bad, NONE);
        assert!(text.starts_with(&format!("linux.security_context{field}: ")), "{text}");
    }
}

#[test]
fn capabilities_and_paths() {
    let asked = Asked {
        capabilities: Some(cri::Capability {
            add_capabilities: vec!["CAP_NET_ADMIN".into(), "all".into()],
            drop_capabilities: vec!["mknod".into()],
            add_ambient_capabilities: vec!["NET_BIND_SERVICE".into()],
        }),
        masked_paths: vec!["/proc/kcore".into()],
        ..Asked::default()
    };
    let spec = converted(asked, NONE).unwrap();
    assert_eq!(spec.add_capabilities, ["NET_ADMIN", "ALL"]);
    assert_eq!(
        (spec.drop_capabilities, spec.ambient_capabilities),
        (vec!["MKNOD".to_owned()], vec!["NET_BIND_SERVICE".to_owned()])
    );
    let bad = Asked {
        capabilities: Some(cri::Capability { add_capabilities: vec!["a b".into()], ..Default::default() }),
        ..Asked::default()
    };
    assert!(refusal(bad, NONE).contains("not a capability"));
    assert!(refusal(Asked { readonly_paths: vec!["proc".into()], ..Asked::default() }, NONE).contains("not an absolute path"));
}

#[test]
fn pid_namespaces_and_targets() {
    let asked = |pid: i32, target: &str| Asked {
        namespace_options: Some(cri::NamespaceOption { pid, target_id: target.into(), ..Default::default() }),
        ..Asked::default()
    };
    let target = "ab".repeat(32);
    for (number, target, pid) in [
        (0, "", PidMode::Pod),
        (1, "", PidMode::Container),
        (2, "", PidMode::Node),
        (3, target.as_str(), PidMode::Target(target.parse().unwrap())),
    ] {
        assert_eq!(converted(asked(number, target), NONE).unwrap().pid, pid);
    }
    assert!(refusal(asked(3, "x"), NONE).starts_with("linux.security_context.namespace_options.target_id: not an id"));
    assert!(refusal(asked(4, ""), NONE).starts_with("linux.security_context.namespace_options.pid: "));
}

#[test]
fn user_namespaces_are_checked_and_then_refused() {
    let map = |container_id, length| cri::IdMapping { host_id: 65536, container_id, length };
    let asked = |mode: i32, uids: Vec<cri::IdMapping>, gids: Vec<cri::IdMapping>| Asked {
        namespace_options: Some(cri::NamespaceOption {
            userns_options: Some(cri::UserNamespace { mode, uids, gids }),
            ..Default::default()
        }),
        ..Asked::default()
    };
    assert!(converted(asked(2, vec![], vec![]), NONE).is_ok());
    let good = vec![map(0, 65536)];
    assert!(matches!(converted(asked(0, good.clone(), good.clone()), NONE), Err(super::super::Refused::Unsupported { .. })));
    for (why, bad) in [
        ("without a user namespace", asked(2, good.clone(), vec![])),
        ("CONTAINER is not a mode", asked(1, vec![], vec![])),
        ("TARGET is not a mode", asked(3, vec![], vec![])),
        ("2 mappings", asked(0, vec![map(0, 1), map(1, 1)], good.clone())),
        ("0 mappings", asked(0, vec![], vec![])),
        ("id 0 of the container", asked(0, vec![map(1, 1)], good.clone())),
        ("an empty mapping", asked(0, vec![map(0, 0)], good.clone())),
        ("mapped differently", asked(0, good.clone(), vec![map(0, 7)])),
    ] {
        let error = converted(bad, NONE).unwrap_err();
        assert!(matches!(error, super::super::Refused::Invalid { .. }) && error.to_string().contains(why), "{error}");
    }
}

#[test]
fn pods_have_modes_and_users_but_no_target() {
    let asked = |network, pid, ipc| cri::LinuxSandboxSecurityContext {
        namespace_options: Some(cri::NamespaceOption { network, pid, ipc, ..Default::default() }),
        run_as_group: Some(cri::Int64Value { value: 5 }),
        ..Default::default()
    };
    let security = pod(asked(2, 1, 0), NONE).unwrap();
    let namespaces = PodNamespaces { network: NamespaceMode::Node, pid: NamespaceMode::Container, ipc: NamespaceMode::Pod };
    assert_eq!((security.namespaces, security.run_as_group), (namespaces, Some(5)));
    for bad in [asked(1, 0, 0), asked(0, 3, 0), asked(0, 0, 1), asked(9, 0, 0)] {
        assert!(pod(bad, NONE).is_err());
    }
}
