//! `hosts.toml`, containerd's description of where the images of a registry are fetched.

use std::{path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{Url, UrlError};

/// Why a registry's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not TOML.
    #[error("line {line}: {message}")]
    Toml {
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A key with a value of the wrong kind.
    #[error("line {line}: {key} must be {want}")]
    Value {
        /// Counted from 1.
        line: usize,
        /// The key, with its table.
        key: String,
        /// What it should be.
        want: &'static str,
    },
    /// A URL.
    #[error("line {line}: {key}")]
    Url {
        /// Counted from 1.
        line: usize,
        /// The key.
        key: String,
        /// What is wrong with it.
        source: UrlError,
    },
    /// Too large a file.
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    /// Not a file, unreadable, not UTF-8.
    #[error("read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A certificate or key file.
    #[error("{path}: {why}")]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The TLS library refuses the settings.
    #[error("TLS settings")]
    Tls(#[source] rustls::Error),
    /// The name of the registry makes no URL.
    #[error("registry name")]
    Name(#[source] UrlError),
}

/// What a place may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Fetch by digest.
    pub pull: bool,
    /// Say what a tag stands for.
    pub resolve: bool,
    /// Take uploads.
    pub push: bool,
}

impl Capabilities {
    /// Everything: what a place without `capabilities` can do.
    pub const ALL: Self = Self { pull: true, resolve: true, push: true };
}

/// A client certificate and its key; one file may hold both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientPair {
    /// PEM file with the certificate chain.
    pub cert: PathBuf,
    /// PEM file with the private key; `None` = in `cert` too.
    pub key: Option<PathBuf>,
}

/// One place to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    /// Where; `None` (only for the server) = the registry that the image name says.
    pub url: Option<Url>,
    /// The URL's path is used as it is, without `/v2` behind it.
    pub override_path: bool,
    /// What it may be asked for.
    pub capabilities: Capabilities,
    /// PEM files of authorities to trust besides the system's; relative to the directory of the file.
    pub ca: Vec<PathBuf>,
    /// Certificates to show.
    pub client: Vec<ClientPair>,
    /// The server's certificate is not checked.
    pub skip_verify: bool,
    /// Headers to add to requests to this origin.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Instead of the connect deadline of the configuration.
    pub dial_timeout: Option<Duration>,
}

impl Default for HostEntry {
    fn default() -> Self {
        Self {
            url: None,
            override_path: false,
            capabilities: Capabilities::ALL,
            ca: Vec::new(),
            client: Vec::new(),
            skip_verify: false,
            headers: Vec::new(),
            dial_timeout: None,
        }
    }
}

/// A whole `hosts.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostsFile {
    /// The registry itself; asked last.
    pub server: HostEntry,
    /// Mirrors, in the order of the file.
    pub hosts: Vec<HostEntry>,
    /// Keys that mean nothing to us (`LINE: KEY`). Not an error, because the format is containerd's and grows.
    pub unknown: Vec<String>,
}

/// Reads a `hosts.toml`.
///
/// # Errors
/// See [`ConfigError`].
pub fn parse_hosts_toml(text: &str) -> Result<HostsFile, ConfigError> {
    let reader = Reader { text };
    let document = DeTable::parse(text).map_err(|e| ConfigError::Toml {
        line: e.span().map_or(1, |span| reader.line(span.start)),
        message: e.message().to_owned(),
    })?;
    let mut file = HostsFile::default();
    let mut hosts = Vec::new();
    for (key, value) in document.get_ref() {
        let here = reader.at(key.get_ref(), value);
        match &**key.get_ref() {
            "server" => file.server.url = Some(here.url(here.text()?)?),
            "host" => {
                for (name, table) in here.table()? {
                    let here = reader.at(&format!("host.{:?}", name.get_ref()), table);
                    let mut entry = HostEntry { url: Some(here.url(name.get_ref())?), ..HostEntry::default() };
                    for (key, value) in here.table()? {
                        let here = reader.at(&format!("{}.{}", here.key, key.get_ref()), value);
                        if !here.setting(key.get_ref(), &mut entry)? {
                            file.unknown.push(format!("{}: {}", here.line(), here.key));
                        }
                    }
                    // The parser's tables are sorted by name; the order that counts is that of the text.
                    hosts.push((name.span().start, entry));
                }
            }
            other => {
                if !here.setting(other, &mut file.server)? {
                    file.unknown.push(format!("{}: {other}", here.line()));
                }
            }
        }
    }
    hosts.sort_by_key(|(start, _)| *start);
    file.hosts = hosts.into_iter().map(|(_, entry)| entry).collect();
    Ok(file)
}

