//! A connection: frames on one side, streams on the other.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter},
    sync::mpsc,
};

use super::{
    Headers, Violation,
    frame::{self, Control, HEAD, Head, Reason},
    headers::{Deflater, Inflater},
};
use crate::{
    channel::{CHUNK, Incoming, Link, Outbound, Outgoing},
    connection::{Activity, LINGER},
};

/// Bytes after which a stream's client is told that it may send as many again. Its window is 64 KiB at first.
const WINDOW_STEP: u32 = 32 << 10;

/// A stream that the client has opened. It waits for [`Outgoing::accept`].
#[derive(Debug)]
pub(crate) struct Stream {
    /// Its number.
    pub(crate) id: u32,
    /// What the client says of it.
    pub(crate) headers: Headers,
    /// From the client.
    pub(crate) incoming: Incoming,
    /// To the client.
    pub(crate) outgoing: Outgoing,
}

/// Streams, as the client opens them.
pub(crate) type Streams = mpsc::Receiver<Stream>;

/// Takes a connection over. At most `limit` streams are open at a time. The task ends with the connection.
pub(crate) fn serve<S>(socket: S, limit: usize) -> (Streams, Link)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (link, outbound) = Link::new();
    let (opened, streams) = mpsc::channel(4);
    let table = Arc::new(Table::default());
    let activity = Arc::new(Activity::new());
    let mut reader =
        Reader { table: table.clone(), activity: activity.clone(), link: link.clone(), opened, inflater: Inflater::new(), limit };
    tokio::spawn(async move {
        let (read, write) = tokio::io::split(socket);
        let mut read = BufReader::with_capacity(CHUNK, read);
        let mut writer =
            Writer { to: BufWriter::with_capacity(CHUNK, write), table, activity: activity.clone(), deflater: Deflater::default() };
        let finished = tokio::select! {
            violated = reader.run(&mut read) => {
                tracing::debug!(why = %violated, "streaming connection ended");
                false
            }
            sent = writer.run(outbound) => sent.is_ok(),
            () = activity.ceased() => false,
        };
        drop(reader);
        if finished && writer.to.shutdown().await.is_ok() {
            let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut read, &mut tokio::io::sink())).await;
        }
    });
    (streams, link)
}

/// Streams that are open in one direction at least.
#[derive(Debug, Default)]
struct Table {
    entries: Mutex<HashMap<u32, Entry>>,
    /// The number of the stream that was opened last.
    last: AtomicU32,
}

#[derive(Debug)]
struct Entry {
    /// `None`: the client has ended its side.
    to: Option<mpsc::Sender<Bytes>>,
    /// We have not ended ours.
    open: bool,
    reset: Arc<AtomicBool>,
    /// Bytes received since the client's window was last widened.
    received: u32,
}

impl Table {
    fn entries(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where bytes of a stream go; `None`: nowhere any more.
    fn sender(&self, id: u32) -> Option<mpsc::Sender<Bytes>> {
        self.entries().get(&id).and_then(|entry| entry.to.clone())
    }

    /// Counts bytes; by how many to widen the window now.
    fn widen(&self, id: u32, bytes: u32) -> Option<u32> {
        let mut entries = self.entries();
        let entry = entries.get_mut(&id)?;
        entry.received += bytes;
        (entry.received >= WINDOW_STEP).then(|| std::mem::take(&mut entry.received))
    }

    fn remote_end(&self, id: u32) {
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(&id) {
            entry.to = None;
            if !entry.open {
                entries.remove(&id);
            }
        }
    }

    /// Whether there was something to end.
    fn local_end(&self, id: u32) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&id) else { return false };
        let was_open = std::mem::replace(&mut entry.open, false);
        if entry.to.is_none() {
            entries.remove(&id);
        }
        was_open
    }

    fn is_open(&self, id: u32) -> bool {
        self.entries().get(&id).is_some_and(|entry| entry.open)
    }

    fn remove(&self, id: u32) -> bool {
        let removed = self.entries().remove(&id);
        removed.is_some_and(|entry| {
            entry.reset.store(true, Ordering::Relaxed);
            true
        })
    }
}

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Violation(#[from] Violation),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("nobody writes any more")]
    Writer,
}

struct Reader {
    table: Arc<Table>,
    activity: Arc<Activity>,
    link: Link,
    opened: mpsc::Sender<Stream>,
    inflater: Inflater,
    limit: usize,
}

impl Reader {
    async fn run(&mut self, from: &mut (impl AsyncRead + Unpin)) -> End {
        loop {
            if let Err(end) = self.frame(from).await {
                return end;
            }
        }
    }

