//! Port-forward: each connection of the client's is a pair of streams, one for bytes and one for what went wrong.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use model::PodId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    backend::{Backend, Failure, Socket},
    channel::{CHUNK, Link, Outgoing},
    connection::Activity,
    inbox::Incoming,
    spdy::{Headers, Stream, Streams},
    ws::Channel,
};

/// How long the other stream of a pair may take to come.
const PAIR: Duration = Duration::from_secs(30);

/// How long a client may say nothing when the pod's side has said everything.
const HALF: Duration = Duration::from_secs(30);

/// Whose ports.
pub(crate) struct Forward<B> {
    pub(crate) backend: Arc<B>,
    pub(crate) pod: PodId,
    /// Empty: any.
    pub(crate) ports: Vec<u16>,
}

impl<B> Clone for Forward<B> {
    fn clone(&self) -> Self {
        Self { backend: self.backend.clone(), pod: self.pod, ports: self.ports.clone() }
    }
}

/// One connection.
struct Pair {
    port: u16,
    incoming: Incoming,
    data: Outgoing,
    error: Outgoing,
    /// How long it may stay half closed.
    half: Duration,
}

impl<B: Backend> Forward<B> {
    /// Serves a client that opens pairs of streams as it likes.
    pub(crate) async fn spdy(self, mut streams: Streams, link: Link) {
        let mut waiting: HashMap<String, Half> = HashMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let next = waiting.values().map(|half| half.until).min();
            tokio::select! {
                stream = streams.recv() => {
                    let Some(stream) = stream else { break };
                    if let Some(pair) = self.opened(stream, &mut waiting).await {
                        tasks.spawn(self.clone().pair(pair));
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => expire(&mut waiting).await,
                Some(_) = tasks.join_next() => {}
            }
        }
        drop(link);
    }

    /// A stream: refused, kept until its pair comes, or a pair.
    async fn opened(&self, stream: Stream, waiting: &mut HashMap<String, Half>) -> Option<Pair> {
        let Stream { id, headers, incoming, outgoing } = stream;
        let Some((kind, port)) = kind_and_port(&headers) else {
            outgoing.give_up().await;
            return None;
        };
        if !self.ports.is_empty() && !self.ports.contains(&port) {
            outgoing.give_up().await;
            return None;
        }
        outgoing.accept().await.ok()?;
        let key = request_id(&headers, kind, id);
        let half = waiting.remove(&key);
        match (half, kind) {
            (None, _) => {
                waiting.insert(key, Half { kind, port, incoming, outgoing, until: Instant::now() + PAIR });
                None
            }
            (Some(half), Kind::Data) if half.kind == Kind::Error => {
                Some(Pair { port, incoming, data: outgoing, error: half.outgoing, half: HALF })
            }
            (Some(half), Kind::Error) if half.kind == Kind::Data => {
                Some(Pair { port: half.port, incoming: half.incoming, data: half.outgoing, error: outgoing, half: HALF })
            }
            (Some(half), _) => {
                waiting.insert(key, half);
                outgoing.give_up().await;
                None
            }
        }
    }

    /// Serves a client that has two channels for each port, which are there from the beginning.
    pub(crate) async fn channels(self, channels: Vec<Channel>, link: Link) {
        let mut tasks = JoinSet::new();
        let mut channels = channels.into_iter();
        for port in self.ports.clone() {
            let (Some(data), Some(error)) = (channels.next(), channels.next()) else { break };
            // Each channel begins with its port's number.
            let number = Bytes::copy_from_slice(&port.to_le_bytes());
            if data.outgoing.send(number.clone()).await.is_err() || error.outgoing.send(number).await.is_err() {
                return;
            }
            // Of one channel's end the client cannot be told.
            let (incoming, half) = (data.incoming, Duration::ZERO);
            tasks.spawn(self.clone().pair(Pair { port, incoming, data: data.outgoing, error: error.outgoing, half }));
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        tokio::select! {
            () = all => link.finish().await,
            () = link.gone() => {}
        }
    }

    async fn pair(self, pair: Pair) {
        let Pair { port, incoming, data, error, half } = pair;
        match self.backend.dial(self.pod, port).await {
            Ok(socket) => match relay(socket, incoming, &data, half).await {
                Ok(()) => {
                    data.finish().await;
                    error.finish().await;
                }
                // The socket was reset, or the client has gone: both find out the same way.
                Err(_) => {
                    data.give_up().await;
                    error.give_up().await;
                }
            },
            Err(Failure(why)) => {
                let text = format!("error forwarding port {port} to pod {}: {why}", self.pod);
                let _ = error.send(text.into()).await;
                error.finish().await;
                data.give_up().await;
            }
        }
    }
}

/// Bytes both ways, until both sides have ended, or one has failed. When the pod's side has said everything, the client may
/// go on for as long as it has something to say: a connection can be half closed (RFC 9293, 3.6).
pub(crate) async fn relay(socket: Box<dyn Socket>, mut incoming: Incoming, data: &Outgoing, half: Duration) -> std::io::Result<()> {
    let (mut from, mut to) = tokio::io::split(socket);
    let broken = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let activity = Activity::new(half);
    let inward = async {
        while let Some(bytes) = incoming.next().await {
            activity.touch();
            to.write_all(&bytes).await?;
        }
        if data.was_reset() {
            return Err(broken());
        }
        to.shutdown().await
    };
    let outward = async {
        let mut chunk = vec![0; CHUNK];
        loop {
            match from.read(&mut chunk).await? {
                0 => break Ok(()),
                got => data.send(chunk[..got].to_vec().into()).await.map_err(|_| broken())?,
            }
        }
    };
    let mut inward = std::pin::pin!(inward);
    let mut outward = std::pin::pin!(outward);
    tokio::select! {
        ended = &mut outward => ended?,
        ended = &mut inward => {
            ended?;
            return outward.await;
        }
    }
    data.finish().await;
    activity.touch();
    tokio::select! {
        // A client that gives up the rest has got everything.
        _ = inward => {}
        () = activity.ceased() => {}
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

/// A stream whose pair is still to come.
struct Half {
    kind: Kind,
    port: u16,
    incoming: Incoming,
    outgoing: Outgoing,
    until: Instant,
}

async fn expire(waiting: &mut HashMap<String, Half>) {
    let now = Instant::now();
    let (late, rest) = std::mem::take(waiting).into_iter().partition(|(_, half)| half.until <= now);
    *waiting = rest;
    let late: HashMap<_, Half> = late;
    for half in late.into_values() {
        half.outgoing.give_up().await;
    }
}

fn kind_and_port(headers: &Headers) -> Option<(Kind, u16)> {
    let kind = match headers.get("streamtype")? {
        "data" => Kind::Data,
        "error" => Kind::Error,
        _ => return None,
    };
    let port = headers.get("port")?.parse().ok().filter(|port| *port > 0)?;
    Some((kind, port))
}

/// Old clients name no request: they open the error stream first, and the data stream next.
fn request_id(headers: &Headers, kind: Kind, id: u32) -> String {
    match (headers.get("requestid"), kind) {
        (Some(request), _) => format!("r{request}"),
        (None, Kind::Error) => format!("s{id}"),
        (None, Kind::Data) => format!("s{}", id.wrapping_sub(2)),
    }
}
