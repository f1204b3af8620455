//! Which hierarchies the machine has.

use std::{path::PathBuf, sync::Arc};

use crate::{Context, Error};

/// Controllers of v1 by the names that /proc/mounts says them with; other words there are options.
const CONTROLLERS: [&str; 14] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
    "misc",
];

/// Which of the two interfaces limits are set through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Controllers in hierarchies of their own; a cgroup2 mount beside them is left alone.
    V1,
    /// One hierarchy.
    V2,
}

/// The hierarchies of the machine; cheap to clone.
#[derive(Clone, Debug)]
pub struct Hierarchies(Arc<Vec<Hierarchy>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hierarchy {
    V1 { root: PathBuf, controllers: Vec<String> },
    V2 { root: PathBuf },
}

impl Hierarchies {
    /// Looks at what is mounted.
    ///
    /// # Errors
    /// Missing: no hierarchy is mounted.
    pub fn detect() -> Result<Self, Error> {
        let file = "/proc/self/mountinfo";
        Self::parse(&std::fs::read_to_string(file).during(|| format!("read({file:?})"))?)
    }

    /// The same from the text of `/proc/PID/mountinfo`.
    ///
    /// # Errors
    /// Missing: no hierarchy is in it.
    pub fn parse(mountinfo: &str) -> Result<Self, Error> {
        let (mut v1, mut v2): (Vec<Hierarchy>, Option<Hierarchy>) = (Vec::new(), None);
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(root) = left.split(' ').nth(4).map(|path| PathBuf::from(unescape(path))) else { continue };
            let mut right = right.split(' ');
            match (right.next(), right.nth(1)) {
                (Some("cgroup"), Some(options)) => {
                    let names = options.split(',').filter(|o| CONTROLLERS.contains(o) || o.starts_with("name="));
                    let controllers: Vec<String> = names.map(str::to_owned).collect();
                    let known = |h: &Hierarchy| controllers.iter().any(|c| h.has(c));
                    if !controllers.is_empty() && !v1.iter().any(known) {
                        v1.push(Hierarchy::V1 { root, controllers });
                    }
                }
                (Some("cgroup2"), _) if v2.is_none() => v2 = Some(Hierarchy::V2 { root }),
                _ => {}
            }
        }
        let limits = |h: &Hierarchy| ["cpu", "memory", "pids"].into_iter().any(|c| h.has(c));
        match v2 {
            Some(v2) if !v1.iter().any(limits) => Ok(Self(Arc::new(vec![v2]))),
            _ if !v1.is_empty() => Ok(Self(Arc::new(v1))),
            _ => Err(Error::Missing("cgroup hierarchy mounted".to_owned())),
        }
    }

    /// The one hierarchy of cgroup v2 at a directory; for tests beside v1.
    pub fn v2_at(root: impl Into<PathBuf>) -> Self {
        Self(Arc::new(vec![Hierarchy::V2 { root: root.into() }]))
    }

    /// Which interface it is.
    pub fn version(&self) -> Version {
        if self.iter().any(|h| matches!(h, Hierarchy::V2 { .. })) { Version::V2 } else { Version::V1 }
    }

    /// What a container sees at `/sys/fs/cgroup`: where each hierarchy is mounted on the host, and which controllers it
    /// has (none for v2).
    pub fn mounts(&self) -> impl Iterator<Item = (&std::path::Path, &[String])> {
        self.iter().map(|hierarchy| match hierarchy {
            Hierarchy::V1 { root, controllers } => (root.as_path(), controllers.as_slice()),
            Hierarchy::V2 { root } => (root.as_path(), &[][..]),
        })
    }

    /// Whether a controller can be used by groups at all ("memory", "hugetlb", ...).
    pub fn has(&self, controller: &str) -> bool {
        self.iter().any(|hierarchy| match hierarchy {
            Hierarchy::V1 { .. } => hierarchy.has(controller),
            Hierarchy::V2 { root } => std::fs::read_to_string(root.join("cgroup.controllers"))
                .is_ok_and(|text| text.split_ascii_whitespace().any(|name| name == controller)),
        })
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Hierarchy> {
        self.0.iter()
    }

    /// The hierarchy where a controller's files are.
    pub(super) fn with(&self, controller: &str) -> Option<&Hierarchy> {
        self.iter().find(|h| matches!(h, Hierarchy::V2 { .. }) || h.has(controller))
    }

    /// The one whose sub-groups cost least: they only tell processes apart.
    pub(super) fn for_tracking(&self) -> Option<&Hierarchy> {
        self.with("name=systemd").or_else(|| self.with("pids")).or_else(|| self.iter().next())
    }
}

impl Hierarchy {
    pub(super) fn has(&self, controller: &str) -> bool {
        match self {
            Self::V1 { controllers, .. } => controllers.iter().any(|name| name == controller),
            Self::V2 { .. } => false,
        }
    }

    pub(super) fn root(&self) -> &std::path::Path {
        match self {
            Self::V1 { root, .. } | Self::V2 { root } => root,
        }
    }

    /// The directory of a group; `path` is absolute.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }
}

/// Blanks in mount points are written `\040` (proc(5)).
fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(path.to_owned(), |path, (from, to)| path.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:32 / /mnt/again rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

    #[test]
    fn hybrid_machines_are_v1() {
        let all = Hierarchies::parse(HYBRID).unwrap();
        assert_eq!(all.version(), Version::V1);
        let mounts: Vec<_> = all.mounts().map(|(root, c)| (root.to_str().unwrap().to_owned(), c.join("+"))).collect();
        let expected = [("cpu,cpuacct", "cpu+cpuacct"), ("memory", "memory"), ("systemd", "name=systemd")];
        assert_eq!(mounts, expected.map(|(d, c)| (format!("/sys/fs/cgroup/{d}"), c.to_owned())));
        assert!(all.for_tracking().unwrap().has("name=systemd"));
    }

    #[test]
    fn only_cgroup2_is_v2_even_beside_a_named_hierarchy() {
        let unified = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(Hierarchies::parse(unified).unwrap().version(), Version::V2);
        let named = format!("{unified}\n40 31 0:37 / /mnt/a\\040b rw - cgroup cgroup rw,name=x");
        assert_eq!(Hierarchies::parse(&named).unwrap().version(), Version::V2);
        assert!(matches!(Hierarchies::parse("garbage\n - - -"), Err(Error::Missing(_))));
    }
}
