//! Files of containers, out and in, and what they have changed.

use std::sync::Arc;

use api::creel as own;
use engine::{
    Engine,
    user::{ChangeKind, FoundFile, Last, Owners, Replace, Unpack, UserContainer},
};
use model::Pieces;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming as Incoming};

use super::super::{archive::receive, status, stream::Streaming};

/// Bytes of an archive in one message.
const PIECE: usize = 1 << 20;

/// What a container has changed of its image.
pub(super) async fn diff(engine: &Engine, user: &Arc<UserContainer>) -> Result<own::DiffResponse, Status> {
    let changes = engine.changes_of_user(user).await.map_err(|e| status::of_engine(&e))?;
    let change = |change: engine::user::Change| {
        let kind = match change.kind {
            ChangeKind::Modified => own::change::Kind::Modified,
            ChangeKind::Added => own::change::Kind::Added,
            ChangeKind::Deleted => own::change::Kind::Deleted,
        };
        own::Change { kind: kind.into(), path: change.path }
    };
    Ok(own::DiffResponse { changes: changes.into_iter().map(change).collect() })
}

/// Something out of a container: first what it is, then an archive of it.
pub(super) async fn copy_from(
    engine: &Engine,
    user: &Arc<UserContainer>,
    request: own::CopyFromRequest,
) -> Result<Streaming<own::CopyFromResponse>, Status> {
    let last = if request.follow_link { Last::Target } else { Last::Link };
    let found = find(engine, user, request.path, last).await?;
    let stat = own::PathStat {
        name: found.stat.name.clone(),
        mode: found.stat.mode,
        size: found.stat.size,
        link_target: found.stat.link_target.clone(),
    };
    engine.tell_of_user(user, "archive-path", []);
    Ok(archive(found, Some(own::CopyFromResponse { stat: Some(stat), data: Vec::new() })))
}

/// All files of a container, without what is mounted in it.
pub(super) async fn export(engine: &Engine, user: &Arc<UserContainer>) -> Result<Streaming<own::CopyFromResponse>, Status> {
    let found = find(engine, user, "/.".to_owned(), Last::Link).await?;
    engine.tell_of_user(user, "export", []);
    Ok(archive(found.without_mounts(), None))
}

async fn find(engine: &Engine, user: &Arc<UserContainer>, path: String, last: Last) -> Result<FoundFile, Status> {
    let files = engine.files_of_user(user).await.map_err(|e| status::of_engine(&e))?;
    let found = tokio::task::spawn_blocking(move || files.find(&path, last)).await.map_err(|_| status::panicked())?;
    found.map_err(|e| status::of_engine(&e))
}

fn archive(found: FoundFile, first: Option<own::CopyFromResponse>) -> Streaming<own::CopyFromResponse> {
    let (sender, receiver) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        if let Some(first) = first
            && sender.blocking_send(Ok(first)).is_err()
        {
            return;
        }
        let out = Pieces::new(PIECE, |data| sender.blocking_send(Ok(own::CopyFromResponse { stat: None, data })).is_ok());
        if let Err(e) = found.write(out) {
            // Nobody reads it if it is that the client has gone.
            sender.blocking_send(Err(status::of_engine(&e))).ok();
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

/// An archive into a directory of a container. It is there as a whole before anything of it is brought in.
pub(super) async fn copy_to(engine: Engine, mut input: Incoming<own::CopyToRequest>) -> Result<own::CopyToResponse, Status> {
    let first = input.message().await?.unwrap_or_default();
    let Some(start) = first.start else { return Err(status::bad_field("start", "missing")) };
    let user = super::find(&engine, &start.container)?;
    let dir = engine.info().config.root.clone();
    let mut begin = Some(first.data).filter(|data| !data.is_empty());
    let next = async move || match begin.take() {
        Some(data) => Ok(Some(data)),
        None => Ok(input.message().await?.map(|request| request.data)),
    };
    let archive = receive(next, &dir).await?;
    let unpack = Unpack {
        path: start.path,
        archive,
        owners: if start.keep_owner { Owners::Archive } else { Owners::Root },
        replace: if start.no_overwrite_kind { Replace::SameKind } else { Replace::AnyKind },
    };
    engine.unpack_for_user(&user, unpack).await.map_err(|e| status::of_engine(&e))?;
    engine.tell_of_user(&user, "extract-to-dir", []);
    Ok(own::CopyToResponse {})
}
