//! A build is a graph of stages that run side by side. A stage is one task that owns its state; where it needs another one, as its
//! base or to copy from, it waits for it, so that everything before that goes on at the same time. What they share never changes.
//! The first failure, and a client that has gone, end everything else that is under way.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicU32},
};

use dockerfile::{Dockerfile, Stages};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use model::{ErrorKind, StepId};
use tokio::sync::{OnceCell, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    BuildEvent, BuildRequest, Failed, StepEnd,
    cache::Made,
    context_name,
    elsewhere::Source,
    key::Key,
    refuse,
    results::Built,
    stages::{self, is_known_syntax},
    state::{self, State},
    steps::Written,
};
use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error, Step as _},
    image::Platform,
};

/// Steps of one build that run at the same time, on a machine with fewer cores: they wait for networks too.
const FEWEST: usize = 4;
/// The end of the year 2261, which nanoseconds since 1970 can still say.
pub(super) const LATEST: i64 = 9_214_646_399;

/// By name and platform.
pub(super) type Bases = Arc<Mutex<HashMap<(String, String), Arc<OnceCell<State>>>>>;

/// A build: everything that its stages share.
pub(super) struct Build<'d> {
    pub(super) inner: Arc<Inner>,
    pub(super) request: Arc<BuildRequest>,
    /// What is built for.
    pub(super) platform: Platform,
    pub(super) text: &'d str,
    pub(super) file: &'d Dockerfile,
    pub(super) stages: Stages<'d>,
    pub(super) automatic: BTreeMap<String, String>,
    /// SOURCE_DATE_EPOCH: when everything is said to be made that is.
    pub(super) epoch: Option<i64>,
    pub(super) events: mpsc::Sender<BuildEvent>,
    /// Steps that have begun.
    pub(super) begun: Arc<AtomicU32>,
    /// How many more may.
    pub(super) room: Arc<Semaphore>,
    pub(super) cancelled: CancellationToken,
    /// Stages, once they are finished.
    finished: Vec<watch::Sender<Option<Arc<State>>>>,
    /// Steps that this build has made itself.
    own: Arc<Mutex<HashSet<StepId>>>,
    /// Images that stages begin with, once they are here: several that begin with the same say so once.
    pub(super) bases: Bases,
    /// Steps of other machines, once they are known.
    pub(super) elsewhere: OnceLock<Vec<Source>>,
}

/// Builds what a Dockerfile says.
pub(super) async fn build(
    inner: Arc<Inner>,
    request: BuildRequest,
    text: &[u8],
    events: mpsc::Sender<BuildEvent>,
) -> Result<Built, Failed> {
    let file = dockerfile::parse(text).map_err(Failed::of_file)?;
    if let Some(syntax) = file.directives.syntax.as_deref().filter(|syntax| !is_known_syntax(syntax)) {
        let why = format!("# syntax={syntax}: frontends of others are not run, only docker/dockerfile:1 is understood");
        return Err(refuse(ErrorKind::Unsupported, why).into());
    }
    let epoch = epoch(&request)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = String::from_utf8_lossy(text);
    let common = Common {
        inner,
        request: Arc::new(request),
        text: &text,
        file: &file,
        epoch,
        events,
        begun: Arc::default(),
        room: Arc::new(Semaphore::new(cores.max(FEWEST))),
        cancelled: CancellationToken::new(),
        own: Arc::default(),
        bases: Bases::default(),
    };
    let builds = common.builds()?;
    let deserted = async {
        common.events.closed().await;
        common.cancelled.cancel();
        // What is under way ends by itself, and everything with it.
        std::future::pending().await
    };
    tokio::select! {
        built = everything(&builds) => built,
        () = deserted => Err(canceled().into()),
    }
}

/// One platform after the other: what does not depend on it is there then. Then the results become what was asked for.
async fn everything(builds: &[Build<'_>]) -> Result<Built, Failed> {
    if let Some(build) = builds.first() {
        build.tell_received().await?;
    }
    let mut targets = Vec::with_capacity(builds.len());
    for build in builds {
        targets.push(build.target().await?);
    }
    let Some(first) = builds.first() else { return Err(canceled().into()) };
    let built = first.finish(&targets).await?;
    // What bases set is known now.
    for found in first.checked().unwrap_or_default() {
        first.tell(BuildEvent::Warning(found)).await.ok();
    }
    Ok(built)
}

/// What the builds of all platforms share.
struct Common<'d> {
    inner: Arc<Inner>,
    request: Arc<BuildRequest>,
    text: &'d str,
    file: &'d Dockerfile,
    epoch: Option<i64>,
    events: mpsc::Sender<BuildEvent>,
    begun: Arc<AtomicU32>,
    room: Arc<Semaphore>,
    cancelled: CancellationToken,
    own: Arc<Mutex<HashSet<StepId>>>,
    bases: Bases,
}

