//! `creel exec`: a command in a running container, with its streams.

use std::time::Duration;

use api::creel::{self as own, exec_request::Message};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use crate::{
    args::Exec,
    client::Client,
    error::{Error, Exit},
    find,
    session::{self, Input, Inputs, Outcome},
    terminal::Keys,
};

/// Inputs on their way.
const AHEAD: usize = 4;

/// Runs it and passes input, output and exit code on.
pub(crate) async fn exec(client: &mut Client, args: Exec) -> Result<Exit, Error> {
    let Exec { interactive, tty, timeout, detach_keys, container: wanted, command } = args;
    let what = format!("exec in {wanted}");
    let keys = Keys::parse(&detach_keys)?;
    let container_id = find::container(client, &wanted).await?.id;
    let start = own::ExecStart { container_id, command, stdin: interactive, tty, ..Default::default() };
    let (to, inputs) = mpsc::channel(AHEAD);
    let first = tokio_stream::once(Message::Start(start));
    let rest = ReceiverStream::new(inputs).map(message);
    let requests = first.chain(rest).map(|message| own::ExecRequest { message: Some(message) });
    let from = client.creel.exec(requests).await.map_err(session::failed(&what))?.into_inner();
    let raw = session::raw(tty && interactive)?;
    let (leave, left) = mpsc::channel(1);
    let speaking = tokio::spawn(session::speak(Inputs { stdin: interactive, tty, keys }, to, leave));
    let listening = session::listen(from, left, &what);
    let outcome = match timeout {
        0 => listening.await,
        seconds => match tokio::time::timeout(Duration::from_secs(seconds.into()), listening).await {
            Ok(outcome) => outcome,
            // Nobody listens any more: the engine kills it with everything that it started.
            Err(_) => Err(Error::TimedOut { what, seconds }),
        },
    };
    speaking.abort();
    drop(raw);
    Ok(match outcome? {
        Outcome::Exit(exit) => Exit(code(exit)),
        Outcome::Detached => Exit(0),
    })
}

fn message(input: Input) -> Message {
    match input {
        Input::Stdin(bytes) => Message::Stdin(bytes),
        Input::End => Message::StdinEnd(true),
        Input::Size(size) => Message::Size(size),
        Input::Detach => Message::Detach(true),
    }
}

/// An exit code as a process can have it.
pub(crate) fn code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}
