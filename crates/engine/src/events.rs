//! What happens to containers and pods, as a stream for everybody who asks (CRI GetContainerEvents).

use std::sync::{Arc, Mutex, PoisonError};

use model::{ContainerId, pod::Timestamp};
use tokio::sync::broadcast;

use crate::pod::Pod;

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

/// One event. It says that something changed, not how things are: whoever reads it late finds the state of that time,
/// which is never older than the event.
#[derive(Clone, Debug)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// Which container of the pod; `None`: the pod itself.
    pub container: Option<ContainerId>,
    /// The pod, which may be removed by now.
    pub pod: Arc<Pod>,
    /// When. Later events have later times.
    pub at: Timestamp,
}

/// How many events a slow reader may lag behind before its stream ends with an error. All readers share them, so that this
/// is also all the memory that they take.
const BACKLOG: usize = 4096;

/// The bus.
#[derive(Debug)]
pub(crate) struct Events {
    sender: broadcast::Sender<Event>,
    /// Held from the clock to the queue: the order of times is the order of events.
    order: Mutex<()>,
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), order: Mutex::default() }
    }
}

impl Events {
    /// Something happened to a pod.
    pub(crate) fn of_pod(&self, kind: EventKind, pod: &Arc<Pod>) {
        self.publish(kind, None, pod);
    }

    /// Something happened to a container of a pod.
    pub(crate) fn of_container(&self, kind: EventKind, container: ContainerId, pod: &Arc<Pod>) {
        self.publish(kind, Some(container), pod);
    }

    fn publish(&self, kind: EventKind, container: Option<ContainerId>, pod: &Arc<Pod>) {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        // No reader is no error.
        self.sender.send(Event { kind, container, pod: pod.clone(), at: crate::clock::now() }).ok();
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }
}
