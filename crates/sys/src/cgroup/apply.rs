//! Limits: from `model::Resources` to files, and back.

use std::path::{Path, PathBuf};

use model::Resources;
use rustix::io::Errno;

use super::{Group, Version, files, stats::V1_UNLIMITED, stats::number};
use crate::Error;

/// A wish that this machine cannot fulfil, and that does not stop a container: said to whoever asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What was to be set, by the name of the kernel's file.
    pub what: String,
    /// Why not.
    pub why: String,
}

impl Refused {
    fn new(what: impl Into<String>, why: &str) -> Self {
        Self { what: what.into(), why: why.to_owned() }
    }
}

impl Group {
    /// Sets every limit that is said; others stay. The kernel's own answer decides: an error means that the limits are
    /// not all in force.
    ///
    /// # Errors
    /// write(2), with the file and the value; Invalid for values that contradict each other.
    pub fn apply(&self, resources: &Resources) -> Result<Vec<Refused>, Error> {
        check(resources)?;
        if self.all.version() == Version::V1
            && let Some(file) = resources.unified.keys().next()
        {
            // What asks for these counts on them (memory QoS), so running without is not what was asked for.
            let why = "this machine has cgroup v1, which has no such files";
            return Err(Error::Invalid { what: "unified", value: file.clone(), why });
        }
        let mut refused = Vec::new();
        match self.all.version() {
            Version::V1 => self.apply_v1(resources, &mut refused)?,
            Version::V2 => self.apply_v2(resources, &mut refused)?,
        }
        if let Some(block_io) = &resources.block_io {
            self.apply_block_io(block_io)?;
        }
        Ok(refused)
    }

    /// The limits in force; what is unlimited is -1, what the machine cannot limit is not said.
    ///
    /// # Errors
    /// read(2).
    pub fn read_limits(&self) -> Result<Resources, Error> {
        match self.all.version() {
            Version::V1 => self.read_v1(),
            Version::V2 => self.read_v2(),
        }
    }

