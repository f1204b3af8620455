//! What a container may use (CRI `LinuxContainerResources`; OCI runtime spec, config-linux.md#control-groups).

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

/// Limits of one container or pod; `None` means not said, never zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Resources {
    /// CFS period in microseconds.
    #[n(0)]
    pub cpu_period: Option<u64>,
    /// CFS quota in microseconds per period; negative: no limit.
    #[n(1)]
    pub cpu_quota: Option<i64>,
    /// Relative weight, 2 to 262144 (cgroup v1 `cpu.shares`).
    #[n(2)]
    pub cpu_shares: Option<u64>,
    /// Memory in bytes; negative: no limit.
    #[n(3)]
    pub memory_limit: Option<i64>,
    /// Memory and swap together in bytes; negative: no limit.
    #[n(4)]
    pub memory_swap_limit: Option<i64>,
    /// CPUs, in list format ("0-3,7").
    #[n(5)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, in list format.
    #[n(6)]
    pub cpuset_mems: Option<String>,
    /// Hugepage limits in bytes by page size ("2MB").
    #[n(7)]
    pub hugepage_limits: BTreeMap<String, u64>,
    /// Most processes and threads.
    #[n(8)]
    pub pids_limit: Option<i64>,
    /// cgroup v2 files written as they are.
    #[n(9)]
    pub unified: BTreeMap<String, String>,
    /// The OOM killer's preference, -1000 to 1000.
    #[n(10)]
    pub oom_score_adj: Option<i32>,
    /// Block I/O.
    #[n(11)]
    pub block_io: Option<BlockIo>,
    /// Memory in bytes that is left to it when others want some; negative: none.
    #[n(12)]
    pub memory_reservation: Option<i64>,
}

/// Weights and rates of block I/O (OCI runtime spec, config-linux.md#block-io).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct BlockIo {
    /// Weight on every device that has none of its own, 10 to 1000.
    #[n(0)]
    pub weight: Option<u16>,
    /// Devices.
    #[n(1)]
    pub devices: Vec<BlockDevice>,
}

/// What a container may do to one block device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct BlockDevice {
    /// Major number.
    #[n(0)]
    pub major: u32,
    /// Minor number.
    #[n(1)]
    pub minor: u32,
    /// Weight, 10 to 1000.
    #[n(2)]
    pub weight: Option<u16>,
    /// Bytes read per second.
    #[n(3)]
    pub read_bps: Option<u64>,
    /// Bytes written per second.
    #[n(4)]
    pub write_bps: Option<u64>,
    /// Reads per second.
    #[n(5)]
    pub read_iops: Option<u64>,
    /// Writes per second.
    #[n(6)]
    pub write_iops: Option<u64>,
}

impl Resources {
    /// These limits with everything that `newer` says laid over them.
    pub fn updated_by(&self, newer: &Self) -> Self {
        let mut merged = self.clone();
        macro_rules! take { ($($field:ident),*) => { $( if newer.$field.is_some() { merged.$field.clone_from(&newer.$field); } )* } }
        take!(
            cpu_period,
            cpu_quota,
            cpu_shares,
            memory_limit,
            memory_swap_limit,
            memory_reservation,
            cpuset_cpus,
            cpuset_mems,
            pids_limit,
            oom_score_adj,
            block_io
        );
        merged.hugepage_limits.extend(newer.hugepage_limits.clone());
        merged.unified.extend(newer.unified.clone());
        merged
    }
}
