//! What is kept of pods and containers across daemons and boots. Field numbers are for ever (golden bytes below).

use minicbor::{Decode, Encode, bytes::ByteVec};
use model::{
    ContainerId, DiffId, ImageId, PodId, Resources, Signal,
    container::{ContainerImage, ContainerSpec, ContainerState, ExitStatus, ResolvedUser},
    plan::ContainerPlan,
    pod::{Network, PodSpec, PodState, Reason, Timestamp},
};

use crate::pod::update::PodSize;

/// A pod on disk.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct PodRecord {
    #[n(0)]
    pub id: PodId,
    /// The boot that this pod's processes belong to (/proc/sys/kernel/random/boot_id).
    #[n(1)]
    pub boot: String,
    #[n(2)]
    pub created_at: Timestamp,
    #[n(3)]
    pub spec: PodSpec,
    #[n(4)]
    pub phase: PodPhase,
    /// What `net` needs to take the network down; present from before ADD until DEL succeeded.
    #[n(5)]
    pub network: NetworkDebt,
    #[n(6)]
    pub cgroup: String,
    /// The pod's cgroup was made by us, so it is ours to remove.
    #[n(7)]
    pub own_cgroup: bool,
    /// What it may use, if that has changed since it was made.
    #[n(20)]
    pub size: Option<PodSize>,
    /// SELinux level of its containers, where SELinux is on.
    #[n(24)]
    pub selinux_level: Option<String>,
    /// Networks of people's that it is in beside the one that it was made with.
    #[n(25)]
    pub more_networks: Option<Vec<MoreNetwork>>,
}

/// A network of people's that a pod has come into later.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct MoreNetwork {
    #[n(0)]
    pub id: model::NetworkId,
    /// Its interface's name in the pod.
    #[n(1)]
    pub interface: String,
    /// What `net` needs to know of it after a start of the daemon.
    #[n(2)]
    pub record: ByteVec,
}

/// Where a pod is in its life, on disk.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) enum PodPhase {
    /// Set-up not finished: to be undone if found.
    #[n(0)]
    Preparing,
    #[n(1)]
    Ready {
        /// Addresses as text, primary first; none: host network.
        #[n(0)]
        ips: Vec<String>,
    },
    #[n(2)]
    Stopped,
    #[n(3)]
    SupervisorLost,
    #[n(4)]
    Rebooted,
}

/// What is owed to the network.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) enum NetworkDebt {
    /// Nothing.
    #[n(0)]
    None,
    /// ADD may have begun; how far is not known.
    #[n(1)]
    Begun,
    /// ADD succeeded.
    #[n(2)]
    Attached(#[n(0)] ByteVec),
}

/// A container on disk.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct ContainerRecord {
    #[n(0)]
    pub id: ContainerId,
    #[n(1)]
    pub pod: PodId,
    #[n(2)]
    pub boot: String,
    #[n(3)]
    pub created_at: Timestamp,
    #[n(4)]
    pub spec: ContainerSpec,
    #[n(5)]
    pub image: ContainerImage,
    /// Layers that this container stands on, so that they are pinned again before anything is collected.
    #[n(6)]
    pub layers: Vec<DiffId>,
    #[n(7)]
    pub user: ResolvedUser,
    #[n(8)]
    pub stop_signal: Signal,
    #[n(9)]
    pub phase: ContainerPhase,
    /// The executor's plan: exec derives from it (R10).
    #[n(10)]
    pub plan: ContainerPlan,
    /// What the kernel refused and we tolerated.
    #[n(11)]
    pub warnings: Vec<String>,
    /// Limits in force: those asked for with the node's defaults filled in, and later updates.
    #[n(12)]
    pub resources: Resources,
    /// Images of `spec.image_volumes`, in their order.
    #[cbor(n(13), default)]
    pub volume_images: Vec<ImageId>,
}

/// Where a container is in its life, on disk.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) enum ContainerPhase {
    /// Set-up not finished: to be undone if found.
    #[n(0)]
    Preparing,
    #[n(1)]
    Created,
    #[n(2)]
    Running(#[n(0)] Timestamp),
    #[n(3)]
    Exited {
        #[n(0)]
        started_at: Option<Timestamp>,
        #[n(1)]
        finished_at: Timestamp,
        #[n(2)]
        exit: ExitStatus,
        #[n(3)]
        reason: String,
        #[n(4)]
        message: String,
    },
}

/// Reasons are a closed set in memory; a record of a newer creel may say something else.
fn known_reason(text: &str) -> &'static str {
    ["Completed", "Error", "OOMKilled", "StartError", "ContainerStatusUnknown"].into_iter().find(|r| *r == text).unwrap_or("Error")
}

