//! Credentials, and the rule to whom they may be shown.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;
use sha2::{Digest as _, Sha256};

use crate::{Error, Origin, Scheme};

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text, for the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Takes the secret out of a text of somebody else's (a registry may echo what it was sent).
    pub(crate) fn scrub(&self, text: &str) -> String {
        // A secret of one or two characters would turn every message into asterisks and is none.
        if self.0.len() < 4 { text.to_owned() } else { text.replace(&*self.0, "***") }
    }
}

// A type that cannot derive Debug makes whoever prints a struct around it think; this one keeps derives working.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What a client was given for a registry, as CRI's `AuthConfig` and docker's `config.json` put it. Empty fields are
/// `None` or empty.
///
/// Used for the registry that the image name says (for `docker.io` also registry-1.docker.io and index.docker.io, and
/// for what `server` in its hosts.toml says), unless `server_address` names another host. A mirror sees them only if
/// `server_address` names it.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Who.
    pub username: String,
    /// The password; with the user name `<token>` it is an identity token, as docker's helpers write it.
    pub password: Option<Secret>,
    /// base64 of `USERNAME:PASSWORD`, where the two are not given.
    pub auth: Option<Secret>,
    /// An OAuth2 refresh token.
    pub identity_token: Option<Secret>,
    /// A bearer token to use as it is.
    pub registry_token: Option<Secret>,
    /// The registry they are for: `HOST[:PORT]` or a URL.
    pub server_address: Option<String>,
}

/// Credentials made ready: decoded and reduced to one way.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    Anonymous,
    Password { username: String, password: Secret },
    Identity(Secret),
    Bearer(Secret),
}

impl Credentials {
    /// Nothing at all.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// The one way that these say.
    pub(crate) fn login(&self) -> Result<Login, Error> {
        let given = |secret: &Option<Secret>| secret.clone().filter(|s| !s.expose().is_empty());
        if let Some(token) = given(&self.registry_token) {
            let refused = Error::Credentials { why: "registry_token has characters that no header can carry" };
            return sensitive(token.expose()).map(|_| Login::Bearer(token)).ok_or(refused);
        }
        if let Some(token) = given(&self.identity_token) {
            return Ok(Login::Identity(token));
        }
        let (username, password) = match (given(&self.password), given(&self.auth)) {
            (Some(password), _) => (self.username.clone(), password),
            (None, Some(auth)) => decode(&auth)?,
            (None, None) if self.username.is_empty() => return Ok(Login::Anonymous),
            (None, None) => (self.username.clone(), Secret::new("")),
        };
        if username.contains(':') {
            return Err(Error::Credentials { why: "the user name has a colon" });
        }
        Ok(if username == "<token>" { Login::Identity(password) } else { Login::Password { username, password } })
    }

    /// Whether `server_address`, if given, names this host.
    pub(crate) fn meant_for(&self, origin: &Origin) -> Option<bool> {
        let address = self.server_address.as_deref().filter(|a| !a.is_empty())?;
        let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
        let host = rest.split(['/', '?']).next().unwrap_or_default();
        // Without a scheme, "host" means the scheme's own port, whichever scheme the configuration chose.
        let scheme = match address.split_once("://") {
            Some(("http", _)) => Scheme::Http,
            Some(("https", _)) => Scheme::Https,
            _ => origin.scheme,
        };
        let Ok(named) = Origin::of_name(scheme, host) else { return Some(false) };
        let same_port = named.port == origin.port;
        Some(same_port && (named.host == origin.host || (is_docker_hub(&named.host) && is_docker_hub(&origin.host))))
    }
}

