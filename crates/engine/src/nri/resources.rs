//! Limits, to and from plugins.

use ::nri::proto as p;
use model::Resources;

use super::adjust::Refusal;

/// Limits as plugins see them.
pub(super) fn message(resources: &Resources) -> p::LinuxResources {
    let signed = |value: Option<i64>| value.map(|value| p::OptionalInt64 { value });
    let unsigned = |value: Option<u64>| value.map(|value| p::OptionalUInt64 { value });
    p::LinuxResources {
        memory: Some(p::LinuxMemory {
            limit: signed(resources.memory_limit),
            swap: signed(resources.memory_swap_limit),
            ..Default::default()
        }),
        cpu: Some(p::LinuxCpu {
            shares: unsigned(resources.cpu_shares),
            quota: signed(resources.cpu_quota),
            period: unsigned(resources.cpu_period),
            cpus: resources.cpuset_cpus.clone().unwrap_or_default(),
            mems: resources.cpuset_mems.clone().unwrap_or_default(),
            ..Default::default()
        }),
        hugepage_limits: hugepages(resources),
        unified: resources.unified.clone(),
        pids: resources.pids_limit.map(|limit| p::LinuxPids { limit }),
        ..Default::default()
    }
}

fn hugepages(resources: &Resources) -> Vec<p::HugepageLimit> {
    let limits = resources.hugepage_limits.iter();
    limits.map(|(size, limit)| p::HugepageLimit { page_size: size.clone(), limit: *limit }).collect()
}

/// What a plugin wants laid over a container's limits.
///
/// # Errors
/// It wants what this engine does not limit.
pub(super) fn wanted(from: &p::LinuxResources) -> Result<Resources, Refusal> {
    let text = |value: &String| (!value.is_empty()).then(|| value.clone());
    let (memory, cpu) = (from.memory.unwrap_or_default(), from.cpu.clone().unwrap_or_default());
    for (said, field) in [
        (memory.reservation.is_some(), "memory.reservation"),
        (memory.kernel.is_some(), "memory.kernel"),
        (memory.kernel_tcp.is_some(), "memory.kernel_tcp"),
        (memory.swappiness.is_some(), "memory.swappiness"),
        (memory.disable_oom_killer.is_some(), "memory.disable_oom_killer"),
        (memory.use_hierarchy.is_some(), "memory.use_hierarchy"),
        (cpu.realtime_runtime.is_some(), "cpu.realtime_runtime"),
        (cpu.realtime_period.is_some(), "cpu.realtime_period"),
        (from.blockio_class.is_some(), "blockio_class"),
        (from.rdt_class.is_some(), "rdt_class"),
        (!from.devices.is_empty(), "devices"),
    ] {
        if said {
            return Err(Refusal::Unsupported { field: format!("linux.resources.{field}") });
        }
    }
    Ok(Resources {
        cpu_period: cpu.period.map(|period| period.value),
        cpu_quota: cpu.quota.map(|quota| quota.value),
        cpu_shares: cpu.shares.map(|shares| shares.value),
        memory_limit: memory.limit.map(|limit| limit.value),
        memory_swap_limit: memory.swap.map(|limit| limit.value),
        cpuset_cpus: text(&cpu.cpus),
        cpuset_mems: text(&cpu.mems),
        hugepage_limits: from.hugepage_limits.iter().map(|limit| (limit.page_size.clone(), limit.limit)).collect(),
        pids_limit: from.pids.map(|pids| pids.limit),
        unified: from.unified.clone(),
        ..Default::default()
    })
}

/// Whether anything is said at all.
pub(super) fn says_something(from: &p::LinuxResources) -> bool {
    let empty = p::LinuxResources {
        memory: from.memory.map(|_| p::LinuxMemory::default()),
        cpu: from.cpu.as_ref().map(|_| p::LinuxCpu::default()),
        ..Default::default()
    };
    *from != empty
}
