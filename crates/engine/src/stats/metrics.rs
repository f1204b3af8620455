//! What monitoring asks of containers and pods besides what they use: more files, and some of them per process.

use std::{path::Path, sync::Arc};

use model::container::ContainerState;
use sys::cgroup::{Detail, Stats};

use super::{InterfaceUsage, Processes, Writable, interfaces};
use crate::{Inner, container::Container, pod::Pod};

/// A container that runs.
#[derive(Clone, Debug)]
pub struct ContainerMetrics {
    /// The container.
    pub container: Arc<Container>,
    /// Path of its cgroup.
    pub cgroup: String,
    /// What it uses.
    pub stats: Stats,
    /// In detail.
    pub detail: Detail,
    /// Its processes.
    pub processes: Option<Processes>,
    /// Its writable layer.
    pub writable: Writable,
}

/// A pod that is ready.
#[derive(Clone, Debug)]
pub struct PodMetrics {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Path of its cgroup.
    pub cgroup: String,
    /// What its cgroup uses, containers and supervisor together.
    pub stats: Stats,
    /// In detail.
    pub detail: Detail,
    /// Interfaces of its network namespace, loopback left out.
    pub interfaces: Vec<InterfaceUsage>,
    /// Its containers that run.
    pub containers: Vec<ContainerMetrics>,
}

/// The file system that writable layers are on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Its device, as [`device_name`] says it.
    pub device: String,
    /// Bytes in all.
    pub bytes: u64,
    /// Inodes in all; 0: as many as fit.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
}

impl Inner {
    /// Metrics of these pods, in order. Those that are not ready have none.
    pub(crate) async fn metrics(self: &Arc<Self>, pods: Vec<Arc<Pod>>) -> Vec<PodMetrics> {
        let each = self.each(pods, Self::pod_metrics).await;
        each.into_iter().filter_map(|(_, metrics)| metrics).collect()
    }

    /// Where writable layers are; `None`: it does not say.
    pub(crate) fn disk(&self) -> Option<Disk> {
        let path = self.store.containers_path();
        let (all, own) = (rustix::fs::statvfs(&path).ok()?, rustix::fs::stat(&path).ok()?);
        let device = device_name(rustix::fs::major(own.st_dev), rustix::fs::minor(own.st_dev));
        Some(Disk { device, bytes: all.f_blocks.saturating_mul(all.f_frsize), inodes: all.f_files, inodes_free: all.f_ffree })
    }

    fn pod_metrics(self: &Arc<Self>, pod: &Arc<Pod>) -> Option<PodMetrics> {
        pod.supervisor_pid()?;
        let group = self.group(&pod.cgroup).ok()?;
        let containers = self.table.containers_of(pod.id);
        Some(PodMetrics {
            pod: pod.clone(),
            cgroup: pod.cgroup.clone(),
            stats: group.stats().ok()?,
            detail: group.detail().ok()?,
            interfaces: interfaces(pod),
            containers: containers.iter().filter_map(|container| self.container_metrics(container)).collect(),
        })
    }

    fn container_metrics(self: &Arc<Self>, container: &Arc<Container>) -> Option<ContainerMetrics> {
        if !matches!(container.state(), ContainerState::Running { .. }) {
            return None;
        }
        let group = self.group(&container.plan.cgroup).ok()?;
        Some(ContainerMetrics {
            container: container.clone(),
            cgroup: container.plan.cgroup.clone(),
            stats: group.stats().ok()?,
            detail: group.detail().ok()?,
            processes: Processes::of(&group),
            writable: self.writable(container),
        })
    }
}

/// "/dev/sda" of 8:0; the numbers themselves if the kernel does not know it (any more).
pub fn device_name(major: u32, minor: u32) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
    match link.ok().as_deref().and_then(Path::file_name) {
        // The kernel writes a slash in a name (cciss/c0d0) as an exclamation mark.
        Some(name) => format!("/dev/{}", name.to_string_lossy().replace('!', "/")),
        None => format!("{major}:{minor}"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_device_that_is_not_there_has_only_its_numbers() {
        assert_eq!(super::device_name(4095, 77), "4095:77");
    }
}
