//! Limits: what is wrong is said here and not by an errno of the kernel; defaults.

use model::{Resources, plan::Rlimit};
use rustix::process::{Resource, getrlimit};

use super::error::{Error, cut};

/// The kernel's bounds of `cpu.shares` (kernel/sched/sched.h).
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
/// The kernel's bounds of a CFS period, and its least quota, in microseconds (kernel/sched/core.c).
const PERIOD: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
const LEAST_QUOTA: i64 = 1_000;
/// RLIMIT_NOFILE and what systemd gives to services (and so what containers of other engines have): a soft limit that
/// select(2) can bear, a hard one that servers may raise to.
const NOFILE: u32 = 7;
const NOFILE_SOFT: u64 = 1_024;
const NOFILE_HARD: u64 = 524_288;

/// The limits that a container's cgroup gets, when it is made and when they are updated: zeros are left out, shares are
/// brought into the kernel's bounds, `pids_default` stands where the client says nothing.
///
/// # Errors
/// Names the field that the kernel would not take.
pub fn effective(given: &Resources, pids_default: i64) -> Result<Resources, Error> {
    let limits = said(given);
    let given = &limits;
    if let Some(period) = given.cpu_period.filter(|period| !PERIOD.contains(period)) {
        return refuse("cpu_period", &period.to_string(), "must be 1000 to 1000000 microseconds");
    }
    if let Some(quota) = given.cpu_quota.filter(|quota| (1..LEAST_QUOTA).contains(quota)) {
        return refuse("cpu_quota", &quota.to_string(), "must be at least 1000 microseconds, or negative for none");
    }
    if let (Some(memory), Some(swap)) = (given.memory_limit, given.memory_swap_limit)
        && memory > 0
        && (0..memory).contains(&swap)
    {
        return refuse("memory_swap_limit", &swap.to_string(), "is memory and swap together, so not less than memory_limit");
    }
    check_lists(given)?;
    for size in given.hugepage_limits.keys() {
        let digits = size.trim_end_matches(|c: char| c.is_ascii_uppercase());
        let unit = &size[digits.len()..];
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(unit, "KB" | "MB" | "GB") {
            return refuse("hugepage size", size, "must be a number with KB, MB or GB");
        }
    }
    for (file, value) in &given.unified {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        if !file.contains('.') || file.starts_with('.') || !file.chars().all(word) || file.starts_with("cgroup.") {
            return refuse("unified", file, "must be a controller's file such as memory.high");
        }
        if value.len() > 4096 || value.contains('\0') {
            return refuse("unified", file, "its value is too long or has a NUL");
        }
    }
    oom_score_adj(given)?;
    let pids_limit = given.pids_limit.or(Some(pids_default));
    Ok(Resources { pids_limit, ..limits })
}

/// A zero is what protobuf makes of "not said"; clients who talk CRI cannot help it.
fn said(given: &Resources) -> Resources {
    let mut limits = given.clone();
    limits.cpu_period = given.cpu_period.filter(|period| *period != 0);
    limits.cpu_quota = given.cpu_quota.filter(|quota| *quota != 0);
    limits.cpu_shares = given.cpu_shares.filter(|n| *n != 0).map(|shares| shares.clamp(*SHARES.start(), *SHARES.end()));
    limits.memory_limit = given.memory_limit.filter(|limit| *limit != 0);
    limits.memory_swap_limit = given.memory_swap_limit.filter(|limit| *limit != 0);
    limits.memory_reservation = given.memory_reservation.filter(|bytes| *bytes != 0);
    limits.pids_limit = given.pids_limit.filter(|limit| *limit != 0);
    limits
}

fn check_lists(given: &Resources) -> Result<(), Error> {
    for (field, list) in [("cpuset_cpus", &given.cpuset_cpus), ("cpuset_mems", &given.cpuset_mems)] {
        if let Some(list) = list.as_deref().filter(|list| !is_list(list)) {
            return refuse(field, list, "must be a list such as 0-3,7");
        }
    }
    Ok(())
}

fn is_list(list: &str) -> bool {
    let number = |text: &str| text.len() <= 6 && text.parse::<u32>().is_ok() && !text.starts_with('+');
    list.len() <= 4096
        && list.split(',').all(|part| match part.split_once('-') {
            Some((low, high)) => number(low) && number(high),
            None => number(part),
        })
}

/// The OOM killer's preference. Nothing said is the kernel's own default: what a process would inherit is its supervisor's,
/// which is to be spared.
pub(crate) fn oom_score_adj(given: &Resources) -> Result<i32, Error> {
    match given.oom_score_adj.unwrap_or_default() {
        score @ -1000..=1000 => Ok(score),
        score => refuse("oom_score_adj", &score.to_string(), "must be -1000 to 1000"),
    }
}

