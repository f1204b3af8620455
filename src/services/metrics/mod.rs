//! Pod metrics: what the kubelet makes its /metrics/cadvisor of. A value is an unsigned integer in CRI, so that seconds
//! lose their fractions; a figure that the kernel does not have is absent, never zero.

mod families;

use api::runtime as cri;
use engine::{ContainerMetrics, Disk, Engine, InterfaceUsage, PodMetrics, Processes, Writable, device_name};
use model::{Resources, container::ContainerState, pod::Timestamp};
use sys::cgroup::{Detail, Psi, Stats};

use self::families::{self as family, Family};
use super::{events, view};

const NANOS: u64 = 1_000_000_000;
const MICROS: u64 = 1_000_000;
/// What the kernel gives to a group for which nobody says anything (kernel/sched/core.c).
const SHARES: u64 = 1024;
const PERIOD: u64 = 100_000;

/// Every metric that there can be.
pub(crate) fn descriptors() -> Vec<cri::MetricDescriptor> {
    family::ALL.iter().map(|family| family.descriptor()).collect()
}

/// The metrics of all pods that are ready.
pub(crate) async fn all(engine: &Engine) -> Vec<cri::PodSandboxMetrics> {
    let pods = engine.metrics(engine.pods()).await;
    let disk = engine.disk();
    pods.iter().map(|pod| pod_metrics(pod, disk.as_ref())).collect()
}

fn pod_metrics(metrics: &PodMetrics, disk: Option<&Disk>) -> cri::PodSandboxMetrics {
    let (pod, key) = (&metrics.pod, &metrics.pod.spec.key);
    // No container and no image: sums over containers leave out what belongs to the pod as a whole.
    let labels = [&metrics.cgroup, &pod.id.to_string(), "", &key.namespace, &key.name, ""];
    let mut series = Series::new(labels);
    series.seen(pod.created_at);
    series.usage(&metrics.stats, &metrics.detail);
    for interface in &metrics.interfaces {
        series.network(interface);
    }
    cri::PodSandboxMetrics {
        pod_sandbox_id: pod.id.to_string(),
        metrics: series.metrics,
        container_metrics: metrics.containers.iter().map(|container| container_metrics(container, disk)).collect(),
    }
}

fn container_metrics(metrics: &ContainerMetrics, disk: Option<&Disk>) -> cri::ContainerMetrics {
    let container = &metrics.container;
    let (key, id) = (&container.pod.spec.key, container.id.to_string());
    let image = view::image_name(container);
    let labels = [&metrics.cgroup, &id, &image, &key.namespace, &key.name, &container.spec.key.name];
    let mut series = Series::new(labels.map(String::as_str));
    if let ContainerState::Running { started_at } = container.state() {
        series.seen(started_at);
    }
    series.usage(&metrics.stats, &metrics.detail);
    series.processes(metrics.processes);
    if let Some(disk) = disk {
        series.disk(&metrics.writable, disk);
    }
    series.spec(&container.resources(), &metrics.detail);
    cri::ContainerMetrics { container_id: id, metrics: series.metrics }
}

/// The metrics of one thing, all with its labels.
struct Series {
    labels: Vec<String>,
    metrics: Vec<cri::Metric>,
}

impl Series {
    fn new(labels: [&str; family::BASE.len()]) -> Self {
        Self { labels: labels.map(str::to_owned).into(), metrics: Vec::with_capacity(family::ALL.len()) }
    }

    fn add(&mut self, family: &Family, value: impl Into<Option<u64>>) {
        self.add_with(family, &[], value);
    }

    fn add_with(&mut self, family: &Family, labels: &[&str], value: impl Into<Option<u64>>) {
        debug_assert_eq!(labels.len(), family.keys.len(), "{}", family.name);
        let Some(value) = value.into() else { return };
        self.metrics.push(cri::Metric {
            name: family.name.to_owned(),
            // Measured just now.
            timestamp: 0,
            metric_type: family.kind.into(),
            label_values: self.labels.iter().cloned().chain(labels.iter().map(|label| (*label).to_owned())).collect(),
            value: Some(cri::UInt64Value { value }),
        });
    }

    fn seen(&mut self, started_at: Timestamp) {
        let seconds = |at: Timestamp| u64::try_from(at).map_or(0, |nanos| nanos / NANOS);
        self.add(&family::LAST_SEEN, seconds(events::now()));
        self.add(&family::START_TIME, seconds(started_at));
    }

