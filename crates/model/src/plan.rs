//! Plans: what the executor carries out, with every decision already made. The daemon writes them (`engine::spec`),
//! the supervisor reads them; field numbers are for ever, because an old supervisor meets a new daemon.
//!
//! A plan contains no policy and nothing that has to be looked up: users are numbers, seccomp is a program, paths are
//! absolute. Paths *inside* the root are resolved by the executor within that root, never on the host.

use std::{collections::BTreeMap, time::Duration};

use minicbor::{Decode, Encode, bytes::ByteVec};

use crate::{
    ContainerId, ExecId,
    container::Propagation,
    pod::{PidMode, UserNamespace},
};

/// What the supervisor of a pod makes first.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PodPlan {
    /// Own network namespace; else the host's.
    #[n(0)]
    pub own_network: bool,
    /// Own IPC namespace, and a /dev/shm with it; else the host's.
    #[n(1)]
    pub own_ipc: bool,
    /// Host name of an own UTS namespace; `None`: the host's namespace.
    #[n(2)]
    pub hostname: Option<String>,
    /// Own PID namespace for the pod, held by an init process.
    #[n(3)]
    pub shared_pid: bool,
    /// Sysctls, keys in dotted form, already checked against the namespaces above.
    #[n(4)]
    pub sysctls: BTreeMap<String, String>,
    /// Size of the pod's /dev/shm in bytes.
    #[n(5)]
    pub shm_size: u64,
    /// cgroup for the supervisor itself, below each hierarchy's root, e.g. `/kubepods/podX/creel-ab12`. Exists already.
    #[n(6)]
    pub cgroup: String,
    /// SELinux label of /dev/shm; `None`: that of the file system.
    #[n(12)]
    pub mount_label: Option<String>,
    /// Own user namespace, which the others are owned by; else the host's.
    #[n(7)]
    pub userns: Option<UserNamespace>,
    /// NIS domain name of an own UTS namespace; `None`: the kernel's.
    #[n(13)]
    pub domainname: Option<String>,
    /// Namespaces of others that it is in instead; their descriptors come with the plan, in this order. `None`: there are none.
    #[n(14)]
    pub joined: Option<Vec<JoinedNamespace>>,
}

impl PodPlan {
    /// Namespaces of others that it is in.
    pub fn joined(&self) -> &[JoinedNamespace] {
        self.joined.as_deref().unwrap_or_default()
    }
}

/// A namespace that a pod shares with somebody who has it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum JoinedNamespace {
    /// Network.
    #[n(0)]
    Network,
    /// IPC.
    #[n(1)]
    Ipc,
    /// The mount namespace from which /dev/shm is taken, which goes with IPC.
    #[n(2)]
    Shm,
    /// PID: that of containers whose target is none of this pod's.
    #[n(3)]
    Pid,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ContainerPlan {
    /// Its id.
    #[n(0)]
    pub id: ContainerId,
    /// The main process.
    #[n(1)]
    pub process: ProcessPlan,
    /// PID namespace.
    #[n(2)]
    pub pid: PidMode,
    /// Read-only root.
    #[n(3)]
    pub readonly_rootfs: bool,
    /// Mounts, in order. `/proc`, `/sys`, `/dev` and everything else is here: nothing is mounted that is not.
    #[n(4)]
    pub mounts: Vec<MountPlan>,
    /// Device nodes besides the standard ones (null zero full random urandom tty, made with `/dev`).
    #[n(5)]
    pub devices: Vec<DeviceNode>,
    /// Hidden paths.
    #[n(6)]
    pub masked_paths: Vec<String>,
    /// Read-only paths.
    #[n(7)]
    pub readonly_paths: Vec<String>,
    /// cgroup, below each hierarchy's root. Exists already with its limits set; the process joins it.
    #[n(8)]
    pub cgroup: String,
    /// Own cgroup namespace.
    #[n(9)]
    pub own_cgroup_namespace: bool,
    /// CRI log file, absolute; `None`: output is thrown away. Its directory exists.
    #[n(10)]
    pub log_path: Option<String>,
    /// Keep stdin open.
    #[n(11)]
    pub stdin: bool,
    /// Close stdin when the first client of it goes.
    #[n(12)]
    pub stdin_once: bool,
    /// Propagation of the container's root mount: `Bidirectional` and `HostToContainer` if any mount needs it.
    #[n(13)]
    pub root_propagation: Propagation,
    /// Programs to be run at points of its life; `None`: there are none.
    #[n(17)]
    pub hooks: Option<HooksPlan>,
    /// SELinux label of the file systems that are made for it; `None`: those that the policy gives them.
    #[n(31)]
    pub mount_label: Option<String>,
    /// Annotations in force where plugins have changed them; `None`: the client's.
    #[n(22)]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Made by an OCI runtime and not by the executor.
    #[n(24)]
    pub oci: Option<OciPlan>,
    /// How large the log may become; `None`: somebody else rotates it.
    #[n(32)]
    pub log_limit: Option<LogLimit>,
}

