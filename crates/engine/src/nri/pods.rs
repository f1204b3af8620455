//! Events of pods.

use std::sync::{Arc, atomic::Ordering};

use ::nri::proto as p;

use super::{Members, PodFacts, message, resources};
use crate::{
    Inner,
    error::{Error, Step},
    pod::{Pod, update::PodSize},
    undo::Undo,
};

impl Members {
    /// Asks whether a pod may be. Those who were asked hear of its end if it comes to nothing.
    pub(crate) async fn run_pod(&self, pod: PodFacts<'_>, undo: &mut Undo) -> Result<(), Error> {
        let (id, pod) = (pod.id, pod.message());
        let (members, gone) = (self.clone(), pod.clone());
        undo.push("NRI plugins", move || async move {
            members.tell(&p::StopPodSandboxRequest { pod: Some(gone.clone()) }).await;
            members.tell(&p::RemovePodSandboxRequest { pod: Some(gone) }).await;
            Ok(())
        });
        self.ask(&p::RunPodSandboxRequest { pod: Some(pod) }).await.map(drop).step(id, "ask the NRI plugins")
    }

    /// Tells that a pod is no more.
    pub(crate) async fn pod_removed(&self, pod: &Pod) {
        self.tell(&p::RemovePodSandboxRequest { pod: Some(message::pod(pod)) }).await;
    }
}

impl Inner {
    /// Asks whether a pod may be resized.
    pub(crate) async fn ask_pod_update(&self, pod: &Pod, size: &PodSize) -> Result<(), Error> {
        let Some(members) = self.nri.members() else { return Ok(()) };
        let request = p::UpdatePodSandboxRequest {
            pod: Some(message::pod(pod)),
            overhead_linux_resources: Some(resources::message(&size.overhead)),
            linux_resources: Some(resources::message(&size.resources)),
        };
        members.ask(&request).await.map(drop).step(pod.id, "ask the NRI plugins")
    }

    /// Tells that a pod was resized.
    pub(crate) async fn tell_pod_updated(&self, pod: &Pod) {
        if let Some(members) = self.nri.members() {
            members.tell(&p::PostUpdatePodSandboxRequest { pod: Some(message::pod(pod)) }).await;
        }
    }

    /// Tells, once, that a pod's containers have ended and that its network is about to.
    pub(crate) async fn tell_pod_stops(self: &Arc<Self>, pod: &Arc<Pod>) {
        for container in self.table.containers_of(pod.id) {
            self.tell_stopped(&container).await;
        }
        if pod.told_stop.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(members) = self.nri.members() {
            members.tell(&p::StopPodSandboxRequest { pod: Some(message::pod(pod)) }).await;
        }
    }
}
