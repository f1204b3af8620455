//! One run of a container of people: a pod of its own, its container in it, its end.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use model::{
    ContainerId, ErrorKind, ExecId,
    container::{ContainerKey, ContainerSpec, ContainerState},
    pod::{PodKey, PodSpec, Timestamp, UserNamespace},
    user::Ending,
};

use super::{UserContainer, events::Kind, health, networks, record::Phase, shares, volumes};
use crate::{
    Inner,
    blocking::blocking,
    clock,
    container::{
        Container,
        given::Given,
        stream::{ProcessStreams, StreamOptions},
    },
    error::{About, Error, Step},
    failpoint,
};

/// The namespace of the pods of people's containers; no kubelet sees them.
const NAMESPACE: &str = "creel";
/// A log file below a container's log directory.
pub(super) const LOG: &str = "0.log";

/// Who starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// A person.
    Hand,
    /// Its policy.
    Policy,
}

impl Inner {
    /// Starts it with the files that it had. To be called with `ops` held, in a task of its own.
    pub(super) async fn start_user(
        self: &Arc<Self>,
        user: &Arc<UserContainer>,
        by: By,
        attach: Option<StreamOptions>,
    ) -> Result<Option<ProcessStreams>, Error> {
        match self.try_start(user, by, attach).await {
            Ok((container, streams)) => {
                self.tell_user(user, "start", []);
                self.follow_user(user, container);
                Ok(streams)
            }
            Err(error) => {
                self.drop_run(user).await;
                Err(error)
            }
        }
    }

    async fn try_start(
        self: &Arc<Self>,
        user: &Arc<UserContainer>,
        by: By,
        attach: Option<StreamOptions>,
    ) -> Result<(Arc<Container>, Option<ProcessStreams>), Error> {
        // What an earlier run left because it could not be taken down then.
        self.end_runs(user).await?;
        let id = user.id;
        failpoint::hit("user.start", id)?;
        let (pod, spec, given) = self.plan_run(user).await?;
        let pod = self.run_pod(pod).await.map_err(|error| networks::port_taken(self, error))?;
        failpoint::hit("user.pod", id)?;
        self.join_more(&self.table.pod(pod)?, &user.spec().more_networks).await?;
        self.create_run(pod, spec, (user.clone(), Arc::new(given))).await?;
        let container = self.table.container(id)?;
        let streams = match attach {
            Some(options) => Some(self.attach_to(&container, options).await?),
            None => None,
        };
        if let Err(error) = self.start_container(id).await {
            return Err(self.not_started(user, &container, error).await);
        }
        failpoint::hit("user.started", id)?;
        let started_at = started_at(&container.state()).unwrap_or_else(clock::now);
        user.change(self, |record| {
            record.phase = Phase::Running;
            record.by_hand = false;
            record.restarts = if by == By::Hand { 0 } else { record.restarts + 1 };
            record.last = super::record::LastRun { started_at: Some(started_at), ..Default::default() };
            record.health = health::at_start(&record.spec, &record.defaults);
        })
        .await?;
        Ok((container, streams))
    }

    /// The program could not be run: what its exit code would be is said in front, and kept.
    async fn not_started(self: &Arc<Self>, user: &Arc<UserContainer>, container: &Container, error: Error) -> Error {
        let (code, why) = match container.state() {
            ContainerState::Exited { started_at: None, exit, message, .. } if !message.is_empty() => (exit.code, message),
            _ => (128, error.chain()),
        };
        let shown = why.clone();
        let kept = user.change(self, |record| {
            record.last.code = code;
            record.last.error = shown;
        });
        if let Err(e) = kept.await {
            tracing::warn!(container = %user.id.short(), error = e.chain(), "failed start could not be written down");
        }
        Error::new(ErrorKind::FailedPrecondition, About::Words, format!("exit code {code}: {why}"))
    }

