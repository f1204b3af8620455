//! Runs a network's plugins in order: ADD forwards, DEL backwards, STATUS.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use model::{
    PodId,
    pod::{PodKey, PortMapping, Protocol},
};
use serde_json::{Map, Value, json};

use super::{
    conf::NetworkList,
    plugin,
    process::{self, Call},
    result::{self, CniResult},
};
use crate::{AttachRequest, CniError, Error, bridge::Subnet, network::POD_INTERFACE};

/// Whose network it is: what plugins learn from their environment.
#[derive(Debug)]
pub(super) struct Identity {
    container: String,
    /// Empty: gone.
    netns: String,
    args: String,
}

impl Identity {
    pub(super) fn new(pod: PodId, key: &PodKey, netns: Option<&Path>) -> Result<Self, Error> {
        let container = pod.to_string();
        let mut args = "IgnoreUnknown=1".to_owned();
        for (name, value) in [
            ("K8S_POD_NAMESPACE", key.namespace.as_str()),
            ("K8S_POD_NAME", &key.name),
            ("K8S_POD_INFRA_CONTAINER_ID", &container),
            ("K8S_POD_UID", &key.uid),
        ] {
            // Plugins split at these, so that a name could bring arguments of its own.
            if value.contains([';', '=', '\0']) {
                return Err(Error::CniArgument { name, value: value.chars().take(100).collect() });
            }
            args.push_str(&format!(";{name}={value}"));
        }
        let netns = netns.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { container, netns, args })
    }
}

/// The capability arguments that a pod's request gives rise to. Plugins get those that they declare.
pub(super) fn capability_arguments(request: &AttachRequest<'_>, pod_cidrs: &[Subnet]) -> Map<String, Value> {
    let mut arguments = Map::new();
    if !request.ports.is_empty() {
        arguments.insert("portMappings".into(), request.ports.iter().map(port_mapping).collect());
    }
    if let Some(dns) = request.dns {
        arguments.insert("dns".into(), json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options}));
    }
    if !pod_cidrs.is_empty() {
        let ranges: Vec<Value> = pod_cidrs.iter().map(|subnet| json!([{"subnet": subnet.to_string()}])).collect();
        arguments.insert("ipRanges".into(), Value::Array(ranges));
    }
    arguments
}

fn port_mapping(port: &PortMapping) -> Value {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    let mut mapping = json!({"hostPort": port.host_port, "containerPort": port.container_port, "protocol": protocol});
    if let Some(ip) = port.host_ip.filter(|ip| !matches!(ip, IpAddr::V4(ip) if ip.is_unspecified())) {
        mapping["hostIP"] = Value::String(ip.to_string());
    }
    mapping
}

/// A network's plugins, about to be run for a pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain<'a> {
    pub(super) bin_dirs: &'a [PathBuf],
    pub(super) timeout: Duration,
    pub(super) network: &'a NetworkList,
    pub(super) runtime: &'a Map<String, Value>,
    pub(super) identity: &'a Identity,
}

/// An ADD that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// Index of the plugin that failed.
    pub(super) plugin: usize,
    /// The result of the one before it.
    pub(super) last_result: Option<Value>,
    pub(super) error: Error,
}

