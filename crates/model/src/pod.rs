//! Pods: what is asked for, and the state machine.

use std::{collections::BTreeMap, net::IpAddr};

use minicbor::{Decode, Encode};

use crate::Resources;

/// What a client retries with: the same key joins the attempt in flight, or gets its result.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PodKey {
    /// Kubernetes namespace.
    #[n(0)]
    pub namespace: String,
    /// Pod name.
    #[n(1)]
    pub name: String,
    /// Pod uid.
    #[n(2)]
    pub uid: String,
    /// How many sandboxes this pod had before.
    #[n(3)]
    pub attempt: u32,
}

/// Whose namespace a pod or container uses (CRI `NamespaceMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum NamespaceMode {
    /// The pod's, shared by its containers.
    #[n(0)]
    #[default]
    Pod,
    /// The container's own (PID only).
    #[n(1)]
    Container,
    /// The node's.
    #[n(2)]
    Node,
}

/// The PID namespace of a container: a target can be named besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PidMode {
    /// The pod's, held by an init process.
    #[n(0)]
    Pod,
    /// The container's own.
    #[n(1)]
    Container,
    /// The node's.
    #[n(2)]
    Node,
    /// That of another container of the same pod.
    #[n(3)]
    Target(#[n(0)] crate::ContainerId),
}

/// The namespaces of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PodNamespaces {
    /// Network: `Pod` or `Node`. With `Node` the UTS namespace is the node's too.
    #[n(0)]
    pub network: NamespaceMode,
    /// PID: `Pod` (one shared by all, with an init), `Container` or `Node`.
    #[n(1)]
    pub pid: NamespaceMode,
    /// IPC: `Pod` or `Node`.
    #[n(2)]
    pub ipc: NamespaceMode,
}

/// A run of ids: id 0 of the container is `host_id` of the host, 1 the next one, and so on (user_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IdMap {
    /// The host's id for id 0.
    #[n(0)]
    pub host_id: u32,
    /// How many ids there are.
    #[n(1)]
    pub length: u32,
}

impl IdMap {
    /// The host's id; `None`: the container has no such id.
    pub fn to_host(self, id: u32) -> Option<u32> {
        if id < self.length { self.host_id.checked_add(id) } else { None }
    }
}

/// A user namespace of a pod's own (KEP-127).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UserNamespace {
    /// Users.
    #[n(0)]
    pub uids: IdMap,
    /// Groups.
    #[n(1)]
    pub gids: IdMap,
}

/// resolv.conf(5) of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Dns {
    /// Name servers.
    #[n(0)]
    pub servers: Vec<String>,
    /// Search domains.
    #[n(1)]
    pub searches: Vec<String>,
    /// Options.
    #[n(2)]
    pub options: Vec<String>,
}

/// Transport protocol of a port mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Protocol {
    /// TCP.
    #[n(0)]
    Tcp,
    /// UDP.
    #[n(1)]
    Udp,
    /// SCTP.
    #[n(2)]
    Sctp,
}

/// A port of the host that leads to a port of the pod. A pod's mappings all have a host port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PortMapping {
    /// Protocol.
    #[n(0)]
    pub protocol: Protocol,
    /// Port in the pod.
    #[n(1)]
    pub container_port: u16,
    /// Port of the host; 0, in what people ask for: a free one.
    #[n(2)]
    pub host_port: u16,
    /// The one host address that is meant; all when `None`. Text form of an IP address.
    #[cbor(n(3), with = "crate::plan::ip_text")]
    pub host_ip: Option<IpAddr>,
}

