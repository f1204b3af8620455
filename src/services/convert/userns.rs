//! User namespaces: the pod's, what a container says of it, and the mappings of mounts.

use api::runtime as cri;
use model::pod::{IdMap, NamespaceMode, PodNamespaces, UserNamespace};

use super::{Result, invalid, known};

/// The user namespace that `options` ask for; `None`: the node's.
pub(super) fn spec(field: &str, options: Option<&cri::UserNamespace>) -> Result<Option<UserNamespace>> {
    let field = format!("{field}.namespace_options.userns_options");
    let Some(options) = options else { return Ok(None) };
    match known(format_args!("{field}.mode"), options.mode)? {
        cri::NamespaceMode::Node if options.uids.is_empty() && options.gids.is_empty() => Ok(None),
        cri::NamespaceMode::Node => Err(invalid(field, "mappings without a user namespace of its own")),
        cri::NamespaceMode::Container => Err(invalid(format_args!("{field}.mode"), "CONTAINER is not a mode of user namespaces")),
        cri::NamespaceMode::Target => Err(invalid(format_args!("{field}.mode"), "TARGET is not a mode of user namespaces")),
        cri::NamespaceMode::Pod => {
            Ok(Some(UserNamespace { uids: map(&field, "uids", &options.uids)?, gids: map(&field, "gids", &options.gids)? }))
        }
    }
}

/// The user namespace of a pod. What is the node's cannot be shared by one that has its own: its root would be nobody there.
pub(super) fn pod(field: &str, options: &cri::NamespaceOption, namespaces: PodNamespaces) -> Result<Option<UserNamespace>> {
    let userns = spec(field, options.userns_options.as_ref())?;
    if userns.is_some() {
        for (name, mode) in [("pid", namespaces.pid), ("ipc", namespaces.ipc)] {
            if mode == NamespaceMode::Node {
                return Err(invalid(
                    format_args!("{field}.namespace_options.{name}"),
                    "NODE: not with a user namespace of the pod's own",
                ));
            }
        }
    }
    Ok(userns)
}

/// A container is in its pod's user namespace; one that says another one is refused.
pub(super) fn check_container(field: &str, options: Option<&cri::NamespaceOption>, pod: Option<UserNamespace>) -> Result<()> {
    let Some(options) = options else { return Ok(()) };
    if options.userns_options.is_some() && spec(field, options.userns_options.as_ref())? != pod {
        return Err(invalid(format_args!("{field}.namespace_options.userns_options"), "not the user namespace of the pod"));
    }
    if pod.is_some() && options.pid == i32::from(cri::NamespaceMode::Node) {
        return Err(invalid(format_args!("{field}.namespace_options.pid"), "NODE: not in a pod with a user namespace of its own"));
    }
    Ok(())
}

/// Mounts can be shown by the pod's mapping or by none.
pub(super) fn check_mounts(field: &str, mounts: &[cri::Mount], pod: Option<UserNamespace>) -> Result<()> {
    for (index, mount) in mounts.iter().enumerate() {
        let field = format!("{field}[{index}]");
        match (mapping(&field, mount)?, pod) {
            (None, _) => {}
            (Some(_), None) => {
                return Err(invalid(format_args!("{field}.uidMappings"), "the pod has no user namespace of its own"));
            }
            (Some(asked), Some(pod)) if asked != pod => {
                return Err(invalid(format_args!("{field}.uidMappings"), "not the mapping of the pod's user namespace"));
            }
            (Some(_), Some(_)) => {}
        }
    }
    Ok(())
}

/// The mapping of one mount.
pub(super) fn mapping(field: &str, mount: &cri::Mount) -> Result<Option<UserNamespace>> {
    if mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty() {
        return Ok(None);
    }
    let (uids, gids) = (map(field, "uidMappings", &mount.uid_mappings)?, map(field, "gidMappings", &mount.gid_mappings)?);
    Ok(Some(UserNamespace { uids, gids }))
}

/// Exactly one run, from the container's 0 on: what a kubelet sends, and what can be undone in one's head.
fn map(field: &str, name: &str, list: &[cri::IdMapping]) -> Result<IdMap> {
    let refuse = |why: String| Err(invalid(format_args!("{field}.{name}"), why));
    match list {
        [one] if one.container_id != 0 => refuse("id 0 of the container is not mapped".into()),
        [one] if one.length == 0 => refuse("an empty mapping".into()),
        // The highest number means "no change" to the kernel (setresuid(2)) and names nobody.
        [one] if one.host_id.checked_add(one.length).is_none() => {
            refuse(format!("{} ids from {} of the host on are more than there are", one.length, one.host_id))
        }
        [one] if one.host_id == 0 => refuse("the host's id 0 cannot be given to a pod".into()),
        [one] => Ok(IdMap { host_id: one.host_id, length: one.length }),
        list => refuse(format!("{} mappings, not one", list.len())),
    }
}

/// The namespace as it was asked for.
pub(crate) fn to_proto(userns: Option<UserNamespace>) -> cri::UserNamespace {
    let list = |map: IdMap| vec![cri::IdMapping { host_id: map.host_id, container_id: 0, length: map.length }];
    match userns {
        None => cri::UserNamespace { mode: cri::NamespaceMode::Node.into(), uids: Vec::new(), gids: Vec::new() },
        Some(UserNamespace { uids, gids }) => {
            cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), uids: list(uids), gids: list(gids) }
        }
    }
}

