//! Pods that live come into networks of people's beside their first one, and leave any of them.

use std::sync::{Arc, PoisonError};

use model::{
    ErrorKind, NetworkId,
    pod::{NamespaceMode, PodState},
    user::OwnNetwork,
};
use net::{
    AttachRequest,
    bridge::{Interface, WayOut},
};

use super::own_network;
use crate::{
    Inner,
    blocking::blocking,
    error::{Error, Step},
    pod::Pod,
    record::{MoreNetwork, NetworkDebt},
    spec,
};

/// What a pod that is in no network by its making is asked for.
fn refuse<T>(pod: &Pod, why: &str) -> Result<T, Error> {
    Err(Error::new(ErrorKind::FailedPrecondition, pod.id.into(), why))
}

/// Interfaces of one pod.
const MOST: usize = 64;

/// A name that none of its interfaces has.
fn free_interface(pod: &Pod) -> Result<String, Error> {
    let first = matches!(pod.network_debt(), NetworkDebt::None);
    let more = pod.more_networks();
    let taken = |name: &String| (name == "eth0" && !first) || more.iter().any(|network| network.interface == *name);
    let mut names = (0..MOST).map(|number| format!("eth{number}"));
    names.find(|name| !taken(name)).map_or_else(|| refuse(pod, "it is in too many networks"), Ok)
}

impl Inner {
    /// Puts a pod that lives into a network. One change of a pod at a time is the caller's to see to.
    pub(crate) async fn join_network(self: &Arc<Self>, pod: &Arc<Pod>, wanted: OwnNetwork) -> Result<(), Error> {
        let _alive = pod.gate.read().await;
        if !matches!(pod.state(), PodState::Ready { .. }) {
            return refuse(pod, "it does not run any more");
        }
        if pod.spec.namespaces.network == NamespaceMode::Node || spec::joins_network(&pod.spec) {
            return refuse(pod, "it has no network namespace of its own");
        }
        let interface = free_interface(pod)?;
        let alone = matches!(pod.network_debt(), NetworkDebt::None) && pod.more_networks().is_empty();
        let way_out = if alone { WayOut::Gateway } else { WayOut::None };
        let (inner, of, netns, name) = (self.clone(), pod.clone(), pod.shim()?.netns(), interface.clone());
        let attached = blocking(move || {
            let missing = || Error::new(ErrorKind::NotFound, of.id.into(), format!("network {} not found", wanted.id.short()));
            let network = inner.networks.get(wanted.id).ok_or_else(missing)?;
            let gone = network.gate.read().unwrap_or_else(PoisonError::into_inner);
            if *gone {
                return Err(missing());
            }
            let request = AttachRequest { pod: of.id, key: &of.spec.key, netns: &netns, ports: &[], dns: None };
            let interface = Interface { name: &name, ip: wanted.ip, way_out };
            network.bridge.attach_as(&request, interface).step(of.id, "attach the container's network")
        });
        let attached = attached.await?;
        let mut more = pod.more_networks();
        more.push(MoreNetwork { id: wanted.id, interface, record: attached.record.into() });
        pod.set_more_networks(more);
        if let Err(error) = pod.persist(self).await {
            // Without its record it would be forgotten at the next start of the daemon.
            self.leave_later_one(pod, wanted.id).await.ok();
            return Err(error);
        }
        Ok(())
    }

    /// Takes a pod that lives out of a network; `None`: that of all pods. Says whether it was in it.
    pub(crate) async fn leave_network(self: &Arc<Self>, pod: &Arc<Pod>, id: Option<NetworkId>) -> Result<bool, Error> {
        let _alive = pod.gate.read().await;
        let left = match id {
            Some(id) if pod.more_networks().iter().any(|network| network.id == id) => {
                self.leave_later_one(pod, id).await?;
                true
            }
            id => self.leave_first_one(pod, id).await?,
        };
        if left {
            self.lead_out(pod).await?;
        }
        Ok(left)
    }

    async fn leave_later_one(self: &Arc<Self>, pod: &Arc<Pod>, id: NetworkId) -> Result<(), Error> {
        let (inner, of) = (self.clone(), pod.id);
        blocking(move || inner.networks.get(id).map_or(Ok(()), |network| network.bridge.unplug(of)))
            .await
            .step(pod.id, "detach the container's network")?;
        pod.set_more_networks(pod.more_networks().into_iter().filter(|network| network.id != id).collect());
        pod.persist(self).await
    }

    async fn leave_first_one(self: &Arc<Self>, pod: &Arc<Pod>, id: Option<NetworkId>) -> Result<bool, Error> {
        let first = own_network(&pod.spec).map(|network| network.id);
        if first != id || matches!(pod.network_debt(), NetworkDebt::None) {
            return Ok(false);
        }
        if id.is_none() && !matches!(self.network, net::Network::Bridge(_)) {
            return refuse(pod, "the network of all pods is a CNI plugin's, which a container leaves only at its end");
        }
        let (inner, of) = (self.clone(), pod.id);
        let left = blocking(move || match (id, &inner.network) {
            (Some(id), _) => inner.networks.get(id).map_or(Ok(()), |network| network.bridge.unplug(of)),
            (None, net::Network::Bridge(bridge)) => bridge.unplug(of),
            (None, net::Network::Cni(_)) => Ok(()),
        });
        left.await.step(pod.id, "detach the container's network")?;
        pod.set_network_debt(NetworkDebt::None);
        pod.persist(self).await?;
        Ok(true)
    }

    /// Who has lost the network by which it left goes by another one.
    async fn lead_out(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<(), Error> {
        if !matches!(pod.network_debt(), NetworkDebt::None) {
            return Ok(());
        }
        let Some(next) = pod.more_networks().into_iter().next() else { return Ok(()) };
        let (inner, of, netns) = (self.clone(), pod.id, pod.shim()?.netns());
        blocking(move || inner.networks.get(next.id).map_or(Ok(()), |network| network.bridge.lead_out(of, &netns, &next.interface)))
            .await
            .step(pod.id, "lead out by another network")
    }

    /// At a pod's end. Its interfaces go with its namespace.
    pub(crate) async fn leave_more_networks(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<(), Error> {
        let more = pod.more_networks();
        if more.is_empty() {
            return Ok(());
        }
        let (inner, of) = (self.clone(), pod.id);
        let left = blocking(move || {
            more.iter().filter_map(|more| inner.networks.get(more.id)).try_for_each(|network| network.bridge.detach(of))
        });
        left.await.step(pod.id, "detach the container's networks")?;
        pod.set_more_networks(Vec::new());
        pod.persist(self).await
    }
}
