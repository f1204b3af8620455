//! A pod: its parts, and the only place that changes its state.

mod dial;
pub(crate) mod events;
pub(crate) mod setup;
pub(crate) mod stop;
pub(crate) mod update;
mod userns;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock, atomic::AtomicBool},
};

use model::{
    ContainerId, ErrorKind, PodId,
    container::ContainerKey,
    pod::{Admit, PodRequest, PodSpec, PodState, Timestamp},
};
use tokio::sync::watch;

use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error, Step},
    events::EventKind,
    flight::Flights,
    record::{self, MoreNetwork, NetworkDebt, PodPhase, PodRecord},
    shim::Shim,
};

/// Where things of a pod are: functions of its id, so that a half-made pod is found without a journal.
#[derive(Clone, Debug)]
pub(crate) struct PodPaths {
    /// `RUN/pods/ID`
    pub dir: PathBuf,
}

impl PodPaths {
    pub(crate) fn new(run: &std::path::Path, id: PodId) -> Self {
        Self { dir: run.join("pods").join(id.to_string()) }
    }
}

/// The connection to a pod's supervisor.
#[derive(Debug)]
pub(crate) enum Supervisor {
    /// It answers.
    Alive(Arc<Shim>),
    /// There is none (any more).
    Gone,
}

/// A pod that exists: its set-up has succeeded once.
#[derive(Debug)]
pub struct Pod {
    /// Its id.
    pub id: PodId,
    /// What the client asked for.
    pub spec: PodSpec,
    /// When it was made.
    pub created_at: Timestamp,
    pub(crate) boot: String,
    pub(crate) paths: PodPaths,
    /// Its cgroup, parent of its containers' and its supervisor's.
    pub(crate) cgroup: String,
    pub(crate) own_cgroup: bool,
    /// SELinux level of its containers, where SELinux is on.
    pub(crate) selinux_level: Option<String>,
    state: watch::Sender<PodState>,
    network: Mutex<NetworkDebt>,
    more_networks: Mutex<Vec<MoreNetwork>>,
    supervisor: RwLock<Supervisor>,
    /// Whether the record has been removed. Held while it is written: the newest state is the last one written, and
    /// nothing that was late brings a removed pod back at the next start.
    removed: Mutex<bool>,
    pub(crate) creating: Flights<ContainerKey, ContainerId, Error>,
    /// Creations hold it shared, stop and remove alone: a stop waits for creations in flight, and none begins after it.
    pub(crate) gate: tokio::sync::RwLock<()>,
    pub(crate) usage: Mutex<crate::stats::Samples>,
    size: Mutex<update::PodSize>,
    /// Updates of its size: one at a time.
    resizing: tokio::sync::Mutex<()>,
    /// Whether NRI plugins know that it has stopped.
    pub(crate) told_stop: AtomicBool,
}

/// What a pod is made from, at set-up and at recovery alike.
#[derive(Debug)]
pub(crate) struct PodParts {
    pub record: PodRecord,
    pub state: PodState,
    pub supervisor: Supervisor,
}

impl Pod {
    pub(crate) fn new(parts: PodParts, paths: PodPaths) -> Arc<Self> {
        let PodParts { record, state, supervisor } = parts;
        let stopped = matches!(state, PodState::NotReady { .. });
        let size = record.size.unwrap_or_else(|| update::PodSize::of(&record.spec));
        Arc::new(Self {
            size: Mutex::new(size),
            resizing: tokio::sync::Mutex::default(),
            id: record.id,
            spec: record.spec,
            created_at: record.created_at,
            boot: record.boot,
            paths,
            cgroup: record.cgroup,
            own_cgroup: record.own_cgroup,
            selinux_level: record.selinux_level,
            state: watch::Sender::new(state),
            network: Mutex::new(record.network),
            more_networks: Mutex::new(record.more_networks.unwrap_or_default()),
            supervisor: RwLock::new(supervisor),
            removed: Mutex::default(),
            creating: Flights::default(),
            gate: tokio::sync::RwLock::default(),
            usage: Mutex::default(),
            told_stop: AtomicBool::new(stopped),
        })
    }

    /// Its state now.
    pub fn state(&self) -> PodState {
        self.state.borrow().clone()
    }

    /// Whether it was made for a container of people, and not over CRI.
    pub fn is_users(&self) -> bool {
        self.spec.own.is_some()
    }

    /// One of its files, by its name in /etc: hosts, hostname, resolv.conf.
    pub fn file(&self, name: &str) -> PathBuf {
        self.paths.dir.join(name)
    }

