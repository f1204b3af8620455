//! From logical lines to instructions.

use std::time::Duration;

use crate::{
    Command, Copy, Directives, Error, Flag, Healthcheck, Heredoc, Instruction, Problem, Run,
    flags::{self, Allowed},
    lines::{self, heredoc_name},
    mount,
    suggest::closest,
    words,
};

/// All keywords.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];
/// What `commit --change` and `import --change` may say.
const CHANGES: [&str; 11] =
    ["CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"];

/// A Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// What it says to its parser.
    pub directives: Directives,
    /// At least one.
    pub instructions: Vec<Located>,
    /// Physical lines (from 1) that are empty and inside of an instruction, which is deprecated.
    pub empty_continuations: Vec<usize>,
}

/// An instruction and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its first line, from 1.
    pub first: usize,
    /// Its last line.
    pub last: usize,
    /// Its text without continuations, comments and heredocs' contents.
    pub text: String,
    /// What it says.
    pub instruction: Instruction,
}

impl Dockerfile {
    /// The character that takes meanings away.
    pub fn escape(&self) -> char {
        self.directives.escape.unwrap_or('\\')
    }
}

/// Reads a Dockerfile.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub fn parse(bytes: &[u8]) -> Result<Dockerfile, Error> {
    let lines = lines::split(bytes)?;
    let escape = lines.directives.escape.unwrap_or('\\');
    let mut instructions = Vec::new();
    for line in lines.lines {
        let at = |problem| Error { line: line.first, problem };
        let instruction = instruction(&line.text, line.heredocs, escape).map_err(at)?;
        let stages = instructions.iter().any(|known: &Located| matches!(known.instruction, Instruction::From { .. }));
        if !stages && !matches!(instruction, Instruction::From { .. } | Instruction::Arg(_)) {
            return Err(at(Problem::Place("no build stage in current context: only ARG may stand before the first FROM")));
        }
        instructions.push(Located { first: line.first, last: line.last, text: line.text, instruction });
    }
    if instructions.is_empty() {
        return Err(Error { line: 1, problem: Problem::Empty });
    }
    Ok(Dockerfile { directives: lines.directives, instructions, empty_continuations: lines.empty_continuations })
}

/// Reads one of the instructions that change an image's config: what `commit --change` is given, or an ONBUILD trigger.
///
/// # Errors
/// What is wrong with it; also if it is an instruction that changes more than the config.
pub fn parse_change(text: &str) -> Result<Instruction, Problem> {
    let instruction = instruction(text.trim(), Vec::new(), '\\')?;
    if CHANGES.contains(&instruction.keyword()) {
        return Ok(instruction);
    }
    let why = format!("is not a valid change command: only {} are", CHANGES.join(", "));
    Err(Problem::Arguments { instruction: instruction.keyword(), why })
}

fn instruction(text: &str, heredocs: Vec<Heredoc>, escape: char) -> Result<Instruction, Problem> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let keyword = word.to_ascii_uppercase();
    let Some(keyword) = KEYWORDS.iter().copied().find(|known| *known == keyword) else {
        let word: String = word.chars().take(80).collect();
        return Err(Problem::Unknown { near: closest(&word, KEYWORDS), word });
    };
    let wrong = |why: &str| Problem::Arguments { instruction: keyword, why: why.to_owned() };
    let one = || if rest.is_empty() { Err(wrong("requires exactly one argument")) } else { Ok(rest.to_owned()) };
    match keyword {
        "FROM" => from(rest, escape),
        "RUN" => run(rest, heredocs, escape),
        "COPY" | "ADD" => copy(keyword, rest, heredocs, escape),
        "HEALTHCHECK" => healthcheck(rest, escape).map(Instruction::Healthcheck),
        "ONBUILD" => onbuild(rest, escape),
        "ARG" => arg(rest, escape),
        "ENV" => words::pairs(no_flags(rest, keyword, escape)?, escape, keyword).map(Instruction::Env),
        "LABEL" => words::pairs(no_flags(rest, keyword, escape)?, escape, keyword).map(Instruction::Label),
        "CMD" => Ok(Instruction::Cmd(Command::read(rest))),
        "ENTRYPOINT" => Ok(Instruction::Entrypoint(Command::read(rest))),
        "WORKDIR" => one().map(Instruction::Workdir),
        "USER" => one().map(Instruction::User),
        "STOPSIGNAL" => one().map(Instruction::StopSignal),
        "MAINTAINER" => one().map(Instruction::Maintainer),
        "EXPOSE" => several(words::split(rest, escape), keyword).map(Instruction::Expose),
        "VOLUME" => several(words::json(rest).unwrap_or_else(|| words::split(rest, escape)), keyword).map(Instruction::Volume),
        "SHELL" => match words::json(rest) {
            Some(words) if !words.is_empty() => Ok(Instruction::Shell(words)),
            _ => Err(wrong("requires the arguments to be in JSON form")),
        },
        _ => Err(Problem::Unknown { word: keyword.to_owned(), near: None }),
    }
}

