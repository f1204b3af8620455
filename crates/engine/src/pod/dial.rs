//! A connection to a port of loopback in a pod's network namespace.
//!
//! A socket belongs to the namespace of the thread that makes it, and stays there. So it is made by a thread that is in
//! the pod's namespace and ends at once; connecting is then for any thread (security.md R48).

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use model::{ErrorKind, PodId, pod::NamespaceMode};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error, Step},
    shim::Shim,
};

/// How long a server that accepts nothing is waited for.
const CONNECT: Duration = Duration::from_secs(30);

impl Inner {
    /// Connects to 127.0.0.1, or to ::1 if nobody listens there.
    pub(crate) async fn dial(self: &Arc<Self>, id: PodId, port: u16) -> Result<TcpStream, Error> {
        let pod = self.table.pod(id)?;
        let shim = pod.shim()?;
        let namespace = (pod.spec.namespaces.network != NamespaceMode::Node).then_some(shim);
        let [four, six] = blocking(move || sockets(namespace)).await.step(id, "make a socket in the pod's network")?;
        let mut refused = None;
        for (fd, address) in [(four, SocketAddr::from((Ipv4Addr::LOCALHOST, port))), (six, (Ipv6Addr::LOCALHOST, port).into())] {
            // A kernel without one of the two.
            let Some(fd) = fd else { continue };
            let socket = TcpSocket::from_std_stream(fd.into());
            match timeout(CONNECT, socket.connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => refused = refused.or(Some(error)),
                Err(_) => refused = refused.or(Some(io::ErrorKind::TimedOut.into())),
            }
        }
        let why = refused.map_or_else(|| "no network".to_owned(), |error| error.to_string());
        Err(Error::new(ErrorKind::Unavailable, About::Pod(id), format!("connect to port {port} in the pod's network: {why}")))
    }
}

/// One socket of IPv4 and one of IPv6, in the network of a supervisor or in the host's.
fn sockets(supervisor: Option<Arc<Shim>>) -> io::Result<[Option<OwnedFd>; 2]> {
    let make = move || -> io::Result<_> {
        if let Some(shim) = &supervisor {
            sys::ns::enter(shim.pidfd().as_fd(), sys::ns::Kinds::NETWORK)?;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = |family| socket_with(family, SocketType::STREAM, flags, None);
        let (four, six) = (socket(AddressFamily::INET), socket(AddressFamily::INET6));
        match (four, six) {
            (Err(e), Err(_)) => Err(e.into()),
            (four, six) => Ok([four.ok(), six.ok()]),
        }
    };
    let thread = std::thread::Builder::new().name("dial".into()).spawn(make)?;
    thread.join().unwrap_or_else(|bug| std::panic::resume_unwind(bug))
}
