//! The streams of a connection, and whose turn it is.
//!
//! Windows (SPDY/3.1, 2.6.8): a client may have so many bytes on the way to it in a stream, and so many in all streams
//! together, before it says that it takes more. The clients of Kubernetes neither keep to windows nor widen them, whatever
//! the protocol says; a server that enforced the first 64 KiB would never send them more. So windows are counted from the
//! beginning and enforced as soon as a client has spoken of them: with WINDOW_UPDATE, or with the setting of their size.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::Violation;
use crate::inbox::Inlet;

/// Bytes after which a client is told that it may send as many again.
const STEP: usize = 32 << 10;
/// What a window is at first, in bytes.
const FIRST: i64 = 64 << 10;
/// What a window is at most.
const WIDEST: i64 = 0x7fff_ffff;
/// Pings that wait to be answered; a client that sends more does not get all of them back.
const PINGS: usize = 16;

/// Something to send now.
#[derive(Debug)]
pub(super) enum Piece {
    /// Bytes of a stream; when they are sent, so is the permit given back.
    Data(u32, Bytes, Option<OwnedSemaphorePermit>),
    /// A stream's end.
    Fin(u32),
    /// A stream's client, or with 0 the connection's, may send so many bytes more.
    Window(u32, u32),
    /// An answer to a ping.
    Ping(u32),
}

#[derive(Debug)]
struct Entry {
    /// `None`: the client has ended its side.
    inlet: Option<Arc<Inlet>>,
    /// Our side. `None`: ended.
    ours: Option<Ours>,
    room: Arc<Semaphore>,
    window: i64,
}

#[derive(Debug, Default)]
struct Ours {
    waiting: VecDeque<(Bytes, OwnedSemaphorePermit)>,
    ending: bool,
}

/// Streams that are open in one direction at least.
#[derive(Debug, Default)]
pub(super) struct Table {
    state: Mutex<State>,
    /// There may be something to send: a window is wider, or bytes were taken from a queue.
    pub(super) work: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    entries: BTreeMap<u32, Entry>,
    /// The number of the stream that was opened last.
    last: u32,
    /// The stream whose turn it was.
    turn: u32,
    /// The client speaks of windows.
    enforced: bool,
    first: i64,
    /// Of all streams together.
    window: i64,
    /// Bytes received since the client was last told that it may send more.
    received: usize,
    pings: VecDeque<u32>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            last: 0,
            turn: 0,
            enforced: false,
            first: FIRST,
            window: FIRST,
            received: 0,
            pings: VecDeque::new(),
        }
    }
}

impl Table {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the stream that was opened last.
    pub(super) fn last(&self) -> u32 {
        self.state().last
    }

    /// A stream that the client opens. `false`: there are `limit` already.
    pub(super) fn open(&self, id: u32, inlet: Inlet, room: Arc<Semaphore>, limit: usize) -> Result<bool, Violation> {
        let mut state = self.state();
        // A client's streams have odd, growing numbers.
        if id.is_multiple_of(2) || id <= state.last {
            return Err(Violation::StreamId(id));
        }
        state.last = id;
        if state.entries.len() >= limit {
            return Ok(false);
        }
        let entry = Entry { inlet: Some(Arc::new(inlet)), ours: Some(Ours::default()), room, window: state.first };
        state.entries.insert(id, entry);
        Ok(true)
    }

    /// Where bytes of a stream go; `None`: nowhere any more.
    pub(super) fn inlet(&self, id: u32) -> Option<Arc<Inlet>> {
        self.state().entries.get(&id).and_then(|entry| entry.inlet.clone())
    }

    /// Bytes came. They count for the window of the connection at once, and for their stream's when they are taken.
    pub(super) fn received(&self, bytes: usize) {
        let mut state = self.state();
        state.received += bytes;
        if state.received >= STEP {
            self.work.notify_one();
        }
    }

    /// The client has ended its side.
    pub(super) fn remote_end(&self, id: u32) {
        let mut state = self.state();
        if let Some(entry) = state.entries.get_mut(&id) {
            entry.inlet = None;
            if entry.ours.is_none() {
                state.entries.remove(&id);
            }
        }
    }

    /// Bytes wait for their turn. Those of a stream that is no more are dropped.
    pub(super) fn push(&self, id: u32, bytes: Bytes, permit: OwnedSemaphorePermit) {
        let mut state = self.state();
        if let Some(ours) = state.entries.get_mut(&id).and_then(|entry| entry.ours.as_mut()).filter(|ours| !ours.ending) {
            ours.waiting.push_back((bytes, permit));
        }
    }