/// The mappings of a mount as they were asked for: users', groups'.
pub(super) fn mappings(idmap: Option<UserNamespace>) -> (Vec<cri::IdMapping>, Vec<cri::IdMapping>) {
    let shown = to_proto(idmap);
    (shown.uids, shown.gids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(container_id: u32, host_id: u32, length: u32) -> cri::IdMapping {
        cri::IdMapping { host_id, container_id, length }
    }

    fn options(mode: i32, uids: &[cri::IdMapping], gids: &[cri::IdMapping]) -> cri::NamespaceOption {
        let userns = cri::UserNamespace { mode, uids: uids.to_vec(), gids: gids.to_vec() };
        cri::NamespaceOption { userns_options: Some(userns), ..Default::default() }
    }

    fn asked(options: &cri::NamespaceOption) -> Result<Option<UserNamespace>> {
        pod("f", options, PodNamespaces::default())
    }

    const GOOD: UserNamespace =
        UserNamespace { uids: IdMap { host_id: 65536, length: 65536 }, gids: IdMap { host_id: 65536, length: 65536 } };

    #[test]
    fn namespaces_come_back_as_they_were_asked_for() {
        let good = [run(0, 65536, 65536)];
        for (asked_for, got) in [(options(2, &[], &[]), None), (options(0, &good, &good), Some(GOOD))] {
            assert_eq!(asked(&asked_for).unwrap(), got);
            assert_eq!(to_proto(got), asked_for.userns_options.unwrap());
        }
        assert_eq!(asked(&cri::NamespaceOption::default()).unwrap(), None);
        let different = asked(&options(0, &good, &[run(0, 7, 9)])).unwrap().unwrap();
        assert_eq!((different.uids, different.gids), (GOOD.uids, IdMap { host_id: 7, length: 9 }));
    }

    #[test]
    fn refusals_say_why() {
        let good = [run(0, 65536, 65536)];
        for (why, bad) in [
            ("without a user namespace", options(2, &good, &[])),
            ("CONTAINER is not a mode", options(1, &[], &[])),
            ("TARGET is not a mode", options(3, &[], &[])),
            ("no such value", options(4, &[], &[])),
            ("2 mappings", options(0, &[run(0, 5, 1), run(1, 9, 1)], &good)),
            ("0 mappings", options(0, &[], &good)),
            ("gids: 0 mappings", options(0, &good, &[])),
            ("id 0 of the container", options(0, &[run(1, 5, 1)], &good)),
            ("an empty mapping", options(0, &[run(0, 5, 0)], &good)),
            ("more than there are", options(0, &[run(0, u32::MAX, 1)], &good)),
            ("host's id 0", options(0, &[run(0, 0, 65536)], &good)),
        ] {
            let text = asked(&bad).unwrap_err().to_string();
            assert!(text.starts_with("f.namespace_options.userns_options") && text.contains(why), "{text}");
        }
        for namespaces in [
            PodNamespaces { pid: NamespaceMode::Node, ..Default::default() },
            PodNamespaces { ipc: NamespaceMode::Node, ..Default::default() },
        ] {
            assert!(pod("f", &options(0, &good, &good), namespaces).unwrap_err().to_string().contains("NODE: not with"));
            assert!(pod("f", &options(2, &[], &[]), namespaces).is_ok());
        }
    }

    #[test]
    fn containers_agree_with_their_pod() {
        let good = [run(0, 65536, 65536)];
        let check = |options: &cri::NamespaceOption, pod| check_container("f", Some(options), pod);
        assert!(check(&options(0, &good, &good), Some(GOOD)).is_ok());
        assert!(check(&options(2, &[], &[]), None).is_ok());
        assert!(check(&cri::NamespaceOption::default(), Some(GOOD)).is_ok(), "nothing said");
        assert!(check_container("f", None, Some(GOOD)).is_ok());
        for (options, pod) in [
            (options(2, &[], &[]), Some(GOOD)),
            (options(0, &good, &good), None),
            (options(0, &good, &[run(0, 65536, 65535)]), Some(GOOD)),
            (cri::NamespaceOption { pid: 2, ..options(0, &good, &good) }, Some(GOOD)),
        ] {
            assert!(check(&options, pod).is_err(), "{options:?}");
        }
    }

    #[test]
    fn mounts_have_the_pods_mapping_or_none() {
        let good = vec![run(0, 65536, 65536)];
        let mount = |uid_mappings: &[cri::IdMapping], gid_mappings: &[cri::IdMapping]| {
            [cri::Mount { uid_mappings: uid_mappings.into(), gid_mappings: gid_mappings.into(), ..Default::default() }]
        };
        assert!(check_mounts("m", &mount(&good, &good), Some(GOOD)).is_ok());
        assert!(check_mounts("m", &mount(&[], &[]), Some(GOOD)).is_ok());
        for (why, mounts, pod) in [
            ("m[0].uidMappings: the pod has no", mount(&good, &good), None),
            ("m[0].uidMappings: not the mapping", mount(&good, &[run(0, 1, 65536)]), Some(GOOD)),
            ("m[0].gidMappings: 0 mappings", mount(&good, &[]), Some(GOOD)),
        ] {
            let text = check_mounts("m", &mounts, pod).unwrap_err().to_string();
            assert!(text.starts_with(why), "{text}");
        }
        assert_eq!(mapping("m", &mount(&good, &good)[0]).unwrap(), Some(GOOD));
        assert_eq!(mappings(Some(GOOD)), (good.clone(), good));
    }
}
