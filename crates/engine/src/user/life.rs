//! What people do to their containers: start, stop, kill, pause, rename, update.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use model::{
    ErrorKind, Resources, Signal,
    user::{RestartPolicy, UserContainerSpec},
};
use sys::cgroup::Freezer;

use super::{
    UserContainer,
    record::{Phase, UserRecord},
    run::By,
};
use crate::{
    Inner,
    container::{
        Container,
        stream::{ProcessStreams, StreamOptions},
    },
    error::{About, Error, Step},
    failpoint, spec,
};

/// How long freezing may take.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at a freezer.
const GLANCE: Duration = Duration::from_millis(5);
/// Seconds from a stop signal to SIGKILL where nobody says how many.
pub(super) const STOP_TIMEOUT: u32 = 10;

/// What becomes of anonymous volumes when their container goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// They go too.
    Go,
    /// They stay.
    Stay,
}

/// How to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    /// Instead of its stop signal.
    pub signal: Option<Signal>,
    /// From the signal to SIGKILL.
    pub patience: Patience,
}

/// How long the signal gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patience {
    /// As the container says.
    #[default]
    Own,
    /// So long.
    For(Duration),
    /// There is no SIGKILL.
    Endless,
}

pub(super) fn words(kind: ErrorKind, text: impl Into<String>) -> Error {
    Error::new(kind, About::Words, text)
}

fn not_running(user: &UserContainer) -> Error {
    words(ErrorKind::FailedPrecondition, format!("container {} is not running", user.id))
}

impl Inner {
    pub(super) async fn start_by_hand(
        self: &Arc<Self>,
        user: &Arc<UserContainer>,
        attach: Option<StreamOptions>,
    ) -> Result<Option<ProcessStreams>, Error> {
        let (inner, user) = (self.clone(), user.clone());
        self.detached(About::Words, async move {
            let _ops = user.ops.lock().await;
            if user.is_gone() || user.removing.load(Ordering::Acquire) {
                let why = "container is marked for removal and cannot be started";
                return Err(words(ErrorKind::FailedPrecondition, why));
            }
            if user.is_running() {
                if user.now.borrow().paused {
                    let why = "cannot start a paused container, try unpause instead";
                    return Err(words(ErrorKind::FailedPrecondition, why));
                }
                return match attach {
                    None => Ok(None),
                    Some(options) => inner.attach(user.id, options).await.map(Some),
                };
            }
            user.backoff.lock().unwrap_or_else(std::sync::PoisonError::into_inner).reset();
            inner.start_user(&user, By::Hand, attach).await
        })
        .await
    }

    /// Its container, while it runs.
    pub(super) fn running_user(&self, user: &UserContainer) -> Result<Arc<Container>, Error> {
        if !user.is_running() {
            return Err(not_running(user));
        }
        self.table.container(user.id).map_err(|_| not_running(user))
    }

    pub(super) async fn stop_user(self: &Arc<Self>, user: &Arc<UserContainer>, stop: Stop) -> Result<(), Error> {
        let (inner, user) = (self.clone(), user.clone());
        self.detached(About::Words, async move {
            let Some(container) = inner.no_more_starts(&user).await? else { return Ok(()) };
            inner.end_gently(&user, &container, stop).await?;
            let _ops = user.ops.lock().await;
            inner.settle(&user, &container).await;
            inner.tell_user(&user, "stop", []);
            Ok(())
        })
        .await
    }

    /// From here on its policy does nothing. Its container, if it runs.
    pub(super) async fn no_more_starts(self: &Arc<Self>, user: &Arc<UserContainer>) -> Result<Option<Arc<Container>>, Error> {
        let _ops = user.ops.lock().await;
        match user.phase() {
            Phase::Created | Phase::Exited => return Ok(None),
            Phase::Restarting => {
                let ended = |record: &mut UserRecord| {
                    record.by_hand = true;
                    record.phase = Phase::Exited;
                };
                user.change(self, ended).await?;
                return Ok(None);
            }
            Phase::Running => {}
        }
        user.change(self, |record| record.by_hand = true).await?;
        failpoint::hit("user.stop", user.id)?;
        Ok(self.table.container(user.id).ok())
    }

    /// The signal, some patience, SIGKILL. Returns once its process is dead.
    async fn end_gently(self: &Arc<Self>, user: &Arc<UserContainer>, container: &Arc<Container>, stop: Stop) -> Result<(), Error> {
        let own = || Duration::from_secs(user.spec().stop_timeout.unwrap_or(STOP_TIMEOUT).into());
        let patience = match stop.patience {
            Patience::Own => Some(own()),
            Patience::For(time) => Some(time),
            Patience::Endless => None,
        };
        self.signal_user(user, container, stop.signal.unwrap_or(container.stop_signal)).await?;
        let mut state = container.subscribe();
        let ended = async {
            state.wait_for(|state| matches!(state, model::container::ContainerState::Exited { .. })).await.ok();
        };
        match patience {
            None => ended.await,
            Some(patience) => {
                if tokio::time::timeout(patience, ended).await.is_err() {
                    self.signal_user(user, container, Signal::KILL).await?;
                    self.kill_container(container).await?;
                }
            }
        }
        self.tell_stopped(container).await;
        Ok(())
    }

