//! Containers of people after a start of the daemon: those that run are followed again, ends that nobody saw are written
//! down, policies are carried out, and what belongs to no container goes.

use std::{collections::HashSet, sync::Arc, time::Duration};

use model::{ContainerId, container::ContainerState, user::Ending};
use sys::cgroup::Group;

use super::{
    Anonymous, UserContainer,
    record::{LastRun, Phase, UserRecord},
    run::{self, By},
};
use crate::{
    Inner,
    blocking::blocking,
    clock,
    container::Container,
    error::{About, Error, Step},
};

impl Inner {
    /// Reads the records. Before any pod is looked at: what is undone there must leave writable layers of people alone.
    pub(crate) async fn load_users(self: &Arc<Self>) -> Result<(), Error> {
        let inner = self.clone();
        let (records, damaged) = blocking(move || inner.store.load_users()).await.step(About::Engine, "load the records")?;
        for damaged in &damaged {
            tracing::warn!(record = %damaged, "damaged record put aside");
        }
        for (id, bytes) in records {
            match minicbor::decode::<UserRecord>(&bytes) {
                Ok(record) => {
                    clock::seen(record.created_at);
                    let pins = self.store.pin(&record.layers);
                    super::volumes::reclaim(self, record.id, &record.volumes);
                    self.users.insert(UserContainer::new(record, pins));
                }
                Err(e) => self.not_understood("user container", id.short(), &e, move |store| store.quarantine_user(id)).await,
            }
        }
        Ok(())
    }

    /// When all pods are known again.
    pub(crate) async fn recover_users(self: &Arc<Self>) {
        let jobs = self.users.list().into_iter().map(|user| {
            let inner = self.clone();
            tokio::spawn(async move { inner.recover_user(&user).await })
        });
        for job in futures_util::future::join_all(jobs.collect::<Vec<_>>()).await {
            if let Err(e) = job {
                tracing::error!(error = %e, "recovery of a container of people crashed");
            }
        }
        let volumes = self.volumes.clone();
        blocking(move || volumes.sweep()).await;
        let strays = self.table.pods().into_iter().filter(|pod| pod.is_users());
        let strays = strays.filter(|pod| pod.of_user().is_none_or(|id| !self.users.has(id)));
        for pod in strays.collect::<Vec<_>>() {
            tracing::warn!(pod = %pod.id.short(), "pod of a container that is no more: removed");
            if let Err(e) = self.remove_pod(pod.id).await {
                tracing::warn!(pod = %pod.id.short(), error = e.chain(), "pod of a container that is no more");
            }
        }
        self.sweep_logs().await;
    }

    async fn recover_user(self: &Arc<Self>, user: &Arc<UserContainer>) {
        let _ops = user.ops.lock().await;
        match self.table.container(user.id) {
            Ok(container) if is_new_run(user, &container) => {
                // The daemon may have died between the start and its own record of it.
                let started_at = run::started_at(&container.state());
                let adopted = |record: &mut UserRecord| {
                    if record.phase != Phase::Running {
                        record.phase = Phase::Running;
                        record.by_hand = false;
                        record.last = LastRun { started_at, ..LastRun::default() };
                        record.health = super::health::at_start(&record.spec, &record.defaults);
                    }
                };
                if let Err(e) = user.change(self, adopted).await {
                    tracing::warn!(container = %user.id.short(), error = e.chain(), "state found at start");
                }
                self.adopt_user(user, container).await;
            }
            // A start that was not finished, or a run whose end is written down already.
            _ => {
                if let Err(e) = self.end_runs(user).await {
                    tracing::warn!(container = %user.id.short(), error = e.chain(), "a run could not be taken down");
                }
                self.without_run(user).await;
            }
        }
    }

    async fn adopt_user(self: &Arc<Self>, user: &Arc<UserContainer>, container: Arc<Container>) {
        if matches!(container.state(), ContainerState::Exited { .. }) {
            return self.settle(user, &container).await;
        }
        let record = user.now.borrow().record.clone();
        if let Err(e) = super::volumes::wake(self, &record).await {
            tracing::warn!(container = %user.id.short(), error = e.chain(), "volumes in memory");
        }
        let frozen = self.group(&container.plan.cgroup).and_then(|group: Group| group.is_frozen());
        user.set_paused(frozen.unwrap_or(false));
        self.follow_user(user, container);
    }

    /// One that does not run: what its policy says about a start of the engine.
    async fn without_run(self: &Arc<Self>, user: &Arc<UserContainer>) {
        if user.phase() == Phase::Running {
            let lost = |record: &mut UserRecord| {
                record.last.finished_at = Some(clock::now());
                record.last.code = 137;
                record.last.error = "it was lost".to_owned();
                super::health::at_end(&mut record.health);
                let ending = Ending { code: 137, by_hand: record.by_hand, restarts: record.restarts };
                record.phase = if record.spec.restart.again(ending) { Phase::Restarting } else { Phase::Exited };
            };
            if let Err(e) = user.change(self, lost).await {
                tracing::warn!(container = %user.id.short(), error = e.chain(), "loss could not be recorded");
            }
        }
        let (phase, ending, policy, auto_remove) = {
            let now = user.now.borrow();
            let record = &now.record;
            let ending = Ending { code: record.last.code, by_hand: record.by_hand, restarts: record.restarts };
            (record.phase, ending, record.spec.restart, record.spec.auto_remove)
        };
        match phase {
            Phase::Restarting => self.restart_later(user, Duration::ZERO),
            Phase::Exited if auto_remove => {
                if let Err(e) = self.take_user_away(user, Anonymous::Go).await {
                    tracing::warn!(container = %user.id.short(), error = e.chain(), "a container that ended could not be removed");
                }
            }
            Phase::Exited if policy.at_engine_start(ending) => self.start_soon(user),
            Phase::Created | Phase::Running | Phase::Exited => {}
        }
    }

    /// Nobody waits for it at a start of the daemon.
    fn start_soon(self: &Arc<Self>, user: &Arc<UserContainer>) {
        let (inner, user) = (self.clone(), user.clone());
        tokio::spawn(async move {
            let _ops = user.ops.lock().await;
            if user.phase() != Phase::Exited || user.is_gone() {
                return;
            }
            if let Err(e) = inner.start_user(&user, By::Policy, None).await {
                tracing::warn!(container = %user.id.short(), error = e.chain(), "start with the engine");
            }
        });
    }

    /// Removes log directories of containers that are no more.
    async fn sweep_logs(self: &Arc<Self>) {
        let known: HashSet<ContainerId> = self.users.list().iter().map(|user| user.id).collect();
        let logs = self.config.logs();
        blocking(move || {
            for entry in std::fs::read_dir(&logs).into_iter().flatten().flatten() {
                let id = entry.file_name().to_str().and_then(|name| name.parse::<ContainerId>().ok());
                if id.is_some_and(|id| !known.contains(&id))
                    && let Err(e) = crate::remove_tree(&entry.path())
                {
                    tracing::warn!(error = %e, path = %entry.path().display(), "left-over log");
                }
            }
        })
        .await;
    }
}

/// Whether this run's program was started and its end is not written down.
fn is_new_run(user: &UserContainer, container: &Container) -> bool {
    let Some(started_at) = run::started_at(&container.state()) else { return false };
    let now = user.now.borrow();
    now.record.phase == Phase::Running || now.record.last.started_at.is_none_or(|known| known < started_at)
}
