//! StartContainer, StopContainer, RemoveContainer.

use std::{sync::Arc, time::Duration};

use model::{
    ContainerId, ErrorKind, Signal,
    container::{ContainerEvent, ContainerState},
    pod::PodRequest,
};

use super::Container;
use crate::{
    Inner,
    blocking::blocking,
    clock,
    error::{About, Error, Step},
    events::EventKind,
    nri::Members,
};

/// How long a killed process may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(30);

impl Inner {
    /// Lets the container's process exec. A container starts once.
    pub(crate) async fn start_container(self: &Arc<Self>, id: ContainerId) -> Result<(), Error> {
        let container = self.table.container(id)?;
        container.pod.admit(PodRequest::StartContainer)?;
        let inner = self.clone();
        self.detached(About::Container(id), async move {
            let _told = container.told.lock().await;
            startable(&container)?;
            inner.ask_start(&container).await?;
            inner.start_process(&container).await?;
            inner.tell_started(&container).await;
            Ok(())
        })
        .await
    }

    async fn start_process(self: &Arc<Self>, container: &Arc<Container>) -> Result<(), Error> {
        let _ops = container.ops.lock().await;
        // Again: it may have ended while plugins thought.
        startable(container)?;
        match container.pod.shim()?.start(container.id, container.plan.hooks.as_ref()).await {
            Ok(at) => self.move_container(container, ContainerEvent::Started { at }).await,
            Err(e) => {
                self.end_unanswered(container, &e).await;
                let (code, message) = (e.exit_code().unwrap_or(128), crate::chain(&e));
                let event = ContainerEvent::StartFailed { at: clock::now(), code, message };
                self.move_container(container, event).await?;
                Err(e).step(container.id, "start container")
            }
        }
    }

    /// A start without an answer may succeed later. It counts as failed and a client makes another container in its place,
    /// so this one must not run beside it.
    async fn end_unanswered(self: &Arc<Self>, container: &Arc<Container>, error: &crate::shim::Error) {
        if matches!(error, crate::shim::Error::Failed(_)) {
            return;
        }
        let (inner, group) = (self.clone(), container.plan.cgroup.clone());
        if let Err(e) = blocking(move || inner.kill_group(&group)).await {
            tracing::warn!(container = %container.id.short(), error = crate::chain(&e), "start without an answer");
        }
    }

    /// Stops a container: its stop signal, up to `grace`, then SIGKILL. Returns once it is dead.
    pub(crate) async fn stop_container(self: &Arc<Self>, id: ContainerId, grace: Duration) -> Result<(), Error> {
        let container = self.table.container(id)?;
        let mut state = container.subscribe();
        if !grace.is_zero() && matches!(container.state(), ContainerState::Running { .. }) {
            // A supervisor that is gone has taken the container with it; the wait below sees that.
            if let Ok(shim) = container.pod.shim() {
                match shim.signal(id, container.stop_signal).await {
                    Err(e) if e.kind() != ErrorKind::NotFound => return Err(e).step(id, "send the stop signal"),
                    _ => {}
                }
            }
            if tokio::time::timeout(grace, wait_for_exit(&mut state)).await.is_ok() {
                self.tell_stopped(&container).await;
                return Ok(());
            }
        }
        self.kill_container(&container).await?;
        self.tell_stopped(&container).await;
        Ok(())
    }

    /// SIGKILL, and waits until the container is dead.
    pub(crate) async fn kill_container(self: &Arc<Self>, container: &Arc<Container>) -> Result<(), Error> {
        let mut state = container.subscribe();
        if matches!(*state.borrow(), ContainerState::Exited { .. }) {
            return Ok(());
        }
        if let Ok(shim) = container.pod.shim() {
            match shim.signal(container.id, Signal::KILL).await {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e).step(container.id, "send SIGKILL"),
                _ => {}
            }
        }
        match tokio::time::timeout(KILL_DEADLINE, wait_for_exit(&mut state)).await {
            Ok(()) => Ok(()),
            Err(_) => {
                let why = "the container's process did not die within 30 s of SIGKILL (is it in an uninterruptible system call?)";
                Err(Error::new(ErrorKind::DeadlineExceeded, About::Container(container.id), why))
            }
        }
    }

    /// Removes a container, killing it first if it runs.
    pub(crate) async fn remove_container(self: &Arc<Self>, id: ContainerId) -> Result<(), Error> {
        let container = self.table.container(id)?;
        let inner = self.clone();
        self.detached(About::Container(id), async move {
            inner.kill_container(&container).await?;
            inner.remove_stopped_container(&container).await
        })
        .await
    }

    /// Takes away everything of a container that has ended.
    pub(crate) async fn remove_stopped_container(self: &Arc<Self>, container: &Arc<Container>) -> Result<(), Error> {
        self.tell_stopped(container).await;
        if let Some(plugins) = self.take_away(container).await? {
            plugins.container_removed(container).await;
        }
        Ok(())
    }

    /// Returns the plugins that have to know.
    async fn take_away(self: &Arc<Self>, container: &Arc<Container>) -> Result<Option<Members>, Error> {
        let _ops = container.ops.lock().await;
        let id = container.id;
        if self.table.container(id).is_err() {
            return Ok(None); // another call was faster
        }
        if let Ok(shim) = container.pod.shim() {
            match shim.forget(id).await {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e).step(id, "make the supervisor forget the container"),
                _ => {}
            }
        }
        let (inner, group) = (self.clone(), container.plan.cgroup.clone());
        let removed = blocking(move || -> Result<(), Error> {
            inner.kill_group(&group).step(id, "kill what is left of the container")?;
            inner.group(&group).and_then(|g| g.remove()).step(id, "remove the container's cgroup")?;
            inner.remove_writable(id).step(id, "remove the container's writable layer and volumes")?;
            inner.store.remove_container(id).step(id, "remove the container's record")
        });
        removed.await?;
        let plugins = self.nri.leave(|| self.table.remove_container(container));
        tracing::info!(container = %id.short(), pod = %container.pod.id.short(), to = "removed", "container");
        self.events.of_container(EventKind::Deleted, id, &container.pod);
        Ok(plugins)
    }

    /// Makes the supervisor open the log file again, after somebody has moved the old one away.
    pub(crate) async fn reopen_log(self: &Arc<Self>, id: ContainerId) -> Result<(), Error> {
        let container = self.table.container(id)?;
        let state = container.state();
        if !matches!(state, ContainerState::Running { .. }) {
            let why = format!("container is {}, its log cannot be reopened", state.name());
            return Err(Error::new(ErrorKind::FailedPrecondition, About::Container(id), why));
        }
        container.pod.shim()?.reopen_log(id).await.step(id, "reopen the log")
    }
}

fn startable(container: &Container) -> Result<(), Error> {
    let state = container.state();
    if state == ContainerState::Created {
        return Ok(());
    }
    let why = format!("container is {}, only a created container can be started", state.name());
    Err(Error::new(ErrorKind::FailedPrecondition, About::Container(container.id), why))
}

impl Container {
    /// Process id of its main process, while it is there and its supervisor answers.
    pub(crate) async fn main_pid(&self) -> Option<u32> {
        if matches!(self.state(), ContainerState::Exited { .. }) {
            return None;
        }
        let report = self.pod.shim().ok()?.container(self.id).await.ok()??;
        report.exited.is_none().then_some(report.pid)
    }
}

async fn wait_for_exit(state: &mut tokio::sync::watch::Receiver<ContainerState>) {
    // The sender lives in the container, which the caller holds: it cannot be closed.
    state.wait_for(|s| matches!(s, ContainerState::Exited { .. })).await.ok();
}
