//! What a group uses: a fixed number of files, whatever is in it.

use std::path::Path;

use super::{Group, Version, files};
use crate::Error;

/// The smallest value by which v1 says "no limit": the greatest i64, rounded down to whole pages of up to 64 KiB.
pub(super) const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;

/// Use of one group with all below it; `None` where the machine does not count it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// CPU time in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Memory in bytes, page cache with it.
    pub memory_usage: Option<u64>,
    /// Memory without inactive page cache: what eviction looks at.
    pub memory_working_set: Option<u64>,
    /// Anonymous memory in bytes.
    pub memory_rss: Option<u64>,
    /// Memory limit in bytes; `None`: none.
    pub memory_limit: Option<u64>,
    /// Page faults.
    pub page_faults: Option<u64>,
    /// Page faults that had to read.
    pub major_page_faults: Option<u64>,
    /// Swap in bytes.
    pub swap_usage: Option<u64>,
    /// Swap limit in bytes; `None`: none.
    pub swap_limit: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Processes killed for lack of memory since the group was made.
    pub oom_kills: u64,
    /// Pressure stall information (v2).
    pub cpu_psi: Option<Psi>,
    /// The same for memory.
    pub memory_psi: Option<Psi>,
    /// The same for I/O.
    pub io_psi: Option<Psi>,
}

/// Pressure on one resource (Documentation/accounting/psi.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Psi {
    /// Some tasks stalled.
    pub some: Pressure,
    /// All of them stalled.
    pub full: Pressure,
}

/// Share of time stalled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Per cent over 10 seconds.
    pub avg10: f64,
    /// Over a minute.
    pub avg60: f64,
    /// Over five minutes.
    pub avg300: f64,
    /// Microseconds in all.
    pub total_us: u64,
}

impl Group {
    /// What it uses.
    ///
    /// # Errors
    /// read(2). A group that is not there uses nothing.
    pub fn stats(&self) -> Result<Stats, Error> {
        match self.all.version() {
            Version::V1 => self.stats_v1(),
            Version::V2 => self.stats_v2(),
        }
    }

