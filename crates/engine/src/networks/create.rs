//! Networks come and go.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, PoisonError},
};

use model::NetworkId;
use net::bridge::{Subnet, free_subnet};

use super::{
    BUILT_IN, Error, NetworkRecord, Networks, UserNetwork, lock,
    record::{MASQUERADE, MTU},
};
use crate::{clock, failpoint};

/// Where networks get their addresses from: away from those of pods (`BridgeConfig::for_instance`), of clusters and of docker.
const POOL: (IpAddr, u8) = (IpAddr::V4(std::net::Ipv4Addr::new(10, 208, 0, 0)), 12);
/// Addresses of one network: 253 containers.
const LENGTH: u8 = 24;
/// How often another subnet is tried if somebody else was faster.
const TRIES: u32 = 16;
/// As containers' names.
const LONGEST_NAME: usize = 255;

/// What a network is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// CIDR; empty: a free one.
    pub subnet: String,
    /// Empty: the first address.
    pub gateway: String,
    /// No way out of it.
    pub internal: bool,
    /// Addresses of IPv6 too.
    pub ipv6: bool,
    /// For people.
    pub labels: BTreeMap<String, String>,
    /// docker's for bridges.
    pub options: BTreeMap<String, String>,
}

impl NewNetwork {
    fn check(&self) -> Result<(), Error> {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let good = self.name.starts_with(|c: char| c.is_ascii_alphanumeric()) && self.name.chars().all(word);
        if !good || self.name.len() > LONGEST_NAME {
            return Err(Error::Name(self.name.chars().take(80).collect()));
        }
        if BUILT_IN.iter().any(|(name, _)| *name == self.name) || self.name == "default" {
            return Err(Error::Taken(self.name.clone()));
        }
        for (key, value) in &self.options {
            let why = match key.as_str() {
                MTU if value.parse().is_ok_and(|mtu: u32| (1280..=65535).contains(&mtu)) => continue,
                MTU => "not a number from 1280 to 65535".to_owned(),
                MASQUERADE if matches!(value.as_str(), "true" | "false") => continue,
                MASQUERADE => "neither true nor false".to_owned(),
                _ => format!("the options are {MTU} and {MASQUERADE}"),
            };
            return Err(Error::invalid("network option", key, why));
        }
        Ok(())
    }

    /// The subnet that is asked for by name.
    fn asked(&self) -> Result<Option<Subnet>, Error> {
        if self.subnet.is_empty() {
            return match self.gateway.as_str() {
                "" => Ok(None),
                gateway => Err(Error::invalid("gateway", gateway, "needs a subnet")),
            };
        }
        let wrong = |why: &str| Error::invalid("subnet", &self.subnet, why);
        let subnet: Subnet = self.subnet.parse().map_err(|_| wrong("not ADDRESS/LENGTH"))?;
        if subnet.network().is_loopback() || subnet.network().is_multicast() || subnet.network().is_unspecified() {
            return Err(wrong("is not for hosts"));
        }
        if subnet.capacity() == 0 {
            return Err(wrong("has no room for containers"));
        }
        if !subnet.is_v4() && !self.ipv6 {
            return Err(wrong("needs --ipv6"));
        }
        let gateway = subnet.gateway();
        if !self.gateway.is_empty() && self.gateway.parse() != Ok(gateway) {
            return Err(Error::invalid("gateway", &self.gateway, format!("has to be the first address of the subnet, {gateway}")));
        }
        Ok(Some(subnet))
    }
}

