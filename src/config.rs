//! The configuration: `/etc/creel/config.toml`, drop-ins in `config.d/` beside it, flags over both.

mod check;
mod flags;
mod sections;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

pub(crate) use flags::Flags;
pub(crate) use sections::{CgroupDriver, Checkpoint, Cidr, Handler, Network, NetworkKind, Nri, Registry, Streaming};

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
