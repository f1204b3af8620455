//! Connections: name lookup with a guard, TCP, proxies, TLS, all under one deadline.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{Connected, Connection, HttpConnector, dns::Name, proxy::Tunnel},
        proxy::matcher::Matcher,
    },
    rt::TokioIo,
};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::Service;

use crate::{
    ConnectError, Failure, Scheme, Url,
    failure::{chain, from_http},
    url::is_inner,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Whether names may lead to this machine and its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Guard {
    /// For places that the configuration names.
    Open,
    /// For places that an answer leads to (R25).
    Outward,
}

/// Looks names up with the system's resolver.
#[derive(Clone)]
struct Names {
    guard: Guard,
    fixed: FixedNames,
}

/// Names with an address that is not looked up: none, but in tests.
pub(crate) type FixedNames = Arc<std::collections::HashMap<String, std::net::IpAddr>>;

impl Names {
    async fn look_up(self, name: Name) -> Result<Vec<SocketAddr>, ConnectError> {
        let addresses: Vec<SocketAddr> = match self.fixed.get(name.as_str()) {
            Some(address) => vec![SocketAddr::new(*address, 0)],
            None => tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|e| ConnectError::Lookup(chain(&e)))?.collect(),
        };
        // One inner address condemns the name: which of the addresses is connected to is not ours to say.
        match addresses.iter().find(|a| self.guard == Guard::Outward && is_inner(a.ip())) {
            Some(inner) => Err(ConnectError::Inner(inner.ip())),
            None => Ok(addresses),
        }
    }
}

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ConnectError;
    type Future = BoxFuture<Self::Response, ConnectError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let names = self.clone();
        Box::pin(async move { Ok(names.look_up(name).await?.into_iter()) })
    }
}

/// Which proxy, if any, is between us and a place: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`.
#[derive(Clone)]
pub(crate) struct Proxies(Arc<Matcher>);

impl Proxies {
    pub(crate) fn from_env() -> Self {
        Self(Arc::new(Matcher::from_env()))
    }

    #[cfg(test)]
    pub(crate) fn all(proxy: &str) -> Self {
        Self(Arc::new(Matcher::builder().all(proxy).build()))
    }

    /// The proxy for a URL; literal loopback names never go through one, as Go has it.
    fn of(&self, uri: &Uri) -> Option<hyper_util::client::proxy::matcher::Intercept> {
        let loopback = Url::parse(&uri.to_string()).is_ok_and(|url| url.origin.is_literal_loopback());
        if loopback { None } else { self.0.intercept(uri) }
    }

    /// What a plain-http request through a proxy has to carry for it.
    pub(crate) fn authorization(&self, url: &Url) -> Option<http::HeaderValue> {
        let uri = url.uri().ok().filter(|_| url.origin.scheme == Scheme::Http)?;
        self.of(&uri)?.basic_auth().cloned()
    }
}

/// TCP to a place, or to its proxy.
#[derive(Clone)]
struct Tcp {
    target: HttpConnector<Names>,
    proxy: HttpConnector<Names>,
    proxies: Proxies,
}

impl Tcp {
    async fn connect(mut self, uri: Uri) -> Result<Stream, BoxError> {
        let Some(found) = self.proxies.of(&uri) else {
            return Ok(Stream { io: self.target.call(uri).await.map_err(tcp_error)?, proxied: false });
        };
        let proxy_error = |e: &(dyn std::error::Error + 'static)| ConnectError::Proxy(chain(e));
        if found.uri().scheme_str() != Some("http") {
            return Err(ConnectError::Proxy("only proxies with an http:// URL are supported".to_owned()).into());
        }
        if uri.scheme_str() == Some("https") {
            let mut tunnel = Tunnel::new(found.uri().clone(), self.proxy);
            if let Some(login) = found.basic_auth() {
                tunnel = tunnel.with_auth(login.clone());
            }
            return Ok(Stream { io: tunnel.call(uri).await.map_err(|e| proxy_error(&e))?, proxied: false });
        }
        Ok(Stream { io: self.proxy.call(found.uri().clone()).await.map_err(|e| proxy_error(&e))?, proxied: true })
    }
}

fn tcp_error(error: impl std::error::Error + 'static) -> ConnectError {
    match from_http(&error) {
        Failure::Connect(known) => known,
        _ => ConnectError::Tcp(error.source().map_or_else(|| chain(&error), chain)),
    }
}

impl Service<Uri> for Tcp {
    type Response = Stream;
    type Error = BoxError;
    type Future = BoxFuture<Stream, BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A TCP stream that says whether requests on it need a proxy's absolute form.
pub(crate) struct Stream {
    io: TokioIo<TcpStream>,
    proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.inner().connected().proxy(self.proxied)
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The whole way to a place, TLS included, under one deadline.
#[derive(Clone)]
pub(crate) struct Dial {
    inner: HttpsConnector<Tcp>,
    deadline: Duration,
}

impl Dial {
    pub(crate) fn new(tls: ClientConfig, guard: Guard, proxies: Proxies, deadline: Duration, fixed: &FixedNames) -> Self {
        let connector = |guard| {
            let mut http = HttpConnector::new_with_resolver(Names { guard, fixed: Arc::clone(fixed) });
            http.enforce_http(false);
            http.set_nodelay(true);
            http.set_connect_timeout(Some(deadline));
            http.set_keepalive(Some(Duration::from_secs(60)));
            http
        };
        let tcp = Tcp { target: connector(guard), proxy: connector(Guard::Open), proxies };
        let inner =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().enable_http2().wrap_connector(tcp);
        Self { inner, deadline }
    }
}

impl Service<Uri> for Dial {
    type Response = MaybeHttpsStream<Stream>;
    type Error = ConnectError;
    type Future = BoxFuture<Self::Response, ConnectError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (mut inner, deadline) = (self.inner.clone(), self.deadline);
        Box::pin(async move {
            match tokio::time::timeout(deadline, inner.call(uri)).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => Err(match from_http(&*error) {
                    Failure::Connect(known) => known,
                    _ => ConnectError::Tcp(chain(&*error)),
                }),
                Err(_) => Err(ConnectError::Deadline(deadline)),
            }
        })
    }
}
