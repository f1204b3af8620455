//! Places to ask for the images of one registry, in order, out of `certs.d`.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use http::{HeaderName, HeaderValue};

use crate::{
    Capabilities, Config, ConfigError, Error, HostEntry, HostsFile, Origin, Scheme, Url, credentials::is_docker_hub,
    hosts::ClientPair, parse_hosts_toml,
};

const FILE_LIMIT: u64 = 1 << 20;

/// How TLS is spoken with an origin. Equal settings share a client; a changed file makes other settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TlsSettings {
    pub(crate) ca: Vec<PathBuf>,
    pub(crate) client: Vec<ClientPair>,
    pub(crate) skip_verify: bool,
    stamps: Vec<Option<(SystemTime, u64)>>,
}

impl TlsSettings {
    fn new(entry: &HostEntry, directory: &Path) -> Self {
        let place = |path: &PathBuf| directory.join(path);
        let ca: Vec<PathBuf> = entry.ca.iter().map(place).collect();
        let pair = |p: &ClientPair| ClientPair { cert: place(&p.cert), key: p.key.as_ref().map(place) };
        let client: Vec<ClientPair> = entry.client.iter().map(pair).collect();
        let files = ca.iter().chain(client.iter().flat_map(|p| std::iter::once(&p.cert).chain(&p.key)));
        let stamp = |path: &PathBuf| fs::metadata(path).ok().and_then(|m| Some((m.modified().ok()?, m.len())));
        let stamps = files.map(stamp).collect();
        Self { ca, client, skip_verify: entry.skip_verify, stamps }
    }

    /// What of these holds for another origin that this one's answers lead to: whom to trust, but neither our
    /// certificate nor the leave not to check theirs.
    pub(crate) fn for_others(&self) -> Self {
        let stamps = self.stamps.iter().take(self.ca.len()).copied().collect();
        Self { ca: self.ca.clone(), client: Vec::new(), skip_verify: false, stamps }
    }
}

/// One place to ask, with all that its configuration says.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) origin: Origin,
    /// `/v2`, or what the configuration says.
    base: String,
    pub(crate) capabilities: Capabilities,
    pub(crate) tls: TlsSettings,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) dial_timeout: Option<Duration>,
    /// The registry's name, for a mirror that serves several (`?ns=`).
    namespace: Option<String>,
    /// It is the registry itself, not a mirror.
    is_server: bool,
    /// It did not answer lately in this pull: ask it last.
    down: AtomicBool,
}

impl Endpoint {
    /// The URL of something in a repository: `manifests/latest`, `blobs/sha256:..`.
    pub(crate) fn url(&self, repository: &str, rest: &str) -> Url {
        let url = Url { origin: self.origin.clone(), target: format!("{}/{repository}/{rest}", self.base) };
        match &self.namespace {
            Some(namespace) => url.with_query("ns", namespace),
            None => url,
        }
    }

    /// The URL of something of the registry as a whole: ``, `_catalog`.
    pub(crate) fn root(&self, rest: &str) -> Url {
        Url { origin: self.origin.clone(), target: format!("{}/{rest}", self.base) }
    }

    /// Redirects and token realms of this one may lead to this machine and its link (R25): it is itself here, or
    /// configured to be insecure.
    pub(crate) fn may_lead_inside(&self) -> bool {
        self.origin.scheme == Scheme::Http || self.tls.skip_verify || self.origin.is_literal_loopback()
    }

