//! ExecSync: a command in a running container, its output and exit code.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use model::{ContainerId, ErrorKind, ExecId};
use sys::cgroup::Track;
use tokio::{io::AsyncReadExt, net::unix::pipe, time::Instant};

use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error, Step},
    shim::ExecIo,
    spec,
};

/// stdout and stderr together, so that the reply stays below the 16 MiB that a kubelet accepts (security.md R38).
const OUTPUT_LIMIT: usize = 15 << 20;
/// A child left in the background may hold the pipes open; the answer does not wait for it longer than this.
const DRAIN: Duration = Duration::from_millis(500);
/// How long a killed process set may take to be reaped.
const REAP: Duration = Duration::from_secs(10);
/// Appended where output was cut.
const CUT: &[u8] = b"\n[creel: output cut at 15 MiB]\n";

/// What a command left behind.
#[derive(Clone, Debug, Default)]
pub struct ExecOutput {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Exit code; 128 + signal when a signal ended it.
    pub exit_code: i32,
}

impl Inner {
    /// Runs `command` in a container. `timeout`: `None` waits as long as the caller does. A caller who goes away
    /// takes the command with it.
    pub(crate) async fn exec_sync(
        self: &Arc<Self>,
        id: ContainerId,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecOutput, Error> {
        let container = self.running(id)?;
        let deadline = timeout.map(|t| Instant::now() + t);
        let exec = ExecId::from_bytes(crate::random_id());
        let plan = spec::exec_plan(&container.plan, exec, command).step(id, "exec")?;
        // Its own cgroup, so that it can be killed with everything it starts, should it not end in time.
        let group = ExecGroup::create(self, plan.cgroup.clone()).await.step(id, "make the exec's cgroup")?;
        let io = match container.pod.shim()?.exec(&plan).await {
            Ok(io) => io,
            Err(e) => return not_run(e).step(id, "exec"),
        };
        let collected = collect(io, deadline).await;
        match collected {
            Some(_) => group.release(),
            None => group.kill().await.step(id, "kill the timed-out command")?,
        }
        collected.ok_or_else(|| {
            let seconds = timeout.unwrap_or_default().as_secs();
            Error::new(
                ErrorKind::DeadlineExceeded,
                About::Container(id),
                format!("exec: command did not end within {seconds} s and was killed"),
            )
        })
    }
}

/// A program that is not there (127) or cannot be run (126) is an outcome, as in a shell, and not a fault of the engine: a
/// probe then fails and says why, and is not thrown away.
fn not_run(error: crate::shim::Error) -> Result<ExecOutput, crate::shim::Error> {
    match error.exit_code() {
        Some(exit_code) => {
            Ok(ExecOutput { stdout: Vec::new(), stderr: format!("{}\n", crate::chain(&error)).into_bytes(), exit_code })
        }
        None => Err(error),
    }
}

/// `None`: the deadline passed.
async fn collect(io: ExecIo, deadline: Option<Instant>) -> Option<ExecOutput> {
    let mut output = ExecOutput::default();
    let (mut out, mut err) = (Sink::new(io.stdout), Sink::new(io.stderr));
    let mut exit = io.exit;
    let ended = {
        let both = async { tokio::join!(out.read_to_end(), err.read_to_end()) };
        let mut both = std::pin::pin!(both);
        let mut drained = false;
        let wait = async {
            loop {
                tokio::select! {
                    _ = &mut both, if !drained => drained = true,
                    status = &mut exit => {
                        if !drained { tokio::time::timeout(DRAIN, &mut both).await.ok(); }
                        break status;
                    }
                }
            }
        };
        match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, wait).await.ok()?,
            None => wait.await,
        }
    };
    // A supervisor that dies takes the command with it.
    output.exit_code = ended.map_or(137, |status| status.code);
    // Each may have half, and what the other leaves.
    let stdout_limit = OUTPUT_LIMIT - err.bytes.len().min(OUTPUT_LIMIT / 2);
    output.stdout = out.cut(stdout_limit);
    output.stderr = err.cut(OUTPUT_LIMIT - output.stdout.len());
    Some(output)
}

/// One output pipe and what came out of it, up to the limit; the rest is read and dropped, so that the command does
/// not block.
struct Sink {
    pipe: Option<pipe::Receiver>,
    bytes: Vec<u8>,
    lost: bool,
}

impl Sink {
    fn new(fd: Option<OwnedFd>) -> Self {
        Self { pipe: fd.and_then(|fd| pipe::Receiver::from_owned_fd(fd).ok()), bytes: Vec::new(), lost: false }
    }

    async fn read_to_end(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut chunk = vec![0; 16 << 10];
        while let Ok(n @ 1..) = pipe.read(&mut chunk).await {
            let room = (OUTPUT_LIMIT - self.bytes.len()).min(n);
            self.bytes.extend_from_slice(&chunk[..room]);
            self.lost |= room < n;
        }
    }

    fn cut(mut self, limit: usize) -> Vec<u8> {
        if self.lost || self.bytes.len() > limit {
            self.bytes.truncate(limit.saturating_sub(CUT.len()));
            self.bytes.extend_from_slice(&CUT[..CUT.len().min(limit)]);
        }
        self.bytes
    }
}

/// The cgroup of one command. Dropped before the command has ended, also by a caller who goes away: everything in it is
/// killed.
pub(super) struct ExecGroup {
    inner: Arc<Inner>,
    name: String,
    done: bool,
}

impl ExecGroup {
    pub(super) async fn create(inner: &Arc<Inner>, name: String) -> Result<Self, sys::Error> {
        let group = Self { inner: inner.clone(), name: name.clone(), done: false };
        let cgroups = inner.clone();
        blocking(move || Track::at(&cgroups.cgroups, &name)?.create()).await?;
        Ok(group)
    }

    async fn kill(mut self) -> Result<(), sys::Error> {
        self.done = true;
        let (inner, name) = (self.inner.clone(), self.name.clone());
        blocking(move || kill_and_remove(&inner, &name)).await
    }

    /// The command has ended. What it left running on purpose (a hook that starts a daemon) runs on, as everywhere in the
    /// field, and goes with the container; nobody left, the group goes now.
    pub(super) fn release(mut self) {
        self.done = true;
        let (inner, name) = (self.inner.clone(), std::mem::take(&mut self.name));
        tokio::task::spawn_blocking(move || {
            if let Err(e) = Track::at(&inner.cgroups, &name).and_then(|group| group.remove()) {
                tracing::debug!(cgroup = name, error = %e, "an exec left processes running");
            }
        });
    }
}

fn kill_and_remove(inner: &Inner, name: &str) -> Result<(), sys::Error> {
    let group = Track::at(&inner.cgroups, name)?;
    group.kill_all(REAP)?;
    group.remove()
}

impl Drop for ExecGroup {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let (inner, name) = (self.inner.clone(), std::mem::take(&mut self.name));
        tokio::task::spawn_blocking(move || {
            if let Err(e) = kill_and_remove(&inner, &name) {
                tracing::warn!(cgroup = name, error = %e, "exec left something behind");
            }
        });
    }
}
