//! What a device means for a container, in the words of the specification.

/// Everything to be done to one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// Nodes to be made.
    pub device_nodes: Vec<DeviceNode>,
    /// Interfaces of the host to be moved in.
    pub net_devices: Vec<NetDevice>,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Programs to be run beside it, in order.
    pub hooks: Vec<Hook>,
    /// Groups of its process; never 0.
    pub additional_gids: Vec<u32>,
    /// Cache and memory bandwidth.
    pub intel_rdt: Option<IntelRdt>,
}

impl Edits {
    /// Takes those of a further device on top; of cache settings there is one, the last.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.env.append(&mut other.env);
        self.device_nodes.append(&mut other.device_nodes);
        self.net_devices.append(&mut other.net_devices);
        self.mounts.append(&mut other.mounts);
        self.hooks.append(&mut other.hooks);
        self.additional_gids.append(&mut other.additional_gids);
        self.intel_rdt = other.intel_rdt.or(self.intel_rdt.take());
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A device node. What is `None` is as on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// In the container; absolute.
    pub path: String,
    /// On the host; absolute.
    pub host_path: String,
    /// Kind of node.
    pub kind: Option<DeviceType>,
    /// Major and minor number.
    pub numbers: Option<(u32, u32)>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// What its cgroup may do.
    pub permissions: Permissions,
    /// Owner; `None`: the container's user.
    pub uid: Option<u32>,
    /// Group; `None`: the container's.
    pub gid: Option<u32>,
}

/// Kinds of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceType {
    /// `b`.
    Block,
    /// `c` or `u`.
    Char,
    /// `p`.
    Fifo,
}

/// What the device cgroup allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// `r`.
    pub read: bool,
    /// `w`.
    pub write: bool,
    /// `m`.
    pub mknod: bool,
}

/// A mount in the words of mount(8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// On the host.
    pub host_path: String,
    /// In the container; absolute.
    pub container_path: String,
    /// Kind of file system; empty: a bind.
    pub kind: String,
    /// Options.
    pub options: Vec<String>,
}

/// A program to be run when a container reaches a point in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// When.
    pub stage: HookStage,
    /// Absolute.
    pub path: String,
    /// argv, its own name first.
    pub args: Vec<String>,
    /// All of its environment.
    pub env: Vec<String>,
    /// Seconds that it may take.
    pub timeout: Option<u32>,
}

/// The points of the OCI runtime specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookStage {
    /// `prestart`.
    Prestart,
    /// `createRuntime`.
    CreateRuntime,
    /// `createContainer`.
    CreateContainer,
    /// `startContainer`.
    StartContainer,
    /// `poststart`.
    Poststart,
    /// `poststop`.
    Poststop,
}

/// Settings of resctrl(8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntelRdt {
    /// Class; `/`: the root's; empty: none is named.
    pub clos_id: String,
    /// Lines of its schemata file.
    pub schemata: Vec<String>,
    /// A monitoring group of its own.
    pub monitoring: bool,
}

/// An interface to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name on the host.
    pub host_name: String,
    /// Its name in the container.
    pub name: String,
}
