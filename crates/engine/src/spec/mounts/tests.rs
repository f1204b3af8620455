//! Mount lists: golden orders, overrides, refusals.

use super::*;
use crate::spec::tests::{container, pod};

fn mount(target: &str, source: &str) -> BindMount {
    BindMount {
        container_path: target.into(),
        host_path: source.into(),
        readonly: false,
        recursive_read_only: false,
        propagation: Propagation::Private,
        selinux_relabel: false,
        mount_options: Vec::new(),
        idmap: None,
    }
}

fn planned_with(spec: &ContainerSpec, image: &[&str]) -> Result<Mounts, Error> {
    let image: Vec<_> = image.iter().map(|volume| (*volume).to_owned()).collect();
    let pod = pod();
    let sources = Sources { pod: &pod, pod_dir: Path::new("/run/p"), volumes: Path::new("/run/p/v") };
    plan(spec, &image, Vec::new(), sources)
}

fn planned(mounts: &[BindMount], image: &[&str]) -> Result<Mounts, Error> {
    planned_with(&ContainerSpec { mounts: mounts.to_vec(), ..container() }, image)
}

fn targets(mounts: &Mounts) -> Vec<&str> {
    mounts.list.iter().map(|mount| mount.target.as_str()).collect()
}

fn at<'a>(mounts: &'a Mounts, target: &str) -> &'a MountPlan {
    mounts.list.iter().find(|mount| mount.target == target).unwrap_or_else(|| panic!("nothing on {target}"))
}

fn source(mount: &MountPlan) -> &str {
    match &mount.kind {
        MountKind::Bind { source, .. } => source,
        other => panic!("{other:?} is no bind"),
    }
}

