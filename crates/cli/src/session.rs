//! A person's side of a session with a process: what is typed and where what is said is shown.

use std::{
    io::{self, Write},
    time::Duration,
};

use api::creel::{AttachRequest, AttachStart, ProcessOutput, TerminalSize, attach_request, process_output::Message};
use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use crate::{
    error::{self, Error},
    terminal::{self, Keys, Raw, Watcher},
};

/// Inputs on their way.
pub(crate) const AHEAD: usize = 4;

/// What a person does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Input {
    /// Types.
    Stdin(Vec<u8>),
    /// Has nothing more to type.
    End,
    /// Makes the terminal another size.
    Size(TerminalSize),
    /// Leaves.
    Detach,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With the process.
    Exit(i32),
    /// The person left.
    Detached,
}

/// Where a session's input comes from.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    /// Standard input is passed on.
    pub(crate) stdin: bool,
    /// The process has a terminal.
    pub(crate) tty: bool,
    /// Leave it with these.
    pub(crate) keys: Keys,
}

/// What a container is attached to with: whose streams they are, and then what the person does.
pub(crate) fn attaching(start: AttachStart, typed: mpsc::Receiver<Input>) -> impl Stream<Item = AttachRequest> {
    let typed = ReceiverStream::new(typed).filter_map(|input| match input {
        Input::Stdin(bytes) => Some(attach_request::Message::Stdin(bytes)),
        Input::End => Some(attach_request::Message::StdinEnd(true)),
        Input::Size(size) => Some(attach_request::Message::Size(size)),
        Input::Detach => None,
    });
    let all = tokio_stream::once(attach_request::Message::Start(start)).chain(typed);
    all.map(|message| AttachRequest { message: Some(message) })
}

/// Talks to a container that has been attached to. It stays when the person leaves: there is nothing to wait for then.
pub(crate) async fn converse(
    from: Streaming<ProcessOutput>,
    inputs: Inputs,
    to: mpsc::Sender<Input>,
    what: &str,
) -> Result<Outcome, Error> {
    let raw = raw(inputs.tty && inputs.stdin)?;
    let (leave, mut left) = mpsc::channel(1);
    let (gone, never) = mpsc::channel(1);
    let speaking = tokio::spawn(speak(inputs, to, leave));
    let outcome = tokio::select! {
        outcome = listen(from, never, what) => outcome,
        Some(()) = left.recv() => Ok(Outcome::Detached),
    };
    drop(gone);
    speaking.abort();
    drop(raw);
    outcome
}

/// Sends what is typed, and the terminal's size as it changes, into `to`, until nobody takes it any more. `left` is told
/// when the person leaves.
pub(crate) async fn speak(inputs: Inputs, to: mpsc::Sender<Input>, left: mpsc::Sender<()>) {
    let (sizes, typed) = (to.clone(), to);
    let watching = async {
        if !inputs.tty {
            return;
        }
        let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
        loop {
            if let Some((width, height)) = terminal::size() {
                let size = TerminalSize { width: width.into(), height: height.into() };
                if sizes.send(Input::Size(size)).await.is_err() {
                    return;
                }
            }
            changes.recv().await;
        }
    };
    let typing = async {
        if inputs.stdin {
            type_on(Watcher::new(inputs.keys), inputs.tty, typed, left).await;
        }
    };
    tokio::join!(watching, typing);
}

async fn type_on(mut watcher: Watcher, tty: bool, to: mpsc::Sender<Input>, left: mpsc::Sender<()>) {
    let mut stdin = tokio::io::stdin();
    let mut chunk = vec![0; 16 << 10];
    while let Ok(got @ 1..) = stdin.read(&mut chunk).await {
        let (bytes, leaves) = match tty {
            true => watcher.filter(&chunk[..got]),
            false => (chunk[..got].to_vec(), false),
        };
        if !bytes.is_empty() && to.send(Input::Stdin(bytes)).await.is_err() {
            return;
        }
        if leaves {
            let _ = to.send(Input::Detach).await;
            let _ = left.send(()).await;
            return;
        }
    }
    let _ = to.send(Input::End).await;
}

/// Shows what a process says until it has ended, or the person has left.
pub(crate) async fn listen(mut from: Streaming<ProcessOutput>, mut left: mpsc::Receiver<()>, what: &str) -> Result<Outcome, Error> {
    /// How long the daemon may take to let go of somebody who leaves.
    const LEAVE: Duration = Duration::from_secs(5);
    let leaving = async {
        if left.recv().await.is_some() {
            tokio::time::sleep(LEAVE).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let mut gone = std::pin::pin!(leaving);
    loop {
        let next = tokio::select! {
            next = from.message() => next.map_err(error::rpc(what))?,
            () = &mut gone => None,
        };
        match next.map(|output| output.message) {
            Some(Some(Message::Stdout(bytes))) => show(&mut io::stdout(), &bytes, "standard output")?,
            Some(Some(Message::Stderr(bytes))) => show(&mut io::stderr(), &bytes, "standard error")?,
            Some(Some(Message::ExitCode(code))) => return Ok(Outcome::Exit(code)),
            Some(Some(Message::Started(_)) | None) => {}
            None => return Ok(Outcome::Detached),
        }
    }
}

fn show(to: &mut impl Write, bytes: &[u8], name: &str) -> Result<(), Error> {
    let shown = to.write_all(bytes).and_then(|()| to.flush());
    shown.map_err(error::io(format!("write to {name}")))
}

/// Puts the terminal into raw mode for a process with one.
pub(crate) fn raw(tty: bool) -> Result<Option<Raw>, Error> {
    if tty { Raw::enter().map_err(error::io("set the terminal")) } else { Ok(None) }
}

/// An error that says what it is about.
pub(crate) fn failed(what: &str) -> impl FnOnce(Status) -> Error {
    error::rpc(what.to_owned())
}
