//! What stages do, one instruction after the other: which variables are set, which instructions are in vain.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use super::{Known, Lint, parts, platform::Globals, rules, whole};
use crate::{Base, Command, Copy, Dockerfile, Expander, Healthcheck, Heredoc, Instruction, Located, Stages, closest, from_of};

/// Names that a misspelt one is compared with.
const COMPARED: usize = 100;

/// What is known at the end of a stage.
#[derive(Clone, Debug, Default)]
struct Scope {
    /// The stage that it goes on from.
    base: Option<usize>,
    /// Variables that are set, or that may be.
    names: BTreeSet<String>,
    /// What the image sets is not known.
    open: bool,
    /// WORKDIR has been said.
    placed: bool,
    /// SHELL has been said.
    shell: bool,
}

pub(super) fn check(lint: &mut Lint<'_>, file: &Dockerfile, stages: &Stages<'_>, which: &[usize], known: &Known<'_>) {
    let globals = Globals::of(file, &stages.globals, known);
    let mut done: BTreeMap<usize, Scope> = BTreeMap::new();
    for number in which {
        let Some(stage) = stages.stages.get(*number) else { continue };
        globals.check(lint, stage.from);
        let mut scope = begin(&stage.base, &done, known);
        let mut once: BTreeMap<&str, &Located> = BTreeMap::new();
        for located in stage.steps {
            let mut walk = Walk { lint, scope: &mut scope, done: &done, known, escape: file.escape() };
            walk.instruction(located);
            if matches!(&located.instruction, Instruction::Cmd(_) | Instruction::Entrypoint(_) | Instruction::Healthcheck(_))
                && let Some(before) = once.insert(located.instruction.keyword(), located)
            {
                let keyword = parts(located).0;
                let detail = format!(
                    "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
                );
                // It is the earlier one that is in vain.
                lint.warn(&rules::MULTIPLE_INSTRUCTIONS_DISALLOWED, before, detail);
            }
        }
        done.insert(*number, scope);
    }
}

fn begin(base: &Base, done: &BTreeMap<usize, Scope>, known: &Known<'_>) -> Scope {
    let mut scope = Scope::default();
    scope.names.insert("PATH".to_owned());
    match base {
        Base::Scratch => {}
        Base::Image(name) => match (known.environment)(name) {
            Some(names) => scope.names.extend(names),
            None => scope.open = true,
        },
        Base::Stage(before) => {
            let found = done.get(before);
            scope.base = Some(*before);
            scope.open = found.is_none_or(|found| found.open);
            scope.placed = found.is_some_and(|found| found.placed);
            scope.shell = found.is_some_and(|found| found.shell);
        }
    }
    scope
}

/// One instruction and what it finds.
struct Walk<'w, 't> {
    lint: &'w mut Lint<'t>,
    scope: &'w mut Scope,
    done: &'w BTreeMap<usize, Scope>,
    known: &'w Known<'w>,
    escape: char,
}

impl Walk<'_, '_> {
    fn instruction(&mut self, located: &Located) {
        match &located.instruction {
            Instruction::Env(pairs) => {
                whole::legacy(self.lint, located, self.escape);
                pairs.iter().for_each(|(name, _)| whole::secret(self.lint, located, name));
                self.used(located, pairs.iter().flat_map(|(name, value)| [name, value]));
                self.scope.names.extend(pairs.iter().map(|(name, _)| name.clone()));
            }
            Instruction::Label(pairs) => {
                whole::legacy(self.lint, located, self.escape);
                self.used(located, pairs.iter().flat_map(|(name, value)| [name, value]));
            }
            Instruction::Arg(args) => {
                for (name, default) in args {
                    whole::secret(self.lint, located, name);
                    self.used(located, default.iter().filter(|_| !self.known.args.contains_key(name)));
                    self.scope.names.insert(name.clone());
                }
            }
            Instruction::Copy(copy) | Instruction::Add(copy) => self.copy(located, copy),
            Instruction::Run(run) => self.used(located, run.flags.iter().filter_map(|flag| flag.value.as_ref())),
            Instruction::Workdir(path) => {
                self.used(located, [path]);
                let relative = self.fixed(path).filter(|path| !path.starts_with('/'));
                if let Some(path) = relative.filter(|_| !self.scope.placed) {
                    let detail = format!("Relative workdir {path:?} can have unexpected results if the base image changes");
                    self.lint.warn(&rules::WORKDIR_RELATIVE_PATH, located, detail);
                }
                self.scope.placed = true;
            }
            Instruction::User(word) | Instruction::StopSignal(word) => self.used(located, [word]),
            Instruction::Volume(paths) => self.used(located, paths),
            Instruction::Expose(ports) => {
                let fixed: Vec<String> = ports.iter().filter_map(|port| self.fixed(port)).collect();
                fixed.iter().for_each(|port| whole::port(self.lint, located, port));
            }
            Instruction::Shell(_) => self.scope.shell = true,
            Instruction::Cmd(Command::Shell(_)) | Instruction::Entrypoint(Command::Shell(_)) if !self.scope.shell => {
                let keyword = parts(located).0;
                let detail =
                    format!("JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals");
                self.lint.warn(&rules::JSON_ARGS_RECOMMENDED, located, detail);
            }
            Instruction::Cmd(_) | Instruction::Entrypoint(_) => {}
            Instruction::Healthcheck(Healthcheck::None | Healthcheck::Command { .. }) => {}
            Instruction::From { .. } | Instruction::OnBuild(_) | Instruction::Maintainer(_) => {}
        }
    }

