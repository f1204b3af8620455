//! The socket over which an OCI runtime hands out the master of a terminal (runc's terminal contract, docs/terminals.md).

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with},
};

use crate::error::Error;

/// Relative to the bundle, which is the runtime's working directory: the whole path is longer than an address may be
/// (unix(7), 107 bytes).
const NAME: &str = "console.sock";

/// A socket that a runtime connects to.
#[derive(Debug)]
pub(crate) struct Console {
    socket: OwnedFd,
    path: PathBuf,
}

impl Console {
    pub(crate) fn listen(bundle: &Path) -> Result<Self, Error> {
        let failed = |step| move |source| Error::Sys { step, source };
        let directory = openat(CWD, bundle, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed("open bundle"))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed("socket"))?;
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd()));
        bind(&socket, &address.map_err(failed("console socket"))?).map_err(failed("bind console socket"))?;
        listen(&socket, 1).map_err(failed("listen on console socket"))?;
        Ok(Self { socket, path: bundle.join(NAME) })
    }

    /// How the runtime is told.
    pub(crate) fn arguments(&self) -> [String; 2] {
        ["--console-socket".to_owned(), NAME.to_owned()]
    }

    /// The master. The runtime has ended, so what it sent is there, or never will be.
    pub(crate) fn receive(self) -> Result<OwnedFd, Error> {
        let failed = |step| move |source| Error::Sys { step, source };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let connection = match accept_with(&self.socket, flags) {
            Err(Errno::AGAIN) => return Err(Error::NoTerminal),
            other => other.map_err(failed("accept on console socket"))?,
        };
        let mut name = [0; 4096];
        let packet = sys::sock::receive(connection.as_fd(), &mut name).map_err(failed("receive terminal"))?;
        packet.fds.into_iter().next().ok_or(Error::NoTerminal)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // Gone with the bundle at the latest.
        let _ = fs::remove_file(&self.path);
    }
}
