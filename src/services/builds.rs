//! creel's own API for builds.

use api::creel::{self as own, build_event, builds_server::Builds};
use engine::{
    Engine,
    build::{BuildEvent, BuildNetwork, BuildRequest, Kept, KeptKind, PruneBuilds, StepEnd},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming as Incoming};

use super::{
    archive::receive,
    image::trim_soon,
    images::{new_name, tell},
    status,
    stream::Streaming,
};

/// Events that may wait for a slow client.
const WAITING: usize = 64;
/// Names of one image.
const NAMES: usize = 100;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct BuildsService {
    engine: Engine,
}

impl BuildsService {
    /// Serves builds of this engine.
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    async fn received(&self, mut pieces: Incoming<own::BuildRequest>) -> Result<BuildRequest, Status> {
        let first = pieces.message().await?.ok_or_else(|| status::bad_field("start", "missing"))?;
        let start = first.start.ok_or_else(|| status::bad_field("start", "missing"))?;
        if start.tags.len() > NAMES {
            return Err(status::bad_field("tags", &format!("more than {NAMES}")));
        }
        let names = start.tags.iter().map(|tag| new_name("tags", tag)).collect::<Result<Vec<_>, _>>()?;
        let network = match start.network.as_str() {
            "" | "default" => BuildNetwork::Default,
            "none" => BuildNetwork::None,
            "host" => BuildNetwork::Host,
            _ => return Err(status::bad_field("network", "use default, none or host")),
        };
        let mut early = Some(first.data);
        let next = async move || match early.take() {
            Some(data) => Ok(Some(data)),
            None => Ok(pieces.message().await?.map(|piece| piece.data)),
        };
        let context = receive(next, &self.engine.info().config.root).await?;
        Ok(BuildRequest {
            dockerfile: Some(start.dockerfile).filter(|text| !text.is_empty()),
            file: start.file,
            context,
            names: names.into_iter().flatten().collect(),
            args: start.args.into_iter().collect(),
            target: start.target,
            no_cache: start.no_cache,
            pull: start.pull,
            labels: start.labels.into_iter().collect(),
            network,
        })
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Builds for BuildsService {
    type BuildStream = Streaming<own::BuildEvent>;

    async fn build(&self, request: Request<Incoming<own::BuildRequest>>) -> Answer<Self::BuildStream> {
        let request = self.received(request.into_inner()).await?;
        let (sender, events) = mpsc::channel(WAITING);
        let engine = self.engine.clone();
        tokio::spawn(async move { run(&engine, request, sender).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }

    async fn prune(&self, request: Request<own::PruneBuildsRequest>) -> Answer<own::PruneBuildsResponse> {
        let wanted = prune(request.into_inner())?;
        let (gone, reclaimed) = self.engine.prune_builds(wanted).await.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(own::PruneBuildsResponse { reclaimed, gone: gone.into_iter().map(thing).collect() }))
    }

    async fn kept(&self, _: Request<own::KeptRequest>) -> Answer<own::KeptResponse> {
        let things = self.engine.kept_of_builds().await.into_iter().map(thing).collect();
        Ok(Response::new(own::KeptResponse { things }))
    }
}

/// Builds, and says what happens. A client that goes away closes the channel, which ends the build.
async fn run(engine: &Engine, request: BuildRequest, sender: mpsc::Sender<Result<own::BuildEvent, Status>>) {
    let names = request.names.clone();
    let (events, mut happened) = mpsc::channel(WAITING);
    let passing = async {
        while let Some(event) = happened.recv().await {
            if sender.send(Ok(said(event))).await.is_err() {
                happened.close();
            }
        }
    };
    let building = async { tokio::join!(engine.build(request, events), passing).0 };
    // The listener's end of the channel goes with `passing`: the engine notices.
    let built = tokio::select! {
        built = building => built,
        () = sender.closed() => return,
    };
    let last = match built {
        Ok(id) => {
            trim_soon();
            for name in &names {
                tell(engine, "tag", id, name.familiar());
            }
            build_event::Event::Built(own::BuiltImage { id: id.to_string() })
        }
        Err(failure) => build_event::Event::Failed(own::BuildFailed { message: failure.error.chain(), excerpt: failure.excerpt }),
    };
    sender.send(Ok(own::BuildEvent { event: Some(last) })).await.ok();
}

fn said(event: BuildEvent) -> own::BuildEvent {
    let event = match event {
        BuildEvent::Begun { step, title } => build_event::Event::Begun(own::BuildStep { step, title }),
        BuildEvent::Output { step, data } => build_event::Event::Output(own::BuildOutput { step, data }),
        BuildEvent::Done { step, took, end } => {
            let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            let (cached, canceled) = (end == StepEnd::Cached, end == StepEnd::Canceled);
            let error = if let StepEnd::Failed(why) = end { why } else { String::new() };
            build_event::Event::Done(own::BuildDone { step, took, cached, canceled, error })
        }
    };
    own::BuildEvent { event: Some(event) }
}

fn prune(request: own::PruneBuildsRequest) -> Result<PruneBuilds, Status> {
    let mut wanted = PruneBuilds { all: request.all, keep: request.keep, ..PruneBuilds::default() };
    for own::Filter { key, value } in request.filters {
        let wrong = |why: &str| status::bad_field("filters", &format!("{key}={value}: {why}"));
        match key.as_str() {
            "id" => wanted.ids.push(value),
            "type" => {
                let known = [KeptKind::Step, KeptKind::Context, KeptKind::Mount].into_iter().find(|kind| kind.name() == value);
                wanted.kinds.push(known.ok_or_else(|| wrong("use regular, source.local or exec.cachemount"))?);
            }
            "until" => {
                wanted.until = Some(value.parse().map_err(|_| wrong("not nanoseconds since 1970"))?);
            }
            _ => return Err(wrong("the filters are id, type and until")),
        }
    }
    Ok(wanted)
}

fn thing(kept: Kept) -> own::KeptThing {
    let Kept { id, kind, what, size, created, used, uses, in_use, shared } = kept;
    let (r#type, description) = (kind.name().to_owned(), what);
    own::KeptThing { id, r#type, description, size, created_at: created, used_at: used, uses, in_use, shared }
}
