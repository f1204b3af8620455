//! One socket with ttrpc on its two channels: on one we call, on the other we are called.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::Message as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::{
    bounds,
    envelope::{Code, Request, Response, Status},
    frame::{Channel, Decoder, Kind, Message},
};

/// Messages that wait for the socket. Calls have deadlines, so a peer that does not read loses them, not our memory.
const OUTGOING: usize = 8;
/// Requests of the peer that wait for their turn; more are refused.
const INCOMING: usize = 16;
const READ: usize = 64 << 10;

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The peer says so.
    Refused(Status),
    /// The time is over.
    Deadline,
    /// The connection is gone.
    Closed(Arc<str>),
    /// The request is too long.
    TooLarge(usize),
    /// The answer holds too many things.
    TooManyFields(usize),
}

/// A connection; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

/// A request of the peer.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) service: String,
    pub(crate) method: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) reply: Reply,
}

/// The way back of an answer.
#[derive(Debug)]
pub(crate) struct Reply {
    shared: Arc<Shared>,
    stream: u32,
}

#[derive(Debug)]
struct Shared {
    /// The channel on which we call.
    calls: Channel,
    outgoing: mpsc::Sender<Outgoing>,
    pending: Mutex<Pending>,
    /// Why it ended, once it has.
    closed: watch::Sender<Option<Arc<str>>>,
}

/// A message on its way to the socket.
#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    /// Dropped when it has been written, or never will be.
    _written: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Pending {
    last: u32,
    waiting: HashMap<u32, oneshot::Sender<Response>>,
}

impl Connection {
    /// Takes over a socket. `calls` is the channel on which this end calls; requests come out of the receiver.
    pub(crate) fn new(stream: UnixStream, calls: Channel) -> (Self, mpsc::Receiver<Incoming>) {
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let (requests, incoming) = mpsc::channel(INCOMING);
        let shared = Arc::new(Shared { calls, outgoing, pending: Mutex::default(), closed: watch::Sender::new(None) });
        let (reader, writer) = stream.into_split();
        let mut tasks = JoinSet::new();
        tasks.spawn(until_closed(shared.clone(), read(shared.clone(), reader, requests)));
        tasks.spawn(until_closed(shared.clone(), write(shared.clone(), writer, queue)));
        (Self { shared, _tasks: tasks }, incoming)
    }

    /// Calls a method of the peer's.
    pub(crate) async fn call(&self, service: &str, method: &str, payload: Vec<u8>, limit: Duration) -> Result<Vec<u8>, CallError> {
        let mut closed = self.shared.closed.subscribe();
        let (stream, answer) = self.shared.expect_answer();
        let _forget = Forget { shared: &self.shared, stream };
        let timeout_nano = i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX);
        let request = Request { service: service.to_owned(), method: method.to_owned(), payload, timeout_nano };
        let message = Message { channel: self.shared.calls, stream, kind: Kind::Request, data: request.encode_to_vec() };
        let bytes = message.encode().map_err(CallError::TooLarge)?;
        let exchange = async {
            self.shared.write(bytes).await;
            answer.await.ok()
        };
        let response = tokio::select! {
            biased;
            Some(response) = exchange => response,
            why = ended(&mut closed) => return Err(CallError::Closed(why)),
            () = tokio::time::sleep(limit) => return Err(CallError::Deadline),
        };
        match response.status {
            Some(status) if status.code != 0 => Err(CallError::Refused(status)),
            _ => bounds::check(&response.payload).map(|()| response.payload).map_err(CallError::TooManyFields),
        }
    }

    /// Ends it.
    pub(crate) fn close(&self, why: &str) {
        self.shared.close(why);
    }

    /// Whether it has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.closed.borrow().is_some()
    }

    /// Waits for its end; says why.
    pub(crate) async fn closed(&self) -> Arc<str> {
        ended(&mut self.shared.closed.subscribe()).await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.close("the connection was given up");
    }
}

impl Reply {
    /// Answers.
    pub(crate) async fn send(self, answer: Result<Vec<u8>, Status>) {
        let response = match answer {
            Ok(payload) => Response { status: None, payload },
            Err(status) => Response { status: Some(status), payload: Vec::new() },
        };
        let served = if self.shared.calls == Channel::Plugin { Channel::Runtime } else { Channel::Plugin };
        let encode = |response: &Response| {
            Message { channel: served, stream: self.stream, kind: Kind::Response, data: response.encode_to_vec() }.encode()
        };
        let bytes = encode(&response).or_else(|length| {
            let status = Status::new(Code::ResourceExhausted, format!("an answer of {length} bytes"));
            encode(&Response { status: Some(status), payload: Vec::new() })
        });
        self.shared.write(bytes.expect("a short status fits")).await;
    }
}

