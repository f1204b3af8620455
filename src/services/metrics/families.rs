//! The metrics by name, as cAdvisor names them (its docs/storage/prometheus.md), so that what people built on the kubelet's
//! /metrics/cadvisor goes on working. The list never changes while the daemon runs: a kubelet asks for it once.

use api::runtime::{self as cri, MetricType};

/// Labels that every metric has: the cgroup, the id, the image, and the names that Kubernetes knows.
pub(super) const BASE: [&str; 6] = ["id", "name", "image", "namespace", "pod", "container"];

/// A metric.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    help: &'static str,
    pub(super) kind: MetricType,
    /// Labels after those of [`BASE`].
    pub(super) keys: &'static [&'static str],
}

impl Family {
    pub(super) fn descriptor(&self) -> cri::MetricDescriptor {
        cri::MetricDescriptor {
            name: self.name.to_owned(),
            help: self.help.to_owned(),
            label_keys: BASE.iter().chain(self.keys).map(|key| (*key).to_owned()).collect(),
        }
    }
}

macro_rules! families {
    ($($id:ident $kind:ident $name:literal [$($key:literal),*] $help:literal;)*) => {
        $(pub(super) const $id: Family =
            Family { name: $name, help: $help, kind: MetricType::$kind, keys: &[$($key),*] };)*
        /// All of them.
        pub(super) const ALL: &[&Family] = &[$(&$id),*];
    };
}

