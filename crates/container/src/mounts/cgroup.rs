//! What a container sees at /sys/fs/cgroup: its own groups, by binds of them, so that it looks the same with and without a
//! cgroup namespace. Read-only unless the plan says otherwise; never `release_agent` of a root (R20).

use std::os::fd::OwnedFd;

use model::plan::{ContainerPlan, MountFlags};
use rustix::fs::{Mode, OFlags, mkdirat, openat, symlinkat};
use sys::{
    cgroup::{Hierarchies, Version},
    mount::{self, Change, Depth},
};

use super::{attributes, filesystem, labelled, make_readonly};
use crate::error::{At, Step};

/// The mounts of the view.
#[derive(Debug)]
pub(super) enum View {
    /// v2: one bind.
    V2(OwnedFd),
    /// v1: a tmpfs with a bind for each hierarchy.
    V1 { tmpfs: OwnedFd, binds: Vec<Bind>, readonly: bool },
}

#[derive(Debug)]
pub(super) struct Bind {
    name: String,
    /// Controllers of a hierarchy that has several get links of their own.
    links: Vec<String>,
    mount: OwnedFd,
}

impl View {
    pub(super) fn prepare(hierarchies: &Hierarchies, plan: &ContainerPlan, flags: MountFlags) -> Step<Self> {
        let step = || format!("bind cgroup {:?}", plan.cgroup);
        let bind = |root: &std::path::Path, path: &str, depth| {
            let clone = mount::clone_path(root.join(path.trim_start_matches('/')), depth).at(step)?;
            let propagation = Some(mount::Propagation::PRIVATE);
            let change = Change { set: attributes(flags), propagation, ..Change::default() };
            mount::change(&clone, depth, &change).at(step).map(|()| clone)
        };
        if hierarchies.version() == Version::V2 {
            let mut roots = hierarchies.mounts().map(|(root, _)| root);
            let root = roots.next().unwrap_or_else(|| std::path::Path::new("/sys/fs/cgroup"));
            // Without a namespace of its own a container is meant to see the node's groups.
            let (path, depth) =
                if plan.own_cgroup_namespace { (plan.cgroup.as_str(), Depth::Top) } else { ("/", Depth::Recursive) };
            return bind(root, path, depth).map(Self::V2);
        }
        let mut options = vec![("mode", "755")];
        options.extend(labelled(plan.mount_label.as_deref()));
        let tmpfs = filesystem("tmpfs", &options, MountFlags { readonly: false, ..flags }).at(step)?;
        let mut binds = Vec::new();
        for (root, controllers) in hierarchies.mounts() {
            let name = root.file_name().map_or_else(|| controllers.join(","), |name| name.to_string_lossy().into_owned());
            let links = controllers.iter().filter(|c| controllers.len() > 1 && **c != name).cloned().collect();
            binds.push(Bind { name, links, mount: bind(root, &plan.cgroup, Depth::Top)? });
        }
        Ok(Self::V1 { tmpfs, binds, readonly: flags.readonly })
    }

    pub(super) fn attach(&self, target: &OwnedFd) -> Step<()> {
        let step = || "mount cgroups".to_owned();
        let (tmpfs, binds, readonly) = match self {
            Self::V2(bind) => return mount::attach(bind, target).at(step),
            Self::V1 { tmpfs, binds, readonly } => (tmpfs, binds, *readonly),
        };
        mount::attach(tmpfs, target).at(step)?;
        for bind in binds {
            mkdirat(tmpfs, bind.name.as_str(), Mode::from_raw_mode(0o755)).at(step)?;
            let place = openat(tmpfs, bind.name.as_str(), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            mount::attach(&bind.mount, place.at(step)?).at(step)?;
            for link in &bind.links {
                symlinkat(bind.name.as_str(), tmpfs, link.as_str()).at(step)?;
            }
        }
        if readonly { make_readonly(tmpfs).at(step) } else { Ok(()) }
    }
}
