//! What a group uses, in more detail than eviction and scheduling need: for monitoring.

use std::path::Path;

use super::{
    Group, Version, files,
    stats::{Table, V1_UNLIMITED, number, table},
};
use crate::Error;

/// Use of one group with all below it; `None` where the machine does not count it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// CPU time in user mode in nanoseconds.
    pub cpu_user_ns: Option<u64>,
    /// CPU time in the kernel in nanoseconds.
    pub cpu_system_ns: Option<u64>,
    /// CFS periods that have passed while the group had work.
    pub cfs_periods: Option<u64>,
    /// Those of them in which the quota was used up.
    pub cfs_throttled_periods: Option<u64>,
    /// For how long it was held up by its quota, in nanoseconds.
    pub cfs_throttled_ns: Option<u64>,
    /// Page cache in bytes.
    pub cache: Option<u64>,
    /// Memory of the kernel in bytes.
    pub kernel: Option<u64>,
    /// Mapped files in bytes.
    pub mapped: Option<u64>,
    /// The most memory that was ever in use, in bytes.
    pub memory_peak: Option<u64>,
    /// How often the memory limit was hit.
    pub memory_limit_hits: Option<u64>,
    /// Memory that reclaim leaves to it as long as it can, in bytes; `None`: none (v1 `memory.soft_limit_in_bytes`, v2
    /// `memory.min`).
    pub memory_reservation: Option<u64>,
    /// Page faults of the group itself, without those below it; on v2 with them.
    pub own_page_faults: Option<u64>,
    /// The same of those that had to read.
    pub own_major_page_faults: Option<u64>,
    /// Huge pages, by size.
    pub hugepages: Vec<Hugepages>,
    /// Input and output, by device.
    pub devices: Vec<DeviceIo>,
    /// Most processes and threads; `None`: no limit.
    pub pids_limit: Option<u64>,
}

/// Huge pages of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hugepages {
    /// "2MB".
    pub size: String,
    /// In use, in bytes.
    pub usage: u64,
    /// The most that was ever in use (v1).
    pub peak: Option<u64>,
}

/// Input and output on one block device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceIo {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

impl Group {
    /// What it uses, in detail.
    ///
    /// # Errors
    /// read(2). A group that is not there uses nothing.
    pub fn detail(&self) -> Result<Detail, Error> {
        match self.all.version() {
            Version::V1 => self.detail_v1(),
            Version::V2 => self.detail_v2(),
        }
    }

    fn detail_v1(&self) -> Result<Detail, Error> {
        let mut detail = Detail::default();
        if let Some(cpuacct) = self.directory("cpuacct") {
            detail.cpu_user_ns = number(&cpuacct, "cpuacct.usage_user")?;
            detail.cpu_system_ns = number(&cpuacct, "cpuacct.usage_sys")?;
        }
        if let Some(cpu) = self.directory("cpu") {
            let stat = table(&cpu, "cpu.stat")?;
            detail.cfs_periods = stat.get("nr_periods");
            detail.cfs_throttled_periods = stat.get("nr_throttled");
            detail.cfs_throttled_ns = stat.get("throttled_time");
        }
        if let Some(memory) = self.directory("memory") {
            let stat = table(&memory, "memory.stat")?;
            detail.cache = stat.get("total_cache");
            detail.mapped = stat.get("total_mapped_file");
            detail.own_page_faults = stat.get("pgfault");
            detail.own_major_page_faults = stat.get("pgmajfault");
            detail.kernel = number(&memory, "memory.kmem.usage_in_bytes")?;
            detail.memory_peak = number(&memory, "memory.max_usage_in_bytes")?;
            detail.memory_limit_hits = number(&memory, "memory.failcnt")?;
            detail.memory_reservation = number(&memory, "memory.soft_limit_in_bytes")?.filter(|bytes| *bytes < V1_UNLIMITED);
        }
        if let Some(hugetlb) = self.directory("hugetlb") {
            detail.hugepages = hugepages(&hugetlb, ".usage_in_bytes", Some(".max_usage_in_bytes"))?;
        }
        if let Some(pids) = self.directory("pids") {
            detail.pids_limit = number(&pids, "pids.max")?;
        }
        if let Some(blkio) = self.directory("blkio") {
            let text = |file: &str| files::read_if_there(&blkio.join(file)).map(Option::unwrap_or_default);
            detail.devices =
                devices_v1(&text("blkio.throttle.io_service_bytes_recursive")?, &text("blkio.throttle.io_serviced_recursive")?);
        }
        Ok(detail)
    }

    fn detail_v2(&self) -> Result<Detail, Error> {
        let Some(group) = self.directory("") else { return Ok(Detail::default()) };
        let (cpu, memory) = (table(&group, "cpu.stat")?, table(&group, "memory.stat")?);
        let nanos = |key: &str| cpu.get(key).map(|us| us.saturating_mul(1000));
        Ok(Detail {
            cpu_user_ns: nanos("user_usec"),
            cpu_system_ns: nanos("system_usec"),
            cfs_periods: cpu.get("nr_periods"),
            cfs_throttled_periods: cpu.get("nr_throttled"),
            cfs_throttled_ns: nanos("throttled_usec"),
            cache: memory.get("file"),
            kernel: kernel_memory(&memory),
            mapped: memory.get("file_mapped"),
            memory_peak: number(&group, "memory.peak")?,
            memory_limit_hits: table(&group, "memory.events")?.get("max"),
            memory_reservation: number(&group, "memory.min")?.filter(|bytes| *bytes > 0),
            own_page_faults: memory.get("pgfault"),
            own_major_page_faults: memory.get("pgmajfault"),
            hugepages: hugepages(&group, ".current", None)?,
            devices: devices_v2(&files::read_if_there(&group.join("io.stat"))?.unwrap_or_default()),
            pids_limit: number(&group, "pids.max")?,
        })
    }
}

