//! What the supervisor knows of its containers and execs.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use model::{ContainerId, ExecId, container::ExitStatus, pod::Timestamp};
use rustix::process::Pid;
use shim_proto::{ContainerEntry, ExecEntry, Exit, ExitRecord, State, Status};

use crate::{
    error::Error,
    executor::{Terminal, Waiting},
    oom,
    output::Output,
    runtime::{Deletion, Runtime},
};

/// Containers at most. The kubelet's limit on a node is 110 pods; this is one pod.
pub(crate) const CONTAINERS: usize = 512;
/// Execs that run at a time at most.
pub(crate) const EXECS: usize = 512;

/// Where a container is in its life.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Waiting before exec.
    Created(Waiting),
    /// Running.
    Running { started_at: Timestamp },
    /// The main process has ended; its output may go on until then.
    Ended { end: End, until: Instant },
    /// Over.
    Exited { end: End },
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Timestamp,
    pub(crate) exit: ExitStatus,
}

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    /// Number for its streams in the poller.
    pub(crate) key: u32,
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) cgroup: String,
    /// It has a PID namespace of its own: the kernel kills everything in it with the main process.
    pub(crate) own_pids: bool,
    /// Other people's programs, until they have been told of its end.
    pub(crate) hooks: Option<container::Hooks>,
    /// The OCI runtime that made it and still knows of it.
    pub(crate) runtime: Option<Runtime>,
    pub(crate) phase: Phase,
    pub(crate) output: Output,
    /// Write end of stdin, if it is a pipe and open.
    pub(crate) stdin: Option<OwnedFd>,
    /// The terminal, if it has one.
    pub(crate) terminal: Option<Terminal>,
    /// The OOM killer's counters before it was there.
    pub(crate) oom_before: oom::Before,
}

impl Container {
    /// Its state for the daemon. While its output is drained it still counts as running: the exit has not been reported.
    fn entry(&self) -> ContainerEntry {
        let status = match &self.phase {
            Phase::Created(_) | Phase::Ended { end: End { started_at: None, .. }, .. } => Status::Created,
            Phase::Running { started_at } | Phase::Ended { end: End { started_at: Some(started_at), .. }, .. } => {
                Status::Running { started_at: *started_at }
            }
            Phase::Exited { end } => Status::Exited { started_at: end.started_at, finished_at: end.finished_at, exit: end.exit },
        };
        ContainerEntry { container: self.id, pid: number(self.pid), status, lost_log_bytes: self.output.lost() }
    }

    /// Its record, once it is over.
    pub(crate) fn record(&self, end: End) -> ExitRecord {
        ExitRecord {
            container: self.id,
            pid: number(self.pid),
            started_at: end.started_at,
            finished_at: end.finished_at,
            exit: end.exit,
            lost_log_bytes: self.output.lost(),
        }
    }

    /// The main process is there.
    pub(crate) fn alive(&self) -> bool {
        matches!(self.phase, Phase::Created(_) | Phase::Running { .. })
    }

    /// When it started, if it did and goes on.
    pub(crate) fn started_at(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Running { started_at } => Some(started_at),
            Phase::Created(_) => None,
            Phase::Ended { end, .. } | Phase::Exited { end } => end.started_at,
        }
    }

    /// The state's name for people.
    pub(crate) fn state_name(&self) -> &'static str {
        match self.phase {
            Phase::Created(_) => "container is created and not started",
            Phase::Running { .. } => "container is running",
            Phase::Ended { .. } | Phase::Exited { .. } => "container has exited",
        }
    }
}

/// One exec that runs.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) id: ExecId,
    pub(crate) container: ContainerId,
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) cgroup: String,
}

/// Everything, and the exits that nobody has taken note of yet.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) containers: BTreeMap<ContainerId, Container>,
    pub(crate) execs: BTreeMap<ExecId, Exec>,
    /// Runtimes that are forgetting a container.
    pub(crate) deletions: Vec<Deletion>,
    exits: Vec<Exit>,
    last_sequence: u64,
    last_key: u32,
}

impl Table {
    /// A container by id.
    pub(crate) fn container(&mut self, id: ContainerId) -> Result<&mut Container, Error> {
        self.containers.get_mut(&id).ok_or(Error::NoContainer(id))
    }

    /// A container by the number of its streams.
    pub(crate) fn by_key(&mut self, key: u32) -> Option<&mut Container> {
        self.containers.values_mut().find(|container| container.key == key)
    }

    /// The container whose living main process this is.
    pub(crate) fn by_pid(&mut self, pid: Pid) -> Option<&mut Container> {
        self.containers.values_mut().find(|container| container.pid == pid && container.alive())
    }

    /// The exec whose process this is.
    pub(crate) fn take_exec(&mut self, pid: Pid) -> Option<Exec> {
        let id = self.execs.values().find(|exec| exec.pid == pid)?.id;
        self.execs.remove(&id)
    }

    /// A number for the streams of a new container, never used before.
    pub(crate) fn next_key(&mut self) -> u32 {
        self.last_key += 1;
        self.last_key
    }

    /// Keeps an exit until it is acknowledged.
    pub(crate) fn add_exit(&mut self, exit: impl FnOnce(u64) -> Exit) -> &Exit {
        self.last_sequence += 1;
        self.exits.push(exit(self.last_sequence));
        self.exits.last().expect("it has just been added")
    }

    /// An exit has been taken note of.
    pub(crate) fn acknowledge(&mut self, sequence: u64) {
        self.exits.retain(|exit| exit.sequence() != sequence);
    }

    /// Nothing lives any more and every exit is reported.
    pub(crate) fn quiet(&self) -> bool {
        self.execs.is_empty()
            && self.deletions.is_empty()
            && self.containers.values().all(|it| matches!(it.phase, Phase::Exited { .. }))
    }

    /// The deletion whose process this is.
    pub(crate) fn take_deletion(&mut self, pid: Pid) -> Option<Deletion> {
        let at = self.deletions.iter().position(|deletion| deletion.pid() == pid)?;
        Some(self.deletions.swap_remove(at))
    }

    /// The earliest time at which a container's output is given up, or a runtime.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let until = |container: &Container| match container.phase {
            Phase::Ended { until, .. } => Some(until),
            Phase::Created(_) | Phase::Running { .. } | Phase::Exited { .. } => None,
        };
        self.containers.values().filter_map(until).chain(self.deletions.iter().map(Deletion::until)).min()
    }

    /// For the daemon.
    pub(crate) fn state(&self) -> State {
        let exec = |exec: &Exec| ExecEntry { exec: exec.id, container: exec.container, pid: number(exec.pid) };
        State {
            containers: self.containers.values().map(Container::entry).collect(),
            execs: self.execs.values().map(exec).collect(),
            exits: self.exits.clone(),
            ..State::default()
        }
    }

    /// Pidfds of everything that lives.
    pub(crate) fn living(&self) -> impl Iterator<Item = impl AsFd> {
        let mains = self.containers.values().filter(|container| container.alive()).map(|container| &container.pidfd);
        mains.chain(self.execs.values().map(|exec| &exec.pidfd))
    }
}

/// A process id as messages carry it.
pub(crate) fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}
