//! What an administrator can say about the bridge, and what is derived from the daemon's instance.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Subnet;
use crate::Error;

/// IFNAMSIZ - 1 (netdevice(7)).
const NAME_MAX: usize = 15;

/// Whether frames of pods are checked for forged addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AntiSpoof {
    /// A pod may only send with the MAC and IP addresses it was given, and no router advertisements.
    #[default]
    Enforce,
    /// Anything goes. For kernels without nftables' bridge family.
    Off,
}

/// Whether traffic of pods to the outside gets the node's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Masquerade {
    /// It does.
    #[default]
    On,
    /// Somebody routes the pods' subnets to this node.
    Off,
}

/// Where pods' addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subnets {
    /// These, whatever the cluster says.
    Fixed(Vec<Subnet>),
    /// These until the cluster names the node's pod CIDRs.
    UntilPodCidr(Vec<Subnet>),
}

/// Whom the pods of a bridge can reach besides each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Whatever the node can.
    #[default]
    All,
    /// That, but no pod of these bridges, nor they ours, unless by a port of the node.
    Apart {
        /// What names of the other bridges begin with; our own may begin so too.
        prefix: String,
        /// Further bridges.
        others: Vec<String>,
    },
    /// The node itself, and nobody else.
    Inside,
}

/// Configuration of the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeConfig {
    /// Name of the bridge device; at most 15 characters.
    pub bridge: String,
    /// Name of the nftables tables (families inet and bridge).
    pub table: String,
    /// What names of the pods' interfaces on the host begin with: 1 to 5 characters that no other program uses.
    pub interface_prefix: String,
    /// Where addresses come from. The first address of each subnet is the bridge's.
    pub subnets: Subnets,
    /// MTU of the pods' interfaces, 1280 to 65535; `None`: the kernel's default (1500).
    pub mtu: Option<u32>,
    /// Masquerading.
    pub masquerade: Masquerade,
    /// Checks on frames of pods.
    pub anti_spoof: AntiSpoof,
    /// Whom its pods can reach.
    pub reach: Reach,
}

/// FNV-1a, 64 bits: names derived from it must be the same in every version of this program.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl BridgeConfig {
    /// Names and subnets for a daemon instance, told apart by any text (its state directory, say): two daemons with
    /// different instances on one machine do not meet.
    pub fn for_instance(instance: &str) -> Self {
        let hash = fnv(instance);
        let tag = format!("{:04x}", hash & 0xffff);
        let [_, _, _, second, .., a, b] = hash.to_be_bytes();
        // 10.128.0.0/10 is away from the usual pod and service networks of clusters (10.42, 10.43, 10.96, 10.244) and
        // from docker's and podman's; fd00::/8 is for such local use (RFC 4193).
        let v4 = Ipv4Addr::new(10, 128 + (second & 63), 0, 0);
        let [c, d, e, ..] = hash.to_be_bytes();
        let v6 = Ipv6Addr::from([0xfd, c, d, e, a, b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let subnets = [(IpAddr::V4(v4), 16), (IpAddr::V6(v6), 64)];
        Self {
            bridge: format!("creel-{tag}"),
            table: format!("creel_{tag}"),
            interface_prefix: format!("c{tag}"),
            subnets: Subnets::UntilPodCidr(
                subnets.into_iter().map(|(ip, length)| Subnet::new(ip, length).expect("constant lengths are in range")).collect(),
            ),
            mtu: None,
            masquerade: Masquerade::On,
            anti_spoof: AntiSpoof::Enforce,
            reach: Reach::All,
        }
    }

    /// Checks everything that can be checked without the kernel.
    pub(super) fn check(&self) -> Result<(), Error> {
        let name = |text: &str, most: usize| {
            !text.is_empty()
                && text.len() <= most
                && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.'))
                && text.bytes().any(|c| c != b'.')
        };
        if !name(&self.bridge, NAME_MAX) {
            return Err(Error::Config(format!("{:?} is not an interface name of 1 to {NAME_MAX} characters", self.bridge)));
        }
        if !name(&self.table, 64) {
            return Err(Error::Config(format!("{:?} is not a table name of 1 to 64 characters", self.table)));
        }
        if !name(&self.interface_prefix, 5) {
            return Err(Error::Config(format!("{:?} is not an interface prefix of 1 to 5 characters", self.interface_prefix)));
        }
        if self.bridge.starts_with(&self.interface_prefix) {
            return Err(Error::Config(format!(
                "bridge {} begins with the interface prefix {}",
                self.bridge, self.interface_prefix
            )));
        }
        if let Some(mtu) = self.mtu
            && !(1280..=65535).contains(&mtu)
        {
            return Err(Error::Config(format!("mtu {mtu} is not in 1280 to 65535")));
        }
        let (Subnets::Fixed(subnets) | Subnets::UntilPodCidr(subnets)) = &self.subnets;
        check_subnets(subnets).map_err(Error::Config)
    }
}

/// At least one, at most one of each family, each with room for a pod.
pub(super) fn check_subnets(subnets: &[Subnet]) -> Result<(), String> {
    if subnets.is_empty() {
        return Err("no subnet".into());
    }
    for (index, subnet) in subnets.iter().enumerate() {
        if subnets[..index].iter().any(|other| other.is_v4() == subnet.is_v4()) {
            return Err(format!("subnet {subnet} is the second one of its family"));
        }
        if subnet.capacity() == 0 {
            return Err(format!("subnet {subnet} has no room for pods"));
        }
        if subnet.gateway().is_loopback() || subnet.gateway().is_multicast() || subnet.gateway().is_unspecified() {
            return Err(format!("subnet {subnet} is not for hosts"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_do_not_meet() {
        let (a, b) = (BridgeConfig::for_instance("/var/lib/creel"), BridgeConfig::for_instance("/tmp/other"));
        a.check().unwrap();
        b.check().unwrap();
        assert_ne!((&a.bridge, &a.table, &a.interface_prefix, &a.subnets), (&b.bridge, &b.table, &b.interface_prefix, &b.subnets));
        assert_eq!(a, BridgeConfig::for_instance("/var/lib/creel"));
    }

    #[test]
    fn nonsense_is_refused() {
        let good = BridgeConfig::for_instance("x");
        let subnets = |texts: &[&str]| Subnets::Fixed(texts.iter().map(|t| t.parse().unwrap()).collect());
        for (bad, word) in [
            (BridgeConfig { bridge: "a/b".into(), ..good.clone() }, "a/b"),
            (BridgeConfig { bridge: "..".into(), ..good.clone() }, ".."),
            (BridgeConfig { bridge: "a".repeat(16), ..good.clone() }, "15"),
            (BridgeConfig { table: String::new(), ..good.clone() }, "table"),
            (BridgeConfig { interface_prefix: "toolong".into(), ..good.clone() }, "prefix"),
            (BridgeConfig { interface_prefix: "creel".into(), ..good.clone() }, "begins"),
            (BridgeConfig { mtu: Some(100), ..good.clone() }, "mtu"),
            (BridgeConfig { subnets: subnets(&[]), ..good.clone() }, "no subnet"),
            (BridgeConfig { subnets: subnets(&["10.0.0.0/31"]), ..good.clone() }, "room"),
            (BridgeConfig { subnets: subnets(&["10.0.0.0/24", "10.0.1.0/24"]), ..good.clone() }, "second"),
            (BridgeConfig { subnets: subnets(&["127.0.0.0/8"]), ..good.clone() }, "hosts"),
        ] {
            let error = bad.check().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
