//! Listens to a build on behalf of its history, and passes everything on to whoever asked for it.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use model::{BuildId, ErrorKind};
use tokio::sync::mpsc;

use super::{
    BuildEvent, BuildFailure, BuildRequest, Built, StepEnd,
    past::{Asked, PastBuild, PastFailure, PastOutput, PastStep},
};
use crate::{Inner, blocking::blocking, clock};

/// Steps of one build that are remembered.
const STEPS: usize = 1000;
/// Names of one list that are remembered.
const NAMES: usize = 100;
/// Characters of a title, a name, and of an error.
const TITLE: usize = 300;
const ERROR: usize = 8000;
/// Bytes of what all steps of a build have said; the last of it is remembered.
const SAID: usize = 1 << 20;
/// What every piece of it costs beside its bytes.
const PIECE: usize = 32;

/// A build that is listened to.
#[derive(Debug)]
pub(super) struct Recording {
    inner: Arc<Inner>,
    since: Instant,
    /// As it is so far; `None`: it is over.
    build: Option<PastBuild>,
    said: Said,
}

impl Recording {
    /// A build begins.
    pub(super) async fn begin(inner: &Arc<Inner>, request: &BuildRequest) -> Self {
        let build = PastBuild {
            id: BuildId::from_bytes(crate::random_id()),
            asked: asked(request),
            begun: clock::now(),
            ended: None,
            failure: None,
            image: None,
            manifest: None,
            steps: Vec::new(),
            more: 0,
        };
        keep(inner.clone(), build.clone(), None).await;
        Self { inner: inner.clone(), since: Instant::now(), build: Some(build), said: Said::default() }
    }

    /// Passes events on until there are no more. When nobody listens any more, whoever sends them is told.
    pub(super) async fn pass(&mut self, mut from: mpsc::Receiver<BuildEvent>, to: mpsc::Sender<BuildEvent>) {
        loop {
            let event = tokio::select! {
                event = from.recv() => event,
                () = to.closed(), if !from.is_closed() => {
                    from.close();
                    continue;
                }
            };
            let Some(event) = event else { return };
            self.hear(&event);
            // That it does not get there is found out above.
            to.send(event).await.ok();
        }
    }

    fn hear(&mut self, event: &BuildEvent) {
        let at = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let Some(build) = &mut self.build else { return };
        match event {
            BuildEvent::Begun { .. } if build.steps.len() >= STEPS => build.more += 1,
            BuildEvent::Begun { step, title } => {
                let (number, title) = (*step, cut(title, TITLE));
                let (cached, canceled, error) = (false, false, String::new());
                build.steps.push(PastStep { number, title, begun: at, took: None, cached, canceled, error });
            }
            BuildEvent::Output { step, data } => self.said.push(*step, at, data),
            BuildEvent::Done { step, took, end } => {
                let Some(known) = build.steps.iter_mut().rev().find(|known| known.number == *step) else { return };
                known.took = Some(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                match end {
                    StepEnd::Made => {}
                    StepEnd::Cached => known.cached = true,
                    StepEnd::Canceled => known.canceled = true,
                    StepEnd::Failed(why) => known.error = cut(why, ERROR),
                }
            }
            // The files themselves are nobody's history; warnings can be had again (--check).
            BuildEvent::Exported { .. } | BuildEvent::Warning(_) => {}
        }
    }

    /// The build is over.
    pub(super) async fn end(mut self, built: &Result<Built, BuildFailure>) {
        let Some(mut build) = self.build.take() else { return };
        build.ended = Some(clock::now());
        match built {
            Ok(built) => {
                build.image = built.image.map(|id| id.to_string());
                build.manifest = built.manifest.as_ref().map(|manifest| manifest.digest.to_string());
            }
            Err(BuildFailure { error, excerpt }) => {
                let canceled = error.kind() == ErrorKind::Cancelled;
                let (message, excerpt) = (cut(&error.chain(), ERROR), cut(excerpt, ERROR));
                build.failure = Some(PastFailure { canceled, message, excerpt });
            }
        }
        keep(self.inner.clone(), build, Some(std::mem::take(&mut self.said))).await;
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Nobody has said how it ended: it crashed.
        if let Some(mut build) = self.build.take() {
            let (canceled, message) = (false, "the build crashed".to_owned());
            build.failure = Some(PastFailure { canceled, message, excerpt: String::new() });
            build.ended = Some(clock::now());
            written(&self.inner, build, None);
        }
    }
}

/// Writes it down. That this fails is for the log: it takes nothing from a build.
async fn keep(inner: Arc<Inner>, build: PastBuild, said: Option<Said>) {
    blocking(move || written(&inner, build, said)).await;
}

fn written(inner: &Inner, build: PastBuild, said: Option<Said>) {
    let said = said.map(|said| Vec::from(said.pieces)).filter(|pieces| !pieces.is_empty());
    let said = said.map_or(Ok(()), |pieces| inner.history.put_transcript(build.id, &pieces));
    if let Err(error) = said.and_then(|()| inner.history.put(build)) {
        tracing::warn!(error = %crate::chain(&error), "a build is not written down");
    }
}

fn asked(request: &BuildRequest) -> Asked {
    let names = |names: Vec<String>| names.iter().take(NAMES).map(|name| cut(name, TITLE)).collect();
    Asked {
        context: cut(&request.place, TITLE),
        file: cut(&request.file, TITLE),
        target: cut(&request.target, TITLE),
        names: names(request.names.iter().map(|name| name.familiar()).collect()),
        args: names(request.args.keys().cloned().collect()),
        platforms: names(request.platforms.iter().map(ToString::to_string).collect()),
    }
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// The last that steps have said.
#[derive(Debug, Default)]
struct Said {
    pieces: VecDeque<PastOutput>,
    bytes: usize,
}

impl Said {
    fn push(&mut self, step: u32, at: u64, data: &[u8]) {
        let data = &data[data.len().saturating_sub(SAID / 2)..];
        self.bytes += data.len() + PIECE;
        self.pieces.push_back(PastOutput { step, at, data: data.to_vec().into() });
        while self.bytes > SAID {
            let Some(first) = self.pieces.pop_front() else { return };
            self.bytes -= first.data.len() + PIECE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_was_said_is_remembered() {
        let mut said = Said::default();
        for n in 0..100_000 {
            said.push(1, n, b"one line of many that a program says\n");
        }
        assert!(said.bytes <= SAID && said.pieces.len() > 10_000, "{}", said.pieces.len());
        assert_eq!(said.pieces.back().unwrap().at, 99_999);
        said.push(2, 0, &vec![b'x'; 3 * SAID]);
        assert!(said.bytes <= SAID && said.pieces.back().unwrap().data.len() == SAID / 2);
    }
}