/// How much room a log may take: what is oldest goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LogLimit {
    /// Bytes of one file.
    #[n(0)]
    pub file_bytes: u64,
    /// Files, the one that is written to among them; at least 1.
    #[n(1)]
    pub files: u32,
}

impl Default for LogLimit {
    fn default() -> Self {
        Self { file_bytes: 100_000_000, files: 3 }
    }
}

/// Hooks of the OCI runtime specification, and what they find.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HooksPlan {
    /// The programs; those of one stage in order.
    #[n(0)]
    pub list: Vec<Hook>,
    /// Directory of the host that the state names as the bundle; made with `config` in it as `config.json`, and with an empty
    /// directory `rootfs` on which hooks inside of the container's namespaces find its root.
    #[n(1)]
    pub bundle: String,
    /// The container as config.json of the OCI runtime specification; empty in records.
    #[n(2)]
    pub config: ByteVec,
    /// Annotations in the state.
    #[n(3)]
    pub annotations: BTreeMap<String, String>,
}

impl HooksPlan {
    /// How long those of these points may take together.
    pub fn time(&self, stages: &[HookStage]) -> Duration {
        let hooks = self.list.iter().filter(|hook| stages.contains(&hook.stage));
        hooks.map(|hook| Duration::from_secs(hook.timeout.into())).sum()
    }
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hook {
    /// When.
    #[n(0)]
    pub stage: HookStage,
    /// Its program, absolute: on the host, for [`HookStage::StartContainer`] in the container.
    #[n(1)]
    pub path: String,
    /// argv, its own name first; never empty.
    #[n(2)]
    pub args: Vec<String>,
    /// All of its environment, `NAME=value`.
    #[n(3)]
    pub env: Vec<String>,
    /// Seconds that it may take.
    #[n(4)]
    pub timeout: u32,
}

/// Points of a container's life (OCI runtime specification, config.md, POSIX-platform hooks).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum HookStage {
    /// The namespaces are there, the root is not changed yet; in the supervisor's namespaces. Older name of the next.
    #[n(0)]
    Prestart,
    /// As before.
    #[n(1)]
    CreateRuntime,
    /// The same point, in the container's namespaces with the host's root.
    #[n(2)]
    CreateContainer,
    /// Before the program runs, in the container.
    #[n(3)]
    StartContainer,
    /// The program runs; in the supervisor's namespaces.
    #[n(4)]
    Poststart,
    /// The container is gone; in the supervisor's namespaces.
    #[n(5)]
    Poststop,
}

/// One process, main or exec.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProcessPlan {
    /// argv; the first is looked up in the `PATH` of `env` inside the root unless it has a slash.
    #[n(0)]
    pub args: Vec<String>,
    /// Environment, `NAME=value`.
    #[n(1)]
    pub env: Vec<ByteVec>,
    /// Working directory; absolute. Made if it is not there (main process only).
    #[n(2)]
    pub cwd: String,
    /// Uid.
    #[n(3)]
    pub uid: u32,
    /// Gid.
    #[n(4)]
    pub gid: u32,
    /// setgroups(2), the primary one among them.
    #[n(5)]
    pub groups: Vec<u32>,
    /// Capabilities.
    #[n(6)]
    pub capabilities: Capabilities,
    /// PR_SET_NO_NEW_PRIVS.
    #[n(7)]
    pub no_new_privs: bool,
    /// seccomp(2) filter program (`struct sock_filter`, 8 bytes each, native endian); `None`: unconfined.
    #[n(8)]
    pub seccomp: Option<ByteVec>,
    /// Resource limits (setrlimit(2)).
    #[n(9)]
    pub rlimits: Vec<Rlimit>,
    /// /proc/self/oom_score_adj; a refusal by the kernel (EACCES) is reported, not fatal.
    #[n(10)]
    pub oom_score_adj: Option<i32>,
    /// A terminal.
    #[n(11)]
    pub tty: bool,
    /// umask(2); 0o022 when `None`.
    #[n(12)]
    pub umask: Option<u32>,
    /// AppArmor profile from execve(2) on; it is loaded. `None`: unconfined, or what confines the engine.
    #[n(13)]
    pub apparmor: Option<String>,
    /// SELinux label from execve(2) on; `None`: what the policy makes of it.
    #[n(14)]
    pub selinux: Option<String>,
    /// ioprio_set(2); `None`: as the supervisor's, which is the kernel's default.
    #[n(16)]
    pub io_priority: Option<IoPriority>,
    /// sched_setattr(2); `None`: as the supervisor's, which is the kernel's default.
    #[n(17)]
    pub scheduler: Option<Scheduler>,
}

