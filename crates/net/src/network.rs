//! The one face of both kinds of network.

use std::{net::IpAddr, path::Path};

use model::{
    PodId,
    pod::{Dns, PodKey, PortMapping},
};

use crate::{Bridge, Cni, Error, bridge::BridgeConfig, cni::CniConfig};

/// The interface that every pod gets (CNI_IFNAME).
pub(crate) const POD_INTERFACE: &str = "eth0";

/// What a pod wants of its network.
#[derive(Clone, Copy, Debug)]
pub struct AttachRequest<'a> {
    /// The pod.
    pub pod: PodId,
    /// Its key: CNI plugins learn namespace, name and uid from it.
    pub key: &'a PodKey,
    /// The network namespace: `/proc/PID/ns/net` or any other path that leads to it. `lo` is brought up if it is down.
    pub netns: &'a Path,
    /// Ports of the host that lead into the pod.
    pub ports: &'a [PortMapping],
    /// Name servers, for CNI plugins with the capability `dns`.
    pub dns: Option<&'a Dns>,
}

/// What a pod got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Primary address.
    pub ip: IpAddr,
    /// The other addresses.
    pub additional: Vec<IpAddr>,
    /// Everything that [`Network::detach`] and [`Network::recover`] need to know later; kept with the pod's record.
    pub record: Vec<u8>,
}

/// Whether pods can be given a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// They can.
    Ready,
    /// They cannot.
    NotReady {
        /// One word for machines, in CRI's style.
        reason: &'static str,
        /// For people; names the file or device.
        message: String,
    },
}

/// What [`Network::recover`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Interfaces of pods that are gone; removed.
    pub removed_interfaces: Vec<String>,
    /// Live pods whose interface is gone: they have no network any more.
    pub unplugged: Vec<PodId>,
    /// Live pods whose record cannot be read, and why.
    pub unreadable: Vec<(PodId, String)>,
}

/// Which network, and how it is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Config {
    /// By CNI plugins.
    Cni(CniConfig),
    /// By the bridge that is built in.
    Bridge(BridgeConfig),
}

/// How pods get their network.
#[derive(Debug)]
pub enum Network {
    /// By CNI plugins.
    Cni(Cni),
    /// By the bridge that is built in.
    Bridge(Bridge),
}

impl Network {
    /// The network of a configuration. Nothing is changed on the machine before the first attach.
    ///
    /// # Errors
    /// A name or subnet in it that cannot be.
    pub fn open(config: &Config) -> Result<Self, Error> {
        match config {
            Config::Cni(cni) => Ok(Self::Cni(Cni::new(cni.clone()))),
            Config::Bridge(bridge) => Bridge::new(bridge.clone()).map(Self::Bridge),
        }
    }

    /// Gives the pod's namespace its interface, addresses, routes and host ports.
    ///
    /// On failure everything done so far is undone before the error returns; calling [`Network::detach`] afterwards
    /// does no harm and finishes what could not be undone. Blocks: CNI plugins have a deadline (60 s for the chain).
    pub fn attach(&self, request: &AttachRequest<'_>) -> Result<Attached, Error> {
        match self {
            Self::Cni(cni) => cni.attach(request),
            Self::Bridge(bridge) => bridge.attach(request),
        }
    }

    /// A record with which [`Network::detach`] can undo an [`Network::attach`] that never returned. A caller that
    /// wants to survive a crash in between stores it before the attach.
    pub fn intent(&self, request: &AttachRequest<'_>) -> Result<Vec<u8>, Error> {
        match self {
            Self::Cni(cni) => cni.intent(request),
            Self::Bridge(_) => Ok(Vec::new()),
        }
    }

    /// Takes back what [`Network::attach`] gave. Idempotent; works after a half-done attach or none at all.
    ///
    /// `netns` is `None` when the namespace is gone already. `record` is what attach (or intent) returned, if it did.
    pub fn detach(&self, pod: PodId, key: &PodKey, netns: Option<&Path>, record: Option<&[u8]>) -> Result<(), Error> {
        match self {
            Self::Cni(cni) => cni.detach(pod, key, netns, record.filter(|r| !r.is_empty())),
            Self::Bridge(bridge) => bridge.detach(pod),
        }
    }

    /// Whether pods can be given a network now. Cheap enough for a call every few seconds: CNI configuration is only
    /// read again when it changed, and plugins are asked (STATUS) at most every ten seconds.
    pub fn status(&self) -> Status {
        match self {
            Self::Cni(cni) => cni.status(),
            Self::Bridge(bridge) => bridge.status(),
        }
    }

    /// The addresses that the cluster gives this node's pods, as CRI's UpdateRuntimeConfig brings them: CIDRs
    /// separated by commas. Empty means unchanged.
    pub fn set_pod_cidr(&self, cidrs: &str) -> Result<(), Error> {
        match self {
            Self::Cni(cni) => cni.set_pod_cidr(cidrs),
            Self::Bridge(bridge) => bridge.set_pod_cidr(cidrs),
        }
    }

    /// After a start of the daemon, before the first attach: learns what the live pods hold and removes what pods that
    /// are gone left behind.
    pub fn recover(&self, live: &[(PodId, Vec<u8>)]) -> Result<Recovered, Error> {
        match self {
            Self::Cni(_) => Ok(Recovered::default()),
            Self::Bridge(bridge) => bridge.recover(live),
        }
    }

    /// Puts back what others removed (bridge, rules, sysctls). To be called every few seconds; costs microseconds
    /// when all is well. Returns whether something had to be repaired.
    pub fn heal(&self) -> Result<bool, Error> {
        match self {
            Self::Cni(_) => Ok(false),
            Self::Bridge(bridge) => bridge.heal(),
        }
    }
}
