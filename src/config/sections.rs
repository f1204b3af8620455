//! The sections of the configuration.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// The section `[checkpoint]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Checkpoint {
    pub(crate) criu: PathBuf,
}

/// A section `[handlers.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Handler {
    pub(crate) runtime: PathBuf,
    #[serde(default)]
    pub(crate) args: Vec<String>,
}

impl Handler {
    /// The keys of a section, for messages about unknown ones.
    pub(super) fn keys() -> Table {
        [("runtime", Value::String(String::new())), ("args", Value::Array(Vec::new()))]
            .map(|(k, v)| (k.to_owned(), v))
            .into_iter()
            .collect()
    }
}

/// The section `[registry]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registry {
    pub(crate) certs_dir: PathBuf,
    pub(crate) plain_http: Vec<String>,
}

/// The section `[network]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Network {
    pub(crate) kind: NetworkKind,
    pub(crate) cni_conf_dir: PathBuf,
    pub(crate) cni_bin_dir: PathBuf,
    pub(crate) bridge: String,
    pub(crate) subnets: Vec<Cidr>,
}

/// The section `[streaming]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Streaming {
    pub(crate) address: SocketAddr,
    pub(crate) tls: bool,
    pub(crate) tls_cert: PathBuf,
    pub(crate) tls_key: PathBuf,
    pub(crate) idle_timeout: u64,
}

/// The section `[nri]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nri {
    pub(crate) enable: bool,
    pub(crate) socket_path: PathBuf,
    pub(crate) disable_connections: bool,
    pub(crate) plugin_path: PathBuf,
    pub(crate) plugin_config_path: PathBuf,
    pub(crate) plugin_registration_timeout: u64,
    pub(crate) plugin_request_timeout: u64,
}

impl Nri {
    /// For the engine.
    pub(crate) fn engine(&self) -> Option<engine::NriConfig> {
        self.enable.then(|| engine::NriConfig {
            socket: (!self.disable_connections).then(|| self.socket_path.clone()),
            plugins: self.plugin_path.clone(),
            plugin_config: self.plugin_config_path.clone(),
            registration_timeout: Duration::from_secs(self.plugin_registration_timeout),
            request_timeout: Duration::from_secs(self.plugin_request_timeout),
        })
    }
}

/// A subnet, as text in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Cidr(pub(crate) net::bridge::Subnet);

impl FromStr for Cidr {
    type Err = net::bridge::SubnetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl TryFrom<String> for Cidr {
    type Error = net::bridge::SubnetError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.0.to_string()
    }
}

/// Who owns the cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CgroupDriver {
    /// systemd where that is possible, unless the parent cgroup is a path.
    Auto,
    /// Nobody: groups are made at paths.
    Cgroupfs,
    /// systemd: pods are scopes in slices.
    Systemd,
}

/// How pods get their network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NetworkKind {
    /// CNI plugins.
    Cni,
    /// The bridge that is built in.
    Bridge,
}
