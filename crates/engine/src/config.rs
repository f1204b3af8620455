//! What the engine is told at start.

use std::path::PathBuf;

/// Where the engine keeps things and how it does them. All paths are absolute.
#[derive(Clone, Debug)]
pub struct Config {
    /// Durable state: images, layers, records (0700).
    pub root: PathBuf,
    /// State that a reboot may take: sockets and files of running pods (0711).
    pub run: PathBuf,
    /// Who owns the cgroups; `None`: whoever fits the parent below and this machine.
    pub cgroup_driver: Option<crate::CgroupDriver>,
    /// Parent cgroup of pods whose client names none: a path or a slice; empty: the driver's default.
    pub cgroup_parent: String,
    /// The supervisor's program.
    pub shim: PathBuf,
    /// Images that are never removed to gain space (see [`crate::image::Pinned`]).
    pub pinned_images: Vec<String>,
    /// Directories of CDI specifications, the most important last.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// Directories of OCI hooks, the most important last.
    pub hooks_dirs: Vec<PathBuf>,
    /// `certs.d` directory with one directory per registry.
    pub certs_dir: PathBuf,
    /// Registries spoken to in plain http.
    pub plain_http: Vec<String>,
    /// The network of pods that have their own namespace.
    pub network: net::Config,
    /// criu's program: a path, or a name to look for; empty: no checkpoints.
    pub criu: PathBuf,
    /// Most processes of a container whose client says nothing.
    pub pids_limit: i64,
    /// Size of a pod's /dev/shm in bytes.
    pub shm_size: u64,
    /// Plugins of the Node Resource Interface; `None`: there are none.
    pub nri: Option<crate::NriConfig>,
    /// Runtime handlers besides the built-in one, by name.
    pub handlers: std::collections::BTreeMap<String, crate::OciHandler>,
    /// Bytes that a container may write to its root, at most; `None`: as many as fit. Needs project quotas.
    pub writable_layer_limit: Option<u64>,
    /// Bytes that builds may leave for later ones; `None`: as many as fit.
    pub build_cache_limit: Option<u64>,
    /// Classes of block I/O that containers can be in.
    pub block_io: crate::spec::BlockIoClasses,
}

impl Config {
    /// Logs of containers that people make: they outlive a reboot, and go with their pod.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
}