/// The names under which Docker Hub goes.
pub(crate) fn is_docker_hub(host: &str) -> bool {
    matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

fn decode(auth: &Secret) -> Result<(String, Secret), Error> {
    let bytes = STANDARD.decode(auth.expose().trim()).map_err(|_| Error::Credentials { why: "auth is not base64" })?;
    let text = String::from_utf8(bytes).map_err(|_| Error::Credentials { why: "auth is not UTF-8 within" })?;
    let (username, password) = text.split_once(':').ok_or(Error::Credentials { why: "auth is not USERNAME:PASSWORD within" })?;
    // docker pads with NUL.
    Ok((username.to_owned(), Secret::new(password.trim_end_matches('\0'))))
}

impl Login {
    /// A name for the token cache: equal logins, equal names; nothing can be read from it.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update(text.len().to_le_bytes());
            hash.update(text.as_bytes());
        };
        match self {
            Self::Anonymous => part("anonymous"),
            Self::Password { username, password } => ["password", username, password.expose()].map(part).into_iter().collect(),
            Self::Identity(token) => ["identity", token.expose()].map(part).into_iter().collect(),
            Self::Bearer(token) => ["bearer", token.expose()].map(part).into_iter().collect(),
        }
        hash.finalize().into()
    }

    /// `Authorization: Basic ..`, if there is a password.
    pub(crate) fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { username, password } = self else { return None };
        sensitive(&format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.expose()))))
    }

    /// What must not be seen in a text from outside.
    pub(crate) fn scrub(&self, text: &str) -> String {
        match self {
            Self::Anonymous => text.to_owned(),
            Self::Password { username, password } => {
                let packed = Secret::new(STANDARD.encode(format!("{username}:{}", password.expose())));
                packed.scrub(&password.scrub(text))
            }
            Self::Identity(token) | Self::Bearer(token) => token.scrub(text),
        }
    }
}

/// A header value that neither `Debug` nor HPACK's table keeps.
pub(crate) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Option<Secret> {
        Some(Secret::new(text))
    }

    #[test]
    fn the_best_credential_wins() {
        let all = Credentials {
            username: "u".into(),
            password: secret("p"),
            auth: secret("eDp5"),
            identity_token: secret("i"),
            registry_token: secret("r"),
            server_address: None,
        };
        assert!(all.login().unwrap() == Login::Bearer(Secret::new("r")));
        let all = Credentials { registry_token: None, ..all };
        assert!(all.login().unwrap() == Login::Identity(Secret::new("i")));
        let all = Credentials { identity_token: secret(""), ..all };
        assert!(all.login().unwrap() == Login::Password { username: "u".into(), password: Secret::new("p") });
        let all = Credentials { password: None, ..all };
        assert!(all.login().unwrap() == Login::Password { username: "x".into(), password: Secret::new("y") });
        let helper = Credentials { username: "<token>".into(), password: secret("t"), ..Credentials::default() };
        assert!(helper.login().unwrap() == Login::Identity(Secret::new("t")));
        assert!(Credentials::anonymous().login().unwrap() == Login::Anonymous);
        let split = Credentials { registry_token: secret("a\r\nX: y"), ..Credentials::default() };
        assert!(split.login().is_err());
        for bad in ["%%%", "eA==", "/w=="] {
            assert!(Credentials { auth: secret(bad), ..Credentials::default() }.login().is_err(), "{bad}");
        }
    }

    #[test]
    fn server_addresses_are_compared_as_origins() {
        let origin = |text: &str| crate::Url::parse(text).unwrap().origin;
        let meant = |address: &str, url: &str| {
            Credentials { server_address: Some(address.into()), ..Credentials::default() }.meant_for(&origin(url))
        };
        assert_eq!(meant("", "https://a"), None);
        for (address, url, result) in [
            ("a", "https://a", true),
            ("https://a/v2/", "https://a", true),
            ("a:443", "https://a", true),
            ("a:5000", "http://a:5000", true),
            ("a", "https://a:5000", false),
            ("A", "https://a", true),
            ("a.", "https://a", false),
            ("b", "https://a", false),
            ("https://index.docker.io/v1/", "https://registry-1.docker.io", true),
            ("docker.io", "https://registry-1.docker.io", true),
            ("docker.io.evil", "https://registry-1.docker.io", false),
            ("u@a", "https://a", false),
        ] {
            assert_eq!(meant(address, url), Some(result), "{address} {url}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let login = Credentials { username: "u".into(), password: secret("hunter2"), ..Credentials::default() };
        assert!(!format!("{login:?}").contains("hunter2"));
        let login = login.login().unwrap();
        assert!(!format!("{:?}", login.basic().unwrap()).contains("Basic"));
        assert_eq!(login.scrub("you sent hunter2 and dTpodW50ZXIy"), "you sent *** and ***");
        assert!(login.fingerprint() != Login::Anonymous.fingerprint());
    }
}