    fn usage(&mut self, stats: &Stats, detail: &Detail) {
        self.cpu(stats, detail);
        self.memory(stats, detail);
        self.devices(detail);
        self.add(&family::OOM_EVENTS, stats.oom_kills);
        let pressures = [
            (stats.cpu_psi, &family::PRESSURE_CPU_STALLED, &family::PRESSURE_CPU_WAITING),
            (stats.memory_psi, &family::PRESSURE_MEMORY_STALLED, &family::PRESSURE_MEMORY_WAITING),
            (stats.io_psi, &family::PRESSURE_IO_STALLED, &family::PRESSURE_IO_WAITING),
        ];
        for (psi, stalled, waiting) in pressures {
            self.add(stalled, psi.map(|psi: Psi| psi.full.total_us / MICROS));
            self.add(waiting, psi.map(|psi: Psi| psi.some.total_us / MICROS));
        }
        self.add(&family::THREADS, stats.pids);
        self.add(&family::THREADS_MAX, stats.pids.map(|_| detail.pids_limit.unwrap_or(0)));
    }

    fn cpu(&mut self, stats: &Stats, detail: &Detail) {
        let seconds = |nanos: Option<u64>| nanos.map(|nanos| nanos / NANOS);
        self.add_with(&family::CPU_USAGE, &["total"], seconds(stats.cpu_ns));
        self.add(&family::CPU_USER, seconds(detail.cpu_user_ns));
        self.add(&family::CPU_SYSTEM, seconds(detail.cpu_system_ns));
        self.add(&family::CFS_PERIODS, detail.cfs_periods);
        self.add(&family::CFS_THROTTLED_PERIODS, detail.cfs_throttled_periods);
        self.add(&family::CFS_THROTTLED, seconds(detail.cfs_throttled_ns));
    }

    fn memory(&mut self, stats: &Stats, detail: &Detail) {
        self.add(&family::MEMORY_USAGE, stats.memory_usage);
        self.add(&family::MEMORY_WORKING_SET, stats.memory_working_set);
        self.add(&family::MEMORY_RSS, stats.memory_rss);
        self.add(&family::MEMORY_CACHE, detail.cache);
        self.add(&family::MEMORY_MAPPED, detail.mapped);
        self.add(&family::MEMORY_KERNEL, detail.kernel);
        self.add(&family::MEMORY_SWAP, stats.swap_usage);
        self.add(&family::MEMORY_PEAK, detail.memory_peak);
        self.add(&family::MEMORY_LIMIT_HITS, detail.memory_limit_hits);
        self.add_with(&family::MEMORY_FAILURES, &["pgfault", "container"], detail.own_page_faults);
        self.add_with(&family::MEMORY_FAILURES, &["pgfault", "hierarchy"], stats.page_faults);
        self.add_with(&family::MEMORY_FAILURES, &["pgmajfault", "container"], detail.own_major_page_faults);
        self.add_with(&family::MEMORY_FAILURES, &["pgmajfault", "hierarchy"], stats.major_page_faults);
        for pages in &detail.hugepages {
            self.add_with(&family::HUGETLB_USAGE, &[&pages.size], pages.usage);
            self.add_with(&family::HUGETLB_PEAK, &[&pages.size], pages.peak);
        }
    }

    fn devices(&mut self, detail: &Detail) {
        for io in &detail.devices {
            let device = device_name(io.major, io.minor);
            let (major, minor) = (io.major.to_string(), io.minor.to_string());
            self.add_with(&family::FS_READS_BYTES, &[&device], io.read_bytes);
            self.add_with(&family::FS_READS, &[&device], io.reads);
            self.add_with(&family::FS_WRITES_BYTES, &[&device], io.write_bytes);
            self.add_with(&family::FS_WRITES, &[&device], io.writes);
            self.add_with(&family::BLKIO_USAGE, &[&device, &major, &minor, "read"], io.read_bytes);
            self.add_with(&family::BLKIO_USAGE, &[&device, &major, &minor, "write"], io.write_bytes);
        }
    }

    fn network(&mut self, interface: &InterfaceUsage) {
        let (name, received, sent) = ([interface.name.as_str()], interface.received, interface.sent);
        for (family, value) in [
            (&family::NETWORK_RECEIVE_BYTES, received.bytes),
            (&family::NETWORK_RECEIVE_PACKETS, received.packets),
            (&family::NETWORK_RECEIVE_DROPPED, received.dropped),
            (&family::NETWORK_RECEIVE_ERRORS, received.errors),
            (&family::NETWORK_TRANSMIT_BYTES, sent.bytes),
            (&family::NETWORK_TRANSMIT_PACKETS, sent.packets),
            (&family::NETWORK_TRANSMIT_DROPPED, sent.dropped),
            (&family::NETWORK_TRANSMIT_ERRORS, sent.errors),
        ] {
            self.add_with(family, &name, value);
        }
    }

    fn processes(&mut self, processes: Option<Processes>) {
        let Some(processes) = processes else { return };
        self.add(&family::PROCESSES, processes.count);
        self.add(&family::DESCRIPTORS, processes.descriptors);
        self.add(&family::SOCKETS, processes.sockets);
        self.add_with(&family::ULIMITS, &["max_open_files"], processes.descriptors_limit);
    }

