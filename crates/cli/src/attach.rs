//! `creel attach` to a container of a CRI client's pod: the streams of its main process, from now on.

use std::time::{Duration, Instant};

use api::{
    creel::{self as own, attach_request::Message, process_output::Message as Output},
    runtime as cri,
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use crate::{
    client::Client,
    container::args::Attach,
    error::{Error, Exit},
    exec::code,
    follow,
    session::{self, Input, Inputs, Outcome},
    terminal::Keys,
};

/// Inputs on their way.
const AHEAD: usize = 4;

/// Attaches; the exit code is the container's if it ended meanwhile.
pub(crate) async fn attach(client: &mut Client, args: Attach, id: String) -> Result<Exit, Error> {
    let Attach { no_stdin, detach_keys, container: wanted, .. } = args;
    let what = format!("attach to {wanted}");
    let keys = Keys::parse(&detach_keys)?;
    let start = own::AttachStart { container_id: id.clone(), stdin: !no_stdin };
    let (to, inputs) = mpsc::channel(AHEAD);
    let first = tokio_stream::once(Message::Start(start));
    let requests = first.chain(ReceiverStream::new(inputs).filter_map(message));
    let requests = requests.map(|message| own::AttachRequest { message: Some(message) });
    let mut from = client.creel.attach(requests).await.map_err(session::failed(&what))?.into_inner();
    let first = from.message().await.map_err(session::failed(&what))?.and_then(|output| output.message);
    let tty = matches!(first, Some(Output::Started(own::ProcessStarted { tty: true })));
    let raw = session::raw(tty && !no_stdin)?;
    let (leave, mut left) = mpsc::channel(1);
    let (gone, never) = mpsc::channel(1);
    let speaking = tokio::spawn(session::speak(Inputs { stdin: !no_stdin, tty, keys }, to, leave));
    // The process stays when we leave: there is nothing to wait for.
    let outcome = tokio::select! {
        outcome = session::listen(from, never, &what) => outcome,
        Some(()) = left.recv() => Ok(Outcome::Detached),
    };
    drop(gone);
    speaking.abort();
    drop(raw);
    match outcome? {
        Outcome::Detached => Ok(Exit(0)),
        Outcome::Exit(_) => ended(client, &id).await,
    }
}

/// How long the end of a container may come after that of its output.
const EXIT: Duration = Duration::from_secs(2);

/// The container's exit code; 0 if only its output has ended.
async fn ended(client: &mut Client, id: &str) -> Result<Exit, Error> {
    let deadline = Instant::now() + EXIT;
    loop {
        let status = follow::status(client, id).await?;
        match status.state() {
            cri::ContainerState::ContainerExited => return Ok(Exit(code(status.exit_code))),
            _ if Instant::now() > deadline => return Ok(Exit(0)),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn message(input: Input) -> Option<Message> {
    match input {
        Input::Stdin(bytes) => Some(Message::Stdin(bytes)),
        Input::End => Some(Message::StdinEnd(true)),
        Input::Size(size) => Some(Message::Size(size)),
        Input::Detach => None,
    }
}
