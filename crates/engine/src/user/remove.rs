//! A container of people is removed, with everything of it.

use std::sync::{Arc, atomic::Ordering};

use model::{ErrorKind, Signal};

use super::{Anonymous, UserContainer, life::words, record::Phase, volumes};
use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error, Step},
    failpoint,
};

impl Inner {
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
        let state = match user.phase() {
            Phase::Created | Phase::Exited => return self.take_user_away(user, anonymous).await,
            Phase::Running if user.now.borrow().paused => "paused and must be unpaused first",
            Phase::Running => "running: stop the container before removing or force remove",
            Phase::Restarting => "restarting: stop the container before removing or force remove",
        };
        let why = format!("cannot remove container \"{}\": container is {state}", user.name());
        Err(words(ErrorKind::FailedPrecondition, why))
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
