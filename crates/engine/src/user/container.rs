//! A container of people: its record, and the only place that changes it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::{
    ContainerId,
    container::{ContainerImage, ImageDefaults},
    pod::Timestamp,
    user::{Health, UserContainerSpec},
};
use tokio::sync::watch;

use super::{
    record::{Phase, UserRecord, VolumeUse},
    restart::Backoff,
};
use crate::{
    Inner,
    blocking::blocking,
    error::{Error, Step},
    image::ImageInfo,
    record,
};

/// Where a container of people is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserStatus {
    /// It has never run.
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It has ended and will start again.
    Restarting,
    /// It has ended.
    Exited,
    /// It is being removed.
    Removing,
}

/// A container of people now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserState {
    /// Where it is.
    pub status: UserStatus,
    /// Of the last run.
    pub exit_code: i32,
    /// Why it could not be started, or what ended it; empty: nothing to say.
    pub error: String,
    /// The kernel's OOM killer ended it.
    pub oom_killed: bool,
    /// When it was started last.
    pub started_at: Option<Timestamp>,
    /// When it ended last.
    pub finished_at: Option<Timestamp>,
    /// How often it was started again by its policy.
    pub restarts: u32,
    /// How well it is; `None`: nobody looks.
    pub health: Option<Health>,
}

/// What listeners see.
#[derive(Debug)]
pub(super) struct Now {
    pub(super) record: UserRecord,
    pub(super) paused: bool,
    /// Starts and ends so far: who waits for something notices that other things have happened.
    pub(super) turns: u64,
    /// Ends so far.
    pub(super) exits: u64,
    pub(super) gone: bool,
    /// Nothing of it is left.
    pub(super) removed: bool,
}

/// A container that a person has made.
#[derive(Debug)]
pub struct UserContainer {
    /// Its id; that of the container of each run too.
    pub id: ContainerId,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it was made from.
    pub image: ContainerImage,
    /// What its image says.
    pub defaults: ImageDefaults,
    /// Its image's platform.
    pub platform: String,
    _pins: store::LayerPins,
    pub(super) now: watch::Sender<Now>,
    /// Start, end, removal: one at a time.
    pub(super) ops: tokio::sync::Mutex<()>,
    /// Changes of the record: one at a time, the newest one last on the disk.
    writing: tokio::sync::Mutex<()>,
    pub(super) removing: AtomicBool,
    /// It ends only to be started again: it is not removed then.
    pub(super) renewing: AtomicBool,
    pub(super) backoff: Mutex<Backoff>,
}

impl UserContainer {
    pub(super) fn new(record: UserRecord, pins: store::LayerPins) -> Arc<Self> {
        Arc::new(Self {
            id: record.id,
            created_at: record.created_at,
            image: record.image.clone(),
            defaults: record.defaults.clone(),
            platform: record.platform.clone(),
            _pins: pins,
            now: watch::Sender::new(Now { record, paused: false, turns: 0, exits: 0, gone: false, removed: false }),
            ops: tokio::sync::Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            removing: AtomicBool::new(false),
            renewing: AtomicBool::new(false),
            backoff: Mutex::default(),
        })
    }

    /// Its name now.
    pub fn name(&self) -> String {
        self.now.borrow().record.name.clone()
    }

    /// What was asked for, updates included.
    pub fn spec(&self) -> UserContainerSpec {
        self.now.borrow().record.spec.clone()
    }

    /// Entrypoint and command with their arguments.
    pub fn command(&self) -> Vec<String> {
        let now = self.now.borrow();
        crate::spec::command_line(&now.record.spec.container, &self.defaults)
    }

    /// Layers of its image, lowest first.
    pub fn layers(&self) -> Vec<model::DiffId> {
        self.now.borrow().record.layers.clone()
    }

    /// Its networks, the first one first.
    pub fn networks(&self) -> Vec<model::user::UserNetwork> {
        let now = self.now.borrow();
        super::join::all(&now.record.spec.network, &now.record.spec.more_networks).cloned().collect()
    }

    /// Volumes that it has.
    pub fn volumes(&self) -> Vec<VolumeUse> {
        self.now.borrow().record.volumes.clone()
    }

