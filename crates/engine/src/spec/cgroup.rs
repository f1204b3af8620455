//! Names of cgroups, below each hierarchy's root. All are functions of ids, so that recovery finds them.

use model::{ContainerId, ExecId, PodId};

use super::error::{Error, cut};
use crate::driver::{CgroupDriver, Placement};

/// The pod's cgroup: what the client names (a kubelet makes one per pod), or one of ours in the default parent. With
/// systemd always a scope of ours, in the slice that the client names.
///
/// # Errors
/// Not absolute, empty parts, `.`, `..`, control characters, or of the other driver's form.
pub(crate) fn pod(given: &str, placement: &Placement, id: PodId) -> Result<String, Error> {
    let default_parent = placement.parent.as_str();
    if placement.driver == CgroupDriver::Systemd {
        let slice = slice(if given.is_empty() { default_parent } else { given })?;
        return Ok(format!("{}/creel-{id}.scope", slice.trim_end_matches('/')));
    }
    if given.is_empty() {
        return check(default_parent).map(|parent| format!("{}/{id}", parent.trim_end_matches('/')));
    }
    // The root itself is everybody's; a pod gets its own place in it.
    check(given).map(|path| if path == "/" { format!("/{id}") } else { path.to_owned() })
}

/// The supervisor's, in the pod's.
pub fn supervisor(pod_cgroup: &str, id: PodId) -> String {
    format!("{pod_cgroup}/creel-{id}")
}

/// A container's, in the pod's.
pub fn container(pod_cgroup: &str, id: ContainerId) -> String {
    format!("{pod_cgroup}/{id}")
}

/// That of a process beside the main one, in the container's, so that it can be killed with all its children.
pub fn exec(container_cgroup: &str, id: ExecId) -> String {
    format!("{container_cgroup}/exec-{id}")
}

/// The cgroup of a slice, which is named by its name or, as kubelets do it, by that path itself.
fn slice(name: &str) -> Result<String, Error> {
    let refuse = |why| Err(Error::CgroupParent { path: cut(name), why });
    let unit = match name.trim_end_matches('/').rsplit_once('/') {
        Some((_, unit)) if name.starts_with('/') => unit,
        None if name.starts_with('/') => "-.slice",
        _ => name,
    };
    if name.starts_with('/') && !unit.ends_with(".slice") {
        return refuse(
            "is a path, and creel's cgroup driver is systemd, which wants a slice: set the kubelet's driver to the same",
        );
    }
    let path = systemd::path_of(unit).map_err(|e| Error::CgroupParent { path: cut(name), why: e.why })?;
    if name.starts_with('/') && name.trim_end_matches('/') != path.trim_end_matches('/') {
        return refuse("is not where systemd has the slice that it ends with");
    }
    Ok(path)
}

fn check(path: &str) -> Result<&str, Error> {
    let refuse = |why| Err(Error::CgroupParent { path: cut(path), why });
    if path.ends_with(".slice") && !path.contains('/') {
        return refuse("is a systemd slice, and creel's cgroup driver is cgroupfs: set the kubelet's driver to the same");
    }
    if !path.starts_with('/') {
        return refuse("must be absolute, e.g. /kubepods/burstable/podX");
    }
    let trimmed = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
    if trimmed.len() > 1024 {
        return refuse("is longer than 1024 bytes");
    }
    if trimmed.chars().any(char::is_control) {
        return refuse("has control characters");
    }
    if trimmed != "/" && trimmed[1..].split('/').any(|part| part.is_empty() || part == "." || part == ".." || part.len() > 255) {
        return refuse("has an empty, `.`, `..` or overlong part");
    }
    Ok(trimmed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroupfs(parent: &str) -> Placement {
        Placement { driver: CgroupDriver::Cgroupfs, parent: parent.to_owned() }
    }

    #[test]
    fn with_systemd_a_pod_is_a_scope_in_its_slice() {
        let (id, placement) =
            (PodId::from_bytes([0xab; 32]), Placement { driver: CgroupDriver::Systemd, parent: "creel.slice".into() });
        let scope = format!("creel-{}.scope", "ab".repeat(32));
        assert_eq!(pod("", &placement, id).unwrap(), format!("/creel.slice/{scope}"));
        assert_eq!(pod("a-b.slice", &placement, id).unwrap(), format!("/a.slice/a-b.slice/{scope}"));
        assert_eq!(pod("-.slice", &placement, id).unwrap(), format!("/{scope}"));
        // Kubelets name the whole path.
        assert_eq!(pod("/a.slice/a-b.slice", &placement, id).unwrap(), format!("/a.slice/a-b.slice/{scope}"));
        assert_eq!(pod("/test.slice/", &placement, id).unwrap(), format!("/test.slice/{scope}"));
        assert_eq!(pod("/", &placement, id).unwrap(), format!("/{scope}"));
        for (bad, why) in [
            ("/kubepods/podX", "is a path"),
            ("a--b.slice", "empty part"),
            ("a", ".slice"),
            ("../a.slice", "slash"),
            ("/../a.slice", "is not where"),
            ("/a-b.slice", "is not where"),
            ("/b.slice/a.slice", "is not where"),
            ("//a.slice", "is not where"),
        ] {
            let error = pod(bad, &placement, id).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn names_follow_from_ids() {
        let id = PodId::from_bytes([0xab; 32]);
        let hex = "ab".repeat(32);
        let pod = |given: &str, parent: &str, id| super::pod(given, &cgroupfs(parent), id);
        assert_eq!(pod("", "/creel", id).unwrap(), format!("/creel/{hex}"));
        assert_eq!(pod("", "/", id).unwrap(), format!("/{hex}"));
        assert_eq!(pod("/", "/creel", id).unwrap(), format!("/{hex}"));
        assert_eq!(pod("/kubepods/burstable/podX/", "/creel", id).unwrap(), "/kubepods/burstable/podX");
        assert_eq!(supervisor("/k/p", id), format!("/k/p/creel-{hex}"));
        let container_id = ContainerId::from_bytes([1; 32]);
        assert_eq!(container("/k/p", container_id), format!("/k/p/{container_id}"));
        assert!(exec("/k/p/c", ExecId::from_bytes([2; 32])).starts_with("/k/p/c/exec-0202"));
    }

    #[test]
    fn bad_parents_are_refused_with_the_reason() {
        let long = format!("/{}", "a/".repeat(600));
        for (bad, why) in [
            ("kubepods-burstable-podX.slice", "systemd slice"),
            ("kubepods/podX", "must be absolute"),
            ("/a/../b", "`..`"),
            ("/a//b", "empty"),
            ("/./a", "`.`"),
            ("/a\nb", "control"),
            ("/a\0", "control"),
            ("///", "empty"),
            (&long, "longer"),
        ] {
            let error = pod(bad, &cgroupfs("/creel"), PodId::from_bytes([0; 32])).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
