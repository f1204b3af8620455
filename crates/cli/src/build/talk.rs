//! A build's conversation with the daemon: what is sent to it, and what it says.

use api::creel::{BuildEvent, BuildStart, ContextWanted, build_event::Event};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    agents::{Agents, Sockets},
    caches::Layouts,
    context::{self, Context},
};
use crate::{
    client::Client,
    error::{self, Error},
};

/// What is asked for, and what goes with it.
pub(super) struct Asked {
    pub(super) start: BuildStart,
    pub(super) layouts: Layouts,
    pub(super) contexts: Vec<Context>,
    pub(super) sockets: Sockets,
}

/// A build that goes on.
pub(super) struct Talk {
    events: Streaming<BuildEvent>,
    /// Until everything is sent.
    sending: Option<JoinHandle<Result<(), Error>>>,
    wanted: std::sync::mpsc::Sender<ContextWanted>,
    agents: Option<Agents>,
}

impl Talk {
    pub(super) async fn begin(client: &mut Client, asked: Asked) -> Result<Self, Error> {
        let Asked { start, layouts, contexts, sockets } = asked;
        let (pieces, stream) = mpsc::channel(4);
        let agents = (!sockets.is_empty()).then(|| Agents::new(sockets, pieces.clone()));
        let (wanted, wants) = std::sync::mpsc::channel();
        let sending = Some(tokio::task::spawn_blocking(move || {
            layouts.send(&pieces)?;
            pieces.blocking_send(context::begin(start)).ok();
            context::send(contexts, &pieces, &wants)
        }));
        let events = client.builds.build(ReceiverStream::new(stream)).await.map_err(error::daemon)?.into_inner();
        Ok(Self { events, sending, wanted, agents })
    }

    /// What happens next; `None`: the daemon says no more. What it asks for is answered here.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            let event = tokio::select! {
                // A context that cannot be read to its end is that, whatever the daemon makes of its beginning.
                sent = sent(&mut self.sending) => {
                    sent?;
                    continue;
                }
                event = self.events.message() => event.map_err(error::daemon)?,
            };
            let Some(event) = event else { return Ok(None) };
            match event.event {
                // Who does not listen has an error, which is told.
                Some(Event::Wanted(files)) => drop(self.wanted.send(files)),
                Some(Event::Agent(piece)) => {
                    if let Some(agents) = &mut self.agents {
                        agents.take(piece);
                    }
                }
                Some(event) => return Ok(Some(event)),
                None => {}
            }
        }
    }
}

/// Waits until everything is sent; then for ever.
async fn sent(sending: &mut Option<JoinHandle<Result<(), Error>>>) -> Result<(), Error> {
    let Some(handle) = sending else { return std::future::pending().await };
    let done = handle.await;
    *sending = None;
    done.unwrap_or(Ok(()))
}
