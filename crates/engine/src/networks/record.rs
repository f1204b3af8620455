//! What is kept of a network. Field numbers are for ever.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use model::NetworkId;
use net::bridge::{AntiSpoof, BridgeConfig, Masquerade, PortBook, Reach, Subnet, Subnets};

/// A network on disk.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct NetworkRecord {
    #[n(0)]
    pub id: NetworkId,
    #[n(1)]
    pub name: String,
    /// Nanoseconds since 1970.
    #[n(2)]
    pub created_at: i64,
    /// As text.
    #[n(3)]
    pub subnets: Vec<String>,
    #[n(4)]
    pub internal: bool,
    #[n(5)]
    pub ipv6: bool,
    #[n(6)]
    pub labels: BTreeMap<String, String>,
    #[n(7)]
    pub options: BTreeMap<String, String>,
}

/// What names of our bridges begin with.
const BRIDGES: &str = "crl-";
/// What docker calls the options that we have.
pub(super) const MTU: &str = "com.docker.network.driver.mtu";
pub(super) const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";

/// What all networks of a daemon have in common.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// The bridge of all other pods.
    pub(super) pods: Option<BridgeConfig>,
    pub(super) ports: PortBook,
}

impl NetworkRecord {
    pub(super) fn subnets(&self) -> Vec<Subnet> {
        self.subnets.iter().filter_map(|text| text.parse().ok()).collect()
    }

    /// What names of interfaces of its pods begin with: a function of the id, as everything that is in the kernel.
    pub(super) fn interface_prefix(id: NetworkId) -> String {
        const DIGITS: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let [.., a, b, c, d] = *id.as_bytes();
        let mut number = u32::from_be_bytes([a, b, c, d]);
        let mut prefix = String::from("n");
        for _ in 0..4 {
            prefix.push(char::from(DIGITS[(number % 62) as usize]));
            number /= 62;
        }
        prefix
    }

    pub(super) fn bridge(id: NetworkId) -> String {
        format!("{BRIDGES}{}", &id.to_string()[..8])
    }

    pub(super) fn config(&self, site: &Site) -> BridgeConfig {
        let others = site.pods.iter().map(|pods| pods.bridge.clone()).collect();
        let off = self.options.get(MASQUERADE).is_some_and(|value| value == "false");
        BridgeConfig {
            bridge: Self::bridge(self.id),
            table: format!("creel_{}", &self.id.to_string()[..8]),
            interface_prefix: Self::interface_prefix(self.id),
            subnets: Subnets::Fixed(self.subnets()),
            mtu: self.options.get(MTU).and_then(|mtu| mtu.parse().ok()).or(site.pods.as_ref().and_then(|pods| pods.mtu)),
            masquerade: if off { Masquerade::Off } else { Masquerade::On },
            anti_spoof: site.pods.as_ref().map_or(AntiSpoof::Enforce, |pods| pods.anti_spoof),
            reach: if self.internal { Reach::Inside } else { Reach::Apart { prefix: BRIDGES.to_owned(), others } },
        }
    }
}
