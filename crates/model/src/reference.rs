//! Image names, normalised as docker does (distribution/reference grammar).

use std::{fmt, str::FromStr};

use crate::{Digest, DigestError};

/// Why a string is not an image name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing there.
    #[error("image name is empty")]
    Empty,
    /// The registry part.
    #[error("image name {0:?}: bad registry host")]
    Host(String),
    /// The repository part.
    #[error("image name {0:?}: bad repository (lower-case letters, digits, and . _ __ - between them, parts separated by /)")]
    Repository(String),
    /// The repository is longer than 255 characters.
    #[error("image name {0:?}: longer than 255 characters")]
    TooLong(String),
    /// The tag part.
    #[error("image name {0:?}: bad tag (up to 128 of letters, digits, _ . -, not starting with . or -)")]
    Tag(String),
    /// The digest part.
    #[error("image name {name:?}: {source}")]
    Digest {
        /// The whole name.
        name: String,
        /// What is wrong with the digest.
        source: DigestError,
    },
    /// 64 hexadecimal digits are an image id, not a name.
    #[error("image name {0:?}: 64 hexadecimal digits are an image id, not a repository")]
    LooksLikeId(String),
}

/// A registry's host and, if said, port; lower-case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Box<str>);

/// A repository path, with `library/` where docker adds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(Box<str>);

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Box<str>);

macro_rules! text {
    ($($name:ident),*) => { $(
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    )* };
}
text!(Host, Repository, Tag);

/// What of a repository is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    /// A name that can move.
    Tag(Tag),
    /// Exactly these bytes. A tag given beside a digest is dropped, as docker does.
    Digest(Digest),
}

/// A normalised image name.
///
/// `Display` is the full form (`docker.io/library/busybox:latest`); [`ImageRef::familiar`] is docker's short one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    /// The registry.
    pub registry: Host,
    /// The repository in it.
    pub repository: Repository,
    /// The tag or digest; `latest` if none was given.
    pub at: At,
}

const DEFAULT_HOST: &str = "docker.io";

impl ImageRef {
    /// The same repository at a digest.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { at: At::Digest(digest), ..self.clone() }
    }

    /// `REGISTRY/REPOSITORY`, without tag or digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The shortest form that means the same, as docker shows it: no `docker.io/`, no `library/`.
    pub fn familiar_name(&self) -> String {
        match (self.registry.as_str(), self.repository.as_str()) {
            (DEFAULT_HOST, repository) => match repository.strip_prefix("library/") {
                Some(short) if !short.contains('/') => short.to_owned(),
                _ => repository.to_owned(),
            },
            _ => self.name(),
        }
    }

    /// The familiar name with its tag or digest.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), At::suffix(&self.at))
    }
}

impl At {
    fn suffix(&self) -> String {
        match self {
            Self::Tag(tag) => format!(":{tag}"),
            Self::Digest(digest) => format!("@{digest}"),
        }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.at.suffix())
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        let ok =
            text.len() <= 128 && text.bytes().next().is_some_and(word) && text.bytes().all(|c| word(c) || matches!(c, b'.' | b'-'));
        if ok { Ok(Self(text.into())) } else { Err(ReferenceError::Tag(cut(text))) }
    }
}

impl FromStr for ImageRef {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|source| ReferenceError::Digest { name: cut(text), source })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash starts a tag; before it, a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') && !tag.contains(']') => (name, Some(tag.parse::<Tag>()?)),
            _ => (rest, None),
        };
        let (host, path) = split_host(name);
        let registry = parse_host(host, text)?;
        if digest.is_none() && tag.is_none() && host.is_none() && is_id(path) {
            return Err(ReferenceError::LooksLikeId(cut(text)));
        }
        let repository = parse_repository(&registry, path, text)?;
        let at = match (digest, tag) {
            (Some(digest), _) => At::Digest(digest),
            (None, Some(tag)) => At::Tag(tag),
            (None, None) => At::Tag(Tag("latest".into())),
        };
        Ok(Self { registry, repository, at })
    }
}

fn cut(text: &str) -> String {
    text.chars().take(300).collect()
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

/// docker's rule: the first part is a host if it has a dot or a colon, is `localhost`, or has upper-case letters.
fn split_host(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':', '[']) || first == "localhost" || first.bytes().any(|c| c.is_ascii_uppercase()) =>
        {
            (Some(first), rest)
        }
        _ => (None, name),
    }
}

