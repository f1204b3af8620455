//! OCI hooks directories (oci-hooks(5) of containers/common): programs that the node's administrator wants to be run beside
//! containers, and for which ones.
//!
//! The files are read anew for every container. One that cannot be understood is an error and not passed over: a hook may be
//! what a node's rules rest on. A condition on annotations is the administrator's own choice to let clients decide.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use model::{
    ErrorKind,
    plan::{ContainerPlan, Hook, HookStage, HooksPlan, MountKind},
};
use regex_lite::Regex;
use serde::Deserialize;

use crate::spec::{HOOK_LIMIT, HOOK_TIMEOUT};

/// The longest file in bytes.
const LONGEST: u64 = 64 << 10;
/// Files of one directory at most.
const MOST_FILES: usize = 1024;
/// open(2) O_NONBLOCK, so that a FIFO among the files holds nobody up.
const NONBLOCK: i32 = 0o4000;

/// A directory or file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It cannot be read, or others than root can write it.
    #[error("OCI hooks {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// It says something that cannot be.
    #[error("OCI hooks {}: {why}", path.display())]
    Form { path: PathBuf, why: String },
}

impl Error {
    pub(crate) fn kind(&self) -> ErrorKind {
        ErrorKind::FailedPrecondition
    }
}

/// What hooks are chosen by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// The container's and its pod's.
    pub(crate) annotations: &'a BTreeMap<String, String>,
    /// Program of its main process.
    pub(crate) command: &'a str,
    /// A file or directory of the host is in it that a client, a vendor or a plugin named.
    pub(crate) has_binds: bool,
}

impl<'a> Facts<'a> {
    /// Of a plan. `own`: what the engine itself binds into every container.
    pub(crate) fn new(plan: &'a ContainerPlan, annotations: &'a BTreeMap<String, String>, own: &Path) -> Self {
        let foreign = |kind: &MountKind| matches!(kind, MountKind::Bind { source, .. } if !Path::new(source).starts_with(own));
        Self {
            annotations,
            command: plan.process.args.first().map_or("", String::as_str),
            has_binds: plan.mounts.iter().any(|mount| foreign(&mount.kind)),
        }
    }
}

/// The hooks of a container, by the names of their files. `directories`: a file of a later one replaces one of the same name.
///
/// # Errors
/// A file that cannot be used, whether it is for this container or not.
pub(crate) fn select(directories: &[PathBuf], facts: Facts<'_>) -> Result<Vec<Hook>, Error> {
    let mut files: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for directory in directories {
        match list(directory) {
            Ok(found) => files.extend(found.into_iter().filter_map(|path| Some((path.file_name()?.to_owned(), path)))),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Read { path: directory.clone(), source }),
        }
    }
    let mut hooks = Vec::new();
    for path in files.into_values() {
        let bytes = read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let file = parse(&bytes).map_err(|why| Error::Form { path: path.clone(), why })?;
        if file.when.fits(facts).map_err(|why| Error::Form { path, why })? {
            hooks.extend(file.hooks());
        }
    }
    Ok(hooks)
}

/// What a container's plan says of hooks: those of its devices, then those that its administrator has for what it has become.
/// `directory`: the pod's, with what the engine binds into every container of it.
///
/// # Errors
/// As [`select`].
pub(crate) fn plan(
    (directories, directory): (&[PathBuf], &Path),
    mut hooks: Vec<Hook>,
    plan: &ContainerPlan,
    annotations: BTreeMap<String, String>,
) -> Result<Option<HooksPlan>, Error> {
    hooks.extend(select(directories, Facts::new(plan, &annotations, directory))?);
    if hooks.is_empty() {
        return Ok(None);
    }
    let bundle = bundles(directory).join(plan.id.to_string()).to_string_lossy().into_owned();
    Ok(Some(HooksPlan { list: hooks, bundle, config: Vec::new().into(), annotations }))
}

/// Where the bundles of a pod's containers with hooks are.
pub(crate) fn bundles(pod_directory: &Path) -> PathBuf {
    pod_directory.join("hooks")
}

fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    sys::path::only_root_writes(&fs::metadata(directory)?)?;
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
        if files.len() > MOST_FILES {
            return Err(io::Error::other("more than 1024 files"));
        }
    }
    Ok(files)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(NONBLOCK).open(path)?;
    let found = file.metadata()?;
    sys::path::only_root_writes(&found)?;
    if !found.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST { Err(io::Error::other("longer than 64 KiB")) } else { Ok(bytes) }
}

