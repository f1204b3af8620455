//! UpdateContainerResources.

use std::sync::Arc;

use model::{ContainerId, ErrorKind, Resources, container::ContainerState};

use super::Container;
use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error, Step},
    spec,
};

impl Inner {
    /// Lays new limits over the old ones. A value that the kernel refuses changes nothing of what is written down.
    pub(crate) async fn update_resources(self: &Arc<Self>, id: ContainerId, newer: Resources) -> Result<(), Error> {
        let container = self.table.container(id)?;
        let inner = self.clone();
        self.detached(About::Container(id), async move {
            let _told = container.told.lock().await;
            let newer = inner.ask_update(&container, newer).await?;
            inner.apply_resources(&container, &newer).await?;
            inner.tell_updated(&container).await;
            Ok(())
        })
        .await
    }

    /// The same without anybody being asked.
    pub(crate) async fn apply_resources(self: &Arc<Self>, container: &Arc<Container>, newer: &Resources) -> Result<(), Error> {
        let (id, inner, container, newer) = (container.id, self.clone(), container.clone(), newer.clone());
        self.detached(About::Container(id), async move {
            let _ops = container.ops.lock().await;
            if let ContainerState::Exited { .. } = container.state() {
                let why = "container is exited, its resources cannot be updated";
                return Err(Error::new(ErrorKind::FailedPrecondition, About::Container(id), why));
            }
            let merged = container.resources().updated_by(&newer);
            let merged = spec::effective_resources(&merged, inner.config.pids_limit).step(id, "update resources")?;
            let (group, wanted) = (container.plan.cgroup.clone(), merged.clone());
            let cgroups = inner.clone();
            let applied = blocking(move || {
                let group = cgroups.group(&group)?;
                let before = group.read_limits()?;
                group.apply(&wanted).inspect_err(|_| {
                    // What was written before the kernel refused something: all or nothing. Unless the container has
                    // outgrown its old limits meanwhile they fit.
                    if let Err(e) = group.apply(&before) {
                        tracing::warn!(container = %id.short(), error = crate::chain(&e), "limits are half updated");
                    }
                })
            });
            let refused = applied.await.step(id, "update the container's cgroup")?;
            for refusal in refused {
                tracing::warn!(container = %id.short(), what = refusal.what, why = refusal.why, "tolerated");
            }
            container.set_resources(merged);
            container.persist(&inner).await
        })
        .await
    }
}