fn parse_host(host: Option<&str>, whole: &str) -> Result<Host, ReferenceError> {
    let bad = || ReferenceError::Host(cut(whole));
    let Some(host) = host else { return Ok(Host(DEFAULT_HOST.into())) };
    let (name, port) = if let Some(inside) = host.strip_prefix('[') {
        let (address, rest) = inside.split_once(']').ok_or_else(bad)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
        (None, rest.strip_prefix(':').map_or_else(|| if rest.is_empty() { Ok(None) } else { Err(bad()) }, |p| Ok(Some(p)))?)
    } else {
        match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), None),
        }
    };
    if let Some(name) = name {
        let label = |l: &str| {
            !l.is_empty() && !l.starts_with('-') && !l.ends_with('-') && l.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(bad());
        }
    }
    if port.is_some_and(|p| p.is_empty() || !p.bytes().all(|c| c.is_ascii_digit()) || p.parse::<u16>().is_err()) {
        return Err(bad());
    }
    let lower = host.to_ascii_lowercase();
    if lower == "index.docker.io" {
        return Ok(Host(DEFAULT_HOST.into()));
    }
    // Host names have no case, but of one without dot and port its capitals are what says that it is a host.
    let lower_is_host = lower.contains(['.', ':', '[']) || lower == "localhost";
    Ok(Host(if lower_is_host { lower.into() } else { host.into() }))
}

fn parse_repository(registry: &Host, path: &str, whole: &str) -> Result<Repository, ReferenceError> {
    if !path.split('/').all(is_component) {
        return Err(ReferenceError::Repository(cut(whole)));
    }
    let path = if registry.as_str() == DEFAULT_HOST && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    if path.len() + registry.as_str().len() + 1 > 255 {
        return Err(ReferenceError::TooLong(cut(whole)));
    }
    Ok(Repository(path.into()))
}

/// `[a-z0-9]+` runs separated by `.`, `_`, `__` or any number of `-`.
fn is_component(part: &str) -> bool {
    let alnum = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().is_some_and(alnum) || !bytes.last().is_some_and(alnum) {
        return false;
    }
    bytes.split(alnum).all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|c| *c == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_as_docker_does() {
        let hex = "0a".repeat(32);
        for (given, full, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.35", "docker.io/library/busybox:1.35", "busybox:1.35"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c", "a/b:c"),
            ("localhost/foo", "localhost/foo:latest", "localhost/foo:latest"),
            ("localhost:5000/foo", "localhost:5000/foo:latest", "localhost:5000/foo:latest"),
            ("127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000/a/b/c:x"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("[::1]/x:t", "[::1]/x:t", "[::1]/x:t"),
            ("REG.example/x", "reg.example/x:latest", "reg.example/x:latest"),
            ("5IO52/4", "5IO52/4:latest", "5IO52/4:latest"),
            ("LOCALHOST/x", "localhost/x:latest", "localhost/x:latest"),
            ("a__b/c-d--e.f_g", "docker.io/a__b/c-d--e.f_g:latest", "a__b/c-d--e.f_g:latest"),
            (&format!("x:t@sha256:{hex}"), &format!("docker.io/library/x@sha256:{hex}"), &format!("x@sha256:{hex}")),
        ] {
            let name: ImageRef = given.parse().unwrap_or_else(|e| panic!("{given}: {e}"));
            assert_eq!(name.to_string(), full, "{given}");
            assert_eq!(name.familiar(), familiar, "{given}");
            assert_eq!(full.parse::<ImageRef>().unwrap(), name);
            assert_eq!(familiar.parse::<ImageRef>().unwrap(), name);
        }
    }

    #[test]
    fn bad_names_are_refused() {
        for bad in [
            "",
            ":",
            "@",
            "/",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "A",
            "a:",
            "a:-x",
            "a b",
            "a..b",
            "a___b",
            "a:b:c",
            "x@sha256:12",
            "x@md5:00",
            "host:99999/x",
            "host:/x",
            "[::1/x",
            "[zz]/x",
            "ho_st.x/a",
            &"a".repeat(300),
            &"0a".repeat(32),
            "docker.io",
            "http://x/y",
            "a\n",
            "a:\u{e9}",
            "..",
            "../x",
            "reg.example/../x",
        ] {
            match bad.parse::<ImageRef>() {
                // "docker.io" alone is a legal repository name in docker too.
                Ok(name) => assert_eq!(bad, "docker.io", "{name}"),
                Err(e) => assert!(!e.to_string().is_empty()),
            }
        }
        assert!("a".repeat(64).parse::<ImageRef>().is_err());
    }
}
