//! The Dockerfile language of docker's stable frontend and `.dockerignore`: text becomes instructions. Nothing is executed and
//! nothing is read but the text, which is hostile (R61): sizes are bounded, and what is not understood is an error that
//! names its line.
#![forbid(unsafe_code)]

mod command;
mod error;
mod expand;
mod flags;
mod glob;
mod ignore;
mod instruction;
mod lines;
pub mod lint;
pub mod mount;
mod parse;
mod stages;
mod suggest;
mod words;

pub use command::Command;
pub use error::{Error, Problem};
pub use expand::{Expander, Variables};
pub use flags::Flag;
pub use ignore::{Ignore, IgnoreError};
pub use instruction::{Copy, Healthcheck, Instruction, Pair, Run};
pub use lines::{Directives, Heredoc};
pub use parse::{Dockerfile, Located, duration, parse, parse_change};
pub use stages::{Base, Stage, Stages, from_of};
pub use suggest::closest;
