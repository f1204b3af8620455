//! Exec, attach and port-forward of creel's own API: the sessions of the streaming server, message by message.

use std::{sync::Arc, time::Duration};

use api::creel::{
    self as own, attach_request::Message as ToAttached, exec_request::Message as ToExec, port_forward_request::Message as ToPort,
    port_forward_response::Message as FromPort, process_output::Message as FromProcess,
};
use engine::{
    Engine, ExecCommand, StreamOptions,
    user::{UserContainer, UserStatus},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use model::container::EnvVar;
use streaming::{
    AttachRequest, Exit, Size, Wanted,
    direct::{self, Listener, Said, Speaker},
};
use tokio::time::timeout;
use tonic::{Status, Streaming as Incoming};

use super::{ids, status, stream::Streaming};
use crate::sessions::{self, Sessions};

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a command.
pub(super) async fn exec(engine: &Engine, mut input: Incoming<own::ExecRequest>) -> Result<Streaming<own::ProcessOutput>, Status> {
    let Some(ToExec::Start(start)) = first(&mut input).await?.message else { return Err(status::bad_field("start", "missing")) };
    if start.command.is_empty() {
        return Err(status::bad_field("command", "missing"));
    }
    let user = people(engine, &start.container_id)?;
    let container = match &user {
        Some(user) => user.id,
        None => ids::container(engine, &start.container_id)?.id,
    };
    let user = user.map(|user| (engine.tell_exec(&user, &start.command), user));
    let options = StreamOptions { stdin: start.stdin, tty: start.tty };
    let (streams, ended) = engine.exec(container, command_of(start.clone())?, options).await.map_err(|e| status::of_engine(&e))?;
    let exit: Exit = Box::pin(async move { ended.await.map_err(|e| sessions::failure(&e)) });
    let mut process = streaming::Process { exit: Some(exit), ..sessions::process(streams) };
    // Not taken out for nothing: a command whose end nobody waits for is killed.
    if let Some((exec, user)) = user
        && let Some(exit) = process.exit.take()
    {
        let engine = engine.clone();
        process.exit = Some(Box::pin(async move {
            let exit = exit.await;
            engine.tell_exec_died(&user, exec, exit.as_ref().ok().copied());
            exit
        }));
    }
    let (mut speaker, listener) = direct::process(process, start.stdin);
    let (detached, detach) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        while let Ok(Some(request)) = input.message().await {
            match request.message {
                Some(ToExec::Stdin(bytes)) => speaker.say(&bytes).await,
                Some(ToExec::StdinEnd(_)) => speaker.end(),
                Some(ToExec::Size(size)) => resize(&speaker, size).await,
                // It keeps its standard input: nobody will ever write to it.
                Some(ToExec::Detach(_)) => return drop(detached.send(speaker)),
                Some(ToExec::Start(_)) | None => {}
            }
        }
    });
    Ok(output(start.tty, listener, Some(detach)))
}

fn command_of(start: own::ExecStart) -> Result<ExecCommand, Status> {
    let variable = |text: String| match text.split_once('=') {
        Some((name, value)) => Ok(EnvVar { name: name.to_owned(), value: value.as_bytes().to_vec().into() }),
        None => Err(status::bad_field("env", &format!("{text}: not NAME=VALUE"))),
    };
    Ok(ExecCommand {
        command: start.command,
        user: start.user,
        working_dir: start.working_dir,
        env: start.env.into_iter().map(variable).collect::<Result<_, _>>()?,
        all_capabilities: start.privileged,
    })
}

/// The container of people with this name or id, if it runs; `None`: there is none.
fn people(engine: &Engine, text: &str) -> Result<Option<Arc<UserContainer>>, Status> {
    let user = match engine.user(text) {
        Ok(user) => user,
        Err(e) if e.kind() == model::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(status::of_engine(&e)),
    };
    let name = user.id;
    match user.state().status {
        UserStatus::Running => Ok(Some(user)),
        UserStatus::Paused => Err(status::not_now(&format!("Container {text} is paused, unpause the container before exec"))),
        UserStatus::Restarting => {
            Err(status::not_now(&format!("Container {name} is restarting, wait until the container is running")))
        }
        UserStatus::Created | UserStatus::Exited | UserStatus::Removing => {
            Err(status::not_now(&format!("container {name} is not running")))
        }
    }
}

/// Looks at a container's main process.
pub(super) async fn attach(
    engine: &Engine,
    mut input: Incoming<own::AttachRequest>,
) -> Result<Streaming<own::ProcessOutput>, Status> {
    let Some(ToAttached::Start(start)) = first(&mut input).await?.message else {
        return Err(status::bad_field("start", "missing"));
    };
    let container = ids::container(engine, &start.container_id)?;
    let tty = container.spec.tty;
    let wanted = Wanted { stdin: start.stdin, stdout: true, stderr: !tty, tty };
    let request = AttachRequest { container: container.id, wanted };
    let process = Sessions(engine.clone()).follow(request).await.map_err(|e| status::of_engine(&e))?;
    let (speaker, listener) = direct::process(process, start.stdin);
    listen(input, speaker);
    Ok(output(tty, listener, None))
}

