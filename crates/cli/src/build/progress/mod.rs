//! What a build does, as people want to see it; all of it goes to standard error.

mod plain;
mod raw;
mod steps;
mod tree;

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};

use api::creel::{BuildFailed, BuildWarning, build_event::Event};
use clap::ValueEnum;

use crate::error::{self, Error};

/// How a build shows what it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// As a tree on a terminal, else line by line
    #[default]
    Auto,
    /// Line by line
    Plain,
    /// A tree of what is under way, on a terminal
    Tty,
    /// Not at all
    Quiet,
    /// Objects, one in a line
    Rawjson,
}

/// What is shown of a build.
#[derive(Debug)]
pub(super) struct Shown {
    how: How,
    steps: steps::Steps,
    warnings: Vec<BuildWarning>,
    terminal: bool,
}

#[derive(Debug)]
enum How {
    Plain(plain::Plain),
    Tree(Box<tree::Tree>),
    Raw(raw::Raw),
    Quiet,
}

impl Shown {
    /// Nothing so far.
    ///
    /// # Errors
    /// A tree without a terminal.
    pub(super) fn new(mode: Mode) -> Result<Self, Error> {
        let terminal = io::stderr().is_terminal();
        let how = match mode {
            Mode::Tty if !terminal => {
                return Err(Error::Refused { name: "--progress tty".into(), why: "standard error is no terminal" });
            }
            Mode::Auto | Mode::Tty if terminal => How::Tree(Box::new(tree::Tree::new())),
            Mode::Auto | Mode::Tty | Mode::Plain => How::Plain(plain::Plain::new(terminal)),
            Mode::Quiet => How::Quiet,
            Mode::Rawjson => How::Raw(raw::Raw::default()),
        };
        Ok(Self { how, steps: steps::Steps::default(), warnings: Vec::new(), terminal })
    }

    /// Whether it is shown line by line, as by builders before there were trees.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.how, How::Plain(_))
    }

    /// Shows an event.
    ///
    /// # Errors
    /// Standard error's.
    pub(super) fn event(&mut self, event: &Event) -> Result<(), Error> {
        if let Event::Warning(found) = event {
            if matches!(self.how, How::Raw(_)) {
                return print(format!("{}\n", raw::warning(found)).as_bytes());
            }
            self.warnings.push(found.clone());
        }
        for news in self.steps.take(event) {
            match &mut self.how {
                How::Quiet => {}
                How::Plain(plain) => print(&plain.lines(news))?,
                How::Tree(tree) => tree.show(news).map_err(error::io("write to standard error"))?,
                How::Raw(raw) => raw.object(&news).map_or(Ok(()), |object| print(format!("{object}\n").as_bytes()))?,
            }
        }
        Ok(())
    }

    /// The image is there: what is left to be said.
    ///
    /// # Errors
    /// Standard error's.
    pub(super) fn built(&mut self) -> Result<(), Error> {
        self.finish();
        if self.warnings.is_empty() || matches!(self.how, How::Quiet | How::Raw(_)) {
            return Ok(());
        }
        print(summary(&self.warnings, self.terminal).as_bytes())
    }

    /// There is no image: why, and the last that the step has said.
    pub(super) fn failed(&mut self, failed: &BuildFailed) -> Error {
        self.finish();
        let mut text = String::new();
        if let Some(step) = self.steps.failed.as_ref().filter(|step| !step.last.is_empty()) {
            let rule = "-".repeat(6);
            let lines = step.last.iter().map(|line| (line, String::from_utf8_lossy(&line.text)));
            let lines: String = lines.map(|(line, text)| format!("{:.3} {text}\n", line.at.as_secs_f64())).collect();
            write!(text, "{rule}\n > {}:\n{lines}{rule}\n", step.title).ok();
        }
        write!(text, "{}ERROR: failed to build: failed to solve: {}", failed.excerpt, failed.message).ok();
        Error::Words(if self.terminal { harmless(&text) } else { text })
    }

    fn finish(&mut self) {
        if let How::Tree(tree) = &mut self.how {
            tree.finish();
        }
    }
}

fn print(text: &[u8]) -> Result<(), Error> {
    io::stderr().lock().write_all(text).map_err(error::io("write to standard error"))
}

/// Lines that do nothing to a terminal.
pub(super) fn harmless(text: &str) -> String {
    text.split('\n').map(|line| steps::harmless(line.as_bytes())).collect::<Vec<_>>().join("\n")
}

/// A finding in a line.
fn short(found: &BuildWarning) -> String {
    if found.rule.is_empty() { found.detail.clone() } else { format!("{}: {} (line {})", found.rule, found.detail, found.line) }
}

/// docker's words after a build.
fn summary(warnings: &[BuildWarning], terminal: bool) -> String {
    let count = if let [_] = warnings { "1 warning".to_owned() } else { format!("{} warnings", warnings.len()) };
    let head = format!("{count} found (use --check to expand):");
    let coloured = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let head = if coloured { format!("\x1b[33m{head}\x1b[0m") } else { head };
    let lines: String = warnings.iter().map(|found| format!(" - {}\n", steps::harmless(short(found).as_bytes()))).collect();
    format!("\n {head}\n{lines}")
}

/// What `--check` prints.
pub(super) fn checked(warnings: &[BuildWarning]) -> String {
    let mut text = match warnings.len() {
        0 => return "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    for found in warnings {
        write!(text, "\nWARNING: {} - {}\n{}\n{}", found.rule, found.url, found.detail, found.excerpt).ok();
    }
    if io::stdout().is_terminal() { harmless(&text) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_told_in_dockers_words() {
        let found = BuildWarning {
            rule: "UndefinedVar".into(),
            detail: "Usage of undefined variable '$x'".into(),
            line: 4,
            url: "https://u/".into(),
            excerpt: "Dockerfile:4\n---\n".into(),
            ..Default::default()
        };
        let args = BuildWarning { detail: "one or more build args were not consumed: [A]".into(), ..Default::default() };
        assert_eq!(
            summary(&[found.clone(), args], false),
            "\n 2 warnings found (use --check to expand):\n - UndefinedVar: Usage of undefined variable '$x' (line 4)\n - one or \
             more build args were not consumed: [A]\n"
        );
        assert!(summary(std::slice::from_ref(&found), false).starts_with("\n 1 warning found "));
        assert_eq!(
            checked(&[found]),
            "Check complete, 1 warning has been found!\n\nWARNING: UndefinedVar - https://u/\nUsage of undefined variable \
             '$x'\nDockerfile:4\n---\n"
        );
    }
}
