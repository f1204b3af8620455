//! What plugins want of containers that are there: other limits, or their end.

use std::{sync::Arc, time::Duration};

use ::nri::proto as p;
use model::{ContainerId, ErrorKind};

use super::resources;
use crate::{
    Inner,
    error::{About, Error, Step},
};

/// How long an evicted container may take to end.
const EVICTION_GRACE: Duration = Duration::from_secs(30);
/// Evictions that are carried out of one request; more are somebody's mistake.
const MAX_EVICTIONS: usize = 1024;

impl Inner {
    /// Lays limits over those of containers. Returns what could not be done and was not said to be dispensable.
    pub(crate) async fn apply_updates(self: &Arc<Self>, asker: &str, updates: Vec<p::ContainerUpdate>) -> Vec<p::ContainerUpdate> {
        let mut failed = Vec::new();
        for update in updates {
            if let Err(error) = self.apply_one(&update).await {
                let container = update.container_id.chars().take(64).collect::<String>();
                tracing::warn!(asker, container, error = error.chain(), ignored = update.ignore_failure, "NRI update");
                if !update.ignore_failure {
                    failed.push(update);
                }
            }
        }
        failed
    }

    async fn apply_one(self: &Arc<Self>, update: &p::ContainerUpdate) -> Result<(), Error> {
        let container = self.table.container(container_id(&update.container_id)?)?;
        let Some(from) = update.linux.as_ref().and_then(|linux| linux.resources.as_ref()) else { return Ok(()) };
        if !resources::says_something(from) {
            return Ok(());
        }
        let wanted = resources::wanted(from).step(container.id, "NRI update")?;
        self.apply_resources(&container, &wanted).await
    }

    /// Ends containers, each in a task of its own: a plugin does not wait for that.
    pub(crate) fn evict(self: &Arc<Self>, asker: &str, evictions: Vec<p::ContainerEviction>) {
        for eviction in evictions.into_iter().take(MAX_EVICTIONS) {
            let reason: String = eviction.reason.chars().take(512).collect();
            let Ok(id) = container_id(&eviction.container_id) else {
                tracing::warn!(asker, reason, "NRI eviction of something that is no container id");
                continue;
            };
            tracing::warn!(asker, container = %id.short(), reason, "NRI eviction");
            let inner = self.clone();
            self.nri.spawn(async move {
                if let Err(e) = inner.stop_container(id, EVICTION_GRACE).await {
                    tracing::warn!(container = %id.short(), error = e.chain(), "NRI eviction");
                }
            });
        }
    }
}

fn container_id(text: &str) -> Result<ContainerId, Error> {
    let why = || format!("{:?} is no container id", text.chars().take(80).collect::<String>());
    text.parse().map_err(|_| Error::new(ErrorKind::InvalidArgument, About::Engine, why()))
}
