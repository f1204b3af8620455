//! What a pod's supervisor reports: one task per pod, the only one that ends containers.

use std::sync::Arc;

use model::{
    container::{ContainerEvent, ContainerState},
    pod::Reason,
};

use super::Pod;
use crate::{
    Inner,
    blocking::blocking,
    clock,
    events::EventKind,
    shim::{Exited, ShimEvent, ShimEvents},
};

/// Follows the supervisor until it is gone.
pub(crate) fn watch(inner: &Arc<Inner>, pod: &Arc<Pod>, mut events: ShimEvents) {
    let (inner, pod) = (inner.clone(), pod.clone());
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                ShimEvent::Exited(exited) => inner.exited(&pod, exited).await,
                ShimEvent::Warning { message } => tracing::warn!(pod = %pod.id.short(), message, "supervisor"),
                ShimEvent::Lost { why } => {
                    inner.supervisor_lost(&pod, &why).await;
                    break;
                }
            }
        }
    });
}

impl Inner {
    async fn exited(self: &Arc<Self>, pod: &Arc<Pod>, exited: Exited) {
        if let Err(e) = self.container_exited(&exited).await {
            tracing::warn!(container = %exited.container.short(), error = e.chain(), "exit could not be recorded");
            return;
        }
        // Acknowledged only once it is on disk: a daemon that dies before this line hears of the exit again.
        if let Ok(shim) = pod.shim()
            && let Err(e) = shim.ack(exited.sequence).await
        {
            tracing::debug!(pod = %pod.id.short(), error = %e, "exit not acknowledged");
        }
    }

    async fn container_exited(self: &Arc<Self>, exited: &Exited) -> Result<(), crate::Error> {
        let Ok(container) = self.table.container(exited.container) else { return Ok(()) };
        // Taken so that an exit that overtakes the answer to Start is applied after it.
        let _ops = container.ops.lock().await;
        self.move_container(&container, ContainerEvent::Exited { at: exited.at, exit: exited.status }).await
    }

    /// The supervisor died: so do its containers, and the pod is not ready. The network is owed until StopPodSandbox.
    pub(crate) async fn supervisor_lost(self: &Arc<Self>, pod: &Arc<Pod>, why: &str) {
        if pod.take_shim().is_none() {
            return; // stopped on purpose
        }
        tracing::warn!(pod = %pod.id.short(), why, "supervisor lost");
        if let Err(e) = self.kill_pod_processes(pod).await {
            tracing::warn!(pod = %pod.id.short(), error = e.chain(), "processes left");
        }
        self.containers_lost(pod, &Reason::SupervisorLost).await;
        if let Err(e) = self.pod_not_ready(pod, Reason::SupervisorLost).await {
            tracing::warn!(pod = %pod.id.short(), error = e.chain(), "could not be recorded");
        }
    }

    /// Ends, in the records, every container that cannot be heard of any more. Exit records on disk win.
    pub(crate) async fn containers_lost(self: &Arc<Self>, pod: &Arc<Pod>, why: &Reason) {
        for container in self.table.containers_of(pod.id) {
            let _ops = container.ops.lock().await;
            if matches!(container.state(), ContainerState::Exited { .. }) {
                continue;
            }
            let (dir, id) = (pod.paths.dir.clone(), container.id);
            let event = match blocking(move || crate::shim::exit_record(&dir, id)).await {
                Some((exit, at)) => ContainerEvent::Exited { at, exit },
                None => ContainerEvent::Lost { at: clock::now(), why: why.clone() },
            };
            if let Err(e) = self.move_container(&container, event).await {
                tracing::warn!(container = %id.short(), error = e.chain(), "loss could not be recorded");
            }
        }
    }

    /// The only way a container's state changes: state machine, record, event, in this order.
    pub(crate) async fn move_container(
        self: &Arc<Self>,
        container: &Arc<crate::container::Container>,
        event: ContainerEvent,
    ) -> Result<(), crate::Error> {
        let kind = match container.apply(event)? {
            Some(ContainerState::Running { .. }) => EventKind::Started,
            Some(ContainerState::Exited { .. }) => EventKind::Stopped,
            Some(ContainerState::Created) | None => return Ok(()),
        };
        let persisted = container.persist(self).await;
        self.events.of_container(kind, container.id, &container.pod);
        if kind == EventKind::Stopped {
            self.tell_stopped_later(container);
        }
        persisted
    }
}