families! {
    LAST_SEEN Gauge "container_last_seen" [] "When the container was seen last, in seconds since 1970.";
    START_TIME Gauge "container_start_time_seconds" [] "When the container started, in seconds since 1970.";

    CPU_USAGE Counter "container_cpu_usage_seconds_total" ["cpu"] "CPU time used, in seconds.";
    CPU_USER Counter "container_cpu_user_seconds_total" [] "CPU time used in user mode, in seconds.";
    CPU_SYSTEM Counter "container_cpu_system_seconds_total" [] "CPU time used in the kernel, in seconds.";
    CFS_PERIODS Counter "container_cpu_cfs_periods_total" [] "CFS periods that have passed.";
    CFS_THROTTLED_PERIODS Counter "container_cpu_cfs_throttled_periods_total" [] "CFS periods in which the quota was used up.";
    CFS_THROTTLED Counter "container_cpu_cfs_throttled_seconds_total" [] "Time held up by the CPU quota, in seconds.";

    MEMORY_USAGE Gauge "container_memory_usage_bytes" [] "Memory in use, whenever it was used last, in bytes.";
    MEMORY_WORKING_SET Gauge "container_memory_working_set_bytes" [] "Memory in use without inactive page cache, in bytes.";
    MEMORY_RSS Gauge "container_memory_rss" [] "Anonymous memory, in bytes.";
    MEMORY_CACHE Gauge "container_memory_cache" [] "Page cache, in bytes.";
    MEMORY_MAPPED Gauge "container_memory_mapped_file" [] "Mapped files, in bytes.";
    MEMORY_KERNEL Gauge "container_memory_kernel_usage" [] "Memory of the kernel, in bytes.";
    MEMORY_SWAP Gauge "container_memory_swap" [] "Swap in use, in bytes.";
    MEMORY_PEAK Gauge "container_memory_max_usage_bytes" [] "The most memory that was ever in use, in bytes.";
    MEMORY_LIMIT_HITS Counter "container_memory_failcnt" [] "How often the memory limit was hit.";
    MEMORY_FAILURES Counter "container_memory_failures_total" ["failure_type", "scope"] "Page faults.";

    HUGETLB_USAGE Gauge "container_hugetlb_usage_bytes" ["pagesize"] "Huge pages in use, in bytes.";
    HUGETLB_PEAK Gauge "container_hugetlb_max_usage_bytes" ["pagesize"] "The most huge pages that were ever in use, in bytes.";

    NETWORK_RECEIVE_BYTES Counter "container_network_receive_bytes_total" ["interface"] "Bytes received.";
    NETWORK_RECEIVE_PACKETS Counter "container_network_receive_packets_total" ["interface"] "Packets received.";
    NETWORK_RECEIVE_DROPPED Counter "container_network_receive_packets_dropped_total" ["interface"]
        "Packets dropped while receiving.";
    NETWORK_RECEIVE_ERRORS Counter "container_network_receive_errors_total" ["interface"] "Errors while receiving.";
    NETWORK_TRANSMIT_BYTES Counter "container_network_transmit_bytes_total" ["interface"] "Bytes sent.";
    NETWORK_TRANSMIT_PACKETS Counter "container_network_transmit_packets_total" ["interface"] "Packets sent.";
    NETWORK_TRANSMIT_DROPPED Counter "container_network_transmit_packets_dropped_total" ["interface"]
        "Packets dropped while sending.";
    NETWORK_TRANSMIT_ERRORS Counter "container_network_transmit_errors_total" ["interface"] "Errors while sending.";

    FS_USAGE Gauge "container_fs_usage_bytes" ["device"] "What the writable layer takes, in bytes.";
    FS_LIMIT Gauge "container_fs_limit_bytes" ["device"] "What the writable layer may take, in bytes.";
    FS_INODES Gauge "container_fs_inodes_total" ["device"] "Inodes of the writable layer's file system.";
    FS_INODES_FREE Gauge "container_fs_inodes_free" ["device"] "Free inodes of the writable layer's file system.";

    FS_READS_BYTES Counter "container_fs_reads_bytes_total" ["device"] "Bytes read.";
    FS_READS Counter "container_fs_reads_total" ["device"] "Reads completed.";
    FS_WRITES_BYTES Counter "container_fs_writes_bytes_total" ["device"] "Bytes written.";
    FS_WRITES Counter "container_fs_writes_total" ["device"] "Writes completed.";
    BLKIO_USAGE Counter "container_blkio_device_usage_total" ["device", "major", "minor", "operation"]
        "Bytes read and written, by device.";

    PROCESSES Gauge "container_processes" [] "Processes.";
    THREADS Gauge "container_threads" [] "Processes and threads.";
    THREADS_MAX Gauge "container_threads_max" [] "Processes and threads at most; 0: no limit.";
    DESCRIPTORS Gauge "container_file_descriptors" [] "Open file descriptors.";
    SOCKETS Gauge "container_sockets" [] "Open sockets.";
    ULIMITS Gauge "container_ulimits_soft" ["ulimit"] "Soft limits of the first process.";

    OOM_EVENTS Counter "container_oom_events_total" [] "Processes killed for lack of memory.";

    SPEC_CPU_PERIOD Gauge "container_spec_cpu_period" [] "CFS period, in microseconds.";
    SPEC_CPU_QUOTA Gauge "container_spec_cpu_quota" [] "CFS quota, in microseconds per period.";
    SPEC_CPU_SHARES Gauge "container_spec_cpu_shares" [] "CPU shares.";
    SPEC_MEMORY_LIMIT Gauge "container_spec_memory_limit_bytes" [] "Memory limit, in bytes; 0: none.";
    SPEC_MEMORY_SWAP_LIMIT Gauge "container_spec_memory_swap_limit_bytes" []
        "Limit of memory and swap together, in bytes; 0: none.";
    SPEC_MEMORY_RESERVATION Gauge "container_spec_memory_reservation_limit_bytes" []
        "Memory that is left to the container as long as possible, in bytes; 0: none.";

    PRESSURE_CPU_STALLED Counter "container_pressure_cpu_stalled_seconds_total" []
        "Time in which no task could go on for lack of CPU, in seconds.";
    PRESSURE_CPU_WAITING Counter "container_pressure_cpu_waiting_seconds_total" []
        "Time in which some task waited for CPU, in seconds.";
    PRESSURE_MEMORY_STALLED Counter "container_pressure_memory_stalled_seconds_total" []
        "Time in which no task could go on for lack of memory, in seconds.";
    PRESSURE_MEMORY_WAITING Counter "container_pressure_memory_waiting_seconds_total" []
        "Time in which some task waited for memory, in seconds.";
    PRESSURE_IO_STALLED Counter "container_pressure_io_stalled_seconds_total" []
        "Time in which no task could go on for input and output, in seconds.";
    PRESSURE_IO_WAITING Counter "container_pressure_io_waiting_seconds_total" []
        "Time in which some task waited for input and output, in seconds.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_different_and_labels_too() {
        let names: HashSet<_> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), ALL.len());
        for family in ALL {
            let keys = family.descriptor().label_keys;
            assert_eq!(keys.iter().collect::<HashSet<_>>().len(), BASE.len() + family.keys.len(), "{}", family.name);
            assert_eq!(family.kind == MetricType::Counter, is_counter(family.name), "{}", family.name);
        }
    }

    /// Prometheus' convention, and the one name that cAdvisor has against it.
    fn is_counter(name: &str) -> bool {
        name == "container_memory_failcnt" || (name.ends_with("_total") && name != "container_fs_inodes_total")
    }
}
