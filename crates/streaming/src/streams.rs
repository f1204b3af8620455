//! From a request and a connection to a session: the client's streams are found, and the house is asked.

use std::{sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::{
    backend::{Backend, Failure, PortForwardRequest, Process, Wanted},
    channel::Link,
    forward::Forward,
    negotiate::{Framing, Protocol},
    session::{self, Client},
    spdy,
    status::Format,
    token::Request,
    ws,
};

/// How long a client may take to open its streams.
const PATIENCE: Duration = Duration::from_secs(30);
/// Streams of one exec or attach at a time; it needs five.
const STREAMS: usize = 32;
/// Streams of one port-forward at a time: two for each connection forwarded.
const FORWARD_STREAMS: usize = 512;

/// A connection that is upgraded.
pub(crate) struct Upgraded {
    pub(crate) socket: TokioIo<hyper::upgrade::Upgraded>,
    pub(crate) idle: Duration,
}

/// Serves a request on a connection that speaks `protocol`, until both are done. The connection is closed when it is
/// `idle` for so long.
pub(crate) async fn serve<B: Backend>(request: Request, protocol: &Protocol, link: Upgraded, backend: &Arc<B>) {
    let Upgraded { socket, idle } = link;
    match request {
        Request::Exec(exec) => {
            let wanted = exec.wanted;
            let process = backend.exec(exec);
            command(protocol, wanted, Upgraded { socket, idle }, process).await;
        }
        Request::Attach(attach) => {
            let wanted = attach.wanted;
            let process = backend.attach(attach);
            command(protocol, wanted, Upgraded { socket, idle }, process).await;
        }
        Request::PortForward(PortForwardRequest { pod, ports }) => {
            let forward = Forward { backend: backend.clone(), pod, ports };
            match protocol.framing {
                Framing::Spdy => {
                    let (streams, link) = spdy::serve(socket, FORWARD_STREAMS, idle);
                    forward.spdy(streams, link).await;
                }
                Framing::Tunnel => {
                    let (streams, link) = spdy::serve(ws::tunnel(ws::accept(socket).await), FORWARD_STREAMS, idle);
                    forward.spdy(streams, link).await;
                }
                Framing::WebSocket(codec) => {
                    let count = u8::try_from(2 * forward.ports.len()).unwrap_or(u8::MAX);
                    let (channels, link) = ws::serve(ws::accept(socket).await, codec, count, idle);
                    forward.channels(channels, link).await;
                }
            }
        }
    }
}

/// An exec or attach: the client's streams first, so that a process never runs without them.
async fn command(protocol: &Protocol, wanted: Wanted, upgraded: Upgraded, process: impl Future<Output = Result<Process, Failure>>) {
    let client = match protocol.framing {
        Framing::WebSocket(codec) => web_socket_client(codec, protocol.status, wanted, upgraded).await,
        Framing::Spdy | Framing::Tunnel => spdy_client(protocol, wanted, upgraded).await,
    };
    let Some(client) = client else { return };
    let process = process.await;
    session::run(client, process).await;
}

async fn web_socket_client(codec: ws::Codec, status: Format, wanted: Wanted, upgraded: Upgraded) -> Option<Client> {
    let Upgraded { socket, idle } = upgraded;
    let (channels, link) = ws::serve(ws::accept(socket).await, codec, 5, idle);
    let [stdin, stdout, stderr, error, resize]: [ws::Channel; 5] = channels.try_into().ok()?;
    let client = Client {
        stdin: wanted.stdin.then_some(stdin.incoming),
        resize: wanted.tty.then_some(resize.incoming),
        stdout: wanted.stdout.then_some(stdout.outgoing),
        stderr: wanted.stderr.then_some(stderr.outgoing),
        error: error.outgoing,
        status,
        link,
    };
    // An empty message says that we are there.
    let first = client.stdout.as_ref().or(client.stderr.as_ref()).unwrap_or(&client.error);
    first.send(bytes::Bytes::new()).await.ok()?;
    Some(client)
}

async fn spdy_client(protocol: &Protocol, wanted: Wanted, upgraded: Upgraded) -> Option<Client> {
    let Upgraded { socket, idle } = upgraded;
    let (mut streams, link) = spdy::serve(socket, STREAMS, idle);
    let gathered = timeout(PATIENCE, gather(&mut streams, protocol, wanted)).await;
    let Some(gathered) = gathered.ok().flatten() else {
        tracing::debug!("the client did not open its streams");
        link.finish().await;
        return None;
    };
    // Whatever else it opens is refused.
    drop(streams);
    Some(gathered.client(protocol.status, link))
}

/// Streams as they come.
#[derive(Default)]
struct Gathered {
    error: Option<spdy::Stream>,
    stdin: Option<spdy::Stream>,
    stdout: Option<spdy::Stream>,
    stderr: Option<spdy::Stream>,
    resize: Option<spdy::Stream>,
}

impl Gathered {
    fn place(&mut self, name: &str) -> Option<&mut Option<spdy::Stream>> {
        Some(match name {
            "error" => &mut self.error,
            "stdin" => &mut self.stdin,
            "stdout" => &mut self.stdout,
            "stderr" => &mut self.stderr,
            "resize" => &mut self.resize,
            _ => return None,
        })
    }

    fn client(self, status: Format, link: Link) -> Client {
        Client {
            stdin: self.stdin.map(|stream| stream.incoming),
            resize: self.resize.map(|stream| stream.incoming),
            stdout: self.stdout.map(|stream| stream.outgoing),
            stderr: self.stderr.map(|stream| stream.outgoing),
            error: self.error.expect("gathered first of all").outgoing,
            status,
            link,
        }
    }
}

/// `None`: the client has gone, or opened what it should not.
async fn gather(streams: &mut spdy::Streams, protocol: &Protocol, wanted: Wanted) -> Option<Gathered> {
    let mut gathered = Gathered::default();
    let resize = wanted.tty && protocol.resizable;
    let mut missing = 1 + [wanted.stdin, wanted.stdout, wanted.stderr, resize].iter().filter(|wanted| **wanted).count();
    while missing > 0 {
        let stream = streams.recv().await?;
        let name = stream.headers.get("streamtype").unwrap_or_default().to_owned();
        let expected = match name.as_str() {
            "error" => true,
            "stdin" => wanted.stdin,
            "stdout" => wanted.stdout,
            "stderr" => wanted.stderr,
            "resize" => resize,
            _ => false,
        };
        match gathered.place(&name) {
            Some(place @ None) if expected => {
                stream.outgoing.accept().await.ok()?;
                *place = Some(stream);
                missing -= 1;
            }
            _ => stream.outgoing.give_up().await,
        }
    }
    gathered.error.is_some().then_some(gathered)
}