/// Passes on what an attached client says.
pub(super) fn listen(mut input: Incoming<own::AttachRequest>, mut speaker: Speaker) {
    tokio::spawn(async move {
        while let Ok(Some(request)) = input.message().await {
            match request.message {
                Some(ToAttached::Stdin(bytes)) => speaker.say(&bytes).await,
                Some(ToAttached::StdinEnd(_)) => speaker.end(),
                Some(ToAttached::Size(size)) => resize(&speaker, size).await,
                Some(ToAttached::Start(_)) | None => {}
            }
        }
    });
}

/// Connects to a port.
pub(super) async fn port_forward(
    engine: &Engine,
    mut input: Incoming<own::PortForwardRequest>,
) -> Result<Streaming<own::PortForwardResponse>, Status> {
    let Some(ToPort::Start(start)) = first(&mut input).await?.message else { return Err(status::bad_field("start", "missing")) };
    let pod = ids::pod(engine, &start.pod_sandbox_id)?.id;
    let port = u16::try_from(start.port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| status::bad_field("port", "not between 1 and 65535"))?;
    let socket = engine.dial(pod, port).await.map_err(|e| status::of_engine(&e))?;
    let (mut speaker, listener) = direct::socket(Box::new(socket));
    tokio::spawn(async move {
        while let Ok(Some(request)) = input.message().await {
            match request.message {
                Some(ToPort::Data(bytes)) => speaker.say(&bytes).await,
                Some(ToPort::End(_)) => speaker.end(),
                Some(ToPort::Start(_)) | None => {}
            }
        }
    });
    let said = stream::unfold(Some(listener), |listener| async move {
        let mut listener = listener?;
        let message = match listener.next().await? {
            Said::Out(bytes) | Said::Err(bytes) => FromPort::Data(bytes.into()),
            Said::OutEnd => FromPort::End(true),
            Said::Done(Ok(_)) => return None,
            Said::Done(Err(failure)) => return Some((Err(Status::unavailable(failure.0)), None)),
        };
        Some((Ok(own::PortForwardResponse { message: Some(message) }), Some(listener)))
    });
    Ok(Box::pin(said))
}

/// The first message, in which a client says what it wants.
pub(super) async fn first<T>(input: &mut Incoming<T>) -> Result<T, Status> {
    let first = timeout(PATIENCE, input.message()).await.map_err(|_| status::bad_field("start", "did not come"))?;
    first?.ok_or_else(|| status::bad_field("start", "missing"))
}

async fn resize(speaker: &Speaker, size: own::TerminalSize) {
    let side = |side: u32| u16::try_from(side).ok().filter(|side| *side > 0);
    if let (Some(width), Some(height)) = (side(size.width), side(size.height)) {
        speaker.resize(Size { width, height }).await;
    }
}

pub(super) type Detach = tokio::sync::oneshot::Receiver<Speaker>;

/// What a process says, as messages, until it has ended or the client has detached.
pub(super) fn output(tty: bool, listener: Listener, detach: Option<Detach>) -> Streaming<own::ProcessOutput> {
    let started = FromProcess::Started(own::ProcessStarted { tty });
    let ear = Ear { listener: Some(listener), detach };
    let said = stream::unfold(ear, |mut ear| async { Some((ear.next().await?, ear)) });
    let all = stream::once(std::future::ready(Ok(started))).chain(said);
    Box::pin(all.map_ok(|message| own::ProcessOutput { message: Some(message) }))
}

struct Ear {
    /// Gone when there is nothing more to hear.
    listener: Option<Listener>,
    detach: Option<Detach>,
}

impl Ear {
    async fn next(&mut self) -> Option<Result<FromProcess, Status>> {
        loop {
            let listener = self.listener.as_mut()?;
            let said = tokio::select! {
                said = listener.next() => said?,
                speaker = detached(&mut self.detach) => {
                    drain(speaker, self.listener.take()?);
                    return None;
                }
            };
            match said {
                Said::Out(bytes) => return Some(Ok(FromProcess::Stdout(bytes.into()))),
                Said::Err(bytes) => return Some(Ok(FromProcess::Stderr(bytes.into()))),
                Said::OutEnd => {}
                Said::Done(result) => {
                    self.listener = None;
                    return Some(result.map(FromProcess::ExitCode).map_err(|failure| Status::unavailable(failure.0)));
                }
            }
        }
    }
}

async fn detached(detach: &mut Option<Detach>) -> Speaker {
    if let Some(waiting) = detach {
        match waiting.await {
            Ok(speaker) => return speaker,
            Err(_) => *detach = None,
        }
    }
    std::future::pending().await
}

/// The command runs on: what it says is read by nobody, so that it does not block.
fn drain(speaker: Speaker, mut listener: Listener) {
    tokio::spawn(async move {
        while listener.next().await.is_some() {}
        drop(speaker);
    });
}
