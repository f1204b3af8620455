//! Namespaces that a container of people shares with another one.

use std::{os::fd::OwnedFd, sync::Arc};

use model::{
    ContainerId, ErrorKind,
    container::ContainerSpec,
    pod::{PidMode, PodSpec},
    user::{OwnPod, UserContainerSpec},
};

use super::UserStatus;
use crate::{
    Inner,
    container::Container,
    error::{About, Error, Step},
    pod::Pod,
};

/// What stands before a container's name where its namespace is meant.
const CONTAINER: &str = "container:";

fn refuse<T>(kind: ErrorKind, why: impl Into<String>) -> Result<T, Error> {
    Err(Error::new(kind, About::Words, why))
}

/// The container whose network is meant, by name or id.
pub(super) fn network_of(network: &str) -> Option<&str> {
    network.strip_prefix(CONTAINER)
}

/// Names become ids: another container may have the name one day.
pub(super) fn settle(inner: &Inner, spec: &mut UserContainerSpec) -> Result<(), Error> {
    let id = |name: &str| inner.users.resolve(name).map(|user| user.id.to_string());
    if let Some(name) = network_of(&spec.network.name) {
        spec.network.name = format!("{CONTAINER}{}", id(name)?);
    }
    for name in [&mut spec.shares.pid, &mut spec.shares.ipc].into_iter().filter(|name| !name.is_empty()) {
        *name = id(name)?;
    }
    let foreign = network_of(&spec.network.name).is_some() || !spec.shares.pid.is_empty() || !spec.shares.ipc.is_empty();
    if foreign && spec.own_userns {
        return refuse(ErrorKind::Unsupported, "namespaces of another container cannot be had in a user namespace of its own");
    }
    if !spec.shares.pid.is_empty() && !spec.pod.runtime_handler.is_empty() {
        return refuse(ErrorKind::Unsupported, "--pid container: cannot be had with --runtime");
    }
    Ok(())
}

/// Writes into the pod and container of a run whose namespaces they share.
pub(super) fn resolve(
    inner: &Inner,
    spec: &UserContainerSpec,
    pod: &mut PodSpec,
    container: &mut ContainerSpec,
) -> Result<(), Error> {
    let runs = |name: &str, what: &str| -> Result<Option<ContainerId>, Error> {
        if name.is_empty() {
            return Ok(None);
        }
        let user = inner.users.resolve(name)?;
        match user.state().status {
            UserStatus::Running | UserStatus::Paused => Ok(Some(user.id)),
            UserStatus::Restarting => {
                refuse(ErrorKind::FailedPrecondition, format!("cannot join {what} of a restarting container: {}", user.id))
            }
            _ => refuse(ErrorKind::FailedPrecondition, format!("cannot join {what} of a non running container: {}", user.id)),
        }
    };
    let own = OwnPod {
        network_of: runs(network_of(&spec.network.name).unwrap_or_default(), "network")?,
        ipc_of: runs(&spec.shares.ipc, "IPC")?,
        pid_of: runs(&spec.shares.pid, "PID namespace")?,
        ..pod.own.take().unwrap_or_default()
    };
    if let Some(id) = own.pid_of {
        container.security.pid = PidMode::Target(id);
    }
    // The files in which names stand are one's as its addresses are.
    if let Some(holder) = own.network_of.and_then(|id| inner.table.container(id).ok()) {
        pod.hostname.clone_from(&holder.pod.spec.hostname);
    }
    pod.own = Some(own);
    Ok(())
}

impl Inner {
    /// Descriptors of the namespaces of others that a pod is to be in, in the order of its plan.
    pub(crate) async fn joined(self: &Arc<Self>, spec: &PodSpec) -> Result<Vec<OwnedFd>, Error> {
        let Some(own) = &spec.own else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for (of, names) in [(own.network_of, &["net"][..]), (own.ipc_of, &["ipc", "mnt"]), (own.pid_of, &["pid"])] {
            let Some(id) = of else { continue };
            let container = self.table.container(id)?;
            for name in names {
                all.push(open(&container, name).await?);
            }
        }
        Ok(all)
    }

    /// The pod whose network namespace a pod is in.
    pub(crate) fn network_holder(&self, spec: &PodSpec) -> Option<Arc<Pod>> {
        let id = spec.own.as_ref()?.network_of?;
        self.table.container(id).ok().map(|container| container.pod.clone())
    }
}

/// A namespace of a container's main process, which lives before and after.
async fn open(container: &Container, name: &str) -> Result<OwnedFd, Error> {
    let gone = || Error::new(ErrorKind::FailedPrecondition, container.id.into(), "it does not run any more");
    let pid = container.main_pid().await.ok_or_else(gone)?;
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/{name}")).step(container.id, "open its namespace")?;
    match container.main_pid().await {
        Some(still) if still == pid => Ok(namespace.into()),
        _ => Err(gone()),
    }
}
