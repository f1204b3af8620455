//! A connection: frames on one side, streams on the other.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter},
    sync::mpsc,
};

use super::{
    Headers, Violation,
    frame::{self, Control, HEAD, Head, Reason},
    headers::{Deflater, Inflater},
    table::{Piece, Table},
};
use crate::{
    channel::{CHUNK, Link, Outbound, Outgoing, room},
    connection::{Activity, LINGER},
    inbox::{Incoming, inbox},
};

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

/// Takes a connection over. At most `limit` streams are open at a time. The task ends with the connection, which is closed
/// when it is `idle` for so long.
pub(crate) fn serve<S>(socket: S, limit: usize, idle: Duration) -> (Streams, Link)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (link, outbound) = Link::new();
    let (opened, streams) = mpsc::channel(4);
    let table = Arc::new(Table::default());
    let activity = Arc::new(Activity::new(idle));
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
        let mut chunk = vec![0; left.min(CHUNK)];
        while left > 0 {
            let chunk = &mut chunk[..left.min(CHUNK)];
            from.read_exact(chunk).await?;
            self.activity.touch();
            left -= chunk.len();
            self.table.received(chunk.len());
            // What nobody wants is read and dropped.
            if let Some(inlet) = self.table.inlet(id) {
                inlet.put(chunk).await;
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
            Control::Settings { first_window: Some(bytes) } => self.table.first_window(bytes)?,
            Control::Window { id, more } => {
                if !self.table.widen(id, more)? {
                    self.refuse(id, Reason::FlowControl).await?;
                }
            }
            Control::Ping { id } => self.table.ping(id),
            Control::Settings { first_window: None } | Control::Other => {}
        }
        Ok(())
    }

    async fn open(&mut self, id: u32, headers: Headers) -> Result<(), End> {
        let (inlet, incoming) = inbox(self.table.work.clone());
        let room = room();
        let open = self.table.open(id, inlet, room.clone(), self.limit)?;
        let outgoing = Outgoing::new(id, self.link.clone(), room);
        if !open || self.opened.send(Stream { id, headers, incoming, outgoing }).await.is_err() {
            self.refuse(id, Reason::Refused).await?;
        }
        Ok(())
    }

    async fn refuse(&mut self, id: u32, why: Reason) -> Result<(), End> {
        self.table.remove(id);
        self.link.say(Outbound::Raw(frame::reset(id, why))).await.map_err(|_| End::Writer)
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
        let mut ending = false;
        loop {
            while let Some(piece) = self.table.next() {
                self.activity.touch();
                self.write(piece).await?;
            }
            if ending && self.table.is_silent() {
                break;
            }
            let next = match outbound.try_recv() {
                Ok(next) if !ending => Some(next),
                _ => {
                    self.to.flush().await?;
                    tokio::select! {
                        next = outbound.recv(), if !ending => next,
                        () = self.table.work.notified() => continue,
                    }
                }
            };
            match next {
                Some(Outbound::End) | None => ending = true,
                Some(what) => self.take(what).await?,
            }
        }
        self.to.write_all(&frame::go_away(self.table.last())).await?;
        self.to.flush().await
    }

    /// What a session says: frames at once, bytes and ends in their stream's order.
    async fn take(&mut self, what: Outbound) -> io::Result<()> {
        match what {
            Outbound::Accept(id) => {
                let reply = frame::reply(id, &mut self.deflater);
                self.to.write_all(&reply).await?;
            }
            Outbound::Data(id, bytes, permit) => self.table.push(id, bytes, permit),
            Outbound::Fin(id) => self.table.end(id),
            Outbound::Reset(id) => {
                if self.table.remove(id) {
                    self.to.write_all(&frame::reset(id, Reason::Cancel)).await?;
                }
            }
            Outbound::Raw(frame) => self.to.write_all(&frame).await?,
            Outbound::End => {}
        }
        Ok(())
    }

    async fn write(&mut self, piece: Piece) -> io::Result<()> {
        match piece {
            // The permit goes when the bytes have gone.
            Piece::Data(id, bytes, _permit) => {
                self.to.write_all(&frame::data(id, bytes.len())).await?;
                self.to.write_all(&bytes).await
            }
            Piece::Fin(id) => self.to.write_all(&frame::fin(id)).await,
            Piece::Window(id, more) => self.to.write_all(&frame::window(id, more)).await,
            Piece::Ping(id) => self.to.write_all(&frame::ping(id)).await,
        }
    }
}