/// Everything a client says about a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PodSpec {
    /// Identity.
    #[n(0)]
    pub key: PodKey,
    /// Host name; empty: the node's (host network) or the pod's name.
    #[n(1)]
    pub hostname: String,
    /// Directory on the host for the containers' logs; empty: none.
    #[n(2)]
    pub log_directory: String,
    /// DNS; `None`: the node's resolv.conf.
    #[n(3)]
    pub dns: Option<Dns>,
    /// Ports of the host.
    #[n(4)]
    pub port_mappings: Vec<PortMapping>,
    /// Labels, kept byte for byte. Never read by the engine.
    #[n(5)]
    pub labels: BTreeMap<String, String>,
    /// Annotations, kept byte for byte. Never read by the engine.
    #[n(6)]
    pub annotations: BTreeMap<String, String>,
    /// Parent cgroup; empty: the daemon's default.
    #[n(7)]
    pub cgroup_parent: String,
    /// Namespaces.
    #[n(8)]
    pub namespaces: PodNamespaces,
    /// Sysctls of the pod's namespaces.
    #[n(9)]
    pub sysctls: BTreeMap<String, String>,
    /// A privileged container may be created in this pod only if this is set.
    #[n(10)]
    pub privileged: bool,
    /// Runtime handler as asked for.
    #[n(11)]
    pub runtime_handler: String,
    /// Sum of the containers' resources, for sizing only.
    #[n(12)]
    pub resources: Resources,
    /// Overhead, for sizing only.
    #[n(13)]
    pub overhead: Resources,
    /// Made for a container of people and not by a kubelet, which never sees it; its container's root is durable.
    #[n(14)]
    pub user_made: bool,
    /// Security context of the sandbox as given: user, groups; shown back, and the default for nothing.
    #[n(15)]
    pub run_as_user: Option<u32>,
    /// See `run_as_user`.
    #[n(16)]
    pub run_as_group: Option<u32>,
    /// SELinux label of its containers, as far as they do not say another.
    #[n(24)]
    pub selinux: Option<crate::container::SelinuxSpec>,
    /// A user namespace of its own; else the node's.
    #[n(17)]
    pub userns: Option<UserNamespace>,
    /// What only pods of people's containers have.
    #[n(25)]
    pub own: Option<crate::user::OwnPod>,
}

impl PodSpec {
    /// Whether what its container writes is to outlive a crash of the machine: a kubelet makes its pods anew, and a step of a build is
    /// done again.
    pub fn is_durable(&self) -> bool {
        self.user_made && self.own.as_ref().is_none_or(|own| own.fleeting != Some(true))
    }
}

/// The network of a ready pod. A ready pod without an address cannot be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// The node's own.
    Host,
    /// Its own namespace: at least one address, the first one being the primary.
    Pod {
        /// Primary address.
        ip: IpAddr,
        /// The others.
        additional: Vec<IpAddr>,
    },
}

/// Why a pod is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Asked to stop.
    Stopped,
    /// Its supervisor died.
    SupervisorLost,
    /// The machine was booted again.
    Rebooted,
    /// Its set-up could not be undone completely; StopPodSandbox tries again.
    SetupFailed(String),
}

/// Nanoseconds since 1970, UTC.
pub type Timestamp = i64;

/// Where a pod is in its life. Pods whose set-up is not finished are not listed and have no state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodState {
    /// Containers may be created.
    Ready {
        /// Its network.
        network: Network,
    },
    /// Nothing runs any more; resources may still be owed (network DEL).
    NotReady {
        /// Why.
        why: Reason,
    },
}

/// What a request finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodRequest {
    /// CreateContainer.
    CreateContainer,
    /// StartContainer.
    StartContainer,
    /// StopPodSandbox.
    Stop,
    /// RemovePodSandbox.
    Remove,
}

/// Whether there is something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Carry it out.
    Do,
    /// It is already so.
    Nothing,
}

/// Why a request is refused, readable as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A stopped pod is never used again.
    #[error("pod is not ready ({0}); a stopped pod is never reused")]
    PodNotReady(String),
    /// The container's state does not allow it.
    #[error("container is {state}, cannot {request}")]
    Container {
        /// Where it is.
        state: &'static str,
        /// What was asked.
        request: &'static str,
    },
}

/// Decides on a request; every pair is named.
pub fn admit(state: &PodState, request: PodRequest) -> Result<Admit, Refusal> {
    match (state, request) {
        (
            PodState::Ready { .. },
            PodRequest::CreateContainer | PodRequest::StartContainer | PodRequest::Stop | PodRequest::Remove,
        ) => Ok(Admit::Do),
        (PodState::NotReady { why }, PodRequest::CreateContainer | PodRequest::StartContainer) => {
            Err(Refusal::PodNotReady(why.to_string()))
        }
        // Stop again: a DEL or an unmount may still be owed.
        (PodState::NotReady { .. }, PodRequest::Stop | PodRequest::Remove) => Ok(Admit::Do),
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::SupervisorLost => f.write_str("its supervisor died"),
            Self::Rebooted => f.write_str("the machine was rebooted"),
            Self::SetupFailed(why) => write!(f, "its set-up failed: {why}"),
        }
    }
}
