//! The stages of a Dockerfile: what each is made from, and which of them a target needs.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Copy, Dockerfile, Error, Expander, Instruction, Located, Problem, mount, suggest::closest};

/// Instructions of all stages together, those of their bases with each.
const HEAVIEST: usize = 100_000;

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An image, by its name.
    Image(String),
    /// What an earlier stage is in the end.
    Stage(usize),
}

/// A stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage<'d> {
    /// `AS`, lower-case.
    pub name: Option<&'d str>,
    /// Its FROM.
    pub from: &'d Located,
    /// `--platform`, expanded.
    pub platform: Option<String>,
    /// What it begins with.
    pub base: Base,
    /// Its instructions after FROM.
    pub steps: &'d [Located],
}

/// All stages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stages<'d> {
    /// Values of ARGs before the first FROM: a stage sees those that it declares.
    pub globals: BTreeMap<String, String>,
    /// In the order of the file.
    pub stages: Vec<Stage<'d>>,
    /// The one that is wanted.
    pub target: usize,
    /// Those that it needs and itself, in the order of the file.
    pub needed: Vec<usize>,
}

impl<'d> Stages<'d> {
    /// Finds them. `given`: values for ARGs, which win over their defaults; `automatic`: values that FROM sees without an ARG
    /// (`TARGETPLATFORM` and its like). `target`: a stage's name or number; empty: the last one.
    ///
    /// # Errors
    /// A FROM or ARG that cannot be expanded, a target that there is not, a COPY from the stage itself or a later
    /// one.
    pub fn find(
        file: &'d Dockerfile,
        given: &BTreeMap<String, String>,
        automatic: &BTreeMap<String, String>,
        target: &str,
    ) -> Result<Self, Error> {
        let mut known = automatic.clone();
        let mut globals = BTreeMap::new();
        let froms: Vec<usize> = (0..file.instructions.len())
            .filter(|at| matches!(file.instructions[*at].instruction, Instruction::From { .. }))
            .collect();
        for located in &file.instructions[..froms.first().copied().unwrap_or_default()] {
            let Instruction::Arg(args) = &located.instruction else { continue };
            for (name, default) in args {
                let value = match (given.get(name), default) {
                    (Some(value), _) => value.clone(),
                    (None, Some(default)) => expand(default, &known, file.escape(), located.first)?,
                    (None, None) => continue,
                };
                known.insert(name.clone(), value.clone());
                globals.insert(name.clone(), value);
            }
        }
        let mut stages: Vec<Stage<'d>> = Vec::new();
        for (number, at) in froms.iter().enumerate() {
            let end = froms.get(number + 1).copied().unwrap_or(file.instructions.len());
            let stage = Self::stage(file, (*at, end), &stages, &known)?;
            stages.push(stage);
        }
        let target = find_target(&stages, target)?;
        let needed = needed(&stages, target)?;
        check_weight(&stages, &needed)?;
        Ok(Self { globals, stages, target, needed })
    }

    /// The same with other contents for stages of these names, which then are images of these names, and need nothing.
    ///
    /// # Errors
    /// As [`Stages::find`].
    pub fn replaced(mut self, is_replaced: impl Fn(&str) -> bool) -> Result<Self, Error> {
        for stage in &mut self.stages {
            if let Some(name) = stage.name.filter(|name| is_replaced(name)) {
                (stage.base, stage.steps) = (Base::Image(name.to_owned()), &[]);
            }
        }
        self.needed = needed(&self.stages, self.target)?;
        Ok(self)
    }

    fn stage(
        file: &'d Dockerfile,
        (at, end): (usize, usize),
        before: &[Stage<'d>],
        known: &BTreeMap<String, String>,
    ) -> Result<Stage<'d>, Error> {
        let from = &file.instructions[at];
        let Instruction::From { platform, image, name } = &from.instruction else {
            return Err(wrong(from.first, "no FROM".to_owned()));
        };
        let expanded = |text: &String| expand(text, known, file.escape(), from.first);
        let platform = platform.as_ref().map(expanded).transpose()?;
        let image = expanded(image)?;
        if image.is_empty() {
            return Err(wrong(from.first, "base name should not be blank: a variable of it has no value".to_owned()));
        }
        let name = name.as_deref();
        let base = match by_name(before, &image) {
            Some(stage) => Base::Stage(stage),
            None if image == "scratch" => Base::Scratch,
            None => Base::Image(image),
        };
        Ok(Stage { name, from, platform, base, steps: &file.instructions[at + 1..end] })
    }

