//! What containers and pods use. Read from cgroup files on request, never from a mailbox.

mod metrics;
mod network;
mod processes;
mod writable;

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use model::{
    container::ContainerState,
    pod::{PodState, Timestamp},
};
use sys::cgroup::Stats;

pub use metrics::{ContainerMetrics, Disk, PodMetrics, device_name};
pub use network::{InterfaceUsage, Traffic};
pub use processes::Processes;
pub use writable::Writable;

pub(crate) use writable::{support as quota_support, tree_bytes};

use crate::{Inner, blocking::blocking, clock, container::Container, pod::Pod};

/// How many threads read at once.
const READERS: usize = 4;
/// A rate over less than this is noise; the last one is answered instead.
const CPU_INTERVAL: Duration = Duration::from_millis(500);

/// What one container uses.
#[derive(Clone, Debug)]
pub struct ContainerUsage {
    /// When this was read.
    pub at: Timestamp,
    /// cgroup figures; `None`: it does not run.
    pub cgroup: Option<Stats>,
    /// CPU use over the last interval in nanocores; `None` on the first reading.
    pub nano_cores: Option<u64>,
    /// Its writable layer.
    pub writable: Writable,
}

/// What one pod uses.
#[derive(Clone, Debug)]
pub struct PodUsage {
    /// When this was read.
    pub at: Timestamp,
    /// The pod's cgroup, supervisor included; `None`: it is not ready.
    pub cgroup: Option<Stats>,
    /// CPU use over the last interval in nanocores; `None` on the first reading.
    pub nano_cores: Option<u64>,
    /// Interfaces of its network namespace, loopback left out.
    pub interfaces: Vec<InterfaceUsage>,
    /// Its containers.
    pub containers: Vec<(Arc<Container>, ContainerUsage)>,
}

/// Earlier readings that later ones are compared with.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    cpu: Option<(Instant, u64)>,
    nano_cores: Option<u64>,
    writable: Option<writable::Walked>,
    /// Somebody walks the writable layer.
    walking: bool,
}

impl Inner {
    /// Containers with what they use, in order.
    pub(crate) async fn containers_usage(
        self: &Arc<Self>,
        containers: Vec<Arc<Container>>,
    ) -> Vec<(Arc<Container>, ContainerUsage)> {
        self.each(containers, |inner, container| inner.usage_now(container)).await
    }

    /// Pods with what they use, in order.
    pub(crate) async fn pods_usage(self: &Arc<Self>, pods: Vec<Arc<Pod>>) -> Vec<(Arc<Pod>, PodUsage)> {
        self.each(pods, Self::pod_usage_now).await
    }

    /// What all containers have written together: bytes and inodes.
    pub(crate) async fn writable_total(self: &Arc<Self>) -> (u64, u64) {
        let each = self.each(self.table.containers(), Self::writable).await;
        each.iter().fold((0, 0), |(bytes, inodes), (_, writable)| (bytes + writable.bytes, inodes + writable.inodes))
    }

    /// Some threads go through a list together: a reading is too short to be worth a thread of its own.
    async fn each<T, R>(self: &Arc<Self>, list: Vec<Arc<T>>, read: fn(&Arc<Self>, &Arc<T>) -> R) -> Vec<(Arc<T>, R)>
    where
        T: Send + Sync + 'static,
        R: Send + 'static,
    {
        let size = list.len().div_ceil(READERS).max(1);
        let jobs = list.chunks(size).map(|part| {
            let (inner, part) = (self.clone(), part.to_vec());
            blocking(move || part.into_iter().map(|one| (one.clone(), read(&inner, &one))).collect::<Vec<_>>())
        });
        futures_util::future::join_all(jobs).await.into_iter().flatten().collect()
    }

    fn usage_now(self: &Arc<Self>, container: &Arc<Container>) -> ContainerUsage {
        let running = matches!(container.state(), ContainerState::Running { .. });
        let cgroup = running.then(|| self.group(&container.plan.cgroup).and_then(|g| g.stats()).ok()).flatten();
        let nano_cores = cgroup.as_ref().and_then(|stats| {
            let mut samples = container.usage.lock().unwrap_or_else(PoisonError::into_inner);
            samples.rate(stats.cpu_ns?)
        });
        ContainerUsage { at: clock::now(), cgroup, nano_cores, writable: self.writable(container) }
    }

    fn pod_usage_now(self: &Arc<Self>, pod: &Arc<Pod>) -> PodUsage {
        let containers = self.table.containers_of(pod.id).into_iter().map(|c| (c.clone(), self.usage_now(&c))).collect();
        let ready = matches!(pod.state(), PodState::Ready { .. });
        let cgroup = ready.then(|| self.group(&pod.cgroup).and_then(|g| g.stats()).ok()).flatten();
        let nano_cores = cgroup.as_ref().and_then(|stats| {
            let mut samples = pod.usage.lock().unwrap_or_else(PoisonError::into_inner);
            samples.rate(stats.cpu_ns?)
        });
        PodUsage { at: clock::now(), cgroup, nano_cores, interfaces: interfaces(pod), containers }
    }
}

/// Those of a pod that is ready and has a network of its own: the host's are not the pod's to count.
pub(crate) fn interfaces(pod: &Pod) -> Vec<InterfaceUsage> {
    let own = matches!(pod.state(), PodState::Ready { network: model::pod::Network::Pod { .. } });
    pod.supervisor_pid().filter(|_| own).map(network::interfaces_of).unwrap_or_default()
}

impl Samples {
    fn rate(&mut self, cpu_nanos: u64) -> Option<u64> {
        let now = Instant::now();
        match self.cpu {
            None => self.cpu = Some((now, cpu_nanos)),
            Some((then, before)) if now - then >= CPU_INTERVAL => {
                let used = u128::from(cpu_nanos.saturating_sub(before));
                self.nano_cores = u64::try_from(used * 1_000_000_000 / (now - then).as_nanos().max(1)).ok();
                self.cpu = Some((now, cpu_nanos));
            }
            Some(_) => {}
        }
        self.nano_cores
    }
}