    /// What the pod and the container of a run are.
    async fn plan_run(self: &Arc<Self>, user: &Arc<UserContainer>) -> Result<(PodSpec, ContainerSpec, Given), Error> {
        let mut record = user.now.borrow().record.clone();
        let id = user.id;
        if record.spec.own_userns {
            record.spec.pod.userns = Some(self.range_for(id)?);
        }
        let logs = self.config.logs().join(id.to_string());
        let mut pod = PodSpec {
            key: key(&record.name, id),
            log_directory: logs.to_string_lossy().into_owned(),
            user_made: true,
            ..record.spec.pod.clone()
        };
        if pod.hostname.is_empty() {
            pod.hostname = id.short();
        }
        networks::resolve(self, &record, &mut pod).await?;
        volumes::wake(self, &record).await?;
        let mounts = volumes::resolve(self, &record).await?;
        let mut container = ContainerSpec {
            key: ContainerKey { name: record.name.clone(), attempt: 0 },
            log_path: if user.keeps_log() { LOG.to_owned() } else { String::new() },
            mounts: mounts.binds,
            image_volumes: mounts.images,
            ..record.spec.container.clone()
        };
        container.own.get_or_insert_default().tmpfs = mounts.tmpfs;
        shares::resolve(self, &record.spec, &mut pod, &mut container)?;
        blocking(move || crate::make_private_dir(&logs)).await.step(id, "make the log directory")?;
        Ok((pod, container, mounts.given))
    }

    /// Ids of this machine that no other pod has.
    fn range_for(&self, id: ContainerId) -> Result<UserNamespace, Error> {
        let known: Vec<_> = self.table.pods().iter().filter_map(|pod| pod.spec.userns).collect();
        let none = || Error::new(ErrorKind::ResourceExhausted, id.into(), "all ranges of ids for user namespaces are taken");
        self.ranges.take(id, &known).ok_or_else(none)
    }

