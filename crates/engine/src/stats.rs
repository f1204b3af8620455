//! What containers and pods use. Read from cgroup files on request, never from a mailbox.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use model::{
    container::ContainerState,
    pod::{PodState, Timestamp},
};
use sys::cgroup::Stats;

use crate::{Inner, blocking::blocking, clock, container::Container, pod::Pod};

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

/// A writable layer.
#[derive(Clone, Debug, Default)]
pub struct Writable {
    /// The directory.
    pub path: PathBuf,
    /// Bytes on disk.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
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

/// Counters of a network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    /// Name in the pod.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Send errors.
    pub tx_errors: u64,
}

/// Earlier readings that later ones are compared with.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    cpu: Option<(Instant, u64)>,
    nano_cores: Option<u64>,
    writable: Option<(Instant, Writable)>,
}

/// A rate over less than this is noise; the last one is answered instead.
const CPU_INTERVAL: Duration = Duration::from_millis(500);
/// Walking a writable layer costs per file, so the figures are this old at most (a kubelet asks every 10 s).
const WRITABLE_AGE: Duration = Duration::from_secs(9);

impl Inner {
    pub(crate) async fn container_usage(self: &Arc<Self>, container: Arc<Container>) -> ContainerUsage {
        let inner = self.clone();
        blocking(move || inner.usage_now(&container)).await
    }

    fn usage_now(&self, container: &Container) -> ContainerUsage {
        let running = matches!(container.state(), ContainerState::Running { .. });
        let cgroup = running.then(|| self.group(&container.plan.cgroup).and_then(|g| g.stats()).ok()).flatten();
        let mut samples = container.usage.lock().unwrap_or_else(PoisonError::into_inner);
        let nano_cores = cgroup.as_ref().and_then(|stats| samples.rate(stats.cpu_ns?));
        let writable = samples.writable(&container.writable(self));
        ContainerUsage { at: clock::now(), cgroup, nano_cores, writable }
    }

    pub(crate) async fn pod_usage(self: &Arc<Self>, pod: Arc<Pod>) -> PodUsage {
        let inner = self.clone();
        blocking(move || {
            let containers = inner.table.containers_of(pod.id).into_iter().map(|c| (c.clone(), inner.usage_now(&c))).collect();
            let ready = matches!(pod.state(), PodState::Ready { .. });
            let cgroup = ready.then(|| inner.group(&pod.cgroup).and_then(|g| g.stats()).ok()).flatten();
            let nano_cores = cgroup.as_ref().and_then(|stats| {
                let mut samples = pod.usage.lock().unwrap_or_else(PoisonError::into_inner);
                samples.rate(stats.cpu_ns?)
            });
            let interfaces = pod.supervisor_pid().filter(|_| ready).map(interfaces_of).unwrap_or_default();
            PodUsage { at: clock::now(), cgroup, nano_cores, interfaces, containers }
        })
        .await
    }
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

    fn writable(&mut self, dir: &Path) -> Writable {
        if let Some((at, writable)) = &self.writable
            && at.elapsed() < WRITABLE_AGE
        {
            return writable.clone();
        }
        let mut writable = Writable { path: dir.to_owned(), ..Writable::default() };
        add_tree(&dir.join("upper"), &mut writable, 0);
        self.writable = Some((Instant::now(), writable.clone()));
        writable
    }
}

/// Adds up a tree without following links. What vanishes meanwhile does not count.
fn add_tree(dir: &Path, sum: &mut Writable, depth: u32) {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        sum.bytes += metadata.blocks() * 512;
        sum.inodes += 1;
        if metadata.is_dir() && depth < 256 {
            add_tree(&entry.path(), sum, depth + 1);
        }
    }
}

/// /proc/PID/net/dev shows the counters of that process's network namespace (proc_pid_net(5)).
fn interfaces_of(pid: u32) -> Vec<InterfaceUsage> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    text.lines().filter_map(interface).filter(|i| i.name != "lo").collect()
}

fn interface(line: &str) -> Option<InterfaceUsage> {
    let (name, counters) = line.split_once(':')?;
    let counters: Vec<u64> = counters.split_ascii_whitespace().map_while(|n| n.parse().ok()).collect();
    let [rx_bytes, _, rx_errors, _, _, _, _, _, tx_bytes, _, tx_errors, ..] = counters[..] else { return None };
    Some(InterfaceUsage { name: name.trim().to_owned(), rx_bytes, rx_errors, tx_bytes, tx_errors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn net_dev_lines() {
        let line = "  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16";
        let expected = InterfaceUsage { name: "eth0".into(), rx_bytes: 1, rx_errors: 3, tx_bytes: 9, tx_errors: 11 };
        assert_eq!(interface(line), Some(expected));
        assert_eq!(interface("face |bytes packets: x"), None);
        assert!(interfaces_of(std::process::id()).iter().all(|i| i.name != "lo"));
    }
}
