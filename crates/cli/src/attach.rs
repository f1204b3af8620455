//! `creel attach` to a container of a CRI client's pod: the streams of its main process, from now on.

use std::time::{Duration, Instant};

use api::{
    creel::{self as own, process_output::Message as Output},
    runtime as cri,
};
use tokio::sync::mpsc;

use crate::{
    client::Client,
    container::args::Attach,
    error::{Error, Exit},
    exec::code,
    follow,
    session::{self, Inputs, Outcome},
    terminal::Keys,
};

/// Attaches; the exit code is the container's if it ended meanwhile.
pub(crate) async fn attach(client: &mut Client, args: Attach, id: String) -> Result<Exit, Error> {
    let Attach { no_stdin, detach_keys, container: wanted, .. } = args;
    let what = format!("attach to {wanted}");
    let keys = Keys::parse(&detach_keys)?;
    let start = own::AttachStart { container_id: id.clone(), stdin: !no_stdin };
    let (to, inputs) = mpsc::channel(session::AHEAD);
    let mut from = client.creel.attach(session::attaching(start, inputs)).await.map_err(session::failed(&what))?.into_inner();
    let first = from.message().await.map_err(session::failed(&what))?.and_then(|output| output.message);
    let tty = matches!(first, Some(Output::Started(own::ProcessStarted { tty: true })));
    let outcome = session::converse(from, Inputs { stdin: !no_stdin, tty, keys }, to, &what).await?;
    match outcome {
        Outcome::Detached => {
            crate::output::note("read escape sequence");
            Ok(Exit(0))
        }
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
