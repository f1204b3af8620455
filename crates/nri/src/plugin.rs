//! The runtime's end: a plugin that registers, is configured, and is called.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use prost::Message;
use tokio::{net::UnixStream, sync::mpsc, time::Instant};

use crate::{
    Code, Error, Events, Rpc, Status,
    connection::{CallError, Connection, Incoming, Reply},
    frame::{Channel, MAX_MESSAGE},
    proto::{
        ConfigureRequest, Container, ContainerUpdate, Empty, Event, PodSandbox, RegisterPluginRequest, SynchronizeRequest,
        UpdateContainersRequest, UpdateContainersResponse,
    },
};

pub(crate) const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
pub(crate) const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";
/// The version of the interface that plugins may rely on: messages as of this release of containerd/nri.
pub(crate) const NRI_VERSION: &str = "v0.12.2";
/// What a message of a split state may hold: well below ttrpc's limit, whose envelope comes on top.
const SYNC_BYTES: usize = MAX_MESSAGE / 2;

/// What a plugin is told of the runtime, and how long it may take.
#[derive(Clone, Debug)]
pub struct Options {
    /// The runtime's name.
    pub runtime: String,
    /// Its version.
    pub version: String,
    /// From the connection to the end of the first synchronization, each step.
    pub registration_timeout: Duration,
    /// Any other call.
    pub request_timeout: Duration,
}

/// Where a plugin comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// It connected by itself and says who it is.
    External,
    /// The runtime started it.
    Installed {
        /// Two digits.
        index: String,
        /// Its name.
        name: String,
        /// Its configuration.
        config: String,
    },
}

/// A configured plugin.
#[derive(Debug)]
pub struct Plugin {
    name: String,
    index: String,
    events: Events,
    connection: Connection,
    options: Options,
    /// Events whose methods the plugin does not have.
    legacy: AtomicU32,
}

/// What a plugin asks for by itself.
#[derive(Debug)]
pub struct Requests {
    incoming: mpsc::Receiver<Incoming>,
}

/// One such request.
#[derive(Debug)]
pub struct UpdateRequest {
    /// What it asks for.
    pub request: UpdateContainersRequest,
    reply: Reply,
}

impl Plugin {
    /// Lets whoever is at the other end register, and configures it.
    ///
    /// # Errors
    /// It did not, in time or rightly. The connection is closed then.
    pub async fn connect(stream: UnixStream, origin: Origin, options: Options) -> Result<(Self, Requests), Error> {
        let (connection, mut incoming) = Connection::new(stream, Channel::Plugin);
        let registered = tokio::time::timeout(options.registration_timeout, register(&mut incoming, &connection, &origin)).await;
        let late = |_| Error::Registration { why: format!("nothing within {:?}", options.registration_timeout) };
        let (index, name) = registered.map_err(late)??;
        let config = match origin {
            Origin::External => String::new(),
            Origin::Installed { config, .. } => config,
        };
        let milliseconds = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let request = ConfigureRequest {
            config,
            runtime_name: options.runtime.clone(),
            runtime_version: options.version.clone(),
            registration_timeout: milliseconds(options.registration_timeout),
            request_timeout: milliseconds(options.request_timeout),
            nri_version: NRI_VERSION.to_owned(),
        };
        let mut plugin = Self { name, index, events: Events::ALL, connection, options, legacy: AtomicU32::new(0) };
        let configured = plugin.request(&request, plugin.options.registration_timeout).await?;
        let unknown = |mask| Error::UnknownEvents { plugin: plugin.id(), mask };
        plugin.events = Events::from_mask(configured.events).map_err(unknown)?;
        Ok((plugin, Requests { incoming }))
    }

    /// Index and name: how it is spoken of, and the order in which plugins are called.
    pub fn id(&self) -> String {
        format!("{}-{}", self.index, self.name)
    }

