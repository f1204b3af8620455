//! Containers of people: what is asked for beyond what CRI can say, and when they start again.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode, bytes::ByteVec};

use crate::{
    container::ContainerSpec,
    plan::{LogLimit, Rlimit},
    pod::{PodSpec, PortMapping},
};

/// When a container starts again by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum RestartPolicy {
    /// Never.
    #[n(0)]
    #[default]
    No,
    /// Whatever ends it; one that was stopped by hand, when the engine starts.
    #[n(1)]
    Always,
    /// Whatever ends it, unless it was stopped by hand.
    #[n(2)]
    UnlessStopped,
    /// When it ends with another code than 0.
    #[n(3)]
    OnFailure {
        /// How often in a row; 0: always.
        #[n(0)]
        maximum: u32,
    },
}

/// How a container ended, as far as its policy is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Exit code.
    pub code: i32,
    /// Somebody stopped or killed it.
    pub by_hand: bool,
    /// How often it was started again in a row.
    pub restarts: u32,
}

impl RestartPolicy {
    /// Whether a container that has just ended starts again.
    pub fn again(self, ending: Ending) -> bool {
        match self {
            _ if ending.by_hand => false,
            Self::No => false,
            Self::Always | Self::UnlessStopped => true,
            Self::OnFailure { maximum } => ending.code != 0 && (maximum == 0 || ending.restarts < maximum),
        }
    }

    /// Whether one that has ended, after it had run, starts when the engine does.
    pub fn at_engine_start(self, ending: Ending) -> bool {
        self == Self::Always || self.again(ending)
    }
}

/// What a container of people has mounted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UserMount {
    /// Of what.
    #[n(0)]
    pub kind: UserMountKind,
    /// A path of the host, a volume's name (empty: an anonymous one), an image.
    #[n(1)]
    pub source: String,
    /// Where in the container; absolute.
    #[n(2)]
    pub target: String,
    /// Read-only.
    #[n(3)]
    pub read_only: bool,
    /// As asked for: `rprivate`, `rslave`, ..; may be empty.
    #[n(4)]
    pub propagation: String,
    /// A missing source is an error; else it becomes a directory.
    #[n(5)]
    pub must_exist: bool,
    /// Nothing of the image is copied into a new volume.
    #[n(6)]
    pub no_copy: bool,
    /// Of a tmpfs: bytes; `None`: half of memory.
    #[n(7)]
    pub tmpfs_size: Option<u64>,
    /// Of a tmpfs.
    #[n(8)]
    pub tmpfs_mode: Option<u32>,
    /// Part of the volume or image.
    #[n(9)]
    pub subpath: String,
    /// Of a new volume.
    #[n(10)]
    pub volume_labels: BTreeMap<String, String>,
    /// noexec, nosuid, nodev.
    #[n(11)]
    pub options: Vec<String>,
    /// `z`, `Z` or empty.
    #[n(12)]
    pub relabel: String,
    /// Nothing below a read-only mount is writable either.
    #[n(13)]
    pub recursive_read_only: bool,
}

/// What a mount is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum UserMountKind {
    /// A file or directory of the host.
    #[n(0)]
    Bind,
    /// A volume.
    #[n(1)]
    Volume,
    /// Memory.
    #[n(2)]
    Tmpfs,
    /// An image.
    #[n(3)]
    Image,
}

/// Which network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct UserNetwork {
    /// `bridge` (also when empty), `none`, `host`, `container:NAME`, or a network's name.
    #[n(0)]
    pub name: String,
    /// Other names in it.
    #[n(1)]
    pub aliases: Vec<String>,
    /// An address in it.
    #[n(2)]
    pub ip: String,
    /// All exposed ports get a free one of the host.
    #[n(3)]
    pub publish_all: bool,
    /// Ports of the host.
    #[n(4)]
    pub ports: Vec<PortMapping>,
    /// Ports that it says it listens on, beside the image's: `PORT[/PROTOCOL]`.
    #[n(5)]
    pub exposed: Vec<String>,
}

