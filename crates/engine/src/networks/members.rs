//! Who is in a network, and what people do to networks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use model::{ContainerId, NetworkId};
use net::bridge::Subnets::{Fixed, UntilPodCidr};

use super::{BUILT_IN, Error, NewNetwork, UserNetwork};
use crate::{Engine, Inner, blocking::blocking, user::UserEventKind};

/// A container in a network, while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub container: ContainerId,
    /// Its name.
    pub name: String,
    /// All names that it is found by, in lower case.
    pub names: Vec<String>,
    /// Its addresses with the lengths of their prefixes, the primary first.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Where it wants what is not in the network to be looked up; empty: where the node does.
    pub servers: Vec<String>,
}

/// Where a run is in its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The network of people's; `None`: that of all pods.
    pub network: Option<NetworkId>,
    /// The bridge's addresses.
    pub gateways: Vec<IpAddr>,
    /// Its own, with the lengths of their prefixes, the primary first.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Its MAC address.
    pub mac: [u8; 6],
}

impl Inner {
    /// The containers in a network, by name.
    pub(crate) fn members(&self, network: &UserNetwork) -> Vec<Member> {
        let member = |endpoint: net::bridge::Endpoint| {
            let user = self.users.get(self.table.pod(endpoint.pod).ok()?.of_user()?)?;
            let (name, spec) = (user.name(), user.spec());
            let mut names = vec![name.to_lowercase(), user.id.short(), spec.pod.hostname.to_lowercase()];
            let here = |own: &&model::user::UserNetwork| self.networks.find(&own.name).is_ok_and(|found| found.id == network.id);
            let entry = std::iter::once(&spec.network).chain(&spec.more_networks).find(here);
            names.extend(entry.iter().flat_map(|entry| &entry.aliases).map(|alias| alias.to_lowercase()));
            names.retain(|name| !name.is_empty());
            let servers = spec.pod.dns.map(|dns| dns.servers).unwrap_or_default();
            Some(Member { container: user.id, name, names, addresses: endpoint.addresses, mac: endpoint.mac, servers })
        };
        let mut members: Vec<Member> = network.bridge.endpoints().into_iter().filter_map(member).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    /// The same for an error, in docker's words.
    fn endpoints(&self, network: &UserNetwork) -> String {
        let one = |member: &Member| format!("name:{:?} id:{:?}", member.name, member.container.short());
        self.members(network).iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn tell_network(&self, network: &UserNetwork, action: &str) {
        let attributes = [("name", network.name()), ("type", "bridge")];
        let attributes: BTreeMap<String, String> = attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        self.bus.tell(UserEventKind::Network, action, network.id, attributes);
    }
}

/// Networks of people.
impl Engine {
    /// Those that people have made, by name.
    pub fn networks(&self) -> Vec<Arc<UserNetwork>> {
        self.inner().networks.list()
    }

    /// One by its whole id, its name, or the beginning of its id.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find_network(&self, text: &str) -> Result<Arc<UserNetwork>, Error> {
        self.inner().networks.find(text)
    }

    /// Those that containers are to be in, whether they run or not.
    pub fn networks_in_use(&self) -> BTreeSet<NetworkId> {
        let networks = &self.inner().networks;
        let named = |name: &str| networks.find(name).map(|network| network.id);
        let mut used: BTreeSet<NetworkId> = self
            .inner()
            .users
            .list()
            .iter()
            .flat_map(|user| user.networks())
            .filter_map(|network| named(&network.name).ok())
            .collect();
        used.extend(networks.list().iter().filter(|network| !network.bridge.endpoints().is_empty()).map(|network| network.id));
        used
    }

    /// Where a run is in a network of people's, or in that of all pods; `None`: in neither, or that is no bridge of ours.
    pub fn place_of(&self, run: &crate::Container, network: &str) -> Option<Place> {
        let inner = self.inner();
        let network = match network {
            "bridge" => None,
            name => Some(inner.networks.find(name).ok()?),
        };
        let bridge = match (&network, &inner.network) {
            (Some(network), _) => &network.bridge,
            (None, net::Network::Bridge(bridge)) => bridge,
            (None, _) => return None,
        };
        let found = bridge.endpoints().into_iter().find(|endpoint| endpoint.pod == run.pod.id)?;
        let (Fixed(subnets) | UntilPodCidr(subnets)) = &bridge.config().subnets;
        Some(Place {
            network: network.as_ref().map(|network| network.id),
            gateways: subnets.iter().map(net::bridge::Subnet::gateway).collect(),
            addresses: found.addresses,
            mac: found.mac,
        })
    }

    /// Subnets, gateways and bridge of the network of all pods, where that is built in; else nothing is known of it.
    pub fn pod_network(&self) -> (Vec<String>, Vec<String>, String) {
        let Some(pods) = self.inner().networks.pods() else { return Default::default() };
        let (Fixed(subnets) | UntilPodCidr(subnets)) = &pods.subnets;
        let gateways = subnets.iter().map(|subnet| subnet.gateway().to_string());
        (subnets.iter().map(ToString::to_string).collect(), gateways.collect(), pods.bridge.clone())
    }

    /// The containers in it that run, by name.
    pub fn members_of(&self, network: &UserNetwork) -> Vec<Member> {
        self.inner().members(network)
    }

    /// Makes one.
    ///
    /// # Errors
    /// The name or an address is taken; something that was asked for cannot be. Nothing is left of it then.
    pub async fn create_network(&self, new: NewNetwork) -> Result<Arc<UserNetwork>, Error> {
        let inner = self.inner().clone();
        // In a task of its own: a client that goes away leaves no half of it.
        let made = tokio::spawn(async move {
            let making = inner.clone();
            let network = blocking(move || making.networks.create(new)).await?;
            inner.serve_names(&network);
            inner.tell_network(&network, "create");
            Ok(network)
        });
        made.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }

    /// Removes one that nobody is in.
    ///
    /// # Errors
    /// Somebody is in it, or it is built in.
    pub async fn remove_network(&self, text: &str) -> Result<Arc<UserNetwork>, Error> {
        let inner = self.inner().clone();
        if BUILT_IN.iter().any(|(name, _)| *name == text) {
            return Err(Error::BuiltIn(text.to_owned()));
        }
        let network = inner.networks.find(text)?;
        let removed = tokio::spawn(async move {
            let (removing, of) = (inner.clone(), network.clone());
            blocking(move || removing.networks.remove(&of, || removing.endpoints(&of))).await?;
            inner.tell_network(&network, "destroy");
            Ok(network)
        });
        removed.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }
}