/// A plugin's configuration for one run: what the administrator wrote, and what the runtime adds.
fn configuration(network: &NetworkList, plugin: usize, runtime: &Map<String, Value>, previous: Option<&Value>) -> Vec<u8> {
    let mut conf = network.plugins[plugin].clone();
    let capabilities = conf.remove("capabilities");
    let declared = |name: &str| capabilities.as_ref().and_then(|c| c.get(name)).and_then(Value::as_bool).unwrap_or(false);
    let wanted: Map<String, Value> =
        runtime.iter().filter(|(name, _)| declared(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
    conf.insert("name".into(), Value::String(network.name.clone()));
    conf.insert("cniVersion".into(), Value::String(network.version.clone()));
    conf.remove("cniVersions");
    if !wanted.is_empty() {
        conf.insert("runtimeConfig".into(), Value::Object(wanted));
    }
    if let Some(previous) = previous {
        conf.insert("prevResult".into(), previous.clone());
    }
    Value::Object(conf).to_string().into_bytes()
}

fn environment(bin_dirs: &[PathBuf], command: &'static str) -> Vec<(&'static str, String)> {
    let path = bin_dirs.iter().map(|dir| dir.to_string_lossy()).collect::<Vec<_>>().join(":");
    vec![
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
        ("CNI_COMMAND", command.into()),
        ("CNI_PATH", path),
    ]
}

impl Chain<'_> {
    fn run(&self, command: &'static str, index: usize, previous: Option<&Value>, deadline: Instant) -> Result<Vec<u8>, CniError> {
        let program = plugin::find(self.bin_dirs, self.network.kind(index))?;
        let mut env = environment(self.bin_dirs, command);
        env.extend([
            ("CNI_CONTAINERID", self.identity.container.clone()),
            ("CNI_NETNS", self.identity.netns.clone()),
            ("CNI_IFNAME", POD_INTERFACE.into()),
            ("CNI_ARGS", self.identity.args.clone()),
        ]);
        let input = configuration(self.network, index, self.runtime, previous);
        process::run(&program, &Call { env: &env, input: &input, deadline, timeout: self.timeout })
    }

    fn error(&self, command: &'static str, index: usize, source: CniError) -> Error {
        let (plugin, network) = (self.network.kind(index).to_owned(), self.network.name.clone());
        Error::Cni { command, plugin, network, source: Box::new(source) }
    }

    /// Runs all plugins. Returns what the last one said, understood and as it is.
    pub(super) fn add(&self) -> Result<(CniResult, Value), Failure> {
        let deadline = Instant::now() + self.timeout;
        let last = self.network.plugins.len() - 1;
        let mut previous = None;
        for index in 0..=last {
            let step = self.run("ADD", index, previous.as_ref(), deadline).and_then(|output| {
                let value = result::parse_object(&output)?;
                let understood = if index == last { Some(result::parse_result(&output)?) } else { None };
                Ok((value, understood))
            });
            match step {
                Ok((value, Some(understood))) => return Ok((understood, value)),
                Ok((value, None)) => previous = Some(value),
                Err(source) => {
                    return Err(Failure { plugin: index, last_result: previous, error: self.error("ADD", index, source) });
                }
            }
        }
        unreachable!("a network has at least one plugin, and the last one returns")
    }

    /// Runs the first `count` plugins backwards, all of them whatever happens; the first error is returned.
    pub(super) fn delete(&self, count: usize, result: Option<&Value>) -> Result<(), Error> {
        let deadline = Instant::now() + self.timeout;
        let result = result.filter(|_| self.network.delete_has_result());
        let mut first = None;
        for index in (0..count.min(self.network.plugins.len())).rev() {
            if let Err(source) = self.run("DEL", index, result, deadline) {
                first.get_or_insert_with(|| self.error("DEL", index, source));
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// Whether all plugins are installed, and can be trusted.
pub(super) fn find_all(bin_dirs: &[PathBuf], network: &NetworkList) -> Result<(), Error> {
    (0..network.plugins.len()).try_for_each(|index| {
        plugin::find(bin_dirs, network.kind(index)).map(drop).map_err(|source| Error::Cni {
            command: "STATUS",
            plugin: network.kind(index).to_owned(),
            network: network.name.clone(),
            source: Box::new(source),
        })
    })
}

/// Asks all plugins whether they can take an ADD.
pub(super) fn status(bin_dirs: &[PathBuf], timeout: Duration, network: &NetworkList) -> Result<(), Error> {
    let deadline = Instant::now() + timeout;
    for index in 0..network.plugins.len() {
        let env = environment(bin_dirs, "STATUS");
        let input = configuration(network, index, &Map::new(), None);
        plugin::find(bin_dirs, network.kind(index))
            .and_then(|program| process::run(&program, &Call { env: &env, input: &input, deadline, timeout }))
            .map_err(|source| Error::Cni {
                command: "STATUS",
                plugin: network.kind(index).to_owned(),
                network: network.name.clone(),
                source: Box::new(source),
            })?;
    }
    Ok(())
}