    /// It is the registry that the image name says, or what `server` says instead of it; not a mirror.
    pub(crate) fn is_registry(&self) -> bool {
        self.is_server || self.namespace.is_none()
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    fn new(name: &str, entry: &HostEntry, url: &Url, directory: &Path) -> Self {
        let path = url.target.split('?').next().unwrap_or("/").trim_end_matches('/');
        let base = if entry.override_path || path.ends_with("/v2") { path.to_owned() } else { format!("{path}/v2") };
        let same = Origin::of_name(url.origin.scheme, name).as_ref() == Ok(&url.origin)
            || (is_docker_hub(name) && is_docker_hub(&url.origin.host));
        let mut origin = url.origin.clone();
        // containerd's own example says `server = "https://docker.io"`, where no registry is.
        if is_docker_hub(&origin.host) {
            "registry-1.docker.io".clone_into(&mut origin.host);
        }
        Self {
            origin,
            base,
            capabilities: entry.capabilities,
            tls: TlsSettings::new(entry, directory),
            headers: entry.headers.clone(),
            dial_timeout: entry.dial_timeout,
            namespace: (!same).then(|| name.to_owned()),
            is_server: false,
            down: AtomicBool::new(false),
        }
    }
}

/// The places to ask for images of a registry (`HOST[:PORT]`), mirrors first in the order of the file, the registry
/// itself last. Reads the files now, so that edits count from the next pull on.
pub(crate) fn endpoints(config: &Config, name: &str) -> Result<Vec<Endpoint>, Error> {
    let failed = |path: &Path| {
        let (host, path) = (name.to_owned(), path.to_owned());
        move |source| Error::Config { host, path, source }
    };
    let found = directory_of(&config.certs_dir, name);
    let directory = found.clone().unwrap_or_else(|| config.certs_dir.clone());
    let file = match &found {
        Some(directory) => read_directory(directory).map_err(failed(directory))?,
        None => HostsFile::default(),
    };
    for key in &file.unknown {
        tracing::warn!(registry = name, directory = %directory.display(), key, "unknown key in hosts.toml");
    }
    let mut endpoints = Vec::with_capacity(file.hosts.len() + 1);
    for entry in &file.hosts {
        if let Some(url) = &entry.url {
            endpoints.push(Endpoint::new(name, entry, url, &directory));
        }
    }
    let url = match &file.server.url {
        Some(url) => url.clone(),
        None => implied(config, name, &file.server).map_err(ConfigError::Name).map_err(failed(&directory))?,
    };
    let server = Endpoint { is_server: true, ..Endpoint::new(name, &file.server, &url, &directory) };
    // A host entry for the server's own URL is the server, said in the order that was wanted.
    match endpoints.iter_mut().find(|e| e.origin == server.origin && e.base == server.base) {
        Some(listed) => listed.is_server = true,
        None => endpoints.push(server),
    }
    Ok(endpoints)
}

/// TLS settings for an origin that an answer led to, if it is configured in its own right.
pub(crate) fn tls_of(config: &Config, origin: &Origin) -> Option<TlsSettings> {
    let directory = own_directory_of(&config.certs_dir, &origin.authority())?;
    let file = read_directory(&directory).ok()?;
    Some(TlsSettings::new(&file.server, &directory))
}

/// The registry's own URL where `server` is not said.
fn implied(config: &Config, name: &str, server: &HostEntry) -> Result<Url, crate::UrlError> {
    let name = if is_docker_hub(name) { "registry-1.docker.io" } else { name };
    let https = Origin::of_name(Scheme::Https, name)?;
    // Loopback names speak plain http, as docker and containerd have it, unless something says TLS. The name decides,
    // never what a name server answers (R26).
    let tls = !server.ca.is_empty() || !server.client.is_empty() || server.skip_verify || name.ends_with(":443");
    let listed = config.plain_http.iter().any(|plain| plain.eq_ignore_ascii_case(name));
    let plain = listed || (https.is_literal_loopback() && !tls);
    let origin = if plain { Origin::of_name(Scheme::Http, name)? } else { https };
    Ok(Url { origin, target: "/".to_owned() })
}

fn own_directory_of(root: &Path, name: &str) -> Option<PathBuf> {
    let containerd = match name.rsplit_once(':') {
        Some((host, port)) if !name.ends_with(']') => Some(format!("{host}_{port}_")),
        _ => None,
    };
    containerd.into_iter().chain([name.to_owned()]).map(|name| root.join(name)).find(|path| path.is_dir())
}

fn directory_of(root: &Path, name: &str) -> Option<PathBuf> {
    own_directory_of(root, name).or_else(|| Some(root.join("_default")).filter(|path| path.is_dir()))
}

fn read_directory(directory: &Path) -> Result<HostsFile, ConfigError> {
    match read_limited(&directory.join("hosts.toml")) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).map_err(|e| ConfigError::Toml { line: 1, message: e.to_string() })?;
            parse_hosts_toml(&text)
        }
        Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => docker_directory(directory),
        Err(error) => Err(error),
    }
}

/// docker's way: authorities in `*.crt`, client certificates in `*.cert` with the key beside it in `*.key`.
fn docker_directory(directory: &Path) -> Result<HostsFile, ConfigError> {
    let failed = |source| ConfigError::Read { path: directory.to_owned(), source };
    let mut server = HostEntry::default();
    let mut names: Vec<PathBuf> =
        fs::read_dir(directory).map_err(failed)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>().map_err(failed)?;
    names.sort();
    for path in names {
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => server.ca.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                server.client.push(ClientPair { cert: path, key: Some(key) });
            }
            _ => {}
        }
    }
    Ok(HostsFile { server, ..HostsFile::default() })
}

