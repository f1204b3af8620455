//! What a container has written, read from its log files by the daemon.

use std::{io, sync::Arc, time::Duration};

use api::creel as own;
use engine::{
    Container, Engine,
    user::{LogLine, LogQuery, LogReader, UserContainer, UserStatus},
};
use model::container::ContainerState;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::super::{ids, stream::Streaming};

/// How often a growing file is looked at.
const GLANCE: Duration = Duration::from_millis(50);
/// Lines on their way to a client.
const WAITING: usize = 64;
/// Lines that are read at once.
const BATCH: usize = 256;

/// Whose log.
enum Whose {
    Users(Arc<UserContainer>),
    Pods(Arc<Container>),
}

impl Whose {
    /// Whether more may be written to it.
    fn may_grow(&self) -> bool {
        match self {
            Self::Users(user) => {
                matches!(user.state().status, UserStatus::Running | UserStatus::Paused | UserStatus::Restarting)
            }
            Self::Pods(container) => !matches!(container.state(), ContainerState::Exited { .. }),
        }
    }
}

/// Lines as they are read.
pub(super) fn stream(engine: &Engine, request: &own::LogsRequest) -> Result<Streaming<own::LogEntry>, Status> {
    let (whose, path) = match super::find(engine, &request.container) {
        Ok(user) if !user.keeps_log() => {
            return Err(Status::failed_precondition("configured logging driver does not support reading"));
        }
        Ok(user) => {
            let path = engine.log_of_user(&user);
            (Whose::Users(user), path)
        }
        Err(refused) if refused.code() == tonic::Code::NotFound => match ids::container(engine, &request.container) {
            Ok(container) if container.log_path().is_empty() => {
                return Err(Status::failed_precondition(format!("container {} was made without a log", container.id)));
            }
            Ok(container) => {
                let path = container.log_path();
                (Whose::Pods(container), path.into())
            }
            Err(_) => return Err(refused),
        },
        Err(refused) => return Err(refused),
    };
    if !request.stdout && !request.stderr {
        return Err(Status::invalid_argument("You must choose at least one stream"));
    }
    let time = |time: i64| Some(time).filter(|time| *time != 0);
    let query = LogQuery {
        stdout: request.stdout,
        stderr: request.stderr,
        since: time(request.since),
        until: time(request.until),
        tail: request.tail,
    };
    let (sender, lines) = mpsc::channel(WAITING);
    let follow = request.follow;
    tokio::spawn(async move {
        let last = tokio::select! {
            read = read(&whose, path, query, follow, &sender) => read,
            () = sender.closed() => return,
        };
        if let Err(error) = last {
            sender.send(Err(Status::internal(format!("read the log: {error}")))).await.ok();
        }
    });
    Ok(Box::pin(ReceiverStream::new(lines)))
}

type Sender = mpsc::Sender<Result<own::LogEntry, Status>>;

async fn read(whose: &Whose, path: std::path::PathBuf, query: LogQuery, follow: bool, to: &Sender) -> io::Result<()> {
    let mut reader = blocking(move || LogReader::open(path, query)).await?;
    let end = query.until.filter(|_| follow);
    loop {
        // Looked at before the file: what it wrote before its end is read.
        let grows = follow && whose.may_grow() && end.is_none_or(|end| super::super::events::now() <= end);
        loop {
            let (back, lines) = blocking(move || batch(reader)).await?;
            reader = back;
            if lines.is_empty() {
                break;
            }
            for line in lines {
                let entry = own::LogEntry { time: line.time, stderr: line.stderr, data: line.data };
                if to.send(Ok(entry)).await.is_err() {
                    return Ok(());
                }
            }
        }
        if !grows || reader.is_over() {
            return Ok(());
        }
        tokio::time::sleep(GLANCE).await;
    }
}

fn batch(mut reader: LogReader) -> io::Result<(LogReader, Vec<LogLine>)> {
    let mut lines = Vec::new();
    while lines.len() < BATCH
        && let Some(line) = reader.next_line()?
    {
        lines.push(line);
    }
    Ok((reader, lines))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
