//! What containers and pods use, as CRI shows it. Figures that the kernel does not have are absent, never zero.

use api::runtime as cri;
use engine::{Container, ContainerUsage, Engine, InterfaceUsage, Pod, PodUsage, Writable};
use model::{container::ContainerState, pod::Timestamp};
use std::sync::Arc;
use sys::cgroup::{Psi, Stats};

use super::view;

/// All containers that are wanted and have not ended.
pub(crate) async fn containers(engine: &Engine, filter: Option<cri::ContainerStatsFilter>) -> Vec<cri::ContainerStats> {
    let filter = filter.unwrap_or_default();
    let wanted = |container: &Arc<Container>| {
        view::id_wanted(&filter.id, || container.id.to_string())
            && view::id_wanted(&filter.pod_sandbox_id, || container.pod.id.to_string())
            && view::labels_wanted(&filter.label_selector, &container.spec.labels)
            && !matches!(container.state(), ContainerState::Exited { .. })
    };
    let wanted = engine.containers().into_iter().rev().filter(wanted).collect();
    engine.containers_usage(wanted).await.iter().map(|(container, usage)| container_stats(container, usage)).collect()
}

/// One container.
pub(crate) async fn container_of(engine: &Engine, container: Arc<Container>) -> Option<cri::ContainerStats> {
    let usage = engine.containers_usage(vec![container]).await;
    usage.first().map(|(container, usage)| container_stats(container, usage))
}

/// All pods that are wanted.
pub(crate) async fn pods(engine: &Engine, filter: Option<cri::PodSandboxStatsFilter>) -> Vec<cri::PodSandboxStats> {
    let filter = filter.unwrap_or_default();
    let wanted = |pod: &Arc<Pod>| {
        view::id_wanted(&filter.id, || pod.id.to_string()) && view::labels_wanted(&filter.label_selector, &pod.spec.labels)
    };
    let wanted = engine.pods().into_iter().rev().filter(wanted).collect();
    engine.pods_usage(wanted).await.into_iter().map(|(pod, usage)| pod_stats(&pod, usage)).collect()
}

/// One pod.
pub(crate) async fn pod_of(engine: &Engine, pod: Arc<Pod>) -> Option<cri::PodSandboxStats> {
    engine.pods_usage(vec![pod]).await.into_iter().next().map(|(pod, usage)| pod_stats(&pod, usage))
}

fn container_stats(container: &Container, usage: &ContainerUsage) -> cri::ContainerStats {
    let at = usage.at;
    let cgroup = usage.cgroup.as_ref();
    cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes {
            id: container.id.to_string(),
            metadata: Some(view::container_metadata(container)),
            labels: container.spec.labels.clone(),
            annotations: container.spec.annotations.clone(),
        }),
        cpu: cgroup.map(|stats| cpu(at, stats, usage.nano_cores)),
        memory: cgroup.map(|stats| memory(at, stats)),
        writable_layer: Some(filesystem(at, &usage.writable)),
        swap: cgroup.and_then(|stats| swap(at, stats)),
        io: cgroup.and_then(|stats| io(at, stats)),
    }
}

fn pod_stats(pod: &Pod, usage: PodUsage) -> cri::PodSandboxStats {
    let at = usage.at;
    let cgroup = usage.cgroup.as_ref();
    let linux = cri::LinuxPodSandboxStats {
        cpu: cgroup.map(|stats| cpu(at, stats, usage.nano_cores)),
        memory: cgroup.map(|stats| memory(at, stats)),
        network: network(at, usage.interfaces),
        process: cgroup.and_then(|stats| stats.pids).map(|pids| cri::ProcessUsage { timestamp: at, process_count: number(pids) }),
        containers: usage.containers.iter().map(|(container, usage)| container_stats(container, usage)).collect(),
        io: cgroup.and_then(|stats| io(at, stats)),
    };
    cri::PodSandboxStats {
        attributes: Some(cri::PodSandboxAttributes {
            id: pod.id.to_string(),
            metadata: Some(view::pod_metadata(&pod.spec.key)),
            labels: pod.spec.labels.clone(),
            annotations: pod.spec.annotations.clone(),
        }),
        linux: Some(linux),
        windows: None,
    }
}