impl ContainerPhase {
    pub(crate) fn of(state: &ContainerState) -> Self {
        match state {
            ContainerState::Created => Self::Created,
            ContainerState::Running { started_at } => Self::Running(*started_at),
            ContainerState::Exited { started_at, finished_at, exit, reason, message } => Self::Exited {
                started_at: *started_at,
                finished_at: *finished_at,
                exit: *exit,
                reason: (*reason).to_owned(),
                message: message.clone(),
            },
        }
    }

    /// `None`: it never was a container.
    pub(crate) fn state(&self) -> Option<ContainerState> {
        match self {
            Self::Preparing => None,
            Self::Created => Some(ContainerState::Created),
            Self::Running(started_at) => Some(ContainerState::Running { started_at: *started_at }),
            Self::Exited { started_at, finished_at, exit, reason, message } => Some(ContainerState::Exited {
                started_at: *started_at,
                finished_at: *finished_at,
                exit: *exit,
                reason: known_reason(reason),
                message: message.clone(),
            }),
        }
    }
}

impl PodPhase {
    pub(crate) fn of(state: &PodState) -> Self {
        match state {
            PodState::Ready { network: Network::Host } => Self::Ready { ips: Vec::new() },
            PodState::Ready { network: Network::Pod { ip, additional } } => {
                Self::Ready { ips: std::iter::once(ip).chain(additional).map(ToString::to_string).collect() }
            }
            PodState::NotReady { why: Reason::Stopped | Reason::SetupFailed(_) } => Self::Stopped,
            PodState::NotReady { why: Reason::SupervisorLost } => Self::SupervisorLost,
            PodState::NotReady { why: Reason::Rebooted } => Self::Rebooted,
        }
    }

    /// `None`: it never was a pod.
    pub(crate) fn state(&self) -> Option<PodState> {
        let not_ready = |why| Some(PodState::NotReady { why });
        match self {
            Self::Preparing => None,
            Self::Ready { ips } => {
                let mut ips = ips.iter().filter_map(|ip| ip.parse().ok());
                let network = match ips.next() {
                    Some(ip) => Network::Pod { ip, additional: ips.collect() },
                    None => Network::Host,
                };
                Some(PodState::Ready { network })
            }
            Self::Stopped => not_ready(Reason::Stopped),
            Self::SupervisorLost => not_ready(Reason::SupervisorLost),
            Self::Rebooted => not_ready(Reason::Rebooted),
        }
    }
}

/// The bytes of a record.
pub(crate) fn encode<T: Encode<()>>(record: &T) -> Vec<u8> {
    minicbor::to_vec(record).expect("a Vec takes everything")
}

#[cfg(test)]
pub(crate) mod tests {
    use model::pod::{PodKey, PodNamespaces};

    use super::*;

    pub(crate) fn pod() -> PodRecord {
        PodRecord {
            id: PodId::from_bytes([7; 32]),
            boot: "b".into(),
            created_at: 5,
            spec: PodSpec {
                key: PodKey { namespace: "ns".into(), name: "n".into(), uid: "u".into(), attempt: 1 },
                hostname: String::new(),
                log_directory: String::new(),
                dns: None,
                port_mappings: Vec::new(),
                labels: [("a".to_owned(), "b".to_owned())].into(),
                annotations: Default::default(),
                cgroup_parent: String::new(),
                namespaces: PodNamespaces::default(),
                sysctls: Default::default(),
                privileged: false,
                runtime_handler: String::new(),
                resources: Default::default(),
                overhead: Default::default(),
                user_made: false,
                run_as_user: None,
                run_as_group: None,
                userns: None,
                selinux: None,
                own: None,
            },
            phase: PodPhase::Ready { ips: vec!["10.0.0.1".into()] },
            network: NetworkDebt::Attached(vec![1, 2].into()),
            cgroup: "/x".into(),
            own_cgroup: true,
            size: None,
            more_networks: None,
            selinux_level: None,
        }
    }

    #[test]
    fn pod_records_round_trip() {
        let bytes = encode(&pod());
        assert_eq!(minicbor::decode::<PodRecord>(&bytes).unwrap(), pod());
    }

    #[test]
    fn the_first_bytes_are_for_ever() {
        let hex: String = encode(&pod()).iter().take(46).map(|b| format!("{b:02x}")).collect();
        // Array of 8: bytes(32), "b", 5, array of 15: array of 4: "ns", "n", ..
        assert_eq!(hex, format!("885820{}6162058f84626e73616e61", "07".repeat(32)));
    }
}
