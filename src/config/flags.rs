//! Flags of the daemon that lie over its configuration.

use std::{net::SocketAddr, path::PathBuf};

use super::{CgroupDriver, Cidr, Config, NetworkKind};

/// Flags that lie over the files.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Flags {
    /// Configuration file; drop-ins are read from config.d beside it [default: /etc/creel/config.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Images and records
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) root: Option<PathBuf>,
    /// State of running pods
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) run: Option<PathBuf>,
    /// Socket to serve on
    #[arg(long, value_name = "PATH", global = true)]
    pub(super) socket: Option<PathBuf>,
    /// Who owns the cgroups
    #[arg(long, value_enum, global = true)]
    pub(super) cgroup_driver: Option<CgroupDriver>,
    /// Parent cgroup of pods whose client names none: a path, or a slice with the systemd driver
    #[arg(long, value_name = "PARENT", global = true)]
    pub(super) cgroup_parent: Option<String>,
    /// Supervisor program
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) shim: Option<PathBuf>,
    /// How pods get their network
    #[arg(long, value_enum, global = true)]
    pub(super) network: Option<NetworkKind>,
    /// Name of the built-in bridge
    #[arg(long, value_name = "NAME", global = true)]
    pub(super) bridge: Option<String>,
    /// Subnet of the built-in bridge; can be repeated
    #[arg(long, value_name = "CIDR", global = true)]
    pub(super) subnet: Vec<Cidr>,
    /// Registries' mirrors and certificates
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) certs_dir: Option<PathBuf>,
    /// Registry spoken to without TLS; can be repeated
    #[arg(long, value_name = "HOST[:PORT]", global = true)]
    pub(super) plain_http: Vec<String>,
    /// CNI configuration
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) cni_conf_dir: Option<PathBuf>,
    /// CNI plugins
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) cni_bin_dir: Option<PathBuf>,
    /// Where exec, attach and port-forward are served; port 0: any
    #[arg(long, value_name = "IP:PORT", global = true)]
    pub(super) streaming_address: Option<SocketAddr>,
    /// Where NRI plugins connect
    #[arg(long, value_name = "PATH", global = true)]
    pub(super) nri_socket: Option<PathBuf>,
    /// What is logged: error, warn, info, debug, trace, or a filter
    #[arg(long, value_name = "LEVEL", global = true)]
    pub(super) log_level: Option<String>,
}

impl Config {
    /// Lays flags over it.
    pub(super) fn apply(&mut self, flags: Flags) {
        fn set<T>(value: &mut T, flag: Option<T>) {
            if let Some(flag) = flag {
                *value = flag;
            }
        }
        // A run directory of one's own means a socket of one's own.
        if let (Some(run), None) = (&flags.run, &flags.socket) {
            self.socket = run.join("creel.sock");
        }
        if let (Some(run), None) = (&flags.run, &flags.nri_socket) {
            self.nri.socket_path = run.join("nri/nri.sock");
        }
        set(&mut self.nri.socket_path, flags.nri_socket);
        set(&mut self.root, flags.root);
        set(&mut self.run, flags.run);
        set(&mut self.socket, flags.socket);
        set(&mut self.cgroup_driver, flags.cgroup_driver);
        set(&mut self.cgroup_parent, flags.cgroup_parent);
        set(&mut self.shim, flags.shim);
        set(&mut self.network.kind, flags.network);
        set(&mut self.network.bridge, flags.bridge);
        set(&mut self.network.subnets, Some(flags.subnet).filter(|list| !list.is_empty()));
        set(&mut self.network.cni_conf_dir, flags.cni_conf_dir);
        set(&mut self.network.cni_bin_dir, flags.cni_bin_dir);
        set(&mut self.registry.certs_dir, flags.certs_dir);
        set(&mut self.streaming.address, flags.streaming_address);
        set(&mut self.log_level, flags.log_level);
        self.registry.plain_http.extend(flags.plain_http);
    }
}
