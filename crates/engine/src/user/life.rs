//! What people do to their containers: create, start, stop, kill, pause, rename, update, remove.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use model::{
    ContainerId, ErrorKind, Resources, Signal,
    container::ContainerImage,
    user::{RestartPolicy, UserContainerSpec},
};
use sys::cgroup::Freezer;

use super::{
    UserContainer, networks,
    record::{Phase, UserRecord},
    run::By,
    shares, volumes,
};
use crate::{
    Inner,
    blocking::blocking,
    clock,
    container::{
        Container,
        stream::{ProcessStreams, StreamOptions},
    },
    error::{About, Error, Step},
    failpoint,
    image::ImageInfo,
    spec,
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

fn words(kind: ErrorKind, text: impl Into<String>) -> Error {
    Error::new(kind, About::Words, text)
}

fn not_running(user: &UserContainer) -> Error {
    words(ErrorKind::FailedPrecondition, format!("container {} is not running", user.id))
}

impl Inner {
    pub(super) async fn create_user(self: &Arc<Self>, name: String, spec: UserContainerSpec) -> Result<Arc<UserContainer>, Error> {
        let inner = self.clone();
        self.detached(About::Words, async move { inner.make_user(&name, spec).await }).await
    }

    async fn make_user(self: &Arc<Self>, name: &str, mut spec: UserContainerSpec) -> Result<Arc<UserContainer>, Error> {
        let id = ContainerId::from_bytes(crate::random_id());
        let name = self.users.reserve(name, id)?;
        let (image, _) = self.images.find_named(&spec.container.image).map_err(Error::plain)?;
        let image = ImageInfo::of(image);
        let pins = self.store.pin(&image.layers);
        // Between the look-up and the pin it may have gone.
        if self.images.find_named(&image.id.to_string()).is_err() {
            return Err(words(ErrorKind::NotFound, format!("No such image: {}", spec.container.image)));
        }
        check(&spec, &image)?;
        check_platform(&spec, &image)?;
        shares::settle(self, &mut spec)?;
        networks::check(self, &spec)?;
        self.handlers.admit(&spec.pod.runtime_handler, spec.pod.userns.is_some()).await?;
        spec.container.image = image.id.to_string();
        failpoint::hit("user.create", id)?;
        let volumes = volumes::make(self, id, &mut spec, &image).await?;
        let record = UserRecord {
            id,
            name: name.name.clone(),
            created_at: clock::now(),
            image: ContainerImage {
                id: image.id,
                name: image.repo_tags.first().cloned().unwrap_or_default(),
                digest: image.repo_digests.first().cloned(),
            },
            layers: image.layers.clone(),
            defaults: image.defaults.clone(),
            platform: image.platform.clone(),
            phase: Phase::Created,
            last: Default::default(),
            restarts: 0,
            by_hand: false,
            warnings: Vec::new(),
            volumes,
            health: None,
            spec,
        };
        failpoint::hit("user.record", id)?;
        let user = UserContainer::new(record, pins);
        if let Err(error) = user.change(self, |_| {}).await {
            volumes::release(self, id, Anonymous::Go).await;
            return Err(error);
        }
        failpoint::hit("user.created", id)?;
        self.users.insert(user.clone());
        name.keep();
        tracing::info!(container = %id.short(), name = user.name(), image = %image.id, to = "created", "user container");
        self.tell_user(&user, "create", []);
        Ok(user)
    }

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
    async fn no_more_starts(self: &Arc<Self>, user: &Arc<UserContainer>) -> Result<Option<Arc<Container>>, Error> {
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
    async fn signal_user(self: &Arc<Self>, user: &UserContainer, container: &Arc<Container>, signal: Signal) -> Result<(), Error> {
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

    pub(super) async fn remove_user(
        self: &Arc<Self>,
        user: &Arc<UserContainer>,
        force: super::Force,
        anonymous: Anonymous,
    ) -> Result<(), Error> {
        if user.removing.swap(true, Ordering::AcqRel) {
            let why = format!("removal of container {} is already in progress", user.name());
            return Err(words(ErrorKind::FailedPrecondition, why));
        }
        let (inner, user) = (self.clone(), user.clone());
        self.detached(About::Words, async move {
            let removed = inner.try_remove(&user, force, anonymous).await;
            user.removing.store(false, Ordering::Release);
            removed
        })
        .await
    }

    async fn try_remove(
        self: &Arc<Self>,
        user: &Arc<UserContainer>,
        force: super::Force,
        anonymous: Anonymous,
    ) -> Result<(), Error> {
        if force == super::Force::Given
            && let Some(container) = self.no_more_starts(user).await?
        {
            self.signal_user(user, &container, Signal::KILL).await?;
            self.kill_container(&container).await?;
        }
        let _ops = user.ops.lock().await;
        if user.is_gone() {
            return Ok(()); // it was to go when it had ended
        }
        if user.is_running() && force == super::Force::Given {
            // Before its follower, which waits as we do.
            if let Ok(container) = self.table.container(user.id) {
                self.settle(user, &container).await;
            }
            if user.is_gone() {
                return Ok(());
            }
        }
        let refuse = |state: &str| {
            let name = user.name();
            let why = format!(
                "cannot remove container \"{name}\": container is {state}: stop the container before removing or force remove"
            );
            Err(words(ErrorKind::FailedPrecondition, why))
        };
        match user.phase() {
            Phase::Running if user.now.borrow().paused => {
                let name = user.name();
                let why = format!("cannot remove container \"{name}\": container is paused and must be unpaused first");
                Err(words(ErrorKind::FailedPrecondition, why))
            }
            Phase::Running => refuse("running"),
            Phase::Restarting => refuse("restarting"),
            Phase::Created | Phase::Exited => self.take_user_away(user, anonymous).await,
        }
    }

    /// Everything of it. To be called with `ops` held, when it does not run.
    pub(super) async fn take_user_away(self: &Arc<Self>, user: &Arc<UserContainer>, anonymous: Anonymous) -> Result<(), Error> {
        let id = user.id;
        self.end_runs(user).await?;
        failpoint::hit("user.remove", id)?;
        // Without its record it never was: the rest is swept at the next start, if it has to be.
        user.forget(self).await?;
        self.users.remove(user);
        let cleared = self.clear_away(user, anonymous).await;
        user.removed();
        cleared
    }

    async fn clear_away(self: &Arc<Self>, user: &Arc<UserContainer>, anonymous: Anonymous) -> Result<(), Error> {
        let id = user.id;
        failpoint::hit("user.removed", id)?;
        let (inner, logs) = (self.clone(), self.config.logs().join(id.to_string()));
        let removed = blocking(move || {
            inner.drop_project(id);
            inner.store.remove_container_dir(id).step(id, "remove the container's writable layer")?;
            crate::remove_tree(&logs).step(id, "remove the container's log")
        });
        let removed = removed.await;
        volumes::release(self, user.id, anonymous).await;
        tracing::info!(container = %id.short(), to = "removed", "user container");
        self.tell_user(user, "destroy", []);
        removed
    }
}

/// An image of another platform is as good as none, for the client may pull the right one.
fn check_platform(spec: &UserContainerSpec, image: &ImageInfo) -> Result<(), Error> {
    let (wanted, actual) = (&spec.platform, &image.platform);
    let fits = actual.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if wanted.is_empty() || fits {
        return Ok(());
    }
    let shown: String = wanted.chars().take(80).collect();
    let why = format!(
        "image with reference {} was found but does not match the specified platform: wanted {shown}, actual: {actual}",
        spec.container.user_specified_image
    );
    Err(words(ErrorKind::NotFound, why))
}

/// What would fail at every start is said when it is made.
fn check(spec: &UserContainerSpec, image: &ImageInfo) -> Result<(), Error> {
    if spec.auto_remove && spec.restart != RestartPolicy::No {
        return Err(words(ErrorKind::InvalidArgument, "can't create 'AutoRemove' container with restart policy"));
    }
    if spec::has_no_command(&spec.container, &image.defaults) {
        return Err(words(ErrorKind::InvalidArgument, "no command specified"));
    }
    spec::effective_resources(&spec.container.resources, 0).step(About::Words, "limits").map(drop)
}