    /// Its cgroup, below each hierarchy's root.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Asks the state machine.
    pub(crate) fn admit(&self, request: PodRequest) -> Result<Admit, Error> {
        model::pod::admit(&self.state.borrow(), request).step(self.id, "pod")
    }

    /// The supervisor, or the reason why there is none.
    pub(crate) fn shim(&self) -> Result<Arc<Shim>, Error> {
        match &*self.supervisor.read().unwrap_or_else(PoisonError::into_inner) {
            Supervisor::Alive(shim) => Ok(shim.clone()),
            Supervisor::Gone => Err(Error::new(
                ErrorKind::FailedPrecondition,
                About::Pod(self.id),
                "the pod has no supervisor (it is stopped, or the supervisor died)",
            )),
        }
    }

    pub(crate) fn take_shim(&self) -> Option<Arc<Shim>> {
        let mut supervisor = self.supervisor.write().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *supervisor, Supervisor::Gone) {
            Supervisor::Alive(shim) => Some(shim),
            Supervisor::Gone => None,
        }
    }

    /// Process id of the supervisor, while there is one. Its namespaces are the pod's.
    pub fn supervisor_pid(&self) -> Option<u32> {
        self.shim().ok().map(|shim| shim.pid())
    }

    pub(crate) fn network_debt(&self) -> NetworkDebt {
        self.network.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_network_debt(&self, debt: NetworkDebt) {
        *self.network.lock().unwrap_or_else(PoisonError::into_inner) = debt;
    }

    /// Networks that it has come into later.
    pub(crate) fn more_networks(&self) -> Vec<MoreNetwork> {
        self.more_networks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_more_networks(&self, networks: Vec<MoreNetwork>) {
        *self.more_networks.lock().unwrap_or_else(PoisonError::into_inner) = networks;
    }

    /// Its record as it should be on disk now.
    pub(crate) fn record(&self) -> PodRecord {
        PodRecord {
            id: self.id,
            boot: self.boot.clone(),
            created_at: self.created_at,
            spec: self.spec.clone(),
            phase: PodPhase::of(&self.state.borrow()),
            network: self.network_debt(),
            cgroup: self.cgroup.clone(),
            own_cgroup: self.own_cgroup,
            selinux_level: self.selinux_level.clone(),
            more_networks: Some(self.more_networks()).filter(|networks| !networks.is_empty()),
            size: Some(self.size()).filter(|size| *size != update::PodSize::of(&self.spec)),
        }
    }

    /// Writes the record.
    pub(crate) async fn persist(self: &Arc<Self>, inner: &Arc<Inner>) -> Result<(), Error> {
        let (pod, inner) = (self.clone(), inner.clone());
        let written = blocking(move || {
            let removed = pod.removed.lock().unwrap_or_else(PoisonError::into_inner);
            if *removed { Ok(()) } else { inner.put_pod(&pod.record()) }
        });
        written.await.step(self.id, "write pod record")
    }

    /// Removes the record for good. Blocks.
    pub(crate) fn remove_record(&self, inner: &Inner) -> Result<(), store::Error> {
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        inner.store.remove_pod(self.id)?;
        *removed = true;
        Ok(())
    }

    /// The one way from ready to not ready. Says whether this call did it.
    pub(crate) fn not_ready(&self, why: model::pod::Reason) -> bool {
        let changed = self.state.send_if_modified(|state| match state {
            PodState::Ready { .. } => {
                *state = PodState::NotReady { why: why.clone() };
                true
            }
            PodState::NotReady { .. } => false,
        });
        if changed {
            tracing::info!(pod = %self.id.short(), %why, from = "ready", to = "not ready", "pod");
        }
        changed
    }
}

impl Inner {
    /// Writes a pod's record. It need not outlive a crash of the machine: a kubelet makes its pods anew, and what is to stay of
    /// people's containers stands in records of theirs.
    pub(crate) fn put_pod(&self, record: &PodRecord) -> Result<(), store::Error> {
        self.store.put_pod(record.id, &record::encode(record))
    }

    /// Marks a pod not ready, tells everybody and writes it down.
    pub(crate) async fn pod_not_ready(self: &Arc<Self>, pod: &Arc<Pod>, why: model::pod::Reason) -> Result<(), Error> {
        if pod.not_ready(why) {
            self.events.of_pod(EventKind::Stopped, pod);
        }
        pod.persist(self).await
    }
}
