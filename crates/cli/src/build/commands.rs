//! `creel build` and `creel builder`: how builds are named on the command line. `creel build WORD` is a command if there is one of
//! that name; a directory that is called so is built as `./WORD`.

use clap::{Args, Subcommand};

use super::{Build, history, kept};
use crate::{
    client::Client,
    error::{Error, Exit},
    format::Format,
};

/// `creel build`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct BuildOr {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    build: Build,
}

/// What there is of builds beside building.
#[derive(Debug, Subcommand)]
pub(crate) enum Other {
    /// Remove what earlier builds have left
    Prune(kept::Prune),
    /// Show what was built, and what happened
    #[command(subcommand)]
    History(history::History),
}

/// `creel builder`
#[derive(Debug, Subcommand)]
pub(crate) enum Builder {
    /// Make an image out of a Dockerfile
    Build(Box<Build>),
    #[command(flatten)]
    Other(Other),
}

/// Does it.
pub(crate) async fn build_or(client: &mut Client, format: &Format, args: BuildOr) -> Result<Exit, Error> {
    match args {
        BuildOr { other: Some(other), .. } => do_other(client, format, other).await,
        BuildOr { build, .. } => super::build(client, build).await,
    }
}

/// Does it.
pub(crate) async fn builder(client: &mut Client, format: &Format, command: Builder) -> Result<Exit, Error> {
    match command {
        Builder::Build(build) => super::build(client, *build).await,
        Builder::Other(other) => do_other(client, format, other).await,
    }
}

async fn do_other(client: &mut Client, format: &Format, other: Other) -> Result<Exit, Error> {
    match other {
        Other::Prune(args) => kept::prune(client, &args).await,
        Other::History(command) => history::history(client, format, command).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Arguments, Command};

    fn parse(words: &[&str]) -> Result<BuildOr, clap::Error> {
        let words = ["creel", "build"].iter().chain(words);
        match Arguments::try_parse_from(words)?.command {
            Command::Build(build) => Ok(*build),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_path_or_a_command() {
        assert_eq!(parse(&["."]).unwrap().build.path, ".");
        assert_eq!(parse(&["-t", "x", "./prune"]).unwrap().build.path, "./prune");
        assert!(matches!(parse(&["history", "logs"]).unwrap(), BuildOr { other: Some(Other::History(_)), .. }));
        assert!(parse(&["history", "rm"]).is_err() && parse(&["history", "rm", "--all", "x"]).is_err());
        assert!(matches!(parse(&["prune", "-f"]).unwrap(), BuildOr { other: Some(Other::Prune(_)), .. }));
        assert!(parse(&[]).is_err() && parse(&["-t", "x"]).is_err() && parse(&["-t", "x", "prune", "-f"]).is_err());
    }
}