    /// What was asked for and is not so.
    pub fn warnings(&self) -> Vec<String> {
        self.now.borrow().record.warnings.clone()
    }

    /// Its state now.
    pub fn state(&self) -> UserState {
        let now = self.now.borrow();
        let last = &now.record.last;
        let status = match now.record.phase {
            _ if self.removing.load(Ordering::Acquire) || now.gone => UserStatus::Removing,
            Phase::Created => UserStatus::Created,
            Phase::Running if now.paused => UserStatus::Paused,
            Phase::Running => UserStatus::Running,
            Phase::Restarting => UserStatus::Restarting,
            Phase::Exited => UserStatus::Exited,
        };
        UserState {
            status,
            exit_code: last.code,
            error: last.error.clone(),
            oom_killed: last.oom_killed,
            started_at: last.started_at,
            finished_at: last.finished_at,
            restarts: now.record.restarts,
            health: now.record.health.clone(),
        }
    }

    /// Whether its program runs, or stands still.
    pub fn is_running(&self) -> bool {
        self.phase() == Phase::Running
    }

    /// Whether what it says is kept.
    pub fn keeps_log(&self) -> bool {
        !self.now.borrow().record.spec.container.own.as_ref().is_some_and(|own| own.no_log)
    }

    /// Its writable layer is still to be made.
    pub(crate) fn is_new(&self) -> bool {
        self.now.borrow().record.last.started_at.is_none()
    }

    /// Its image as it was when the container was made.
    pub(crate) fn image_info(&self) -> Arc<ImageInfo> {
        let now = self.now.borrow();
        Arc::new(ImageInfo {
            id: self.image.id,
            repo_tags: Vec::from_iter(Some(self.image.name.clone()).filter(|name| !name.is_empty())),
            repo_digests: Vec::from_iter(self.image.digest.clone()),
            size: 0,
            layers: now.record.layers.clone(),
            defaults: self.defaults.clone(),
            created: String::new(),
            architecture: self.platform.split('/').nth(1).unwrap_or_default().to_owned(),
            platform: self.platform.clone(),
        })
    }

    pub(super) fn phase(&self) -> Phase {
        self.now.borrow().record.phase
    }

    pub(super) fn is_gone(&self) -> bool {
        self.now.borrow().gone
    }

    pub(super) fn backoff(&self, ran: Duration) -> Duration {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner).next(ran)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.now.send_modify(|now| now.paused = paused);
    }

    /// Changes the record: on disk first, then for everybody to see. Nothing happens to one that is gone.
    pub(super) async fn change(self: &Arc<Self>, inner: &Arc<Inner>, change: impl FnOnce(&mut UserRecord)) -> Result<(), Error> {
        let _writing = self.writing.lock().await;
        let mut newer = {
            let now = self.now.borrow();
            if now.gone {
                return Ok(());
            }
            now.record.clone()
        };
        change(&mut newer);
        let (store, id, bytes) = (inner.clone(), self.id, record::encode(&newer));
        blocking(move || store.store.put_user(id, &bytes)).await.step(id, "write the container's record")?;
        self.now.send_modify(|now| {
            let (before, after) = (now.record.phase, newer.phase);
            if before == Phase::Running && after != Phase::Running {
                now.exits += 1;
                now.paused = false;
            }
            if before != after {
                now.turns += 1;
            }
            now.record = newer;
        });
        Ok(())
    }

    /// Changes what is known of it in memory only: what the next daemon can do without.
    pub(super) async fn note(&self, change: impl FnOnce(&mut UserRecord)) {
        let _writing = self.writing.lock().await;
        self.now.send_modify(|now| change(&mut now.record));
    }

    /// Removes the record for good.
    pub(super) async fn forget(self: &Arc<Self>, inner: &Arc<Inner>) -> Result<(), Error> {
        let _writing = self.writing.lock().await;
        let (store, id) = (inner.clone(), self.id);
        blocking(move || store.store.remove_user(id)).await.step(id, "remove the container's record")?;
        self.now.send_modify(|now| now.gone = true);
        Ok(())
    }

    /// Nothing of it is left: its name is free, and so are its volumes.
    pub(super) fn removed(&self) {
        self.now.send_modify(|now| now.removed = true);
    }
}
