//! Runtime handlers: the built-in executor, and OCI runtimes that the configuration names. What a runtime can do is asked of
//! itself, again whenever its file has changed.

use std::{
    collections::{BTreeMap, HashMap},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use model::ErrorKind;

use crate::error::{About, Error};

/// Names of the built-in executor.
pub const BUILT_IN: [&str; 2] = ["", "creel"];

/// How long a runtime may take to say what it is.
const PROBE: Duration = Duration::from_secs(5);
/// Bytes of what it says about its features at most; runc's are 10,000.
const FEATURES: usize = 1 << 20;

/// A handler that is an OCI runtime, with runc's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciHandler {
    /// The program; absolute.
    pub runtime: PathBuf,
    /// Arguments before every command.
    pub args: Vec<String>,
}

/// A handler as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    /// Its name.
    pub name: String,
    /// Its program; `None`: built in.
    pub runtime: Option<PathBuf>,
    /// What can be done with it, or why nothing.
    pub state: Result<Abilities, String>,
}

/// What a handler can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// First line of what it says to `--version`; empty for the built-in one.
    pub version: String,
    /// Mounts that are read-only with everything below. The supervisor makes them, for every runtime.
    pub recursive_read_only_mounts: bool,
    /// Pods with a user namespace.
    pub user_namespaces: bool,
    /// What it says to `features` (OCI runtime specification, features.md): JSON. `None`: it knows no such command, as crun
    /// before 1.9, or it is the built-in one.
    pub features: Option<serde_json::Value>,
}

impl Abilities {
    /// Why a pod with a user namespace is not made with it.
    fn no_user_namespaces(&self) -> String {
        let version = &self.version;
        let idmap = self.features.as_ref().and_then(|said| said.pointer("/linux/mountExtensions/idmap/enabled"));
        match idmap.and_then(serde_json::Value::as_bool) {
            Some(true) => format!("pods with a user namespace need the built-in handler: creel joins none with {version:?}"),
            _ => format!(
                "pods with a user namespace need the built-in handler: {version:?} does not say that it has idmapped mounts"
            ),
        }
    }
}

/// All handlers.
#[derive(Debug)]
pub(crate) struct Handlers {
    configured: BTreeMap<String, OciHandler>,
    /// By program: which file it was, and what it said.
    probed: Mutex<HashMap<PathBuf, Probe>>,
}

/// Tells a file from one that took its place.
type Identity = (u64, u64, i64, i64, u64);
type Probe = (Identity, Result<Abilities, String>);

impl Handlers {
    pub(crate) fn new(configured: BTreeMap<String, OciHandler>) -> Self {
        Self { configured, probed: Mutex::default() }
    }

    /// The runtime of a handler; `None`: built in.
    ///
    /// # Errors
    /// No such handler; the known ones are named.
    pub(crate) fn find(&self, name: &str) -> Result<Option<&OciHandler>, Error> {
        if BUILT_IN.contains(&name) {
            return Ok(None);
        }
        self.configured.get(name).map(Some).ok_or_else(|| {
            let known: Vec<_> = BUILT_IN.into_iter().chain(self.configured.keys().map(String::as_str)).collect();
            let name: String = name.chars().take(128).collect();
            let why = format!("runtime handler {name:?}: no such handler; there are {known:?}");
            Error::new(ErrorKind::InvalidArgument, About::Engine, why)
        })
    }

    /// Whether pods can be made with a handler now.
    ///
    /// # Errors
    /// No such handler, or why its runtime cannot be used.
    pub(crate) async fn admit(&self, name: &str, needs_userns: bool) -> Result<(), Error> {
        let Some(handler) = self.find(name)? else { return Ok(()) };
        let refuse = |kind, why: String| Err(Error::new(kind, About::Engine, format!("runtime handler {name:?}: {why}")));
        match self.probe(&handler.runtime).await {
            Err(why) => refuse(ErrorKind::Unavailable, why),
            Ok(abilities) if needs_userns && !abilities.user_namespaces => {
                refuse(ErrorKind::Unsupported, abilities.no_user_namespaces())
            }
            Ok(_) => Ok(()),
        }
    }

    /// All handlers, the built-in one first by both of its names.
    pub(crate) async fn list(&self) -> Vec<Handler> {
        let own = Abilities { recursive_read_only_mounts: true, user_namespaces: true, ..Abilities::default() };
        let built_in = |name: &str| Handler { name: name.to_owned(), runtime: None, state: Ok(own.clone()) };
        let mut list: Vec<_> = BUILT_IN.into_iter().map(built_in).collect();
        for (name, handler) in &self.configured {
            let state = self.probe(&handler.runtime).await;
            list.push(Handler { name: name.clone(), runtime: Some(handler.runtime.clone()), state });
        }
        list
    }

    async fn probe(&self, program: &Path) -> Result<Abilities, String> {
        let identity = identity(program)?;
        // A panic while the lock was held left a map that is whole.
        let lock = || self.probed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, said)) = lock().get(program).filter(|(was, _)| *was == identity) {
            return said.clone();
        }
        let said = ask(program).await;
        lock().insert(program.to_owned(), (identity, said.clone()));
        said
    }
}

fn identity(program: &Path) -> Result<Identity, String> {
    let found = std::fs::metadata(program).map_err(|e| format!("runtime {}: {e}", program.display()))?;
    if !found.is_file() || found.mode() & 0o111 == 0 {
        return Err(format!("runtime {}: not an executable file", program.display()));
    }
    Ok((found.dev(), found.ino(), found.mtime(), found.mtime_nsec(), found.size()))
}

async fn ask(program: &Path) -> Result<Abilities, String> {
    let output = run(program, "--version").await?;
    if !output.status.success() {
        return Err(format!("runtime {}: --version: {}", program.display(), output.status));
    }
    let version = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().chars().take(128).collect();
    // User namespaces stay with the built-in handler: runc before 1.2 can join none that it has not made.
    Ok(Abilities { version, recursive_read_only_mounts: true, user_namespaces: false, features: features(program).await })
}

/// What a runtime says about itself, for people and to give reasons: nothing depends on it.
async fn features(program: &Path) -> Option<serde_json::Value> {
    let output = run(program, "features").await.ok().filter(|output| output.status.success() && output.stdout.len() <= FEATURES)?;
    serde_json::from_slice(&output.stdout).ok().filter(serde_json::Value::is_object)
}

async fn run(program: &Path, word: &str) -> Result<Output, String> {
    let mut command = tokio::process::Command::new(program);
    command.arg(word).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PROBE, command.output()).await {
        Err(_) => Err(format!("runtime {}: {word}: no answer within {} s", program.display(), PROBE.as_secs())),
        Ok(output) => output.map_err(|e| format!("runtime {}: {word}: {e}", program.display())),
    }
}