    async fn frame(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<(), End> {
        let mut head = [0; HEAD];
        from.read_exact(&mut head).await?;
        self.activity.touch();
        match Head::parse(head)? {
            Head::Data { id, fin, length } => {
                self.data(id, length, from).await?;
                if fin {
                    self.table.remote_end(id);
                }
            }
            Head::Control { kind, fin, length } => {
                let mut payload = vec![0; length as usize];
                from.read_exact(&mut payload).await?;
                self.control(kind, fin, &payload).await?;
            }
        }
        Ok(())
    }

    async fn data(&mut self, id: u32, length: u32, from: &mut (impl AsyncRead + Unpin)) -> Result<(), End> {
        let mut left = length as usize;
        while left > 0 {
            let mut chunk = vec![0; left.min(CHUNK)];
            from.read_exact(&mut chunk).await?;
            self.activity.touch();
            left -= chunk.len();
            let got = u32::try_from(chunk.len()).expect("chunks are short");
            if let Some(to) = self.table.sender(id) {
                // Nobody wants it: it is read and dropped.
                let _ = to.send(chunk.into()).await;
            }
            if let Some(more) = self.table.widen(id, got) {
                self.link.try_say(Outbound::Raw(frame::window(id, more)));
            }
        }
        Ok(())
    }

    async fn control(&mut self, kind: u16, fin: bool, payload: &[u8]) -> Result<(), End> {
        match Control::parse(kind, payload)? {
            Control::SynStream { id, block } => {
                let headers = self.inflater.headers(block)?;
                self.open(id, headers).await?;
                if fin {
                    self.table.remote_end(id);
                }
            }
            Control::Block(block) => {
                self.inflater.headers(block)?;
            }
            Control::Reset { id } => {
                self.table.remove(id);
            }
            // Whoever floods us with pings does not get all of them back.
            Control::Ping { id } => self.link.try_say(Outbound::Raw(frame::ping(id))),
            Control::Other => {}
        }
        Ok(())
    }

    async fn open(&mut self, id: u32, headers: Headers) -> Result<(), End> {
        // A client's streams have odd, growing numbers.
        if id.is_multiple_of(2) || id <= self.table.last.swap(id, Ordering::Relaxed) {
            return Err(Violation::StreamId(id).into());
        }
        let (to, incoming) = Incoming::new();
        let reset = Arc::new(AtomicBool::new(false));
        let full = {
            let mut entries = self.table.entries();
            let full = entries.len() >= self.limit;
            if !full {
                entries.insert(id, Entry { to: Some(to), open: true, reset: reset.clone(), received: 0 });
            }
            full
        };
        let outgoing = Outgoing::new(id, self.link.clone(), reset);
        let refused = full || self.opened.send(Stream { id, headers, incoming, outgoing }).await.is_err();
        if refused {
            self.table.remove(id);
            self.link.say(Outbound::Raw(frame::reset(id, Reason::Refused))).await.map_err(|_| End::Writer)?;
        }
        Ok(())
    }
}

struct Writer<W> {
    to: BufWriter<W>,
    table: Arc<Table>,
    activity: Arc<Activity>,
    deflater: Deflater,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes until everything has been said.
    async fn run(&mut self, mut outbound: mpsc::Receiver<Outbound>) -> io::Result<()> {
        loop {
            let next = match outbound.try_recv() {
                Ok(next) => Some(next),
                Err(_) => {
                    self.to.flush().await?;
                    outbound.recv().await
                }
            };
            let Some(next) = next else { break };
            self.activity.touch();
            if !self.write(next).await? {
                break;
            }
        }
        self.to.write_all(&frame::go_away(self.table.last.load(Ordering::Relaxed))).await?;
        self.to.flush().await
    }

    /// `false`: that was all.
    async fn write(&mut self, what: Outbound) -> io::Result<bool> {
        match what {
            Outbound::Accept(id) => {
                let reply = frame::reply(id, &mut self.deflater);
                self.to.write_all(&reply).await?;
            }
            Outbound::Data(id, bytes) if self.table.is_open(id) => {
                self.to.write_all(&frame::data(id, bytes.len())).await?;
                self.to.write_all(&bytes).await?;
            }
            Outbound::Fin(id) => {
                if self.table.local_end(id) {
                    self.to.write_all(&frame::fin(id)).await?;
                }
            }
            Outbound::Reset(id) => {
                if self.table.remove(id) {
                    self.to.write_all(&frame::reset(id, Reason::Cancel)).await?;
                }
            }
            Outbound::Raw(frame) => self.to.write_all(&frame).await?,
            // Of a stream that was reset.
            Outbound::Data(..) => {}
            Outbound::End => return Ok(false),
        }
        Ok(true)
    }
}