    /// Takes down whatever pods this container still has.
    pub(super) async fn end_runs(self: &Arc<Self>, user: &UserContainer) -> Result<(), Error> {
        let pods = self.table.pods().into_iter().filter(|pod| pod.of_user() == Some(user.id));
        for pod in pods.collect::<Vec<_>>() {
            match self.remove_pod(pod.id).await {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        self.ranges.give_back(user.id);
        let (volumes, id) = (self.volumes.clone(), user.id);
        blocking(move || volumes.rest(id)).await;
        Ok(())
    }

    /// The same, for runs that are over anyhow: what cannot be taken down now is at the next start.
    async fn drop_run(self: &Arc<Self>, user: &UserContainer) {
        if let Err(e) = self.end_runs(user).await {
            tracing::warn!(container = %user.id.short(), error = e.chain(), "a run could not be taken down");
        }
    }

    /// Waits for its end in a task of its own.
    pub(super) fn follow_user(self: &Arc<Self>, user: &Arc<UserContainer>, container: Arc<Container>) {
        self.watch_health(user, &container);
        let (inner, user) = (self.clone(), user.clone());
        tokio::spawn(async move {
            let mut state = container.subscribe();
            // The sender is in the container, which is held here.
            state.wait_for(|state| matches!(state, ContainerState::Exited { .. })).await.ok();
            let _ops = user.ops.lock().await;
            inner.settle(&user, &container).await;
        });
    }

    /// A run is over: that is written down, its pod goes, and its policy decides. To be called with `ops` held.
    pub(super) async fn settle(self: &Arc<Self>, user: &Arc<UserContainer>, container: &Container) {
        let ContainerState::Exited { started_at, finished_at, exit, message, .. } = container.state() else { return };
        // Whoever waited for its end and its follower both come here, and the second may find the next run.
        let current = self.table.container(user.id).is_ok_and(|found| found.pod.id == container.pod.id);
        if !current || user.phase() != Phase::Running || user.is_gone() {
            return;
        }
        if failpoint::hit("user.exited", user.id).is_err() {
            return;
        }
        let kept = user.change(self, |record| {
            record.last.finished_at = Some(finished_at);
            record.last.code = exit.code;
            record.last.error = message;
            record.last.oom_killed = exit.oom_killed;
            health::at_end(&mut record.health);
            let ending = Ending { code: exit.code, by_hand: record.by_hand, restarts: record.restarts };
            record.phase = if record.spec.restart.again(ending) { Phase::Restarting } else { Phase::Exited };
        });
        if let Err(e) = kept.await {
            tracing::error!(container = %user.id.short(), error = e.chain(), "an exit could not be written down");
        }
        if exit.oom_killed {
            self.tell_user(user, "oom", []);
        }
        self.tell_user(user, "die", [("exitCode", exit.code.to_string()), ("execDuration", seconds(started_at, finished_at))]);
        self.drop_run(user).await;
        if user.phase() == Phase::Restarting {
            self.restart_later(user, duration(started_at, finished_at));
        } else if user.spec().auto_remove && !user.renewing.load(std::sync::atomic::Ordering::Acquire) {
            self.remove_ended(user).await;
        }
    }

    async fn remove_ended(self: &Arc<Self>, user: &Arc<UserContainer>) {
        if let Err(e) = self.take_user_away(user, super::life::Anonymous::Go).await {
            tracing::warn!(container = %user.id.short(), error = e.chain(), "a container that ended could not be removed");
        }
    }

    /// Starts it again after a while, unless something happens to it before.
    pub(super) fn restart_later(self: &Arc<Self>, user: &Arc<UserContainer>, ran: Duration) {
        let (inner, user) = (self.clone(), user.clone());
        let mut wait = user.backoff(ran);
        tokio::spawn(async move {
            let mut now = user.now.subscribe();
            let turn = now.borrow().turns;
            loop {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = now.wait_for(|now| now.turns != turn || now.gone) => return,
                }
                let _ops = user.ops.lock().await;
                if now.borrow().turns != turn || user.is_gone() {
                    return;
                }
                let Err(error) = inner.start_user(&user, By::Policy, None).await else { return };
                tracing::warn!(container = %user.id.short(), error = error.chain(), "start again");
                if !inner.try_again(&user, &error).await {
                    return;
                }
                wait = user.backoff(Duration::ZERO);
            }
        });
    }

    /// A start that failed counts as a run that did.
    async fn try_again(self: &Arc<Self>, user: &Arc<UserContainer>, error: &Error) -> bool {
        let changed = user.change(self, |record| {
            record.restarts += 1;
            let code = if record.last.code == 0 { 128 } else { record.last.code };
            record.last.code = code;
            record.last.error = error.chain();
            let ending = Ending { code, by_hand: record.by_hand, restarts: record.restarts };
            if !record.spec.restart.again(ending) {
                record.phase = Phase::Exited;
            }
        });
        changed.await.is_ok() && user.phase() == Phase::Restarting
    }

    /// Tells people that a command is run in a container; answers what its end is told with.
    pub(crate) fn tell_exec(&self, user: &UserContainer, command: &[String]) -> ExecId {
        let exec = ExecId::from_bytes(crate::random_id());
        let command = command.join(" ");
        for what in ["exec_create", "exec_start"] {
            self.tell_user(user, &format!("{what}: {command}"), [("execID", exec.to_string())]);
        }
        exec
    }

    /// The same for its end; `None`: nobody knows how it ended.
    pub(crate) fn tell_exec_died(&self, user: &UserContainer, exec: ExecId, code: Option<i32>) {
        let code = code.map(|code| code.to_string()).unwrap_or_default();
        self.tell_user(user, "exec_die", [("execID", exec.to_string()), ("exitCode", code)]);
    }

    /// Tells people what happened to a container.
    pub(crate) fn tell_user<const N: usize>(&self, user: &UserContainer, action: &str, more: [(&str, String); N]) {
        let now = user.now.borrow();
        let mut attributes = now.record.spec.container.labels.clone();
        attributes.insert("name".to_owned(), now.record.name.clone());
        attributes.insert("image".to_owned(), now.record.spec.container.user_specified_image.clone());
        attributes.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
        self.bus.tell(Kind::Container, action, user.id, attributes);
    }
}

/// Names of pods are never used twice: an earlier run's pod may still be there.
pub(super) fn key(name: &str, id: model::ContainerId) -> PodKey {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let attempt = (since.as_millis() & u128::from(u32::MAX)) as u32;
    PodKey { namespace: NAMESPACE.to_owned(), name: name.to_owned(), uid: id.to_string(), attempt }
}

impl crate::pod::Pod {
    /// The container of people that it was made for.
    pub(crate) fn of_user(&self) -> Option<model::ContainerId> {
        self.is_users().then(|| self.spec.key.uid.parse().ok()).flatten()
    }
}

pub(super) fn started_at(state: &ContainerState) -> Option<Timestamp> {
    match state {
        ContainerState::Created => None,
        ContainerState::Running { started_at } => Some(*started_at),
        ContainerState::Exited { started_at, .. } => *started_at,
    }
}

fn duration(started_at: Option<Timestamp>, finished_at: Timestamp) -> Duration {
    let ran = finished_at.saturating_sub(started_at.unwrap_or(finished_at));
    Duration::from_nanos(u64::try_from(ran).unwrap_or_default())
}

fn seconds(started_at: Option<Timestamp>, finished_at: Timestamp) -> String {
    duration(started_at, finished_at).as_secs().to_string()
}