/// Priority of a process's input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_*` of ioprio_set(2): 1 real time, 2 best effort, 3 idle.
    #[n(0)]
    pub class: u8,
    /// 0 to 7 within the class, 0 being the first.
    #[n(1)]
    pub level: u8,
}

/// When a process runs; the fields of `struct sched_attr` (sched_setattr(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Scheduler {
    /// `SCHED_*`.
    #[n(0)]
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    #[n(1)]
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`, -20 to 19.
    #[n(2)]
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`, 1 to 99.
    #[n(3)]
    pub priority: u32,
    /// For `SCHED_DEADLINE`, in nanoseconds, like the next two.
    #[n(4)]
    pub runtime: u64,
    /// See `runtime`.
    #[n(5)]
    pub deadline: u64,
    /// See `runtime`.
    #[n(6)]
    pub period: u64,
}

/// A process beside the main one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ExecPlan {
    /// Its id.
    #[n(0)]
    pub id: ExecId,
    /// The container.
    #[n(1)]
    pub container: ContainerId,
    /// The process. Groups, capabilities and seccomp come from the container's own plan.
    #[n(2)]
    pub process: ProcessPlan,
    /// cgroup of its own below the container's, so that it can be killed with all its children; exists already.
    #[n(3)]
    pub cgroup: String,
    /// The process as a runtime that made the container reads it: `Process` of the OCI runtime spec, JSON.
    #[n(4)]
    pub oci_process: Option<ByteVec>,
}

/// How an OCI runtime makes a container: a program with runc's command line, and what it reads. The rest of the plan says the
/// same for the executor; log, streams and the OOM killer's preference are the supervisor's own in both cases.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OciPlan {
    /// The handler's name, for messages.
    #[n(0)]
    pub handler: String,
    /// The program; absolute.
    #[n(1)]
    pub runtime: String,
    /// Arguments before the command's name, besides those for logs and state.
    #[n(2)]
    pub args: Vec<String>,
    /// The bundle's directory: absolute, in the pod's directory, made by the supervisor. Below it the runtime finds what
    /// [`oci`] names.
    #[n(3)]
    pub bundle: String,
    /// config.json of the OCI runtime spec. Empty in records: it follows from the plan.
    #[n(4)]
    pub config: ByteVec,
}

/// Names in a bundle, which the configuration mentions and the supervisor fills.
pub mod oci {
    /// Where the root filesystem is attached.
    pub const ROOTFS: &str = "rootfs";
    /// Links to the namespaces that the container shares, named as in /proc/PID/ns.
    pub const NAMESPACES: &str = "ns";

    /// Where a mount is attached that the runtime gets ready-made ([`super::MountPlan::ready_made`]): by its place in the
    /// plan's list.
    pub fn mount(index: usize) -> String {
        format!("mount-{index}")
    }
}

