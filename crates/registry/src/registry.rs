//! The front of the crate.

use std::{fmt, sync::Arc};

use model::{Descriptor, Host, ImageRef};

use crate::{
    BlobReader, Config, Credentials, Error, Fetching, Hit, Platform, Resolved, Source, Step, Target, Url, Version,
    client::Clients,
    fetch, list, resolve,
    source::{Name, Session, Shared},
    token::{Access, Tokens},
};

/// A client for all registries. Cheap to clone; clones share tokens and connections.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl Registry {
    /// A client. Nothing is read or connected to before the first pull.
    pub fn new(config: Config) -> Self {
        let clients = Clients::new(&config.timeouts);
        Self { shared: Arc::new(Shared { config, clients, tokens: Tokens::default() }) }
    }

    /// Where the blobs of an image's repository can be had, without asking anybody yet. For fetching single blobs
    /// again; a pull gets its source with [`Registry::resolve`].
    ///
    /// # Errors
    /// If the registry's configuration or the credentials are malformed.
    pub async fn source(&self, image: &ImageRef, credentials: &Credentials) -> Result<Source, Error> {
        Ok(Source(Arc::new(Session::open(&self.shared, image.into(), Access::Pull, credentials).await?)))
    }

    /// Finds the image for this machine: what the name stands for, its manifest and its config, all verified.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn resolve(&self, image: &ImageRef, credentials: &Credentials) -> Result<Resolved, Error> {
        self.resolve_for(image, credentials, &self.shared.config.platform).await
    }

    /// As [`Registry::resolve`], for another platform than that of the configuration.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn resolve_for(&self, image: &ImageRef, credentials: &Credentials, platform: &Platform) -> Result<Resolved, Error> {
        let source = self.source(image, credentials).await?;
        resolve::resolve(source, image, platform).await
    }

    /// Opens a blob. The first answer has come when this returns; the bytes come from the reader.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn blob(&self, source: &Source, blob: &Descriptor) -> Result<BlobReader, Error> {
        BlobReader::open(Arc::clone(&source.0), blob.clone()).await
    }

    /// Where images of a repository are pushed to, without asking anybody yet.
    ///
    /// # Errors
    /// If the registry's configuration or the credentials are malformed.
    pub async fn target(&self, image: &ImageRef, credentials: &Credentials) -> Result<Target, Error> {
        Ok(Target(Arc::new(Session::open(&self.shared, image.into(), Access::Push, credentials).await?)))
    }

    /// All tags of an image's repository, as the registry itself lists them.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn tags(&self, image: &ImageRef, credentials: &Credentials) -> Result<Vec<String>, Error> {
        let session = Arc::new(Session::open(&self.shared, image.into(), Access::Pull, credentials).await?);
        session.ask_server(Step::Tags, image.name(), |number| list::tags(&session, number)).await
    }

    /// Repositories of a registry with a term in their names (where it has a search: also in their descriptions), at most
    /// `most`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn search(&self, host: &Host, term: &str, most: usize, credentials: &Credentials) -> Result<Vec<Hit>, Error> {
        let name = Name { registry: host, repository: "" };
        let session = Arc::new(Session::open(&self.shared, name, Access::Pull, credentials).await?);
        session.ask_server(Step::Search, host.to_string(), |number| list::search(&session, number, term, most)).await
    }

    /// Whether a registry accepts credentials.
    ///
    /// # Errors
    /// See [`Error`]; `PermissionDenied` if it does not.
    pub async fn check(&self, host: &Host, credentials: &Credentials) -> Result<(), Error> {
        let name = Name { registry: host, repository: "" };
        let session = Arc::new(Session::open(&self.shared, name, Access::Pull, credentials).await?);
        session.ask_server(Step::Login, host.to_string(), |number| list::check(&session, number)).await
    }

    /// Asks any HTTP server for a file of at most `most` bytes; `None`: it is still the version that is `known`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn fetch(&self, url: &Url, known: Option<&Version>, most: u64) -> Result<Option<Fetching>, Error> {
        fetch::fetch(&self.shared, url, known, most).await
    }

    #[cfg(test)]
    pub(crate) fn with(config: Config, adjust: impl FnOnce(&mut Clients)) -> Self {
        let mut clients = Clients::new(&config.timeouts);
        adjust(&mut clients);
        Self { shared: Arc::new(Shared { config, clients, tokens: Tokens::default() }) }
    }
}