fn number(value: u64) -> Option<cri::UInt64Value> {
    Some(cri::UInt64Value { value })
}

fn cpu(timestamp: Timestamp, stats: &Stats, nano_cores: Option<u64>) -> cri::CpuUsage {
    cri::CpuUsage {
        timestamp,
        usage_core_nano_seconds: stats.cpu_ns.and_then(number),
        usage_nano_cores: nano_cores.and_then(number),
        psi: stats.cpu_psi.map(psi),
    }
}

fn memory(timestamp: Timestamp, stats: &Stats) -> cri::MemoryUsage {
    let available = stats.memory_limit.zip(stats.memory_working_set).map(|(limit, used)| limit.saturating_sub(used));
    cri::MemoryUsage {
        timestamp,
        working_set_bytes: stats.memory_working_set.and_then(number),
        available_bytes: available.and_then(number),
        usage_bytes: stats.memory_usage.and_then(number),
        rss_bytes: stats.memory_rss.and_then(number),
        page_faults: stats.page_faults.and_then(number),
        major_page_faults: stats.major_page_faults.and_then(number),
        psi: stats.memory_psi.map(psi),
    }
}

fn swap(timestamp: Timestamp, stats: &Stats) -> Option<cri::SwapUsage> {
    let used = stats.swap_usage?;
    let available = stats.swap_limit.map(|limit| limit.saturating_sub(used));
    Some(cri::SwapUsage { timestamp, swap_available_bytes: available.and_then(number), swap_usage_bytes: number(used) })
}

fn io(timestamp: Timestamp, stats: &Stats) -> Option<cri::IoUsage> {
    stats.io_psi.map(|pressure| cri::IoUsage { timestamp, psi: Some(psi(pressure)) })
}

fn psi(pressure: Psi) -> cri::PsiStats {
    let data = |p: sys::cgroup::Pressure| cri::PsiData { total: p.total_us, avg10: p.avg10, avg60: p.avg60, avg300: p.avg300 };
    cri::PsiStats { full: Some(data(pressure.full)), some: Some(data(pressure.some)) }
}

/// The first interface is the one with the primary address: it is made first, and the kernel lists by index.
fn network(timestamp: Timestamp, interfaces: Vec<InterfaceUsage>) -> Option<cri::NetworkUsage> {
    let mut interfaces = interfaces.into_iter().map(|interface| cri::NetworkInterfaceUsage {
        rx_bytes: number(interface.received.bytes),
        rx_errors: number(interface.received.errors),
        tx_bytes: number(interface.sent.bytes),
        tx_errors: number(interface.sent.errors),
        name: interface.name,
    });
    let first = interfaces.next()?;
    Some(cri::NetworkUsage { timestamp, default_interface: Some(first), interfaces: interfaces.collect() })
}

fn filesystem(timestamp: Timestamp, writable: &Writable) -> cri::FilesystemUsage {
    cri::FilesystemUsage {
        timestamp,
        fs_id: Some(cri::FilesystemIdentifier { mountpoint: writable.path.display().to_string() }),
        used_bytes: number(writable.bytes),
        inodes_used: number(writable.inodes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_does_not_have_is_absent() {
        let nothing = Stats::default();
        assert_eq!(memory(1, &nothing), cri::MemoryUsage { timestamp: 1, ..Default::default() });
        assert_eq!((swap(1, &nothing), io(1, &nothing), network(1, Vec::new())), (None, None, None));
        let limited = Stats { memory_limit: Some(100), memory_working_set: Some(130), ..Stats::default() };
        assert_eq!(memory(1, &limited).available_bytes, number(0));
    }
}
