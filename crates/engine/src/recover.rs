//! Start-up, which is crash recovery: what is on disk and in the kernel becomes the engine's memory again.
//!
//! The kernel and the supervisors are the truth about processes, the records about intent and identity. What was half
//! made is undone by the same code that undoes a failed set-up; what cannot be heard of any more is marked so.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use model::{
    PodId,
    container::{ContainerEvent, ContainerState},
    pod::{PodState, Reason},
};

use crate::{
    Inner,
    blocking::blocking,
    clock,
    container::Container,
    error::{About, Error, Step},
    pod::{Pod, PodParts, PodPaths, Supervisor},
    record::{ContainerPhase, ContainerRecord, NetworkDebt, PodPhase, PodRecord},
    shim::{ContainerReport, Shim, ShimEvents, ShimState},
    spec,
};

/// How long a supervisor may take to answer before its pod counts as lost.
const ANSWER: Duration = Duration::from_secs(5);

/// One pod as found.
struct Found {
    pod: Arc<Pod>,
    containers: Vec<ContainerRecord>,
    supervisor: Option<(ShimState, ShimEvents)>,
}

impl Inner {
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<(), Error> {
        self.load_users().await?;
        let inner = self.clone();
        let load = move || {
            inner.builds.load()?;
            inner.caches.load()?;
            inner.contexts.load()?;
            inner.history.load()
        };
        blocking(load).await.step(About::Engine, "load what builds have made")?;
        let (pods, mut containers) = self.load().await?;
        let mut found = Vec::new();
        let jobs = pods.into_iter().map(|record| {
            let (mine, inner) = (containers.remove(&record.id).unwrap_or_default(), self.clone());
            tokio::spawn(async move { inner.find_pod(record, mine).await })
        });
        for job in futures_util::future::join_all(jobs.collect::<Vec<_>>()).await {
            match job {
                Ok(Some(pod)) => found.push(pod),
                Ok(None) => {}
                Err(e) => tracing::error!(error = %e, "recovery of a pod crashed"),
            }
        }
        for pod in &found {
            self.table.restore_pod(pod.pod.clone());
            self.modules.keep(pod.pod.id, pod.pod.selinux_level.as_deref());
        }
        for pod in found {
            self.adopt(pod).await;
        }
        for orphan in containers.into_values().flatten() {
            self.drop_container(&orphan).await;
        }
        self.recover_network().await;
        self.recover_users().await;
        self.sweep().await;
        Ok(())
    }

    async fn load(self: &Arc<Self>) -> Result<(Vec<PodRecord>, HashMap<PodId, Vec<ContainerRecord>>), Error> {
        let inner = self.clone();
        let loaded = blocking(move || Ok::<_, store::Error>((inner.store.load_pods()?, inner.store.load_containers()?))).await;
        let ((pods, bad_pods), (containers, bad_containers)) = loaded.step(About::Engine, "load the records")?;
        for damaged in bad_pods.iter().chain(&bad_containers) {
            tracing::warn!(record = %damaged, "damaged record put aside");
        }
        let mut known = Vec::new();
        for (id, bytes) in pods {
            match minicbor::decode::<PodRecord>(&bytes) {
                Ok(record) => known.push(record),
                Err(e) => self.not_understood("pod", id.short(), &e, move |store| store.quarantine_pod(id)).await,
            }
        }
        let mut by_pod: HashMap<PodId, Vec<ContainerRecord>> = HashMap::new();
        for (id, bytes) in containers {
            match minicbor::decode::<ContainerRecord>(&bytes) {
                Ok(record) => by_pod.entry(record.pod).or_default().push(record),
                Err(e) => self.not_understood("container", id.short(), &e, move |store| store.quarantine_container(id)).await,
            }
        }
        Ok((known, by_pod))
    }

    /// A record that is intact, and of something else than we know: it is put aside, where a person or the creel that
    /// wrote it finds it. What it was about is treated as anything without a record.
    pub(crate) async fn not_understood(
        self: &Arc<Self>,
        what: &'static str,
        id: impl std::fmt::Display,
        why: &minicbor::decode::Error,
        aside: impl FnOnce(&store::Store) -> Result<std::path::PathBuf, store::Error> + Send + 'static,
    ) {
        let inner = self.clone();
        match blocking(move || aside(&inner.store)).await {
            Ok(path) => tracing::warn!(what, %id, error = %why, now = %path.display(), "record not understood: put aside"),
            Err(e) => tracing::warn!(what, %id, error = %why, aside = crate::chain(&e), "record not understood"),
        }
    }

