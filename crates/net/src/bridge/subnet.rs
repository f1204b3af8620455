//! A subnet of either family, and which of its addresses pods hold.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use model::PodId;

/// A subnet in CIDR notation; host bits are cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subnet {
    network: IpAddr,
    length: u8,
}

fn to_bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

impl Subnet {
    /// The subnet that holds this address; `None` if the prefix length is too long for the family.
    pub fn new(ip: IpAddr, length: u8) -> Option<Self> {
        let width: u32 = if ip.is_ipv4() { 32 } else { 128 };
        let host_bits = width.checked_sub(u32::from(length))?;
        let network = to_bits(ip).checked_shr(host_bits).unwrap_or(0).checked_shl(host_bits).unwrap_or(0);
        let mut subnet = Self { network: ip, length };
        subnet.network = subnet.address(network);
        Some(subnet)
    }

    fn address(&self, bits: u128) -> IpAddr {
        match self.network {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from((bits & u128::from(u32::MAX)) as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(bits)),
        }
    }

    /// IPv4?
    pub fn is_v4(&self) -> bool {
        self.network.is_ipv4()
    }

    /// The first address of the range.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// Prefix length.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The bridge's own address.
    pub fn gateway(&self) -> IpAddr {
        self.address(to_bits(self.network) | 1)
    }

    /// Whether an address belongs to it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        Self::new(ip, self.length).is_some_and(|other| other == *self)
    }

    /// Whether two subnets share addresses.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// Its part of this length with this number, from 0.
    pub(super) fn part(&self, length: u8, number: u64) -> Option<Self> {
        let width: u32 = if self.is_v4() { 32 } else { 128 };
        let shift = width.checked_sub(u32::from(length)).filter(|_| length >= self.length)?;
        let bits = to_bits(self.network) + u128::from(number).checked_shl(shift)?;
        Self::new(self.address(bits), length).filter(|part| self.contains(part.network))
    }

    fn host_bits(&self) -> u32 {
        u32::from(if self.is_v4() { 32_u8 } else { 128 } - self.length)
    }

    /// How many pods it has addresses for: all but network, gateway and (IPv4) broadcast; at most 2^32.
    pub fn capacity(&self) -> u64 {
        let taken = if self.is_v4() { 3 } else { 2 };
        (1_u64 << self.host_bits().min(32)).saturating_sub(taken)
    }

    /// The address of the pod with this number, from 0 to `capacity` - 1.
    fn pod_address(&self, index: u64) -> IpAddr {
        self.address(to_bits(self.network) + u128::from(index) + 2)
    }

    fn index_of(&self, ip: IpAddr) -> Option<u64> {
        let offset = self.contains(ip).then(|| to_bits(ip) - to_bits(self.network))?;
        u64::try_from(offset.checked_sub(2)?).ok().filter(|index| *index < self.capacity())
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

/// Why a text is not a subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a subnet (ADDRESS/LENGTH): {0:?}")]
pub struct SubnetError(pub String);

impl FromStr for Subnet {
    type Err = SubnetError;
    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let wrong = || SubnetError(text.chars().take(80).collect());
        let (ip, length) = text.split_once('/').ok_or_else(wrong)?;
        let length = length.bytes().all(|c| c.is_ascii_digit()).then(|| length.parse().ok()).flatten().ok_or_else(wrong)?;
        Self::new(ip.parse().map_err(|_| wrong())?, length).ok_or_else(wrong)
    }
}

/// Who holds which address of a subnet. Addresses are handed out in turn, so that one that was given back is not used
/// again before all others were: peers' caches and connections to the former holder have died by then.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub(super) subnet: Subnet,
    held: HashMap<IpAddr, PodId>,
    next: u64,
}

impl Pool {
    pub(super) fn new(subnet: Subnet) -> Self {
        Self { subnet, held: HashMap::new(), next: 0 }
    }

    /// Hands out the next free address; `None`: there is none.
    pub(super) fn take(&mut self, pod: PodId) -> Option<IpAddr> {
        let capacity = self.subnet.capacity();
        // One of any `held + 1` addresses in a row is free.
        let tries = capacity.min(self.held.len() as u64 + 1);
        let ip =
            (0..tries).map(|step| self.subnet.pod_address((self.next + step) % capacity)).find(|ip| !self.held.contains_key(ip))?;
        self.mark(ip, pod);
        Some(ip)
    }

