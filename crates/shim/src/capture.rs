//! Checkpoints: containers that stand still while criu captures them, and never for longer than the daemon that asked for it
//! is there.

use std::{
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use container::{Command, Images, Io};
use model::{
    ContainerId, Signal,
    checkpoint::{CapturePlan, RestorePlan},
    plan::ContainerPlan,
};
use rustix::process::Pid;
use shim_proto::Reply;
use sys::process::{Exit, Process};

use crate::{
    cgroups::Cgroups,
    complain,
    error::Error,
    executor::{Made, Pod, Waiting, null, pipes},
    supervisor::Supervisor,
    table::Phase,
};

/// How long a killed criu may take to be gone: the kernel lets go of who it was tracing.
const REAP: Duration = Duration::from_secs(5);

/// What stands still, and who captures it.
#[derive(Debug, Default)]
pub(crate) struct Still {
    /// Cgroups that were frozen.
    groups: Vec<String>,
    capture: Option<Capture>,
}

/// criu at work.
#[derive(Debug)]
struct Capture {
    /// Number of the request.
    number: u64,
    process: Process,
    until: Instant,
}

impl Still {
    /// When criu is to be killed.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.capture.as_ref().map(|capture| capture.until)
    }

    /// Ends criu, if it runs: number of its request, and how it ended.
    fn end_capture(&mut self) -> Option<(u64, Exit)> {
        let Capture { number, process, .. } = self.capture.take()?;
        let _ = sys::process::signal(&process, Signal::KILL);
        let exit = sys::process::wait(&process, REAP).unwrap_or(Exit::Signal(Signal::KILL));
        Some((number, exit))
    }

    /// Lets everything run; what could not be is kept, to be tried again.
    fn thaw(&mut self, cgroups: &Cgroups) -> Result<(), Error> {
        let mut failed = None;
        self.groups.retain(|group| match cgroups.thaw(group) {
            Ok(()) => false,
            Err(error) => {
                failed = Some(error);
                true
            }
        });
        failed.map_or(Ok(()), Err)
    }
}

impl Supervisor {
    pub(crate) fn freeze(&mut self, containers: &[ContainerId]) -> Result<(), Error> {
        let mut groups = Vec::with_capacity(containers.len());
        for id in containers {
            let container = self.table.container(*id)?;
            if !matches!(container.phase, Phase::Running { .. }) {
                return Err(Error::State { is: container.state_name(), request: "freeze" });
            }
            groups.push(container.cgroup.clone());
        }
        for group in groups {
            // Known before it is asked for: whatever happens, it will be thawed.
            self.still.groups.push(group.clone());
            self.cgroups.freeze(&group)?;
        }
        Ok(())
    }

    /// Everything runs again when this returns.
    pub(crate) fn thaw(&mut self) -> Result<(), Error> {
        // First, so that nobody freezes again what is thawed.
        if let Some((number, exit)) = self.still.end_capture() {
            self.answer(number, &Reply::Captured { code: exit.code() }, Vec::new());
        }
        self.still.thaw(&self.cgroups)
    }

    /// The daemon that wanted it is gone.
    pub(crate) fn abandon_capture(&mut self) {
        self.still.end_capture();
        if let Err(error) = self.still.thaw(&self.cgroups) {
            complain(&format!("thaw containers: {}", error.chain()));
        }
    }

    /// Starts criu; the answer comes when it has ended.
    pub(crate) fn begin_capture(&mut self, number: u64, plan: &CapturePlan) {
        let begun = match (&self.pod, &self.still.capture) {
            (None, _) => Err(Error::State { is: "pod is not set up", request: "capture" }),
            (_, Some(_)) => Err(Error::State { is: "another capture is under way", request: "capture" }),
            (Some(pod), None) => pod.capture(plan),
        };
        match begun {
            Ok(process) => {
                let until = Instant::now() + Duration::from_millis(plan.limit);
                self.still.capture = Some(Capture { number, process, until });
            }
            Err(error) => self.answer(number, &Reply::Failed(error.failure("capture container")), Vec::new()),
        }
    }

    /// Whether it was criu that ended.
    pub(crate) fn capture_ended(&mut self, pid: Pid, exit: Exit) -> bool {
        let Some(Capture { number, .. }) = self.still.capture.take_if(|capture| capture.process.pid == pid) else { return false };
        self.answer(number, &Reply::Captured { code: exit.code() }, Vec::new());
        true
    }

    /// Kills a criu that takes too long. Whom it was tracing stays frozen, if it was.
    pub(crate) fn expire_capture(&mut self) {
        if self.still.deadline().is_some_and(|until| Instant::now() >= until)
            && let Some((number, exit)) = self.still.end_capture()
        {
            self.answer(number, &Reply::Captured { code: exit.code() }, Vec::new());
        }
    }
}

impl Pod {
    fn capture(&self, plan: &CapturePlan) -> Result<Process, Error> {
        let null = || -> Result<OwnedFd, Error> { null() };
        let io = Io { stdin: null()?, stdout: null()?, stderr: null()? };
        let command = Command { args: &plan.args, directory: Path::new(&plan.directory), io, process: None };
        let run = container::run(self.env(), command, None);
        run.map(|(process, _)| process).map_err(|source| Error::Executor { step: "run criu", source })
    }

    /// Makes a container out of images. Its processes stand still.
    pub(crate) fn restore(&self, plan: &ContainerPlan, restore: &RestorePlan, mut fds: Vec<OwnedFd>) -> Result<Made, Error> {
        if fds.is_empty() {
            return Err(Error::Descriptors { expected: 1, got: 0 });
        }
        let rootfs = fds.remove(0);
        let (io, ours) = pipes(plan.process.tty, plan.stdin)?;
        let Some((stdout, stderr)) = ours.output else { return Err(Error::NoTerminal) };
        let restored = container::restore(self.env(), plan, Images { restore, rootfs, mounts: fds, io })
            .map_err(|source| Error::Executor { step: "restore container", source })?;
        Ok(Made {
            pid: restored.process.pid,
            pidfd: restored.process.pidfd,
            waiting: Waiting::Restored(plan.cgroup.clone()),
            stdin: ours.stdin,
            stdout,
            stderr: Some(stderr),
            terminal: None,
            runtime: None,
            warnings: restored.warnings,
        })
    }
}