    /// Finds out what became of one pod. `None`: its set-up was never finished, and it is undone now.
    async fn find_pod(self: Arc<Self>, record: PodRecord, containers: Vec<ContainerRecord>) -> Option<Found> {
        let paths = PodPaths::new(&self.config.run, record.id);
        clock::seen(record.created_at);
        containers.iter().for_each(|c| clock::seen(c.created_at));
        let same_boot = record.boot == self.boot;
        let connected = match same_boot {
            true => {
                tokio::time::timeout(patience(&paths.dir), Shim::connect(&paths.dir, record.id)).await.ok().and_then(Result::ok)
            }
            false => None,
        };
        let Some(state) = record.phase.state() else {
            let supervisor = connected.map_or(Supervisor::Gone, |(shim, ..)| Supervisor::Alive(Arc::new(shim)));
            self.undo_half_pod(record, paths, supervisor).await;
            return None;
        };
        let state = match (state, same_boot) {
            (PodState::Ready { .. }, false) => PodState::NotReady { why: Reason::Rebooted },
            (PodState::Ready { .. }, true) if connected.is_none() => PodState::NotReady { why: Reason::SupervisorLost },
            (state, _) => state,
        };
        let (supervisor, report) = match connected {
            Some((shim, state, events)) => (Supervisor::Alive(Arc::new(shim)), Some((state, events))),
            None => (Supervisor::Gone, None),
        };
        let pod = Pod::new(PodParts { record, state, supervisor }, paths);
        Some(Found { pod, containers, supervisor: report })
    }

    /// The daemon died in the middle of a set-up: the same steps back as for one that failed.
    async fn undo_half_pod(self: &Arc<Self>, mut record: PodRecord, paths: PodPaths, supervisor: Supervisor) {
        tracing::info!(pod = %record.id.short(), "undoing a half-made pod");
        record.phase = PodPhase::Stopped;
        let id = record.id;
        let state = PodState::NotReady { why: Reason::SetupFailed("the daemon died meanwhile".into()) };
        self.table.restore_pod(Pod::new(PodParts { record, state, supervisor }, paths));
        if let Err(e) = self.remove_pod(id).await {
            tracing::warn!(pod = %id.short(), error = e.chain(), "half-made pod kept as a stopped one");
        }
    }

    /// Puts a pod and its containers back into the table and follows its supervisor again.
    async fn adopt(self: &Arc<Self>, found: Found) {
        let Found { pod, containers, supervisor } = found;
        let (state, events) = match supervisor {
            Some((state, events)) => (state, Some(events)),
            None => (ShimState::default(), None),
        };
        self.forget_strays(&pod, &state.containers, &containers).await;
        for record in containers {
            self.adopt_container(&pod, record, &state.containers).await;
        }
        if let Some(events) = events {
            crate::pod::events::watch(self, &pod, events);
        } else {
            let why = match pod.state() {
                PodState::NotReady { why } => why,
                PodState::Ready { .. } => Reason::SupervisorLost,
            };
            if let Err(e) = self.kill_pod_processes(&pod).await {
                tracing::warn!(pod = %pod.id.short(), error = e.chain(), "processes left");
            }
            self.containers_lost(&pod, &why).await;
        }
        if let Err(e) = pod.persist(self).await {
            tracing::warn!(pod = %pod.id.short(), error = e.chain(), "pod record");
        }
    }

    /// Ends what runs in a pod without a record: a container whose set-up was not finished, or whose record was lost.
    async fn forget_strays(self: &Arc<Self>, pod: &Arc<Pod>, reports: &[ContainerReport], records: &[ContainerRecord]) {
        let Ok(shim) = pod.shim() else { return };
        let made = |id| records.iter().any(|record| record.id == id && record.phase != ContainerPhase::Preparing);
        for id in reports.iter().map(|report| report.container).filter(|id| !made(*id)) {
            tracing::warn!(container = %id.short(), pod = %pod.id.short(), "process without a record: ended");
            let (inner, group) = (self.clone(), spec::cgroup::container(&pod.cgroup, id));
            let forgotten = shim.forget(id).await.step(id, "make the supervisor forget the container");
            let removed = blocking(move || inner.kill_group(&group).and_then(|()| inner.group(&group)?.remove())).await;
            if let Err(e) = forgotten.and(removed.step(id, "remove cgroup")) {
                tracing::warn!(error = e.chain(), "process without a record");
            }
        }
    }

    async fn adopt_container(self: &Arc<Self>, pod: &Arc<Pod>, record: ContainerRecord, reports: &[ContainerReport]) {
        let report = reports.iter().find(|r| r.container == record.id);
        let Some(mut state) = record.phase.state() else { return self.drop_container(&record).await };
        // The daemon may have died between the supervisor's start and its own record of it.
        if let (ContainerState::Created, Some(started_at)) = (&state, report.and_then(|r| r.started_at)) {
            state = ContainerState::Running { started_at };
        }
        let pins = self.store.pin(&record.layers);
        let container = Container::new(record, pod.clone(), state.clone(), pins);
        self.table.insert_container(container.clone());
        let event = match (state, report) {
            (ContainerState::Exited { .. }, _) => return,
            (_, Some(ContainerReport { exited: Some((exit, at)), .. })) => ContainerEvent::Exited { at: *at, exit: *exit },
            (_, Some(_)) => return,
            // The supervisor answers but does not know it; or there is none, and `adopt` marks it lost.
            (_, None) if pod.shim().is_ok() => ContainerEvent::Lost { at: clock::now(), why: Reason::SupervisorLost },
            (_, None) => return,
        };
        if let Err(e) = self.move_container(&container, event).await {
            tracing::warn!(container = %container.id.short(), error = e.chain(), "state found at start");
        }
    }

