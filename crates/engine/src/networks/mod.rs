//! Networks of people's containers: a bridge each beside that of all pods, in which containers find each other by name.
//!
//! A network is a record on disk; its bridge, rules and names in the kernel are functions of the record, are made when the
//! daemon starts and put back when others remove them. The record comes before what is in the kernel and goes after it.

mod create;
mod error;
mod members;
mod more;
mod names;
mod pods;
mod record;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use model::NetworkId;
use net::{Bridge, bridge::Subnet};
use tokio::task::AbortHandle;

pub use create::NewNetwork;
pub use error::Error;
pub use members::{Member, Place};
pub(crate) use names::node_searches;
pub(crate) use pods::own_network;
pub(crate) use record::NetworkRecord;

use crate::clock;
use record::Site;

/// Those that are always there: docker's names and drivers.
pub const BUILT_IN: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// The networks of one daemon.
#[derive(Debug)]
pub(crate) struct Networks {
    store: Arc<store::Store>,
    site: Site,
    /// Only for looking at and changing: never held over anything that blocks.
    entries: Mutex<BTreeMap<NetworkId, Arc<UserNetwork>>>,
    /// Whoever makes or removes networks holds this from the first look to the last step.
    writer: Mutex<()>,
}

/// A network that a person has made.
#[derive(Debug)]
pub struct UserNetwork {
    /// Its id.
    pub id: NetworkId,
    pub(crate) record: NetworkRecord,
    pub(crate) bridge: Bridge,
    /// Whoever comes into it holds this for reading; `true`: it is no more.
    gate: RwLock<bool>,
    /// Who answers questions for names.
    names: Mutex<Option<AbortHandle>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl UserNetwork {
    fn new(record: NetworkRecord, site: &Site) -> Result<Self, net::Error> {
        let bridge = Bridge::with_ports(record.config(site), site.ports.clone())?;
        Ok(Self { id: record.id, record, bridge, gate: RwLock::new(false), names: Mutex::default() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// When it was made: nanoseconds since 1970.
    pub fn created_at(&self) -> i64 {
        self.record.created_at
    }

    /// Its ranges of addresses.
    pub fn subnets(&self) -> Vec<Subnet> {
        self.record.subnets()
    }

    /// The bridge's own addresses, at which names are looked up too.
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.subnets().iter().map(Subnet::gateway).collect()
    }

    /// Whether there is no way out of it.
    pub fn is_internal(&self) -> bool {
        self.record.internal
    }

    /// Whether IPv6 was asked for.
    pub fn has_ipv6(&self) -> bool {
        self.record.ipv6
    }

    /// As it was made with.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.record.labels
    }

    /// As it was made with.
    pub fn options(&self) -> &BTreeMap<String, String> {
        &self.record.options
    }

    /// Name of its bridge on this machine.
    pub fn interface(&self) -> String {
        NetworkRecord::bridge(self.id)
    }
}

impl Networks {
    /// Reads the records. Nothing is changed in the kernel yet.
    pub(crate) fn open(store: Arc<store::Store>, pods: &net::Network) -> Result<Self, Error> {
        let site = match pods {
            net::Network::Bridge(bridge) => Site { pods: Some(bridge.config().clone()), ports: bridge.ports() },
            net::Network::Cni(_) => Site { pods: None, ports: Default::default() },
        };
        let networks = Self { store, site, entries: Mutex::default(), writer: Mutex::default() };
        let (records, damaged) = networks.store.load_networks().map_err(Error::store("load", "records"))?;
        for damaged in &damaged {
            tracing::warn!(record = %damaged, "damaged record put aside");
        }
        for (id, bytes) in records {
            let network = minicbor::decode::<NetworkRecord>(&bytes).map_err(|e| e.to_string());
            match network.and_then(|record| UserNetwork::new(record, &networks.site).map_err(|e| crate::chain(&e))) {
                Ok(network) => {
                    clock::seen(network.record.created_at);
                    lock(&networks.entries).insert(id, Arc::new(network));
                }
                Err(why) => {
                    let moved_to = networks.store.quarantine_network(id).ok();
                    tracing::warn!(network = %id.short(), why, ?moved_to, "record of a network that is not understood put aside");
                }
            }
        }
        Ok(networks)
    }

    /// All that people have made, by name.
    pub(crate) fn list(&self) -> Vec<Arc<UserNetwork>> {
        let mut all: Vec<_> = lock(&self.entries).values().cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    pub(crate) fn get(&self, id: NetworkId) -> Option<Arc<UserNetwork>> {
        lock(&self.entries).get(&id).cloned()
    }

    /// By whole id, name, or the beginning of an id.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<UserNetwork>, Error> {
        let all = self.list();
        let shown = || text.chars().take(80).collect::<String>();
        if let Some(found) = all.iter().find(|network| network.id.to_string() == text || network.name() == text) {
            return Ok(found.clone());
        }
        let mut begun = all.iter().filter(|network| !text.is_empty() && network.id.to_string().starts_with(text));
        match (begun.next(), begun.next()) {
            (Some(found), None) => Ok(found.clone()),
            (Some(_), Some(_)) => Err(Error::Ambiguous(shown())),
            (None, _) => Err(Error::Missing(shown())),
        }
    }

    /// The node's ports, which all networks share.
    pub(crate) fn ports(&self) -> &net::bridge::PortBook {
        &self.site.ports
    }

    /// The bridge of all pods, where it is built in.
    pub(crate) fn pods(&self) -> Option<&net::bridge::BridgeConfig> {
        self.site.pods.as_ref()
    }

    /// The first address of the bridge of all pods.
    pub(crate) fn pods_gateway(&self) -> Option<IpAddr> {
        use net::bridge::Subnets::{Fixed, UntilPodCidr};
        let (Fixed(subnets) | UntilPodCidr(subnets)) = &self.pods()?.subnets;
        subnets.first().map(Subnet::gateway)
    }

    /// Puts back what others removed from the kernel. Blocks.
    pub(crate) fn heal(&self) {
        for network in self.list() {
            let gone = network.gate.read().unwrap_or_else(PoisonError::into_inner);
            if *gone {
                continue;
            }
            match network.bridge.heal() {
                Ok(true) => tracing::warn!(network = network.name(), "the network was damaged from outside; repaired"),
                Ok(false) => {}
                Err(e) => tracing::warn!(network = network.name(), error = crate::chain(&e), "network cannot be repaired"),
            }
        }
    }
}