impl Networks {
    /// Makes a network. Blocks.
    ///
    /// # Errors
    /// The name is taken; something that was asked for cannot be; addresses that somebody has. There is nothing then.
    pub(super) fn create(&self, new: NewNetwork) -> Result<Arc<UserNetwork>, Error> {
        new.check()?;
        let asked = new.asked()?;
        let _writer = lock(&self.writer);
        if self.list().iter().any(|network| network.name() == new.name) {
            return Err(Error::Taken(new.name));
        }
        let mut tries = 0;
        loop {
            let record = self.record(&new, asked)?;
            let name = record.name.clone();
            let network = UserNetwork::new(record, &self.site).map_err(Error::net("create", &name))?;
            match self.make(&network) {
                Ok(()) => {
                    let network = Arc::new(network);
                    lock(&self.entries).insert(network.id, network.clone());
                    return Ok(network);
                }
                // Another daemon was faster.
                Err(Error::Net { source: net::Error::SubnetInUse { .. }, .. }) if asked.is_none() && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn make(&self, network: &UserNetwork) -> Result<(), Error> {
        let name = network.name();
        let put = self.store.put_network(network.id, &crate::record::encode(&network.record));
        let made = put.map_err(Error::store("create", name)).and_then(|()| {
            failpoint::hit("network.record", crate::About::Engine).map_err(Error::Failpoint)?;
            network.bridge.recover(&[]).map_err(Error::net("create", name))?;
            failpoint::hit("network.bridge", crate::About::Engine).map_err(Error::Failpoint)
        });
        if made.is_err() {
            // The error that led here says more than one of the way back; a record that stays is a network at the next start.
            network.bridge.remove().ok();
            self.store.remove_network(network.id).ok();
        }
        made
    }

    fn record(&self, new: &NewNetwork, asked: Option<Subnet>) -> Result<NetworkRecord, Error> {
        let mut taken: Vec<(Subnet, String)> = Vec::new();
        for network in self.list() {
            taken.extend(network.subnets().into_iter().map(|subnet| (subnet, network.name().to_owned())));
        }
        if let Some(pods) = &self.site.pods {
            use net::bridge::Subnets::{Fixed, UntilPodCidr};
            let (Fixed(subnets) | UntilPodCidr(subnets)) = &pods.subnets;
            taken.extend(subnets.iter().map(|subnet| (*subnet, "bridge".to_owned())));
        }
        if let Some(asked) = asked
            && let Some((_, other)) = taken.iter().find(|(subnet, _)| subnet.overlaps(&asked))
        {
            return Err(Error::Overlap { subnet: asked.to_string(), other: other.clone() });
        }
        let id = self.free_id();
        let [a, b, c, d, e, ..] = *id.as_bytes();
        let mut subnets = Vec::new();
        match asked.filter(Subnet::is_v4) {
            Some(subnet) => subnets.push(subnet),
            None => {
                let pool = Subnet::new(POOL.0, POOL.1).ok_or_else(|| Error::invalid("subnet", "", "no pool"))?;
                let taken: Vec<Subnet> = taken.iter().map(|(subnet, _)| *subnet).collect();
                let free = free_subnet(pool, LENGTH, &taken, u64::from(u32::from_be_bytes([a, b, c, d])));
                subnets.push(free.map_err(Error::net("create", &new.name))?);
            }
        }
        if new.ipv6 {
            // fd00::/8 with 40 random bits is for such local use (RFC 4193).
            let own = IpAddr::from([0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            subnets.extend(asked.filter(|subnet| !subnet.is_v4()).or_else(|| Subnet::new(own, 64)));
        }
        Ok(NetworkRecord {
            id,
            name: new.name.clone(),
            created_at: clock::now(),
            subnets: subnets.iter().map(ToString::to_string).collect(),
            internal: new.internal,
            ipv6: new.ipv6,
            labels: new.labels.clone(),
            options: new.options.clone(),
        })
    }

    /// An id whose names in the kernel no other network of ours has.
    fn free_id(&self) -> NetworkId {
        loop {
            let id = NetworkId::from_bytes(crate::random_id());
            let same = |other: &Arc<UserNetwork>| {
                NetworkRecord::interface_prefix(other.id) == NetworkRecord::interface_prefix(id)
                    || NetworkRecord::bridge(other.id) == NetworkRecord::bridge(id)
            };
            if !self.list().iter().any(same) {
                return id;
            }
        }
    }

    /// Removes a network, if nobody is in it. `endpoints` says who is, for people. Blocks.
    ///
    /// # Errors
    /// Somebody is in it; what disk and kernel say: it is there then, and can be removed again.
    pub(super) fn remove(&self, network: &UserNetwork, endpoints: impl FnOnce() -> String) -> Result<(), Error> {
        let _writer = lock(&self.writer);
        let mut gone = network.gate.write().unwrap_or_else(PoisonError::into_inner);
        if *gone {
            return Err(Error::Missing(network.name().to_owned()));
        }
        if !network.bridge.endpoints().is_empty() {
            return Err(Error::InUse { name: network.name().to_owned(), endpoints: endpoints() });
        }
        let name = network.name();
        failpoint::hit("network.remove", crate::About::Engine).map_err(Error::Failpoint)?;
        network.bridge.remove().map_err(Error::net("remove", name))?;
        failpoint::hit("network.removed", crate::About::Engine).map_err(Error::Failpoint)?;
        self.store.remove_network(network.id).map_err(Error::store("remove", name))?;
        *gone = true;
        if let Some(names) = lock(&network.names).take() {
            names.abort();
        }
        lock(&self.entries).remove(&network.id);
        Ok(())
    }
}