    fn copy(&mut self, located: &Located, copy: &Copy) {
        let flags = copy.flags.iter().filter(|flag| matches!(flag.name.as_str(), "chown" | "chmod" | "checksum"));
        self.used(located, flags.filter_map(|flag| flag.value.as_ref()));
        self.used(located, copy.sources.iter().filter(|source| !source.starts_with("<<")).chain([&copy.destination]));
        let documents = copy.heredocs.iter().filter(|heredoc| heredoc.expand);
        let documents: Vec<&Heredoc> = documents.collect();
        self.missing(located, |expander| documents.iter().for_each(|heredoc| drop(expander.document(&heredoc.content))));
        let ignore = self.known.ignore;
        if from_of(copy).is_some() || ignore.is_empty() || ignore.has_exceptions() {
            return;
        }
        for source in copy.sources.iter().filter(|source| !source.starts_with("<<") && !source.contains("://")) {
            let Some(source) = self.fixed(source) else { continue };
            let path: Vec<&str> = source.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
            let excluded = if path.is_empty() { ignore.excludes_everything() } else { ignore.excludes(&path.join("/")) };
            if excluded {
                let verb = if matches!(located.instruction, Instruction::Add(_)) { "Add" } else { "Copy" };
                let path = if path.is_empty() { "." } else { &path.join("/") };
                let detail = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
                self.lint.warn(&rules::COPY_IGNORED_FILE, located, detail);
            }
        }
    }

    /// Words whose variables must be set.
    fn used<'s>(&mut self, located: &Located, words: impl IntoIterator<Item = &'s String>) {
        let words: Vec<&String> = words.into_iter().collect();
        self.missing(located, |expander| words.iter().for_each(|word| drop(expander.word(word))));
    }

    /// Notes the variables that are asked for and not set.
    fn missing(&mut self, located: &Located, expand: impl FnOnce(&Expander<'_, dyn crate::Variables + '_>)) {
        if self.scope.open {
            return;
        }
        let missing = RefCell::new(BTreeSet::new());
        // What is set has some value: whether another word stands instead of it is nothing to be found out here.
        let get = |name: &str| {
            let set = self.is_set(name);
            set.then(|| "x".to_owned()).or_else(|| {
                missing.borrow_mut().insert(name.to_owned());
                None
            })
        };
        expand(&Expander::new(&get as &dyn crate::Variables, self.escape));
        for name in missing.take() {
            let near = closest(&name, self.names().take(COMPARED));
            let hint = near.map_or_else(String::new, |near| format!(" (did you mean ${near}?)"));
            self.lint.warn(&rules::UNDEFINED_VAR, located, format!("Usage of undefined variable '${name}'{hint}"));
        }
    }

    fn scopes(&self) -> impl Iterator<Item = &Scope> {
        std::iter::successors(Some(&*self.scope), |scope| self.done.get(&scope.base?))
    }

    fn is_set(&self, name: &str) -> bool {
        self.scopes().any(|scope| scope.names.contains(name))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.scopes().flat_map(|scope| scope.names.iter().map(String::as_str))
    }

    /// A word without its quotes; `None`: it has variables, and may be anything.
    fn fixed(&self, word: &str) -> Option<String> {
        let word = Some(word).filter(|word| !word.contains('$'))?;
        Expander::new(&|_: &str| None, self.escape).word(word).ok()
    }
}
