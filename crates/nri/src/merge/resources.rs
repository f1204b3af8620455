//! Limits: field by field, because two plugins may share a container's between them.

use super::claims::Claims;
use crate::{
    Error,
    proto::{Field, LinuxCpu, LinuxMemory, LinuxResources},
};

/// Lays what a plugin says over what was said before, where nobody else has said it.
pub(crate) fn lay(claims: &mut Claims, plugin: &str, from: &LinuxResources, into: &mut [&mut LinuxResources]) -> Result<(), Error> {
    macro_rules! fields {
        ($($part:ident: $type:ty { $($name:ident = $field:ident),* })*) => { $(
            if let Some(part) = &from.$part { $(
                if let Some(value) = part.$name {
                    claims.take(Field::$field, plugin)?;
                    for target in into.iter_mut() {
                        target.$part.get_or_insert_with(<$type>::default).$name = Some(value);
                    }
                }
            )* }
        )* };
    }
    fields! {
        memory: LinuxMemory {
            limit = MemLimit, reservation = MemReservation, swap = MemSwapLimit, kernel = MemKernelLimit,
            kernel_tcp = MemTcpLimit, swappiness = MemSwappiness, disable_oom_killer = MemDisableOomKiller,
            use_hierarchy = MemUseHierarchy
        }
        cpu: LinuxCpu {
            shares = CpuShares, quota = CpuQuota, period = CpuPeriod, realtime_runtime = CpuRealtimeRuntime,
            realtime_period = CpuRealtimePeriod
        }
    }
    cpu_sets(claims, plugin, from, into)?;
    for limit in &from.hugepage_limits {
        claims.take_entry(Field::HugepageLimits, &limit.page_size, plugin)?;
        for target in into.iter_mut() {
            target.hugepage_limits.retain(|known| known.page_size != limit.page_size);
            target.hugepage_limits.push(limit.clone());
        }
    }
    for (file, value) in &from.unified {
        claims.take_entry(Field::CgroupsUnified, file, plugin)?;
        into.iter_mut().for_each(|target| drop(target.unified.insert(file.clone(), value.clone())));
    }
    if let Some(class) = &from.blockio_class {
        claims.take(Field::BlockioClass, plugin)?;
        into.iter_mut().for_each(|target| target.blockio_class = Some(class.clone()));
    }
    if let Some(class) = &from.rdt_class {
        claims.take(Field::RdtClass, plugin)?;
        into.iter_mut().for_each(|target| target.rdt_class = Some(class.clone()));
    }
    if let Some(pids) = from.pids {
        claims.take(Field::PidsLimit, plugin)?;
        into.iter_mut().for_each(|target| target.pids = Some(pids));
    }
    Ok(())
}

/// Text, where empty means not said.
fn cpu_sets(claims: &mut Claims, plugin: &str, from: &LinuxResources, into: &mut [&mut LinuxResources]) -> Result<(), Error> {
    let Some(cpu) = &from.cpu else { return Ok(()) };
    if !cpu.cpus.is_empty() {
        claims.take(Field::CpuSetCpUs, plugin)?;
        into.iter_mut().for_each(|target| target.cpu.get_or_insert_default().cpus.clone_from(&cpu.cpus));
    }
    if !cpu.mems.is_empty() {
        claims.take(Field::CpuSetMems, plugin)?;
        into.iter_mut().for_each(|target| target.cpu.get_or_insert_default().mems.clone_from(&cpu.mems));
    }
    Ok(())
}