    /// Processes killed in it for lack of memory; 0 if nothing counts them.
    ///
    /// # Errors
    /// read(2).
    pub fn oom_kills(&self) -> Result<u64, Error> {
        let Some(memory) = self.directory("memory") else { return Ok(0) };
        let file = match self.all.version() {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        Ok(table(&memory, file)?.get("oom_kill").unwrap_or(0))
    }

    /// How often it reached its own memory limit: on v2 with nothing left but to kill, on v1 also when reclaim helped.
    ///
    /// # Errors
    /// read(2).
    pub fn memory_limit_hits(&self) -> Result<u64, Error> {
        let Some(memory) = self.directory("memory") else { return Ok(0) };
        match self.all.version() {
            Version::V1 => Ok(number(&memory, "memory.failcnt")?.unwrap_or(0)),
            // Those of the groups below it are not its own (`memory.events` has them too).
            Version::V2 => Ok(table(&memory, "memory.events.local")?.get("oom").unwrap_or(0)),
        }
    }

    /// Its memory limit in bytes; `None`: none.
    ///
    /// # Errors
    /// read(2).
    pub fn memory_limit(&self) -> Result<Option<u64>, Error> {
        let Some(memory) = self.directory("memory") else { return Ok(None) };
        match self.all.version() {
            Version::V1 => Ok(number(&memory, "memory.limit_in_bytes")?.filter(|bytes| *bytes < V1_UNLIMITED)),
            Version::V2 => number(&memory, "memory.max"),
        }
    }

    fn stats_v1(&self) -> Result<Stats, Error> {
        let mut stats = Stats { oom_kills: self.oom_kills()?, ..Stats::default() };
        if let Some(directory) = self.directory("cpuacct") {
            stats.cpu_ns = number(&directory, "cpuacct.usage")?;
        }
        if let Some(directory) = self.directory("pids") {
            stats.pids = number(&directory, "pids.current")?;
        }
        let Some(memory) = self.directory("memory") else { return Ok(stats) };
        let table = table(&memory, "memory.stat")?;
        let limit = |value: Option<u64>| value.filter(|bytes| *bytes < V1_UNLIMITED);
        stats.memory_usage = number(&memory, "memory.usage_in_bytes")?;
        stats.memory_working_set = working_set(stats.memory_usage, table.get("total_inactive_file"));
        stats.memory_rss = table.get("total_rss");
        stats.page_faults = table.get("total_pgfault");
        stats.major_page_faults = table.get("total_pgmajfault");
        stats.memory_limit = self.memory_limit()?;
        stats.swap_usage = table.get("total_swap");
        let both = limit(number(&memory, "memory.memsw.limit_in_bytes")?);
        stats.swap_limit = both.map(|both| both.saturating_sub(stats.memory_limit.unwrap_or(both)));
        Ok(stats)
    }

    fn stats_v2(&self) -> Result<Stats, Error> {
        let Some(directory) = self.directory("") else { return Ok(Stats::default()) };
        let memory = table(&directory, "memory.stat")?;
        let usage = number(&directory, "memory.current")?;
        Ok(Stats {
            cpu_ns: table(&directory, "cpu.stat")?.get("usage_usec").map(|us| us.saturating_mul(1000)),
            memory_usage: usage,
            memory_working_set: working_set(usage, memory.get("inactive_file")),
            memory_rss: memory.get("anon"),
            memory_limit: number(&directory, "memory.max")?,
            page_faults: memory.get("pgfault"),
            major_page_faults: memory.get("pgmajfault"),
            swap_usage: number(&directory, "memory.swap.current")?,
            swap_limit: number(&directory, "memory.swap.max")?,
            pids: number(&directory, "pids.current")?,
            oom_kills: self.oom_kills()?,
            cpu_psi: psi(&directory, "cpu.pressure")?,
            memory_psi: psi(&directory, "memory.pressure")?,
            io_psi: psi(&directory, "io.pressure")?,
        })
    }
}

fn working_set(usage: Option<u64>, inactive: Option<u64>) -> Option<u64> {
    Some(usage?.saturating_sub(inactive.unwrap_or(0)))
}

/// A file with one number; "max" and files that are not there are `None`.
pub(super) fn number(directory: &Path, file: &str) -> Result<Option<u64>, Error> {
    Ok(files::read_if_there(&directory.join(file))?.and_then(|text| text.trim().parse().ok()))
}

/// A file of "key number" lines.
pub(super) struct Table(String);

impl Table {
    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(super) fn get(&self, key: &str) -> Option<u64> {
        self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
    }
}

pub(super) fn table(directory: &Path, file: &str) -> Result<Table, Error> {
    Ok(Table(files::read_if_there(&directory.join(file))?.unwrap_or_default()))
}

fn psi(directory: &Path, file: &str) -> Result<Option<Psi>, Error> {
    Ok(files::read_if_there(&directory.join(file))?
        .map(|text| Psi { some: pressure(&text, "some"), full: pressure(&text, "full") }))
}

/// One line of "some avg10=0.00 avg60=0.00 avg300=0.00 total=0".
fn pressure(text: &str, which: &str) -> Pressure {
    let line = text.lines().find_map(|line| line.strip_prefix(which)).unwrap_or_default();
    let field = |name: &str| line.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let average = |name| field(name).and_then(|value| value.parse().ok()).unwrap_or(0.0);
    Pressure {
        avg10: average("avg10"),
        avg60: average("avg60"),
        avg300: average("avg300"),
        total_us: field("total").and_then(|value| value.parse().ok()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_pressure_are_read() {
        let table = Table("anon 1\nanon_thp 2\npgfault 33\n".to_owned());
        assert_eq!((table.get("anon"), table.get("pgfault"), table.get("pg")), (Some(1), Some(33), None));
        let text = "some avg10=1.50 avg60=0.10 avg300=0.00 total=77\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=5\n";
        assert_eq!(pressure(text, "some"), Pressure { avg10: 1.5, avg60: 0.1, avg300: 0.0, total_us: 77 });
        assert_eq!(pressure(text, "full").total_us, 5);
        assert_eq!(pressure("", "full"), Pressure::default());
    }
}
