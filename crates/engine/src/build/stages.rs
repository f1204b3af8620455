//! The stages that a target needs, one after the other, and the image of the last one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use dockerfile::{Base, Dockerfile, Instruction, Located, Stages};
use model::{ErrorKind, ImageId};
use registry::Platform;
use tokio::sync::mpsc;

use super::{
    BuildEvent, BuildRequest, Failed, refuse,
    state::{self, State},
};
use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error, Step},
    image::{Packed, Pull},
};

/// ARGs that are there without a declaration, and count for nothing (docker's list).
pub(super) const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// A build.
pub(super) struct Build<'d> {
    pub(super) inner: Arc<Inner>,
    pub(super) request: BuildRequest,
    pub(super) file: &'d Dockerfile,
    pub(super) stages: Stages<'d>,
    pub(super) context: Arc<Packed>,
    automatic: BTreeMap<String, String>,
    events: mpsc::Sender<BuildEvent>,
    /// Stages that are finished.
    pub(super) states: HashMap<usize, State>,
    begun: u32,
}

/// A step that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) number: u32,
    since: Instant,
}

/// Where an instruction is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<'s> {
    pub(super) stage: usize,
    pub(super) located: &'s Located,
    /// Which of the stage's steps that do something it is, and how many there are.
    of: (usize, usize),
}

/// Builds what a Dockerfile says.
pub(super) async fn build(
    inner: Arc<Inner>,
    request: BuildRequest,
    text: &[u8],
    context: Arc<Packed>,
    events: mpsc::Sender<BuildEvent>,
) -> Result<ImageId, Failed> {
    let wrong = |e: dockerfile::Error| Failed {
        lines: Some((e.line, e.line)),
        error: refuse(ErrorKind::InvalidArgument, format!("dockerfile parse error on {e}")),
    };
    let file = dockerfile::parse(text).map_err(wrong)?;
    if let Some(syntax) = file.directives.syntax.as_deref().filter(|syntax| !is_known_syntax(syntax)) {
        let why = format!("# syntax={syntax}: frontends of others are not run, only docker/dockerfile:1 is understood");
        return Err(refuse(ErrorKind::Unsupported, why).into());
    }
    let automatic = automatic(&request.target);
    let stages = Stages::find(&file, &request.args, &automatic, &request.target).map_err(wrong)?;
    let states = HashMap::new();
    let mut build = Build { inner, request, file: &file, stages, context, automatic, events, states, begun: 0 };
    for stage in build.stages.needed.clone() {
        let state = build.stage(stage).await?;
        build.states.insert(stage, state);
    }
    build.finish().await.map_err(Failed::from)
}

/// The stable frontend under its own name, whatever its version.
fn is_known_syntax(syntax: &str) -> bool {
    let name = syntax.strip_prefix("docker.io/").unwrap_or(syntax);
    name.split([':', '@']).next() == Some("docker/dockerfile") && !name.contains("labs")
}

fn automatic(target: &str) -> BTreeMap<String, String> {
    let host = Platform::host();
    let mut known = BTreeMap::new();
    for which in ["BUILD", "TARGET"] {
        known.insert(format!("{which}PLATFORM"), host.to_string());
        known.insert(format!("{which}OS"), host.os.clone());
        known.insert(format!("{which}ARCH"), host.architecture.clone());
        known.insert(format!("{which}VARIANT"), host.variant.clone());
    }
    known.insert("TARGETSTAGE".to_owned(), if target.is_empty() { "default".to_owned() } else { target.to_owned() });
    known
}

/// Whether an instruction is a step of its own.
fn is_step(instruction: &Instruction) -> bool {
    matches!(instruction, Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) | Instruction::Workdir(_))
}

