//! Checks of a Dockerfile, by themselves or with a build. What a base image sets is known only of images that are here.

use std::collections::{BTreeMap, BTreeSet};

use dockerfile::{Dockerfile, Ignore, Instruction, Stages, lint};
use model::ErrorKind;

use super::{BuildFailure, Failed, excerpt, graph::Build, refuse, stages};
use crate::{Engine, Inner, blocking::blocking, error::Error, image::Platform};

/// Arguments that count for a build as such and need no ARG.
const OF_BUILDS: [&str; 1] = ["SOURCE_DATE_EPOCH"];
const OF_BUILDKIT: &str = "BUILDKIT_";

/// A Dockerfile to be checked.
#[derive(Clone, Debug)]
pub struct CheckRequest {
    /// It.
    pub dockerfile: Vec<u8>,
    /// What it is called.
    pub file: String,
    /// Values for ARGs.
    pub args: BTreeMap<String, String>,
    /// A stage, which is checked with those that it needs; empty: all of them.
    pub target: String,
    /// The `.dockerignore` of its context.
    pub ignore: Vec<u8>,
}

/// Something that may be meant otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildWarning {
    /// Its rule; `None`: it is not about how the Dockerfile is written.
    pub rule: Option<lint::Rule>,
    /// What is against it.
    pub detail: String,
    /// The lines of the Dockerfile around; may be empty.
    pub excerpt: String,
    /// Its first line, from 1; 0: none.
    pub line: usize,
}

impl Engine {
    /// Checks a Dockerfile. Answers what was found, and what it cannot be built for.
    pub async fn check(&self, request: CheckRequest) -> (Vec<BuildWarning>, Option<BuildFailure>) {
        let inner = self.inner().clone();
        blocking(move || inner.check(&request)).await
    }
}

impl Inner {
    fn check(&self, request: &CheckRequest) -> (Vec<BuildWarning>, Option<BuildFailure>) {
        let text = String::from_utf8_lossy(&request.dockerfile);
        let shown = |failed: Failed| failed.shown(&request.file, &text);
        let file = match dockerfile::parse(&request.dockerfile).map_err(Failed::of_file) {
            Ok(file) => file,
            Err(failed) => return (Vec::new(), Some(shown(failed))),
        };
        let automatic = stages::automatic(&request.target, &Platform::host());
        let (stages, wrong) = match Stages::find(&file, &request.args, &automatic, &request.target).map_err(Failed::of_file) {
            Ok(stages) => (Some(stages), None),
            Err(failed) => (None, Some(shown(failed))),
        };
        let which = stages.as_ref().map(|stages| match request.target.as_str() {
            "" => (0..stages.stages.len()).collect(),
            _ => stages.needed.clone(),
        });
        let found = stages.as_ref().zip(which.as_deref());
        let about = About { text: &text, file: &file, args: &request.args, automatic: &automatic, ignore: &request.ignore };
        match self.findings(&about, found) {
            Ok(report) => (about.shown(&request.file, &report), wrong),
            Err(failed) => (Vec::new(), Some(shown(failed))),
        }
    }

    fn findings(&self, about: &About<'_>, stages: Option<(&Stages<'_>, &[usize])>) -> Result<lint::Report, Failed> {
        let ignore = Ignore::parse(about.ignore);
        let ignore = ignore.map_err(|e| refuse(ErrorKind::InvalidArgument, format!(".dockerignore: {e}")))?;
        let environment = |image: &str| {
            let image = self.images.find(image).ok()?;
            let name = |set: &String| set.split('=').next().unwrap_or_default().to_owned();
            Some(image.defaults.env.iter().map(name).collect())
        };
        let known = lint::Known { args: about.args, automatic: about.automatic, ignore: &ignore, environment: &environment };
        lint::lint(about.text, about.file, stages, &known).map_err(Failed::of_file)
    }
}

/// What is checked.
struct About<'a> {
    text: &'a str,
    file: &'a Dockerfile,
    args: &'a BTreeMap<String, String>,
    automatic: &'a BTreeMap<String, String>,
    ignore: &'a [u8],
}

impl About<'_> {
    fn shown(&self, name: &str, report: &lint::Report) -> Vec<BuildWarning> {
        let one = |warning: &lint::Warning| BuildWarning {
            rule: Some(warning.rule),
            detail: warning.detail.clone(),
            excerpt: excerpt(name, self.text, (warning.first, warning.last)),
            line: warning.first,
        };
        report.warnings.iter().map(one).collect()
    }
}

impl Build<'_> {
    /// What is to be said of the Dockerfile.
    ///
    /// # Errors
    /// `FailedPrecondition`: with findings it is not to be built.
    pub(super) fn checked(&self) -> Result<Vec<BuildWarning>, Failed> {
        let request = &self.request;
        let about =
            About { text: self.text, file: self.file, args: &request.args, automatic: &self.automatic, ignore: &request.ignore };
        let report = self.inner.findings(&about, Some((&self.stages, &self.stages.needed)))?;
        if let Some(why) = report.refusal() {
            return Err(refuse(ErrorKind::FailedPrecondition, why).into());
        }
        let mut found = about.shown(&request.file, &report);
        let unused = unused(self.file, &request.args, &self.automatic);
        if !unused.is_empty() {
            let detail = format!("one or more build args were not consumed: [{}]", unused.join(" "));
            found.push(BuildWarning { rule: None, detail, excerpt: String::new(), line: 0 });
        }
        Ok(found)
    }
}

/// Arguments that were given and that no ARG asks for.
fn unused<'a>(file: &Dockerfile, args: &'a BTreeMap<String, String>, automatic: &BTreeMap<String, String>) -> Vec<&'a str> {
    let mut known: BTreeSet<&str> = stages::PREDEFINED.into_iter().chain(OF_BUILDS).collect();
    known.extend(automatic.keys().map(String::as_str));
    for located in &file.instructions {
        if let Instruction::Arg(declared) = &located.instruction {
            known.extend(declared.iter().map(|(name, _)| name.as_str()));
        }
    }
    let names = args.keys().map(String::as_str);
    names.filter(|name| !known.contains(name) && !name.starts_with(OF_BUILDKIT)).collect()
}

impl Failed {
    /// Something that is wrong with the Dockerfile itself.
    pub(super) fn of_file(error: dockerfile::Error) -> Self {
        let why = format!("dockerfile parse error on {error}");
        Self { lines: Some((error.line, error.line)), error: refuse(ErrorKind::InvalidArgument, why) }
    }

    /// With the lines of the Dockerfile around.
    pub(super) fn shown(self, name: &str, text: &str) -> BuildFailure {
        let excerpt = self.lines.map(|lines| excerpt(name, text, lines)).unwrap_or_default();
        BuildFailure { error: self.error, excerpt }
    }
}

/// An error about an image that a Dockerfile names, with the stage that may be meant.
pub(super) fn hinted(error: Error, name: &str, stages: &Stages<'_>) -> Error {
    match dockerfile::closest(name, stages.stages.iter().filter_map(|stage| stage.name)) {
        Some(near) => refuse(error.kind(), format!("{} (did you mean {near}?)", error.chain())),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_nobody_asks_for() {
        let file = dockerfile::parse(b"ARG A\nFROM x\nARG B=1\n").unwrap();
        let pairs = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), String::new())).collect::<BTreeMap<_, _>>();
        let given = pairs(&["A", "B", "C", "D", "HTTP_PROXY", "BUILDKIT_SYNTAX", "TARGETARCH", "SOURCE_DATE_EPOCH"]);
        assert_eq!(unused(&file, &given, &pairs(&["TARGETARCH"])), ["C", "D"]);
    }
}
