//! `creel login` and `creel logout`: docker's credentials, in docker's file and with docker's helpers.

use std::{
    env, fs,
    io::{IsTerminal as _, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use api::creel::{CheckLoginRequest, Credentials};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{
    args::{Login, Logout},
    client::Client,
    error::{self, Error, Exit},
    output,
};

/// Docker Hub's name in docker's file.
const HUB: &str = "https://index.docker.io/v1/";
/// How long a credential helper may think: it may ask a person.
const HELPER: Duration = Duration::from_secs(120);
/// What a helper may say.
const ANSWER: u64 = 1 << 20;

/// The registries that somebody has logged in to, as far as docker's file says.
pub(crate) fn registries() -> Vec<String> {
    Store::open().map(|store| store.registries()).unwrap_or_default()
}

/// docker's configuration with everything in it that is not ours.
pub(crate) struct Store {
    path: PathBuf,
    root: Map<String, Value>,
}

impl Store {
    /// Reads `config.json` below `DOCKER_CONFIG` or `~/.docker`; a file that is not there is empty.
    pub(crate) fn open() -> Result<Self, Error> {
        let dir = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
        let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
        let dir = dir.or_else(home).ok_or_else(|| Error::Refused { name: "HOME".into(), why: "not set, nor DOCKER_CONFIG" })?;
        Self::read(&dir.join("config.json"))
    }

    fn read(path: &Path) -> Result<Self, Error> {
        let what = || format!("read {}", path.display());
        let root = match fs::read(path) {
            Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => Map::new(),
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(Value::Object(root)) => root,
                // It is not overwritten: there may be credentials in it that only a comma hides.
                _ => return Err(Error::Refused { name: path.display().to_string(), why: "not a JSON object" }),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(e) => return Err(error::io(what())(e)),
        };
        Ok(Self { path: path.to_owned(), root })
    }

    /// The registries that something is known of, as far as the file says.
    fn registries(&self) -> Vec<String> {
        let keys = ["auths", "credHelpers"].iter().filter_map(|field| self.root.get(*field)?.as_object());
        let host = |key: &String| {
            let bare = key.trim_start_matches("https://").trim_start_matches("http://");
            let host = bare.split('/').next().unwrap_or(bare);
            if host == "index.docker.io" { "docker.io".to_owned() } else { host.to_owned() }
        };
        keys.flat_map(|object| object.keys().map(host)).collect()
    }

    /// The credentials for a registry, and nothing if there are none.
    pub(crate) fn get(&self, registry: &str) -> Result<Option<Credentials>, Error> {
        for key in keys(registry) {
            if let Some(helper) = self.helper(&key)
                && let Some(found) = helper_get(&helper, &key)?
            {
                return Ok(Some(found));
            }
            if let Some(found) = self.root.get("auths").and_then(|auths| auths.get(&key)).and_then(stored) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Keeps credentials; answers where.
    fn put(&mut self, registry: &str, credentials: &Credentials) -> Result<Kept, Error> {
        let key = key_of(registry);
        if let Some(helper) = self.helper(&key) {
            let said = json!({"ServerURL": key, "Username": credentials.username, "Secret": credentials.password});
            helper_run(&helper, "store", &said.to_string())?;
            self.auths().insert(key, json!({}));
            self.write()?;
            return Ok(Kept::Helper);
        }
        let auth = STANDARD.encode(format!("{}:{}", credentials.username, credentials.password));
        self.auths().insert(key, json!({ "auth": auth }));
        self.write()?;
        Ok(Kept::Plain(self.path.clone()))
    }

    /// Forgets a registry's credentials, under every spelling of its name.
    fn remove(&mut self, registry: &str) -> Result<(), Error> {
        let mut changed = false;
        for key in keys(registry) {
            if let Some(helper) = self.helper(&key) {
                // A helper that has nothing says so with an error.
                helper_run(&helper, "erase", &key).ok();
            }
            changed |= self.root.get_mut("auths").and_then(Value::as_object_mut).is_some_and(|auths| auths.remove(&key).is_some());
        }
        if changed { self.write() } else { Ok(()) }
    }

    fn auths(&mut self) -> &mut Map<String, Value> {
        let auths = self.root.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        auths.as_object_mut().expect("made an object above")
    }

    fn helper(&self, key: &str) -> Option<String> {
        let host = key.trim_start_matches("https://").trim_start_matches("http://").split('/').next().unwrap_or(key);
        let of_host = self.root.get("credHelpers").and_then(|helpers| helpers.get(key).or_else(|| helpers.get(host)));
        let helper = of_host.or_else(|| self.root.get("credsStore"))?.as_str()?;
        // It becomes a part of a program's name.
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        (!helper.is_empty() && helper.chars().all(legal)).then(|| helper.to_owned())
    }

    /// Atomically and for the user alone; a link stays a link.
    fn write(&self) -> Result<(), Error> {
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let what = || format!("write {}", path.display());
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir).map_err(error::io(what()))?;
        let temporary = dir.join(format!(".config.json.{}", std::process::id()));
        let text = serde_json::to_string_pretty(&self.root).map_err(Error::Json)? + "\n";
        let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).and_then(|mut file| {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        });
        written.inspect_err(|_| drop(fs::remove_file(&temporary))).map_err(error::io(what()))
    }
}

/// Where credentials were kept.
enum Kept {
    Helper,
    Plain(PathBuf),
}

/// The name under which docker keeps a registry.
fn key_of(registry: &str) -> String {
    match registry {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        host => host.to_owned(),
    }
}

/// All names under which it may have been kept.
fn keys(registry: &str) -> Vec<String> {
    let key = key_of(registry);
    if key == HUB {
        return [HUB, "docker.io", "index.docker.io", "https://index.docker.io"].map(str::to_owned).to_vec();
    }
    let more =
        ["https://", "http://"].into_iter().flat_map(|scheme| ["", "/", "/v1/", "/v2/"].map(|end| format!("{scheme}{key}{end}")));
    std::iter::once(key.clone()).chain(more).collect()
}

/// An entry of `auths`.
pub(crate) fn stored(entry: &Value) -> Option<Credentials> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("identitytoken") {
        return Some(Credentials { identity_token: token.to_owned(), ..Credentials::default() });
    }
    let decoded = String::from_utf8(STANDARD.decode(text("auth")?.trim_end_matches('\0')).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(Credentials { username: username.to_owned(), password: password.to_owned(), identity_token: String::new() })
}

fn helper_get(helper: &str, key: &str) -> Result<Option<Credentials>, Error> {
    let Ok(answer) = helper_run(helper, "get", key) else { return Ok(None) };
    let refused =
        || Error::Refused { name: format!("docker-credential-{helper}"), why: "its answer is not the JSON of a credential" };
    let answer: Value = serde_json::from_str(&answer).map_err(|_| refused())?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(refused);
    let (username, secret) = (text("Username")?, text("Secret")?);
    Ok(Some(match username.as_str() {
        "<token>" => Credentials { identity_token: secret, ..Credentials::default() },
        _ => Credentials { username, password: secret, identity_token: String::new() },
    }))
}

/// Runs a credential helper (docker's protocol: a verb, input on standard input, JSON or a reason on standard output).
fn helper_run(helper: &str, verb: &str, input: &str) -> Result<String, Error> {
    let program = format!("docker-credential-{helper}");
    let what = || format!("run {program} {verb}");
    let mut child =
        Command::new(&program).arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(error::io(what()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(error::io(what()))?;
    }
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.map(|out| out.take(ANSWER).read_to_string(&mut text)).transpose().map(|_| text)
    });
    let end = Instant::now() + HELPER;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(error::io(what()))? {
            break status;
        }
        if Instant::now() > end {
            child.kill().ok();
            child.wait().ok();
            return Err(Error::Refused { name: program, why: "did not answer in time" });
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let text = reader.join().map_err(|_| Error::Refused { name: program.clone(), why: "its answer could not be read" })?;
    let text = text.map_err(error::io(what()))?;
    if status.success() { Ok(text) } else { Err(Error::Refused { name: program, why: "it has no such credentials, or refused" }) }
}

/// `HOST[:PORT]` of what a person wrote.
fn host_of(text: &str) -> String {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest).to_owned()
}

/// Checks credentials with the registry and keeps them.
pub(crate) async fn login(client: &mut Client, args: Login) -> Result<Exit, Error> {
    let registry = args.registry.as_deref().map_or_else(|| "docker.io".to_owned(), host_of);
    let credentials = ask(&args)?;
    let request = CheckLoginRequest { registry: registry.clone(), credentials: Some(credentials.clone()) };
    client.images.check_login(request).await.map_err(|status| refused(&registry, status))?;
    match Store::open()?.put(&registry, &credentials)? {
        Kept::Helper => {}
        Kept::Plain(path) => output::note(&format!(
            "WARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper (credsStore) to remove this warning.",
            path.display()
        )),
    }
    output::print("Login Succeeded\n")?;
    Ok(Exit(0))
}

/// Why a registry does not let us in; docker's words if it is the password.
fn refused(registry: &str, status: tonic::Status) -> Error {
    match status.code() {
        tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => {
            Error::Daemon(format!("Get \"https://{registry}/v2/\": unauthorized: incorrect username or password"))
        }
        _ => error::daemon(status),
    }
}

fn ask(args: &Login) -> Result<Credentials, Error> {
    let wrong = |option, why: &str| Error::Option { option, value: "***".into(), why: why.into() };
    let username = match (&args.username, args.password_stdin) {
        (Some(username), _) => username.clone(),
        (None, true) => return Err(Error::Words("Must provide --username with --password-stdin".into())),
        (None, false) => prompt("Username: ", Echo::On)?,
    };
    let password = match (&args.password, args.password_stdin) {
        (Some(_), true) => return Err(wrong("--password", "--password and --password-stdin are mutually exclusive")),
        (Some(password), false) => {
            output::note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
            password.clone()
        }
        (None, true) => {
            let mut text = String::new();
            std::io::stdin().take(1 << 16).read_to_string(&mut text).map_err(error::io("read the password"))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        (None, false) => prompt("Password: ", Echo::Off)?,
    };
    Ok(Credentials { username, password, identity_token: String::new() })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    On,
    Off,
}

fn prompt(text: &str, echo: Echo) -> Result<String, Error> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::Refused { name: "login".into(), why: "cannot perform an interactive login from a non-TTY device" });
    }
    write!(std::io::stderr(), "{text}").ok();
    let before = rustix::termios::tcgetattr(&stdin).map_err(|e| error::io("read the terminal's settings")(e.into()))?;
    if echo == Echo::Off {
        let mut silent = before.clone();
        silent.local_modes.remove(rustix::termios::LocalModes::ECHO);
        rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Flush, &silent)
            .map_err(|e| error::io("silence the terminal")(e.into()))?;
    }
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    if echo == Echo::Off {
        rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Now, &before).ok();
        writeln!(std::io::stderr()).ok();
    }
    read.map_err(error::io("read the terminal"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Forgets credentials; those that were not there are forgotten too.
pub(crate) fn logout(args: &Logout) -> Result<Exit, Error> {
    let registry = args.registry.as_deref().map_or_else(|| "docker.io".to_owned(), host_of);
    output::print(&format!("Removing login credentials for {}\n", key_of(&registry)))?;
    Store::open()?.remove(&registry)?;
    Ok(Exit(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(text: &str) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, text).unwrap();
        let store = Store::read(&path).unwrap();
        (dir, store)
    }

    fn user(username: &str, password: &str) -> Credentials {
        Credentials { username: username.into(), password: password.into(), identity_token: String::new() }
    }

    #[test]
    fn what_is_kept_is_found_and_the_rest_of_the_file_stays() {
        let (dir, mut store) = store(r#"{"detachKeys": "ctrl-x", "auths": {"https://old.example/v1/": {"auth": "dTpw"}}}"#);
        store.put("r.example:5000", &user("me", "p:q")).unwrap();
        store.put("docker.io", &user("hub", "x")).unwrap();
        let path = dir.path().join("config.json");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut store = Store::read(&path).unwrap();
        assert_eq!(store.root["detachKeys"], "ctrl-x");
        assert_eq!(store.get("r.example:5000").unwrap(), Some(user("me", "p:q")));
        assert_eq!(store.get("docker.io").unwrap(), Some(user("hub", "x")));
        assert_eq!(store.get("old.example").unwrap(), Some(user("u", "p")));
        assert_eq!(store.get("r.example").unwrap(), None);
        store.remove("old.example").unwrap();
        assert_eq!(Store::read(&path).unwrap().get("old.example").unwrap(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_damaged_file_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, "{\"auths\": {},}").unwrap();
        assert!(Store::read(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"auths\": {},}");
    }

    #[test]
    fn helpers_are_programs_of_docker_s_and_nothing_else() {
        let (_dir, store) = store(r#"{"credsStore": "../../bin/sh", "credHelpers": {"r.example": "pass"}}"#);
        assert_eq!(store.helper("r.example").as_deref(), Some("pass"));
        assert_eq!(store.helper("https://r.example/v1/").as_deref(), Some("pass"));
        assert_eq!(store.helper("other.example"), None);
    }

    #[test]
    fn urls_are_reduced_to_hosts() {
        assert_eq!(host_of("https://r.example:5000/v2/"), "r.example:5000");
        assert_eq!(host_of("r.example"), "r.example");
    }
}
