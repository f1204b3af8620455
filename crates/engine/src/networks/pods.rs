//! Pods come into networks and leave them: that of all pods, or one of people's.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, PoisonError},
};

use model::{ErrorKind, NetworkId, PodId, pod::PodSpec, user::OwnNetwork};
use net::{AttachRequest, Attached};

use super::UserNetwork;
use crate::{
    Inner,
    blocking::blocking,
    error::{Error, Step},
};

/// The network of people's that a pod is in; `None`: that of all pods.
pub(crate) fn own_network(spec: &PodSpec) -> Option<&OwnNetwork> {
    spec.own.as_ref()?.network.as_ref()
}

impl Inner {
    /// Gives a pod its network. Blocks.
    pub(crate) fn attach_pod(&self, spec: &PodSpec, request: &AttachRequest<'_>) -> Result<Attached, Error> {
        let pod = request.pod;
        let Some(own) = own_network(spec) else { return self.network.attach(request).step(pod, "attach the pod's network") };
        let missing = || Error::new(ErrorKind::FailedPrecondition, pod.into(), format!("network {} not found", own.id.short()));
        let network = self.networks.get(own.id).ok_or_else(missing)?;
        let gone = network.gate.read().unwrap_or_else(PoisonError::into_inner);
        if *gone {
            return Err(missing());
        }
        let interface = net::bridge::Interface { ip: own.ip, ..Default::default() };
        network.bridge.attach_as(request, interface).step(pod, "attach the container's network")
    }

    /// Takes back what [`Self::attach_pod`] gave. A network that is no more has nothing of the pod's. Blocks.
    pub(crate) fn detach_pod(
        &self,
        spec: &PodSpec,
        pod: PodId,
        netns: Option<&Path>,
        record: Option<&[u8]>,
    ) -> Result<(), net::Error> {
        match own_network(spec) {
            None => self.network.detach(pod, &spec.key, netns, record),
            Some(own) => self.networks.get(own.id).map_or(Ok(()), |network| network.bridge.detach(pod)),
        }
    }

    /// After a start of the daemon: learns what pods have, puts back what is missing in the kernel, and answers names again.
    pub(crate) async fn recover_networks(self: &Arc<Self>, live: BTreeMap<NetworkId, Vec<(PodId, Vec<u8>)>>) {
        let inner = self.clone();
        blocking(move || {
            for network in inner.networks.list() {
                let pods = live.get(&network.id).map_or(&[][..], Vec::as_slice);
                match network.bridge.recover(pods) {
                    Ok(found) => tracing::debug!(?found, network = network.name(), "network"),
                    Err(e) => tracing::warn!(error = crate::chain(&e), network = network.name(), "network"),
                }
            }
        })
        .await;
        for network in self.networks.list() {
            self.serve_names(&network);
        }
    }

    /// Answers questions for names from now on.
    pub(super) fn serve_names(self: &Arc<Self>, network: &Arc<UserNetwork>) {
        let task = tokio::spawn(super::names::serve(Arc::downgrade(self), network.id, network.gateways()));
        if let Some(before) = super::lock(&network.names).replace(task.abort_handle()) {
            before.abort();
        }
    }
}