/// A regular file's bytes, if they are not too many.
pub(crate) fn read_limited(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    // A FIFO here would block the open itself.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("not a regular file")));
    }
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > FILE_LIMIT { Err(ConfigError::TooLarge(FILE_LIMIT)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(config: &Config, name: &str) -> Vec<String> {
        let list = endpoints(config, name).unwrap_or_else(|e| panic!("{name}: {e}"));
        list.iter().map(|e| e.url("r", "x")).map(|u| format!("{}{}", u.origin, u.target)).collect()
    }

    fn write(root: &Path, directory: &str, text: &str) {
        fs::create_dir_all(root.join(directory)).unwrap();
        fs::write(root.join(directory).join("hosts.toml"), text).unwrap();
    }

    #[test]
    fn without_files_names_decide() {
        let root = tempfile::tempdir().unwrap();
        let config = Config { plain_http: vec!["plain.example:5000".into()], ..Config::new(root.path()) };
        for (name, url) in [
            ("docker.io", "https://registry-1.docker.io/v2/r/x"),
            ("reg.example", "https://reg.example/v2/r/x"),
            ("reg.example:5000", "https://reg.example:5000/v2/r/x"),
            ("plain.example:5000", "http://plain.example:5000/v2/r/x"),
            ("plain.example", "https://plain.example/v2/r/x"),
            ("localhost", "http://localhost/v2/r/x"),
            ("localhost:5000", "http://localhost:5000/v2/r/x"),
            ("localhost:443", "https://localhost/v2/r/x"),
            ("127.1.2.3:5000", "http://127.1.2.3:5000/v2/r/x"),
            ("[::1]:5000", "http://[::1]:5000/v2/r/x"),
            ("[::1]", "http://[::1]/v2/r/x"),
            ("localhost.example", "https://localhost.example/v2/r/x"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/v2/r/x"),
        ] {
            assert_eq!(places(&config, name), [url], "{name}");
        }
    }

    #[test]
    fn directories_are_found_and_edits_count() {
        let root = tempfile::tempdir().unwrap();
        let config = Config::new(root.path());
        write(root.path(), "_default", "[host.'https://any.example']");
        assert_eq!(places(&config, "reg.example"), ["https://any.example/v2/r/x?ns=reg.example", "https://reg.example/v2/r/x"]);
        write(root.path(), "reg.example:5000", "[host.'https://m.example/p']");
        assert_eq!(
            places(&config, "reg.example:5000"),
            ["https://m.example/p/v2/r/x?ns=reg.example%3A5000", "https://reg.example:5000/v2/r/x"]
        );
        write(root.path(), "reg.example_5000_", "server = 'https://up.example/v2/'");
        assert_eq!(places(&config, "reg.example:5000"), ["https://up.example/v2/r/x?ns=reg.example%3A5000"]);
        let text = "[host.'http://a.example/hub/v2']\noverride_path = true\n[host.'https://registry-1.docker.io']";
        write(root.path(), "docker.io", text);
        assert_eq!(
            places(&config, "docker.io"),
            ["http://a.example/hub/v2/r/x?ns=docker.io", "https://registry-1.docker.io/v2/r/x"]
        );
        write(root.path(), "docker.io", "server = 'https://docker.io'");
        assert_eq!(places(&config, "docker.io"), ["https://registry-1.docker.io/v2/r/x"]);
        write(root.path(), "docker.io", "server = 1");
        let error = endpoints(&config, "docker.io").unwrap_err();
        assert_eq!(error.kind(), model::ErrorKind::InvalidArgument);
    }

    #[test]
    fn docker_style_directories_and_loopback_with_certificates() {
        let root = tempfile::tempdir().unwrap();
        let config = Config::new(root.path());
        let directory = root.path().join("localhost:5443");
        fs::create_dir_all(&directory).unwrap();
        for name in ["ca.crt", "b.crt", "me.cert", "me.key", "readme.txt"] {
            fs::write(directory.join(name), "").unwrap();
        }
        let list = endpoints(&config, "localhost:5443").unwrap();
        assert_eq!(list[0].origin.to_string(), "https://localhost:5443");
        assert_eq!(list[0].tls.ca, [directory.join("b.crt"), directory.join("ca.crt")]);
        assert_eq!(list[0].tls.client, [ClientPair { cert: directory.join("me.cert"), key: Some(directory.join("me.key")) }]);
        let others = list[0].tls.for_others();
        assert!(others.client.is_empty() && others.ca == list[0].tls.ca);
    }
}