    fn apply_v1(&self, resources: &Resources, refused: &mut Vec<Refused>) -> Result<(), Error> {
        let mut lacking = |controller: &str, file: &str| {
            let directory = self.directory(controller);
            if directory.is_none() {
                refused.push(Refused::new(file, &format!("no {controller} cgroup controller")));
            }
            directory
        };
        if let Some(shares) = resources.cpu_shares
            && let Some(cpu) = lacking("cpu", "cpu.shares")
        {
            files::write(&cpu.join("cpu.shares"), &shares.to_string())?;
        }
        if (resources.cpu_period.is_some() || resources.cpu_quota.is_some())
            && let Some(cpu) = lacking("cpu", "cpu.cfs_quota_us")
        {
            bandwidth_v1(&cpu, resources)?;
        }
        for (file, value) in [("cpuset.cpus", &resources.cpuset_cpus), ("cpuset.mems", &resources.cpuset_mems)] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty())
                && let Some(cpuset) = lacking("cpuset", file)
            {
                files::write(&cpuset.join(file), value)?;
            }
        }
        if let Some(limit) = resources.pids_limit
            && let Some(pids) = lacking("pids", "pids.max")
        {
            files::write(&pids.join("pids.max"), &max_if_negative(limit))?;
        }
        let memory = [resources.memory_limit, resources.memory_swap_limit, resources.memory_reservation];
        if memory.iter().any(Option::is_some)
            && let Some(memory) = lacking("memory", "memory.limit_in_bytes")
        {
            memory_v1(&memory, resources, refused)?;
            reservation_v1(&memory, resources, refused)?;
        }
        for (size, limit) in &resources.hugepage_limits {
            let file = self.directory("hugetlb").map(|d| d.join(format!("hugetlb.{size}.limit_in_bytes")));
            hugepages(file, size, *limit, refused)?;
        }
        Ok(())
    }

    fn apply_v2(&self, resources: &Resources, refused: &mut Vec<Refused>) -> Result<(), Error> {
        let Some(group) = self.directory("") else { return Ok(()) };
        let set = |file: &str, value: &str| files::write(&group.join(file), value);
        if let Some(shares) = resources.cpu_shares {
            set("cpu.weight", &weight_of(shares).to_string())?;
        }
        if resources.cpu_period.is_some() || resources.cpu_quota.is_some() {
            let (quota, period) = bandwidth_v2(&group)?;
            let quota = resources.cpu_quota.unwrap_or(quota);
            let period = resources.cpu_period.filter(|period| *period > 0).unwrap_or(period);
            set("cpu.max", &format!("{} {period}", max_unless_positive(quota)))?;
        }
        for (file, value) in [("cpuset.cpus", &resources.cpuset_cpus), ("cpuset.mems", &resources.cpuset_mems)] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                set(file, value)?;
            }
        }
        if let Some(limit) = resources.pids_limit {
            set("pids.max", &max_if_negative(limit))?;
        }
        if let Some(limit) = resources.memory_limit {
            set("memory.max", &max_if_negative(limit))?;
        }
        if let Some(bytes) = resources.memory_reservation {
            set("memory.low", &bytes.max(0).to_string())?;
        }
        if let Some(both) = resources.memory_swap_limit {
            swap_v2(&group, both, resources.memory_limit, refused)?;
        }
        for (size, limit) in &resources.hugepage_limits {
            let reserved = group.join(format!("hugetlb.{size}.rsvd.max"));
            hugepages(Some(group.join(format!("hugetlb.{size}.max"))), size, *limit, refused)?;
            if reserved.exists() {
                files::write(&reserved, &limit.to_string())?;
            }
        }
        for (file, value) in &resources.unified {
            set(file, value)?;
        }
        Ok(())
    }

    fn read_v1(&self) -> Result<Resources, Error> {
        let mut found = Resources::default();
        if let Some(cpu) = self.directory("cpu") {
            found.cpu_shares = number(&cpu, "cpu.shares")?;
            found.cpu_period = number(&cpu, "cpu.cfs_period_us")?;
            found.cpu_quota = signed(&cpu, "cpu.cfs_quota_us")?;
        }
        if let Some(memory) = self.directory("memory") {
            let limit = |value: Option<u64>| value.map(|v| if v >= V1_UNLIMITED { -1 } else { v.cast_signed() });
            found.memory_limit = limit(number(&memory, "memory.limit_in_bytes")?);
            found.memory_swap_limit = limit(number(&memory, "memory.memsw.limit_in_bytes")?);
        }
        if let Some(cpuset) = self.directory("cpuset") {
            found.cpuset_cpus = text(&cpuset, "cpuset.cpus")?;
            found.cpuset_mems = text(&cpuset, "cpuset.mems")?;
        }
        if let Some(pids) = self.directory("pids") {
            found.pids_limit = signed(&pids, "pids.max")?;
        }
        Ok(found)
    }

    fn read_v2(&self) -> Result<Resources, Error> {
        let Some(group) = self.directory("") else { return Ok(Resources::default()) };
        let mut found = Resources {
            memory_limit: signed(&group, "memory.max")?,
            cpuset_cpus: text(&group, "cpuset.cpus")?,
            cpuset_mems: text(&group, "cpuset.mems")?,
            pids_limit: signed(&group, "pids.max")?,
            ..Resources::default()
        };
        if text(&group, "cpu.max")?.is_some() {
            let (quota, period) = bandwidth_v2(&group)?;
            (found.cpu_quota, found.cpu_period) = (Some(quota), Some(period));
        }
        found.memory_swap_limit = match (signed(&group, "memory.swap.max")?, found.memory_limit) {
            (Some(-1), _) => Some(-1),
            (Some(swap), Some(memory)) if memory >= 0 => Some(memory.saturating_add(swap)),
            _ => None,
        };
        Ok(found)
    }
}

