//! Questions to registries that are not about one image here.

use model::{ErrorKind, Host, ImageRef};
use registry::{Credentials, Hit};

use super::Images;
use crate::error::{About, Error, Step};

impl Images {
    /// Looks for repositories: `TERM` at Docker Hub, `REGISTRY/TERM` at a registry. Names are given with the registry, unless it
    /// is Docker Hub.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn search(&self, term: &str, most: usize, credentials: &Credentials) -> Result<Vec<Hit>, Error> {
        let about = About::Image(term.to_owned());
        let (host, rest) = split(term)?;
        let mut hits = self.shared.registry.search(&host, rest, most, credentials).await.step(about, "search")?;
        if host.as_str() != "docker.io" {
            hits.iter_mut().for_each(|hit| hit.name = format!("{host}/{}", hit.name));
        }
        Ok(hits)
    }

    /// Whether a registry (`HOST[:PORT]`) accepts credentials.
    ///
    /// # Errors
    /// `PermissionDenied` if it does not; what else it says.
    pub async fn check_login(&self, registry: &str, credentials: &Credentials) -> Result<(), Error> {
        let about = About::Image(registry.to_owned());
        let host = host(registry)?;
        self.shared.registry.check(&host, credentials).await.step(about, "log in")
    }
}

/// The registry of a search term, if it names one, and the rest.
fn split(term: &str) -> Result<(Host, &str), Error> {
    match term.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => Ok((host(first)?, rest)),
        _ => Ok((host("docker.io")?, term)),
    }
}

/// A registry's name is what stands before a repository.
fn host(text: &str) -> Result<Host, Error> {
    let bad = |why: String| Error::new(ErrorKind::InvalidArgument, About::Image(text.to_owned()), why);
    let name: ImageRef = format!("{text}/x/x").parse().map_err(|e: model::ReferenceError| bad(e.to_string()))?;
    if text == "docker.io" || name.repository.as_str() == "x/x" {
        Ok(name.registry)
    } else {
        Err(bad("not HOST[:PORT]".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_of_search_terms() {
        let of = |term: &str| split(term).map(|(host, rest)| (host.to_string(), rest.to_owned())).map_err(|e| e.kind());
        let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(of("busybox"), pair("docker.io", "busybox"));
        assert_eq!(of("me/busybox"), pair("docker.io", "me/busybox"));
        assert_eq!(of("localhost:5000/a/b"), pair("localhost:5000", "a/b"));
        assert_eq!(of("r.example/a"), pair("r.example", "a"));
        assert!(of("r.example:x/a").is_err());
        assert!(host("me").is_err());
    }
}
