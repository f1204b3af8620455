//! Network configurations: which file counts, and what is in it.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{CWD, Mode, OFlags, openat};
use serde_json::{Map, Value};

/// A configuration longer than this is refused.
const SIZE_MAX: u64 = 1 << 20;
const PLUGINS_MAX: usize = 32;
/// In order: the last one that both sides know is used.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A network: a chain of plugins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NetworkList {
    pub(super) name: String,
    pub(super) version: String,
    /// Each plugin's configuration as written.
    pub(super) plugins: Vec<Map<String, Value>>,
}

impl NetworkList {
    /// Whether plugins know STATUS (since 1.1).
    pub(super) fn has_status(&self) -> bool {
        self.version == "1.1.0"
    }

    /// Whether DEL is told the result of ADD (since 0.4).
    pub(super) fn delete_has_result(&self) -> bool {
        !self.version.starts_with("0.3.")
    }

    /// A plugin's type.
    pub(super) fn kind(&self, plugin: usize) -> &str {
        self.plugins[plugin].get("type").and_then(Value::as_str).unwrap_or_default()
    }
}

/// Whether a plugin's type can be a file name in a plugin directory (CVE-2021-20206).
pub(super) fn is_type(name: &str) -> bool {
    name.len() <= 255
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
        && name.bytes().any(|c| c.is_ascii_alphanumeric())
}

fn is_name(name: &str) -> bool {
    let alnum = |c: u8| c.is_ascii_alphanumeric();
    name.len() <= 255 && name.bytes().next().is_some_and(alnum) && name.bytes().all(|c| alnum(c) || matches!(c, b'_' | b'.' | b'-'))
}

/// Reads a configuration: a list, or a single plugin, which is a list of one.
pub(super) fn parse(bytes: &[u8]) -> Result<NetworkList, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| format!("not JSON: {e}"))?;
    let Value::Object(mut object) = value else { return Err("not a JSON object".into()) };
    let name = object.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !is_name(&name) {
        return Err(format!("name {name:?} is not a network name (letters, digits, '.', '_', '-')"));
    }
    let version = choose_version(&object)?;
    let plugins = match object.remove("plugins") {
        Some(Value::Array(plugins)) => {
            let objects = plugins.into_iter().map(|plugin| match plugin {
                Value::Object(plugin) => Ok(plugin),
                _ => Err("a plugin is not a JSON object".to_owned()),
            });
            objects.collect::<Result<Vec<_>, _>>()?
        }
        Some(_) => return Err("plugins is not an array".into()),
        None => vec![object],
    };
    if plugins.is_empty() || plugins.len() > PLUGINS_MAX {
        return Err(format!("{} plugins (1 to {PLUGINS_MAX} are possible)", plugins.len()));
    }
    for plugin in &plugins {
        check_plugin(plugin)?;
    }
    Ok(NetworkList { name, version, plugins })
}

fn check_plugin(plugin: &Map<String, Value>) -> Result<(), String> {
    let kind = plugin.get("type").and_then(Value::as_str).ok_or("a plugin has no type")?;
    // The address plugin is run by the main plugin, which should not be led astray either.
    let ipam = match plugin.get("ipam").and_then(|ipam| ipam.get("type")) {
        Some(kind) => Some(kind.as_str().ok_or("ipam.type is not a string")?),
        None => None,
    };
    let ipam = ipam.filter(|kind| !kind.is_empty());
    match [Some(kind), ipam].into_iter().flatten().find(|kind| !is_type(kind)) {
        Some(bad) => Err(format!("plugin type {bad:?} is not made of letters, digits, '.', '_' and '-'")),
        None => Ok(()),
    }
}

fn choose_version(object: &Map<String, Value>) -> Result<String, String> {
    let mut offered: Vec<&str> =
        object.get("cniVersion").map(|v| v.as_str().ok_or("cniVersion is not a string")).transpose()?.into_iter().collect();
    if let Some(versions) = object.get("cniVersions") {
        let versions = versions.as_array().ok_or("cniVersions is not an array")?;
        offered.extend(versions.iter().filter_map(Value::as_str));
    }
    match VERSIONS.iter().rev().find(|version| offered.contains(version)) {
        Some(version) => Ok((*version).to_owned()),
        None => Err(format!("cniVersion {:?} is not one of {}", offered.join(", "), VERSIONS.join(", "))),
    }
}

/// Whether nobody but root could have written a file or could change it.
pub(super) fn distrust(metadata: &std::fs::Metadata) -> Option<&'static str> {
    if metadata.uid() != 0 {
        return Some("does not belong to root");
    }
    if metadata.mode() & 0o002 != 0 || metadata.mode() & 0o020 != 0 && metadata.gid() != 0 {
        return Some("can be written by others than root");
    }
    None
}

