//! What RUN, CMD and ENTRYPOINT are given.

use crate::words;

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A text for the shell.
    Shell(String),
    /// Words, to be executed as they are.
    Exec(Vec<String>),
}

impl Command {
    /// A JSON array of strings is the exec form; everything else, a malformed array included, is for the shell.
    pub(crate) fn read(text: &str) -> Self {
        words::json(text).map_or_else(|| Self::Shell(text.trim().to_owned()), Self::Exec)
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Shell(text) => text.is_empty(),
            Self::Exec(words) => words.is_empty(),
        }
    }

    /// The argument vector: the shell form behind the shell that is in force.
    pub fn arguments(&self, shell: &[String]) -> Vec<String> {
        match self {
            Self::Exec(words) => words.clone(),
            Self::Shell(text) => shell.iter().cloned().chain(std::iter::once(text.clone())).collect(),
        }
    }
}
