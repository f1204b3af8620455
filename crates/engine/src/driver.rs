//! Who owns the tree of cgroups (Kubernetes' "cgroup driver"). With cgroupfs nobody does, and groups are made where a client
//! names them. With systemd all of it is systemd's but what it gives away: one scope per pod, in the slice that the client
//! names. Below its scope a pod looks the same with both: the supervisor's group and one per container.

use model::{ErrorKind, PodId};
use sys::cgroup::{Hierarchies, Version};
use systemd::{Manager, Scope};

use crate::{
    Inner,
    error::{About, Error, Step},
    spec,
};

/// The driver in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// Parents are paths.
    Cgroupfs,
    /// Parents are slices.
    Systemd,
}

impl CgroupDriver {
    /// Its name, as kubelets and configuration files have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }
}

/// Where the cgroups of pods go.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    pub driver: CgroupDriver,
    /// Parent of pods whose client names none: a path or a slice.
    pub parent: String,
}

impl Placement {
    /// `wanted`: `None` follows the form of `parent`, and where that is empty the machine: systemd's driver where systemd is
    /// the manager of a machine with cgroup v2 and answers. Blocks.
    pub(crate) fn settle(wanted: Option<CgroupDriver>, parent: &str, cgroups: &Hierarchies) -> Result<Self, Error> {
        let driver = match (wanted, parent) {
            (Some(CgroupDriver::Cgroupfs), _) => CgroupDriver::Cgroupfs,
            (None, parent) if parent.starts_with('/') => CgroupDriver::Cgroupfs,
            (None, "") => match lacking(cgroups) {
                None => CgroupDriver::Systemd,
                Some(why) => {
                    tracing::info!(why, "cgroup driver cgroupfs");
                    CgroupDriver::Cgroupfs
                }
            },
            (Some(CgroupDriver::Systemd), _) | (None, _) => match lacking(cgroups) {
                None => CgroupDriver::Systemd,
                Some(why) => {
                    let why = format!("the systemd cgroup driver cannot be used here: {why}");
                    return Err(Error::new(ErrorKind::Unsupported, About::Engine, why));
                }
            },
        };
        let parent = match (parent, driver) {
            ("", CgroupDriver::Cgroupfs) => "/creel",
            ("", CgroupDriver::Systemd) => "creel.slice",
            (parent, _) => parent,
        };
        let placement = Self { driver, parent: parent.to_owned() };
        spec::cgroup::pod("", &placement, PodId::from_bytes([0; 32])).step(About::Engine, "configuration")?;
        Ok(placement)
    }
}

/// What systemd's driver needs and is not there.
fn lacking(cgroups: &Hierarchies) -> Option<String> {
    if !systemd::is_running() {
        return Some("systemd is not this system's manager".to_owned());
    }
    if cgroups.version() == Version::V1 {
        return Some("systemd gives groups away on cgroup v2 only, and this machine has v1".to_owned());
    }
    Manager::default().check().err().map(|e| crate::chain(&e))
}

/// Makes a pod's scope around its supervisor. Blocks.
pub(crate) fn enter_scope(inner: &Inner, pod: PodId, cgroup: &str, supervisor: u32) -> Result<(), Error> {
    let (parent, name) = cgroup.rsplit_once('/').unwrap_or(("", cgroup));
    let slice = parent.rsplit_once('/').map_or("-.slice", |(_, slice)| slice);
    let scope = Scope {
        name: name.to_owned(),
        slice: slice.to_owned(),
        description: format!("creel pod {}", pod.short()),
        pid: supervisor,
    };
    Manager::default().start(&scope).step(pod, "ask systemd for a scope")?;
    if inner.group(cgroup).step(pod, "find the scope's cgroup")?.exists() {
        return Ok(());
    }
    let why = format!("systemd made {name}, but not at {cgroup}: is it the manager of another cgroup namespace?");
    Err(Error::new(ErrorKind::Unsupported, About::Pod(pod), why))
}

/// Gives a scope back, with whatever is left in it killed first. Blocks.
pub(crate) fn leave_scope(inner: &Inner, pod: PodId, cgroup: &str) -> Result<(), Error> {
    inner.kill_group(cgroup).step(pod, "kill what is left in the scope")?;
    let name = cgroup.rsplit_once('/').map_or(cgroup, |(_, name)| name);
    // Without systemd it is a directory like any other.
    if systemd::is_running() {
        Manager::default().stop(name).step(pod, "give the scope back to systemd")?;
    }
    inner.group(cgroup).and_then(|group| group.remove()).step(pod, "remove the scope's cgroup")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(wanted: Option<CgroupDriver>, parent: &str) -> Result<(CgroupDriver, String), String> {
        let cgroups = Hierarchies::detect().unwrap();
        Placement::settle(wanted, parent, &cgroups).map(|p| (p.driver, p.parent)).map_err(|e| e.chain())
    }

    #[test]
    fn the_form_of_the_parent_and_the_machine_decide() {
        let fits = lacking(&Hierarchies::detect().unwrap()).is_none();
        let cgroupfs = |parent: &str| Ok((CgroupDriver::Cgroupfs, parent.to_owned()));
        assert_eq!(settle(None, "/a/b"), cgroupfs("/a/b"));
        assert_eq!(settle(Some(CgroupDriver::Cgroupfs), ""), cgroupfs("/creel"));
        assert!(settle(Some(CgroupDriver::Cgroupfs), "a.slice").unwrap_err().contains("is a systemd slice"));
        if fits {
            let systemd = |parent: &str| Ok((CgroupDriver::Systemd, parent.to_owned()));
            assert_eq!(settle(None, ""), systemd("creel.slice"));
            assert_eq!(settle(None, "a-b.slice"), systemd("a-b.slice"));
            assert!(settle(Some(CgroupDriver::Systemd), "/a").unwrap_err().contains("is a path"));
        } else {
            assert_eq!(settle(None, ""), cgroupfs("/creel"));
            for (wanted, parent) in [(None, "a.slice"), (Some(CgroupDriver::Systemd), ""), (Some(CgroupDriver::Systemd), "/a")] {
                let error = settle(wanted, parent).unwrap_err();
                assert!(error.contains("the systemd cgroup driver cannot be used here: "), "{error}");
            }
        }
    }
}