#[test]
fn the_standard_mounts() {
    let mounts = planned(&[], &[]).unwrap();
    let expected =
        ["/proc", "/dev", "/sys", "/dev/mqueue", "/dev/shm", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/sys/fs/cgroup"];
    assert_eq!(targets(&mounts), expected);
    assert!(at(&mounts, "/sys").flags.readonly && at(&mounts, "/sys/fs/cgroup").flags.readonly);
    assert!(!at(&mounts, "/proc").flags.readonly && at(&mounts, "/proc").flags.nodev);
    assert_eq!(source(at(&mounts, "/etc/hosts")), "/run/p/hosts");
    assert_eq!(mounts.root_propagation, Propagation::Private);
    let mut spec = container();
    spec.security.privileged = true;
    let mounts = planned_with(&spec, &[]).unwrap();
    assert!(!at(&mounts, "/sys").flags.readonly && !at(&mounts, "/sys/fs/cgroup").flags.readonly);
}

#[test]
fn clients_go_before_us_and_parents_before_children() {
    let directory = tempfile::tempdir().unwrap();
    let host = directory.path().to_str().unwrap();
    let list =
        [mount("/a/b/c", host), mount("/a//b/", host), mount("/etc/hosts", host), mount("/z", host), mount("/dev/shm", host)];
    let mounts = planned(&list, &["/data", "/a/b", "/data/", "/dev/shm", "/sys/fs/cgroup"]).unwrap();
    let expected = [
        "/proc",
        "/dev",
        "/sys",
        "/data",
        "/z",
        "/dev/mqueue",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/a/b",
        "/etc/hosts",
        "/dev/shm",
        "/sys/fs/cgroup",
        "/a/b/c",
    ];
    assert_eq!(targets(&mounts), expected);
    assert_eq!(source(at(&mounts, "/etc/hosts")), host);
    assert_eq!(mounts.volumes, [Volume { source: "/run/p/v/0".into(), target: "/data".into() }]);
    assert_eq!(source(at(&mounts, "/data")), "/run/p/v/0");
    assert!(!mounts.foreign_dev);
    let mounts = planned(&[mount("/dev", "/dev")], &[]).unwrap();
    assert!(mounts.foreign_dev);
    assert_eq!(targets(&mounts).iter().filter(|target| target.starts_with("/dev")).count(), 1);
}

#[test]
fn sources_are_resolved_and_made() {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().canonicalize().unwrap();
    fs::write(top.join("file"), "").unwrap();
    std::os::unix::fs::symlink("file", top.join("link")).unwrap();
    let path = |name: &str| top.join(name).to_str().unwrap().to_owned();
    let mounts = planned(&[mount("/f", &path("link")), mount("/new", &path("x/y/../z"))], &[]).unwrap();
    assert_eq!(source(at(&mounts, "/f")), path("file"));
    assert_eq!(source(at(&mounts, "/new")), path("x/z"));
    assert!(top.join("x/z").is_dir());
    assert!(matches!(planned(&[mount("/a", &path("file/below"))], &[]).unwrap_err(), Error::HostPath { .. }));
}

#[test]
fn flags_follow_the_request() {
    let directory = tempfile::tempdir().unwrap();
    let host = directory.path().to_str().unwrap();
    let readonly = BindMount { readonly: true, ..mount("/r", host) };
    let recursive = BindMount { readonly: true, recursive_read_only: true, ..mount("/rr", host) };
    let mounts = planned(&[readonly, recursive.clone()], &[]).unwrap();
    let flags =
        |target: &str| (at(&mounts, target).flags.readonly, at(&mounts, target).flags.recursive, at(&mounts, target).flags.nodev);
    assert_eq!((flags("/r"), flags("/rr")), ((true, false, true), (true, true, true)));
    for bad in
        [BindMount { readonly: false, ..recursive.clone() }, BindMount { propagation: Propagation::HostToContainer, ..recursive }]
    {
        let error = planned(&[bad], &[]).unwrap_err();
        assert!(error.to_string().starts_with("RROUnsupported"), "{error}");
    }
    let mut spec = ContainerSpec { mounts: vec![mount("/m", host)], ..container() };
    spec.security.privileged = true;
    assert!(!at(&planned_with(&spec, &[]).unwrap(), "/m").flags.nodev);
}

#[test]
fn options_make_a_mount_do_less() {
    let directory = tempfile::tempdir().unwrap();
    let host = directory.path().to_str().unwrap();
    let with = |options: &[&str]| {
        let mount_options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut spec = ContainerSpec { mounts: vec![BindMount { mount_options, ..mount("/m", host) }], ..container() };
        spec.security.privileged = true;
        let flags = at(&planned_with(&spec, &[]).unwrap(), "/m").flags;
        (flags.noexec, flags.nodev, flags.nosuid)
    };
    assert_eq!(with(&[]), (false, false, false));
    assert_eq!(with(&["nosuid"]), (false, false, true));
    assert_eq!(with(&["nodev", "noexec"]), (true, true, false));
}

#[test]
fn owners_are_shown_by_the_pods_mapping_or_by_none() {
    use model::pod::{IdMap, UserNamespace};
    let directory = tempfile::tempdir().unwrap();
    let host = directory.path().to_str().unwrap();
    let map = |host_id| IdMap { host_id, length: 65_536 };
    let userns = UserNamespace { uids: map(1 << 17), gids: map(1 << 18) };
    let planned = |mount: BindMount, userns| {
        let pod = PodSpec { userns, ..pod() };
        let sources = Sources { pod: &pod, pod_dir: Path::new("/run/p"), volumes: Path::new("/run/p/v") };
        plan(&ContainerSpec { mounts: vec![mount], ..container() }, &[], Vec::new(), sources)
    };
    let mounts = planned(BindMount { idmap: Some(userns), ..mount("/m", host) }, Some(userns)).unwrap();
    assert_eq!((at(&mounts, "/m").idmap, at(&mounts, "/etc/hosts").idmap), (Some(userns), Some(userns)));
    let mounts = planned(mount("/m", host), Some(userns)).unwrap();
    assert_eq!((at(&mounts, "/m").idmap, at(&mounts, "/proc").idmap), (None, None));
    assert_eq!(at(&planned(mount("/m", host), None).unwrap(), "/etc/hosts").idmap, None);
    let other = UserNamespace { uids: map(7), ..userns };
    for (asked, pod) in [(Some(userns), None), (Some(other), Some(userns))] {
        assert!(planned(BindMount { idmap: asked, ..mount("/m", host) }, pod).is_err());
    }
    assert!(planned(BindMount { propagation: Propagation::Bidirectional, ..mount("/m", host) }, Some(userns)).is_err());
}

#[test]
fn mounts_travel_only_where_the_host_shares() {
    // A mount of proc is private to nobody else's wishes: what the machine says of it decides.
    let shared = |propagation| {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mountinfo::peers(&text, Path::new("/")).allow(propagation)
    };
    for propagation in [Propagation::HostToContainer, Propagation::Bidirectional] {
        let result = planned(&[BindMount { propagation, ..mount("/m", "/") }], &[]);
        assert_eq!(result.is_ok(), shared(propagation), "{propagation:?}");
        if let Ok(mounts) = result {
            assert_eq!(mounts.root_propagation, propagation);
        }
    }
}

#[test]
fn ex_04_and_ex_10_bad_targets_are_refused() {
    for bad in [
        "",
        "a",
        "/",
        "//",
        "/a/..",
        "/proc",
        "/proc/",
        "/proc/self",
        "/proc/self/attr",
        "/proc/sys",
        "/proc/../proc",
        "/x/../proc/1",
        "/a\0",
        "/a\n",
    ] {
        assert!(planned(&[mount(bad, "/tmp")], &[]).is_err(), "{bad:?}");
    }
    planned(&[mount("/proc/meminfo", "/etc/hostname"), mount("/process", "/tmp")], &[]).unwrap();
    for bad in ["", "a/../../b", "/", "/..", "/a\n", "relative"] {
        assert!(planned(&[], &[bad]).is_err(), "VOLUME {bad:?}");
    }
    assert_eq!(planned(&[], &["/../../etc"]).unwrap().volumes[0].target, "/etc");
    assert!(planned(&[], &["/proc/self/root/etc", "/dev/x", "/sys"]).unwrap().volumes.is_empty());
    for bad in ["", "tmp", "./tmp", "/a\0"] {
        assert!(planned(&[mount("/a", bad)], &[]).is_err(), "source {bad:?}");
    }
    assert!(planned(&[mount("/a", "/tmp"), mount("/b/../a/", "/tmp")], &[]).unwrap_err().to_string().contains("twice"));
}

#[test]
fn protected_paths_are_the_clients_exactly() {
    let given = ["/proc/kcore".to_owned(), "/sys/firmware/".to_owned()];
    assert_eq!(protected("masked path", &given).unwrap(), ["/proc/kcore", "/sys/firmware"]);
    assert_eq!(protected("masked path", &[]).unwrap(), Vec::<String>::new());
    for bad in ["", "proc", "/proc/../etc", "/a\0"] {
        assert!(protected("masked path", &[bad.to_owned()]).is_err(), "{bad:?}");
    }
}

proptest::proptest! {
    /// Whatever is asked for: a parent is mounted before its child, and nothing twice.
    #[test]
    fn parents_come_first(names in proptest::collection::vec("/[ab](/[ab]){0,3}", 0..8)) {
        let list: Vec<_> = names.iter().map(|name| mount(name, "/tmp")).collect();
        if let Ok(mounts) = planned(&list, &["/a", "/b/a"]) {
            let targets = targets(&mounts);
            for (at, target) in targets.iter().enumerate() {
                proptest::prop_assert!(!targets[..at].iter().any(|earlier| path::within(earlier, target)), "{targets:?}");
            }
        }
    }
}
