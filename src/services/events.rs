//! GetContainerEvents: the engine's events with the statuses that belong to them.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use api::runtime as cri;
use engine::{Engine, Event, EventKind, Subject};
use futures_util::{StreamExt, stream};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tonic::Status;

use super::{status, stream::Streaming, view};

/// Everything from now on. The stream ends only if the client lags too far behind.
pub(crate) fn stream(engine: Engine) -> Streaming<cri::ContainerEventResponse> {
    let events = BroadcastStream::new(engine.events());
    let answers = events.map(move |event| match event {
        Ok(event) => Ok(answer(&engine, event)),
        Err(BroadcastStreamRecvError::Lagged(lost)) => Err(status::lagged(lost)),
    });
    // After an error the client has to list again, so nothing may follow it.
    let until_error = answers.scan(false, |over, answer: Result<_, Status>| {
        let item = (!*over).then_some(answer);
        *over |= item.as_ref().is_some_and(Result::is_err);
        std::future::ready(item)
    });
    Box::pin(until_error.chain(stream::empty()))
}

fn answer(engine: &Engine, event: Event) -> cri::ContainerEventResponse {
    let (id, pod) = match event.subject {
        Subject::Pod(pod) => (pod.to_string(), pod),
        Subject::Container(container, pod) => (container.to_string(), pod),
    };
    let kind = match event.kind {
        EventKind::Created => cri::ContainerEventType::ContainerCreatedEvent,
        EventKind::Started => cri::ContainerEventType::ContainerStartedEvent,
        EventKind::Stopped => cri::ContainerEventType::ContainerStoppedEvent,
        EventKind::Deleted => cri::ContainerEventType::ContainerDeletedEvent,
    };
    cri::ContainerEventResponse {
        container_id: id,
        container_event_type: kind.into(),
        created_at: event.at,
        // A pod that is gone has no status; the kubelet skips such an event and learns of it by listing.
        pod_sandbox_status: engine.pod(pod).ok().as_ref().map(|pod| view::pod_status(pod)),
        containers_statuses: statuses(engine, pod),
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
