//! What can go wrong with a pod's network.

use std::{io, net::IpAddr, path::PathBuf, time::Duration};

use model::{ErrorKind, PodId, pod::Protocol};

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration of the bridge makes no sense.
    #[error("bridge configuration: {0}")]
    Config(String),
    /// The list of pod CIDRs cannot be read.
    #[error("pod CIDR {0:?} is not a list of ADDRESS/LENGTH with room for pods")]
    PodCidr(String),
    /// The namespace cannot be entered.
    #[error("open network namespace {path}")]
    OpenNamespace {
        /// The namespace.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// setns(2) failed.
    #[error("enter network namespace {path}")]
    EnterNamespace {
        /// The namespace.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread could not be started, or it panicked.
    #[error("start a thread in network namespace {path}")]
    Thread {
        /// The namespace.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a netlink request.
    #[error("{action}")]
    Netlink {
        /// What was tried, with the names in it.
        action: String,
        /// Why.
        #[source]
        source: NetlinkError,
    },
    /// A sysctl cannot be read or written.
    #[error("set sysctl {path} to {value}")]
    Sysctl {
        /// Below /proc/sys.
        path: PathBuf,
        /// The wanted value.
        value: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bridge's name belongs to something else.
    #[error("interface {0} exists and is not a bridge")]
    NotABridge(String),
    /// Another interface has addresses of the pods' subnet.
    #[error("subnet {subnet} of the pods is in use by interface {interface} ({address})")]
    SubnetInUse {
        /// Ours.
        subnet: String,
        /// The other interface.
        interface: String,
        /// Its address.
        address: IpAddr,
    },
    /// An address that is asked for cannot be a pod's.
    #[error("address {address} is none for a container of the network's subnets")]
    AddressOutside {
        /// It.
        address: IpAddr,
    },
    /// An address that is asked for is somebody's.
    #[error("address {address} is in use")]
    AddressTaken {
        /// It.
        address: IpAddr,
    },
    /// There is no room for another network.
    #[error("no free subnet in {pool}: all are in use by networks, interfaces or routes of this machine")]
    SubnetsExhausted {
        /// Where it was looked for.
        pool: String,
    },
    /// All addresses are given out.
    #[error("no free address in subnet {subnet}: {used} in use")]
    AddressesExhausted {
        /// The subnet.
        subnet: String,
        /// How many pods hold one.
        used: usize,
    },
    /// A host port is taken by another pod.
    #[error("host port {port} is taken by pod {holder}")]
    PortTaken {
        /// `ADDRESS:PORT/PROTOCOL`.
        port: String,
        /// Who has it.
        holder: PodId,
    },
    /// A host port is asked for twice in one pod.
    #[error("host port {port} is asked for twice")]
    PortTwice {
        /// `ADDRESS:PORT/PROTOCOL`.
        port: String,
    },
    /// A port cannot be mapped as asked.
    #[error("host port {host_port}/{protocol:?}: {why}")]
    PortInvalid {
        /// Port of the host.
        host_port: u16,
        /// Protocol.
        protocol: Protocol,
        /// What is wrong.
        why: &'static str,
    },
    /// The pod has a network already.
    #[error("pod {0} is attached already")]
    AlreadyAttached(PodId),
    /// A pod's network record cannot be written or read.
    #[error("network record of pod {pod}")]
    Record {
        /// The pod.
        pod: PodId,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// There is no usable CNI configuration.
    #[error("no CNI network: {0}")]
    NoCniNetwork(String),
    /// A pod's name cannot be handed to CNI plugins.
    #[error("{name} {value:?} cannot be passed to CNI plugins: it contains ';' or a NUL")]
    CniArgument {
        /// Which argument.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A CNI plugin did not do what it was asked.
    #[error("CNI {command} of plugin {plugin} in network {network}")]
    Cni {
        /// `ADD`, `DEL` or `STATUS`.
        command: &'static str,
        /// The plugin's type.
        plugin: String,
        /// The network's name.
        network: String,
        /// Why.
        #[source]
        source: Box<CniError>,
    },
}

/// What the kernel answered on a netlink socket.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// A system call on the socket failed.
    #[error("netlink socket")]
    Socket(#[source] io::Error),
    /// The request was refused.
    #[error("{errno}{}{message}", if message.is_empty() { "" } else { ": " })]
    Refused {
        /// errno.
        errno: rustix::io::Errno,
        /// The kernel's own words (extended ack); may be empty.
        message: String,
    },
    /// The kernel did not answer in time.
    #[error("no answer from the kernel in time")]
    Timeout,
    /// An answer that cannot be understood.
    #[error("malformed netlink answer")]
    Malformed,
}

impl NetlinkError {
    /// errno of a refused request.
    pub(crate) fn errno(&self) -> Option<rustix::io::Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Socket(_) | Self::Timeout | Self::Malformed => None,
        }
    }
}

/// Why a CNI plugin's run failed.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// The plugin's type is no file name.
    #[error("plugin type {0:?} is not made of letters, digits, '.', '_' and '-'")]
    BadType(String),
    /// The plugin is not in any of the directories.
    #[error("not found in {0}")]
    NotFound(String),
    /// The plugin's file or directory could be changed by somebody else than root, or is not a program.
    #[error("{path}: {why}")]
    Untrusted {
        /// File or directory.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// The plugin cannot be opened or started, or its pipes failed.
    #[error("{action} {path}")]
    Run {
        /// What was tried.
        action: &'static str,
        /// The plugin.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The plugin was killed because it took too long.
    #[error("no answer within {0:?}, killed")]
    Timeout(Duration),
    /// The plugin was killed because it wrote too much.
    #[error("more than {0} bytes of output, killed")]
    TooMuchOutput(usize),
    /// The plugin reported an error.
    #[error("{message} (code {code})")]
    Reported {
        /// CNI error code.
        code: u64,
        /// Message and details.
        message: String,
    },
    /// The plugin failed without saying why in the agreed form.
    #[error("{status}: {output}")]
    Failed {
        /// How it ended.
        status: String,
        /// What it wrote, cut.
        output: String,
    },
    /// The result cannot be used.
    #[error("result: {0}")]
    BadResult(String),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::AddressOutside { .. }
            | Self::Config(_)
            | Self::PodCidr(_)
            | Self::PortTwice { .. }
            | Self::PortInvalid { .. }
            | Self::CniArgument { .. } => ErrorKind::InvalidArgument,
            Self::OpenNamespace { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::OpenNamespace { .. } | Self::EnterNamespace { .. } | Self::Sysctl { .. } => ErrorKind::Internal,
            Self::SubnetsExhausted { .. } | Self::Thread { .. } | Self::AddressesExhausted { .. } => ErrorKind::ResourceExhausted,
            Self::Netlink { source, .. } => source.kind(),
            Self::AddressTaken { .. } | Self::NotABridge(_) | Self::SubnetInUse { .. } | Self::PortTaken { .. } => {
                ErrorKind::FailedPrecondition
            }
            Self::AlreadyAttached(_) => ErrorKind::AlreadyExists,
            Self::Record { .. } => ErrorKind::Corrupted,
            Self::NoCniNetwork(_) => ErrorKind::Unavailable,
            Self::Cni { source, .. } => source.kind(),
        }
    }
}

impl NetlinkError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        use rustix::io::Errno;
        match self {
            Self::Timeout => ErrorKind::DeadlineExceeded,
            Self::Refused { errno, .. } => match *errno {
                Errno::PERM | Errno::ACCESS => ErrorKind::PermissionDenied,
                Errno::NOMEM | Errno::NOBUFS | Errno::NOSPC | Errno::XFULL => ErrorKind::ResourceExhausted,
                Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT => ErrorKind::Unsupported,
                _ => ErrorKind::Internal,
            },
            Self::Socket(_) | Self::Malformed => ErrorKind::Internal,
        }
    }
}

impl CniError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BadType(_) | Self::Untrusted { .. } => ErrorKind::FailedPrecondition,
            Self::Timeout(_) => ErrorKind::DeadlineExceeded,
            Self::NotFound(_)
            | Self::Run { .. }
            | Self::TooMuchOutput(_)
            | Self::Reported { .. }
            | Self::Failed { .. }
            | Self::BadResult(_) => ErrorKind::Unavailable,
        }
    }
}

/// An error with all its causes, for people.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
