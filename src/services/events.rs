//! GetContainerEvents: the engine's events with the statuses that belong to them.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use api::runtime as cri;
use engine::{Engine, Event, EventKind};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tonic::Status;

use super::{status, stream::Streaming, view};

/// Everything from now on. The stream ends with an error: the client lags too far behind and has lost events, or the
/// daemon ends. Either way it has to list before it asks again.
pub(crate) fn stream(engine: Engine, mut ending: watch::Receiver<bool>) -> Streaming<cri::ContainerEventResponse> {
    let events = BroadcastStream::new(engine.events());
    let answers = events.map(move |event| match event {
        Ok(event) => Ok(answer(&engine, event)),
        Err(BroadcastStreamRecvError::Lagged(lost)) => Err(status::lagged(lost)),
    });
    let end = stream::once(async move {
        // Its sender lives as long as the server: gone means the same.
        ending.wait_for(|ending| *ending).await.ok();
        Err(status::ending())
    });
    // After an error the client has to list again, so nothing may follow it.
    let until_error = stream::select(answers, end).scan(false, |over, answer: Result<_, Status>| {
        let item = (!*over).then_some(answer);
        *over |= item.as_ref().is_some_and(Result::is_err);
        std::future::ready(item)
    });
    Box::pin(until_error)
}

fn answer(engine: &Engine, event: Event) -> cri::ContainerEventResponse {
    let kind = match event.kind {
        EventKind::Created => cri::ContainerEventType::ContainerCreatedEvent,
        EventKind::Started => cri::ContainerEventType::ContainerStartedEvent,
        EventKind::Stopped => cri::ContainerEventType::ContainerStoppedEvent,
        EventKind::Deleted => cri::ContainerEventType::ContainerDeletedEvent,
    };
    cri::ContainerEventResponse {
        // A pod counts as a container of its own.
        container_id: event.container.map_or_else(|| event.pod.id.to_string(), |container| container.to_string()),
        container_event_type: kind.into(),
        created_at: event.at,
        pod_sandbox_status: Some(view::pod_status(&event.pod)),
        containers_statuses: statuses(engine, event.pod.id),
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The statuses of a pod's containers, newest first.
pub(crate) fn statuses(engine: &Engine, pod: model::PodId) -> Vec<cri::ContainerStatus> {
    engine.containers_of(pod).iter().rev().map(|container: &Arc<_>| view::container_status(container)).collect()
}
