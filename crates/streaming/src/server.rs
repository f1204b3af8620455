//! The HTTP server: a token in, a connection out.

use std::{convert::Infallible, fmt, io, net::SocketAddr, os::fd::AsFd, sync::Arc, time::Duration};

use http::{Request as HttpRequest, StatusCode};
use hyper::{body::Incoming as Body, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use crate::{
    backend::{AttachRequest, Backend, ExecRequest, Failure, PortForwardRequest, Process, Wanted},
    channel::Link,
    error::Error,
    forward::Forward,
    negotiate::{Answer, Family, Framing, Protocol, negotiate, refusal},
    session::{self, Client},
    spdy,
    status::Format,
    token::{Request, Tokens},
    ws,
};

/// How long a client may take to send its request's head, and to open its streams.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a request's head at most.
const HEAD: usize = 64 << 10;
/// Connections at a time.
const CONNECTIONS: usize = 2048;
/// Streams of one exec or attach at a time; it needs five.
const STREAMS: usize = 32;
/// Streams of one port-forward at a time: two for each connection forwarded.
const FORWARD_STREAMS: usize = 512;
/// How often it is looked whether a client is still there that nothing is read from, and how long what it sent last may
/// take to be read.
const HANG_UP: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be accepted.
const BREATH: Duration = Duration::from_millis(100);

/// The streaming server. Cheap to clone; all clones are one.
pub struct Server {
    tokens: Arc<Tokens>,
    address: SocketAddr,
}

impl Clone for Server {
    fn clone(&self) -> Self {
        Self { tokens: self.tokens.clone(), address: self.address }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens, and serves as long as the runtime lives.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn start<B: Backend>(address: SocketAddr, backend: B) -> Result<Self, Error> {
        let listen = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let server = Self { tokens: Arc::default(), address: listener.local_addr().map_err(listen)? };
        tokio::spawn(accept(listener, server.tokens.clone(), Arc::new(backend)));
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL for this.
    ///
    /// # Errors
    /// Too many wait for their clients, or the request makes no sense.
    pub fn exec(&self, request: ExecRequest) -> Result<String, Error> {
        sensible(request.wanted)?;
        self.issue(Request::Exec(request))
    }

    /// A URL for this.
    ///
    /// # Errors
    /// As [`Self::exec`].
    pub fn attach(&self, request: AttachRequest) -> Result<String, Error> {
        sensible(request.wanted)?;
        self.issue(Request::Attach(request))
    }

    /// A URL for this.
    ///
    /// # Errors
    /// As [`Self::exec`].
    pub fn port_forward(&self, request: PortForwardRequest) -> Result<String, Error> {
        self.issue(Request::PortForward(request))
    }

    fn issue(&self, request: Request) -> Result<String, Error> {
        let path = self.tokens.issue(request)?;
        Ok(format!("http://{}{path}", self.address))
    }
}

fn sensible(wanted: Wanted) -> Result<(), Error> {
    if wanted.tty && wanted.stderr {
        return Err(Error::Request("tty and stderr: a terminal has one output only"));
    }
    if !(wanted.stdin || wanted.stdout || wanted.stderr) {
        return Err(Error::Request("one of stdin, stdout and stderr is needed"));
    }
    Ok(())
}

async fn accept<B: Backend>(listener: TcpListener, tokens: Arc<Tokens>, backend: Arc<B>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let (socket, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a client that left at once: nothing that ends a server.
                tracing::warn!(%error, "accept a streaming connection");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        // Keys typed go out one by one.
        let _ = socket.set_nodelay(true);
        let (tokens, backend) = (tokens.clone(), backend.clone());
        tokio::spawn(async move {
            connection(socket, &tokens, &backend).await;
            drop(place);
        });
    }
}

/// One request of one connection, and what it is upgraded to.
async fn connection<B: Backend>(socket: TcpStream, tokens: &Tokens, backend: &Arc<B>) {
    let Ok(twin) = twin(&socket) else { return };
    let (upgraded, mut wait) = tokio::sync::mpsc::channel(1);
    let service = service_fn(|request: HttpRequest<Body>| {
        let (answer, session) = route(request, tokens);
        if let Some(session) = session {
            let _ = upgraded.try_send(session);
        }
        async move { Ok::<_, Infallible>(answer) }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    if let Err(error) = http.await {
        tracing::debug!(%error, "streaming request");
    }
    let Ok((request, protocol, upgrade)) = wait.try_recv() else { return };
    if let Ok(upgraded) = upgrade.await {
        tokio::select! {
            () = serve(request, &protocol, TokioIo::new(upgraded), backend) => {}
            () = hung_up(&twin) => {}
        }
    }
}

/// The same socket once more.
fn twin(socket: &TcpStream) -> io::Result<TcpStream> {
    let fd = socket.as_fd().try_clone_to_owned()?;
    TcpStream::from_std(fd.into())
}

/// Returns some time after the client has closed the connection. Whoever reads sees that at once, unless nothing is read
/// because the process does not take what came before: it would never end. (With more than the kernel's buffers on the way,
/// the client's end cannot arrive; then the session ends with the process, or idle.)
async fn hung_up(socket: &TcpStream) {
    while socket.ready(Interest::READABLE).await.is_ok_and(|ready| !ready.is_read_closed()) {
        tokio::time::sleep(HANG_UP).await;
    }
    tokio::time::sleep(HANG_UP).await;
}

type Session = (Request, Protocol, OnUpgrade);

fn route(mut request: HttpRequest<Body>, tokens: &Tokens) -> (Answer, Option<Session>) {
    let Some(mut claimed) = tokens.claim(request.uri().path()) else {
        return (refusal(StatusCode::NOT_FOUND, "no such streaming request, or no longer"), None);
    };
    let family = match claimed {
        Request::Exec(_) | Request::Attach(_) => Family::Command,
        Request::PortForward(_) => Family::Forward,
    };
    let (protocol, answer) = match negotiate(family, request.headers()) {
        Ok(agreed) => agreed,
        Err(answer) => return (*answer, None),
    };
    if let (Request::PortForward(forward), Framing::WebSocket(_)) = (&mut claimed, protocol.framing) {
        if forward.ports.is_empty() {
            forward.ports = ports_of(request.uri().query().unwrap_or_default());
        }
        // Channel numbers are bytes.
        if forward.ports.is_empty() || forward.ports.len() > 100 {
            return (refusal(StatusCode::BAD_REQUEST, "between one and 100 ports are needed"), None);
        }
    }
    let upgrade = hyper::upgrade::on(&mut request);
    (answer, Some((claimed, protocol, upgrade)))
}

/// `port=80&port=81,82`. Empty: none, or one that is not a port.
fn ports_of(query: &str) -> Vec<u16> {
    let values = query.split('&').filter_map(|pair| pair.strip_prefix("port="));
    let ports = values.flat_map(|value| value.split([',']).flat_map(|part| part.split("%2C")));
    let ports: Option<Vec<u16>> = ports.map(|port| port.parse().ok().filter(|port| *port > 0)).collect();
    ports.unwrap_or_default()
}

async fn serve<B: Backend>(request: Request, protocol: &Protocol, socket: TokioIo<hyper::upgrade::Upgraded>, backend: &Arc<B>) {
    match request {
        Request::Exec(exec) => {
            let wanted = exec.wanted;
            let process = backend.exec(exec);
            command(protocol, wanted, socket, process).await;
        }
        Request::Attach(attach) => {
            let wanted = attach.wanted;
            let process = backend.attach(attach);
            command(protocol, wanted, socket, process).await;
        }
        Request::PortForward(PortForwardRequest { pod, ports }) => {
            let forward = Forward { backend: backend.clone(), pod, ports };
            match protocol.framing {
                Framing::Spdy => {
                    let (streams, link) = spdy::serve(socket, FORWARD_STREAMS);
                    forward.spdy(streams, link).await;
                }
                Framing::Tunnel => {
                    let (streams, link) = spdy::serve(ws::tunnel(ws::accept(socket).await), FORWARD_STREAMS);
                    forward.spdy(streams, link).await;
                }
                Framing::WebSocket(codec) => {
                    let count = u8::try_from(2 * forward.ports.len()).unwrap_or(u8::MAX);
                    let (channels, link) = ws::serve(ws::accept(socket).await, codec, count);
                    forward.channels(channels, link).await;
                }
            }
        }
    }
}

/// An exec or attach: the client's streams first, so that a process never runs without them.
async fn command(
    protocol: &Protocol,
    wanted: Wanted,
    socket: TokioIo<hyper::upgrade::Upgraded>,
    process: impl Future<Output = Result<Process, Failure>>,
) {
    let client = match protocol.framing {
        Framing::WebSocket(codec) => web_socket_client(codec, protocol.status, wanted, socket).await,
        Framing::Spdy | Framing::Tunnel => spdy_client(protocol, wanted, socket).await,
    };
    let Some(client) = client else { return };
    let process = process.await;
    session::run(client, process).await;
}

async fn web_socket_client(
    codec: ws::Codec,
    status: Format,
    wanted: Wanted,
    socket: TokioIo<hyper::upgrade::Upgraded>,
) -> Option<Client> {
    let (channels, link) = ws::serve(ws::accept(socket).await, codec, 5);
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

async fn spdy_client(protocol: &Protocol, wanted: Wanted, socket: TokioIo<hyper::upgrade::Upgraded>) -> Option<Client> {
    let (mut streams, link) = spdy::serve(socket, STREAMS);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_queries() {
        assert_eq!(ports_of("port=80&x=1&port=81,82&port=83%2C84"), [80, 81, 82, 83, 84]);
        for none in ["", "port=", "port=0", "port=65536", "port=80&port=x", "ports=1"] {
            assert!(ports_of(none).is_empty(), "{none}");
        }
    }
}