    /// The stage that `COPY --from` means in this stage; `None`: an image.
    pub fn from_flag(&self, stage: usize, from: &str) -> Option<usize> {
        from_flag(&self.stages, stage, from)
    }
}

/// The value of `--from`.
pub fn from_of(copy: &Copy) -> Option<&str> {
    copy.flags.iter().find(|flag| flag.name == "from").and_then(|flag| flag.value.as_deref())
}

fn from_flag(stages: &[Stage<'_>], stage: usize, from: &str) -> Option<usize> {
    by_name(&stages[..stage], from).or_else(|| from.parse().ok().filter(|number| *number < stage))
}

fn by_name(stages: &[Stage<'_>], name: &str) -> Option<usize> {
    let name = name.to_lowercase();
    // Of several with one name it is the last one.
    stages.iter().rposition(|stage| stage.name == Some(name.as_str()))
}

fn wrong(line: usize, why: String) -> Error {
    Error { line, problem: Problem::Stage(why) }
}

fn expand(text: &str, known: &BTreeMap<String, String>, escape: char, line: usize) -> Result<String, Error> {
    let get = |name: &str| known.get(name).cloned();
    Expander::new(&get, escape).word(text).map_err(|problem| Error { line, problem })
}

fn find_target(stages: &[Stage<'_>], target: &str) -> Result<usize, Error> {
    let last = stages.len().checked_sub(1).ok_or_else(|| wrong(1, "no build stage".to_owned()))?;
    if target.is_empty() {
        return Ok(last);
    }
    let number = || target.parse().ok().filter(|number| *number <= last);
    by_name(stages, target).or_else(number).ok_or_else(|| {
        let near = closest(target, stages.iter().filter_map(|stage| stage.name));
        let hint = near.map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
        wrong(stages[last].from.first, format!("target stage {target:?} could not be found{hint}"))
    })
}

/// A stage carries everything that is said in those that it goes on from: chains of them are not to grow beyond all bounds.
fn check_weight(stages: &[Stage<'_>], needed: &[usize]) -> Result<(), Error> {
    let (mut weights, mut sum) = (vec![0; stages.len()], 0);
    for at in needed {
        let stage = &stages[*at];
        let before = if let Base::Stage(base) = stage.base { weights[base] } else { 0 };
        weights[*at] = before + stage.steps.len() + 1;
        sum += weights[*at];
        if sum > HEAVIEST {
            let why = format!("the stages that are needed say more than {HEAVIEST} instructions, with those of their bases");
            return Err(wrong(stage.from.first, why));
        }
    }
    Ok(())
}

/// Stages are only ever made from earlier ones, so that there are no circles.
fn needed(stages: &[Stage<'_>], target: usize) -> Result<Vec<usize>, Error> {
    let mut found = BTreeSet::new();
    let mut todo = vec![target];
    while let Some(at) = todo.pop() {
        if !found.insert(at) {
            continue;
        }
        if let Base::Stage(base) = stages[at].base {
            todo.push(base);
        }
        for located in stages[at].steps {
            for (how, from) in names(&located.instruction) {
                match from_flag(stages, at, &from) {
                    Some(stage) => todo.push(stage),
                    None if by_name(&stages[at..], &from).is_some() || from.parse::<usize>().is_ok() => {
                        return Err(wrong(located.first, format!("{how}from={from}: only an earlier stage can be copied from")));
                    }
                    None => {}
                }
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The names of stages or images in an instruction, and what is before them.
fn names(instruction: &Instruction) -> Vec<(&'static str, String)> {
    match instruction {
        Instruction::Copy(copy) => from_of(copy).map(|from| ("COPY --", from.to_owned())).into_iter().collect(),
        Instruction::Run(run) => {
            let mounts = run.flags.iter().filter(|flag| flag.name == "mount").filter_map(|flag| flag.value.as_deref());
            mounts.filter_map(mount::from).map(|from| ("RUN --mount=", from)).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn args(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn told(text: &str, target: &str) -> Result<(usize, Vec<usize>), String> {
        let file = parse(text.as_bytes()).unwrap();
        let stages = Stages::find(&file, &args(&[]), &args(&[("TARGETARCH", "amd64")]), target).map_err(|e| e.to_string())?;
        Ok((stages.target, stages.needed))
    }

    const FILE: &str =
        "FROM busybox AS a\nRUN true\nFROM a AS b\nFROM alpine AS c\nCOPY --from=1 x y\nFROM scratch\nCOPY --from=A x y\n";

    #[test]
    fn only_what_the_target_needs() {
        assert_eq!(told(FILE, ""), Ok((3, vec![0, 3])));
        assert_eq!(told(FILE, "C"), Ok((2, vec![0, 1, 2])));
        assert_eq!(told(FILE, "0"), Ok((0, vec![0])));
        assert_eq!(told(FILE, "b"), Ok((1, vec![0, 1])));
        assert_eq!(told("FROM a AS x\nFROM b AS X\nFROM x\n", ""), Ok((2, vec![1, 2])), "the last one of a name");
    }

    #[test]
    fn what_is_replaced_needs_nothing() {
        let file = parse(FILE.as_bytes()).unwrap();
        let stages = Stages::find(&file, &args(&[]), &args(&[]), "c").unwrap().replaced(|name| name == "b").unwrap();
        assert_eq!(
            (stages.needed, &stages.stages[1].base, stages.stages[1].steps.len()),
            (vec![1, 2], &Base::Image("b".into()), 0)
        );
    }

    #[test]
    fn what_is_mounted_is_needed() {
        let file = "FROM a AS x\nFROM b\nFROM c\nRUN --mount=type=bind,from=x,target=/x --mount=type=ssh true\n";
        assert_eq!(told(file, ""), Ok((2, vec![0, 2])));
    }

    #[test]
    fn arguments_before_the_first_stage() {
        let file = parse(b"ARG V=1\nARG IMAGE=r/x:$V-$TARGETARCH\nARG NONE\nFROM ${IMAGE}\n").unwrap();
        let automatic = args(&[("TARGETARCH", "amd64")]);
        let found = Stages::find(&file, &args(&[("V", "2")]), &automatic, "").unwrap();
        assert_eq!(found.stages[0].base, Base::Image("r/x:2-amd64".into()));
        assert_eq!(found.globals, args(&[("V", "2"), ("IMAGE", "r/x:2-amd64")]));
    }

    #[test]
    fn chains_of_stages_have_an_end() {
        let chain = |steps: usize, stages: usize| {
            let last: String = (0..=stages).map(|stage| format!("COPY --from={stage} a b\n")).collect();
            format!(
                "FROM a\n{}{}FROM b\n{last}",
                "ENV a=b\n".repeat(steps),
                "FROM 0\nRUN x\n".repeat(stages).replace("FROM 0", "FROM s")
            )
        };
        let named = |text: String| text.replacen("FROM a\n", "FROM a AS s\n", 1);
        assert!(told(&named(chain(90, 900)), "").is_ok());
        assert!(told(&named(chain(3000, 2000)), "").unwrap_err().contains("more than 100000 instructions"));
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        for (text, target, part) in [
            (FILE, "builder", "target stage \"builder\" could not be found"),
            ("FROM a AS build\n", "biuld", "did you mean build?"),
            ("FROM $NOTHING\n", "", "line 1: base name should not be blank"),
            ("FROM a\nCOPY --from=later x y\nFROM b AS later\n", "0", "line 2: COPY --from=later: only an earlier stage"),
            ("FROM a AS me\nCOPY --from=me x y\n", "", "line 2: COPY --from=me"),
            ("FROM a\nCOPY --from=0 x y\n", "", "line 2: COPY --from=0"),
            ("FROM a\nRUN --mount=from=z,target=/x true\nFROM b AS z\n", "0", "line 2: RUN --mount=from=z: only an earlier"),
        ] {
            let error = told(text, target).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
