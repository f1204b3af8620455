//! The front of the crate.

use std::{fmt, sync::Arc};

use model::{Descriptor, ImageRef};

use crate::{
    BlobReader, Config, Credentials, Error, Platform, Resolved, Source,
    client::Clients,
    resolve,
    source::{Session, Shared},
    token::Tokens,
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
        Ok(Source(Arc::new(Session::open(&self.shared, image, credentials).await?)))
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

    #[cfg(test)]
    pub(crate) fn with(config: Config, adjust: impl FnOnce(&mut Clients)) -> Self {
        let mut clients = Clients::new(&config.timeouts);
        adjust(&mut clients);
        Self { shared: Arc::new(Shared { config, clients, tokens: Tokens::default() }) }
    }
}
