//! Checkpoint and restore (KEP-2008, KEP-5823), with criu as a program beside.
//!
//! Containers stand still together from before the first is captured until after the last. The supervisor freezes them and
//! runs criu: should the daemon die, it lets them run again. What is captured is a directory per container ([`archive`]):
//! criu's images, what the container changed of its root and volumes, and what it was. Nothing of that decides how a
//! restored container is made: its plan comes from the request, and the archive is compared with it ([`restore`]).

pub mod archive;
mod capture;
mod criu;
pub mod images;
mod location;
mod memory;
mod restore;
mod wire;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use model::{ContainerId, ErrorKind, PodId, container::ContainerSpec, pod::PodSpec};

pub use criu::Criu;
pub(crate) use location::Scratch;
pub(crate) use restore::Restoring;

use crate::{
    Engine,
    error::{About, Error},
};

/// For a caller who sets no limit. As long as a kubelet waits at least.
const DEFAULT: Duration = Duration::from_secs(120);
/// Of a limit this much is kept for letting everything run again and cleaning up.
const MARGIN: Duration = Duration::from_millis(500);

/// How long something may take, and whether anybody waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    until: Instant,
    gone: Arc<AtomicBool>,
}

/// A caller who waits. Dropped: nobody does.
struct Caller(Arc<AtomicBool>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Limit {
    fn new(limit: Option<Duration>) -> (Self, Caller) {
        let limit = limit.unwrap_or(DEFAULT);
        let gone = Arc::new(AtomicBool::new(false));
        let until = Instant::now() + limit.saturating_sub(MARGIN.min(limit / 10));
        (Self { until, gone: gone.clone() }, Caller(gone))
    }

    pub(crate) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Whether to go on.
    pub(crate) fn check(&self, about: impl Into<About>) -> Result<(), Error> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, about.into(), "the caller has gone away"));
        }
        if self.left().is_zero() {
            return Err(Error::new(ErrorKind::DeadlineExceeded, about.into(), "the time limit has passed"));
        }
        Ok(())
    }

    /// Comes back when it is time to stop.
    pub(crate) async fn passed(&self) {
        while !self.gone.load(Ordering::Relaxed) && !self.left().is_zero() {
            tokio::time::sleep(self.left().min(Duration::from_millis(20))).await;
        }
    }

    /// A writer that fails when it is time to stop.
    pub(crate) fn guard<W: std::io::Write>(&self, writer: W) -> Guarded<W> {
        Guarded { writer, limit: self.clone() }
    }
}

/// See [`Limit::guard`].
#[derive(Debug)]
pub(crate) struct Guarded<W> {
    writer: W,
    limit: Limit,
}

impl<W: std::io::Write> std::io::Write for Guarded<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.limit.check(About::Engine).map_err(|_| std::io::ErrorKind::TimedOut)?;
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}

/// A container that was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredContainer {
    /// The name in its specification.
    pub name: String,
    /// Its id.
    pub id: ContainerId,
}

impl Engine {
    /// CheckpointContainer: `location` becomes a tar archive of a running container, which goes on running. `limit`: `None`
    /// waits two minutes.
    pub async fn checkpoint_container(&self, id: ContainerId, location: PathBuf, limit: Option<Duration>) -> Result<(), Error> {
        let (limit, _caller) = Limit::new(limit);
        let (inner, container) = (self.inner().clone(), self.inner().running(id)?);
        self.inner()
            .detached(About::Container(id), async move { inner.checkpoint_container(container, location, limit).await })
            .await
    }

    /// CheckpointPod: the empty directory `output` gets all running `containers` of a pod, at one moment of theirs.
    pub async fn checkpoint_pod(
        &self,
        id: PodId,
        output: PathBuf,
        containers: Vec<ContainerId>,
        limit: Option<Duration>,
    ) -> Result<(), Error> {
        let (limit, _caller) = Limit::new(limit);
        let (inner, pod) = (self.inner().clone(), self.inner().table.pod(id)?);
        let work = async move { inner.checkpoint_pod(&pod, output, containers, limit).await };
        self.inner().detached(About::Pod(id), work).await
    }

    /// RestorePod: a pod as `spec` says with a created container for each of `containers`, whose processes stand as they were
    /// captured and run when they are started. On an error there is nothing of it.
    pub async fn restore_pod(
        &self,
        spec: PodSpec,
        containers: Vec<ContainerSpec>,
        from: PathBuf,
        limit: Option<Duration>,
    ) -> Result<(PodId, Vec<RestoredContainer>), Error> {
        let (limit, _caller) = Limit::new(limit);
        let inner = self.inner().clone();
        let work = async move { inner.restore_pod(spec, containers, from, limit).await };
        self.inner().detached(About::Engine, work).await
    }

    /// The criu that would be used, or why there is none.
    pub async fn criu(&self) -> Result<Criu, String> {
        self.inner().find_criu().await.map_err(|error| error.chain())
    }
}