/// `kernel` is there since Linux 5.18; before, its parts.
fn kernel_memory(memory: &Table) -> Option<u64> {
    memory.get("kernel").or_else(|| {
        let parts = ["kernel_stack", "pagetables", "percpu", "sock", "slab"];
        parts.into_iter().filter_map(|part| memory.get(part)).reduce(u64::saturating_add)
    })
}

/// Files `hugetlb.SIZE.usage_in_bytes` (v1), `hugetlb.SIZE.current` (v2); those of reservations are left out.
fn hugepages(group: &Path, usage: &str, peak: Option<&str>) -> Result<Vec<Hugepages>, Error> {
    let names = std::fs::read_dir(group).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let size = |name: String| name.strip_prefix("hugetlb.")?.strip_suffix(usage).map(str::to_owned);
    let mut sizes: Vec<String> = names.filter_map(size).filter(|size| !size.contains('.')).collect();
    sizes.sort();
    let mut found = Vec::new();
    for size in sizes {
        let Some(bytes) = number(group, &format!("hugetlb.{size}{usage}"))? else { continue };
        let peak = match peak {
            Some(peak) => number(group, &format!("hugetlb.{size}{peak}"))?,
            None => None,
        };
        found.push(Hugepages { size, usage: bytes, peak });
    }
    Ok(found)
}

fn device<'a>(devices: &'a mut Vec<DeviceIo>, number: &str) -> Option<&'a mut DeviceIo> {
    let (major, minor) = number.split_once(':')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    let at = match devices.iter().position(|device| (device.major, device.minor) == (major, minor)) {
        Some(at) => at,
        None => {
            devices.push(DeviceIo { major, minor, ..DeviceIo::default() });
            devices.len() - 1
        }
    };
    devices.get_mut(at)
}

/// Lines of "8:0 Read 4096"; other operations are sums of these two, or not asked for.
fn devices_v1(bytes: &str, operations: &str) -> Vec<DeviceIo> {
    let mut devices = Vec::new();
    let mut each = |text: &str, set: fn(&mut DeviceIo, &str, u64)| {
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            if let (Some(number), Some(operation), Some(Ok(value))) = (words.next(), words.next(), words.next().map(str::parse))
                && let Some(device) = device(&mut devices, number)
            {
                set(device, operation, value);
            }
        }
    };
    each(bytes, |device, operation, value| match operation {
        "Read" => device.read_bytes = value,
        "Write" => device.write_bytes = value,
        _ => {}
    });
    each(operations, |device, operation, value| match operation {
        "Read" => device.reads = value,
        "Write" => device.writes = value,
        _ => {}
    });
    devices
}

/// Lines of "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0".
fn devices_v2(stat: &str) -> Vec<DeviceIo> {
    let mut devices = Vec::new();
    for line in stat.lines() {
        let Some((number, fields)) = line.split_once(' ') else { continue };
        let Some(device) = device(&mut devices, number) else { continue };
        for (key, value) in fields.split_ascii_whitespace().filter_map(|field| field.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match key {
                "rbytes" => device.read_bytes = value,
                "wbytes" => device.write_bytes = value,
                "rios" => device.reads = value,
                "wios" => device.writes = value,
                _ => {}
            }
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_both_versions() {
        let one = DeviceIo { major: 8, minor: 16, read_bytes: 4096, write_bytes: 512, reads: 2, writes: 1 };
        let bytes = "8:16 Read 4096\n8:16 Write 512\n8:16 Sync 0\n8:16 Total 4608\nTotal 4608\n";
        assert_eq!(devices_v1(bytes, "8:16 Read 2\n8:16 Write 1\nTotal 3\n"), [one]);
        assert_eq!(
            devices_v2("8:16 rbytes=4096 wbytes=512 rios=2 wios=1 dbytes=0 dios=0\n8:0 \nx\n"),
            [one, DeviceIo { major: 8, ..DeviceIo::default() }]
        );
    }

    #[test]
    fn hugepage_files_by_size() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("hugetlb.2MB.current", "4194304\n"),
            ("hugetlb.2MB.rsvd.current", "7\n"),
            ("hugetlb.1GB.current", "0\n"),
            ("hugetlb.2MB.max", "max\n"),
        ] {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let found = hugepages(dir.path(), ".current", None).unwrap();
        let of = |size: &str, usage| Hugepages { size: size.into(), usage, peak: None };
        assert_eq!(found, [of("1GB", 0), of("2MB", 4_194_304)]);
    }

    #[test]
    fn memory_of_the_kernel_in_parts() {
        let old = Table::of("kernel_stack 1\npagetables 2\nslab 4\nslab_reclaimable 100\n");
        assert_eq!((kernel_memory(&old), kernel_memory(&Table::of("kernel 9\nslab 1\n"))), (Some(7), Some(9)));
        assert_eq!(kernel_memory(&Table::of("")), None);
    }
}
