//! Every mapping and refusal of security contexts.

use cri::security_profile::ProfileType;

use super::*;

type Asked = cri::LinuxContainerSecurityContext;

fn profile(kind: ProfileType, name: &str) -> Option<cri::SecurityProfile> {
    Some(cri::SecurityProfile { profile_type: kind.into(), localhost_ref: name.into() })
}

fn converted(asked: Asked) -> Result<SecuritySpec> {
    container(asked, NamespaceMode::Container)
}

fn refusal(asked: Asked) -> String {
    converted(asked).expect_err("refused").to_string()
}

#[test]
fn nothing_said_is_the_images_user_unconfined_and_the_pods_pid_namespace() {
    let spec = converted(Asked::default()).unwrap();
    assert_eq!((spec.user, spec.seccomp, spec.pid), (UserSpec::Image, SeccompSpec::Unconfined, PidMode::Container));
    for (mode, pid) in [(NamespaceMode::Pod, PidMode::Pod), (NamespaceMode::Node, PidMode::Node)] {
        assert_eq!(container(Asked::default(), mode).unwrap().pid, pid);
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
        assert_eq!(converted(old(text)).unwrap().seccomp, spec, "{text}");
    }
    let new = |kind, name: &str| Asked { seccomp: profile(kind, name), ..old("nonsense") };
    assert_eq!(converted(new(ProfileType::RuntimeDefault, "")).unwrap().seccomp, SeccompSpec::RuntimeDefault);
    assert_eq!(converted(new(ProfileType::Unconfined, "")).unwrap().seccomp, SeccompSpec::Unconfined);
    for bad in ["", "a.json", "../a.json", "/a/../../b", "/a\0b"] {
        assert!(refusal(new(ProfileType::Localhost, bad)).starts_with("linux.security_context.seccomp: "), "{bad}");
    }
    for bad in ["localhost/", "localhost/a", "nonsense"] {
        assert!(refusal(old(bad)).starts_with("linux.security_context.seccomp_profile_path: "), "{bad}");
    }
    let unknown =
        Asked { seccomp: Some(cri::SecurityProfile { profile_type: 7, localhost_ref: String::new() }), ..Asked::default() };
    assert_eq!(refusal(unknown), "linux.security_context.seccomp.profile_type: 7: no such value");
    let privileged = Asked { privileged: true, seccomp: profile(ProfileType::RuntimeDefault, ""), ..Asked::default() };
    assert_eq!(converted(privileged).unwrap().seccomp, SeccompSpec::Unconfined);
}

#[test]
fn users_and_groups() {
    let id = |value| Some(cri::Int64Value { value });
    let asked = Asked { run_as_user: id(1000), run_as_group: id(0), supplemental_groups: vec![5, 6], ..Asked::default() };
    let spec = converted(asked).unwrap();
    assert_eq!((spec.user, spec.group, spec.supplemental_groups), (UserSpec::Id(1000), Some(0), vec![5, 6]));
    let named = Asked { run_as_username: "nobody".into(), run_as_group: id(7), supplemental_groups_policy: 1, ..Asked::default() };
    let spec = converted(named).unwrap();
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
        let text = refusal(bad);
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
    let spec = converted(asked).unwrap();
    assert_eq!(spec.add_capabilities, ["NET_ADMIN", "ALL"]);
    assert_eq!(
        (spec.drop_capabilities, spec.ambient_capabilities),
        (vec!["MKNOD".to_owned()], vec!["NET_BIND_SERVICE".to_owned()])
    );
    let bad = Asked {
        capabilities: Some(cri::Capability { add_capabilities: vec!["a b".into()], ..Default::default() }),
        ..Asked::default()
    };
    assert!(refusal(bad).contains("not a capability"));
    assert!(refusal(Asked { readonly_paths: vec!["proc".into()], ..Asked::default() }).contains("not an absolute path"));
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
        assert_eq!(converted(asked(number, target)).unwrap().pid, pid);
    }
    assert!(refusal(asked(3, "x")).starts_with("linux.security_context.namespace_options.target_id: not an id"));
    assert!(refusal(asked(4, "")).starts_with("linux.security_context.namespace_options.pid: "));
}

#[test]
fn pods_have_modes_and_users_but_no_target() {
    let asked = |network, pid, ipc| cri::LinuxSandboxSecurityContext {
        namespace_options: Some(cri::NamespaceOption { network, pid, ipc, ..Default::default() }),
        run_as_group: Some(cri::Int64Value { value: 5 }),
        ..Default::default()
    };
    let security = pod(asked(2, 1, 0)).unwrap();
    let namespaces = PodNamespaces { network: NamespaceMode::Node, pid: NamespaceMode::Container, ipc: NamespaceMode::Pod };
    assert_eq!((security.namespaces, security.run_as_group), (namespaces, Some(5)));
    for bad in [asked(1, 0, 0), asked(0, 3, 0), asked(0, 0, 1), asked(9, 0, 0)] {
        assert!(pod(bad).is_err());
    }
}
