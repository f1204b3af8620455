//! `--name=value` between an instruction's keyword and its arguments.

use crate::{Problem, suggest::closest};

/// A flag as it stands; its value may have variables in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Without the dashes.
    pub name: String,
    /// `None`: only the name was given.
    pub value: Option<String>,
}

/// What an instruction's flags may be.
pub(crate) struct Allowed {
    pub(crate) instruction: &'static str,
    /// At most once each.
    pub(crate) once: &'static [&'static str],
    /// As often as one likes.
    pub(crate) many: &'static [&'static str],
}

/// Takes the flags off the beginning of a text; answers them and the rest.
pub(crate) fn take<'t>(text: &'t str, escape: char, allowed: &Allowed) -> Result<(Vec<Flag>, &'t str), Problem> {
    let mut rest = text.trim_start();
    let mut flags: Vec<Flag> = Vec::new();
    while let Some(after) = rest.strip_prefix("--") {
        let end = end_of_word(after, escape);
        let (word, tail) = after.split_at(end);
        rest = tail.trim_start();
        // A lone `--` ends the flags.
        if word.is_empty() {
            break;
        }
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        check(name, &flags, allowed)?;
        flags.push(Flag { name: name.to_owned(), value: value.map(|value| unquoted(value, escape)) });
    }
    Ok((flags, rest))
}

fn check(name: &str, flags: &[Flag], allowed: &Allowed) -> Result<(), Problem> {
    let instruction = allowed.instruction;
    let known = || allowed.once.iter().chain(allowed.many).copied();
    if !known().any(|known| known == name) {
        let near = closest(name, known()).map(|near| format!("--{near}"));
        return Err(Problem::UnknownFlag { instruction, flag: format!("--{name}"), near });
    }
    if allowed.once.contains(&name) && flags.iter().any(|flag| flag.name == name) {
        return Err(Problem::FlagTwice { instruction, flag: format!("--{name}") });
    }
    Ok(())
}

/// Where a word ends: at a blank outside of quotes.
fn end_of_word(text: &str, escape: char) -> usize {
    let mut quote: Option<char> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return at,
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == escape => drop(chars.next()),
            _ => {}
        }
    }
    text.len()
}

/// Without the quotes that held the value together; variables stay.
fn unquoted(value: &str, escape: char) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' | '\'' => {}
            c if c == escape => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

/// The value of a flag that must have one.
pub(crate) fn value(flag: &Flag, instruction: &'static str) -> Result<String, Problem> {
    let missing = || Problem::FlagValue { instruction, flag: format!("--{}", flag.name), why: "missing a value".to_owned() };
    flag.value.clone().filter(|value| !value.is_empty()).ok_or_else(missing)
}

/// The value of a flag that says yes or no; given alone it says yes.
pub(crate) fn truth(flag: &Flag, instruction: &'static str) -> Result<bool, Problem> {
    match flag.value.as_deref() {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => {
            let why = format!("expecting boolean value, not: {other}");
            Err(Problem::FlagValue { instruction, flag: format!("--{}", flag.name), why })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Allowed = Allowed { instruction: "COPY", once: &["chown", "link"], many: &["exclude"] };

    #[test]
    fn flags_come_off_the_front() {
        let (flags, rest) = take("--chown=a:b --link --exclude=\"x y\" --exclude=z  -- --src dst", '\\', &ALLOWED).unwrap();
        let shown: Vec<_> = flags.iter().map(|f| (f.name.as_str(), f.value.as_deref())).collect();
        assert_eq!(shown, [("chown", Some("a:b")), ("link", None), ("exclude", Some("x y")), ("exclude", Some("z"))]);
        assert_eq!(rest, "--src dst");
    }

    #[test]
    fn unknown_and_double_ones_are_refused() {
        let told = |text| take(text, '\\', &ALLOWED).unwrap_err().to_string();
        assert_eq!(told("--chwon=1 a b"), "COPY: unknown flag: --chwon (did you mean --chown?)");
        assert_eq!(told("--link --link a b"), "COPY: duplicate flag: --link");
    }
}
