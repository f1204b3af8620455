//! StopPodSandbox and RemovePodSandbox: both repeatable, both carried out to the end whoever stops listening.

use std::{path::Path, sync::Arc};

use model::{
    ErrorKind, PodId,
    pod::{Admit, PodRequest, Reason},
};

use super::Pod;
use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error, Step},
    events::EventKind,
    record::NetworkDebt,
};

impl Inner {
    /// Stops a pod: containers, supervisor, network, cgroups. Unknown pods are an error that the front door forgives.
    pub(crate) async fn stop_pod(self: &Arc<Self>, id: PodId) -> Result<(), Error> {
        let pod = self.table.pod(id)?;
        self.detached(About::Pod(id), {
            let (inner, pod) = (self.clone(), pod.clone());
            async move {
                // Not ready first: no creation begins from here on, and those in flight are waited for.
                inner.pod_not_ready(&pod, Reason::Stopped).await?;
                let _alone = pod.gate.write().await;
                inner.tear_down(&pod).await
            }
        })
        .await
    }

    /// Removes a pod, stopping it first if need be, and its containers with it.
    pub(crate) async fn remove_pod(self: &Arc<Self>, id: PodId) -> Result<(), Error> {
        let pod = self.table.pod(id)?;
        self.detached(About::Pod(id), {
            let (inner, pod) = (self.clone(), pod.clone());
            async move {
                inner.pod_not_ready(&pod, Reason::Stopped).await?;
                let _alone = pod.gate.write().await;
                if inner.table.pod(id).is_err() {
                    return Ok(()); // another call was faster
                }
                inner.tear_down(&pod).await?;
                for container in inner.table.containers_of(id) {
                    inner.remove_stopped_container(&container).await?;
                }
                inner.remove_cgroups(&pod).await?;
                inner.forget_pod(&pod).await
            }
        })
        .await
    }

    async fn tear_down(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<(), Error> {
        if pod.admit(PodRequest::Stop)? == Admit::Nothing {
            return Ok(());
        }
        self.kill_containers(pod).await;
        self.tell_pod_stops(pod).await;
        // While the supervisor still holds the namespace: some plugins find what they have to undo only in there.
        self.detach_network(pod).await?;
        self.stop_supervisor(pod).await?;
        let (inner, cgroup) = (self.clone(), crate::spec::cgroup::supervisor(&pod.cgroup, pod.id));
        blocking(move || inner.group(&cgroup)?.remove()).await.step(pod.id, "remove the supervisor's cgroup")
    }

    async fn kill_containers(self: &Arc<Self>, pod: &Arc<Pod>) {
        let containers = self.table.containers_of(pod.id);
        let kills = containers.iter().map(|container| self.kill_container(container));
        for result in futures_util::future::join_all(kills).await {
            // A supervisor that does not answer is killed with the whole cgroup below.
            if let Err(e) = result {
                tracing::debug!(pod = %pod.id.short(), error = e.chain(), "kill");
            }
        }
    }

    /// Ends the supervisor, which has reported every exit before it goes.
    async fn stop_supervisor(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<(), Error> {
        if let Some(shim) = pod.take_shim()
            && let Err(e) = shim.shutdown().await
        {
            tracing::debug!(pod = %pod.id.short(), error = %e, "shutdown");
        }
        self.kill_pod_processes(pod).await?;
        self.containers_lost(pod, &Reason::Stopped).await;
        Ok(())
    }

    /// Kills whatever is left in the pod's cgroups.
    pub(crate) async fn kill_pod_processes(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<(), Error> {
        let mut groups = vec![crate::spec::cgroup::supervisor(&pod.cgroup, pod.id)];
        groups.extend(self.table.containers_of(pod.id).iter().map(|c| c.plan.cgroup.clone()));
        let inner = self.clone();
        let killed = blocking(move || groups.iter().map(|group| inner.kill_group(group)).fold(Ok(()), Result::and));
        killed.await.step(pod.id, "kill the pod's processes")
    }

    /// Pays what is owed to the network; it stays owed until this succeeds.
    pub(crate) async fn detach_network(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<(), Error> {
        self.leave_more_networks(pod).await?;
        let record = match pod.network_debt() {
            NetworkDebt::None => return Ok(()),
            NetworkDebt::Begun => None,
            NetworkDebt::Attached(record) => Some(record),
        };
        let (inner, of, id) = (self.clone(), pod.clone(), pod.id);
        // Without a supervisor the namespace is gone: DEL then works from the record alone (CNI spec, "DEL").
        let netns = pod.shim().ok().map(|shim| shim.netns());
        let detached = blocking(move || inner.detach_pod(&of.spec, id, netns.as_deref(), record.as_deref().map(|r| &r[..])));
        detached.await.step(id, "detach the pod's network")?;
        pod.set_network_debt(NetworkDebt::None);
        pod.persist(self).await
    }

    async fn remove_cgroups(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<(), Error> {
        if !pod.own_cgroup {
            return Ok(());
        }
        let (inner, cgroup, id) = (self.clone(), pod.cgroup.clone(), pod.id);
        blocking(move || inner.remove_pod_cgroup(id, &cgroup)).await
    }

    /// Whether a cgroup that is there was made for a pod of ours: the last pod in it takes it away.
    pub(crate) fn is_ours(&self, cgroup: &str) -> bool {
        self.table.pods().iter().any(|pod| pod.own_cgroup && pod.cgroup == cgroup)
    }

    /// Removes a cgroup that was made for a pod, unless others are in it too: clients may give many pods one parent.
    pub(crate) fn remove_pod_cgroup(&self, id: PodId, cgroup: &str) -> Result<(), Error> {
        if systemd::is_scope(cgroup) {
            return crate::driver::leave_scope(self, id, cgroup);
        }
        let within = |other: &Pod| other.cgroup.strip_prefix(cgroup).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        match self.table.pods().iter().any(|other| other.id != id && within(other)) {
            true => Ok(()),
            false => self.group(cgroup).and_then(|group| group.remove()).step(id, "remove the pod's cgroup"),
        }
    }

    async fn forget_pod(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<(), Error> {
        let (inner, forgotten, dir, id) = (self.clone(), pod.clone(), pod.paths.dir.clone(), pod.id);
        // A kubelet's log directories are the kubelet's; those below our own root are ours. That of a container of people
        // outlives its runs.
        let logs = Path::new(&pod.spec.log_directory).to_owned();
        let ours = !pod.is_users() && logs.parent() == Some(&self.config.logs()) && logs.file_name().is_some();
        let removed: std::io::Result<_> = blocking(move || {
            crate::remove_pod_dir(&dir)?;
            if ours {
                crate::remove_tree(&logs)?;
            }
            Ok(forgotten.remove_record(&inner))
        })
        .await;
        removed.step(id, "remove the pod's directories")?.step(id, "remove the pod's record")?;
        let plugins = self.nri.leave(|| self.table.remove_pod(pod));
        self.modules.release(id);
        self.events.of_pod(EventKind::Deleted, pod);
        tracing::info!(pod = %id.short(), to = "removed", "pod");
        if let Some(plugins) = plugins {
            plugins.pod_removed(pod).await;
        }
        Ok(())
    }

    /// Runs `work` in a task of its own: a caller who goes away does not stop it half way.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        about: About,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        match tokio::spawn(work).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(ErrorKind::Internal, about, "the work crashed; see the log")),
        }
    }
}
