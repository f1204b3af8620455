//! The configuration: `/etc/creel/config.toml`, drop-ins in `config.d/` beside it, flags over both.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// Where the configuration is looked for if nobody says otherwise. Only then may it be missing.
pub(crate) const FILE: &str = "/etc/creel/config.toml";

/// All defaults, with their documentation.
pub(crate) const DEFAULT: &str = include_str!("config/default.toml");

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}", path.display())]
    Syntax { path: PathBuf, source: Box<toml::de::Error> },
    #[error("{}: unknown key {key}{}", path.display(), suggestion(near.as_deref()))]
    UnknownKey { path: PathBuf, key: String, near: Option<String> },
    #[error("{key}: {why}")]
    Value { key: &'static str, why: String },
    #[error("configuration")]
    Merged(#[source] Box<toml::de::Error>),
}

fn suggestion(near: Option<&str>) -> String {
    near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default()
}

/// The configuration. `config/default.toml` documents every key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) root: PathBuf,
    pub(crate) run: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) socket_group: String,
    pub(crate) log_level: String,
    pub(crate) cgroup_driver: CgroupDriver,
    pub(crate) cgroup_parent: String,
    pub(crate) shim: PathBuf,
    pub(crate) pids_limit: i64,
    pub(crate) shm_size: u64,
    pub(crate) writable_layer_limit: u64,
    pub(crate) build_cache_limit: u64,
    pub(crate) blockio_config: PathBuf,
    pub(crate) max_requests: usize,
    pub(crate) pinned_images: Vec<String>,
    pub(crate) cdi_spec_dirs: Vec<PathBuf>,
    pub(crate) hooks_dirs: Vec<PathBuf>,
    pub(crate) registry: Registry,
    pub(crate) network: Network,
    pub(crate) streaming: Streaming,
    pub(crate) nri: Nri,
    pub(crate) handlers: BTreeMap<String, Handler>,
    pub(crate) checkpoint: Checkpoint,
}

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
    fn keys() -> Table {
        [("runtime", Value::String(String::new())), ("args", Value::Array(Vec::new()))]
            .map(|(k, v)| (k.to_owned(), v))
            .into_iter()
            .collect()
    }

    /// What is wrong with a section.
    fn check(&self, name: &str) -> Result<(), String> {
        let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.');
        if engine::BUILT_IN.contains(&name) || name.len() > 63 || !name.bytes().all(fits) {
            return Err(format!(
                "{name:?}: not a name for a handler: lower case letters, digits, - and .; creel is the built-in one"
            ));
        }
        if !self.runtime.is_absolute() || self.runtime.to_str().is_none() {
            return Err(format!("{name}.runtime: {}: not an absolute path", self.runtime.display()));
        }
        if self.args.iter().any(|arg| arg.is_empty() || arg.contains('\0')) {
            return Err(format!("{name}.args: an argument is empty or has a NUL"));
        }
        Ok(())
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

impl Streaming {
    /// The key that is wrong, and why.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let address = self.address;
        if !address.ip().is_loopback() && !self.tls {
            let why = "not an address of loopback; without tls sessions are not encrypted, and a kubelet reaches them there";
            return Err(("streaming.address", format!("{address}: {why}")));
        }
        if address.ip().is_unspecified() {
            return Err((
                "streaming.address",
                format!("{address}: clients are given this address, so it has to be one of this machine"),
            ));
        }
        let (cert, key) = (self.tls_cert.as_os_str().is_empty(), self.tls_key.as_os_str().is_empty());
        if cert != key {
            return Err(("streaming.tls_cert", "a certificate needs its key (tls_key), and a key its certificate".into()));
        }
        if !cert && !self.tls {
            return Err(("streaming.tls", "a certificate is given, but tls is false".into()));
        }
        if self.idle_timeout == 0 {
            return Err(("streaming.idle_timeout", "0: no session could last".into()));
        }
        Ok(())
    }
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
    /// The key that is wrong, and why.
    fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, path) in [
            ("nri.socket_path", &self.socket_path),
            ("nri.plugin_path", &self.plugin_path),
            ("nri.plugin_config_path", &self.plugin_config_path),
        ] {
            if !path.is_absolute() {
                return Err((key, format!("{}: not an absolute path", path.display())));
            }
        }
        // sun_path of unix(7), with what it is called while it is made.
        if self.socket_path.as_os_str().len() > 96 {
            return Err(("nri.socket_path", format!("{}: longer than 96 bytes", self.socket_path.display())));
        }
        for (key, seconds) in [
            ("nri.plugin_registration_timeout", self.plugin_registration_timeout),
            ("nri.plugin_request_timeout", self.plugin_request_timeout),
        ] {
            if !(1..=60).contains(&seconds) {
                return Err((key, format!("{seconds}: must be 1 to 60 seconds")));
            }
        }
        Ok(())
    }

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