impl<'d> Common<'d> {
    /// One per platform, checked as far as that can be done before anything is done.
    fn builds(&self) -> Result<Vec<Build<'d>>, Failed> {
        let host = [Platform::host()];
        let platforms = if self.request.platforms.is_empty() { &host } else { self.request.platforms.as_slice() };
        super::platforms::check_outputs(&self.request)?;
        let builds = platforms.iter().map(|platform| self.build(platform)).collect::<Result<Vec<_>, Failed>>()?;
        for build in &builds {
            build.checked()?;
            build.check_platforms()?;
        }
        Ok(builds)
    }

    fn build(&self, platform: &Platform) -> Result<Build<'d>, Failed> {
        let request = &self.request;
        let automatic = stages::automatic(&request.target, platform);
        let is_replaced = |name: &str| request.contexts.contains_key(&context_name(name));
        let stages = Stages::find(self.file, &request.args, &automatic, &request.target);
        let stages = stages.and_then(|stages| stages.replaced(is_replaced)).map_err(Failed::of_file)?;
        Ok(Build {
            inner: self.inner.clone(),
            request: request.clone(),
            platform: platform.clone(),
            text: self.text,
            file: self.file,
            finished: stages.stages.iter().map(|_| watch::Sender::new(None)).collect(),
            stages,
            automatic,
            epoch: self.epoch,
            events: self.events.clone(),
            begun: self.begun.clone(),
            room: self.room.clone(),
            cancelled: self.cancelled.clone(),
            own: self.own.clone(),
            bases: self.bases.clone(),
            elsewhere: OnceLock::new(),
        })
    }
}

/// Seconds since 1970.
fn epoch(request: &BuildRequest) -> Result<Option<i64>, Error> {
    let Some(text) = request.args.get("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else { return Ok(None) };
    let seconds = text.parse().ok().filter(|seconds| (0..=LATEST).contains(seconds));
    let why = || format!("SOURCE_DATE_EPOCH={text}: not a number of seconds since 1970");
    seconds.map(Some).ok_or_else(|| refuse(ErrorKind::InvalidArgument, why()))
}

pub(super) fn canceled() -> Error {
    refuse(ErrorKind::Cancelled, "canceled")
}

impl Build<'_> {
    /// No file that a step writes is younger, in seconds since 1970: the same from the same is the same, whenever it is done.
    pub(super) fn latest(&self, state: &State) -> i64 {
        self.epoch.unwrap_or_else(|| state.newest())
    }

    /// What the stage is in the end that is wanted, and everything that it needs.
    async fn target(&self) -> Result<Arc<State>, Failed> {
        self.look_elsewhere().await;
        let mut running: FuturesUnordered<_> = self.stages.needed.iter().map(|number| self.to_its_end(*number)).collect();
        let mut first = None;
        // Nothing is dropped while it runs: what a step has begun it takes down.
        while let Some(ended) = running.next().await {
            if let Err(failed) = ended {
                self.cancelled.cancel();
                first.get_or_insert(failed);
            }
        }
        match first {
            Some(failed) => Err(failed),
            None => Ok(self.finished(self.stages.target).await?),
        }
    }

    async fn to_its_end(&self, number: usize) -> Result<(), Failed> {
        let state = self.stage(number).await?;
        self.finished[number].send_replace(Some(Arc::new(state)));
        Ok(())
    }

    /// What another stage is in the end. Not to be waited for between a step's beginning and its end, which others may need.
    ///
    /// # Errors
    /// `Cancelled`: it will not be finished.
    pub(super) async fn finished(&self, stage: usize) -> Result<Arc<State>, Error> {
        let mut finished = self.finished[stage].subscribe();
        let state = self.unless_canceled(finished.wait_for(Option::is_some)).await?;
        state.ok().and_then(|state| (*state).clone()).ok_or_else(canceled)
    }

    /// # Errors
    /// `Cancelled`: the build has ended first.
    pub(super) async fn unless_canceled<T>(&self, wait: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.cancelled.cancelled() => Err(canceled()),
            done = wait => Ok(done),
        }
    }

    /// Takes what was made of the same before, or lets `work` make it: alone, whoever else is to make the same. Who waited takes
    /// what has come of it, or makes it if nothing has.
    pub(super) async fn make(
        &self,
        state: &mut State,
        key: Key,
        text: &str,
        work: impl Future<Output = Result<Written, Error>>,
    ) -> Result<StepEnd, Error> {
        let id = self.epoch.iter().fold(key, |key, epoch| key.part(epoch.to_le_bytes())).id();
        let turn = self.inner.builds.turn(id);
        let _turn = self.unless_canceled(turn.lock()).await?;
        let usable = !(self.request.no_cache || state.fresh) || self.own().contains(&id);
        let found = match usable.then(|| self.inner.builds.find(id)) {
            Some(None) => self.made_elsewhere(id).await,
            found => found.flatten(),
        };
        if let Some((made, pins)) = found {
            state.done(text, &made, pins);
            state.note(id, &made);
            return Ok(StepEnd::Cached);
        }
        let Written { layer, newest } = work.await?;
        let mut made = Made::now(layer.as_ref().map(|(diff, size, _)| (*diff, *size))).by(text);
        made.created = state::rfc3339(newest);
        let (inner, kept) = (self.inner.clone(), made.clone());
        crate::failpoint::hit("build.step", About::Engine)?;
        let pins = blocking(move || inner.builds.put(id, kept)).await.step(About::Words, "remember the step")?;
        self.own().insert(id);
        state.done(text, &made, pins);
        state.note(id, &made);
        Ok(StepEnd::Made)
    }

    fn own(&self) -> std::sync::MutexGuard<'_, HashSet<StepId>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