    /// Our side of a stream ends when what waits has been sent.
    pub(super) fn end(&self, id: u32) {
        if let Some(ours) = self.state().entries.get_mut(&id).and_then(|entry| entry.ours.as_mut()) {
            ours.ending = true;
        }
    }

    /// Forgets a stream. `false`: there was none.
    pub(super) fn remove(&self, id: u32) -> bool {
        let removed = self.state().entries.remove(&id);
        removed.is_some_and(|entry| {
            entry.room.close();
            true
        })
    }

    /// A ping to be answered.
    pub(super) fn ping(&self, id: u32) {
        let mut state = self.state();
        if state.pings.len() < PINGS {
            state.pings.push_back(id);
            self.work.notify_one();
        }
    }

    /// The client takes more; with 0, in all streams together. `false`: more than there can be, of one stream.
    pub(super) fn widen(&self, id: u32, more: u32) -> Result<bool, Violation> {
        let mut state = self.state();
        state.enforced = true;
        let window = match id {
            0 => &mut state.window,
            _ => match state.entries.get_mut(&id) {
                Some(entry) => &mut entry.window,
                // It ended meanwhile.
                None => return Ok(true),
            },
        };
        *window += i64::from(more);
        let sane = more > 0 && *window <= WIDEST;
        self.work.notify_one();
        if id == 0 && !sane { Err(Violation::Window) } else { Ok(sane) }
    }

    /// The client says how wide windows are at first; those that are open change by the difference.
    pub(super) fn first_window(&self, bytes: u32) -> Result<(), Violation> {
        let mut state = self.state();
        let first = i64::from(bytes);
        if first > WIDEST {
            return Err(Violation::Window);
        }
        let change = first - state.first;
        (state.enforced, state.first) = (true, first);
        state.entries.values_mut().for_each(|entry| entry.window += change);
        self.work.notify_one();
        Ok(())
    }

    /// Nothing waits to be sent, now or later.
    pub(super) fn is_silent(&self) -> bool {
        self.state().entries.values().all(|entry| entry.ours.as_ref().is_none_or(|ours| ours.waiting.is_empty() && !ours.ending))
    }

    /// What to send now; streams take turns. `None`: nothing, until there is work.
    pub(super) fn next(&self) -> Option<Piece> {
        let mut state = self.state();
        state.control().or_else(|| state.output())
    }
}

