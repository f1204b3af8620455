//! Containers of people: they have a name, end and start again with their files, and stay until they are removed.
//!
//! A container is a durable record and a writable layer. Every start makes a pod of its own for it, which CRI never shows,
//! and in it a container with the same id; when that has ended, the pod goes, and record, writable layer and log stay.
//! Invariants: the record is on disk before anybody sees it, and goes before anything else of the container does; what
//! runs is known from the pods, what is to run from the records.

mod commit;
mod container;
mod create;
pub(crate) mod events;
pub(crate) mod files;
mod health;
mod join;
mod life;
mod logs;
mod names;
mod networks;
mod once;
mod places;
mod ranges;
mod record;
mod recover;
mod remove;
mod restart;
mod run;
mod shares;
mod table;
mod usage;
mod volumes;

use std::sync::Arc;

use model::{ContainerId, Resources, Signal, user::UserContainerSpec};
use sys::cgroup::Freezer;
use tokio::sync::broadcast;

pub use commit::{Pause, UserCommit};
pub use container::{UserContainer, UserState, UserStatus};
pub use events::{Kind as UserEventKind, UserEvent};
pub use files::{Change, ChangeKind, FileStat, FoundFile, Last, Owners, Replace, Unpack, UserFiles};
pub use life::{Anonymous, Patience, Stop};
pub use logs::{LogLine, LogQuery, LogReader};
#[cfg(test)]
pub(crate) use once::confined;
pub(crate) use once::{Once, owner_of};
pub(crate) use ranges::Ranges;
pub use record::VolumeUse;
pub(crate) use table::Users;
pub use usage::{ProcessTable, UserUsage};

use crate::{
    Container, Engine, Error, ProcessStreams, StreamOptions,
    error::{About, Step},
};

/// Whether a refusal is to be overruled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Yes.
    Given,
    /// No.
    NotGiven,
}

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// It does not run.
    NotRunning,
    /// Its next end.
    NextExit,
    /// It is gone.
    Removed,
}

/// Containers of people. Texts of errors are docker's, because scripts look for them.
impl Engine {
    /// All containers of people, oldest first.
    pub fn users(&self) -> Vec<Arc<UserContainer>> {
        self.inner().users.list()
    }

    /// The one that a person means: by its whole id, its name, or the beginning of its id.
    ///
    /// # Errors
    /// `NotFound`: no such container. `InvalidArgument`: the beginning of several ids.
    pub fn user(&self, text: &str) -> Result<Arc<UserContainer>, Error> {
        self.inner().users.resolve(text)
    }

    /// The container of people with this id.
    pub fn user_by_id(&self, id: ContainerId) -> Option<Arc<UserContainer>> {
        self.inner().users.get(id)
    }

    /// Makes one; `name` may be empty.
    ///
    /// # Errors
    /// `AlreadyExists`: the name is taken. `NotFound`: there is no such image. `InvalidArgument`: what cannot be.
    pub async fn create_user(&self, name: String, spec: UserContainerSpec) -> Result<Arc<UserContainer>, Error> {
        self.inner().create_user(name, spec).await
    }

    /// Starts it; one that runs is started already.
    ///
    /// # Errors
    /// `FailedPrecondition` with `exit code N: ` in front: its program cannot be run.
    pub async fn start_user(&self, user: &Arc<UserContainer>) -> Result<(), Error> {
        self.inner().start_by_hand(user, None).await.map(drop)
    }

    /// Starts it with its streams, which are there before its program is. Of one that runs, its streams from now on.
    ///
    /// # Errors
    /// As [`Engine::start_user`].
    pub async fn start_user_attached(&self, user: &Arc<UserContainer>, options: StreamOptions) -> Result<ProcessStreams, Error> {
        Ok(self.inner().start_by_hand(user, Some(options)).await?.unwrap_or_default())
    }

    /// The streams of one that runs.
    ///
    /// # Errors
    /// `FailedPrecondition`: it does not run, or stands still.
    pub async fn attach_user(&self, user: &Arc<UserContainer>, options: StreamOptions) -> Result<ProcessStreams, Error> {
        use model::ErrorKind::FailedPrecondition;
        let refuse = |why: &str| Err(Error::new(FailedPrecondition, About::Words, why));
        match user.state().status {
            UserStatus::Running => {}
            UserStatus::Paused => return refuse("You cannot attach to a paused container, unpause it first"),
            UserStatus::Restarting => return refuse("You cannot attach to a restarting container, wait until it is running"),
            UserStatus::Created | UserStatus::Exited | UserStatus::Removing => {
                return refuse("You cannot attach to a stopped container, start it first");
            }
        }
        let streams = self.inner().attach(user.id, options).await?;
        self.inner().tell_user(user, "attach", []);
        Ok(streams)
    }

    /// Its stop signal, and SIGKILL after a while; done when it has ended. One that does not run is stopped already.
    ///
    /// # Errors
    /// It cannot be signalled, or does not die.
    pub async fn stop_user(&self, user: &Arc<UserContainer>, stop: Stop) -> Result<(), Error> {
        self.inner().stop_user(user, stop).await
    }

    /// Stop and start.
    ///
    /// # Errors
    /// As both.
    pub async fn restart_user(&self, user: &Arc<UserContainer>, stop: Stop) -> Result<(), Error> {
        let (inner, user) = (self.inner().clone(), user.clone());
        let renewing = inner.clone();
        inner.detached(About::Words, async move { renewing.restart_user(&user, stop).await }).await
    }

