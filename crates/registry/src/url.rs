//! The few URLs a registry client meets: origins to compare, paths to ask for, redirects to follow.

use std::{fmt, net::IpAddr};

use http::Uri;

/// `http` or `https`; nothing else is ever followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Scheme, host and port: what credentials are bound to. Equal only if all three are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The scheme.
    pub scheme: Scheme,
    /// The host, lower-case; an IPv6 address in brackets. A trailing dot is kept: it is another name.
    pub host: String,
    /// The port, also where it is the scheme's own.
    pub port: u16,
}

impl Origin {
    /// `HOST[:PORT]` as it stands in a URL: the scheme's own port is left out.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// The origin of a registry name (`HOST[:PORT]`) under a scheme.
    ///
    /// # Errors
    /// If the name is not a host with an optional port.
    pub fn of_name(scheme: Scheme, name: &str) -> Result<Self, UrlError> {
        Ok(Url::parse(&format!("{}://{name}/", scheme.as_str()))?.origin)
    }

    /// The host as an address, if it is written as one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// `localhost`, `127.x.x.x` or `[::1]`, by name alone: no name server is asked (R26).
    pub(crate) fn is_literal_loopback(&self) -> bool {
        self.host == "localhost" || self.address().is_some_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

/// An address that neither a redirect nor a token realm of a remote registry may lead to (R25): this machine itself,
/// the link, and the places where clouds answer with a machine's credentials.
pub(crate) fn is_inner(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.octets()[0] == 0
                || v4.octets() == [100, 100, 100, 200]
        }
        IpAddr::V6(v6) => match v6.to_ipv4() {
            // Mapped (::ffff:a.b.c.d) and compatible (::a.b.c.d) spellings reach the IPv4 address.
            Some(v4) if !v6.is_loopback() && !v6.is_unspecified() => is_inner(IpAddr::V4(v4)),
            _ => {
                v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.is_multicast()
                    || (v6.segments()[0] & 0xffc0) == 0xfe80
                    || v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
            }
        },
    }
}

/// Why a text is no URL that we follow. The text itself is not repeated: it may carry a signature or a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL at all.
    #[error("not a URL")]
    Form,
    /// Neither http nor https.
    #[error("neither an http nor an https URL")]
    Scheme,
    /// `user:password@`.
    #[error("URL with user information")]
    UserInfo,
    /// More than 16 KiB.
    #[error("URL longer than 16384 bytes")]
    TooLong,
}

const LONGEST: usize = 16 * 1024;

/// An absolute http or https URL without user information and fragment.
///
/// `Display` leaves out the query, because that is where signatures live.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// Whom to ask.
    pub origin: Origin,
    /// What for: path and query, starting with `/`.
    pub target: String,
}

impl Url {
    /// Reads an absolute URL.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > LONGEST {
            return Err(UrlError::TooLong);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Form)?;
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            Some(_) => return Err(UrlError::Scheme),
            None => return Err(UrlError::Form),
        };
        let authority = uri.authority().ok_or(UrlError::Form)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::UserInfo);
        }
        // `Uri` reads "host:" and "host:99999" as a host without a port.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => scheme.default_port(),
            Some(rest) => rest.strip_prefix(':').and_then(|p| p.parse().ok()).ok_or(UrlError::Form)?,
            None => return Err(UrlError::Form),
        };
        if authority.host().is_empty() || port == 0 {
            return Err(UrlError::Form);
        }
        let target = uri.path_and_query().map_or("/", |p| p.as_str());
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { origin: Origin { scheme, host: authority.host().to_ascii_lowercase(), port }, target })
    }

    /// The URL that a `Location` header of this URL's answer means (RFC 3986 section 5, without dot segments: those
    /// are left to the server).
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn join(&self, location: &str) -> Result<Self, UrlError> {
        let location = location.split('#').next().unwrap_or_default();
        if location.len() > LONGEST {
            return Err(UrlError::TooLong);
        }
        let scheme_end = location.find(':').unwrap_or(location.len());
        let path_start = location.find(['/', '?']).unwrap_or(location.len());
        if scheme_end < path_start {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", self.origin.scheme.as_str()));
        }
        let path = self.target.split('?').next().unwrap_or("/");
        let target = if location.is_empty() {
            self.target.clone()
        } else if location.starts_with('/') {
            location.to_owned()
        } else if location.starts_with('?') {
            format!("{path}{location}")
        } else {
            let directory = path.rfind('/').map_or("/", |end| &path[..=end]);
            format!("{directory}{location}")
        };
        Self::parse(&format!("{}{target}", self.origin))
    }

    /// The same URL with one more query parameter, percent-encoded.
    pub(crate) fn with_query(mut self, key: &str, value: &str) -> Self {
        let separator = if self.target.contains('?') { '&' } else { '?' };
        self.target = format!("{}{separator}{key}={}", self.target, percent(value));
        self
    }

    /// The URL for the HTTP library.
    pub(crate) fn uri(&self) -> Result<Uri, UrlError> {
        format!("{}{}", self.origin, self.target).parse().map_err(|_| UrlError::Form)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.target.split('?').next().unwrap_or("/"))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