impl State {
    /// What costs no window.
    fn control(&mut self) -> Option<Piece> {
        if let Some(id) = self.pings.pop_front() {
            return Some(Piece::Ping(id));
        }
        let steps = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX >> 1);
        if self.received >= STEP {
            return Some(Piece::Window(0, steps(std::mem::take(&mut self.received))));
        }
        self.entries.iter().find_map(|(id, entry)| {
            let taken = entry.inlet.as_ref()?.taken(STEP)?;
            Some(Piece::Window(*id, steps(taken)))
        })
    }

    fn output(&mut self) -> Option<Piece> {
        let connection = if self.enforced { self.window } else { WIDEST };
        let may = |entry: &Entry| if self.enforced { connection.min(entry.window) } else { WIDEST };
        let ready = |(_, entry): &(&u32, &Entry)| {
            entry.ours.as_ref().is_some_and(|ours| match ours.waiting.is_empty() {
                true => ours.ending,
                false => may(entry) > 0,
            })
        };
        let after = self.entries.range((Bound::Excluded(self.turn), Bound::Unbounded));
        let (id, may) = after.chain(self.entries.range(..=self.turn)).find(ready).map(|(id, entry)| (*id, may(entry)))?;
        self.turn = id;
        let entry = self.entries.get_mut(&id)?;
        let ours = entry.ours.as_mut()?;
        let Some((mut bytes, permit)) = ours.waiting.pop_front() else {
            entry.ours = None;
            if entry.inlet.is_none() {
                self.entries.remove(&id);
            }
            return Some(Piece::Fin(id));
        };
        let length = usize::try_from(may).unwrap_or(usize::MAX).min(bytes.len());
        let now = bytes.split_to(length);
        let sent = i64::try_from(length).expect("chunks are short");
        (entry.window, self.window) = (entry.window - sent, self.window - sent);
        let permit = match bytes.is_empty() {
            true => Some(permit),
            false => {
                ours.waiting.push_front((bytes, permit));
                None
            }
        };
        Some(Piece::Data(id, now, permit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{channel::room, inbox::inbox};

    fn with_streams(ids: &[u32]) -> (Table, Vec<crate::inbox::Incoming>) {
        let table = Table::default();
        let open = |id: &u32| {
            let (inlet, incoming) = inbox(table.work.clone());
            assert!(table.open(*id, inlet, room(), 8).unwrap());
            incoming
        };
        let incoming = ids.iter().map(open).collect();
        (table, incoming)
    }

    fn say(table: &Table, id: u32, bytes: usize) {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        table.push(id, vec![0; bytes].into(), permit);
    }

    /// Streams and lengths of what can be sent now.
    fn all(table: &Table) -> Vec<(u32, usize)> {
        let pieces = std::iter::from_fn(|| table.next());
        let data = pieces.map(|piece| match piece {
            Piece::Data(id, bytes, _) => (id, bytes.len()),
            Piece::Fin(id) => (id, 0),
            other => panic!("{other:?}"),
        });
        data.collect()
    }

    #[test]
    fn streams_take_turns() {
        let (table, _incoming) = with_streams(&[1, 3, 5]);
        for id in [1, 1, 1, 3, 3, 5] {
            say(&table, id, 10);
        }
        table.end(3);
        assert_eq!(all(&table), [(1, 10), (3, 10), (5, 10), (1, 10), (3, 10), (1, 10), (3, 0)]);
        say(&table, 3, 10);
        table.end(3);
        assert!(all(&table).is_empty() && table.is_silent());
    }

    #[test]
    fn without_a_word_of_windows_there_are_none() {
        let (table, _incoming) = with_streams(&[1]);
        (0..20).for_each(|_| say(&table, 1, 10_000));
        assert_eq!(all(&table).len(), 20);
        // From the first word on, what was sent counts: 200,000 - 65,536 are owed before anything more is sent.
        assert_eq!(table.widen(1, 134_464 + 5), Ok(true));
        say(&table, 1, 7);
        assert!(all(&table).is_empty());
        assert_eq!(table.widen(0, 1 << 20), Ok(true));
        assert_eq!(all(&table), [(1, 5)]);
        assert!(!table.is_silent());
        table.end(1);
        assert_eq!(table.widen(1, 2), Ok(true));
        assert_eq!(all(&table), [(1, 2), (1, 0)]);
    }

    #[test]
    fn a_stream_without_a_window_leaves_the_others_theirs() {
        let (table, _incoming) = with_streams(&[1, 3]);
        table.widen(0, 1 << 20).unwrap();
        (0..7).for_each(|_| say(&table, 1, 10_000));
        (0..3).for_each(|_| say(&table, 3, 10_000));
        let sent = all(&table);
        assert_eq!(sent.iter().filter(|(id, _)| *id == 1).map(|(_, n)| n).sum::<usize>(), 65_536);
        assert_eq!(sent.iter().filter(|(id, _)| *id == 3).map(|(_, n)| n).sum::<usize>(), 30_000);
    }

    #[test]
    fn the_size_of_windows_can_be_set_and_cannot_overflow() {
        let (table, _incoming) = with_streams(&[1]);
        table.first_window(10).unwrap();
        say(&table, 1, 30);
        assert_eq!(all(&table), [(1, 10)]);
        table.first_window(25).unwrap();
        assert_eq!(all(&table), [(1, 15)]);
        assert_eq!(table.first_window(0x8000_0000), Err(Violation::Window));
        assert_eq!(table.widen(1, 0x7fff_ffff), Ok(true));
        assert_eq!(table.widen(1, 0x7fff_ffff), Ok(false));
        assert_eq!(table.widen(1, 0), Ok(false));
        assert_eq!(table.widen(0, 0x7fff_ffff), Err(Violation::Window));
        assert_eq!(table.widen(99, 1), Ok(true));
    }

    #[tokio::test]
    async fn what_was_taken_is_given_back() {
        let (table, mut incoming) = with_streams(&[1]);
        let inlet = table.inlet(1).unwrap();
        for _ in 0..3 {
            inlet.put(&[0; 16 << 10]).await;
            table.received(16 << 10);
        }
        assert!(matches!(table.next(), Some(Piece::Window(0, 49_152))));
        assert!(table.next().is_none());
        incoming[0].next().await.unwrap();
        assert!(table.next().is_none());
        incoming[0].next().await.unwrap();
        assert!(matches!(table.next(), Some(Piece::Window(1, 32_768))));
    }

    #[test]
    fn a_flood_of_pings_is_not_all_answered() {
        let (table, _) = with_streams(&[]);
        (0..1000).for_each(|n| table.ping(n));
        assert_eq!(std::iter::from_fn(|| table.next()).count(), PINGS);
    }
}
