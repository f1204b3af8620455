//! Where the bytes of one repository come from, for the length of one pull.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use model::{Digest, ImageRef};

use crate::{
    Capabilities, Config, Credentials, Error, Failure, Origin, Step, Tried,
    client::{ClientKey, Clients, HttpClient},
    credentials::Login,
    endpoint::{Endpoint, endpoints},
    rounds::Rounds,
    token::Tokens,
};

/// What all pulls share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) clients: Clients,
    pub(crate) tokens: Tokens,
}

/// One repository, its places, and what was learnt about them in this pull.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) repository: String,
    endpoints: Vec<Endpoint>,
    credentials: Credentials,
    login: Login,
    /// Keeps the connection pools of this pull alive.
    held: Mutex<BTreeMap<ClientKey, Arc<HttpClient>>>,
    /// Who gave wrong bytes for what.
    distrusted: Mutex<HashSet<(usize, Digest)>>,
}

/// Where the blobs of an image can be had: the configured places of its repository, with the credentials of the pull
/// and its connections, which close when the last clone is dropped.
#[derive(Clone)]
pub struct Source(pub(crate) Arc<Session>);

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.0.endpoints.iter().map(|e| e.origin.to_string());
        f.debug_struct("Source").field("repository", &self.0.repository).field("places", &places.collect::<Vec<_>>()).finish()
    }
}

impl Session {
    /// Reads the registry's configuration as it is now.
    pub(crate) async fn open(shared: &Arc<Shared>, image: &ImageRef, credentials: &Credentials) -> Result<Self, Error> {
        let login = credentials.login()?;
        let (reader, host) = (Arc::clone(shared), image.registry.as_str().to_owned());
        let read = tokio::task::spawn_blocking(move || endpoints(&reader.config, &host)).await;
        let endpoints = read.map_err(|e| Error::Config {
            host: image.registry.to_string(),
            path: shared.config.certs_dir.clone(),
            source: crate::ConfigError::Read { path: shared.config.certs_dir.clone(), source: e.into() },
        })??;
        Ok(Self {
            shared: Arc::clone(shared),
            repository: image.repository.to_string(),
            endpoints,
            credentials: credentials.clone(),
            login,
            held: Mutex::default(),
            distrusted: Mutex::default(),
        })
    }

    pub(crate) fn endpoint(&self, number: usize) -> &Endpoint {
        &self.endpoints[number]
    }

    /// Who we are to an origin that a request to `endpoint` goes to (R24): anonymous, unless the origin is exactly
    /// the endpoint's, and the credentials are meant for it.
    pub(crate) fn login_for(&self, endpoint: &Endpoint, origin: &Origin) -> &Login {
        let ours = endpoint.is_registry() && self.credentials.meant_for(origin).is_none();
        let named = self.credentials.meant_for(origin) == Some(true);
        if *origin == endpoint.origin && (ours || named) { &self.login } else { &Login::Anonymous }
    }

    /// Places that can do something, in the order to ask them: those that did not answer lately last.
    pub(crate) fn rounds(&self, can: impl Fn(Capabilities) -> bool) -> Rounds {
        let able = |down: bool| move |(_, e): &(usize, &Endpoint)| e.is_down() == down;
        let list: Vec<(usize, &Endpoint)> = self.endpoints.iter().enumerate().filter(|(_, e)| can(e.capabilities)).collect();
        let order = list.iter().copied().filter(able(false)).chain(list.iter().copied().filter(able(true)));
        Rounds::new(self.shared.config.timeouts, order.map(|(number, _)| number))
    }

    /// The rounds for a blob: without those that gave wrong bytes for it before.
    pub(crate) fn rounds_for(&self, digest: &Digest) -> Rounds {
        let mut rounds = self.rounds(|can| can.pull);
        let distrusted = self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, _) in distrusted.iter().filter(|(_, known)| known == digest) {
            rounds.skip(*number, Failure::Distrusted);
        }
        rounds
    }

    pub(crate) fn distrust(&self, number: usize, digest: Digest) {
        self.distrusted.lock().unwrap_or_else(PoisonError::into_inner).insert((number, digest));
    }

    /// The error that says what happened where.
    pub(crate) fn gave_up(&self, step: Step, name: String, failures: Vec<(usize, Failure)>) -> Error {
        let mut failures = failures;
        // As configured, so that the registry itself comes last: its answer decides the kind.
        failures.sort_by_key(|(number, _)| *number);
        let tried = failures.into_iter().map(|(number, why)| Tried { place: self.endpoints[number].origin.to_string(), why });
        Error::Pull { step, name, tried: tried.collect() }
    }

    /// The pool for a key, kept until this pull ends.
    pub(crate) async fn client(&self, key: ClientKey) -> Result<Arc<HttpClient>, Failure> {
        if let Some(held) = self.held.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(held));
        }
        let client = self.shared.clients.get(&key).await.map_err(Failure::Config)?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(held.entry(key).or_insert(client)))
    }
}
