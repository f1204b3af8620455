//! Containers: what is asked for, and the state machine.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode, bytes::ByteVec};

use crate::{
    ImageId, Resources, Signal,
    pod::{PidMode, Refusal, Timestamp, UserNamespace},
};

/// Name and attempt of a container within its pod: what a client retries with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ContainerKey {
    /// Name, unique in the pod together with `attempt`.
    #[n(0)]
    pub name: String,
    /// How often it was created before.
    #[n(1)]
    pub attempt: u32,
}

/// One environment variable. Values are bytes (CRI 0.36 `KeyValue`).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EnvVar {
    /// Name: not empty, no `=`, no NUL.
    #[n(0)]
    pub name: String,
    /// Value: no NUL.
    #[n(1)]
    pub value: ByteVec,
}

/// How mounts made later travel between host and container (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Propagation {
    /// Neither way.
    #[n(0)]
    #[default]
    Private,
    /// From the host into the container (rslave).
    #[n(1)]
    HostToContainer,
    /// Both ways (rshared).
    #[n(2)]
    Bidirectional,
}

/// A bind mount that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BindMount {
    /// Where in the container; absolute.
    #[n(0)]
    pub container_path: String,
    /// What of the host; absolute.
    #[n(1)]
    pub host_path: String,
    /// Read-only.
    #[n(2)]
    pub readonly: bool,
    /// Read-only including everything mounted below (KEP-3857).
    #[n(3)]
    pub recursive_read_only: bool,
    /// Propagation.
    #[n(4)]
    pub propagation: Propagation,
    /// Whether a relabel was asked for; only shown back where SELinux is off.
    #[n(5)]
    pub selinux_relabel: bool,
    /// `noexec`, `nodev`, `nosuid`, as asked for (KEP-5855).
    #[cbor(n(6), default)]
    pub mount_options: Vec<String>,
    /// The mapping that its owners are to be shown by.
    #[n(7)]
    pub idmap: Option<UserNamespace>,
}

/// An image that a client wants to see in a container (KEP-4639). Always read-only.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ImageVolume {
    /// Where in the container; absolute.
    #[n(0)]
    pub container_path: String,
    /// The image's name or id as the client wrote it.
    #[n(1)]
    pub image: String,
    /// Only this directory or file of the image, relative to its root, without `..`; empty: all of it.
    #[n(2)]
    pub sub_path: String,
    /// What the user wrote, if the client says so.
    #[n(3)]
    pub user_specified_image: String,
    /// The handler of the pod, if the client says so.
    #[n(4)]
    pub runtime_handler: String,
    /// Annotations of the ImageSpec, shown back.
    #[n(5)]
    pub annotations: BTreeMap<String, String>,
    /// `noexec`, `nodev`, `nosuid`, as asked for (KEP-5855).
    #[cbor(n(6), default)]
    pub mount_options: Vec<String>,
}

/// A device node that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeviceSpec {
    /// Path in the container.
    #[n(0)]
    pub container_path: String,
    /// Path on the host: a device, or a directory of them.
    #[n(1)]
    pub host_path: String,
    /// Some of `rwm`.
    #[n(2)]
    pub permissions: String,
}

/// Who the process runs as.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum UserSpec {
    /// As the image says.
    #[n(0)]
    Image,
    /// By number.
    #[n(1)]
    Id(#[n(0)] u32),
    /// By name in the image's /etc/passwd.
    #[n(2)]
    Name(#[n(0)] String),
}

/// Which seccomp profile.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SeccompSpec {
    /// The engine's default profile.
    #[n(0)]
    RuntimeDefault,
    /// None.
    #[n(1)]
    Unconfined,
    /// A JSON file of the host; absolute path.
    #[n(2)]
    Localhost(#[n(0)] String),
}

/// Which AppArmor profile.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AppArmorSpec {
    /// The engine's default profile.
    #[n(0)]
    RuntimeDefault,
    /// None.
    #[n(1)]
    Unconfined,
    /// One that the host has loaded, by its name.
    #[n(2)]
    Localhost(#[n(0)] String),
}

/// Parts of an SELinux label; empty ones were not said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SelinuxSpec {
    /// User.
    #[n(0)]
    pub user: String,
    /// Role.
    #[n(1)]
    pub role: String,
    /// Type.
    #[n(2)]
    pub kind: String,
    /// Level: sensitivity and categories.
    #[n(3)]
    pub level: String,
}