impl Build<'_> {
    async fn stage(&mut self, number: usize) -> Result<State, Failed> {
        let stage = self.stages.stages[number].clone();
        let total = 1 + stage.steps.iter().filter(|located| is_step(&located.instruction)).count();
        let from = Spot { stage: number, located: stage.from, of: (1, total) };
        let mut state = self.begin(&stage, from).await.map_err(|e| at(stage.from, e))?;
        for trigger in state.triggers() {
            let located = trigger_of(&trigger, stage.from).map_err(|e| at(stage.from, e))?;
            let spot = Spot { stage: number, located: &located, of: (1, total) };
            self.instruction(&mut state, spot).await.map_err(|e| at(stage.from, e))?;
        }
        let mut done = 1;
        for located in stage.steps {
            done += usize::from(is_step(&located.instruction));
            let spot = Spot { stage: number, located, of: (done, total) };
            self.instruction(&mut state, spot).await.map_err(|e| at(located, e))?;
        }
        Ok(state)
    }

    async fn begin(&mut self, stage: &dockerfile::Stage<'_>, spot: Spot<'_>) -> Result<State, Error> {
        let host = Platform::host().to_string();
        if let Some(platform) = stage.platform.as_ref().filter(|platform| **platform != host) {
            let why = format!("FROM --platform={platform}: only {host}, this machine's, can be built for");
            return Err(refuse(ErrorKind::Unsupported, why));
        }
        let escape = self.file.escape();
        match &stage.base {
            Base::Scratch => Ok(State::scratch(escape)),
            Base::Stage(before) => {
                let before = self.states.get(before).ok_or_else(|| refuse(ErrorKind::Internal, "a stage is missing"))?;
                Ok(before.of_stage(escape))
            }
            Base::Image(name) => {
                let progress = self.begun(format!("{} FROM {name}", self.place(spot))).await?;
                let basis = self.inner.images.basis(name, self.pull()).await?;
                self.done(progress, false).await?;
                Ok(State::of_image(basis, escape))
            }
        }
    }

    pub(super) fn pull(&self) -> Pull {
        if self.request.pull { Pull::Always } else { Pull::Missing }
    }

    async fn instruction(&mut self, state: &mut State, spot: Spot<'_>) -> Result<(), Error> {
        let Located { instruction, text, .. } = spot.located;
        match instruction {
            Instruction::Arg(args) => {
                for (name, default) in args {
                    if let Some(value) = self.argument(state, name, default.as_deref())? {
                        state.declare(name, value);
                    }
                }
                state.said(text);
            }
            Instruction::Maintainer(name) => {
                state.author(name);
                state.said(text);
            }
            Instruction::Run(run) => self.run(state, run, spot).await?,
            Instruction::Copy(copy) | Instruction::Add(copy) => self.copy(state, copy, spot).await?,
            Instruction::Workdir(_) => {
                state.changed.apply(instruction.clone()).map_err(|e| refuse(ErrorKind::InvalidArgument, e.to_string()))?;
                self.working_dir(state, spot).await?;
            }
            other if state::is_config(other) => {
                state.changed.apply(other.clone()).map_err(|e| refuse(ErrorKind::InvalidArgument, e.to_string()))?;
                state.said(text);
            }
            other => return Err(refuse(ErrorKind::InvalidArgument, format!("{} cannot stand here", other.keyword()))),
        }
        Ok(())
    }

    /// What an ARG stands for: what was given, its default, what one of the same name before the first FROM has, what is known of
    /// this machine.
    fn argument(&self, state: &State, name: &str, default: Option<&str>) -> Result<Option<String>, Error> {
        if let Some(given) = self.request.args.get(name) {
            return Ok(Some(given.clone()));
        }
        if let Some(default) = default {
            let value = state.changed.word(default).map_err(|e| refuse(ErrorKind::InvalidArgument, e.to_string()))?;
            return Ok(Some(value));
        }
        Ok(self.stages.globals.get(name).or_else(|| self.automatic.get(name)).cloned())
    }

    async fn finish(mut self) -> Result<ImageId, Error> {
        let progress = self.begun("exporting to image".to_owned()).await?;
        let target = self.states.get(&self.stages.target).ok_or_else(|| refuse(ErrorKind::Internal, "a stage is missing"))?;
        let (document, size) = target.finish(&self.request.labels);
        let (inner, layers, names) = (self.inner.clone(), target.layers.clone(), self.request.names.clone());
        let id = blocking(move || inner.images.keep_built(document, &layers, size, names)).await;
        let id = id.step(About::Words, "keep the image")?;
        let mut text = format!("writing image {id} done\n");
        for name in &self.request.names {
            text.push_str(&format!("naming to {name} done\n"));
        }
        self.tell(BuildEvent::Output { step: progress.number, data: text.into_bytes() }).await.ok();
        self.done(progress, false).await.ok();
        Ok(id)
    }
}