fn refuse<T>(field: &'static str, value: &str, why: &'static str) -> Result<T, Error> {
    Err(Error::Resource { field, value: cut(value), why })
}

/// setrlimit(2) values of every container: open files as a systemd service has them, never above our own hard limit.
/// Other limits are inherited. `wanted` stand over these.
pub(crate) fn rlimits(wanted: &[Rlimit]) -> Vec<Rlimit> {
    let own = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let hard = NOFILE_HARD.min(own);
    let mut limits = vec![Rlimit { resource: NOFILE, soft: NOFILE_SOFT.min(hard), hard }];
    for limit in wanted {
        limits.retain(|known| known.resource != limit.resource);
        limits.push(*limit);
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_bounds() {
        let none = effective(&Resources::default(), 4096).unwrap();
        assert_eq!(none, Resources { pids_limit: Some(4096), ..Default::default() });
        for (given, expected) in [(Some(0), 4096), (Some(-1), -1), (Some(7), 7)] {
            let given = Resources { pids_limit: given, ..Default::default() };
            assert_eq!(effective(&given, 4096).unwrap().pids_limit, Some(expected));
        }
        for (given, expected) in [(1, 2), (2, 2), (1024, 1024), (u64::MAX, 262_144)] {
            let given = Resources { cpu_shares: Some(given), ..Default::default() };
            assert_eq!(effective(&given, 1).unwrap().cpu_shares, Some(expected));
        }
        let limit = rlimits(&[])[0];
        assert!(limit.soft <= limit.hard && limit.soft == 1024.min(limit.hard));
        let wanted = [Rlimit { resource: NOFILE, soft: 1, hard: 2 }, Rlimit { resource: 4, soft: 0, hard: 0 }];
        assert_eq!(rlimits(&wanted), wanted);
    }

    #[test]
    fn zero_is_not_said() {
        let zeros = Resources {
            cpu_period: Some(0),
            cpu_quota: Some(0),
            cpu_shares: Some(0),
            memory_limit: Some(0),
            memory_swap_limit: Some(0),
            ..Default::default()
        };
        assert_eq!(effective(&zeros, 5).unwrap(), Resources { pids_limit: Some(5), ..Default::default() });
    }

    #[test]
    fn what_a_kubelet_sends_is_taken() {
        let given = Resources {
            cpu_period: Some(100_000),
            cpu_quota: Some(-1),
            memory_limit: Some(64 << 20),
            memory_swap_limit: Some(64 << 20),
            cpuset_cpus: Some("0-3,7".into()),
            hugepage_limits: [("2MB".to_owned(), 0), ("1GB".to_owned(), 0), ("64KB".to_owned(), 0)].into(),
            unified: [("memory.oom.group".to_owned(), "1".to_owned())].into(),
            oom_score_adj: Some(-997),
            ..Default::default()
        };
        effective(&given, 1).unwrap();
        effective(&Resources { memory_limit: Some(1), memory_swap_limit: Some(-1), ..Default::default() }, 1).unwrap();
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let with = |change: &dyn Fn(&mut Resources)| {
            let mut given = Resources::default();
            change(&mut given);
            effective(&given, 1).unwrap_err().to_string()
        };
        assert!(with(&|r| r.cpu_period = Some(1)).contains("cpu_period"));
        assert!(with(&|r| r.cpu_quota = Some(999)).contains("cpu_quota"));
        assert!(with(&|r| (r.memory_limit, r.memory_swap_limit) = (Some(2), Some(1))).contains("memory_swap_limit"));
        for list in ["", "a", "0-", "1,,2", "0-3\n", "+1", "-1", "99999999999"] {
            assert!(with(&|r| r.cpuset_cpus = Some(list.into())).contains("cpuset_cpus"), "{list:?}");
        }
        for size in ["", "MB", "2", "2MiB", "../2MB"] {
            assert!(with(&|r| r.hugepage_limits = [(size.to_owned(), 1)].into()).contains("hugepage"), "{size:?}");
        }
        for file in ["memory", "../memory.high", "cgroup.procs", "a/b.c", ".x", "memory.high\n"] {
            assert!(with(&|r| r.unified = [(file.to_owned(), "1".to_owned())].into()).contains("unified"), "{file:?}");
        }
        assert!(with(&|r| r.oom_score_adj = Some(1001)).contains("oom_score_adj"));
    }
}