fn parse(bytes: &[u8]) -> Result<HookFile, String> {
    let file: HookFile = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if file.version != "1.0.0" {
        return Err(format!("version {:?} is not 1.0.0", file.version));
    }
    let path = &file.hook.path;
    if !path.starts_with('/') || path.contains('\0') {
        return Err(format!("hook.path {path:?} is not an absolute path"));
    }
    let words = file.hook.args.iter().flatten();
    if words.clone().any(|arg| arg.contains('\0')) {
        return Err("hook.args: contains a NUL".to_owned());
    }
    if let Some(bad) = file.hook.env.iter().find(|variable| variable.find('=').is_none_or(|at| at == 0) || variable.contains('\0'))
    {
        return Err(format!("hook.env: {bad:?} is not NAME=VALUE"));
    }
    if file.hook.timeout == Some(0) {
        return Err("hook.timeout has to be above 0".to_owned());
    }
    if file.stages.is_empty() {
        return Err("stages: names none".to_owned());
    }
    Ok(file)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HookFile {
    version: String,
    hook: RawHook,
    when: When,
    stages: Vec<Stage>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHook {
    path: String,
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct When {
    always: Option<bool>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    commands: Vec<String>,
    has_bind_mounts: Option<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Stage {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl HookFile {
    fn hooks(&self) -> impl Iterator<Item = Hook> {
        self.stages.iter().map(|stage| Hook {
            stage: match stage {
                Stage::Prestart => HookStage::Prestart,
                Stage::CreateRuntime => HookStage::CreateRuntime,
                Stage::CreateContainer => HookStage::CreateContainer,
                Stage::StartContainer => HookStage::StartContainer,
                Stage::Poststart => HookStage::Poststart,
                Stage::Poststop => HookStage::Poststop,
            },
            path: self.hook.path.clone(),
            args: self.hook.args.clone().filter(|args| !args.is_empty()).unwrap_or_else(|| vec![self.hook.path.clone()]),
            env: self.hook.env.clone(),
            timeout: self.hook.timeout.unwrap_or(HOOK_TIMEOUT).min(HOOK_LIMIT),
        })
    }
}

impl When {
    /// All conditions have to hold, and there has to be one; of several commands one is enough.
    fn fits(&self, facts: Facts<'_>) -> Result<bool, String> {
        let mut conditions = Vec::new();
        conditions.extend(self.always);
        conditions.extend(self.has_bind_mounts.map(|wanted| wanted && facts.has_binds));
        for (key, value) in &self.annotations {
            let (key, value) = (pattern("annotations", key)?, pattern("annotations", value)?);
            conditions.push(facts.annotations.iter().any(|(k, v)| key.is_match(k) && value.is_match(v)));
        }
        if !self.commands.is_empty() {
            let commands = self.commands.iter().map(|command| pattern("commands", command)).collect::<Result<Vec<_>, _>>()?;
            conditions.push(commands.iter().any(|command| command.is_match(facts.command)));
        }
        Ok(!conditions.is_empty() && conditions.into_iter().all(|holds| holds))
    }
}

fn pattern(field: &str, text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|e| format!("when.{field}: {text:?}: {e}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(when: &str) -> String {
        format!(
            r#"{{"version":"1.0.0","hook":{{"path":"/bin/h","args":["h","x"],"env":["A=b"],"timeout":3}},"when":{when},"stages":["prestart","poststop"]}}"#
        )
    }

    fn facts(annotations: &BTreeMap<String, String>) -> Facts<'_> {
        Facts { annotations, command: "/usr/bin/server", has_binds: false }
    }

    #[test]
    fn conditions() {
        let annotations: BTreeMap<_, _> = [("io.test/trace".to_owned(), "of:x".to_owned())].into();
        for (when, fits) in [
            (r#"{"always":true}"#, true),
            (r#"{"always":false}"#, false),
            ("{}", false),
            (r#"{"hasBindMounts":true}"#, false),
            (r#"{"commands":["^/usr/bin/ser.*$","nothing"]}"#, true),
            (r#"{"commands":["^server$"]}"#, false),
            (r#"{"annotations":{"^io\\.test/trace$":"^of:"}}"#, true),
            (r#"{"annotations":{"trace":"^on"}}"#, false),
            (r#"{"always":true,"commands":["nothing"]}"#, false),
            (r#"{"always":true,"annotations":{"trace":"."}}"#, true),
        ] {
            assert_eq!(parse(file(when).as_bytes()).unwrap().when.fits(facts(&annotations)), Ok(fits), "{when}");
        }
        assert!(parse(file(r#"{"commands":["("]}"#).as_bytes()).unwrap().when.fits(facts(&annotations)).is_err());
    }

    #[test]
    fn forms() {
        let good = file(r#"{"always":true}"#);
        let hooks: Vec<_> = parse(good.as_bytes()).unwrap().hooks().collect();
        assert_eq!(
            (hooks.len(), hooks[0].stage, hooks[1].stage, hooks[0].timeout),
            (2, HookStage::Prestart, HookStage::Poststop, 3)
        );
        for (from, to) in [
            ("1.0.0", "0.1.0"),
            ("/bin/h", "bin/h"),
            ("A=b", "A"),
            ("\"timeout\":3", "\"timeout\":0"),
            ("[\"prestart\",\"poststop\"]", "[]"),
            ("poststop", "never"),
            ("\"when\"", "\"more\":1,\"when\""),
            ("{", "["),
        ] {
            assert!(parse(good.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }

    #[test]
    fn later_directories_replace_files_and_a_bad_file_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let directories = ["a", "b", "absent"].map(|name| home.path().join(name));
        directories[..2].iter().for_each(|directory| fs::create_dir(directory).unwrap());
        fs::write(directories[0].join("x.json"), file(r#"{"always":true}"#)).unwrap();
        fs::write(directories[0].join("y.json"), file(r#"{"always":true}"#).replace("/bin/h", "/bin/y")).unwrap();
        fs::write(directories[0].join("README"), "no hook").unwrap();
        let annotations = BTreeMap::new();
        let chosen =
            || select(&directories, facts(&annotations)).map(|hooks| hooks.into_iter().map(|h| h.path).collect::<Vec<_>>());
        assert_eq!(chosen().unwrap(), ["/bin/h", "/bin/h", "/bin/y", "/bin/y"]);
        fs::write(directories[1].join("x.json"), file(r#"{"always":false}"#)).unwrap();
        assert_eq!(chosen().unwrap(), ["/bin/y", "/bin/y"]);
        fs::write(directories[1].join("z.json"), "{").unwrap();
        assert!(chosen().unwrap_err().to_string().contains("b/z.json: "));
        fs::remove_file(directories[1].join("z.json")).unwrap();
        fs::set_permissions(&directories[1], fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(chosen(), Err(Error::Read { .. })));
    }
}
