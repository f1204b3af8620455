//! FROM: its variables, its platform and its image.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use model::ImageRef;

use super::{Known, Lint, rules};
use crate::{Dockerfile, Expander, Instruction, Located, closest};

const SYSTEMS: [&str; 5] = ["linux", "windows", "darwin", "freebsd", "wasip1"];

/// A word with its variables' values, and the variables that it has.
struct Word {
    text: String,
    set: BTreeSet<String>,
    unset: BTreeSet<String>,
}

fn expand(text: &str, known: &BTreeMap<String, String>, escape: char) -> Option<Word> {
    let (set, unset) = (RefCell::new(BTreeSet::new()), RefCell::new(BTreeSet::new()));
    let get = |name: &str| {
        let value = known.get(name).cloned();
        if value.is_some() { &set } else { &unset }.borrow_mut().insert(name.to_owned());
        value
    };
    let text = Expander::new(&get, escape).word(text).ok()?;
    Some(Word { text, set: set.into_inner(), unset: unset.into_inner() })
}

/// What FROM sees, once with what was given and once with the defaults alone.
pub(super) struct Globals {
    given: BTreeMap<String, String>,
    defaults: BTreeMap<String, String>,
    declared: BTreeSet<String>,
    escape: char,
}

impl Globals {
    pub(super) fn of(file: &Dockerfile, globals: &BTreeMap<String, String>, known: &Known<'_>) -> Self {
        let escape = file.escape();
        let mut defaults = known.automatic.clone();
        let mut declared: BTreeSet<String> = known.automatic.keys().cloned().collect();
        let before = file.instructions.iter().map(|located| &located.instruction);
        for instruction in before.take_while(|instruction| !matches!(instruction, Instruction::From { .. })) {
            let Instruction::Arg(args) = instruction else { continue };
            for (name, default) in args {
                declared.insert(name.clone());
                if let Some(word) = default.as_deref().and_then(|default| expand(default, &defaults, escape)) {
                    defaults.insert(name.clone(), word.text);
                }
            }
        }
        let mut given = known.automatic.clone();
        given.extend(globals.clone());
        Self { given, defaults, declared, escape }
    }

    pub(super) fn check(&self, lint: &mut Lint<'_>, located: &Located) {
        let Instruction::From { platform, image, name } = &located.instruction else { return };
        let by_default = expand(image, &self.defaults, self.escape);
        if by_default.is_some_and(|word| word.text != "scratch" && word.text.parse::<ImageRef>().is_err()) {
            let detail = format!("Default value for ARG {image} results in empty or invalid base image name");
            lint.warn(&rules::INVALID_DEFAULT_ARG_IN_FROM, located, detail);
        }
        if let Some(word) = expand(image, &self.given, self.escape) {
            self.declared(lint, located, &word);
        }
        let Some(text) = platform else { return };
        let Some(word) = expand(text, &self.given, self.escape) else { return };
        self.declared(lint, located, &word);
        let target = self.given.get("TARGETPLATFORM");
        if word.unset.is_empty() && word.set.iter().eq(["TARGETPLATFORM"]) && Some(&word.text) == target {
            let detail = format!("Setting platform to predefined {text} in FROM is redundant as this is the default behavior");
            lint.warn(&rules::REDUNDANT_TARGET_PLATFORM, located, detail);
        }
        // A stage that is called after its platform is meant to be of it.
        let constant = word.unset.is_empty() && word.set.is_empty();
        if constant && !parts(&word.text).iter().any(|part| name.as_deref().unwrap_or_default().contains(part)) {
            let detail = format!("FROM --platform flag should not use constant value {:?}", word.text);
            lint.warn(&rules::FROM_PLATFORM_FLAG_CONST_DISALLOWED, located, detail);
        }
    }

    fn declared(&self, lint: &mut Lint<'_>, located: &Located, word: &Word) {
        for name in word.unset.difference(&self.declared) {
            let near = closest(name, self.declared.iter().map(String::as_str));
            let hint = near.map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
            lint.warn(&rules::UNDEFINED_ARG_IN_FROM, located, format!("FROM argument '{name}' is not declared{hint}"));
        }
    }
}

/// The system and the architecture that a platform names, under their usual names.
fn parts(platform: &str) -> Vec<&str> {
    let usual = |part| match part {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let words: Vec<&str> = platform.split('/').take(2).map(usual).collect();
    match words.as_slice() {
        [one] if !SYSTEMS.contains(one) => vec!["linux", one],
        _ => words,
    }
}