    /// A signal to its main process.
    ///
    /// # Errors
    /// `FailedPrecondition`: it does not run.
    pub async fn kill_user(&self, user: &Arc<UserContainer>, signal: Signal) -> Result<(), Error> {
        self.inner().kill_user(user, signal).await
    }

    /// Freezes it.
    ///
    /// # Errors
    /// `FailedPrecondition`: it does not run, or is frozen already.
    pub async fn pause_user(&self, user: &Arc<UserContainer>) -> Result<(), Error> {
        self.inner().pause_user(user, Freezer::Frozen).await
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// `FailedPrecondition`: it is not frozen.
    pub async fn unpause_user(&self, user: &Arc<UserContainer>) -> Result<(), Error> {
        self.inner().pause_user(user, Freezer::Thawed).await
    }

    /// Waits; answers the exit code.
    pub async fn wait_user(&self, user: &Arc<UserContainer>, what: WaitFor) -> i32 {
        let mut now = user.now.subscribe();
        let exits = now.borrow().exits;
        let there = |now: &container::Now| match what {
            WaitFor::NotRunning => now.gone || matches!(now.record.phase, record::Phase::Created | record::Phase::Exited),
            WaitFor::NextExit => now.gone || now.exits != exits,
            WaitFor::Removed => now.removed,
        };
        // The sender is in the container, which the caller holds.
        now.wait_for(there).await.map_or(0, |now| now.record.last.code)
    }

    /// Its next end: the exit code. What happens between this call and the first look at the answer is not missed.
    pub fn exit_of_user(&self, user: &Arc<UserContainer>) -> impl Future<Output = i32> + Send + use<> {
        let (user, mut now) = (user.clone(), user.now.subscribe());
        let exits = now.borrow().exits;
        async move {
            let code = now.wait_for(|now| now.gone || now.exits != exits).await.map_or(0, |now| now.record.last.code);
            drop(user);
            code
        }
    }

    /// Bytes that it has written to its root. Walks, so it takes its time.
    pub async fn size_of_user(&self, user: &UserContainer) -> u64 {
        let upper = self.inner().store.container_path(user.id).join("upper");
        crate::blocking::blocking(move || crate::stats::tree_bytes(&upper)).await
    }

    /// Removes it with its writable layer and its log.
    ///
    /// # Errors
    /// `FailedPrecondition`: it runs, or somebody else removes it.
    pub async fn remove_user(&self, user: &Arc<UserContainer>, force: Force, anonymous: Anonymous) -> Result<(), Error> {
        self.inner().remove_user(user, force, anonymous).await
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// `AlreadyExists`: the name is taken.
    pub async fn rename_user(&self, user: &Arc<UserContainer>, name: String) -> Result<(), Error> {
        self.inner().rename_user(user, name).await
    }

    /// Lays `newer` over the limits in force, and keeps `changed` as what is asked for. Answers warnings.
    ///
    /// # Errors
    /// A limit that cannot be.
    pub async fn update_user(
        &self,
        user: &Arc<UserContainer>,
        newer: Resources,
        changed: UserContainerSpec,
    ) -> Result<Vec<String>, Error> {
        self.inner().update_user(user, newer, changed).await
    }

    /// The container of its run, if there is one.
    pub fn container_of_user(&self, user: &UserContainer) -> Option<Arc<Container>> {
        self.inner().table.container(user.id).ok()
    }

    /// The directories of its writable layer, made if it has never run.
    ///
    /// # Errors
    /// The disk's.
    pub fn writable_of_user(&self, user: &UserContainer) -> Result<std::path::PathBuf, Error> {
        let dir = self.inner().store.container_dir(user.id).step(user.id, "make the writable layer")?;
        Ok(dir.upper)
    }

    /// Its log file; it may not be there yet.
    pub fn log_of_user(&self, user: &UserContainer) -> std::path::PathBuf {
        self.inner().config.logs().join(user.id.to_string()).join(run::LOG)
    }

    /// What has happened to things of people, as far as it is remembered, and everything from then on.
    pub fn user_events(&self) -> (Vec<UserEvent>, broadcast::Receiver<UserEvent>) {
        self.inner().bus.subscribe()
    }

    /// Tells people that something has happened to a thing of theirs.
    pub fn tell(
        &self,
        kind: UserEventKind,
        action: &str,
        id: impl ToString,
        attributes: std::collections::BTreeMap<String, String>,
    ) {
        self.inner().bus.tell(kind, action, id, attributes);
    }

    /// Tells people that a command is run in one of their containers; answers what its end is told with.
    pub fn tell_exec(&self, user: &UserContainer, command: &[String]) -> model::ExecId {
        self.inner().tell_exec(user, command)
    }

    /// Tells people that it has ended; `None`: nobody knows how.
    pub fn tell_exec_died(&self, user: &UserContainer, exec: model::ExecId, code: Option<i32>) {
        self.inner().tell_exec_died(user, exec, code);
    }

    /// Tells people what happens to one of their containers (top, export, ...).
    pub fn tell_of_user<const N: usize>(&self, user: &UserContainer, action: &str, more: [(&str, String); N]) {
        self.inner().tell_user(user, action, more);
    }
}