/// Opens a file or directory and looks at what was opened, not at what has the name a moment later.
pub(super) fn open_trusted(path: &Path, flags: OFlags) -> io::Result<(File, std::fs::Metadata)> {
    // NONBLOCK: a FIFO would wait for a writer.
    let file = File::from(openat(CWD, path, flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?);
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

fn read(path: &Path) -> Result<NetworkList, String> {
    let (file, metadata) = open_trusted(path, OFlags::empty()).map_err(|e| e.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".into());
    }
    if let Some(why) = distrust(&metadata) {
        return Err(why.into());
    }
    let mut bytes = Vec::new();
    file.take(SIZE_MAX + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(format!("longer than {SIZE_MAX} bytes"));
    }
    parse(&bytes)
}

/// What tells one state of the directory from another.
type Fingerprint = Vec<(OsString, u64, u64, i64, i64, i64, i64)>;

/// The directory of configurations. It is looked at each time; files are read again only when one of them changed.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    seen: Option<(Fingerprint, Result<Arc<NetworkList>, String>)>,
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    /// The network to use, or why there is none.
    pub(super) fn current(&mut self) -> Result<Arc<NetworkList>, String> {
        let fingerprint = self.fingerprint()?;
        if let Some((_, network)) = self.seen.as_ref().filter(|(seen, _)| *seen == fingerprint) {
            return network.clone();
        }
        let network = self.load(&fingerprint);
        self.seen = Some((fingerprint, network.clone()));
        network
    }

    fn fingerprint(&self) -> Result<Fingerprint, String> {
        let failed = |e: io::Error| format!("{}: {e}", self.path.display());
        let (_, metadata) = open_trusted(&self.path, OFlags::DIRECTORY).map_err(failed)?;
        if let Some(why) = distrust(&metadata) {
            return Err(format!("{}: {why}", self.path.display()));
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let extension = Path::new(&name).extension().and_then(|e| e.to_str());
            if !matches!(extension, Some("conflist" | "conf" | "json")) {
                continue;
            }
            // Gone again, or a dangling link: reading it gives the reason.
            let m = std::fs::metadata(self.path.join(&name)).ok();
            let field = |f: fn(&std::fs::Metadata) -> i64| m.as_ref().map_or(0, f);
            let (inode, size) = m.as_ref().map_or((0, 0), |m| (m.ino(), m.size()));
            found.push((
                name,
                inode,
                size,
                field(MetadataExt::mtime),
                field(MetadataExt::mtime_nsec),
                field(MetadataExt::ctime),
                field(MetadataExt::ctime_nsec),
            ));
        }
        found.sort();
        Ok(found)
    }

    /// The first file in lexical order that can be used.
    fn load(&self, files: &Fingerprint) -> Result<Arc<NetworkList>, String> {
        let mut reasons = Vec::new();
        for (name, ..) in files {
            match read(&self.path.join(name)) {
                Ok(network) => return Ok(Arc::new(network)),
                Err(why) => reasons.push(format!("{}: {why}", Path::new(name).display())),
            }
        }
        if reasons.is_empty() {
            return Err(format!("no file *.conflist, *.conf or *.json in {}", self.path.display()));
        }
        Err(format!("no usable file in {}: {}", self.path.display(), reasons.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_and_single_plugins_are_read() {
        let list = parse(
            br#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge","ipam":{"type":"host-local"}},{"type":"portmap"}]}"#,
        )
        .unwrap();
        assert_eq!((list.version.as_str(), list.plugins.len(), list.kind(1)), ("1.0.0", 2, "portmap"));
        let single = parse(br#"{"cniVersion":"0.3.1","name":"n","type":"ptp","mtu":9}"#).unwrap();
        assert_eq!((single.kind(0), single.plugins[0]["mtu"].as_u64()), ("ptp", Some(9)));
        let many = parse(br#"{"cniVersion":"0.4.0","cniVersions":["0.3.1","1.1.0","9.9.9"],"name":"n","type":"x"}"#).unwrap();
        assert_eq!(many.version, "1.1.0");
        assert!(parse(br#"{"cniVersion":"1.0.0","name":"n","type":"x","ipam":{}}"#).is_ok());
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_a_reason() {
        for (text, word) in [
            ("", "JSON"),
            ("[]", "object"),
            ("{}", "name"),
            (r#"{"cniVersion":"1.0.0","name":"../x","type":"a"}"#, "../x"),
            (r#"{"cniVersion":"9.9","name":"n","type":"a"}"#, "9.9"),
            (r#"{"name":"n","type":"a"}"#, "cniVersion"),
            (r#"{"cniVersion":1,"name":"n","type":"a"}"#, "string"),
            (r#"{"cniVersion":"1.0.0","name":"n"}"#, "no type"),
            (r#"{"cniVersion":"1.0.0","name":"n","plugins":[]}"#, "0 plugins"),
            (r#"{"cniVersion":"1.0.0","name":"n","plugins":[1]}"#, "object"),
            (r#"{"cniVersion":"1.0.0","name":"n","plugins":7}"#, "array"),
            (r#"{"cniVersion":"1.0.0","name":"n","type":"../../bin/sh"}"#, "bin/sh"),
            (r#"{"cniVersion":"1.0.0","name":"n","type":".."}"#, "\"..\""),
            (r#"{"cniVersion":"1.0.0","name":"n","type":""}"#, "\"\""),
            (r#"{"cniVersion":"1.0.0","name":"n","type":"a","ipam":{"type":"../x"}}"#, "../x"),
        ] {
            let why = parse(text.as_bytes()).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_parser(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
