//! What of the optional kernel features is there: for `creel info`.

use std::{fs, path::Path};

use api::creel::Feature;
use engine::SecurityInfo;

/// Every feature that creel uses where it is there, or that users ask about.
pub(crate) fn all(security: &SecurityInfo) -> Vec<Feature> {
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let filesystem = |name: &str| filesystems.lines().any(|line| line.split_whitespace().next_back() == Some(name));
    let exists = |path: &str| Path::new(path).exists();
    let v2_controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let max_user_namespaces = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    [
        ("overlay", filesystem("overlay")),
        ("erofs", filesystem("erofs")),
        ("seccomp", exists("/proc/sys/kernel/seccomp/actions_avail")),
        ("cgroup namespaces", exists("/proc/self/ns/cgroup")),
        ("user namespaces", max_user_namespaces.trim().parse::<u64>().is_ok_and(|most| most > 0)),
        ("pressure stall information", exists("/proc/pressure/memory")),
        ("block I/O limits", exists("/sys/fs/cgroup/blkio") || v2_controllers.split_whitespace().any(|name| name == "io")),
        ("RDT (resctrl)", exists("/sys/fs/resctrl/schemata")),
        ("AppArmor", security.apparmor),
        ("SELinux", security.selinux),
    ]
    .map(|(name, present)| Feature { name: name.to_owned(), present })
    .to_vec()
}

/// uname(2) release.
pub(crate) fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_a_release_and_every_feature_a_name() {
        assert!(kernel().contains('.'));
        let features = all(&SecurityInfo { apparmor: true, ..SecurityInfo::default() });
        assert!(features.iter().any(|f| f.name == "AppArmor" && f.present));
        assert!(features.iter().all(|f| !f.name.is_empty()));
    }
}
