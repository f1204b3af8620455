//! A stage from its FROM to its end, instruction by instruction, and the image of the last one.

use std::{collections::BTreeMap, sync::PoisonError};

use dockerfile::{Base, Copy, Flag, Instruction, Located};
use model::ErrorKind;
use registry::Platform;

use super::{
    Failed, NamedContext, StepEnd,
    checks::hinted,
    context_name,
    graph::{Build, canceled},
    refuse,
    state::{self, State},
};
use crate::{
    blocking::blocking,
    error::{About, Error},
    image::{Basis, Pull},
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

/// Where an instruction is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<'s> {
    pub(super) stage: usize,
    pub(super) located: &'s Located,
    /// Which of the stage's steps that do something it is, and how many there are.
    pub(super) of: (usize, usize),
}

/// The stable frontend under its own name, whatever its version.
pub(super) fn is_known_syntax(syntax: &str) -> bool {
    let name = syntax.strip_prefix("docker.io/").unwrap_or(syntax);
    name.split([':', '@']).next() == Some("docker/dockerfile") && !name.contains("labs")
}

/// Arguments that nobody gives, of a build for this platform.
pub(super) fn automatic(target: &str, platform: &Platform) -> BTreeMap<String, String> {
    let mut known = BTreeMap::new();
    for (which, platform) in [("BUILD", &Platform::host()), ("TARGET", platform)] {
        known.insert(format!("{which}PLATFORM"), platform.to_string());
        known.insert(format!("{which}OS"), platform.os.clone());
        known.insert(format!("{which}ARCH"), platform.architecture.clone());
        known.insert(format!("{which}VARIANT"), platform.variant.clone());
    }
    known.insert("TARGETSTAGE".to_owned(), if target.is_empty() { "default".to_owned() } else { target.to_owned() });
    known
}

/// Whether an instruction is a step of its own.
fn is_step(instruction: &Instruction) -> bool {
    matches!(instruction, Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) | Instruction::Workdir(_))
}

impl Build<'_> {
    pub(super) async fn stage(&self, number: usize) -> Result<State, Failed> {
        let stage = self.stages.stages[number].clone();
        let total = 1 + stage.steps.iter().filter(|located| is_step(&located.instruction)).count();
        let from = Spot { stage: number, located: stage.from, of: (1, total) };
        let mut state = self.begin(&stage, from).await.map_err(|e| at(stage.from, e))?.dated(self.epoch);
        state.fresh = self.is_fresh(number);
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

    async fn begin(&self, stage: &dockerfile::Stage<'_>, spot: Spot<'_>) -> Result<State, Error> {
        let (escape, platform) = (self.file.escape(), self.platform_of(spot.stage)?);
        match &stage.base {
            Base::Scratch => Ok(State::scratch(escape, &platform)),
            Base::Stage(before) => Ok(self.finished(*before).await?.of_stage(escape)),
            Base::Image(name) => {
                if let Some(NamedContext::Files(_)) = self.named(name) {
                    return self.of_files(name, &platform, spot).await;
                }
                let key = (name.clone(), platform.to_string());
                let base = self.bases.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
                base.get_or_try_init(|| self.of_image(name, &platform, spot)).await.cloned()
            }
        }
    }

    /// FROM an image, the first of its name.
    async fn of_image(&self, name: &str, platform: &Platform, spot: Spot<'_>) -> Result<State, Error> {
        let shown = if *platform == self.platform { String::new() } else { format!("--platform={platform} ") };
        let progress = self.begun(format!("{} FROM {shown}{name}", self.place(spot))).await?;
        let mut state = None;
        let pulled = async {
            let basis = self.basis(name, platform).await?;
            state = Some(State::of_image(basis, self.file.escape()));
            Ok(StepEnd::Made)
        };
        self.ended(progress, pulled).await?;
        state.ok_or_else(canceled)
    }

    /// What the client means by a name.
    pub(super) fn named(&self, name: &str) -> Option<&NamedContext> {
        self.request.contexts.get(&context_name(name))
    }

    /// FROM a directory of the client: its files on nothing.
    async fn of_files(&self, name: &str, platform: &Platform, spot: Spot<'_>) -> Result<State, Error> {
        let from = Flag { name: "from".to_owned(), value: Some(name.to_owned()) };
        let copy = Copy { sources: vec![".".to_owned()], destination: "/".to_owned(), flags: vec![from], heredocs: Vec::new() };
        let located =
            Located { instruction: Instruction::Copy(copy.clone()), text: format!("FROM {name}"), ..spot.located.clone() };
        let mut state = State::scratch(self.file.escape(), platform);
        self.copy(&mut state, &copy, Spot { located: &located, ..spot }).await?;
        Ok(state)
    }

    /// An image that is begun with or copied from.
    pub(super) async fn basis(&self, name: &str, platform: &Platform) -> Result<Basis, Error> {
        let name = match self.named(name) {
            Some(NamedContext::Layout(archive)) => {
                let (inner, archive, platform) = (self.inner.clone(), archive.clone(), platform.clone());
                let read = blocking(move || inner.images.basis_in(&archive, &platform)).await;
                return read.map_err(|e| Error::new(e.kind(), About::Image(name.to_owned()), e.chain()));
            }
            Some(NamedContext::Image(image)) => image,
            Some(NamedContext::Files(_)) | None => name,
        };
        let pull = if self.request.pull { Pull::Always } else { Pull::Missing };
        let basis = self.inner.images.basis(name, pull, &self.request.credentials, platform);
        self.unless_canceled(basis).await?.map_err(|e| hinted(e, name, &self.stages))
    }

    /// Whether a stage is to be built anew, by its name or number.
    fn is_fresh(&self, number: usize) -> bool {
        let is_it = |wanted: &String| match self.stages.stages[number].name {
            Some(name) if name.eq_ignore_ascii_case(wanted) => true,
            _ => wanted.parse() == Ok(number),
        };
        self.request.no_cache_filter.iter().any(is_it)
    }

    async fn instruction(&self, state: &mut State, spot: Spot<'_>) -> Result<(), Error> {
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
            // Large ones, behind a pointer: every level above would have room for them on its stack.
            Instruction::Run(run) => Box::pin(self.run(state, run, spot)).await?,
            Instruction::Copy(copy) | Instruction::Add(copy) => Box::pin(self.copy(state, copy, spot)).await?,
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