/// Flags that lie over the files.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Flags {
    /// Configuration file; drop-ins are read from config.d beside it [default: /etc/creel/config.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Images and records
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
    /// State of running pods
    #[arg(long, value_name = "DIR", global = true)]
    run: Option<PathBuf>,
    /// Socket to serve on
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// Who owns the cgroups
    #[arg(long, value_enum, global = true)]
    cgroup_driver: Option<CgroupDriver>,
    /// Parent cgroup of pods whose client names none: a path, or a slice with the systemd driver
    #[arg(long, value_name = "PARENT", global = true)]
    cgroup_parent: Option<String>,
    /// Supervisor program
    #[arg(long, value_name = "FILE", global = true)]
    shim: Option<PathBuf>,
    /// How pods get their network
    #[arg(long, value_enum, global = true)]
    network: Option<NetworkKind>,
    /// Name of the built-in bridge
    #[arg(long, value_name = "NAME", global = true)]
    bridge: Option<String>,
    /// Subnet of the built-in bridge; can be repeated
    #[arg(long, value_name = "CIDR", global = true)]
    subnet: Vec<Cidr>,
    /// Registries' mirrors and certificates
    #[arg(long, value_name = "DIR", global = true)]
    certs_dir: Option<PathBuf>,
    /// Registry spoken to without TLS; can be repeated
    #[arg(long, value_name = "HOST[:PORT]", global = true)]
    plain_http: Vec<String>,
    /// CNI configuration
    #[arg(long, value_name = "DIR", global = true)]
    cni_conf_dir: Option<PathBuf>,
    /// CNI plugins
    #[arg(long, value_name = "DIR", global = true)]
    cni_bin_dir: Option<PathBuf>,
    /// Where exec, attach and port-forward are served; port 0: any
    #[arg(long, value_name = "IP:PORT", global = true)]
    streaming_address: Option<SocketAddr>,
    /// Where NRI plugins connect
    #[arg(long, value_name = "PATH", global = true)]
    nri_socket: Option<PathBuf>,
    /// What is logged: error, warn, info, debug, trace, or a filter
    #[arg(long, value_name = "LEVEL", global = true)]
    log_level: Option<String>,
}

impl Config {
    /// Reads the files that the flags name, lays the flags over them and checks the result.
    pub(crate) fn load(flags: &Flags) -> Result<Self, Error> {
        let default = defaults();
        let mut merged = default.clone();
        for path in files(flags)? {
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(e) if e.kind() == io::ErrorKind::NotFound && flags.config.is_none() => continue,
                Err(source) => return Err(Error::Read { path, source }),
            };
            overlay(&mut merged, read(&default, path, &text)?);
        }
        let mut config: Self = Value::Table(merged).try_into().map_err(|e| Error::Merged(Box::new(e)))?;
        config.apply(flags.clone());
        config.check()?;
        Ok(config)
    }

    /// As TOML, everything spelled out.
    pub(crate) fn to_toml(&self) -> String {
        toml::to_string(self).expect("strings, numbers, lists and tables are all TOML can say")
    }

    /// The supervisor's program.
    pub(crate) fn shim_program(&self) -> io::Result<PathBuf> {
        if self.shim.as_os_str().is_empty() {
            Ok(std::env::current_exe()?.with_file_name("creel-shim"))
        } else {
            Ok(self.shim.clone())
        }
    }

    fn apply(&mut self, flags: Flags) {
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

    fn check(&self) -> Result<(), Error> {
        let wrong = |key, why: String| Err(Error::Value { key, why });
        for (key, list) in [("cdi_spec_dirs", &self.cdi_spec_dirs), ("hooks_dirs", &self.hooks_dirs)] {
            if let Some(path) = list.iter().find(|path| !path.is_absolute()) {
                return wrong(key, format!("{}: not an absolute path", path.display()));
            }
        }
        if let Err(e) = engine::image::Pinned::parse(&self.pinned_images) {
            return wrong("pinned_images", e);
        }
        for (key, path) in [
            ("root", &self.root),
            ("run", &self.run),
            ("socket", &self.socket),
            ("registry.certs_dir", &self.registry.certs_dir),
            ("network.cni_conf_dir", &self.network.cni_conf_dir),
            ("network.cni_bin_dir", &self.network.cni_bin_dir),
        ] {
            if !path.is_absolute() {
                return wrong(key, format!("{}: not an absolute path", path.display()));
            }
        }
        if self.root.starts_with(&self.run) || self.run.starts_with(&self.root) {
            return wrong("run", "the run directory and the root directory cannot contain one another".into());
        }
        // sun_path of unix(7), with its final NUL.
        if self.socket.as_os_str().len() > 107 {
            return wrong("socket", format!("{}: longer than 107 bytes", self.socket.display()));
        }
        let parent = self.cgroup_parent.as_str();
        let slice = parent.ends_with(".slice") && !parent.contains('/');
        if !parent.is_empty() && !slice && (!parent.starts_with('/') || parent.split('/').any(|part| part == "..")) {
            return wrong("cgroup_parent", format!("{parent}: neither an absolute path nor a slice"));
        }
        if self.pids_limit < 1 {
            return wrong("pids_limit", format!("{}: less than 1", self.pids_limit));
        }
        if self.max_requests < 8 {
            return wrong("max_requests", format!("{}: less than 8, which a kubelet alone needs", self.max_requests));
        }
        if let Err(e) = self.log_level.parse::<tracing_subscriber::filter::EnvFilter>() {
            return wrong("log_level", format!("{:?}: {e}", self.log_level));
        }
        if let Err((key, why)) = self.nri.check() {
            return wrong(key, why);
        }
        if let Err((key, why)) = self.streaming.check() {
            return wrong(key, why);
        }
        for (name, handler) in &self.handlers {
            if let Err(why) = handler.check(name) {
                return wrong("handlers", why);
            }
        }
        let bridge = &self.network.bridge;
        if bridge.len() > 15 || !bridge.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')) {
            return wrong("network.bridge", format!("{bridge:?}: not the name of an interface, which has up to 15 characters"));
        }
        Ok(())
    }
}

