//! Bytes of a client that wait for a process or socket: bounded, so that whoever sends faster than is read has to wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::channel::CHUNK;

/// Bytes that wait before the sender has to: the window that a SPDY client has at first (SPDY/3.1, 2.6.8), so that one
/// that keeps to its window never waits here, and so never holds up other streams of its connection.
pub(crate) const ROOM: usize = 64 << 10;

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    readable: Notify,
    writable: Notify,
    /// Told when there is something to give back to the sender's window.
    taken: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    bytes: BytesMut,
    /// Nothing more will come.
    ended: bool,
    /// Nobody reads any more.
    unwanted: bool,
    /// Bytes that went out since it was asked last.
    taken: usize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection's side. Dropped: the stream has ended.
#[derive(Debug)]
pub(crate) struct Inlet(Arc<Shared>);

/// The session's side: what a client sends on a stream. Dropped: what still comes is thrown away.
#[derive(Debug)]
pub(crate) struct Incoming(Arc<Shared>);

/// A queue. `taken` is told whenever something was taken out of it.
pub(crate) fn inbox(taken: Arc<Notify>) -> (Inlet, Incoming) {
    let shared = Arc::new(Shared { state: Mutex::default(), readable: Notify::new(), writable: Notify::new(), taken });
    (Inlet(shared.clone()), Incoming(shared))
}

impl Inlet {
    /// Waits for room and puts the bytes in; they should not be more than [`CHUNK`].
    pub(crate) async fn put(&self, bytes: &[u8]) {
        loop {
            {
                let mut state = self.0.state();
                if state.unwanted {
                    state.taken += bytes.len();
                    self.0.taken.notify_one();
                    return;
                }
                if state.bytes.len() < ROOM {
                    state.bytes.extend_from_slice(bytes);
                    self.0.readable.notify_one();
                    return;
                }
            }
            self.0.writable.notified().await;
        }
    }

    /// How many bytes went out since this was asked last, if they are so many.
    pub(crate) fn taken(&self, least: usize) -> Option<usize> {
        let mut state = self.0.state();
        (state.taken >= least).then(|| std::mem::take(&mut state.taken))
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.readable.notify_one();
    }
}

impl Incoming {
    /// The next bytes. `None`: it has ended. Nothing is lost when this is dropped half-way.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.0.readable.notified().await;
        }
    }

    fn take(&self) -> Option<Option<Bytes>> {
        let mut state = self.0.state();
        if state.bytes.is_empty() {
            return state.ended.then_some(None);
        }
        let length = state.bytes.len().min(CHUNK);
        let bytes = state.bytes.split_to(length).freeze();
        state.taken += length;
        self.0.writable.notify_one();
        self.0.taken.notify_one();
        Some(Some(bytes))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.unwanted = true;
        state.taken += state.bytes.len();
        state.bytes = BytesMut::new();
        self.0.writable.notify_one();
        self.0.taken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn who_sends_too_much_waits_until_it_is_read() {
        let (inlet, mut incoming) = inbox(Arc::default());
        for n in 0..4 {
            inlet.put(&[n; CHUNK]).await;
        }
        assert!(timeout(MOMENT, inlet.put(b"more")).await.is_err());
        assert_eq!(inlet.taken(1), None);
        assert_eq!(incoming.next().await.unwrap(), vec![0; CHUNK]);
        assert_eq!((inlet.taken(CHUNK + 1), inlet.taken(CHUNK), inlet.taken(1)), (None, Some(CHUNK), None));
        inlet.put(b"more").await;
        drop(inlet);
        let mut rest = 0;
        while let Some(bytes) = incoming.next().await {
            rest += bytes.len();
        }
        assert_eq!(rest, 3 * CHUNK + 4);
    }

    #[tokio::test]
    async fn what_nobody_wants_is_thrown_away_and_given_back() {
        let (inlet, incoming) = inbox(Arc::default());
        for _ in 0..4 {
            inlet.put(&[0; CHUNK]).await;
        }
        drop(incoming);
        inlet.put(&[0; CHUNK]).await;
        assert_eq!(inlet.taken(1), Some(5 * CHUNK));
    }
}