/// Percent-encodes all but RFC 3986's unreserved characters.
pub(crate) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn urls_are_read_strictly() {
        assert_eq!(url("https://A.Example:443/x?y=1").origin, url("https://a.example").origin);
        assert_ne!(url("https://a.example./").origin, url("https://a.example/").origin);
        assert_ne!(url("http://a.example:443/").origin, url("https://a.example/").origin);
        assert_eq!(url("http://[::1]:5000").to_string(), "http://[::1]:5000/");
        assert_eq!(url("https://h?q=1").target, "/?q=1");
        assert_eq!(url("https://h/p?signature=abc").to_string(), "https://h/p");
        for (bad, why) in [
            ("", UrlError::Form),
            ("/v2/", UrlError::Form),
            ("https://", UrlError::Form),
            ("https://h:/", UrlError::Form),
            ("https://h:0/", UrlError::Form),
            ("https://h:99999/", UrlError::Form),
            ("https://h\u{e9}/", UrlError::Form),
            ("https://h /", UrlError::Form),
            ("ftp://h/", UrlError::Scheme),
            ("file:///etc/passwd", UrlError::Form),
            ("https://u:p@h/", UrlError::UserInfo),
            ("https://u@h/", UrlError::UserInfo),
        ] {
            assert_eq!(Url::parse(bad), Err(why), "{bad}");
        }
        assert_eq!(Url::parse(&format!("https://h/{}", "a".repeat(LONGEST))), Err(UrlError::TooLong));
    }

    #[test]
    fn locations_are_resolved() {
        let base = url("https://a:8443/v2/x/blobs/1?q");
        for (location, result) in [
            ("/other?z=1", "https://a:8443/other?z=1"),
            ("http://b/c", "http://b/c"),
            ("//b/c", "https://b/c"),
            ("2", "https://a:8443/v2/x/blobs/2"),
            ("?z=http://x", "https://a:8443/v2/x/blobs/1?z=http://x"),
            ("y#part", "https://a:8443/v2/x/blobs/y"),
            ("", "https://a:8443/v2/x/blobs/1?q"),
            ("/a:b", "https://a:8443/a:b"),
        ] {
            let joined = base.join(location).unwrap();
            assert_eq!(format!("{}{}", joined.origin, joined.target), result, "{location}");
        }
        assert_eq!(base.join("javascript:1"), Err(UrlError::Form));
        assert_eq!(base.join("https://u:p@b/"), Err(UrlError::UserInfo));
    }

    #[test]
    fn inner_addresses_are_known() {
        for inner in
            ["127.0.0.1", "127.9.9.9", "0.0.0.0", "169.254.169.254", "::1", "::", "fe80::1", "::ffff:127.0.0.1", "fd00:ec2::254"]
        {
            assert!(is_inner(inner.parse().unwrap()), "{inner}");
        }
        for outer in ["10.0.0.1", "192.168.1.1", "1.1.1.1", "2606:4700::1111", "fd12::1", "::ffff:1.1.1.1"] {
            assert!(!is_inner(outer.parse().unwrap()), "{outer}");
        }
        assert_eq!(percent("a b/c:d~"), "a%20b%2Fc%3Ad~");
    }
}