/// Takes a call off the table, however it ends.
struct Forget<'a> {
    shared: &'a Shared,
    stream: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.pending().waiting.remove(&self.stream);
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once it is in the socket, so that who ends the connection next does not cut it off. A connection that has
    /// ended is noticed elsewhere.
    async fn write(&self, bytes: Vec<u8>) {
        let (sender, written) = oneshot::channel();
        if self.outgoing.send(Outgoing { bytes, _written: sender }).await.is_ok() {
            written.await.ok();
        }
    }

    /// Numbers of calls are odd (PROTOCOL.md, "Stream ID").
    fn expect_answer(&self) -> (u32, oneshot::Receiver<Response>) {
        let (sender, receiver) = oneshot::channel();
        let mut pending = self.pending();
        let mut stream = pending.last.wrapping_add(2) | 1;
        while pending.waiting.contains_key(&stream) {
            stream = stream.wrapping_add(2);
        }
        pending.last = stream;
        pending.waiting.insert(stream, sender);
        (stream, receiver)
    }

    fn close(&self, why: &str) {
        self.closed.send_if_modified(|closed| match closed {
            Some(_) => false,
            None => {
                *closed = Some(why.into());
                true
            }
        });
    }

    /// One message of the peer's.
    async fn take(self: &Arc<Self>, message: Message, requests: &mpsc::Sender<Incoming>) -> Result<(), String> {
        match (message.kind, message.channel == self.calls) {
            (Kind::Response, true) => {
                let Some(waiting) = self.pending().waiting.remove(&message.stream) else {
                    return Err(format!("an answer to call {}, which does not wait for one", message.stream));
                };
                let response = Response::decode(&*message.data).map_err(|e| format!("an answer that cannot be decoded: {e}"))?;
                // Who waited may have given up at this moment.
                waiting.send(response).ok();
                Ok(())
            }
            (Kind::Request, false) => {
                let request = Request::decode(&*message.data).map_err(|e| format!("a request that cannot be decoded: {e}"))?;
                let reply = Reply { shared: self.clone(), stream: message.stream };
                if let Err(fields) = bounds::check(&request.payload) {
                    reply.send(Err(Status::new(Code::ResourceExhausted, format!("a request of {fields} fields or more")))).await;
                    return Ok(());
                }
                let Request { service, method, payload, .. } = request;
                match requests.try_send(Incoming { service, method, payload, reply }) {
                    Ok(()) => {}
                    Err(mpsc::error::TrySendError::Full(refused) | mpsc::error::TrySendError::Closed(refused)) => {
                        refused.reply.send(Err(Status::new(Code::ResourceExhausted, "too many requests at once"))).await;
                    }
                }
                Ok(())
            }
            (Kind::Request, true) => Err("a request on the channel for answers".to_owned()),
            (Kind::Response, false) => Err("an answer on the channel for requests".to_owned()),
        }
    }
}

async fn ended(closed: &mut watch::Receiver<Option<Arc<str>>>) -> Arc<str> {
    match closed.wait_for(Option::is_some).await.map(|why| why.clone()) {
        Ok(Some(why)) => why,
        Ok(None) | Err(_) => "the connection was given up".into(),
    }
}

/// Runs a task's work until somebody closes the connection, or closes it with the reason why the work ended.
async fn until_closed(shared: Arc<Shared>, work: impl Future<Output = String>) {
    let mut closed = shared.closed.subscribe();
    tokio::select! {
        _ = ended(&mut closed) => {}
        why = work => shared.close(&why),
    }
}

async fn read(shared: Arc<Shared>, mut reader: OwnedReadHalf, requests: mpsc::Sender<Incoming>) -> String {
    let (mut buffer, mut decoder, mut messages) = (vec![0; READ], Decoder::default(), Vec::new());
    loop {
        let bytes = match reader.read(&mut buffer).await {
            Ok(0) => return "the peer closed the connection".to_owned(),
            Ok(n) => &buffer[..n],
            Err(e) => return format!("read: {e}"),
        };
        let decoded = decoder.push(bytes, &mut messages);
        for message in messages.drain(..) {
            if let Err(why) = shared.take(message, &requests).await {
                return format!("protocol error: {why}");
            }
        }
        if let Err(broken) = decoded {
            return format!("protocol error: {broken}");
        }
    }
}

async fn write(_shared: Arc<Shared>, mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Outgoing>) -> String {
    while let Some(message) = queue.recv().await {
        if let Err(e) = writer.write_all(&message.bytes).await {
            return format!("write: {e}");
        }
    }
    "nothing more to say".to_owned()
}
