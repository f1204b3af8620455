//! The books: who has which address, port and interface, and the rules and device that belong to them.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

use model::{PodId, pod::PortMapping};

use super::{
    BridgeConfig, Endpoint, Plug, Subnet, Subnets,
    firewall::Firewall,
    link::{Link, Links},
    ports::{self, PortBook},
    rules::Layout,
    subnet::Pool,
    sysctl,
};
use crate::Error;

/// How many interfaces of former pods are looked after on the way, per detach.
const LOOK_AFTER: usize = 4;

#[derive(Debug)]
pub(super) struct State {
    firewall: Firewall,
    links: Links,
    /// Subnets for new pods, then those that live pods still have from before.
    pools: Vec<Pool>,
    active: usize,
    ports: PortBook,
    plugs: HashMap<PodId, Plug>,
    /// Pods that were let go; their interface may still live.
    leaving: VecDeque<(PodId, Plug)>,
    /// Whether `route_localnet` is set; `None`: not known.
    localnet: Option<bool>,
}

/// What a pod wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order<'a> {
    pub(super) pod: PodId,
    pub(super) ports: &'a [PortMapping],
    /// An address that it wants.
    pub(super) ip: Option<IpAddr>,
}

fn mac_of(tag: u8, ip: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match ip {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => *ip.octets().last_chunk().expect("sixteen bytes have a last four"),
    };
    // Locally administered, unicast.
    [0x02, tag, a, b, c, d]
}

impl State {
    pub(super) fn new(config: &BridgeConfig, ports: PortBook) -> Result<Self, Error> {
        let (Subnets::Fixed(subnets) | Subnets::UntilPodCidr(subnets)) = &config.subnets;
        let mut state = Self {
            firewall: Firewall::open()?,
            links: Links::open()?,
            pools: Vec::new(),
            active: 0,
            ports,
            plugs: HashMap::new(),
            leaving: VecDeque::new(),
            localnet: None,
        };
        state.activate(&usable(subnets));
        if state.active == 0 {
            return Err(Error::Config("IPv6 is switched off on this machine, and no IPv4 subnet is configured".into()));
        }
        Ok(state)
    }

    fn layout<'a>(config: &'a BridgeConfig, subnets: &'a [Subnet]) -> Layout<'a> {
        Layout {
            table: &config.table,
            bridge: &config.bridge,
            interface_prefix: &config.interface_prefix,
            subnets,
            masquerade: config.masquerade,
            anti_spoof: config.anti_spoof,
            reach: &config.reach,
        }
    }

    fn subnets(&self) -> Vec<Subnet> {
        self.pools.iter().map(|pool| pool.subnet).collect()
    }

    /// Makes these the subnets for new pods. Pools that exist keep their books.
    fn activate(&mut self, subnets: &[Subnet]) {
        let mut old = std::mem::take(&mut self.pools);
        for subnet in subnets {
            let known = old.iter().position(|pool| pool.subnet == *subnet).map(|at| old.remove(at));
            self.pools.push(known.unwrap_or_else(|| Pool::new(*subnet)));
        }
        self.active = self.pools.len();
        old.retain(|pool| pool.used() > 0);
        self.pools.append(&mut old);
        // A new subnet may overlap an old one whose addresses are still held.
        let held = self.plugs.iter().chain(self.leaving.iter().map(|(pod, plug)| (pod, plug)));
        for (pod, ip) in held.flat_map(|(pod, plug)| plug.ips.iter().map(move |ip| (*pod, *ip))) {
            for pool in &mut self.pools {
                pool.mark(ip, pod);
            }
        }
    }

    /// See [`crate::Network::set_pod_cidr`].
    pub(super) fn use_subnets(&mut self, config: &BridgeConfig, subnets: &[Subnet]) -> Result<(), Error> {
        let subnets = usable(subnets);
        if subnets.is_empty() || subnets == self.subnets()[..self.active] {
            return Ok(());
        }
        self.activate(&subnets);
        self.ensure_bridge(config)?;
        self.rebuild(config)
    }

