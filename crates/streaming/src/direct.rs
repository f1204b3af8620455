//! Sessions without frames: for a client that is reached by other means, message by message, as creel's own API does.
//!
//! The same sessions as those of the server, with the same bounds: who does not listen holds up the process's output, and
//! what is said faster than it is read has to wait.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    backend::{Failure, Process, Resize, Size, Socket},
    channel::{CHUNK, Link, Outbound, Outgoing, room},
    forward,
    inbox::{Incoming, Inlet, inbox},
    session::{self, Ends},
};

/// Standard output, or what comes from a socket.
const FIRST: u32 = 1;
/// Standard error.
const SECOND: u32 = 2;

/// The client's way in. Dropped: it has nothing more to say.
pub struct Speaker {
    to: Option<Inlet>,
    resize: Option<Resize>,
}

impl std::fmt::Debug for Speaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Speaker").field("to", &self.to.is_some()).finish_non_exhaustive()
    }
}

impl Speaker {
    /// Passes bytes on; waits for room.
    pub async fn say(&self, bytes: &[u8]) {
        let Some(to) = &self.to else { return };
        for chunk in bytes.chunks(CHUNK) {
            to.put(chunk).await;
        }
    }

    /// Nothing more comes.
    pub fn end(&mut self) {
        self.to = None;
    }

    /// The size of the terminal, if there is one.
    pub async fn resize(&self, size: Size) {
        if let Some(resize) = &self.resize {
            resize(size).await;
        }
    }
}

/// What a client hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Standard output, or bytes of a socket.
    Out(Bytes),
    /// Standard error.
    Err(Bytes),
    /// Standard output or the socket has ended; what is said to it may still be heard.
    OutEnd,
    /// The process has ended with this code, an attached one's output with 0, the connection on both sides.
    Done(Result<i32, Failure>),
}

/// The client's ear. Dropped: the session ends, and with it a process that nobody else can reach.
#[derive(Debug)]
pub struct Listener {
    said: mpsc::Receiver<Outbound>,
    result: mpsc::Receiver<Result<i32, Failure>>,
}

impl Listener {
    /// What there is next. `None`: nothing more after [`Said::Done`].
    pub async fn next(&mut self) -> Option<Said> {
        while let Some(said) = self.said.recv().await {
            match said {
                Outbound::Data(FIRST, bytes, _) => return Some(Said::Out(bytes)),
                Outbound::Data(_, bytes, _) => return Some(Said::Err(bytes)),
                Outbound::Fin(FIRST) => return Some(Said::OutEnd),
                Outbound::End => break,
                Outbound::Fin(_) | Outbound::Accept(_) | Outbound::Reset(_) | Outbound::Raw(_) => {}
            }
        }
        self.result.recv().await.map(Said::Done)
    }
}

/// A session with a process. `stdin`: the client has something to say.
pub fn process(mut process: Process, stdin: bool) -> (Speaker, Listener) {
    let resize = process.resize.take();
    let (to, incoming) = inbox(Arc::default());
    let to = stdin.then_some(to);
    let listener = session(|link| async move {
        let out = |id| Some(Outgoing::new(id, link.clone(), room()));
        let stdin = stdin.then_some(incoming);
        let ends = Ends { stdin, resize: None, stdout: out(FIRST), stderr: out(SECOND) };
        session::converse(ends, process).await
    });
    (Speaker { to, resize }, listener)
}

/// A session with a socket, which may stay half closed for as long as its client has something to say.
pub fn socket(socket: Box<dyn Socket>) -> (Speaker, Listener) {
    let (to, incoming) = inbox(Arc::default());
    let listener = session(|link| relay(socket, incoming, link));
    (Speaker { to: Some(to), resize: None }, listener)
}

async fn relay(socket: Box<dyn Socket>, incoming: Incoming, link: Link) -> Result<i32, Failure> {
    /// A client that has gone is noticed, so that there is no need to ask for patience.
    const HALF: Duration = Duration::from_secs(3600);
    let data = Outgoing::new(FIRST, link, room());
    forward::relay(socket, incoming, &data, HALF).await.map(|()| 0).map_err(|error| Failure(error.to_string()))
}

/// Runs a session in a task of its own, until it is done or nobody listens.
fn session<F>(run: impl FnOnce(Link) -> F) -> Listener
where
    F: Future<Output = Result<i32, Failure>> + Send + 'static,
{
    let (link, said) = Link::new();
    let (done, result) = mpsc::channel(1);
    let talking = run(link.clone());
    tokio::spawn(async move {
        let result = tokio::select! {
            result = talking => result,
            () = link.gone() => return,
        };
        let _ = done.try_send(result);
        let _ = link.say(Outbound::End).await;
    });
    Listener { said, result }
}