    /// Its two digits.
    pub fn index(&self) -> &str {
        &self.index
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it wants to hear of it.
    pub fn wants(&self, event: Event) -> bool {
        self.events.contains(event)
    }

    /// Whether its connection has ended.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Waits until its connection has ended; says why.
    pub async fn closed(&self) -> Arc<str> {
        self.connection.closed().await
    }

    /// Ends its connection.
    pub fn close(&self, why: &str) {
        self.connection.close(why);
    }

    /// Tells it of something and waits for its answer.
    ///
    /// # Errors
    /// Its refusal; or it broke the protocol or took too long, and its connection is closed ([`Error::is_fatal`]).
    pub async fn call<R: Rpc>(&self, request: &R) -> Result<R::Response, Error> {
        let bit = R::EVENT.map_or(0, |event| Events::of(&[event]).mask().cast_unsigned());
        let known = self.legacy.load(Ordering::Relaxed) & bit == 0;
        if known {
            match self.request(request, self.options.request_timeout).await {
                Err(Error::Refused { status, .. }) if status.is(Code::Unimplemented) => {}
                other => return other,
            }
        }
        match request.state_change() {
            Some(change) => {
                self.legacy.fetch_or(bit, Ordering::Relaxed);
                self.request(&change, self.options.request_timeout).await.map(|_| R::Response::default())
            }
            // A plugin that subscribes to what it does not have is told nothing.
            None => Ok(R::Response::default()),
        }
    }

    /// Tells it of everything that there is, in as many messages as it takes; returns the updates that it wants.
    ///
    /// # Errors
    /// As of [`call`](Self::call), with the time for registration.
    pub async fn synchronize(&self, pods: Vec<PodSandbox>, containers: Vec<Container>) -> Result<Vec<ContainerUpdate>, Error> {
        let end = Instant::now() + self.options.registration_timeout;
        let mut parts = split(pods, containers).peekable();
        while let Some(mut part) = parts.next() {
            part.more = parts.peek().is_some();
            let answer = self.request(&part, end.saturating_duration_since(Instant::now())).await?;
            if !part.more {
                return Ok(answer.update);
            }
            if !answer.more || !answer.update.is_empty() {
                self.close("it does not understand a state that is split into several messages");
                return Err(Error::Split { plugin: self.id() });
            }
        }
        Ok(Vec::new())
    }

    /// Tells it that the runtime goes down.
    pub async fn shutdown(&self) {
        if let Err(e) = self.request(&Empty {}, self.options.request_timeout).await {
            tracing::debug!(plugin = self.id(), error = %e, "shutdown");
        }
        self.close("the runtime goes down");
    }

    async fn request<R: Rpc>(&self, request: &R, limit: Duration) -> Result<R::Response, Error> {
        let (plugin, method) = (self.id(), R::METHOD);
        let answer = self.connection.call(PLUGIN_SERVICE, method, request.encode_to_vec(), limit).await;
        let result = match answer {
            Ok(payload) => R::Response::decode(&*payload).map_err(|source| Error::Answer { plugin, method, source }),
            Err(CallError::Refused(status)) => Err(Error::Refused { plugin, method, status }),
            Err(CallError::Deadline) => Err(Error::Deadline { plugin, method, limit }),
            Err(CallError::Closed(why)) => Err(Error::Closed { plugin, method, why }),
            Err(CallError::TooLarge(length)) => Err(Error::TooLarge { plugin, method, length }),
            Err(CallError::TooManyFields(fields)) => Err(Error::TooManyFields { plugin, method, fields }),
        };
        if let Err(error) = &result
            && error.is_fatal()
        {
            self.close(&error.to_string());
        }
        result
    }
}

impl Requests {
    /// The next one; `None` when the connection has ended. What is no request of this interface is answered here.
    pub async fn next(&mut self) -> Option<UpdateRequest> {
        loop {
            let Incoming { service, method, payload, reply } = self.incoming.recv().await?;
            if (service.as_str(), method.as_str()) != (RUNTIME_SERVICE, "UpdateContainers") {
                reply.send(Err(no_method(&service, &method))).await;
                continue;
            }
            match UpdateContainersRequest::decode(&*payload) {
                Ok(request) => return Some(UpdateRequest { request, reply }),
                Err(e) => reply.send(Err(Status::new(Code::InvalidArgument, format!("UpdateContainers: {e}")))).await,
            }
        }
    }
}

impl UpdateRequest {
    /// Answers with what could not be done.
    pub async fn answer(self, failed: Vec<ContainerUpdate>) {
        self.reply.send(Ok(UpdateContainersResponse { failed }.encode_to_vec())).await;
    }
}

pub(crate) fn no_method(service: &str, method: &str) -> Status {
    let cut = |text: &str| text.chars().take(100).collect::<String>();
    Status::new(Code::Unimplemented, format!("no method {}/{}", cut(service), cut(method)))
}

async fn register(
    incoming: &mut mpsc::Receiver<Incoming>,
    connection: &Connection,
    origin: &Origin,
) -> Result<(String, String), Error> {
    loop {
        let next = tokio::select! {
            biased;
            next = incoming.recv() => next,
            why = connection.closed() => return Err(Error::Registration { why: why.to_string() }),
        };
        let Some(Incoming { service, method, payload, reply }) = next else {
            return Err(Error::Registration { why: connection.closed().await.to_string() });
        };
        if (service.as_str(), method.as_str()) != (RUNTIME_SERVICE, "RegisterPlugin") {
            let status = match (service.as_str(), method.as_str()) {
                (RUNTIME_SERVICE, "UpdateContainers") => Status::new(Code::FailedPrecondition, "the plugin is not registered"),
                (service, method) => no_method(service, method),
            };
            reply.send(Err(status)).await;
            continue;
        }
        let checked = RegisterPluginRequest::decode(&*payload).map_err(|e| e.to_string()).and_then(|r| identity(origin, r));
        return match checked {
            Ok(identity) => {
                reply.send(Ok(Vec::new())).await;
                Ok(identity)
            }
            Err(why) => {
                reply.send(Err(Status::new(Code::InvalidArgument, why.clone()))).await;
                Err(Error::Registration { why })
            }
        };
    }
}

/// Index and name.
fn identity(origin: &Origin, request: RegisterPluginRequest) -> Result<(String, String), String> {
    let (index, name) = match origin {
        Origin::External => (request.plugin_idx, request.plugin_name),
        Origin::Installed { index, name, .. } => (index.clone(), name.clone()),
    };
    check_name(&index, &name)?;
    Ok((index, name))
}

/// What an index and a name may be.
pub(crate) fn check_name(index: &str, name: &str) -> Result<(), String> {
    if index.len() != 2 || !index.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("index {:?}: must be two digits", index.chars().take(20).collect::<String>()));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    if name.is_empty() || name.len() > 128 || !name.chars().all(plain) {
        let shown = name.chars().take(40).collect::<String>();
        return Err(format!("name {shown:?}: must be 1 to 128 letters, digits and -_.+"));
    }
    Ok(())
}

/// Everything, in messages of a bearable size; at least one.
fn split(pods: Vec<PodSandbox>, containers: Vec<Container>) -> impl Iterator<Item = SynchronizeRequest> {
    let (mut pods, mut containers) = (pods.into_iter().peekable(), containers.into_iter().peekable());
    let mut first = true;
    std::iter::from_fn(move || {
        let (mut part, mut bytes) = (SynchronizeRequest::default(), 0);
        while let Some(pod) = pods.next_if(|pod| bytes == 0 || bytes + pod.encoded_len() <= SYNC_BYTES) {
            bytes += pod.encoded_len();
            part.pods.push(pod);
        }
        while pods.peek().is_none()
            && let Some(next) = containers.next_if(|next| bytes == 0 || bytes + next.encoded_len() <= SYNC_BYTES)
        {
            bytes += next.encoded_len();
            part.containers.push(next);
        }
        let something = bytes > 0 || std::mem::take(&mut first);
        first = false;
        something.then_some(part)
    })
}

#[cfg(test)]
mod tests;
