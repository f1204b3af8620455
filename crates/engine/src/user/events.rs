//! What happens to containers, images, volumes and networks of people: one bus, and a memory of the last events.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use model::pod::Timestamp;
use tokio::sync::broadcast;

/// What is remembered for those who ask later.
const MEMORY: usize = 1024;
/// How far a reader may lag behind.
const BACKLOG: usize = 4096;

/// Of what kind the thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A volume.
    Volume,
    /// A network.
    Network,
}

impl Kind {
    /// As docker writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Volume => "volume",
            Self::Network => "network",
        }
    }
}

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserEvent {
    /// To what kind of thing.
    pub kind: Kind,
    /// What, in docker's words: create, start, die, ...
    pub action: String,
    /// Id of the thing; a volume's name.
    pub id: String,
    /// name, image, exitCode, signal and their like; labels.
    pub attributes: BTreeMap<String, String>,
    /// When. Later events have later times.
    pub at: Timestamp,
}

/// The bus.
#[derive(Debug)]
pub(crate) struct Bus {
    sender: broadcast::Sender<UserEvent>,
    /// Held from the clock to the queue: the order of times is the order of events.
    memory: Mutex<VecDeque<UserEvent>>,
}

impl Default for Bus {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), memory: Mutex::default() }
    }
}

impl Bus {
    /// Tells everybody.
    pub(crate) fn tell(&self, kind: Kind, action: &str, id: impl ToString, attributes: BTreeMap<String, String>) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let event = UserEvent { kind, action: action.to_owned(), id: id.to_string(), attributes, at: crate::clock::now() };
        if memory.len() == MEMORY {
            memory.pop_front();
        }
        memory.push_back(event.clone());
        // No reader is no error.
        self.sender.send(event).ok();
    }

    /// What is remembered, and everything from then on: nothing is missed in between, and nothing comes twice.
    pub(crate) fn subscribe(&self) -> (Vec<UserEvent>, broadcast::Receiver<UserEvent>) {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        (memory.iter().cloned().collect(), self.sender.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_memory_ends_where_the_stream_begins() {
        let bus = Bus::default();
        for n in 0..MEMORY + 5 {
            bus.tell(Kind::Image, "pull", n, BTreeMap::new());
        }
        let (memory, mut stream) = bus.subscribe();
        assert_eq!((memory.len(), memory[0].id.as_str()), (MEMORY, "5"));
        assert!(memory.windows(2).all(|pair| pair[0].at < pair[1].at));
        bus.tell(Kind::Volume, "create", "v", BTreeMap::new());
        let next = stream.recv().await.unwrap();
        assert_eq!((next.kind.name(), next.action.as_str(), next.id.as_str()), ("volume", "create", "v"));
        assert!(next.at > memory[MEMORY - 1].at);
    }
}
