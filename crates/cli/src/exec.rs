//! `creel exec`: a command in a running container, with its streams.

use std::time::Duration;

use api::creel::{self as own, container_state::Status, exec_request::Message};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use crate::{
    client::Client,
    container::{
        args::Exec,
        find::{self, Found},
        options,
    },
    error::{Error, Exit},
    session::{self, Input, Inputs, Outcome},
    terminal::{self, Keys},
};

/// Runs it and passes input, output and exit code on.
pub(crate) async fn exec(client: &mut Client, args: Exec) -> Result<Exit, Error> {
    let what = format!("exec in {}", args.container);
    let inputs = Inputs { stdin: args.interactive, tty: args.tty, keys: Keys::parse(&args.detach_keys)? };
    if args.tty && args.interactive && !terminal::is_terminal() {
        return Err(Error::NoTerminal);
    }
    let start = start(client, &args).await?;
    let (to, typed) = mpsc::channel(session::AHEAD);
    let first = tokio_stream::once(Message::Start(start));
    let detached = args.detach.then_some(Message::Detach(true));
    let rest = tokio_stream::iter(detached).chain(ReceiverStream::new(typed).map(message));
    let requests = first.chain(rest).map(|message| own::ExecRequest { message: Some(message) });
    let mut from = client.creel.exec(requests).await.map_err(session::failed(&what))?.into_inner();
    if args.detach {
        // It runs when the answer has begun.
        from.message().await.map_err(session::failed(&what))?;
        return Ok(Exit(0));
    }
    let raw = session::raw(args.tty && args.interactive)?;
    let (leave, left) = mpsc::channel(1);
    let speaking = tokio::spawn(session::speak(inputs, to, leave));
    let listening = session::listen(from, left, &what);
    let outcome = match args.timeout {
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
        Outcome::Detached => {
            crate::output::note("read escape sequence");
            Exit(0)
        }
    })
}

/// What is to run, in a container that runs.
async fn start(client: &mut Client, args: &Exec) -> Result<own::ExecStart, Error> {
    let found = find::any(client, &args.container).await?;
    if let Found::Ours(details) = &found {
        let status = details.summary.as_ref().and_then(|summary| summary.state.clone()).unwrap_or_default();
        match status.status() {
            Status::Paused => {
                let why = format!("Container {} is paused, unpause the container before exec", args.container);
                return Err(Error::Daemon(why));
            }
            Status::Running => {}
            _ => return Err(Error::Daemon(format!("container {} is not running", found.id()))),
        }
    }
    Ok(own::ExecStart {
        container_id: found.id().to_owned(),
        command: args.command.clone(),
        stdin: args.interactive,
        tty: args.tty,
        user: args.user.clone().unwrap_or_default(),
        working_dir: args.workdir.clone().unwrap_or_default(),
        env: options::env(&args.env_file, &args.env, options::here)?,
        privileged: args.privileged,
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
