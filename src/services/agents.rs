//! What programs of a build and agents of its client say to each other, over the build's own stream.

use std::collections::HashMap;

use api::creel::{self as own, build_event::Event};
use engine::build::AgentConnection;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::mpsc,
    task::JoinSet,
};
use tonic::{Status, Streaming as Incoming};

/// Bytes in one piece.
const PIECE: usize = 32 << 10;
/// Pieces that may wait for a program that does not read: more is no conversation.
const WAITING: usize = 64;
/// Connections of one build at the same time.
const MOST: usize = 100;

type Events = mpsc::Sender<Result<own::BuildEvent, Status>>;

/// Passes on what is said until the client says nothing more. To be dropped with the build.
pub(super) async fn relay(
    mut connections: mpsc::Receiver<AgentConnection>,
    mut from_client: Incoming<own::BuildRequest>,
    to_client: Events,
) {
    let mut open: HashMap<u64, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut last = 0;
    loop {
        tokio::select! {
            Some(AgentConnection { id, stream }) = connections.recv() => {
                open.retain(|_, sender| !sender.is_closed());
                if open.len() >= MOST {
                    continue;
                }
                last += 1;
                let (from, to) = stream.into_split();
                let (sender, pieces) = mpsc::channel(WAITING);
                open.insert(last, sender);
                tasks.spawn(answer(pieces, to));
                tasks.spawn(ask(last, id, from, to_client.clone()));
            }
            Some(_) = tasks.join_next() => {}
            message = from_client.message() => {
                let Ok(Some(message)) = message else { return };
                let Some(piece) = message.agent else { continue };
                let Some(sender) = open.get(&piece.connection) else { continue };
                let full = !piece.data.is_empty() && sender.try_send(piece.data).is_err();
                if piece.end || full {
                    open.remove(&piece.connection);
                }
            }
        }
    }
}

/// What the agent says, to the program.
async fn answer(mut pieces: mpsc::Receiver<Vec<u8>>, mut to: OwnedWriteHalf) {
    while let Some(piece) = pieces.recv().await {
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}

/// What the program says, to the agent.
async fn ask(connection: u64, id: String, mut from: OwnedReadHalf, to: Events) {
    let piece = |id: String, data: Vec<u8>, end: bool| {
        let agent = own::AgentPiece { connection, id, data, end };
        Ok(own::BuildEvent { event: Some(Event::Agent(agent)) })
    };
    if to.send(piece(id, Vec::new(), false)).await.is_err() {
        return;
    }
    let mut buffer = vec![0; PIECE];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if to.send(piece(String::new(), buffer[..read].to_vec(), false)).await.is_err() {
            return;
        }
    }
    to.send(piece(String::new(), Vec::new(), true)).await.ok();
}