/// What no kernel could do.
fn check(resources: &Resources) -> Result<(), Error> {
    if let (Some(memory @ 0..), Some(both @ 0..)) = (resources.memory_limit, resources.memory_swap_limit)
        && both < memory
    {
        let value = format!("{both} < {memory}");
        return Err(Error::Invalid { what: "memory and swap limit", value, why: "must not be below the memory limit" });
    }
    for file in resources.unified.keys() {
        let plain = file.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        // cgroup.procs, cgroup.kill and their like are not limits but acts.
        let limit = file.split_once('.').is_some_and(|(controller, rest)| !matches!(controller, "" | "cgroup") && !rest.is_empty());
        if !plain || !limit || file.len() > 100 {
            let value = file.chars().take(100).collect();
            return Err(Error::Invalid { what: "cgroup file", value, why: "not the name of a controller's file" });
        }
    }
    let sizes = resources.hugepage_limits.keys();
    if let Some(size) = sizes.into_iter().find(|size| size.is_empty() || !size.bytes().all(|b| b.is_ascii_alphanumeric())) {
        let value = size.chars().take(100).collect();
        return Err(Error::Invalid { what: "hugepage size", value, why: "not a number and a unit" });
    }
    Ok(())
}

/// The kernel refuses a period that makes quota/period greater than the group above has; with the new quota it may fit.
fn bandwidth_v1(cpu: &Path, resources: &Resources) -> Result<(), Error> {
    let period = resources.cpu_period.filter(|period| *period > 0).map(|period| period.to_string());
    let write_period = || period.as_ref().map_or(Ok(()), |period| files::write(&cpu.join("cpu.cfs_period_us"), period));
    let first = write_period();
    if let Some(quota) = resources.cpu_quota.filter(|quota| *quota != 0) {
        files::write(&cpu.join("cpu.cfs_quota_us"), &quota.max(-1).to_string())?;
    }
    match first {
        Err(error) if error.errno() == Some(Errno::INVAL) && resources.cpu_quota.is_some() => write_period(),
        other => other,
    }
}

/// v1 keeps memory <= memory+swap at all times, so the one that makes room goes first.
fn memory_v1(memory: &Path, resources: &Resources, refused: &mut Vec<Refused>) -> Result<(), Error> {
    let (limit_file, both_file) = (memory.join("memory.limit_in_bytes"), memory.join("memory.memsw.limit_in_bytes"));
    let write = |file: &PathBuf, value: i64| files::write(file, &value.max(-1).to_string());
    let Some(both_now) = number(memory, "memory.memsw.limit_in_bytes")? else {
        if resources.memory_swap_limit.is_some() {
            refused.push(Refused::new("memory.memsw.limit_in_bytes", "the kernel does not account swap"));
        }
        return resources.memory_limit.map_or(Ok(()), |limit| write(&limit_file, limit));
    };
    let as_kernel = |limit: i64| if limit < 0 { u64::MAX } else { limit.cast_unsigned() };
    // A memory limit above the present memory+swap needs that raised with it, even if nobody said so.
    let both = resources.memory_swap_limit.or(resources.memory_limit.filter(|limit| as_kernel(*limit) > both_now));
    match (resources.memory_limit, both) {
        (Some(limit), Some(both)) if as_kernel(both) > both_now => write(&both_file, both).and_then(|()| write(&limit_file, limit)),
        (Some(limit), Some(both)) => write(&limit_file, limit).and_then(|()| write(&both_file, both)),
        (Some(limit), None) => write(&limit_file, limit),
        (None, Some(both)) => write(&both_file, both),
        (None, None) => Ok(()),
    }
}

fn reservation_v1(memory: &Path, resources: &Resources, refused: &mut Vec<Refused>) -> Result<(), Error> {
    const FILE: &str = "memory.soft_limit_in_bytes";
    let (Some(bytes), file) = (resources.memory_reservation, memory.join(FILE)) else { return Ok(()) };
    match file.exists() {
        true => files::write(&file, &bytes.max(-1).to_string())?,
        false => refused.push(Refused::new(FILE, "the kernel has none")),
    }
    Ok(())
}

