//! A container: its parts, and the only place that changes its state.

pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod given;
pub(crate) mod run;
pub(crate) mod stream;
pub(crate) mod update;
mod volumes;

use std::sync::{Arc, Mutex, PoisonError};

use model::{
    ContainerId, DiffId, ImageId, Resources, Signal,
    container::{ContainerEvent, ContainerImage, ContainerSpec, ContainerState, ResolvedUser},
    plan::ContainerPlan,
    pod::Timestamp,
};
use tokio::sync::watch;

use crate::{
    Inner,
    blocking::blocking,
    error::{Error, Step},
    nri::Told,
    pod::Pod,
    record::{self, ContainerPhase, ContainerRecord},
};

/// A container that exists: its set-up has succeeded once.
#[derive(Debug)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Its pod.
    pub pod: Arc<Pod>,
    /// What the client asked for.
    pub spec: ContainerSpec,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it was made from.
    pub image: ContainerImage,
    /// Who it runs as.
    pub user: ResolvedUser,
    /// Which images its image volumes are, in the order of its spec.
    pub volume_images: Vec<ImageId>,
    /// What stops it.
    pub stop_signal: Signal,
    /// What the kernel refused and was tolerated, for people.
    pub warnings: Vec<String>,
    pub(crate) plan: Arc<ContainerPlan>,
    boot: String,
    layers: Vec<DiffId>,
    /// Keeps the layers below it from being collected.
    _pins: store::LayerPins,
    state: watch::Sender<ContainerState>,
    resources: Mutex<Resources>,
    /// Start, exit, update and removal: one at a time.
    pub(crate) ops: tokio::sync::Mutex<()>,
    pub(crate) usage: Mutex<crate::stats::Samples>,
    /// Orders what NRI plugins are told of it. Taken before `ops`, never the other way round: a plugin may think.
    pub(crate) told: tokio::sync::Mutex<crate::nri::Told>,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord, pod: Arc<Pod>, state: ContainerState, pins: store::LayerPins) -> Arc<Self> {
        let told = if matches!(state, ContainerState::Exited { .. }) { Told::Stopped } else { Told::Alive };
        Arc::new(Self {
            id: record.id,
            pod,
            resources: Mutex::new(record.resources),
            spec: record.spec,
            created_at: record.created_at,
            image: record.image,
            user: record.user,
            volume_images: record.volume_images,
            stop_signal: record.stop_signal,
            warnings: record.warnings,
            plan: Arc::new(record.plan),
            boot: record.boot,
            layers: record.layers,
            _pins: pins,
            told: tokio::sync::Mutex::new(told),
            state: watch::Sender::new(state),
            ops: tokio::sync::Mutex::default(),
            usage: Mutex::default(),
        })
    }

    /// Its state now.
    pub fn state(&self) -> ContainerState {
        self.state.borrow().clone()
    }

    /// Its limits now, updates included.
    pub fn resources(&self) -> Resources {
        self.resources.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_resources(&self, resources: Resources) {
        *self.resources.lock().unwrap_or_else(PoisonError::into_inner) = resources;
    }

    /// What its executor was told to make.
    pub fn plan(&self) -> &ContainerPlan {
        &self.plan
    }

    /// Its log file, absolute; empty if it has none.
    pub fn log_path(&self) -> String {
        self.plan.log_path.clone().unwrap_or_default()
    }

    /// The directory of its writable layer.
    pub(crate) fn writable(&self, inner: &Inner) -> std::path::PathBuf {
        inner.store.container_path(self.id)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<ContainerState> {
        self.state.subscribe()
    }

    /// Puts an event through the state machine; answers the new state if it changed.
    pub(crate) fn apply(&self, event: ContainerEvent) -> Result<Option<ContainerState>, Error> {
        let old = self.state.borrow().clone();
        let new = old.clone().apply(event).step(self.id, "container")?;
        if new == old {
            return Ok(None);
        }
        tracing::info!(container = %self.id.short(), pod = %self.pod.id.short(), from = old.name(), to = new.name(), "container");
        self.state.send_replace(new.clone());
        Ok(Some(new))
    }

    pub(crate) fn record(&self) -> ContainerRecord {
        ContainerRecord {
            id: self.id,
            pod: self.pod.id,
            boot: self.boot.clone(),
            created_at: self.created_at,
            spec: self.spec.clone(),
            resources: self.resources(),
            image: self.image.clone(),
            layers: self.layers.clone(),
            user: self.user.clone(),
            volume_images: self.volume_images.clone(),
            stop_signal: self.stop_signal,
            phase: ContainerPhase::of(&self.state.borrow()),
            plan: (*self.plan).clone(),
            warnings: self.warnings.clone(),
        }
    }

    pub(crate) async fn persist(self: &Arc<Self>, inner: &Arc<Inner>) -> Result<(), Error> {
        let (container, inner) = (self.clone(), inner.clone());
        blocking(move || inner.put_container(&container.record())).await.step(self.id, "write container record")
    }
}

impl Inner {
    /// Removes a container's writable layer, unless it is one of people's, which outlives its runs. Blocks.
    pub(crate) fn remove_writable(&self, id: ContainerId) -> Result<(), store::Error> {
        if self.users.has(id) {
            return Ok(());
        }
        self.drop_project(id);
        self.store.remove_container_dir(id)
    }

    /// Writes a container's record, which is as lasting as its pod's.
    pub(crate) fn put_container(&self, record: &ContainerRecord) -> Result<(), store::Error> {
        self.store.put_container(record.id, &record::encode(record))
    }
}
