//! What a container of people uses, and its processes.

use std::{
    collections::HashSet,
    process::{Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use model::ErrorKind;

use super::{UserContainer, UserStatus};
use crate::{
    Engine, Inner,
    blocking::blocking,
    container::Container,
    error::{About, Error, Step},
};

/// How long ps(1) may take.
const PS_DEADLINE: Duration = Duration::from_secs(10);
/// Most that it may say.
const PS_MOST: usize = 16 << 20;

/// What a container uses at a moment.
#[derive(Clone, Debug)]
pub struct UserUsage {
    /// When it was looked at.
    pub at: Instant,
    /// CPU time in nanoseconds since it was started.
    pub cpu_ns: u64,
    /// Bytes of memory that cannot just be given back.
    pub memory: u64,
    /// Its limit, or the memory of this machine.
    pub memory_limit: u64,
    /// Bytes that came in by its network.
    pub received: u64,
    /// Bytes that it sent.
    pub sent: u64,
    /// Bytes read from disks.
    pub read: u64,
    /// Bytes written to disks.
    pub written: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// Processes as ps(1) shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessTable {
    /// Heads of the columns.
    pub titles: Vec<String>,
    /// A row per process; as many cells as there are titles.
    pub rows: Vec<Vec<String>>,
}

fn refuse(kind: ErrorKind, why: impl Into<String>) -> Error {
    Error::new(kind, About::Words, why)
}

impl Engine {
    /// What it uses now; `None`: it does not run.
    pub async fn usage_of_user(&self, user: &Arc<UserContainer>) -> Option<UserUsage> {
        let container = self.container_of_user(user).filter(|_| user.is_running())?;
        let inner = self.inner().clone();
        blocking(move || inner.usage(&container)).await
    }

    /// Its processes, with the columns that ps(1) of this machine shows for these arguments.
    ///
    /// # Errors
    /// `FailedPrecondition`: it does not run. `InvalidArgument`: ps(1) does not like the arguments, or shows no PID for them.
    pub async fn processes_of_user(&self, user: &Arc<UserContainer>, arguments: Vec<String>) -> Result<ProcessTable, Error> {
        let stopped = || refuse(ErrorKind::FailedPrecondition, format!("container {} is not running", user.id));
        match user.state().status {
            UserStatus::Running | UserStatus::Paused => {}
            UserStatus::Restarting => {
                let why = format!("container {} is restarting, wait until the container is running", user.id);
                return Err(refuse(ErrorKind::FailedPrecondition, why));
            }
            UserStatus::Created | UserStatus::Exited | UserStatus::Removing => return Err(stopped()),
        }
        let container = self.container_of_user(user).ok_or_else(stopped)?;
        let output = ps(arguments).await?;
        let inner = self.inner().clone();
        // Processes that came after ps(1) looked are not in its table; those that it saw and are gone are not shown.
        let pids = blocking(move || inner.group(&container.plan.cgroup).and_then(|group| group.processes())).await;
        let pids = pids.step(user.id, "list its processes")?.into_iter().map(|pid| pid.as_raw_nonzero().get()).collect();
        table(&output, &pids)
    }
}

impl Inner {
    fn usage(&self, container: &Container) -> Option<UserUsage> {
        let group = self.group(&container.plan.cgroup).ok()?;
        let (stats, detail) = (group.stats().ok()?, group.detail().ok()?);
        let interfaces = crate::stats::interfaces(&container.pod);
        let disks = detail.devices.iter();
        Some(UserUsage {
            at: Instant::now(),
            cpu_ns: stats.cpu_ns.unwrap_or_default(),
            memory: stats.memory_working_set.unwrap_or_default(),
            memory_limit: stats.memory_limit.unwrap_or(u64::MAX).min(machine_memory()),
            received: interfaces.iter().map(|interface| interface.received.bytes).sum(),
            sent: interfaces.iter().map(|interface| interface.sent.bytes).sum(),
            read: disks.clone().map(|disk| disk.read_bytes).sum(),
            written: disks.map(|disk| disk.write_bytes).sum(),
            pids: stats.pids.unwrap_or_default(),
        })
    }
}

/// Bytes of memory of this machine.
fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}

async fn ps(arguments: Vec<String>) -> Result<String, Error> {
    let arguments = if arguments.is_empty() { vec!["-ef".to_owned()] } else { arguments };
    let mut command = tokio::process::Command::new("ps");
    command.args(&arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("COLUMNS", "10000");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let Ok(output) = tokio::time::timeout(PS_DEADLINE, command.output()).await else {
        return Err(refuse(ErrorKind::DeadlineExceeded, "ps did not end in time"));
    };
    let Output { status, stdout, stderr } = output.step(About::Engine, "run ps")?;
    if !status.success() {
        let why: String = String::from_utf8_lossy(&stderr).chars().take(500).collect();
        return Err(refuse(ErrorKind::InvalidArgument, format!("ps: {}", why.trim())));
    }
    if stdout.len() > PS_MOST {
        return Err(refuse(ErrorKind::ResourceExhausted, "ps says too much"));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// The rows of these processes. The last column may have blanks in it.
fn table(output: &str, pids: &HashSet<i32>) -> Result<ProcessTable, Error> {
    let mut lines = output.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
    let Some(at) = titles.iter().position(|title| title == "PID") else {
        return Err(refuse(ErrorKind::InvalidArgument, "Couldn't find PID field in ps output"));
    };
    let mut rows = Vec::new();
    for line in lines {
        let mut rest = line.trim();
        let mut cells = Vec::with_capacity(titles.len());
        while cells.len() + 1 < titles.len() {
            let (cell, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            cells.push(cell.to_owned());
            rest = after.trim_start();
        }
        cells.push(rest.to_owned());
        if cells.get(at).and_then(|pid| pid.parse().ok()).is_some_and(|pid: i32| pids.contains(&pid)) {
            rows.push(cells);
        }
    }
    Ok(ProcessTable { titles, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_container() {
        let output =
            "UID          PID    PPID CMD\nroot           1       0 /sbin/init splash\nroot          17       1 sh -c  x\n";
        let table = |pids: &[i32]| table(output, &pids.iter().copied().collect());
        let found = table(&[17]).unwrap();
        assert_eq!(found.titles, ["UID", "PID", "PPID", "CMD"]);
        assert_eq!(found.rows, [["root", "17", "1", "sh -c  x"]]);
        assert_eq!(table(&[5]).unwrap().rows.len(), 0);
        assert!(super::table("A B\n1 2\n", &HashSet::new()).is_err());
        assert!(machine_memory() > 1 << 20);
    }
}
