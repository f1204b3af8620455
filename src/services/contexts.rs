//! Contexts of builds on their way to the engine: a tar, or only what is not there.

use std::{collections::BTreeMap, fs::File};

use api::creel::{self as own, build_event::Event};
use engine::{
    Engine,
    build::{Context, ContextFile, NamedContext},
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming as Incoming};

use super::{archive::Archive, status};

/// Named contexts of one build.
const NAMED: usize = 100;
/// Files of one context; the engine wants no more either.
const FILES: usize = 2_000_000;

/// Where events go.
pub(super) type Events = mpsc::Sender<Result<own::BuildEvent, Status>>;

/// What a client sends, in parts that each end with `whole`, or with the stream.
#[derive(Debug)]
pub(super) struct Parts {
    stream: Incoming<own::BuildRequest>,
    early: Option<own::BuildRequest>,
    whole: bool,
    /// Bytes that have come.
    received: u64,
}

impl Parts {
    /// After the first message, which has `start` and may have the beginning of the first part.
    ///
    /// # Errors
    /// There is no `start`.
    pub(super) fn begin(
        mut first: own::BuildRequest,
        stream: Incoming<own::BuildRequest>,
    ) -> Result<(own::BuildStart, Self), Status> {
        let start = first.start.take().ok_or_else(|| status::bad_field("start", "missing"))?;
        Ok((start, Self { stream, early: Some(first), whole: false, received: 0 }))
    }

    /// The next message of this part; `None`: it is whole, and what comes next is the next part's.
    pub(super) async fn next(&mut self) -> Result<Option<own::BuildRequest>, Status> {
        if std::mem::take(&mut self.whole) {
            return Ok(None);
        }
        let next = match self.early.take() {
            Some(early) => Some(early),
            None => self.stream.message().await?,
        };
        self.whole = next.as_ref().is_some_and(|next| next.whole);
        Ok(next)
    }

    /// An archive, unpacked.
    pub(super) async fn archive(&mut self, engine: &Engine) -> Result<std::fs::File, Status> {
        let mut archive = Archive::new(&engine.info().config.root)?;
        while let Some(piece) = self.next().await? {
            self.received += piece.data.len() as u64;
            archive = archive.take(piece.data).await?;
        }
        archive.whole().await
    }

    /// Bytes of all that has come so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// What follows when everything is whole.
    pub(super) fn rest(self) -> Incoming<own::BuildRequest> {
        self.stream
    }

    async fn difference(&mut self, engine: &Engine, name: &str, events: &Events) -> Result<Context, Status> {
        let mut files = Vec::new();
        while let Some(piece) = self.next().await? {
            if files.len() + piece.files.len() > FILES {
                return Err(status::bad_field("files", &format!("more than {FILES}")));
            }
            files.extend(piece.files.into_iter().map(file));
        }
        let compared = engine.compare_context(name.to_owned(), files).await.map_err(|e| status::of_engine(&e))?;
        let wanted = own::ContextWanted { files: compared.wanted().to_vec() };
        let event = own::BuildEvent { event: Some(Event::Wanted(wanted)) };
        events.send(Ok(event)).await.map_err(|_| Status::cancelled("canceled"))?;
        let archive = self.archive(engine).await?;
        engine.take_context(compared, archive).await.map_err(|e| status::of_engine(&e))
    }
}

/// The context and all that have a name.
///
/// # Errors
/// What is wrong with one; the connection's.
pub(super) async fn contexts(
    engine: &Engine,
    start: &own::BuildStart,
    parts: &mut Parts,
    (layouts, events): (Vec<File>, &Events),
) -> Result<(Context, BTreeMap<String, NamedContext>), Status> {
    if start.contexts.len() > NAMED {
        return Err(status::bad_field("contexts", &format!("more than {NAMED}")));
    }
    let context = match start.context.as_str() {
        "" => {
            let archive = parts.archive(engine).await?;
            engine.unpack_context(archive).await.map_err(|e| status::of_engine(&e))?
        }
        name => parts.difference(engine, name, events).await?,
    };
    let (mut named, mut layouts) = (BTreeMap::new(), layouts.into_iter());
    for own::NamedContext { name, image, context, layout } in &start.contexts {
        let files = match image.as_str() {
            _ if *layout => {
                let archive = layouts.next().ok_or_else(|| status::bad_field("contexts", "the archive of a layout is missing"))?;
                NamedContext::layout(archive)
            }
            "" => NamedContext::Files(parts.difference(engine, context, events).await?),
            image => NamedContext::Image(image.to_owned()),
        };
        named.insert(engine::build::context_name(name), files);
    }
    Ok((context, named))
}

fn file(file: own::ContextFile) -> ContextFile {
    let own::ContextFile { path, mode, size, mtime, link, stamp, xattrs } = file;
    let xattrs = xattrs.into_iter().map(|(name, value)| (name, value.into())).collect();
    ContextFile { path, mode, size, mtime, link: link.into(), stamp, xattrs }
}
