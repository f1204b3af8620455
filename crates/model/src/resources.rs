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
            cpuset_cpus,
            cpuset_mems,
            pids_limit,
            oom_score_adj
        );
        merged.hugepage_limits.extend(newer.hugepage_limits.clone());
        merged.unified.extend(newer.unified.clone());
        merged
    }
}