/// How it is found out whether a container is well. Times are nanoseconds; 0: nothing was said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Healthcheck {
    /// `NONE`; `CMD` with a command; `CMD-SHELL` with a line for a shell. Empty: nothing was said.
    #[n(0)]
    pub test: Vec<String>,
    /// Between two probes.
    #[n(1)]
    pub interval: u64,
    /// For one probe.
    #[n(2)]
    pub timeout: u64,
    /// From the start: what fails in it does not count.
    #[n(3)]
    pub start_period: u64,
    /// Between two probes of the start period.
    #[n(4)]
    pub start_interval: u64,
    /// How many failures in a row it takes.
    #[n(5)]
    pub retries: u32,
}

impl Healthcheck {
    /// What is said here, and where nothing is said what `image` says.
    #[must_use]
    pub fn over(self, image: &Self) -> Self {
        let either = |own: u64, image: u64| if own == 0 { image } else { own };
        Self {
            test: if self.test.is_empty() { image.test.clone() } else { self.test },
            interval: either(self.interval, image.interval),
            timeout: either(self.timeout, image.timeout),
            start_period: either(self.start_period, image.start_period),
            start_interval: either(self.start_interval, image.start_interval),
            retries: if self.retries == 0 { image.retries } else { self.retries },
        }
    }
}

/// How well a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum HealthStatus {
    /// Not known yet.
    #[n(0)]
    Starting,
    /// The last probe succeeded, or not enough have failed since.
    #[n(1)]
    Healthy,
    /// Enough have failed in a row, or it does not run any more.
    #[n(2)]
    Unhealthy,
}

impl HealthStatus {
    /// docker's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One look at a container.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Probe {
    /// When it began: nanoseconds since 1970.
    #[n(0)]
    pub start: i64,
    /// When it ended.
    #[n(1)]
    pub end: i64,
    /// Its exit code; -1: it did not end in time, or could not be run.
    #[n(2)]
    pub code: i32,
    /// What it said, as far as it is kept.
    #[n(3)]
    pub output: String,
}

/// What is known of how well a container is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Health {
    /// How well.
    #[n(0)]
    pub status: HealthStatus,
    /// Failures in a row.
    #[n(1)]
    pub failing: u32,
    /// The last probes, oldest first.
    #[n(2)]
    pub log: Vec<Probe>,
}

/// A container as a person asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UserContainerSpec {
    /// The container of each run. Its key, mounts, log path and image id are the engine's to fill in.
    #[n(0)]
    pub container: ContainerSpec,
    /// The pod of each run. Its key, log directory, port mappings and network are the engine's to fill in.
    #[n(1)]
    pub pod: PodSpec,
    /// Mounts.
    #[n(2)]
    pub mounts: Vec<UserMount>,
    /// Paths that get a volume of their own, beside the image's.
    #[n(3)]
    pub volumes: Vec<String>,
    /// Takes the mounts of these containers too.
    #[n(4)]
    pub volumes_from: Vec<String>,
    /// Network.
    #[n(5)]
    pub network: UserNetwork,
    /// When it starts again.
    #[n(6)]
    pub restart: RestartPolicy,
    /// It goes when it has ended.
    #[n(7)]
    pub auto_remove: bool,
    /// Seconds from the stop signal to SIGKILL; `None`: 10.
    #[n(8)]
    pub stop_timeout: Option<u32>,
    /// What the client wrote, in its own encoding: never read by the engine, given back as it is.
    #[n(9)]
    pub request: ByteVec,
    /// How it is found out whether it is well, where it is not as the image says.
    #[n(10)]
    pub healthcheck: Option<Healthcheck>,
    /// Further networks.
    #[cbor(n(11), default)]
    pub more_networks: Vec<UserNetwork>,
    /// The containers, by name or id, whose namespaces it shares.
    #[cbor(n(12), default)]
    pub shares: Shares,
    /// The platform that its image has to be of, `OS[/ARCHITECTURE[/VARIANT]]`; empty: any.
    #[cbor(n(13), default)]
    pub platform: String,
    /// Each run has a user namespace of its own, with ids of this machine that nobody else has meanwhile.
    #[cbor(n(14), default)]
    pub own_userns: bool,
}

