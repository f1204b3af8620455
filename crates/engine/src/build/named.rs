//! Contexts with names: what else FROM and --from mean.

use std::{
    fs::File,
    sync::{Arc, Mutex},
};

use model::ImageRef;

use super::Context;

/// Another place that a stage begins with or that files are copied from.
#[derive(Clone, Debug)]
pub enum NamedContext {
    /// An image, by its name or id.
    Image(String),
    /// Files of the client.
    Files(Context),
    /// An OCI layout of the client with one image: a plain tar, read by one at a time.
    Layout(Arc<Mutex<File>>),
}

impl NamedContext {
    /// An OCI layout with one image, as a plain tar.
    pub fn layout(archive: File) -> Self {
        Self::Layout(Arc::new(Mutex::new(archive)))
    }
}

/// How a context is called, of which a Dockerfile may say more: `alpine` is `docker.io/library/alpine:latest`.
pub fn context_name(text: &str) -> String {
    let short = |name: ImageRef| name.familiar().trim_end_matches(":latest").to_owned();
    text.parse().map_or_else(|_| text.to_lowercase(), short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_called_in_many_ways() {
        for text in ["alpine", "alpine:latest", "docker.io/library/alpine", "index.docker.io/alpine:latest"] {
            assert_eq!(context_name(text), "alpine", "{text}");
        }
        assert_eq!(
            [context_name("alpine:3"), context_name("Sources"), context_name("r.example/a")],
            ["alpine:3", "sources", "r.example/a"]
        );
    }
}
