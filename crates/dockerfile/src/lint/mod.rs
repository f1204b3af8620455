//! What may be meant otherwise in a Dockerfile, though it can be built: the checks of docker's stable frontend.

mod options;
mod platform;
mod rules;
mod stage;
mod whole;

use std::collections::BTreeMap;

use options::Options;
pub use rules::Rule;

use crate::{Dockerfile, Error, Ignore, Located, Stages};

/// Findings in one Dockerfile; more are not looked for.
const MOST: usize = 100;
/// Lines of comments that are looked at before an instruction.
const COMMENTS: usize = 50;

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule that it is against.
    pub rule: Rule,
    /// What is against it.
    pub detail: String,
    /// The first of its lines, from 1.
    pub first: usize,
    /// The last of its lines.
    pub last: usize,
}

/// What is known besides the Dockerfile.
#[derive(Clone, Copy)]
pub struct Known<'k> {
    /// Values for ARGs.
    pub args: &'k BTreeMap<String, String>,
    /// Values that FROM sees without an ARG.
    pub automatic: &'k BTreeMap<String, String>,
    /// What is not in the context.
    pub ignore: &'k Ignore,
    /// Names of the variables that an image sets; `None`: it is not known.
    pub environment: &'k dyn Fn(&str) -> Option<Vec<String>>,
}

impl std::fmt::Debug for Known<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").finish_non_exhaustive()
    }
}

/// What has been found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of the file.
    pub warnings: Vec<Warning>,
    /// `# check=error=true`: nothing is built then.
    pub error: bool,
}

impl Report {
    /// Why nothing is built.
    pub fn refusal(&self) -> Option<String> {
        let mut names: Vec<&str> = self.warnings.iter().map(|warning| warning.rule.name).collect();
        names.sort_unstable();
        names.dedup();
        (self.error && !names.is_empty()).then(|| format!("lint violation found for rules: {}", names.join(", ")))
    }
}

/// Checks a Dockerfile. Of `stages` only those in `which` are looked into; without stages, as when they cannot be found, only what
/// the text says by itself is checked.
///
/// # Errors
/// A `# check=` that says nothing that is understood.
pub fn lint(text: &str, file: &Dockerfile, stages: Option<(&Stages<'_>, &[usize])>, known: &Known<'_>) -> Result<Report, Error> {
    let options = Options::read(file.directives.check.as_deref().unwrap_or_default());
    let options = options.map_err(|problem| Error { line: 1, problem })?;
    let error = options.error;
    let mut lint = Lint { lines: text.lines().collect(), options, warnings: Vec::new() };
    whole::check(&mut lint, file);
    if let Some((stages, which)) = stages {
        stage::check(&mut lint, file, stages, which, known);
    }
    lint.warnings.sort_by_key(|warning| warning.first);
    Ok(Report { warnings: lint.warnings, error })
}

/// A check that is under way.
struct Lint<'t> {
    lines: Vec<&'t str>,
    options: Options,
    warnings: Vec<Warning>,
}

impl Lint<'_> {
    /// Notes a finding, unless its rule is left out, for all or for this instruction.
    fn warn(&mut self, rule: &Rule, at: &Located, detail: String) {
        self.warn_lines(rule, (at.first, at.last), detail);
    }

    fn warn_lines(&mut self, rule: &Rule, (first, last): (usize, usize), detail: String) {
        let own = |comment: &str| {
            let (name, value) = comment.split_once('=')?;
            let options = Options::read(value.split_whitespace().next().unwrap_or_default()).ok()?;
            (name.trim().eq_ignore_ascii_case("check") && !rule.experimental).then(|| options.wants(rule))
        };
        let left_out = !self.options.wants(rule) || self.comments(first).into_iter().filter_map(own).any(|wants| !wants);
        if !left_out && self.warnings.len() < MOST {
            self.warnings.push(Warning { rule: *rule, detail, first, last });
        }
    }

    /// The comments directly before a line, the last one first.
    fn comments(&self, line: usize) -> Vec<&str> {
        let before = self.lines.get(..line.saturating_sub(1)).unwrap_or_default();
        before.iter().rev().take(COMMENTS).map_while(|line| line.trim().strip_prefix('#')).map(str::trim).collect()
    }
}

/// An instruction's keyword as it is written, and what follows it.
fn parts(located: &Located) -> (&str, &str) {
    located.text.split_once(char::is_whitespace).unwrap_or((&located.text, ""))
}

#[cfg(test)]
mod tests;
