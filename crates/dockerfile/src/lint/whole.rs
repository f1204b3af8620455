//! What the text says by itself: how it is written.

use super::{Lint, parts, rules};
use crate::{Dockerfile, Instruction, Located, words};

/// Words that must not be in a name's value: what they are called says it all.
const SECRET: [&str; 10] = ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
/// Words that take it back.
const HARMLESS: [&str; 3] = ["public", "file", "version"];
/// Names of stages that are something else.
const RESERVED: [&str; 2] = ["context", "scratch"];

pub(super) fn check(lint: &mut Lint<'_>, file: &Dockerfile) {
    casing(lint, file);
    let mut names = std::collections::BTreeSet::new();
    for located in &file.instructions {
        let empty = file.empty_continuations.iter().find(|line| (located.first..=located.last).contains(line));
        if let Some(line) = empty {
            lint.warn_lines(&rules::NO_EMPTY_CONTINUATION, (*line, *line), "Empty continuation line".to_owned());
        }
        match &located.instruction {
            Instruction::From { name, .. } => {
                from(lint, located);
                let Some(name) = name else { continue };
                if RESERVED.contains(&name.as_str()) {
                    let detail = format!("Stage name should not use the same name as reserved stage {name:?}");
                    lint.warn(&rules::RESERVED_STAGE_NAME, located, detail);
                }
                if !names.insert(name) {
                    let detail = format!("Duplicate stage name {name:?}, stage names should be unique");
                    lint.warn(&rules::DUPLICATE_STAGE_NAME, located, detail);
                }
                described(lint, located, &[name]);
            }
            Instruction::Arg(args) => described(lint, located, &args.iter().map(|(name, _)| name).collect::<Vec<_>>()),
            Instruction::Maintainer(_) => {
                let detail = "Maintainer instruction is deprecated in favor of using label".to_owned();
                lint.warn(&rules::MAINTAINER_DEPRECATED, located, detail);
            }
            _ => {}
        }
    }
}

fn is_lower(text: &str) -> bool {
    text == text.to_lowercase()
}

fn is_upper(text: &str) -> bool {
    text == text.to_uppercase()
}

/// All keywords from the first FROM on are written as most are.
fn casing(lint: &mut Lint<'_>, file: &Dockerfile) {
    let first = file.instructions.iter().position(|located| matches!(located.instruction, Instruction::From { .. }));
    let stages = &file.instructions[first.unwrap_or_default()..];
    let count = |is: fn(&str) -> bool| stages.iter().filter(|located| is(parts(located).0)).count();
    let (fits, wanted): (fn(&str) -> bool, _) =
        if count(is_lower) > count(is_upper) { (is_lower, "lowercase") } else { (is_upper, "uppercase") };
    for located in stages {
        let keyword = parts(located).0;
        if !fits(keyword) {
            let detail = format!("Command '{keyword}' should match the case of the command majority ({wanted})");
            lint.warn(&rules::CONSISTENT_INSTRUCTION_CASING, located, detail);
        }
    }
}

fn from(lint: &mut Lint<'_>, located: &Located) {
    let (from, rest) = parts(located);
    let words: Vec<&str> = rest.split_whitespace().skip_while(|word| word.starts_with("--")).collect();
    let [_, word, name] = words.as_slice() else { return };
    if !is_lower(name) {
        lint.warn(&rules::STAGE_NAME_CASING, located, format!("Stage name '{name}' should be lowercase"));
    }
    // A FROM that is neither is the business of another rule.
    if (is_lower(from) && !is_lower(word)) || (is_upper(from) && !is_upper(word)) {
        lint.warn(&rules::FROM_AS_CASING, located, format!("'{word}' and '{from}' keywords' casing do not match"));
    }
}

/// A comment right before says what it is about.
fn described(lint: &mut Lint<'_>, located: &Located, names: &[&String]) {
    let Some(comment) = lint.comments(located.first).first().map(|comment| (*comment).to_owned()) else { return };
    let about = comment.split(' ').next().unwrap_or_default();
    let [first, rest @ ..] = names else { return };
    if comment.is_empty() || about.starts_with("check=") || names.iter().any(|name| *name == about) {
        return;
    }
    let name = if rest.is_empty() { first.as_str() } else { "<arg_key>" };
    let keyword = located.instruction.keyword();
    let detail = format!("Comment for {keyword} should follow the format: `# {name} <description>`");
    lint.warn(&rules::INVALID_DEFINITION_DESCRIPTION, located, detail);
}

/// `ENV NAME VALUE`, `LABEL NAME VALUE`.
pub(super) fn legacy(lint: &mut Lint<'_>, located: &Located, escape: char) {
    let (keyword, rest) = parts(located);
    if words::split(rest, escape).first().is_some_and(|first| !first.contains('=')) {
        let detail = format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format");
        lint.warn(&rules::LEGACY_KEY_VALUE_FORMAT, located, detail);
    }
}

/// A name that says that its value is secret.
pub(super) fn secret(lint: &mut Lint<'_>, located: &Located, name: &str) {
    let has = |words: &[&str]| name.split('_').any(|part| words.contains(&part.to_ascii_lowercase().as_str()));
    if has(&SECRET) && !has(&HARMLESS) {
        let keyword = located.instruction.keyword();
        let detail = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})");
        lint.warn(&rules::SECRETS_USED_IN_ARG_OR_ENV, located, detail);
    }
}

/// `EXPOSE 80/TCP`, `EXPOSE 127.0.0.1:80:80`.
pub(super) fn port(lint: &mut Lint<'_>, located: &Located, port: &str) {
    let (port_only, protocol) = port.rsplit_once('/').unwrap_or((port, ""));
    if !is_lower(protocol) {
        let detail = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
        lint.warn(&rules::EXPOSE_PROTO_CASING, located, detail);
    }
    if port_only.contains(':') {
        let detail = format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
        lint.warn(&rules::EXPOSE_INVALID_FORMAT, located, detail);
    }
}
