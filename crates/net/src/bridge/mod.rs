//! The built-in bridge: veth pairs, addresses and host ports over netlink, without plugins or programs.
//!
//! **Invariant:** an address, host port or interface name belongs to at most one pod; rules let a pod in before its
//! interface exists and shut it out before its address is free again. An address is not handed out while an interface
//! of its former holder lives: closing a namespace removes its interfaces some time later, and waiting for that
//! (RTM_DELLINK) costs tens of milliseconds.

mod attach;
mod config;
mod conntrack;
mod firewall;
mod free;
mod link;
mod namespace;
mod nft;
mod ports;
mod record;
mod recover;
mod rules;
mod state;
mod subnet;
mod sysctl;
#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use model::PodId;

pub use attach::Interface;
pub use config::{AntiSpoof, BridgeConfig, Masquerade, Reach, Subnets};
pub use free::free_subnet;
pub use link::WayOut;
pub use namespace::loopback;
pub use ports::PortBook;
pub use subnet::{Subnet, SubnetError};

use crate::{Error, Status};
use ports::Forward;
use state::State;

/// What one pod has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plug {
    /// Name of the host's end of its veth pair.
    interface: String,
    mac: [u8; 6],
    ips: Vec<IpAddr>,
    /// The subnet of each address.
    subnets: Vec<Subnet>,
    forwards: Vec<Forward>,
}

/// What a pod on a bridge has, for others to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod.
    pub pod: PodId,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its addresses with the lengths of their prefixes, the primary first.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// The bridge of one daemon, in the network namespace of the thread that created it. All threads that call it have to
/// be in that namespace.
#[derive(Debug)]
pub struct Bridge {
    config: BridgeConfig,
    /// Held while the books and the rules are changed together, for some 100 microseconds; never while links are made.
    state: Mutex<State>,
    ports: PortBook,
}

impl Bridge {
    /// Checks the configuration. Nothing is changed before the first [`Bridge::recover`], attach or heal.
    pub fn new(config: BridgeConfig) -> Result<Self, Error> {
        Self::with_ports(config, PortBook::default())
    }

    /// The same for one of several bridges, which share the node's ports.
    ///
    /// # Errors
    /// As [`Bridge::new`].
    pub fn with_ports(config: BridgeConfig, ports: PortBook) -> Result<Self, Error> {
        config.check()?;
        let state = State::new(&config, ports.clone())?;
        Ok(Self { config, state: Mutex::new(state), ports })
    }

    /// The host ports of this bridge and of those that share them.
    pub fn ports(&self) -> PortBook {
        self.ports.clone()
    }

    /// As it was configured.
    pub fn config(&self) -> &BridgeConfig {
        &self.config
    }

    /// What the pods on it have.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.lock().endpoints()
    }

    /// Takes the bridge and its rules out of the kernel; not there is fine. There must be no pods on it any more.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(&self) -> Result<(), Error> {
        self.lock().remove(&self.config)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The books are changed only after the kernel agreed; a panic in between leaves at worst an address reserved.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`crate::Network::detach`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn detach(&self, pod: PodId) -> Result<(), Error> {
        let released = self.lock().release(&self.config, pod)?;
        // After the rules are gone, so that no packet makes a new entry; not under the lock, as the kernel goes through
        // all of its connections. An attach that reuses the port does the same.
        released.map_or(Ok(()), |plug| conntrack::forget(&plug.forwards))
    }

    /// See [`crate::Network::heal`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn heal(&self) -> Result<bool, Error> {
        self.lock().heal(&self.config)
    }

    /// See [`crate::Network::status`]. Repairs what can be repaired.
    pub(crate) fn status(&self) -> Status {
        match self.heal() {
            Ok(_) => Status::Ready,
            Err(error) => Status::NotReady { reason: "BridgeNotReady", message: crate::error::chain(&error) },
        }
    }

    /// See [`crate::Network::set_pod_cidr`].
    pub(crate) fn set_pod_cidr(&self, cidrs: &str) -> Result<(), Error> {
        let wrong = || Error::PodCidr(cidrs.chars().take(200).collect());
        let subnets: Result<Vec<Subnet>, _> = cidrs.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::parse).collect();
        let subnets = subnets.map_err(|_| wrong())?;
        if subnets.is_empty() || matches!(self.config.subnets, Subnets::Fixed(_)) {
            return Ok(());
        }
        config::check_subnets(&subnets).map_err(|_| wrong())?;
        self.lock().use_subnets(&self.config, &subnets)
    }
}