/// The containers whose namespaces a container shares, by name or id; empty: it has its own, or the machine's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Shares {
    /// PID.
    #[n(0)]
    pub pid: String,
    /// IPC.
    #[n(1)]
    pub ipc: String,
}

/// What a container has that CRI cannot say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct OwnContainer {
    /// The user as an image would write it; empty: the image's.
    #[n(0)]
    pub user: String,
    /// Further groups, by name or number.
    #[n(1)]
    pub groups: Vec<String>,
    /// The image's entrypoint and its CMD do not count.
    #[n(2)]
    pub no_entrypoint: bool,
    /// Limits of setrlimit(2) over the engine's own.
    #[n(3)]
    pub rlimits: Vec<Rlimit>,
    /// File systems of memory.
    #[n(4)]
    pub tmpfs: Vec<UserMount>,
    /// How much of what it says is kept; `None`: the default.
    #[n(5)]
    pub log_limit: Option<LogLimit>,
    /// Nothing of what it says is kept.
    #[cbor(n(6), default)]
    pub no_log: bool,
    /// Further rules of the device cgroup: `TYPE MAJOR:MINOR ACCESS`, as in devices.allow of cgroup v1.
    #[cbor(n(7), default)]
    pub device_rules: Vec<String>,
    /// A cgroup namespace of its own, or the machine's; `None`: as its privileges are.
    #[n(8)]
    pub own_cgroup_namespace: Option<bool>,
}

/// What a pod has that CRI cannot say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct OwnPod {
    /// It has a network namespace with nothing but loopback in it.
    #[n(0)]
    pub no_network: bool,
    /// More lines of hosts(5): name, address.
    #[n(1)]
    pub hosts: Vec<(String, String)>,
    /// Size of /dev/shm in bytes; `None`: the engine's.
    #[n(2)]
    pub shm_size: Option<u64>,
    /// The network of people's that it is in; `None`: that of all pods.
    #[n(3)]
    pub network: Option<OwnNetwork>,
    /// Host and domain name are the machine's.
    #[cbor(n(4), default)]
    pub host_uts: bool,
    /// Domain of its host name; empty: none.
    #[cbor(n(5), default)]
    pub domainname: String,
    /// The container whose network namespace it is in.
    #[n(6)]
    pub network_of: Option<crate::ContainerId>,
    /// The container whose IPC namespace it is in.
    #[n(7)]
    pub ipc_of: Option<crate::ContainerId>,
    /// The container whose PID namespace its own one is in.
    #[n(8)]
    pub pid_of: Option<crate::ContainerId>,
    /// After a crash of the machine nothing of it is worth anything; `None`: it is.
    #[n(9)]
    pub fleeting: Option<bool>,
}

/// A place in a network of people's.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OwnNetwork {
    /// Which.
    #[n(0)]
    pub id: crate::NetworkId,
    /// The address in it that it wants.
    #[cbor(n(1), with = "crate::plan::ip_text")]
    pub ip: Option<std::net::IpAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let ended = |code, by_hand, restarts| Ending { code, by_hand, restarts };
        let limited = RestartPolicy::OnFailure { maximum: 2 };
        for (policy, ending, again, at_start) in [
            (RestartPolicy::No, ended(1, false, 0), false, false),
            (RestartPolicy::Always, ended(0, false, 9), true, true),
            (RestartPolicy::Always, ended(0, true, 0), false, true),
            (RestartPolicy::UnlessStopped, ended(0, false, 0), true, true),
            (RestartPolicy::UnlessStopped, ended(0, true, 0), false, false),
            (RestartPolicy::OnFailure { maximum: 0 }, ended(1, false, 99), true, true),
            (RestartPolicy::OnFailure { maximum: 0 }, ended(0, false, 0), false, false),
            (limited, ended(1, false, 1), true, true),
            (limited, ended(1, false, 2), false, false),
            (limited, ended(1, true, 0), false, false),
        ] {
            assert_eq!((policy.again(ending), policy.at_engine_start(ending)), (again, at_start), "{policy:?} {ending:?}");
        }
    }
}