struct Reader<'t> {
    text: &'t str,
}

impl<'t> Reader<'t> {
    fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|c| *c == b'\n').count() + 1
    }

    fn at<'v>(&'v self, key: &str, value: &'v Spanned<DeValue<'t>>) -> Here<'v, 't> {
        Here { reader: self, key: key.to_owned(), value }
    }
}

/// A value and where it stands.
struct Here<'v, 't> {
    reader: &'v Reader<'t>,
    key: String,
    value: &'v Spanned<DeValue<'t>>,
}

impl<'v, 't> Here<'v, 't> {
    fn line(&self) -> usize {
        self.reader.line(self.value.span().start)
    }

    fn wrong(&self, want: &'static str) -> ConfigError {
        ConfigError::Value { line: self.line(), key: self.key.clone(), want }
    }

    fn text(&self) -> Result<&'v str, ConfigError> {
        self.value.get_ref().as_str().ok_or_else(|| self.wrong("a string"))
    }

    fn flag(&self) -> Result<bool, ConfigError> {
        self.value.get_ref().as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    fn table(&self) -> Result<&'v DeTable<'t>, ConfigError> {
        self.value.get_ref().as_table().ok_or_else(|| self.wrong("a table"))
    }

    /// A string or an array of strings.
    fn texts(&self, want: &'static str) -> Result<Vec<&'v str>, ConfigError> {
        match self.value.get_ref() {
            DeValue::String(text) => Ok(vec![text]),
            DeValue::Array(items) => items.iter().map(|i| i.get_ref().as_str().ok_or_else(|| self.wrong(want))).collect(),
            _ => Err(self.wrong(want)),
        }
    }

    /// As containerd: no scheme means https.
    fn url(&self, text: &str) -> Result<Url, ConfigError> {
        let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        Url::parse(&full).map_err(|source| ConfigError::Url { line: self.line(), key: self.key.clone(), source })
    }

    /// Takes one of the settings that hosts and the server share; false if it is none.
    fn setting(&self, name: &str, entry: &mut HostEntry) -> Result<bool, ConfigError> {
        match name {
            "capabilities" => entry.capabilities = self.capabilities()?,
            "ca" => entry.ca = self.texts("a path or an array of paths")?.into_iter().map(PathBuf::from).collect(),
            "client" => entry.client = self.client()?,
            "skip_verify" => entry.skip_verify = self.flag()?,
            "override_path" => entry.override_path = self.flag()?,
            "header" => entry.headers = self.headers()?,
            "dial_timeout" => {
                let want = "a duration such as \"3s\"";
                entry.dial_timeout = Some(parse_duration(self.text()?).ok_or_else(|| self.wrong(want))?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn capabilities(&self) -> Result<Capabilities, ConfigError> {
        let want = "an array of \"pull\", \"resolve\", \"push\"";
        let mut capabilities = Capabilities { pull: false, resolve: false, push: false };
        for name in self.texts(want)? {
            match name.to_ascii_lowercase().as_str() {
                "pull" => capabilities.pull = true,
                "resolve" => capabilities.resolve = true,
                "push" => capabilities.push = true,
                _ => return Err(self.wrong(want)),
            }
        }
        // containerd: an empty list is no list.
        let none = capabilities == Capabilities { pull: false, resolve: false, push: false };
        Ok(if none { Capabilities::ALL } else { capabilities })
    }

    fn client(&self) -> Result<Vec<ClientPair>, ConfigError> {
        let want = "a path, an array of paths or an array of [certificate, key] pairs";
        let single = |cert: &str| ClientPair { cert: cert.into(), key: None };
        let DeValue::Array(items) = self.value.get_ref() else {
            return Ok(vec![single(self.text().map_err(|_| self.wrong(want))?)]);
        };
        let pair = |item: &Spanned<DeValue<'t>>| match item.get_ref() {
            DeValue::String(cert) => Some(single(cert)),
            DeValue::Array(pair) => match pair.iter().map(|p| p.get_ref().as_str()).collect::<Option<Vec<_>>>()?.as_slice() {
                [cert] | [cert, ""] => Some(single(cert)),
                [cert, key] => Some(ClientPair { cert: cert.into(), key: Some(key.into()) }),
                _ => None,
            },
            _ => None,
        };
        items.iter().map(|item| pair(item).ok_or_else(|| self.wrong(want))).collect()
    }

    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, ConfigError> {
        let mut headers = Vec::new();
        for (name, value) in self.table()? {
            let here = self.reader.at(&format!("{}.{}", self.key, name.get_ref()), value);
            let header = HeaderName::from_bytes(name.get_ref().as_bytes()).map_err(|_| here.wrong("named like an HTTP header"))?;
            for text in here.texts("a string or an array of strings")? {
                let mut value = HeaderValue::from_str(text).map_err(|_| here.wrong("a legal HTTP header value"))?;
                // People put API keys here.
                value.set_sensitive(true);
                headers.push((header.clone(), value));
            }
        }
        Ok(headers)
    }
}

/// Go's durations, positive ones: `1m30s`, `500ms`, `1.5h`.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?)?;
        rest = tail;
    }
    (!total.is_zero()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_example_is_read() {
        let file = parse_hosts_toml(
            r#"
server = "https://registry-1.docker.io"
ca = "/etc/ca.pem"

[host."https://z.example/v2/hub"]
  capabilities = ["pull"]
  override_path = true
  client = [["a.cert", "a.key"], ["b.pem", ""], "c.pem"]
  dial_timeout = "1m1.5s"
  [host."https://z.example/v2/hub".header]
    x-one = ["a", "b"]
    X-Two = "c"
[host."http://a.example:5000"]
  ca = ["x.pem", "y.pem"]
  skip_verify = true
  client = "all.pem"
[host."m.example"]
  colour = "red"
"#,
        )
        .unwrap();
        assert_eq!(file.server.url.as_ref().unwrap().to_string(), "https://registry-1.docker.io/");
        assert_eq!(file.server.ca, [PathBuf::from("/etc/ca.pem")]);
        let urls: Vec<String> = file.hosts.iter().map(|h| h.url.as_ref().unwrap().to_string()).collect();
        assert_eq!(urls, ["https://z.example/v2/hub", "http://a.example:5000/", "https://m.example/"]);
        let first = &file.hosts[0];
        assert_eq!(first.capabilities, Capabilities { pull: true, resolve: false, push: false });
        assert_eq!(first.dial_timeout, Some(Duration::from_millis(61_500)));
        let pair = |cert: &str, key: Option<&str>| ClientPair { cert: cert.into(), key: key.map(PathBuf::from) };
        assert_eq!(first.client, [pair("a.cert", Some("a.key")), pair("b.pem", None), pair("c.pem", None)]);
        assert_eq!(first.headers.len(), 3);
        assert!(first.override_path && !format!("{first:?}").contains("\"a\""));
        assert!(file.hosts[1].skip_verify && file.hosts[1].capabilities == Capabilities::ALL);
        assert_eq!(file.hosts[1].client, [pair("all.pem", None)]);
        assert_eq!(file.unknown, ["18: host.\"m.example\".colour"]);
        assert_eq!(parse_hosts_toml("").unwrap(), HostsFile::default());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("server = ", "line 1"),
            ("\nserver = 1", "line 2: server must be a string"),
            ("server = 'ftp://x'", "line 1: server"),
            ("server = 'https://u:p@x'", "line 1: server"),
            ("[host.x]\ncapabilities = ['fly']", "line 2: host.\"x\".capabilities must be"),
            ("[host.x]\nskip_verify = 'yes'", "true or false"),
            ("[host.x]\nclient = [['a','b','c']]", "pairs"),
            ("[host.x]\nclient = 7", "pairs"),
            ("[host.x]\nca = [1]", "paths"),
            ("[host.x]\ndial_timeout = '3'", "duration"),
            ("[host.x]\ndial_timeout = '-3s'", "duration"),
            ("[host.x]\ndial_timeout = '0s'", "duration"),
            ("[host.x.header]\n'a b' = 'x'", "named like"),
            ("[host.x.header]\na = \"x\\ny\"", "legal HTTP header value"),
            ("host = 1", "a table"),
            ("[host.x]\n[host.x]", "line 2"),
        ] {
            let error = parse_hosts_toml(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
