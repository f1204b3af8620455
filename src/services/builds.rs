//! creel's own API for builds.

use std::{collections::BTreeSet, time::Instant};

use api::creel::{self as own, build_event, builds_server::Builds};
use engine::{
    Engine,
    build::{
        AgentConnection, Agents, BuildEvent, BuildFailure, BuildNetwork, BuildRequest, BuildWarning, Built, CheckRequest, Kept,
        KeptKind, PruneBuilds, RunOptions, SecretValue, StepEnd,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming as Incoming};

use super::{
    agents::relay,
    containers::{extra_host, limits},
    contexts::{Events, Parts, contexts},
    history,
    image::trim_soon,
    images::{new_name, tell},
    outputs, status,
    stream::Streaming,
};

/// Events that may wait for a slow client.
const WAITING: usize = 64;
/// Names of one image.
const NAMES: usize = 100;
/// Bytes of a secret, as docker has it.
const SECRET: usize = 500 << 10;

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

    async fn received(&self, mut pieces: Incoming<own::BuildRequest>, events: &Events) -> Result<Received, Status> {
        let (archives, first) = outputs::archives(&mut pieces, &self.engine.info().config.root).await?;
        let (mut start, mut parts) = Parts::begin(first, pieces)?;
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
        let (wanted, known, platforms) = (outputs::wanted(&start)?, outputs::known(&start), outputs::platforms(&start)?);
        let (cache, layouts) = outputs::cache(&start, archives)?;
        let (run, connections) = run_options(start.run.take().unwrap_or_default())?;
        let since = Instant::now();
        let (context, contexts) = contexts(&self.engine, &start, &mut parts, (layouts, events)).await?;
        let request = BuildRequest {
            dockerfile: Some(start.dockerfile).filter(|text| !text.is_empty()),
            file: start.file,
            received: (parts.received(), since.elapsed()),
            place: start.context,
            context,
            contexts,
            names: names.into_iter().flatten().collect(),
            args: start.args.into_iter().collect(),
            target: start.target,
            no_cache: start.no_cache,
            pull: start.pull,
            labels: start.labels.into_iter().collect(),
            network,
            ignore: start.ignore,
            run,
            credentials: known,
            no_cache_filter: start.no_cache_filter,
            platforms,
            wanted,
            cache,
        };
        Ok((request, connections, parts))
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Builds for BuildsService {
    type BuildStream = Streaming<own::BuildEvent>;

    async fn build(&self, request: Request<Incoming<own::BuildRequest>>) -> Answer<Self::BuildStream> {
        let (sender, events) = mpsc::channel(WAITING);
        let (service, engine) = (self.clone(), self.engine.clone());
        tokio::spawn(async move {
            // What is there of the context is said while it is received.
            let received = tokio::select! {
                received = service.received(request.into_inner(), &sender) => received,
                () = sender.closed() => return,
            };
            let (request, connections, pieces) = match received {
                Ok((request, connections, parts)) => (request, connections, parts.rest()),
                Err(status) => return drop(sender.send(Err(status)).await),
            };
            let relaying = async {
                if let Some(connections) = connections {
                    relay(connections, pieces, sender.clone()).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = run(&engine, request, sender.clone()) => {}
                () = relaying => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }

    async fn check(&self, request: Request<own::CheckRequest>) -> Answer<own::CheckResponse> {
        let own::CheckRequest { dockerfile, file, args, target, ignore } = request.into_inner();
        let request = CheckRequest { dockerfile, file, args: args.into_iter().collect(), target, ignore };
        let (warnings, failure) = self.engine.check(request).await;
        let warnings = warnings.into_iter().map(warning).collect();
        Ok(Response::new(own::CheckResponse { warnings, failed: failure.map(failed) }))
    }

    async fn prune(&self, request: Request<own::PruneBuildsRequest>) -> Answer<own::PruneBuildsResponse> {
        let wanted = prune(request.into_inner())?;
        let (gone, reclaimed) = self.engine.prune_builds(wanted).await.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(own::PruneBuildsResponse { reclaimed, gone: gone.into_iter().map(thing).collect() }))
    }

    type ReplayPastStream = Streaming<own::BuildEvent>;

    async fn past(&self, request: Request<own::PastBuildsRequest>) -> Answer<own::PastBuildsResponse> {
        history::list(&self.engine, request.into_inner()).map(Response::new)
    }

    async fn inspect_past(&self, request: Request<own::PastBuildRef>) -> Answer<own::PastBuild> {
        history::inspect(&self.engine, &request.into_inner()).map(Response::new)
    }

    async fn replay_past(&self, request: Request<own::PastBuildRef>) -> Answer<Self::ReplayPastStream> {
        let events = history::replay(&self.engine, &request.into_inner()).await?;
        Ok(Response::new(Box::pin(tokio_stream::iter(events.into_iter().map(Ok)))))
    }

    async fn forget_past(&self, request: Request<own::ForgetPastRequest>) -> Answer<own::ForgetPastResponse> {
        history::forget(&self.engine, request.into_inner()).await.map(Response::new)
    }

    async fn kept(&self, _: Request<own::KeptRequest>) -> Answer<own::KeptResponse> {
        let things = self.engine.kept_of_builds().await.into_iter().map(thing).collect();
        Ok(Response::new(own::KeptResponse { things }))
    }
}

/// What is asked for, and what is left of the client's stream.
type Received = (BuildRequest, Option<Connections>, Parts);

/// Connections of programs to agents.
type Connections = mpsc::Receiver<AgentConnection>;

/// What RUN gets; connections if the client has agents.
fn run_options(asked: own::BuildRun) -> Result<(RunOptions, Option<Connections>), Status> {
    if asked.secrets.values().any(|value| value.len() > SECRET) {
        return Err(status::bad_field("run.secrets", "larger than 500 KiB"));
    }
    let (connections, receiver) = mpsc::channel(WAITING);
    let ids: BTreeSet<String> = asked.agents.into_iter().collect();
    let receiver = (!ids.is_empty()).then_some(receiver);
    let options = RunOptions {
        secrets: asked.secrets.into_iter().map(|(id, value)| (id, SecretValue::new(value))).collect(),
        agents: receiver.is_some().then_some(Agents { ids, connections }),
        hosts: asked.extra_hosts.iter().map(|entry| extra_host(entry)).collect::<Result<_, _>>()?,
        shm_size: Some(asked.shm_size).filter(|size| *size > 0),
        rlimits: limits::ulimits(&asked.ulimits)?,
        resources: limits::resources(asked.limits.as_ref())?,
    };
    Ok((options, receiver))
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
        Ok(built) => {
            trim_soon();
            if let (Some(id), true) = (built.image, built.kept) {
                names.iter().for_each(|name| tell(engine, "tag", id, name.familiar()));
            }
            build_event::Event::Built(image(&built))
        }
        Err(failure) => build_event::Event::Failed(failed(failure)),
    };
    sender.send(Ok(own::BuildEvent { event: Some(last) })).await.ok();
}

fn image(built: &Built) -> own::BuiltImage {
    let mut image = own::BuiltImage { id: built.image.map(|id| id.to_string()).unwrap_or_default(), ..Default::default() };
    if let Some(manifest) = &built.manifest {
        (image.digest, image.size) = (manifest.digest.to_string(), manifest.size);
        image.media_type = manifest.media_type.to_string();
    }
    image
}

/// As clients are told.
pub(super) fn said(event: BuildEvent) -> own::BuildEvent {
    let event = match event {
        BuildEvent::Begun { step, title } => build_event::Event::Begun(own::BuildStep { step, title }),
        BuildEvent::Output { step, data } => build_event::Event::Output(own::BuildOutput { step, data, at: 0 }),
        BuildEvent::Exported { output, data } => build_event::Event::Exported(own::BuildExported { output, data }),
        BuildEvent::Done { step, took, end } => {
            let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            let (cached, canceled) = (end == StepEnd::Cached, end == StepEnd::Canceled);
            let error = if let StepEnd::Failed(why) = end { why } else { String::new() };
            build_event::Event::Done(own::BuildDone { step, took, cached, canceled, error })
        }
        BuildEvent::Warning(found) => build_event::Event::Warning(warning(found)),
    };
    own::BuildEvent { event: Some(event) }
}

fn failed(failure: BuildFailure) -> own::BuildFailed {
    own::BuildFailed { message: failure.error.chain(), excerpt: failure.excerpt }
}

fn warning(found: BuildWarning) -> own::BuildWarning {
    let text = |text: Option<&'static str>| text.unwrap_or_default().to_owned();
    own::BuildWarning {
        rule: text(found.rule.map(|rule| rule.name)),
        description: text(found.rule.map(|rule| rule.description)),
        url: text(found.rule.map(|rule| rule.url)),
        detail: found.detail,
        excerpt: found.excerpt,
        line: u32::try_from(found.line).unwrap_or_default(),
    }
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
            "description" => wanted.what.push(value),
            "inuse" => wanted.in_use = Some(value.parse().map_err(|_| wrong("use true or false"))?),
            "shared" => wanted.shared = Some(value.parse().map_err(|_| wrong("use true or false"))?),
            "private" => wanted.shared = Some(!value.parse::<bool>().map_err(|_| wrong("use true or false"))?),
            _ => return Err(wrong("the filters are id, type, until, description, inuse, shared and private")),
        }
    }
    Ok(wanted)
}

fn thing(kept: Kept) -> own::KeptThing {
    let Kept { id, kind, what, size, created, used, uses, in_use, shared } = kept;
    let (r#type, description) = (kind.name().to_owned(), what);
    own::KeptThing { id, r#type, description, size, created_at: created, used_at: used, uses, in_use, shared }
}
