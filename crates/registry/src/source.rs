//! Where the bytes of one repository come from, for the length of one pull.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use model::{Digest, Host, ImageRef};

use crate::{
    Capabilities, Config, Credentials, Error, Failure, Origin, Step, Tried,
    client::{ClientKey, Clients, HttpClient},
    credentials::Login,
    endpoint::{Endpoint, endpoints},
    rounds::{Rounds, Turn},
    token::{Access, Tokens},
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
    /// What tokens are asked for.
    pub(crate) access: Access,
    endpoints: Vec<Endpoint>,
    credentials: Credentials,
    login: Login,
    /// Keeps the connection pools of this pull alive.
    held: Mutex<BTreeMap<ClientKey, Arc<HttpClient>>>,
    /// Who gave wrong bytes for what.
    distrusted: Mutex<HashSet<(usize, Digest)>>,
}

/// A registry and a repository of it; none (empty): the registry as a whole.
#[derive(Clone, Copy)]
pub(crate) struct Name<'a> {
    pub(crate) registry: &'a Host,
    pub(crate) repository: &'a str,
}

impl<'a> From<&'a ImageRef> for Name<'a> {
    fn from(image: &'a ImageRef) -> Self {
        Self { registry: &image.registry, repository: image.repository.as_str() }
    }
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
    pub(crate) async fn open(
        shared: &Arc<Shared>,
        name: Name<'_>,
        access: Access,
        credentials: &Credentials,
    ) -> Result<Self, Error> {
        let login = credentials.login()?;
        let (reader, host) = (Arc::clone(shared), name.registry.as_str().to_owned());
        let read = tokio::task::spawn_blocking(move || endpoints(&reader.config, &host)).await;
        let endpoints = read.map_err(|e| Error::Config {
            host: name.registry.to_string(),
            path: shared.config.certs_dir.clone(),
            source: crate::ConfigError::Read { path: shared.config.certs_dir.clone(), source: e.into() },
        })??;
        Ok(Self {
            shared: Arc::clone(shared),
            repository: name.repository.to_owned(),
            access,
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

    /// The one place that uploads go to: the registry itself; if its configuration says that it takes none, the first
    /// that does. Uploads never go to a mirror just because it is listed first.
    pub(crate) fn taker(&self) -> Option<usize> {
        let able = || self.endpoints.iter().enumerate().filter(|(_, e)| e.capabilities.push);
        able().find(|(_, e)| e.is_registry()).or_else(|| able().next()).map(|(number, _)| number)
    }

    /// Asks the registry itself, never a mirror, as often as it may help.
    pub(crate) async fn ask_server<T, F>(&self, step: Step, name: String, ask: impl Fn(usize) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut rounds = self.rounds_at(self.endpoints.iter().position(Endpoint::is_registry));
        loop {
            match rounds.turn() {
                Turn::Ask(number) => match ask(number).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => rounds.failed(failure),
                },
                Turn::Wait(wait) => tokio::time::sleep(wait).await,
                Turn::Over => return Err(self.gave_up(step, name, rounds.into_failures())),
            }
        }
    }

    /// The course of a request to one place.
    pub(crate) fn rounds_at(&self, place: Option<usize>) -> Rounds {
        Rounds::new(self.shared.config.timeouts, place)
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
        Error::Asked { step, name, tried: tried.collect() }
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