fn defaults() -> Table {
    DEFAULT.parse().expect("the default configuration is tested")
}

/// The file itself, then the drop-ins by name.
fn files(flags: &Flags) -> Result<Vec<PathBuf>, Error> {
    let file = flags.config.clone().unwrap_or_else(|| FILE.into());
    let dir = file.with_file_name("config.d");
    let mut drop_ins = Vec::new();
    match fs::read_dir(&dir) {
        Ok(entries) => {
            for entry in entries {
                drop_ins.push(entry.map_err(|source| Error::Read { path: dir.clone(), source })?.path());
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::Read { path: dir, source }),
    }
    drop_ins.retain(|path| path.extension().is_some_and(|ext| ext == "toml"));
    drop_ins.sort();
    Ok(std::iter::once(file).chain(drop_ins).collect())
}

/// One file: its keys have to be known and its values of the right type. Checked file by file, so that the message
/// names the file and the line.
fn read(default: &Table, path: PathBuf, text: &str) -> Result<Table, Error> {
    let syntax = |source| Error::Syntax { path: path.clone(), source: Box::new(source) };
    let table: Table = toml::from_str(text).map_err(syntax)?;
    known_keys(default, &table, "", &path)?;
    // With the defaults around it the file is a whole configuration. An error then has no line, but the key.
    let mut whole = default.clone();
    overlay(&mut whole, table.clone());
    Value::Table(whole).try_into::<Config>().map_err(syntax)?;
    Ok(table)
}

fn known_keys(default: &Table, table: &Table, prefix: &str, path: &Path) -> Result<(), Error> {
    for (key, value) in table {
        match (default.get(key), value) {
            (Some(_), Value::Table(handlers)) if prefix.is_empty() && key == "handlers" => {
                for (name, handler) in handlers {
                    let handler = handler.as_table().cloned().unwrap_or_default();
                    known_keys(&Handler::keys(), &handler, &format!("handlers.{name}."), path)?;
                }
            }
            (Some(Value::Table(default)), Value::Table(table)) => known_keys(default, table, &format!("{prefix}{key}."), path)?,
            (Some(_), _) => {}
            (None, _) => {
                let near = default.keys().map(|known| (distance(known, key), known)).min().filter(|(d, _)| *d <= 3);
                let near = near.map(|(_, known)| format!("{prefix}{known}"));
                return Err(Error::UnknownKey { path: path.to_owned(), key: format!("{prefix}{key}"), near });
            }
        }
    }
    Ok(())
}

fn overlay(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => overlay(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// How many letters have to be changed, added or dropped to turn one word into the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().take(64).enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let changed = corner + usize::from(letter != *other);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(main: &str, drop_ins: &[(&str, &str)]) -> Result<Config, Error> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        fs::write(&file, main).unwrap();
        fs::create_dir(dir.path().join("config.d")).unwrap();
        for (name, text) in drop_ins {
            fs::write(dir.path().join("config.d").join(name), text).unwrap();
        }
        Config::load(&Flags { config: Some(file), ..Flags::default() })
    }

    fn chain(error: &dyn std::error::Error) -> String {
        error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
    }

    #[test]
    fn the_documented_defaults_are_a_configuration() {
        let config = load("", &[]).unwrap();
        assert_eq!(config.socket, Path::new("/run/creel/creel.sock"));
        assert_eq!(config.network.kind, NetworkKind::Cni);
        assert_eq!(toml::from_str::<Config>(&config.to_toml()).unwrap(), config);
    }

    #[test]
    fn drop_ins_lie_over_the_file_by_name_and_flags_over_both() {
        let drop_ins = [
            ("20-b.toml", "log_level = \"debug\"\n[network]\nkind = \"bridge\""),
            ("10-a.toml", "log_level = \"warn\"\n[registry]\nplain_http = [\"r:5000\"]"),
            ("30-not-ours.txt", "garbage = ["),
        ];
        let config = load("pids_limit = 7\nlog_level = \"error\"", &drop_ins).unwrap();
        assert_eq!((config.log_level.as_str(), config.pids_limit), ("debug", 7));
        assert_eq!((config.network.kind, config.network.bridge.as_str()), (NetworkKind::Bridge, ""));
        assert_eq!(config.registry.plain_http, ["r:5000"]);
        let mut config = config;
        let run = Some(PathBuf::from("/run/other"));
        config.apply(Flags { run, subnet: vec!["10.1.0.0/24".parse().unwrap()], plain_http: vec!["s".into()], ..Flags::default() });
        assert_eq!(config.socket, Path::new("/run/other/creel.sock"));
        assert_eq!(
            (config.network.subnets, config.registry.plain_http),
            (vec!["10.1.0.0/24".parse().unwrap()], vec!["r:5000".into(), "s".into()])
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_file_and_key() {
        for (text, expected) in [
            ("[network]\nknd = \"cni\"", "unknown key network.knd (did you mean network.kind?)"),
            ("[netwrok]\nkind = \"cni\"", "unknown key netwrok (did you mean network?)"),
            ("completely_else = 1", "unknown key completely_else"),
            ("root = 5", "root"),
            ("[network]\nkind = \"calico\"", "calico"),
            ("root = \"a", "config.toml: TOML parse error at line 1"),
            ("root = \"relative\"", "root: relative: not an absolute path"),
            ("root = \"/run/creel/x\"", "run: the run directory"),
            ("pids_limit = 0", "pids_limit: 0: less than 1"),
            ("log_level = \"info,=x=y\"", "log_level: "),
            ("cgroup_parent = \"/a/../b\"", "cgroup_parent: "),
            ("cgroup_parent = \"a/b.slice\"", "cgroup_parent: "),
            ("cgroup_driver = \"openrc\"", "openrc"),
            ("[network]\nbridge = \"far-too-long-a-name\"", "network.bridge: "),
            ("[streaming]\naddress = \"0.0.0.0:10010\"", "streaming.address: 0.0.0.0:10010: not an address of loopback"),
            ("[streaming]\ntls = true\naddress = \"[::]:1\"", "streaming.address: [::]:1: clients are given this address"),
            ("[streaming]\ntls = true\ntls_cert = \"/c\"", "streaming.tls_cert: a certificate needs its key"),
            ("[streaming]\ntls_key = \"/k\"\ntls_cert = \"/c\"", "streaming.tls: a certificate is given, but tls is false"),
            ("[streaming]\nidle_timeout = 0", "streaming.idle_timeout: 0"),
            ("[handlers.runc]\nruntine = \"/x\"", "unknown key handlers.runc.runtine (did you mean handlers.runc.runtime?)"),
            ("[handlers.runc]\nargs = []", "runtime"),
            ("[handlers]\nrunc = \"/usr/bin/runc\"", "handlers"),
            ("[handlers.creel]\nruntime = \"/x\"", "handlers: \"creel\": not a name"),
            ("[handlers.\"a b\"]\nruntime = \"/x\"", "handlers: \"a b\": not a name"),
            ("[handlers.runc]\nruntime = \"runc\"", "handlers: runc.runtime: runc: not an absolute path"),
            ("[handlers.runc]\nruntime = \"/x\"\nargs = [\"\"]", "handlers: runc.args: "),
            ("[network]\nsubnets = [\"10.0.0.0/33\"]", "10.0.0.0/33"),
        ] {
            let error = chain(&load(text, &[]).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
        assert!(!chain(&load("completely_else = 1", &[]).unwrap_err()).contains("did you mean"));
        let missing = Flags { config: Some("/nonexistent/creel.toml".into()), ..Flags::default() };
        assert!(chain(&Config::load(&missing).unwrap_err()).starts_with("read /nonexistent/creel.toml: "));
    }
}