/// Capability sets as bit masks (bit n = capability number n of capabilities(7)). Inheritable is always empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Capabilities {
    /// Bounding.
    #[n(0)]
    pub bounding: u64,
    /// Permitted and effective for root; for another user what execve(2) leaves.
    #[n(1)]
    pub permitted: u64,
    /// Ambient.
    #[n(2)]
    pub ambient: u64,
}

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Rlimit {
    /// Resource number of setrlimit(2).
    #[n(0)]
    pub resource: u32,
    /// Soft limit; `u64::MAX`: none.
    #[n(1)]
    pub soft: u64,
    /// Hard limit; `u64::MAX`: none.
    #[n(2)]
    pub hard: u64,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeviceNode {
    /// Path in the container.
    #[n(0)]
    pub path: String,
    /// Block device; else character.
    #[n(1)]
    pub block: bool,
    /// Major number.
    #[n(2)]
    pub major: u32,
    /// Minor number.
    #[n(3)]
    pub minor: u32,
    /// Mode, permission bits only.
    #[n(4)]
    pub mode: u32,
    /// Owner.
    #[n(5)]
    pub uid: u32,
    /// Group.
    #[n(6)]
    pub gid: u32,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MountPlan {
    /// Where in the container; absolute; made if missing (a directory, or a file for a bind of a file).
    #[n(0)]
    pub target: String,
    /// What.
    #[n(1)]
    pub kind: MountKind,
    /// Flags of the mount itself.
    #[n(2)]
    pub flags: MountFlags,
    /// Shows a bind's owners by the mapping of the pod's user namespace, which is this one: what belongs to the host's 0
    /// belongs to the container's 0 (mount_setattr(2), MOUNT_ATTR_IDMAP).
    #[n(3)]
    pub idmap: Option<UserNamespace>,
}

impl MountPlan {
    /// An OCI runtime could not make it from a path, or not every one can: it gets it attached in its bundle, flags and all.
    pub fn ready_made(&self) -> bool {
        match &self.kind {
            MountKind::Shm | MountKind::Detached { .. } => true,
            // A runtime runs among slaves of the host's mounts, from where nothing travels back.
            MountKind::Bind { propagation, .. } => {
                *propagation == Propagation::Bidirectional || self.idmap.is_some() || (self.flags.readonly && self.flags.recursive)
            }
            MountKind::Proc
            | MountKind::Sysfs
            | MountKind::Dev
            | MountKind::Mqueue
            | MountKind::Cgroup
            | MountKind::Tmpfs { .. }
            | MountKind::HostSysfs => false,
        }
    }
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum MountKind {
    /// procfs of the container's PID namespace.
    #[n(0)]
    Proc,
    /// sysfs of the pod's network namespace.
    #[n(1)]
    Sysfs,
    /// /dev: a tmpfs with the standard nodes, links (fd, stdin, stdout, stderr, ptmx, core) and, below it, devpts on
    /// `pts`. `DeviceNode`s are made in it.
    #[n(2)]
    Dev,
    /// POSIX message queues of the pod's IPC namespace.
    #[n(3)]
    Mqueue,
    /// The pod's /dev/shm; the host's if the pod uses the host's IPC namespace.
    #[n(4)]
    Shm,
    /// The container's own view of the cgroup hierarchies, v1 or v2.
    #[n(5)]
    Cgroup,
    /// A fresh tmpfs.
    #[n(6)]
    Tmpfs {
        /// Size in bytes; `None`: the kernel's default.
        #[n(0)]
        size: Option<u64>,
        /// Mode of its root.
        #[n(1)]
        mode: u32,
    },
    /// A file or directory of the host, with everything mounted below it.
    #[n(7)]
    Bind {
        /// Absolute path on the host, exists.
        #[n(0)]
        source: String,
        /// How later mounts travel.
        #[n(1)]
        propagation: Propagation,
    },
    /// The host's /sys (privileged pods on the host's network keep it writable); else like `Sysfs`.
    #[n(8)]
    HostSysfs,
    /// A mount of a file or directory that comes as a descriptor beside the plan, attached nowhere yet.
    #[n(9)]
    Detached {
        /// Which of the descriptors after the root's; each is used once.
        #[n(0)]
        index: u32,
    },
}

/// Flags of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct MountFlags {
    /// Read-only.
    #[n(0)]
    pub readonly: bool,
    /// With `readonly`: all mounts below too.
    #[n(1)]
    pub recursive: bool,
    /// No set-user-id.
    #[n(2)]
    pub nosuid: bool,
    /// No devices.
    #[n(3)]
    pub nodev: bool,
    /// No exec.
    #[n(4)]
    pub noexec: bool,
}

/// CBOR codec of an optional IP address as text.
pub mod ip_text {
    use std::net::IpAddr;

    use minicbor::{
        Decoder, Encoder,
        data::Type,
        decode::Error as DecodeError,
        encode::{Error as EncodeError, Write},
    };

    /// Writes the address as text, or null.
    pub fn encode<C, W: Write>(ip: &Option<IpAddr>, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        match ip {
            Some(ip) => e.str(&ip.to_string())?.ok(),
            None => e.null()?.ok(),
        }
    }

    /// Reads it back.
    pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Option<IpAddr>, DecodeError> {
        if d.datatype()? == Type::Null {
            return d.skip().map(|()| None);
        }
        d.str()?.parse().map(Some).map_err(|_| DecodeError::message("not an IP address"))
    }
}
