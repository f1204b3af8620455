//! The plugin's end: registers at a runtime's socket and hands its calls out. What real plugins are written with is in
//! other languages; this is for tests and for tools in this one.

use std::{path::Path, sync::Arc, time::Duration};

use prost::Message;
use tokio::{net::UnixStream, sync::mpsc};

use crate::{
    Code, Error, Status,
    connection::{CallError, Connection, Incoming, Reply},
    frame::Channel,
    plugin::{NRI_VERSION, RUNTIME_SERVICE},
    proto::{RegisterPluginRequest, UpdateContainersRequest, UpdateContainersResponse},
};

/// How long the runtime may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// A plugin.
#[derive(Debug)]
pub struct Stub {
    connection: Connection,
    calls: mpsc::Receiver<Incoming>,
    id: String,
}

/// A call of the runtime's.
#[derive(Debug)]
pub struct Called {
    /// The method's name.
    pub method: String,
    /// The encoded request.
    pub payload: Vec<u8>,
    reply: Reply,
}

impl Stub {
    /// Connects to a runtime's socket.
    ///
    /// # Errors
    /// connect(2).
    pub async fn connect(socket: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Socket { step: "connect to", path: socket.to_owned(), source: Arc::new(source) };
        Ok(Self::new(UnixStream::connect(socket).await.map_err(failed)?))
    }

    /// Speaks on a socket that is connected.
    pub fn new(stream: UnixStream) -> Self {
        let (connection, calls) = Connection::new(stream, Channel::Runtime);
        Self { connection, calls, id: String::new() }
    }

    /// Registers. What the runtime calls thereafter comes out of [`next`](Self::next), Configure first.
    ///
    /// # Errors
    /// The runtime refuses or is gone.
    pub async fn register(&mut self, index: &str, name: &str) -> Result<(), Error> {
        self.id = format!("{index}-{name}");
        let (plugin_name, plugin_idx) = (name.to_owned(), index.to_owned());
        let request = RegisterPluginRequest { plugin_name, plugin_idx, nri_version: NRI_VERSION.to_owned() };
        self.call("RegisterPlugin", request.encode_to_vec()).await.map(|_| ())
    }

    /// Asks for updates and evictions without having been asked.
    ///
    /// # Errors
    /// The runtime refuses or is gone.
    pub async fn update_containers(&self, request: &UpdateContainersRequest) -> Result<UpdateContainersResponse, Error> {
        let method = "UpdateContainers";
        let payload = self.call(method, request.encode_to_vec()).await?;
        let plugin = self.id.clone();
        UpdateContainersResponse::decode(&*payload).map_err(|source| Error::Answer { plugin, method, source })
    }

    /// The next call; `None`: the connection has ended.
    pub async fn next(&mut self) -> Option<Called> {
        let Incoming { method, payload, reply, .. } = self.calls.recv().await?;
        Some(Called { method, payload, reply })
    }

    async fn call(&self, method: &'static str, payload: Vec<u8>) -> Result<Vec<u8>, Error> {
        let plugin = self.id.clone();
        self.connection.call(RUNTIME_SERVICE, method, payload, LIMIT).await.map_err(|error| match error {
            CallError::Refused(status) => Error::Refused { plugin, method, status },
            CallError::Deadline => Error::Deadline { plugin, method, limit: LIMIT },
            CallError::Closed(why) => Error::Closed { plugin, method, why },
            CallError::TooLarge(length) => Error::TooLarge { plugin, method, length },
            CallError::TooManyFields(fields) => Error::TooManyFields { plugin, method, fields },
        })
    }
}

impl Called {
    /// The request, if it is one of this type.
    ///
    /// # Errors
    /// It is not.
    pub fn request<M: Message + Default>(&self) -> Result<M, prost::DecodeError> {
        M::decode(&*self.payload)
    }

    /// Answers.
    pub async fn answer<M: Message>(self, answer: &M) {
        self.reply.send(Ok(answer.encode_to_vec())).await;
    }

    /// Answers that it did not go well.
    pub async fn refuse(self, why: &str) {
        self.reply.send(Err(Status::new(Code::Unknown, why))).await;
    }

    /// Answers that there is no such method.
    pub async fn unimplemented(self) {
        self.reply.send(Err(Status::new(Code::Unimplemented, "no such method"))).await;
    }
}
