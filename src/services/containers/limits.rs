//! Limits of containers of people.

use api::creel as own;
use model::{Resources, plan::Rlimit};
use tonic::Status;

use super::convert::{invalid, shown};

/// Microseconds of a period where only CPUs are said.
const PERIOD: i64 = 100_000;
/// The least memory that docker gives.
const LEAST_MEMORY: i64 = 6 << 20;
/// Least share of the CPUs, in billionths of one.
const LEAST_CPUS: i64 = 10_000_000;

/// Names of setrlimit(2), at the place of their numbers on Linux.
const RLIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

/// What is said of them; the rest is not limited, or is not changed.
pub(in crate::services) fn resources(asked: Option<&own::Limits>) -> Result<Resources, Status> {
    let Some(asked) = asked else { return Ok(Resources::default()) };
    let positive = |name: &str, number: Option<i64>| match number.map(u64::try_from) {
        None => Ok(None),
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => Err(invalid(format!("{name} must not be negative"))),
    };
    check_memory(asked)?;
    let (period, quota) = cpus(asked)?;
    Ok(Resources {
        cpu_period: positive("CPU period", period)?,
        cpu_quota: quota,
        cpu_shares: positive("CPU shares", asked.cpu_shares)?,
        memory_limit: asked.memory,
        memory_reservation: asked.memory_reservation,
        // As docker: as much swap as memory again, where only memory is said.
        memory_swap_limit: asked.memory_swap.filter(|swap| *swap != 0).or_else(|| doubled(asked.memory)),
        cpuset_cpus: asked.cpuset_cpus.clone().filter(|list| !list.is_empty()),
        cpuset_mems: asked.cpuset_mems.clone().filter(|list| !list.is_empty()),
        pids_limit: asked.pids,
        ..Resources::default()
    })
}

fn check_memory(asked: &own::Limits) -> Result<(), Status> {
    if asked.memory.is_some_and(|memory| memory > 0 && memory < LEAST_MEMORY) {
        return Err(invalid("Minimum memory limit allowed is 6MB"));
    }
    if asked.memory_swap.is_some_and(|swap| swap > 0) && asked.memory.unwrap_or_default() <= 0 {
        return Err(invalid("You should always set the Memory limit when using Memoryswap limit, see usage"));
    }
    if let (Some(memory), Some(swap)) = (asked.memory, asked.memory_swap)
        && swap > 0
        && swap < memory
    {
        return Err(invalid("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    if asked.memory_reservation.is_some_and(|bytes| bytes > 0 && bytes < LEAST_MEMORY) {
        return Err(invalid("Minimum memory reservation allowed is 6MB"));
    }
    if let (Some(memory @ 1..), Some(reservation)) = (asked.memory, asked.memory_reservation)
        && memory < reservation
    {
        return Err(invalid("Minimum memory limit should be larger than memory reservation limit, see usage"));
    }
    Ok(())
}

/// The period and what of it may be used, in microseconds.
fn cpus(asked: &own::Limits) -> Result<(Option<i64>, Option<i64>), Status> {
    let (period, quota) = match asked.nano_cpus.filter(|cpus| *cpus > 0) {
        Some(_) if asked.cpu_quota.is_some_and(|quota| quota > 0) => {
            return Err(invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set."));
        }
        Some(_) if asked.cpu_period.is_some_and(|period| period > 0) => {
            return Err(invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set."));
        }
        Some(cpus) => (Some(PERIOD), Some(cpus.saturating_mul(PERIOD) / 1_000_000_000)),
        None => (asked.cpu_period, asked.cpu_quota),
    };
    if asked.nano_cpus.is_some_and(|cpus| cpus != 0 && cpus < LEAST_CPUS) || quota.is_some_and(|quota| (1..1000).contains(&quota)) {
        return Err(invalid("Range of CPUs is from 0.01 on"));
    }
    Ok((period, quota))
}

fn doubled(memory: Option<i64>) -> Option<i64> {
    memory.filter(|memory| *memory > 0).map(|memory| memory.saturating_mul(2))
}

/// What is newly said over what was said before.
pub(super) fn laid_over(before: Option<own::Limits>, newer: &own::Limits) -> own::Limits {
    let mut limits = before.unwrap_or_default();
    macro_rules! take { ($($field:ident),*) => { $( if newer.$field.is_some() { limits.$field.clone_from(&newer.$field); } )* } }
    take!(memory, memory_swap, memory_reservation, nano_cpus, cpu_shares, cpu_period, cpu_quota, cpuset_cpus, cpuset_mems, pids);
    if newer.nano_cpus.is_some_and(|cpus| cpus > 0) {
        (limits.cpu_period, limits.cpu_quota) = (None, None);
    } else if newer.cpu_quota.is_some() || newer.cpu_period.is_some() {
        limits.nano_cpus = None;
    }
    limits
}

/// setrlimit(2).
pub(in crate::services) fn ulimits(asked: &[own::Ulimit]) -> Result<Vec<Rlimit>, Status> {
    let one = |limit: &own::Ulimit| {
        let number = RLIMITS.iter().position(|name| *name == limit.name);
        let resource = number.and_then(|number| u32::try_from(number).ok());
        let resource = resource.ok_or_else(|| invalid(format!("invalid ulimit type: {}", shown(&limit.name))))?;
        let value = |number: i64| u64::try_from(number).unwrap_or(u64::MAX);
        let (soft, hard) = (value(limit.soft), value(limit.hard));
        if soft > hard {
            let why = format!("ulimit soft limit must be less than or equal to hard limit: {} > {}", limit.soft, limit.hard);
            return Err(invalid(why));
        }
        Ok(Rlimit { resource, soft, hard })
    };
    asked.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_limits() {
        let limits = own::Limits { memory: Some(64 << 20), nano_cpus: Some(500_000_000), ..Default::default() };
        let read = resources(Some(&limits)).unwrap();
        assert_eq!((read.cpu_quota, read.cpu_period), (Some(50_000), Some(100_000)));
        assert_eq!((read.memory_limit, read.memory_swap_limit), (Some(64 << 20), Some(128 << 20)));
        for bad in [
            own::Limits { memory: Some(1), ..Default::default() },
            own::Limits { memory_swap: Some(1), ..Default::default() },
            own::Limits { memory: Some(9 << 20), memory_swap: Some(8 << 20), ..Default::default() },
            own::Limits { nano_cpus: Some(1), ..Default::default() },
            own::Limits { nano_cpus: Some(1 << 30), cpu_quota: Some(5000), ..Default::default() },
            own::Limits { cpu_shares: Some(-1), ..Default::default() },
        ] {
            assert!(resources(Some(&bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn newer_limits_replace_older_ones() {
        let before = own::Limits { nano_cpus: Some(1), memory: Some(5), ..Default::default() };
        let newer = own::Limits { cpu_quota: Some(7), ..Default::default() };
        let after = laid_over(Some(before), &newer);
        assert_eq!((after.nano_cpus, after.cpu_quota, after.memory), (None, Some(7), Some(5)));
    }

    #[test]
    fn ulimits_by_name() {
        let one = |name: &str, soft, hard| ulimits(&[own::Ulimit { name: name.into(), soft, hard }]);
        assert_eq!(one("nofile", 1, -1).unwrap(), [Rlimit { resource: 7, soft: 1, hard: u64::MAX }]);
        assert!(one("files", 1, 1).is_err() && one("core", 2, 1).is_err());
    }
}