/// The security context of a container.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SecuritySpec {
    /// User.
    #[n(0)]
    pub user: UserSpec,
    /// Primary group; only together with a user.
    #[n(1)]
    pub group: Option<u32>,
    /// Further groups.
    #[n(2)]
    pub supplemental_groups: Vec<u32>,
    /// `true`: only `supplemental_groups`; `false`: those of the image's /etc/group too (KEP-3619).
    #[n(3)]
    pub supplemental_groups_strict: bool,
    /// Capabilities added to the default set, without `CAP_`; `ALL` means all.
    #[n(4)]
    pub add_capabilities: Vec<String>,
    /// Capabilities dropped from it.
    #[n(5)]
    pub drop_capabilities: Vec<String>,
    /// Capabilities that survive exec of a plain file (ambient).
    #[n(6)]
    pub ambient_capabilities: Vec<String>,
    /// Everything: all capabilities, all devices, nothing masked, no seccomp.
    #[n(7)]
    pub privileged: bool,
    /// Read-only root.
    #[n(8)]
    pub readonly_rootfs: bool,
    /// No new privileges (prctl(2) PR_SET_NO_NEW_PRIVS).
    #[n(9)]
    pub no_new_privs: bool,
    /// Hidden paths, exactly these.
    #[n(10)]
    pub masked_paths: Vec<String>,
    /// Read-only paths, exactly these.
    #[n(11)]
    pub readonly_paths: Vec<String>,
    /// seccomp.
    #[n(12)]
    pub seccomp: SeccompSpec,
    /// PID namespace.
    #[n(13)]
    pub pid: PidMode,
    /// AppArmor; `None`: nothing was said.
    #[n(17)]
    pub apparmor: Option<AppArmorSpec>,
    /// SELinux.
    #[n(18)]
    pub selinux: Option<SelinuxSpec>,
}

/// Everything a client says about a container.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ContainerSpec {
    /// Identity within the pod.
    #[n(0)]
    pub key: ContainerKey,
    /// The image's name or id as the client wrote it.
    #[n(1)]
    pub image: String,
    /// What the user wrote, if the client says so.
    #[n(2)]
    pub user_specified_image: String,
    /// Replaces the image's entrypoint.
    #[n(3)]
    pub command: Vec<String>,
    /// Replaces the image's cmd.
    #[n(4)]
    pub args: Vec<String>,
    /// Working directory; empty: the image's.
    #[n(5)]
    pub working_dir: String,
    /// Environment on top of the image's.
    #[n(6)]
    pub envs: Vec<EnvVar>,
    /// Bind mounts.
    #[n(7)]
    pub mounts: Vec<BindMount>,
    /// Devices.
    #[n(8)]
    pub devices: Vec<DeviceSpec>,
    /// Labels, kept byte for byte. Never read by the engine.
    #[n(9)]
    pub labels: BTreeMap<String, String>,
    /// Annotations, kept byte for byte. Never read by the engine.
    #[n(10)]
    pub annotations: BTreeMap<String, String>,
    /// Log file relative to the pod's log directory; empty: none.
    #[n(11)]
    pub log_path: String,
    /// Keep stdin open.
    #[n(12)]
    pub stdin: bool,
    /// Close stdin when the first client of it goes.
    #[n(13)]
    pub stdin_once: bool,
    /// Give it a terminal.
    #[n(14)]
    pub tty: bool,
    /// Stop signal; `None`: the image's, else SIGTERM.
    #[n(15)]
    pub stop_signal: Option<Signal>,
    /// Limits.
    #[n(16)]
    pub resources: Resources,
    /// Security context.
    #[n(17)]
    pub security: SecuritySpec,
    /// Annotations of the ImageSpec, shown back.
    #[n(18)]
    pub image_annotations: BTreeMap<String, String>,
    /// Images mounted as volumes.
    #[cbor(n(19), default)]
    pub image_volumes: Vec<ImageVolume>,
    /// Class of block I/O, by its name in the engine's configuration.
    #[n(22)]
    pub block_io_class: Option<String>,
    /// RDT class: a group of resctrl.
    #[n(23)]
    pub rdt_class: Option<String>,
    /// Devices by their CDI names, `VENDOR/CLASS=DEVICE`.
    #[cbor(n(20), default)]
    pub cdi_devices: Vec<String>,
    /// What only containers of people have.
    #[n(24)]
    pub own: Option<crate::user::OwnContainer>,
}

/// The user a container's process really has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ResolvedUser {
    /// Uid.
    #[n(0)]
    pub uid: u32,
    /// Gid.
    #[n(1)]
    pub gid: u32,
    /// All groups of setgroups(2), the primary one among them.
    #[n(2)]
    pub groups: Vec<u32>,
    /// Home directory, for `HOME`.
    #[n(3)]
    pub home: String,
}

