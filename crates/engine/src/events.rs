//! What happens to containers and pods, as a stream for everybody who asks (CRI GetContainerEvents).

use model::{ContainerId, PodId, pod::Timestamp};
use tokio::sync::broadcast;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Made.
    Created,
    /// Started.
    Started,
    /// Ended.
    Stopped,
    /// Removed.
    Deleted,
}

/// Whom it happened to. A pod counts as a container of its own in CRI's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A pod.
    Pod(PodId),
    /// A container of a pod.
    Container(ContainerId, PodId),
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// Whom.
    pub subject: Subject,
    /// When.
    pub at: Timestamp,
}

/// How many events a slow reader may lag behind before its stream ends with an error.
const BACKLOG: usize = 4096;

/// The bus.
#[derive(Debug)]
pub(crate) struct Events {
    sender: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG) }
    }
}

impl Events {
    pub(crate) fn publish(&self, kind: EventKind, subject: Subject) {
        // No reader is no error.
        self.sender.send(Event { kind, subject, at: crate::clock::now() }).ok();
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }
}