/// The arguments of an instruction that has no flags.
fn no_flags<'t>(rest: &'t str, instruction: &'static str, escape: char) -> Result<&'t str, Problem> {
    flags::take(rest, escape, &Allowed { instruction, once: &[], many: &[] }).map(|(_, rest)| rest)
}

fn several(words: Vec<String>, instruction: &'static str) -> Result<Vec<String>, Problem> {
    if words.is_empty() || words.iter().any(String::is_empty) {
        return Err(Problem::Arguments { instruction, why: "requires at least one argument, and no empty one".to_owned() });
    }
    Ok(words)
}

fn from(rest: &str, escape: char) -> Result<Instruction, Problem> {
    let (flags, rest) = flags::take(rest, escape, &Allowed { instruction: "FROM", once: &["platform"], many: &[] })?;
    let platform = flags.first().map(|flag| flags::value(flag, "FROM")).transpose()?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let wrong = |why: String| Problem::Arguments { instruction: "FROM", why };
    let (image, name) = match words.as_slice() {
        [image] => (image, None),
        [image, word, name] if word.eq_ignore_ascii_case("as") => (image, Some(name.to_ascii_lowercase())),
        _ => return Err(wrong("requires either one argument, or three: FROM <source> [as <name>]".to_owned())),
    };
    if let Some(name) = &name {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.');
        let first = name.starts_with(|c: char| c.is_ascii_lowercase());
        if !first || !name.chars().all(legal) {
            return Err(wrong(format!(
                "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
            )));
        }
    }
    Ok(Instruction::From { platform, image: (*image).to_owned(), name })
}

fn arg(rest: &str, escape: char) -> Result<Instruction, Problem> {
    let wrong = |why: &str| Problem::Arguments { instruction: "ARG", why: why.to_owned() };
    let read = |word: String| match word.split_once('=') {
        Some(("", _)) => Err(wrong("names can not be blank")),
        Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
        None => Ok((word, None)),
    };
    let names = words::split(rest, escape).into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    if names.is_empty() { Err(wrong("requires at least one argument")) } else { Ok(Instruction::Arg(names)) }
}

fn run(rest: &str, heredocs: Vec<Heredoc>, escape: char) -> Result<Instruction, Problem> {
    let allowed = Allowed { instruction: "RUN", once: &["network", "security"], many: &["mount", "device"] };
    let (flags, rest) = flags::take(rest, escape, &allowed)?;
    for flag in &flags {
        let value = flags::value(flag, "RUN")?;
        if flag.name == "mount" {
            mount::check(&value)?;
        }
    }
    let command = Command::read(rest);
    if command.is_empty() {
        return Err(Problem::Arguments { instruction: "RUN", why: "requires at least one argument".to_owned() });
    }
    Ok(Instruction::Run(Run { command, flags, heredocs }))
}

fn copy(keyword: &'static str, rest: &str, heredocs: Vec<Heredoc>, escape: char) -> Result<Instruction, Problem> {
    let copying = keyword == "COPY";
    let once: &[&str] = if copying {
        &["from", "chown", "chmod", "link", "parents"]
    } else {
        &["chown", "chmod", "link", "checksum", "keep-git-dir", "unpack"]
    };
    let (flags, rest) = flags::take(rest, escape, &Allowed { instruction: keyword, once, many: &["exclude"] })?;
    for flag in &flags {
        match flag.name.as_str() {
            "link" | "parents" | "keep-git-dir" | "unpack" => drop(flags::truth(flag, keyword)?),
            _ => drop(flags::value(flag, keyword)?),
        }
    }
    let mut sources = words::json(rest).unwrap_or_else(|| words::split(rest, escape));
    let few = || Problem::Arguments { instruction: keyword, why: "requires at least two arguments".to_owned() };
    let destination = sources.pop().ok_or_else(few)?;
    if sources.is_empty() {
        return Err(few());
    }
    let mark = |source: String| heredoc_name(&source).map_or(source, |name| format!("<<{name}"));
    let sources = sources.into_iter().map(mark).collect();
    let copy = Copy { sources, destination, flags, heredocs };
    Ok(if copying { Instruction::Copy(copy) } else { Instruction::Add(copy) })
}

