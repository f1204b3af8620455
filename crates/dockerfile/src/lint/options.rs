//! `# check=skip=…;experimental=…;error=true`: what is left out, what is asked for, and whether a finding ends a build.

use std::collections::BTreeSet;

use super::Rule;
use crate::Problem;

/// What `# check=` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    skip: Names,
    experimental: Names,
    pub(super) error: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    all: bool,
    some: BTreeSet<String>,
}

impl Names {
    fn read(text: &str) -> Self {
        let text = text.trim();
        let some = text.split(',').map(|name| name.trim().to_owned()).collect();
        if text == "all" { Self { all: true, some: BTreeSet::new() } } else { Self { all: false, some } }
    }

    fn has(&self, name: &str) -> bool {
        self.all || self.some.contains(name)
    }
}

impl Options {
    pub(super) fn read(text: &str) -> Result<Self, Problem> {
        let wrong = |part: &str| Problem::Directive { directive: "check", value: part.chars().take(80).collect() };
        let mut options = Self::default();
        for part in text.trim().split(';').filter(|_| !text.trim().is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| wrong(part))?;
            match (name.trim(), value.trim()) {
                ("skip", value) => options.skip = Names::read(value),
                ("experimental", value) => options.experimental = Names::read(value),
                ("error", "true" | "1" | "t" | "T" | "TRUE" | "True") => options.error = true,
                ("error", "false" | "0" | "f" | "F" | "FALSE" | "False") => options.error = false,
                _ => return Err(wrong(part)),
            }
        }
        Ok(options)
    }

    /// Whether a rule counts.
    pub(super) fn wants(&self, rule: &Rule) -> bool {
        if rule.experimental { self.experimental.has(rule.name) } else { !self.skip.has(rule.name) }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::rules, *};

    #[test]
    fn what_is_left_out() {
        let of = |text| Options::read(text).unwrap();
        let (plain, odd) = (&rules::UNDEFINED_VAR, &rules::INVALID_DEFINITION_DESCRIPTION);
        assert!(of("").wants(plain) && !of("").wants(odd) && !of("").error);
        assert!(!of("skip=JSONArgsRecommended, UndefinedVar").wants(plain));
        assert!(!of("skip=all;error=true").wants(plain) && of("skip=all;error=true").error);
        assert!(of("experimental=all").wants(odd) && of("experimental=InvalidDefinitionDescription").wants(odd));
        for bad in ["skip", "error=perhaps", "nothing=all", ";"] {
            assert!(Options::read(bad).is_err(), "{bad}");
        }
    }
}
