//! The streams of a connection, whatever frames they travel in: chunks in, chunks out.
//!
//! What comes in waits in a queue of a few chunks; when it is full, nothing more is read from the connection, so that
//! the client's kernel holds the client up. What goes out waits in one queue for the connection.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Bytes of a chunk at most.
pub(crate) const CHUNK: usize = 16 << 10;
/// Chunks that wait for the process or socket on one stream.
pub(crate) const QUEUE: usize = 4;
/// Chunks that wait for a connection.
const OUTBOUND: usize = 16;

/// The connection is gone, or this stream was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// What a session has to say.
#[derive(Debug)]
pub(crate) enum Outbound {
    /// A stream that the client opened is welcome.
    Accept(u32),
    /// Bytes of a stream.
    Data(u32, Bytes),
    /// A stream's end.
    Fin(u32),
    /// A stream is refused or given up.
    Reset(u32),
    /// Everything has been said.
    End,
    /// For the framing itself: a frame, ready to be sent.
    Raw(Vec<u8>),
}

/// The session's and the framing's way to the connection's writer.
#[derive(Clone, Debug)]
pub(crate) struct Link(mpsc::Sender<Outbound>);

impl Link {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Outbound>) {
        let (send, receive) = mpsc::channel(OUTBOUND);
        (Self(send), receive)
    }

    /// Says something; waits for room.
    pub(crate) async fn say(&self, what: Outbound) -> Result<(), Gone> {
        self.0.send(what).await.map_err(|_| Gone)
    }

    /// Says something if there is room, else not at all.
    pub(crate) fn try_say(&self, what: Outbound) {
        let _ = self.0.try_send(what);
    }

    /// Waits until the connection is no more.
    pub(crate) async fn gone(&self) {
        self.0.closed().await;
    }

    /// Sends what has been said, and ends the connection.
    pub(crate) async fn finish(self) {
        if self.say(Outbound::End).await.is_ok() {
            self.gone().await;
        }
    }
}

/// What a client sends on a stream. `None`: it has ended.
#[derive(Debug)]
pub(crate) struct Incoming(mpsc::Receiver<Bytes>);

impl Incoming {
    pub(crate) fn new() -> (mpsc::Sender<Bytes>, Self) {
        let (send, receive) = mpsc::channel(QUEUE);
        (send, Self(receive))
    }

    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}

/// What a client gets on a stream.
#[derive(Debug)]
pub(crate) struct Outgoing {
    id: u32,
    link: Link,
    reset: Arc<AtomicBool>,
}

impl Outgoing {
    pub(crate) fn new(id: u32, link: Link, reset: Arc<AtomicBool>) -> Self {
        Self { id, link, reset }
    }

    /// A stream that the client opened is welcome.
    pub(crate) async fn accept(&self) -> Result<(), Gone> {
        self.link.say(Outbound::Accept(self.id)).await
    }

    /// Sends up to [`CHUNK`] bytes.
    pub(crate) async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        if self.was_reset() {
            return Err(Gone);
        }
        self.link.say(Outbound::Data(self.id, bytes)).await
    }

    /// Ends the stream.
    pub(crate) async fn finish(self) {
        let _ = self.link.say(Outbound::Fin(self.id)).await;
    }

    /// Gives the stream up.
    pub(crate) async fn give_up(self) {
        let _ = self.link.say(Outbound::Reset(self.id)).await;
    }

    /// The client has given the stream up.
    pub(crate) fn was_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }
}