    /// Notes what a pod has from before the daemon's start.
    pub(super) fn adopt(&mut self, pod: PodId, plug: Plug) {
        for (ip, subnet) in plug.ips.iter().zip(&plug.subnets) {
            if !self.pools.iter().any(|pool| pool.subnet == *subnet) {
                self.pools.push(Pool::new(*subnet));
            }
            for pool in &mut self.pools {
                pool.mark(*ip, pod);
            }
        }
        self.ports.lock().mark(pod, &plug.forwards);
        self.plugs.insert(pod, plug);
    }

    pub(super) fn plug_of(&self, pod: PodId) -> Option<Plug> {
        self.plugs.get(&pod).cloned()
    }

    /// Name of the host's end of a pod's link.
    pub(super) fn interface_of(&self, pod: PodId) -> Option<String> {
        self.plugs.get(&pod).map(|plug| plug.interface.clone())
    }

    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        let endpoint = |(pod, plug): (&PodId, &Plug)| Endpoint {
            pod: *pod,
            mac: plug.mac,
            addresses: plug.ips.iter().zip(&plug.subnets).map(|(ip, subnet)| (*ip, subnet.length())).collect(),
        };
        self.plugs.iter().map(endpoint).collect()
    }

    /// Gives a pod its addresses, ports and rules. The interface is for the caller to make. Returns it all with the
    /// bridge's index.
    pub(super) fn reserve(&mut self, config: &BridgeConfig, order: Order<'_>) -> Result<(Plug, u32), Error> {
        let pod = order.pod;
        if self.plugs.contains_key(&pod) {
            return Err(Error::AlreadyAttached(pod));
        }
        let bridge = self.bridge(config)?;
        let plug = self.book(config, order)?;
        self.plugs.insert(pod, plug.clone());
        match self.open(config, &plug) {
            Ok(()) => Ok((plug, bridge)),
            Err(error) => {
                self.plugs.remove(&pod);
                self.give_back(pod, &plug);
                Err(error)
            }
        }
    }

    /// The bridge's index; the bridge is made if it is not there.
    fn bridge(&mut self, config: &BridgeConfig) -> Result<u32, Error> {
        match self.links.find(&config.bridge)? {
            Some(link) if link.up && link.kind == "bridge" && self.localnet.is_some() => Ok(link.index),
            _ => {
                self.heal(config)?;
                let link = self.links.find(&config.bridge)?;
                Ok(link.ok_or_else(|| Error::NotABridge(config.bridge.clone()))?.index)
            }
        }
    }

    fn book(&mut self, config: &BridgeConfig, order: Order<'_>) -> Result<Plug, Error> {
        let pod = order.pod;
        let mut plug = Plug {
            interface: interface_name(config, pod),
            mac: [0; 6],
            ips: Vec::new(),
            subnets: Vec::new(),
            forwards: Vec::new(),
        };
        let booked = self.take_addresses(order, &mut plug).and_then(|()| {
            plug.mac = mac_of(0xce, plug.ips[0]);
            let forwards = ports::forwards(order.ports, &plug.ips)?;
            self.ports.lock().take(pod, &forwards)?;
            plug.forwards = forwards;
            Ok(())
        });
        match booked {
            Ok(()) => Ok(plug),
            Err(error) => {
                self.give_back(pod, &plug);
                Err(error)
            }
        }
    }

    fn take_addresses(&mut self, order: Order<'_>, plug: &mut Plug) -> Result<(), Error> {
        let pod = order.pod;
        if let Some(wanted) = order.ip
            && !self.pools[..self.active].iter().any(|pool| pool.has_place(wanted))
        {
            return Err(Error::AddressOutside { address: wanted });
        }
        for index in 0..self.active {
            let subnet = self.pools[index].subnet;
            if let Some(wanted) = order.ip.filter(|wanted| subnet.contains(*wanted)) {
                if !self.pools[index].is_free(wanted) {
                    self.look_after(usize::MAX)?;
                }
                if !self.pools[index].is_free(wanted) {
                    return Err(Error::AddressTaken { address: wanted });
                }
                self.pools[index].mark(wanted, pod);
                plug.ips.push(wanted);
                plug.subnets.push(subnet);
                continue;
            }
            let ip = match self.pools[index].take(pod) {
                Some(ip) => ip,
                None => {
                    self.look_after(usize::MAX)?;
                    let pool = &mut self.pools[index];
                    pool.take(pod).ok_or_else(|| Error::AddressesExhausted { subnet: subnet.to_string(), used: pool.used() })?
                }
            };
            plug.ips.push(ip);
            plug.subnets.push(subnet);
        }
        Ok(())
    }

    /// Brings a booked pod's rules into the kernel.
    fn open(&mut self, config: &BridgeConfig, plug: &Plug) -> Result<(), Error> {
        let subnets = self.subnets();
        if !self.firewall.add(&Self::layout(config, &subnets), plug)? {
            self.rebuild(config)?;
        }
        if plug.forwards.is_empty() {
            return Ok(());
        }
        self.sync_localnet(config)
    }

    fn give_back(&mut self, pod: PodId, plug: &Plug) {
        for ip in &plug.ips {
            for pool in &mut self.pools {
                pool.give_back(*ip, pod);
            }
        }
        self.ports.lock().give_back(pod, &plug.forwards);
    }

    /// Takes a pod's rules and ports back; its addresses too once its interface is gone. Returns what it had; a pod that
    /// has nothing is fine.
    pub(super) fn release(&mut self, config: &BridgeConfig, pod: PodId) -> Result<Option<Plug>, Error> {
        let Some(plug) = self.plugs.remove(&pod) else {
            self.look_after(LOOK_AFTER)?;
            return Ok(None);
        };
        if let Err(error) = self.close(config, &plug) {
            self.plugs.insert(pod, plug);
            return Err(error);
        }
        self.ports.lock().give_back(pod, &plug.forwards);
        self.leaving.push_back((pod, plug.clone()));
        if !plug.forwards.is_empty() {
            self.sync_localnet(config)?;
        }
        self.look_after(LOOK_AFTER)?;
        Ok(Some(plug))
    }

    fn close(&mut self, config: &BridgeConfig, plug: &Plug) -> Result<(), Error> {
        let subnets = self.subnets();
        if self.firewall.remove(&Self::layout(config, &subnets), plug)? { Ok(()) } else { self.rebuild(config) }
    }

    /// Frees the addresses of former pods whose interface is gone by now.
    fn look_after(&mut self, most: usize) -> Result<(), Error> {
        for _ in 0..most.min(self.leaving.len()) {
            let Some((pod, plug)) = self.leaving.pop_front() else { break };
            match self.links.find(&plug.interface) {
                Ok(None) => self.give_back(pod, &plug),
                other => {
                    self.leaving.push_back((pod, plug));
                    other?;
                }
            }
        }
        Ok(())
    }

    /// Replaces all rules by what the books say.
    pub(super) fn rebuild(&mut self, config: &BridgeConfig) -> Result<(), Error> {
        let subnets = self.subnets();
        self.firewall.rebuild(&Self::layout(config, &subnets), self.plugs.values())
    }

    /// `route_localnet` only while a host port can be reached by a loopback address, and only on this bridge.
    fn sync_localnet(&mut self, config: &BridgeConfig) -> Result<(), Error> {
        let wanted = ports::any_on_v4_loopback(self.plugs.values().flat_map(|plug| &plug.forwards));
        if self.localnet != Some(wanted) {
            sysctl::route_localnet(&config.bridge, if wanted { "1" } else { "0" })?;
            self.localnet = Some(wanted);
        }
        Ok(())
    }

    /// Puts back what others removed. Returns whether something was missing.
    pub(super) fn heal(&mut self, config: &BridgeConfig) -> Result<bool, Error> {
        let subnets = self.subnets();
        let mut changed = false;
        // Rules first: what the bridge would carry must not be open for a moment.
        if !self.firewall.is_present(&Self::layout(config, &subnets))? {
            self.rebuild(config)?;
            changed = true;
        }
        Ok(changed | self.ensure_bridge(config)?)
    }

    /// Takes everything of the bridge out of the kernel. There must be no pods on it any more.
    pub(super) fn remove(&mut self, config: &BridgeConfig) -> Result<(), Error> {
        if let Some(link) = self.links.find(&config.bridge)?
            && link.kind == "bridge"
        {
            self.links.delete(&config.bridge)?;
        }
        let subnets = self.subnets();
        self.firewall.remove_tables(&Self::layout(config, &subnets))
    }

    /// Makes the bridge with its addresses, and forwarding. Returns whether something was missing.
    pub(super) fn ensure_bridge(&mut self, config: &BridgeConfig) -> Result<bool, Error> {
        let mut changed = false;
        let link = match self.links.find(&config.bridge)? {
            Some(link) if link.kind != "bridge" => return Err(Error::NotABridge(config.bridge.clone())),
            Some(link) => link,
            None => {
                changed = true;
                self.check_overlap(config)?;
                self.localnet = None;
                self.links.create_bridge(&config.bridge, mac_of(0xcf, self.pools[0].subnet.gateway()), config.mtu)?;
                self.links.find(&config.bridge)?.ok_or_else(|| Error::NotABridge(config.bridge.clone()))?
            }
        };
        changed |= sysctl::harden(&config.bridge)?;
        for subnet in self.subnets() {
            changed |= self.links.add_address(&link, subnet.gateway(), subnet.length())?;
            changed |= if subnet.is_v4() { sysctl::forward_v4()? } else { sysctl::forward_v6()? };
        }
        if !link.up {
            self.links.set_up(&link)?;
            changed = true;
        }
        if changed {
            self.replug(link.index)?;
        }
        self.sync_localnet(config)?;
        Ok(changed)
    }

    /// Puts live pods' interfaces back into a bridge that was made anew.
    fn replug(&mut self, bridge: u32) -> Result<(), Error> {
        if self.plugs.is_empty() {
            return Ok(());
        }
        let names: std::collections::HashSet<&str> = self.plugs.values().map(|plug| plug.interface.as_str()).collect();
        for link in self.links.list()?.iter().filter(|link| link.master != Some(bridge) && names.contains(link.name.as_str())) {
            self.links.set_master(link, bridge)?;
        }
        Ok(())
    }

    /// Refuses subnets in which another interface lives.
    fn check_overlap(&mut self, config: &BridgeConfig) -> Result<(), Error> {
        let ours = self.subnets();
        for (index, address) in self.links.addresses()? {
            if let Some(subnet) = ours.iter().find(|subnet| subnet.contains(address)) {
                let interface = self.links.list()?.into_iter().find(|link| link.index == index);
                let interface = interface.map_or_else(|| index.to_string(), |link| link.name);
                if interface != config.bridge {
                    return Err(Error::SubnetInUse { subnet: subnet.to_string(), interface, address });
                }
            }
        }
        Ok(())
    }

    /// Interfaces with our prefix, and the pods that should have one.
    pub(super) fn interfaces(&mut self, config: &BridgeConfig) -> Result<(Vec<Link>, &HashMap<PodId, Plug>), Error> {
        let mut links = self.links.list()?;
        links.retain(|link| link.kind == "veth" && link.name.starts_with(&config.interface_prefix));
        Ok((links, &self.plugs))
    }
}

/// The subnets whose family is in use on this machine: IPv6 may be switched off.
fn usable(subnets: &[Subnet]) -> Vec<Subnet> {
    let v6 = sysctl::uses_ipv6();
    subnets.iter().copied().filter(|subnet| v6 || subnet.is_v4()).collect()
}

/// A function of the pod's id, so that an interface is found again without a record.
pub(super) fn interface_name(config: &BridgeConfig, pod: PodId) -> String {
    let mut name = config.interface_prefix.clone();
    name.push_str(&pod.to_string()[..15 - name.len()]);
    name
}