fn onbuild(rest: &str, escape: char) -> Result<Instruction, Problem> {
    let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    let wrong = |why: &str| Problem::Arguments { instruction: "ONBUILD", why: why.to_owned() };
    match trigger.as_str() {
        "" => return Err(wrong("requires at least one argument")),
        "ONBUILD" => return Err(wrong("isn't allowed as an ONBUILD trigger: chaining ONBUILD via `ONBUILD ONBUILD`")),
        "FROM" | "MAINTAINER" => return Err(wrong(&format!("{trigger} isn't allowed as an ONBUILD trigger"))),
        _ => {}
    }
    // Checked now, with the line of who wrote it; read again where it is triggered.
    instruction(rest, Vec::new(), escape)?;
    Ok(Instruction::OnBuild(rest.to_owned()))
}

fn healthcheck(rest: &str, escape: char) -> Result<Healthcheck, Problem> {
    const NAMES: &[&str] = &["interval", "timeout", "start-period", "start-interval", "retries"];
    let (flags, rest) = flags::take(rest, escape, &Allowed { instruction: "HEALTHCHECK", once: NAMES, many: &[] })?;
    let wrong = |why: &str| Problem::Arguments { instruction: "HEALTHCHECK", why: why.to_owned() };
    let (kind, text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match kind.to_ascii_uppercase().as_str() {
        "" => Err(wrong("requires at least one argument")),
        "NONE" if text.trim().is_empty() && flags.is_empty() => Ok(Healthcheck::None),
        "NONE" => Err(wrong("NONE takes no arguments")),
        "CMD" => {
            let command = Command::read(text);
            if command.is_empty() {
                return Err(wrong("missing command after HEALTHCHECK CMD"));
            }
            let time = |name: &str| flags.iter().find(|flag| flag.name == name).map(time).transpose();
            Ok(Healthcheck::Command {
                command,
                interval: time("interval")?,
                timeout: time("timeout")?,
                start_period: time("start-period")?,
                start_interval: time("start-interval")?,
                retries: flags.iter().find(|flag| flag.name == "retries").map(retries).transpose()?,
            })
        }
        other => Err(Problem::Arguments { instruction: "HEALTHCHECK", why: format!("unknown type {other:?} (try CMD)") }),
    }
}

fn flag_problem(flag: &Flag, why: impl Into<String>) -> Problem {
    Problem::FlagValue { instruction: "HEALTHCHECK", flag: format!("--{}", flag.name), why: why.into() }
}

fn retries(flag: &Flag) -> Result<u32, Problem> {
    let value = flags::value(flag, "HEALTHCHECK")?;
    value.parse().map_err(|_| flag_problem(flag, format!("{value:?} is not a number that is 0 or more")))
}

fn time(flag: &Flag) -> Result<Duration, Problem> {
    let value = flags::value(flag, "HEALTHCHECK")?;
    let time = duration(&value).ok_or_else(|| flag_problem(flag, format!("{value:?} is not a duration like 1m30s")))?;
    let short = !time.is_zero() && time < Duration::from_millis(1);
    if short { Err(flag_problem(flag, "must not be less than 1ms")) } else { Ok(time) }
}

/// A duration as Go writes it: `1h2m3.5s`, `300ms`. `None`: it is none.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        seconds += number
            * match &unit[..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &unit[end..];
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Instruction, String> {
        instruction(text, Vec::new(), '\\').map_err(|e| e.to_string())
    }

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn a_whole_file() {
        let text = "# syntax=docker/dockerfile:1\nARG V=1\nFROM --platform=$P a:$V AS Base\nRUN --mount=type=cache,target=/c x\n\nFROM base\nCOPY --from=base --link <<EOF b c/\nhi\nEOF\nCMD [\"x\"]\n";
        let file = parse(text.as_bytes()).unwrap();
        let shown: Vec<_> = file.instructions.iter().map(|i| (i.first, i.last, i.instruction.keyword())).collect();
        assert_eq!(shown, [(2, 2, "ARG"), (3, 3, "FROM"), (4, 4, "RUN"), (6, 6, "FROM"), (7, 9, "COPY"), (10, 10, "CMD")]);
        let Instruction::From { platform, image, name } = &file.instructions[1].instruction else { panic!() };
        assert_eq!((platform.as_deref(), image.as_str(), name.as_deref()), (Some("$P"), "a:$V", Some("base")));
        let Instruction::Copy(copy) = &file.instructions[4].instruction else { panic!() };
        assert_eq!(
            (copy.sources.clone(), copy.destination.as_str(), copy.heredocs[0].content.as_str()),
            (owned(&["<<EOF", "b"]), "c/", "hi\n")
        );
    }

    #[test]
    fn commands_have_two_forms() {
        assert_eq!(one("CMD [\"a\", \"b\"]"), Ok(Instruction::Cmd(Command::Exec(owned(&["a", "b"])))));
        assert_eq!(one("cmd ['a']"), Ok(Instruction::Cmd(Command::Shell("['a']".into()))));
        assert_eq!(one("ENTRYPOINT []"), Ok(Instruction::Entrypoint(Command::Exec(vec![]))));
        let shell = owned(&["/bin/sh", "-c"]);
        assert_eq!(Command::Shell("a b".into()).arguments(&shell), owned(&["/bin/sh", "-c", "a b"]));
    }

    #[test]
    fn the_small_ones() {
        assert_eq!(one("EXPOSE 80 443/udp"), Ok(Instruction::Expose(owned(&["80", "443/udp"]))));
        assert_eq!(one("VOLUME [\"/a b\"]"), Ok(Instruction::Volume(owned(&["/a b"]))));
        assert_eq!(one("WORKDIR a b"), Ok(Instruction::Workdir("a b".into())));
        assert_eq!(one("SHELL [\"x\"]"), Ok(Instruction::Shell(owned(&["x"]))));
        assert_eq!(one("ARG a b=1"), Ok(Instruction::Arg(vec![("a".into(), None), ("b".into(), Some("1".into()))])));
        assert_eq!(one("ONBUILD RUN x"), Ok(Instruction::OnBuild("RUN x".into())));
        assert_eq!(one("HEALTHCHECK NONE"), Ok(Instruction::Healthcheck(Healthcheck::None)));
        let Ok(Instruction::Healthcheck(Healthcheck::Command { interval, retries, command, .. })) =
            one("HEALTHCHECK --interval=1m30s --retries=3 CMD curl x")
        else {
            panic!()
        };
        assert_eq!((interval, retries), (Some(Duration::from_secs(90)), Some(3)));
        assert_eq!(command, Command::Shell("curl x".into()));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, problem) in [
            ("FORM a", "unknown instruction: FORM (did you mean FROM?)"),
            ("FROM", "FROM requires either one argument, or three: FROM <source> [as <name>]"),
            ("FROM a AS 1x", "FROM invalid name for build stage: \"1x\", name can't start with a number or contain symbols"),
            ("FROM --platfrom=x a", "FROM: unknown flag: --platfrom (did you mean --platform?)"),
            ("RUN", "RUN requires at least one argument"),
            ("RUN --mount a", "RUN: --mount: missing a value"),
            ("COPY a", "COPY requires at least two arguments"),
            ("COPY --checksum=x a b", "COPY: unknown flag: --checksum"),
            ("SHELL a", "SHELL requires the arguments to be in JSON form"),
            ("ONBUILD FROM a", "ONBUILD FROM isn't allowed as an ONBUILD trigger"),
            ("ONBUILD COPY a", "COPY requires at least two arguments"),
            ("HEALTHCHECK curl", "HEALTHCHECK unknown type \"CURL\" (try CMD)"),
            ("HEALTHCHECK --timeout=x CMD y", "HEALTHCHECK: --timeout: \"x\" is not a duration like 1m30s"),
            ("COPY --link=maybe a b", "COPY: --link: expecting boolean value, not: maybe"),
            ("USER", "USER requires exactly one argument"),
            ("ENV a", "ENV must have two arguments"),
        ] {
            assert_eq!(one(text).unwrap_err(), problem, "{text}");
        }
        assert_eq!(parse(b"RUN x").unwrap_err().line, 1);
        assert_eq!(parse(b"# nothing\n").unwrap_err().problem, Problem::Empty);
        assert_eq!(parse(b"FROM a\n\nRUM x").unwrap_err().to_string(), "line 3: unknown instruction: RUM (did you mean RUN?)");
    }

    #[test]
    fn changes_are_of_the_config_only() {
        assert!(parse_change("ENV a=b").is_ok());
        assert!(parse_change("cmd [\"x\"]").is_ok());
        for bad in ["RUN x", "FROM a", "COPY a b", "SHELL [\"a\"]", "nonsense", ""] {
            assert!(parse_change(bad).is_err(), "{bad}");
        }
    }
}
