//! HTTP: a token in, a connection out.

use std::{convert::Infallible, io, os::fd::AsFd, sync::Arc, time::Duration};

use http::{Request as HttpRequest, StatusCode};
use hyper::{body::Incoming as Body, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};

use crate::{
    backend::{Backend, Socket},
    negotiate::{Answer, Family, Framing, Protocol, negotiate, refusal},
    streams::{self, Upgraded},
    tls::Tls,
    token::{Request, Tokens},
};

/// How long a client may take to shake hands, and to send its request's head.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a request's head at most.
const HEAD: usize = 64 << 10;
/// Connections at a time.
const CONNECTIONS: usize = 2048;
/// How often it is looked whether a client is still there that nothing is read from, and how long what it sent last may
/// take to be read.
const HANG_UP: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be accepted.
const BREATH: Duration = Duration::from_millis(100);

/// What every connection needs.
pub(crate) struct House<B> {
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) backend: Arc<B>,
    pub(crate) tls: Option<Tls>,
    pub(crate) idle: Duration,
}

/// Accepts connections and serves each, until nobody runs this any more.
pub(crate) async fn accept<B: Backend>(listener: TcpListener, house: Arc<House<B>>) {
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
        let house = house.clone();
        tokio::spawn(async move {
            connection(socket, &house).await;
            drop(place);
        });
    }
}

async fn connection<B: Backend>(socket: TcpStream, house: &House<B>) {
    let Ok(twin) = twin(&socket) else { return };
    let socket: Box<dyn Socket> = match &house.tls {
        None => Box::new(socket),
        Some(tls) => match timeout(PATIENCE, tls.accept(socket)).await {
            Ok(Ok(secured)) => Box::new(secured),
            Ok(Err(error)) => return tracing::debug!(%error, "streaming client's TLS"),
            Err(_) => return,
        },
    };
    let Some((request, protocol, upgrade)) = request(socket, &house.tokens).await else { return };
    if let Ok(upgraded) = upgrade.await {
        let link = Upgraded { socket: TokioIo::new(upgraded), idle: house.idle };
        tokio::select! {
            () = streams::serve(request, &protocol, link, &house.backend) => {}
            () = hung_up(&twin) => {}
        }
    }
}

/// Requests of one connection, until one is upgraded. `None`: it ended without.
async fn request(socket: Box<dyn Socket>, tokens: &Tokens) -> Option<Session> {
    let (upgraded, mut wait) = mpsc::channel(1);
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
    wait.try_recv().ok()
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
pub(crate) fn ports_of(query: &str) -> Vec<u16> {
    let values = query.split('&').filter_map(|pair| pair.strip_prefix("port="));
    let ports = values.flat_map(|value| value.split([',']).flat_map(|part| part.split("%2C")));
    let ports: Option<Vec<u16>> = ports.map(|port| port.parse().ok().filter(|port| *port > 0)).collect();
    ports.unwrap_or_default()
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