    /// Notes that a pod holds an address, whether or not it was handed out here.
    pub(super) fn mark(&mut self, ip: IpAddr, pod: PodId) {
        if let Some(index) = self.subnet.index_of(ip) {
            self.held.insert(ip, pod);
            self.next = (index + 1) % self.subnet.capacity();
        }
    }

    /// Whether a pod could have this address.
    pub(super) fn has_place(&self, ip: IpAddr) -> bool {
        self.subnet.index_of(ip).is_some()
    }

    /// Whether nobody has it.
    pub(super) fn is_free(&self, ip: IpAddr) -> bool {
        !self.held.contains_key(&ip)
    }

    /// Takes an address back from this pod.
    pub(super) fn give_back(&mut self, ip: IpAddr, pod: PodId) {
        if self.held.get(&ip) == Some(&pod) {
            self.held.remove(&ip);
        }
    }

    pub(super) fn used(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn pod(n: u8) -> PodId {
        PodId::from_bytes([n; 32])
    }

    #[test]
    fn subnets_parse_and_contain() {
        let subnet: Subnet = "10.88.3.4/16".parse().unwrap();
        assert_eq!((subnet.to_string(), subnet.gateway().to_string()), ("10.88.0.0/16".into(), "10.88.0.1".into()));
        assert!(subnet.contains("10.88.255.255".parse().unwrap()) && !subnet.contains("10.89.0.0".parse().unwrap()));
        assert!(!subnet.contains("::1".parse().unwrap()));
        assert_eq!(subnet.capacity(), 65536 - 3);
        let six: Subnet = "fd00:1::/64".parse().unwrap();
        assert_eq!((six.gateway().to_string(), six.capacity()), ("fd00:1::1".into(), (1 << 32) - 2));
        assert!("0.0.0.0/0".parse::<Subnet>().unwrap().overlaps(&subnet) && "::/0".parse::<Subnet>().unwrap().overlaps(&six));
        assert!(!subnet.overlaps(&six));
        for bad in ["", "/", "10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/+8", "10.0.0.0/-1", "x/8", "10.0.0.0/ 8"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_address_is_used_before_one_is_used_again() {
        let mut pool = Pool::new("10.0.0.0/29".parse().unwrap());
        let five: Vec<_> = (0..5).map(|n| pool.take(pod(n)).unwrap()).collect();
        assert_eq!(
            five.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
        );
        assert_eq!(pool.take(pod(9)), None);
        pool.give_back(five[3], pod(3));
        pool.give_back(five[1], pod(1));
        pool.give_back(five[0], pod(7));
        assert_eq!(pool.used(), 3);
        assert_eq!([pool.take(pod(6)), pool.take(pod(7)), pool.take(pod(8))], [Some(five[1]), Some(five[3]), None]);
    }

    proptest! {
        #[test]
        fn no_address_is_handed_out_twice(length in 24_u8..=30, gives in proptest::collection::vec(any::<(bool, u8)>(), 0..600)) {
            let mut pool = Pool::new(Subnet::new("10.1.2.3".parse().unwrap(), length).unwrap());
            let mut held: Vec<(IpAddr, PodId)> = Vec::new();
            for (take, n) in gives {
                if take {
                    match pool.take(pod(n)) {
                        Some(ip) => held.push((ip, pod(n))),
                        None => prop_assert_eq!(held.len() as u64, pool.subnet.capacity()),
                    }
                } else if !held.is_empty() {
                    let (ip, owner) = held.remove(usize::from(n) % held.len());
                    pool.give_back(ip, owner);
                }
                let distinct: HashSet<_> = held.iter().map(|(ip, _)| *ip).collect();
                prop_assert_eq!(distinct.len(), held.len());
                prop_assert_eq!(pool.used(), held.len());
                prop_assert!(held.iter().all(|(ip, _)| pool.subnet.contains(*ip) && *ip != pool.subnet.gateway()));
            }
        }
    }
}