    /// A signal to its main process; one that stands still goes on, so that it hears it.
    pub(super) async fn signal_user(
        self: &Arc<Self>,
        user: &UserContainer,
        container: &Arc<Container>,
        signal: Signal,
    ) -> Result<(), Error> {
        if let Ok(shim) = container.pod.shim() {
            match shim.signal(user.id, signal).await {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e).step(user.id, "send a signal"),
                _ => {}
            }
        }
        let stops = signal == Signal::KILL || signal == container.stop_signal;
        if stops && user.now.borrow().paused {
            self.freeze(user, container, Freezer::Thawed).await?;
        }
        self.tell_user(user, "kill", [("signal", signal.number().to_string())]);
        Ok(())
    }

    pub(super) async fn kill_user(self: &Arc<Self>, user: &Arc<UserContainer>, signal: Signal) -> Result<(), Error> {
        let (inner, user) = (self.clone(), user.clone());
        self.detached(About::Words, async move {
            let container = {
                let _ops = user.ops.lock().await;
                let shown = user.name();
                let container = inner.running_user(&user).map_err(|e| {
                    let why = e.chain();
                    words(e.kind(), format!("cannot kill container: {shown}: {why}"))
                })?;
                if signal == Signal::KILL || signal == container.stop_signal {
                    user.change(&inner, |record| record.by_hand = true).await?;
                }
                inner.signal_user(&user, &container, signal).await?;
                container
            };
            if signal == Signal::KILL {
                inner.kill_container(&container).await?;
                let _ops = user.ops.lock().await;
                inner.settle(&user, &container).await;
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn restart_user(self: &Arc<Self>, user: &Arc<UserContainer>, stop: Stop) -> Result<(), Error> {
        user.renewing.store(true, Ordering::Release);
        let renewed = async {
            self.stop_user(user, stop).await?;
            self.start_by_hand(user, None).await
        };
        let renewed = renewed.await;
        user.renewing.store(false, Ordering::Release);
        renewed?;
        self.tell_user(user, "restart", []);
        Ok(())
    }

    pub(super) async fn pause_user(self: &Arc<Self>, user: &Arc<UserContainer>, wanted: Freezer) -> Result<(), Error> {
        let (inner, user) = (self.clone(), user.clone());
        self.detached(About::Words, async move {
            let _ops = user.ops.lock().await;
            let (id, paused) = (user.id, user.now.borrow().paused);
            let refuse = |why: String| Err(words(ErrorKind::FailedPrecondition, why));
            if user.phase() == Phase::Restarting {
                return refuse(format!("container {id} is restarting, wait until the container is running"));
            }
            let container = inner.running_user(&user)?;
            match (wanted, paused) {
                (Freezer::Frozen, true) => return refuse(format!("container {id} is already paused")),
                (Freezer::Thawed, false) => return refuse(format!("container {id} is not paused")),
                (Freezer::Frozen, false) | (Freezer::Thawed, true) => {}
            }
            inner.freeze(&user, &container, wanted).await?;
            inner.tell_user(&user, if wanted == Freezer::Frozen { "pause" } else { "unpause" }, []);
            Ok(())
        })
        .await
    }

    /// Freezes or thaws, and waits until it is so. What could not be frozen in time runs on.
    async fn freeze(&self, user: &UserContainer, container: &Container, wanted: Freezer) -> Result<(), Error> {
        let group = self.group(&container.plan.cgroup).step(user.id, "find the container's freezer")?;
        let set = |wanted: Freezer| group.set_freezer(wanted).step(user.id, "freeze or thaw the container");
        set(wanted)?;
        let frozen = async {
            while wanted == Freezer::Frozen && !group.is_frozen().step(user.id, "look at the freezer")? {
                tokio::time::sleep(GLANCE).await;
                // v1 forgets to try again where a process was just being made.
                set(wanted)?;
            }
            Ok::<(), Error>(())
        };
        match tokio::time::timeout(FREEZE_DEADLINE, frozen).await {
            Ok(Ok(())) => {
                user.set_paused(wanted == Freezer::Frozen);
                Ok(())
            }
            failed => {
                set(Freezer::Thawed)?;
                failed.unwrap_or_else(|_| Err(words(ErrorKind::DeadlineExceeded, format!("container {} did not freeze", user.id))))
            }
        }
    }

    pub(super) async fn rename_user(self: &Arc<Self>, user: &Arc<UserContainer>, name: String) -> Result<(), Error> {
        let (inner, user) = (self.clone(), user.clone());
        self.detached(About::Words, async move {
            if name.is_empty() {
                return Err(words(ErrorKind::InvalidArgument, "Neither old nor new names may be empty"));
            }
            let _ops = user.ops.lock().await;
            let old = user.name();
            if old == name.strip_prefix('/').unwrap_or(&name) {
                let why = "Renaming a container with the same name as its current name";
                return Err(words(ErrorKind::InvalidArgument, why));
            }
            let reserved = inner.users.reserve(&name, user.id)?;
            user.change(&inner, |record| record.name.clone_from(&reserved.name)).await?;
            reserved.keep();
            inner.users.release_name(&old, user.id);
            inner.tell_user(&user, "rename", [("oldName", format!("/{old}"))]);
            Ok(())
        })
        .await
    }

    /// `newer` is laid over the limits in force; `changed` is what was asked for with that in it.
    pub(super) async fn update_user(
        self: &Arc<Self>,
        user: &Arc<UserContainer>,
        newer: Resources,
        changed: UserContainerSpec,
    ) -> Result<Vec<String>, Error> {
        let (inner, user) = (self.clone(), user.clone());
        self.detached(About::Words, async move {
            let _ops = user.ops.lock().await;
            if changed.auto_remove && changed.restart != RestartPolicy::No {
                let why = "Restart policy cannot be updated because AutoRemove is enabled for the container";
                return Err(words(ErrorKind::InvalidArgument, why));
            }
            let id = user.id;
            spec::effective_resources(&changed.container.resources, inner.config.pids_limit).step(id, "update")?;
            if user.is_running() && newer != Resources::default() {
                inner.update_resources(id, newer).await?;
            }
            user.change(&inner, |record| record.spec = changed).await?;
            inner.tell_user(&user, "update", []);
            Ok(Vec::new())
        })
        .await
    }
}