    fn disk(&mut self, writable: &Writable, disk: &Disk) {
        let device = [disk.device.as_str()];
        self.add_with(&family::FS_USAGE, &device, writable.bytes);
        self.add_with(&family::FS_LIMIT, &device, writable.limit.unwrap_or(disk.bytes));
        self.add_with(&family::FS_INODES, &device, disk.inodes);
        self.add_with(&family::FS_INODES_FREE, &device, disk.inodes_free);
    }

    fn spec(&mut self, resources: &Resources, detail: &Detail) {
        let bytes = |limit: Option<i64>| limit.and_then(|limit| u64::try_from(limit).ok()).unwrap_or(0);
        self.add(&family::SPEC_CPU_PERIOD, resources.cpu_period.unwrap_or(PERIOD));
        self.add(&family::SPEC_CPU_QUOTA, resources.cpu_quota.and_then(|quota| u64::try_from(quota).ok()));
        self.add(&family::SPEC_CPU_SHARES, resources.cpu_shares.unwrap_or(SHARES));
        self.add(&family::SPEC_MEMORY_LIMIT, bytes(resources.memory_limit));
        self.add(&family::SPEC_MEMORY_SWAP_LIMIT, bytes(resources.memory_swap_limit));
        self.add(&family::SPEC_MEMORY_RESERVATION, detail.memory_reservation.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use engine::Traffic;
    use sys::cgroup::{DeviceIo, Hugepages, Pressure};

    use super::*;

    fn everything() -> Series {
        let psi = Some(Psi { some: Pressure { total_us: 2_500_000, ..Pressure::default() }, full: Pressure::default() });
        let one = Some(1);
        let stats = Stats {
            cpu_ns: Some(3_900_000_000),
            memory_usage: one,
            memory_working_set: one,
            memory_rss: one,
            memory_limit: one,
            page_faults: one,
            major_page_faults: one,
            swap_usage: one,
            swap_limit: one,
            pids: one,
            oom_kills: 1,
            cpu_psi: psi,
            memory_psi: psi,
            io_psi: psi,
        };
        let detail = Detail {
            cpu_user_ns: one,
            cpu_system_ns: one,
            cfs_periods: one,
            cfs_throttled_periods: one,
            cfs_throttled_ns: one,
            cache: one,
            kernel: one,
            mapped: one,
            memory_peak: one,
            memory_limit_hits: one,
            memory_reservation: None,
            own_page_faults: one,
            own_major_page_faults: one,
            hugepages: vec![Hugepages { size: "2MB".into(), usage: 1, peak: one }],
            devices: vec![DeviceIo { major: 4095, ..DeviceIo::default() }],
            pids_limit: None,
        };
        let mut series = Series::new(["/cgroup", "id", "image", "ns", "pod", "container"]);
        series.seen(5 * 1_000_000_000);
        series.usage(&stats, &detail);
        series.network(&InterfaceUsage { name: "eth0".into(), received: Traffic::default(), sent: Traffic::default() });
        series.processes(Some(Processes { count: 1, descriptors: one, sockets: one, descriptors_limit: one }));
        series.disk(&Writable::default(), &Disk { device: "/dev/x".into(), ..Disk::default() });
        series.spec(&Resources { cpu_quota: Some(7), memory_limit: Some(-1), ..Resources::default() }, &detail);
        series
    }

    #[test]
    fn every_metric_has_a_descriptor_with_as_many_labels_and_every_descriptor_a_metric() {
        let metrics = everything().metrics;
        let descriptors = descriptors();
        for metric in &metrics {
            let descriptor = descriptors.iter().find(|d| d.name == metric.name).expect("described");
            assert_eq!(descriptor.label_keys.len(), metric.label_values.len(), "{}", metric.name);
        }
        let named: HashSet<&str> = metrics.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(named, descriptors.iter().map(|d| d.name.as_str()).collect());
        let same: HashSet<_> = metrics.iter().map(|m| (&m.name, &m.label_values)).collect();
        assert_eq!(same.len(), metrics.len(), "Prometheus refuses two values of one series");
    }

    #[test]
    fn units() {
        let metrics = everything().metrics;
        let value = |name: &str| metrics.iter().find(|m| m.name == name).unwrap().value.as_ref().unwrap().value;
        assert_eq!(value("container_cpu_usage_seconds_total"), 3);
        assert_eq!(value("container_start_time_seconds"), 5);
        assert_eq!(value("container_pressure_cpu_waiting_seconds_total"), 2);
        assert_eq!(value("container_spec_memory_limit_bytes"), 0);
        assert_eq!(value("container_spec_cpu_quota"), 7);
        assert_eq!(value("container_threads_max"), 0);
    }

    #[test]
    fn what_the_kernel_does_not_have_is_absent() {
        let mut series = Series::new([""; 6]);
        series.usage(&Stats::default(), &Detail::default());
        series.processes(None);
        let named: Vec<_> = series.metrics.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(named, ["container_oom_events_total"]);
    }
}