    /// Undoes a half-made container, or one whose pod has no record.
    async fn drop_container(self: &Arc<Self>, record: &ContainerRecord) {
        let (inner, id, cgroup) = (self.clone(), record.id, record.plan.cgroup.clone());
        tracing::info!(container = %id.short(), "undoing a half-made container");
        let dropped = blocking(move || -> Result<(), Error> {
            inner.kill_group(&cgroup).step(id, "kill")?;
            inner.group(&cgroup).and_then(|g| g.remove()).step(id, "remove cgroup")?;
            inner.remove_writable(id).step(id, "remove writable layer and volumes")?;
            inner.store.remove_container(id).step(id, "remove record")
        });
        if let Err(e) = dropped.await {
            tracing::warn!(error = e.chain(), "half-made container");
        }
    }

    async fn recover_network(self: &Arc<Self>) {
        let (mut live, mut own) = (Vec::new(), std::collections::BTreeMap::<_, Vec<_>>::new());
        for pod in self.table.pods() {
            for more in pod.more_networks() {
                own.entry(more.id).or_default().push((pod.id, more.record.to_vec()));
            }
            let NetworkDebt::Attached(record) = pod.network_debt() else { continue };
            let pods = match crate::networks::own_network(&pod.spec) {
                None => &mut live,
                Some(network) => own.entry(network.id).or_default(),
            };
            pods.push((pod.id, record.to_vec()));
        }
        let inner = self.clone();
        match blocking(move || inner.network.recover(&live)).await {
            Ok(found) => tracing::debug!(?found, "network"),
            Err(e) => tracing::warn!(error = crate::chain(&e), "network"),
        }
        self.recover_networks(own).await;
    }

    /// Removes what belongs to nobody: run directories, writable layers and default cgroups without a record.
    async fn sweep(self: &Arc<Self>) {
        self.sweep_run_dirs().await;
        let inner = self.clone();
        blocking(move || {
            let mut containers: Vec<_> = inner.table.containers().iter().map(|c| c.id).collect();
            containers.extend(inner.users.list().iter().map(|user| user.id));
            if let Err(e) = inner.store.sweep_container_dirs(&containers) {
                tracing::warn!(error = crate::chain(&e), "left-over writable layers");
            }
            match inner.store.gc() {
                Ok(freed) => tracing::debug!(?freed, "collected"),
                Err(e) => tracing::warn!(error = crate::chain(&e), "garbage collection"),
            }
        })
        .await;
    }

    async fn sweep_run_dirs(self: &Arc<Self>) {
        let run = self.config.run.clone();
        let ids = blocking(move || {
            let entries = std::fs::read_dir(run.join("pods")).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().to_str()?.parse::<PodId>().ok()).collect::<Vec<_>>()
        });
        for id in ids.await.into_iter().filter(|id| self.table.pod(*id).is_err()) {
            tracing::warn!(pod = %id.short(), "run directory without a record: removed, with whatever still ran");
            let (inner, dir) = (self.clone(), PodPaths::new(&self.config.run, id).dir);
            end_supervisor(&dir, id).await;
            blocking(move || {
                inner.kill_orphan(id);
                if let Err(e) = crate::remove_pod_dir(&dir) {
                    tracing::warn!(error = %e, "left-over run directory");
                }
            })
            .await;
        }
    }

    /// What did not end when it was asked to, and is in the default place.
    fn kill_orphan(&self, id: PodId) {
        let Ok(pod) = spec::cgroup::pod("", &self.placement, id) else { return };
        for name in [spec::cgroup::supervisor(&pod, id), pod] {
            let killed = self.group(&name).and_then(|group| match group.exists() {
                true => self.kill_group(&name).and_then(|()| group.remove()),
                false => Ok(()),
            });
            if let Err(e) = killed {
                tracing::warn!(cgroup = name, error = crate::chain(&e), "left-over cgroup");
            }
        }
    }
}

/// While a hook runs, the supervisor does nothing else.
fn patience(dir: &Path) -> Duration {
    let hooks = std::fs::read_dir(crate::hooks::bundles(dir)).is_ok_and(|mut bundles| bundles.next().is_some());
    if hooks { ANSWER + Duration::from_secs(spec::HOOK_LIMIT.into()) } else { ANSWER }
}

/// Ends a supervisor of which nothing is known but its directory, with all its containers. Without its record nobody
/// knows its cgroup, and without its directory nobody could ever reach it again.
async fn end_supervisor(dir: &Path, id: PodId) {
    let Ok(Ok((shim, ..))) = tokio::time::timeout(ANSWER, Shim::connect(dir, id)).await else { return };
    if let Err(e) = shim.shutdown().await {
        tracing::warn!(pod = %id.short(), error = crate::chain(&e), "supervisor without a record: killed");
        sys::process::signal(shim.pidfd(), model::Signal::KILL).ok();
    }
}
