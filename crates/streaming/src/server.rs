//! The server as its house sees it: requests in, URLs out.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;

use crate::{
    accept,
    backend::{AttachRequest, Backend, ExecRequest, PortForwardRequest, Wanted},
    error::Error,
    tls::Tls,
    token::{Request, Tokens},
};

/// How it is served.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0: any that is free.
    pub address: SocketAddr,
    /// Over TLS; `None`: over plain HTTP.
    pub tls: Option<Tls>,
    /// A connection without a byte in either direction for so long is closed.
    pub idle: Duration,
}

/// The streaming server. Cheap to clone; all clones are one.
pub struct Server {
    tokens: Arc<Tokens>,
    address: SocketAddr,
    scheme: &'static str,
}

impl Clone for Server {
    fn clone(&self) -> Self {
        Self { tokens: self.tokens.clone(), address: self.address, scheme: self.scheme }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("scheme", &self.scheme).field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens, and serves as long as the runtime lives.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn start<B: Backend>(options: Options, backend: B) -> Result<Self, Error> {
        let Options { address, tls, idle } = options;
        let listen = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let server = Self { tokens: Arc::default(), address: listener.local_addr().map_err(listen)?, scheme };
        let house = accept::House { tokens: server.tokens.clone(), backend: Arc::new(backend), tls, idle };
        tokio::spawn(accept::accept(listener, Arc::new(house)));
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
        Ok(format!("{}://{}{path}", self.scheme, self.address))
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
