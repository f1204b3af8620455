//! The streams of a connection, whatever frames they travel in: chunks in, chunks out.
//!
//! What comes in waits in a queue of its stream ([`crate::inbox`]). What goes out may only be so much for each stream, so
//! that one whose client takes nothing leaves room for its siblings.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes of a chunk at most.
pub(crate) const CHUNK: usize = 16 << 10;
/// Chunks of one stream that wait for its client.
const WAITING: usize = 4;
/// What waits to be looked at by a connection's writer.
const OUTBOUND: usize = 16;

/// The connection is gone, or this stream was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// What a session has to say.
#[derive(Debug)]
pub(crate) enum Outbound {
    /// A stream that the client opened is welcome.
    Accept(u32),
    /// Bytes of a stream, and its right to have them wait.
    Data(u32, Bytes, OwnedSemaphorePermit),
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

/// Room for a stream's chunks that wait for its client. Closed when the client gives the stream up.
pub(crate) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(WAITING))
}

/// What a client gets on a stream.
#[derive(Debug)]
pub(crate) struct Outgoing {
    id: u32,
    link: Link,
    room: Arc<Semaphore>,
}

impl Outgoing {
    /// A stream's; `room` is from [`room`].
    pub(crate) fn new(id: u32, link: Link, room: Arc<Semaphore>) -> Self {
        Self { id, link, room }
    }

    /// A stream that the client opened is welcome.
    pub(crate) async fn accept(&self) -> Result<(), Gone> {
        self.link.say(Outbound::Accept(self.id)).await
    }

    /// Sends up to [`CHUNK`] bytes, once those before are on their way.
    pub(crate) async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        let permit = tokio::select! {
            permit = self.room.clone().acquire_owned() => permit.map_err(|_| Gone)?,
            () = self.link.gone() => return Err(Gone),
        };
        self.link.say(Outbound::Data(self.id, bytes, permit)).await
    }

    /// Ends the stream.
    pub(crate) async fn finish(&self) {
        let _ = self.link.say(Outbound::Fin(self.id)).await;
    }

    /// Gives the stream up.
    pub(crate) async fn give_up(self) {
        let _ = self.link.say(Outbound::Reset(self.id)).await;
    }

    /// The client has given the stream up.
    pub(crate) fn was_reset(&self) -> bool {
        self.room.is_closed()
    }
}
