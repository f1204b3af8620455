//! What is wrong with a Dockerfile, and where.

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Larger than a Dockerfile can be.
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    /// More instructions than a Dockerfile can have.
    #[error("more than {0} instructions")]
    TooMany(usize),
    /// Bytes that are not text.
    #[error("not UTF-8")]
    Encoding,
    /// Nothing in it.
    #[error("file with no instructions")]
    Empty,
    /// A parser directive with a value that it cannot have.
    #[error("invalid {directive} directive {value:?}")]
    Directive {
        /// Its name.
        directive: &'static str,
        /// What it was given.
        value: String,
    },
    /// The same parser directive twice.
    #[error("only one {0} parser directive can be used")]
    DirectiveTwice(&'static str),
    /// A word that is no instruction.
    #[error("unknown instruction: {word}{}", hint(near.as_deref()))]
    Unknown {
        /// The word.
        word: String,
        /// What may have been meant.
        near: Option<&'static str>,
    },
    /// A flag that the instruction does not have.
    #[error("{instruction}: unknown flag: {flag}{}", hint(near.as_deref()))]
    UnknownFlag {
        /// The instruction.
        instruction: &'static str,
        /// The flag.
        flag: String,
        /// What may have been meant.
        near: Option<String>,
    },
    /// A flag twice.
    #[error("{instruction}: duplicate flag: {flag}")]
    FlagTwice {
        /// The instruction.
        instruction: &'static str,
        /// The flag.
        flag: String,
    },
    /// A flag's value.
    #[error("{instruction}: {flag}: {why}")]
    FlagValue {
        /// The instruction.
        instruction: &'static str,
        /// The flag.
        flag: String,
        /// What is wrong with it.
        why: String,
    },
    /// Too few, too many, or wrong arguments.
    #[error("{instruction} {why}")]
    Arguments {
        /// The instruction.
        instruction: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A heredoc without its end.
    #[error("unterminated heredoc {0:?}")]
    Heredoc(String),
    /// A quote without its end.
    #[error("unexpected end of statement while looking for matching {0}")]
    Quote(char),
    /// A `${…}` that is none.
    #[error("bad substitution: {0}")]
    Substitution(String),
    /// `${NAME:?MESSAGE}`.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What its writer says.
        message: String,
    },
    /// An instruction that cannot be where it is.
    #[error("{0}")]
    Place(&'static str),
    /// A stage that cannot be.
    #[error("{0}")]
    Stage(String),
}

fn hint(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!(" (did you mean {near}?)"))
}

/// A problem and where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Error {
    /// The first line of the instruction, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: Problem,
}