/// Whose memory ran out when the kernel's OOM killer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum OomScope {
    /// The container's own limit.
    #[n(0)]
    Container,
    /// The limit of its pod.
    #[n(1)]
    Pod,
    /// The limit of a cgroup above the pod: all pods together, or those of one class.
    #[n(2)]
    Above,
    /// The node's.
    #[n(3)]
    Node,
}

/// What became of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ExitStatus {
    /// Exit code; 128 + signal when a signal ended it.
    #[n(0)]
    pub code: i32,
    /// The signal that ended it.
    #[n(1)]
    pub signal: Option<Signal>,
    /// The kernel's OOM killer hit the container.
    #[n(2)]
    pub oom_killed: bool,
    /// Whose memory had run out; `None`: not known, or nobody's.
    #[n(3)]
    pub oom_scope: Option<OomScope>,
    /// The limit that was reached, in bytes.
    #[n(4)]
    pub oom_limit: Option<u64>,
}

impl ExitStatus {
    /// What people should know of it besides code and reason. Mostly nothing: a kubelet puts what the container itself
    /// left behind after this text, and its clients compare.
    fn message(&self) -> String {
        let limit = self.oom_limit.map(|bytes| format!(" of {bytes} bytes")).unwrap_or_default();
        match (self.oom_killed, self.oom_scope) {
            (true, Some(OomScope::Container)) => format!("the container reached its memory limit{limit}"),
            (true, Some(OomScope::Pod)) => format!("the pod reached its memory limit{limit}"),
            (true, Some(OomScope::Above)) => format!("the cgroup above the pod reached its memory limit{limit}"),
            (true, Some(OomScope::Node)) => "the node ran out of memory".to_owned(),
            (true, None) => "killed for lack of memory".to_owned(),
            (false, _) => String::new(),
        }
    }
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, waiting before exec.
    Created,
    /// Running.
    Running {
        /// When exec succeeded.
        started_at: Timestamp,
    },
    /// Over.
    Exited {
        /// When it started; `None`: never.
        started_at: Option<Timestamp>,
        /// When it ended.
        finished_at: Timestamp,
        /// How.
        exit: ExitStatus,
        /// Machine-readable reason ("Completed", "Error", "OOMKilled", "StartError", ..).
        reason: &'static str,
        /// For people.
        message: String,
    },
}

/// What moves a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerEvent {
    /// exec succeeded.
    Started {
        /// When.
        at: Timestamp,
    },
    /// exec did not succeed.
    StartFailed {
        /// When.
        at: Timestamp,
        /// Exit code by convention: 127 not found, 126 not executable, else 128.
        code: i32,
        /// Why.
        message: String,
    },
    /// Its main process ended.
    Exited {
        /// When.
        at: Timestamp,
        /// How.
        exit: ExitStatus,
    },
    /// Nothing more can be learned of it: its supervisor is gone.
    Lost {
        /// When that was noticed.
        at: Timestamp,
        /// Why.
        why: crate::pod::Reason,
    },
}

impl ContainerState {
    /// The state's name for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running { .. } => "running",
            Self::Exited { .. } => "exited",
        }
    }

    /// The only way a container changes state. Every pair is named. An end that comes twice changes nothing: the
    /// first report wins, so that times never move backwards.
    pub fn apply(self, event: ContainerEvent) -> Result<Self, Refusal> {
        use ContainerEvent as E;
        match (self, event) {
            (Self::Created, E::Started { at }) => Ok(Self::Running { started_at: at }),
            (state @ (Self::Running { .. } | Self::Exited { .. }), E::Started { .. }) => {
                Err(Refusal::Container { state: state.name(), request: "start" })
            }
            (Self::Created, E::StartFailed { at, code, message }) => Ok(Self::Exited {
                started_at: None,
                finished_at: at,
                exit: ExitStatus { code, ..ExitStatus::default() },
                reason: "StartError",
                message,
            }),
            (state @ Self::Running { .. }, E::StartFailed { .. }) => {
                Err(Refusal::Container { state: state.name(), request: "start" })
            }
            (Self::Created, E::Exited { at, exit }) => Ok(Self::ended(None, at, exit)),
            (Self::Running { started_at }, E::Exited { at, exit }) => Ok(Self::ended(Some(started_at), at, exit)),
            (Self::Created, E::Lost { at, why }) => Ok(Self::lost(None, at, &why)),
            (Self::Running { started_at }, E::Lost { at, why }) => Ok(Self::lost(Some(started_at), at, &why)),
            (state @ Self::Exited { .. }, E::StartFailed { .. } | E::Exited { .. } | E::Lost { .. }) => Ok(state),
        }
    }

    fn ended(started_at: Option<Timestamp>, at: Timestamp, exit: ExitStatus) -> Self {
        let reason = match exit {
            ExitStatus { oom_killed: true, .. } => "OOMKilled",
            ExitStatus { code: 0, .. } => "Completed",
            ExitStatus { .. } => "Error",
        };
        Self::Exited { started_at, finished_at: at.max(started_at.unwrap_or(at)), exit, reason, message: exit.message() }
    }

    fn lost(started_at: Option<Timestamp>, at: Timestamp, why: &crate::pod::Reason) -> Self {
        let exit = ExitStatus { code: 137, signal: Some(Signal::KILL), ..ExitStatus::default() };
        Self::Exited {
            started_at,
            finished_at: at.max(started_at.unwrap_or(at)),
            exit,
            reason: "ContainerStatusUnknown",
            message: why.to_string(),
        }
    }
}

