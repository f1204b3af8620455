//! `--ssh`: agents of this user that RUN may ask. What is said goes through the build's own stream; no key leaves the agent.

use std::{
    collections::{BTreeMap, HashMap},
    os::unix::fs::FileTypeExt as _,
    path::PathBuf,
};

use api::creel::{AgentPiece, BuildRequest};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixStream, unix::OwnedReadHalf},
    sync::mpsc,
};

use crate::{
    container::options::{here, wrong},
    error::{self, Error},
};

/// Bytes in one piece.
const PIECE: usize = 32 << 10;
/// Pieces that may wait for an agent: more is no conversation.
const WAITING: usize = 64;

/// Sockets of agents, by their ids.
pub(super) type Sockets = BTreeMap<String, PathBuf>;

/// `default`, `ID` or `ID=SOCKET`.
pub(super) fn parse(flags: &[String]) -> Result<Sockets, Error> {
    flags.iter().map(|text| one(text)).collect()
}

fn one(text: &str) -> Result<(String, PathBuf), Error> {
    let (id, path) = text.split_once('=').unwrap_or((text, ""));
    let bad = |why: String| wrong("--ssh", text, why);
    if id.is_empty() {
        return Err(bad("an id is missing: default, or ID=SOCKET".to_owned()));
    }
    let path = match path {
        "" => here("SSH_AUTH_SOCK").filter(|path| !path.is_empty()),
        path => Some(path.to_owned()),
    };
    let path = path.ok_or_else(|| bad("invalid empty ssh agent socket, make sure SSH_AUTH_SOCK is set".to_owned()))?;
    if path.contains(',') {
        return Err(bad("one socket of an agent, not several files".to_owned()));
    }
    let found = std::fs::metadata(&path).map_err(error::io(format!("--ssh {text}: {path}")))?;
    if !found.file_type().is_socket() {
        let why = "not the socket of an agent; a key itself is never given to a build: add it to an agent (ssh-add FILE)";
        return Err(bad(format!("{path}: {why}")));
    }
    Ok((id.to_owned(), path.into()))
}

/// Connections to agents.
#[derive(Debug)]
pub(super) struct Agents {
    sockets: Sockets,
    /// To the daemon.
    to: mpsc::Sender<BuildRequest>,
    open: HashMap<u64, mpsc::Sender<Vec<u8>>>,
}

impl Agents {
    pub(super) fn new(sockets: Sockets, to: mpsc::Sender<BuildRequest>) -> Self {
        Self { sockets, to, open: HashMap::new() }
    }

    /// Passes on what the daemon says. An agent that cannot be asked is one that says nothing.
    pub(super) fn take(&mut self, piece: AgentPiece) {
        let number = piece.connection;
        if let Some(socket) = self.sockets.get(&piece.id) {
            let (sender, pieces) = mpsc::channel(WAITING);
            tokio::spawn(talk(socket.clone(), number, pieces, self.to.clone()));
            self.open.insert(number, sender);
        }
        let Some(sender) = self.open.get(&number) else { return };
        let full = !piece.data.is_empty() && sender.try_send(piece.data).is_err();
        if piece.end || full {
            self.open.remove(&number);
        }
    }
}

/// One connection, to its end.
async fn talk(socket: PathBuf, connection: u64, mut pieces: mpsc::Receiver<Vec<u8>>, to: mpsc::Sender<BuildRequest>) {
    if let Ok(stream) = UnixStream::connect(socket).await {
        let (from, mut agent) = stream.into_split();
        let listening = tokio::spawn(listen(from, connection, to.clone()));
        while let Some(piece) = pieces.recv().await {
            if agent.write_all(&piece).await.is_err() {
                break;
            }
        }
        // Which closes its half of the stream.
        drop(agent);
        listening.await.ok();
    } else {
        to.send(said(AgentPiece { connection, end: true, ..AgentPiece::default() })).await.ok();
    }
}

async fn listen(mut from: OwnedReadHalf, connection: u64, to: mpsc::Sender<BuildRequest>) {
    let mut buffer = vec![0; PIECE];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let data = buffer[..read].to_vec();
        if to.send(said(AgentPiece { connection, data, ..AgentPiece::default() })).await.is_err() {
            return;
        }
    }
    to.send(said(AgentPiece { connection, end: true, ..AgentPiece::default() })).await.ok();
}

fn said(agent: AgentPiece) -> BuildRequest {
    BuildRequest { agent: Some(agent), ..BuildRequest::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, key) = (dir.path().join("agent"), dir.path().join("id_rsa"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::fs::write(&key, "key").unwrap();
        assert_eq!(one(&format!("a={}", socket.display())).unwrap(), ("a".to_owned(), socket.clone()));
        let told = |path: &std::path::Path| one(&format!("a={}", path.display())).unwrap_err().to_string();
        assert!(told(&key).contains("add it to an agent"), "{}", told(&key));
        assert!(one(&format!("a={},{}", socket.display(), key.display())).is_err());
        assert!(one("=x").is_err() && one("a=/nowhere/x").is_err());
    }
}
