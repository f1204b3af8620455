//! The socket of `RUN --mount=type=ssh`: whoever connects to it talks to an agent that the client has.

use std::os::{
    fd::{AsRawFd as _, OwnedFd},
    unix::net::UnixListener,
};

use dockerfile::mount::Owner;
use model::ErrorKind;
use tokio::task::JoinHandle;

use super::{
    memory,
    options::{AgentConnection, Agents},
    refuse,
};
use crate::error::Error;

/// Passes connections on until it is dropped.
#[derive(Debug)]
pub(super) struct Relay(JoinHandle<()>);

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A socket in memory, detached.
///
/// # Errors
/// What socket(2) and its like say.
pub(super) fn socket(agents: Option<Agents>, id: String, owner: Owner, mode: u32) -> Result<(OwnedFd, Relay), Error> {
    let gone = || refuse(ErrorKind::Internal, "no agents");
    let agents = agents.ok_or_else(gone)?;
    let mut listener = None;
    let mount = memory::only("the socket of an agent", 0, owner, mode, |directory, name| {
        let bound = UnixListener::bind(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))?;
        bound.set_nonblocking(true)?;
        listener = Some(bound);
        Ok(())
    })?;
    let listener = listener.ok_or_else(gone)?;
    let listener = tokio::net::UnixListener::from_std(listener)
        .map_err(|e| refuse(ErrorKind::Internal, format!("the socket of an agent: {e}")))?;
    let relay = tokio::spawn(async move {
        // A client that takes no more connections has gone, and the build with it.
        while let Ok((stream, _)) = listener.accept().await {
            if agents.connections.send(AgentConnection { id: id.clone(), stream }).await.is_err() {
                return;
            }
        }
    });
    Ok((mount, Relay(relay)))
}