/// Progress.
impl Build<'_> {
    /// `[name 2/5]`, or `[2/5]` if there is only one stage.
    pub(super) fn place(&self, spot: Spot<'_>) -> String {
        let (at, total) = spot.of;
        let stage = &self.stages.stages[spot.stage];
        match stage.name {
            _ if self.stages.stages.len() == 1 => format!("[{at}/{total}]"),
            Some(name) => format!("[{name} {at}/{total}]"),
            None => format!("[stage-{} {at}/{total}]", spot.stage),
        }
    }

    pub(super) async fn begun(&mut self, title: String) -> Result<Progress, Error> {
        self.begun += 1;
        let progress = Progress { number: self.begun, since: Instant::now() };
        self.tell(BuildEvent::Begun { step: progress.number, title }).await?;
        Ok(progress)
    }

    pub(super) async fn done(&self, progress: Progress, cached: bool) -> Result<(), Error> {
        self.tell(BuildEvent::Done { step: progress.number, took: progress.since.elapsed(), cached }).await
    }

    /// A listener that has gone ends the build.
    pub(super) async fn tell(&self, event: BuildEvent) -> Result<(), Error> {
        self.events.send(event).await.map_err(|_| refuse(ErrorKind::Cancelled, "canceled"))
    }

    /// Where a step's output goes, and when all of it has gone there.
    pub(super) fn output(&self, step: u32) -> (mpsc::Sender<Vec<u8>>, tokio::task::JoinHandle<()>) {
        let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(16);
        let events = self.events.clone();
        let passing = tokio::spawn(async move {
            loop {
                let data = tokio::select! {
                    data = pieces.recv() => data,
                    () = events.closed() => None,
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

fn at(located: &Located, error: Error) -> Failed {
    Failed { error, lines: Some((located.first, located.last)) }
}

/// A trigger as the instruction that it is.
fn trigger_of(text: &str, from: &Located) -> Result<Located, Error> {
    let wrong = |why: String| refuse(ErrorKind::InvalidArgument, format!("ONBUILD {text}: {why}"));
    let file = dockerfile::parse(format!("FROM scratch\n{text}\n").as_bytes()).map_err(|e| wrong(e.problem.to_string()))?;
    match <[Located; 2]>::try_from(file.instructions) {
        Ok([_, trigger]) => Ok(Located { first: from.first, last: from.last, ..trigger }),
        Err(_) => Err(wrong("it is not one instruction".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stable_frontend() {
        for (syntax, known) in [
            ("docker/dockerfile:1", true),
            ("docker.io/docker/dockerfile:1.7@sha256:ab", true),
            ("docker/dockerfile:1-labs", false),
            ("tonistiigi/x", false),
        ] {
            assert_eq!(is_known_syntax(syntax), known, "{syntax}");
        }
    }

    #[test]
    fn a_trigger_is_one_instruction() {
        let file = dockerfile::parse(b"FROM a\n").unwrap();
        let from = &file.instructions[0];
        assert!(matches!(trigger_of("RUN true", from).unwrap().instruction, Instruction::Run(_)));
        assert!(trigger_of("RUN true\nRUN false", from).is_err());
        assert!(trigger_of("NONSENSE", from).unwrap_err().chain().starts_with("ONBUILD NONSENSE: unknown instruction"));
    }
}