/// What of an image a container needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ImageDefaults {
    /// Environment, `NAME=value`.
    #[n(0)]
    pub env: Vec<String>,
    /// Entrypoint.
    #[n(1)]
    pub entrypoint: Vec<String>,
    /// Cmd.
    #[n(2)]
    pub cmd: Vec<String>,
    /// `USER`, as written.
    #[n(3)]
    pub user: String,
    /// Working directory.
    #[n(4)]
    pub working_dir: String,
    /// Stop signal, as written.
    #[n(5)]
    pub stop_signal: String,
    /// Volumes.
    #[n(6)]
    pub volumes: Vec<String>,
    /// Labels.
    #[n(7)]
    pub labels: BTreeMap<String, String>,
    /// Ports that it says it listens on: `PORT[/PROTOCOL]`.
    #[cbor(n(8), default)]
    pub exposed_ports: Vec<String>,
    /// How it is found out whether a container of it is well.
    #[n(9)]
    pub healthcheck: Option<crate::user::Healthcheck>,
    /// What runs lines of its health check; empty: `/bin/sh -c`.
    #[cbor(n(10), default)]
    pub shell: Vec<String>,
}

/// Which image a container was made from.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ContainerImage {
    /// The image.
    #[n(0)]
    pub id: ImageId,
    /// A name of it, for people; may be empty.
    #[n(1)]
    pub name: String,
    /// A name of it with its digest, in full: what a kubelet shows as the `imageID` of a pod's status. Local images have none.
    #[n(2)]
    pub digest: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32, oom_killed: bool) -> ContainerEvent {
        ContainerEvent::Exited { at: 20, exit: ExitStatus { code, oom_killed, ..ExitStatus::default() } }
    }

    #[test]
    fn a_life() {
        let running = ContainerState::Created.apply(ContainerEvent::Started { at: 10 }).unwrap();
        for (code, oom, reason) in [(0, false, "Completed"), (1, false, "Error"), (137, true, "OOMKilled")] {
            let ContainerState::Exited { started_at, finished_at, reason: got, .. } =
                running.clone().apply(exit(code, oom)).unwrap()
            else {
                panic!("not exited");
            };
            assert_eq!((started_at, finished_at, got), (Some(10), 20, reason));
        }
    }

    #[test]
    fn an_oom_kill_says_whose_memory_ran_out() {
        for (scope, limit, text) in [
            (Some(OomScope::Container), Some(64), "the container reached its memory limit of 64 bytes"),
            (Some(OomScope::Pod), None, "the pod reached its memory limit"),
            (Some(OomScope::Above), None, "the cgroup above the pod reached its memory limit"),
            (Some(OomScope::Node), None, "the node ran out of memory"),
            (None, None, "killed for lack of memory"),
        ] {
            let exit = ExitStatus { code: 137, oom_killed: true, oom_scope: scope, oom_limit: limit, ..ExitStatus::default() };
            let ContainerState::Exited { reason, message, .. } = ContainerState::ended(Some(1), 2, exit) else { panic!() };
            assert_eq!((reason, message.as_str()), ("OOMKilled", text));
        }
        assert_eq!(ExitStatus { code: 1, ..ExitStatus::default() }.message(), "");
    }

    #[test]
    fn the_first_end_wins_and_nothing_starts_twice() {
        let over = ContainerState::Created.apply(exit(3, false)).unwrap();
        assert_eq!(over.clone().apply(exit(4, false)).unwrap(), over);
        assert!(over.apply(ContainerEvent::Started { at: 1 }).is_err());
        let running = ContainerState::Running { started_at: 30 };
        assert!(running.clone().apply(ContainerEvent::Started { at: 31 }).is_err());
        // A clock that went backwards cannot make it end before it began.
        let ContainerState::Exited { finished_at, .. } = running.apply(exit(0, false)).unwrap() else { panic!("not exited") };
        assert_eq!(finished_at, 30);
    }
}
