//! Output as it comes, and the end of a container: what is left in its pipes, its record, its report.

use std::time::{Duration, Instant};

use model::{ContainerId, container::ExitStatus, pod::Timestamp};
use shim_proto::Event;
use sys::process::Exit;

use crate::{
    output::Progress,
    poller::Token,
    runtime::{Deletion, Runtime},
    supervisor::Supervisor,
    table::{Container, End, Phase},
};

/// How long an exit may wait for the end of the output. Somebody else may still have the pipe open: a process outside the
/// container that was handed it. What comes later is not read.
const GRACE: Duration = Duration::from_millis(100);

/// Reads of one stream right after the exit: more than any pipe holds (/proc/sys/fs/pipe-max-size).
const LAST_READS: usize = 64;

impl Supervisor {
    /// A container has said something.
    pub(crate) fn read_stream(&mut self, key: u32, index: usize) {
        let Some(container) = self.table.by_key(key) else { return };
        if container.output.read(index, &mut self.scratch) == Progress::End {
            close_stream(&self.poller, container, index, &mut self.scratch);
        }
        let id = container.id;
        self.pass_on_complaint(id);
    }

    fn pass_on_complaint(&mut self, id: ContainerId) {
        let Ok(container) = self.table.container(id) else { return };
        if let Some(complaint) = container.output.log().and_then(|log| log.take_complaint()) {
            self.warn(Some(id), complaint);
        }
    }

    /// The main process has ended. Everything else in the container ends with it, then its output is read to the end.
    pub(crate) fn main_ended(&mut self, id: ContainerId, exit: ExitStatus, at: Timestamp) {
        let Ok(container) = self.table.container(id) else { return };
        // In a PID namespace of its own the kernel has killed and collected all others before the main process could be
        // collected (pid_namespaces(7)).
        let left = if container.own_pids { Ok(()) } else { self.cgroups.kill(&container.cgroup) };
        let exit = self.cgroups.explain(&container.cgroup, container.oom_before, exit);
        let end = End { started_at: container.started_at(), finished_at: at, exit };
        container.phase = Phase::Ended { end, until: Instant::now() + GRACE };
        container.stdin = None;
        container.terminal = None;
        for index in [0, 1] {
            for _ in 0..LAST_READS {
                match container.output.read(index, &mut self.scratch) {
                    Progress::Some => {}
                    Progress::Nothing => break,
                    Progress::End => {
                        close_stream(&self.poller, container, index, &mut self.scratch);
                        break;
                    }
                }
            }
        }
        if let Err(error) = left {
            self.warn(Some(id), error.chain());
        }
        self.pass_on_complaint(id);
    }

    /// Reports every end whose output is complete, or has had its time.
    pub(crate) fn settle_ended(&mut self) {
        let now = Instant::now();
        let due = |container: &Container| match container.phase {
            Phase::Ended { end, until } if container.output.ended() || now >= until => Some((container.id, end)),
            Phase::Ended { .. } | Phase::Created(_) | Phase::Running { .. } | Phase::Exited { .. } => None,
        };
        let due: Vec<(ContainerId, End)> = self.table.containers.values().filter_map(due).collect();
        for (id, end) in due {
            self.report_end(id, end);
        }
    }

    /// First to disk, then to the daemon: the record has to be there if this process is lost in between.
    fn report_end(&mut self, id: ContainerId, end: End) {
        self.close_container(id, end);
        let Ok(container) = self.table.container(id) else { return };
        let record = container.record(end);
        if let Err(error) = self.exits.write(&record) {
            self.warn(Some(id), error.chain());
        }
        let exit = self.table.add_exit(|sequence| shim_proto::Exit::Container { sequence, record }).clone();
        self.tell(&Event::Exited(exit));
        self.stopped(id);
    }

    /// Closes everything of a container that is over.
    pub(crate) fn close_container(&mut self, id: ContainerId, end: End) {
        let Ok(container) = self.table.container(id) else { return };
        container.phase = Phase::Exited { end };
        container.stdin = None;
        container.terminal = None;
        for index in [0, 1] {
            close_stream(&self.poller, container, index, &mut self.scratch);
        }
        if let Some(runtime) = container.runtime.take() {
            self.begin_deletion(id, runtime);
        }
        self.pass_on_complaint(id);
    }

    fn begin_deletion(&mut self, id: ContainerId, runtime: Runtime) {
        let Some(pod) = self.pod.as_ref() else { return };
        match pod.delete(runtime) {
            Ok(deletion) => self.table.deletions.push(deletion),
            Err(error) => self.warn(Some(id), error.chain()),
        }
    }

    /// A runtime has forgotten a container, or says why not; its files are gone in both cases.
    pub(crate) fn deleted(&mut self, deletion: Deletion, exit: Exit) {
        let id = deletion.container();
        if let Err(error) = deletion.ended(exit) {
            self.warn(Some(id), error.chain());
        }
    }

    /// Ends runtimes that take too long; they are collected as all children are.
    pub(crate) fn expire_deletions(&mut self) {
        let now = Instant::now();
        for deletion in self.table.deletions.iter_mut().filter(|deletion| now >= deletion.until()) {
            deletion.kill();
        }
    }

    /// Waits until nothing is left of a container at its runtime.
    pub(crate) fn finish_deletion(&mut self, id: ContainerId) {
        let Some(at) = self.table.deletions.iter().position(|deletion| deletion.container() == id) else { return };
        let deletion = self.table.deletions.swap_remove(at);
        if let Err(error) = deletion.finish() {
            self.warn(Some(id), error.chain());
        }
    }

    /// Begins to read a container's output.
    pub(crate) fn watch_output(&self, container: &Container) -> Result<(), rustix::io::Errno> {
        container.output.open().try_for_each(|(index, fd)| self.poller.add(fd, Token::Stream(container.key, index)))
    }
}

fn close_stream(poller: &crate::poller::Poller, container: &mut Container, index: usize, scratch: &mut crate::output::Scratch) {
    if let Some((_, fd)) = container.output.open().find(|(at, _)| *at == index) {
        poller.remove(fd);
    }
    container.output.close(index, scratch);
}