/// v2 limits swap by itself, so the memory limit is taken off; where there is no swap accounting, none is used anyway.
fn swap_v2(group: &Path, both: i64, memory: Option<i64>, refused: &mut Vec<Refused>) -> Result<(), Error> {
    let memory = match memory {
        Some(memory) => memory,
        None => signed(group, "memory.max")?.unwrap_or(-1),
    };
    let swap = match (both, memory) {
        (..0, _) => "max".to_owned(),
        (_, ..0) => {
            let (value, why) = (both.to_string(), "needs a memory limit on cgroup v2");
            return Err(Error::Invalid { what: "memory and swap limit", value, why });
        }
        (both, memory) => both.saturating_sub(memory).max(0).to_string(),
    };
    let file = group.join("memory.swap.max");
    if file.exists() {
        return files::write(&file, &swap);
    }
    if swap != "0" {
        refused.push(Refused::new("memory.swap.max", "the kernel does not account swap"));
    }
    Ok(())
}

/// A kubelet says 0 for every page size of the host, hugetlb controller or not: nothing to limit is as good as 0.
fn hugepages(file: Option<PathBuf>, size: &str, limit: u64, refused: &mut Vec<Refused>) -> Result<(), Error> {
    match file.filter(|file| file.exists()) {
        Some(file) => files::write(&file, &limit.to_string()),
        None if limit == 0 => Ok(()),
        None => {
            refused.push(Refused::new(format!("hugetlb.{size}"), "no hugetlb cgroup controller or no such page size"));
            Ok(())
        }
    }
}

/// `cpu.max`: quota (-1: none) and period.
fn bandwidth_v2(group: &Path) -> Result<(i64, u64), Error> {
    let text = files::read(&group.join("cpu.max"))?;
    let mut words = text.split_ascii_whitespace();
    let quota = words.next().and_then(|word| word.parse().ok()).unwrap_or(-1);
    Ok((quota, words.next().and_then(|word| word.parse().ok()).unwrap_or(100_000)))
}

/// Weight (1 to 10000, 100 the default) of shares (2 to 262144, 1024 the default) on the curve that Kubernetes and the
/// OCI runtimes agreed upon in 2025, which keeps the defaults apart from the ends (kubernetes/kubernetes#131216).
pub(super) fn weight_of(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            #[allow(clippy::cast_precision_loss, reason = "below 2^18")]
            let power = (shares as f64).log2();
            let exponent = (power * power + 125.0 * power) / 612.0 - 7.0 / 34.0;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 10000")]
            let weight = 10f64.powf(exponent).ceil() as u64;
            weight.clamp(1, 10_000)
        }
    }
}

fn max_if_negative(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

fn max_unless_positive(limit: i64) -> String {
    if limit <= 0 { "max".to_owned() } else { limit.to_string() }
}

/// "max" and negative numbers are -1.
fn signed(directory: &Path, file: &str) -> Result<Option<i64>, Error> {
    Ok(text(directory, file)?.and_then(|text| if text == "max" { Some(-1) } else { text.parse().ok() }))
}

fn text(directory: &Path, file: &str) -> Result<Option<String>, Error> {
    Ok(files::read_if_there(&directory.join(file))?.map(|text| text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        let table = [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (1_000_000, 10_000)];
        assert_eq!(table.map(|(shares, _)| weight_of(shares)), table.map(|(_, weight)| weight));
        assert!((2..262_144).step_by(97).map(weight_of).is_sorted());
    }

    #[test]
    fn what_is_not_a_limit_is_refused() {
        for file in ["cgroup.procs", "../memory.max", "memory/max", "memory", ".max", "memory.", "", "a.b\nc"] {
            let mut resources = Resources::default();
            resources.unified.insert(file.to_owned(), "1".to_owned());
            assert!(check(&resources).is_err(), "{file:?}");
        }
        let mut resources = Resources { memory_limit: Some(10), memory_swap_limit: Some(5), ..Resources::default() };
        assert!(check(&resources).is_err());
        resources.memory_swap_limit = Some(-1);
        resources.unified.insert("memory.high".to_owned(), "max".to_owned());
        assert!(check(&resources).is_ok());
    }
}
