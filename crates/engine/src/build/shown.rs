//! What a listener is told of a build's steps.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use model::ErrorKind;
use tokio::{
    sync::{SemaphorePermit, mpsc},
    task::JoinHandle,
};

use super::{
    BuildEvent, BuildRequest, StepEnd,
    graph::{Build, canceled},
    stages::Spot,
};
use crate::error::Error;

/// A step that is under way.
#[derive(Debug)]
pub(super) struct Progress<'b> {
    /// From 1.
    pub(super) number: u32,
    since: Instant,
    _room: SemaphorePermit<'b>,
}

impl Build<'_> {
    /// `[name 2/5]`, or `[2/5]` if there is only one stage; with the platform if there are several.
    pub(super) fn place(&self, spot: Spot<'_>) -> String {
        let (at, total) = spot.of;
        let stage = &self.stages.stages[spot.stage];
        let platform = if self.request.platforms.len() > 1 { format!("{} ", self.platform) } else { String::new() };
        match stage.name {
            _ if self.stages.stages.len() == 1 => format!("[{platform}{at}/{total}]"),
            Some(name) => format!("[{platform}{name} {at}/{total}]"),
            None => format!("[{platform}stage-{} {at}/{total}]", spot.stage),
        }
    }

    /// What came from the client, as steps that are over.
    pub(super) async fn tell_received(&self) -> Result<(), Error> {
        let BuildRequest { dockerfile, file, ignore, received: (bytes, took), .. } = &*self.request;
        let (none, size) = (Duration::ZERO, |bytes| model::size::decimal(bytes, 3));
        if let Some(text) = dockerfile {
            let said = format!("transferring dockerfile: {} done\n", size(text.len() as u64));
            self.tell_over(format!("load build definition from {file}"), said, none).await?;
        }
        if !ignore.is_empty() {
            let said = format!("transferring context: {} done\n", size(ignore.len() as u64));
            self.tell_over("load .dockerignore".to_owned(), said, none).await?;
        }
        self.tell_over("load build context".to_owned(), format!("transferring context: {} done\n", size(*bytes)), *took).await
    }

    async fn tell_over(&self, what: String, said: String, took: Duration) -> Result<(), Error> {
        let step = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        self.tell(BuildEvent::Begun { step, title: format!("[internal] {what}") }).await?;
        self.say(step, said).await;
        self.tell(BuildEvent::Done { step, took, end: StepEnd::Made }).await
    }

    /// A step begins, as soon as there is room for it: who holds one must not wait for another.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(super) async fn begun(&self, title: String) -> Result<Progress<'_>, Error> {
        let room = self.unless_canceled(self.room.acquire()).await?.map_err(|_| canceled())?;
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        self.tell(BuildEvent::Begun { step: number, title }).await?;
        Ok(Progress { number, since: Instant::now(), _room: room })
    }

    /// Does the work of a step, and says how it has ended.
    ///
    /// # Errors
    /// The work's.
    pub(super) async fn ended(
        &self,
        progress: Progress<'_>,
        work: impl Future<Output = Result<StepEnd, Error>>,
    ) -> Result<(), Error> {
        let ended = work.await;
        let end = match &ended {
            Ok(end) => end.clone(),
            Err(error) if error.kind() == ErrorKind::Cancelled => StepEnd::Canceled,
            Err(error) => StepEnd::Failed(error.chain()),
        };
        let told = self.tell(BuildEvent::Done { step: progress.number, took: progress.since.elapsed(), end }).await;
        ended.and(told)
    }

    /// A listener that has gone ends the build.
    pub(super) async fn tell(&self, event: BuildEvent) -> Result<(), Error> {
        self.events.send(event).await.map_err(|_| canceled())
    }

    /// Where a step's output goes, and when all of it has gone there. It closes when the build is canceled.
    pub(super) fn output(&self, step: u32) -> (mpsc::Sender<Vec<u8>>, JoinHandle<()>) {
        let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(16);
        let (events, cancelled) = (self.events.clone(), self.cancelled.clone());
        let passing = tokio::spawn(async move {
            loop {
                let data = tokio::select! {
                    data = pieces.recv() => data,
                    () = cancelled.cancelled() => None,
                };
                let Some(data) = data else { return };
                if events.send(BuildEvent::Output { step, data }).await.is_err() {
                    return;
                }
            }
        });
        (sender, passing)
    }
}
