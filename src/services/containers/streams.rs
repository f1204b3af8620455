//! A container's streams, from its start on or from now on; its exit code last.

use api::creel::{self as own, attach_request::Message as ToAttached};
use engine::{Engine, Error, StreamOptions};
use streaming::{Exit, direct};
use tonic::{Status, Streaming as Incoming};

use super::super::{session, status, stream::Streaming};
use crate::sessions;

/// What is done first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// It is started, with its streams attached before its program runs.
    Start,
    /// It runs.
    Attach,
}

/// Opens them. A client that goes away leaves the container as it is.
pub(super) async fn open(
    engine: &Engine,
    mut input: Incoming<own::AttachRequest>,
    begin: Begin,
) -> Result<Streaming<own::ProcessOutput>, Status> {
    let Some(ToAttached::Start(start)) = session::first(&mut input).await?.message else {
        return Err(status::bad_field("start", "missing"));
    };
    let user = super::find(engine, &start.container_id)?;
    let tty = user.spec().container.tty;
    let options = StreamOptions { stdin: start.stdin, tty };
    let exit = engine.exit_of_user(&user);
    let streams: Result<_, Error> = match begin {
        Begin::Start => engine.start_user_attached(&user, options).await,
        Begin::Attach => engine.attach_user(&user, options).await,
    };
    let streams = streams.map_err(|e| status::of_engine(&e))?;
    let exit: Exit = Box::pin(async move { Ok(exit.await) });
    let process = streaming::Process { exit: Some(exit), ..sessions::process(streams) };
    let (speaker, listener) = direct::process(process, start.stdin);
    session::listen(input, speaker);
    Ok(session::output(tty, listener, None))
}
