//! `creel commit` and `creel export`: what a container has, as an image or as files.

use std::path::PathBuf;

use api::creel::{CommitRequest, ContainerRef};
use clap::{ArgAction, Args};

use crate::{
    archive::Target,
    client::Client,
    container::complete,
    error::{self, Error, Exit},
    output,
};

/// `creel commit`
#[derive(Args, Debug)]
pub(crate) struct Commit {
    /// Who made it
    #[arg(short, long, default_value = "")]
    author: String,
    /// Change the image as an instruction of a Dockerfile does
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// What is said of it
    #[arg(short, long, default_value = "")]
    message: String,
    /// Let the container stand still meanwhile
    #[arg(short, long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pause: bool,
    /// Let the container run on meanwhile
    #[arg(long)]
    no_pause: bool,
    /// Name or id
    #[arg(add = complete::containers())]
    container: String,
    /// Name of the image
    name: Option<String>,
}

/// `creel export`
#[derive(Args, Debug)]
pub(crate) struct Export {
    /// The archive; standard output if not given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name or id
    #[arg(add = complete::containers())]
    container: String,
}

/// Makes an image and prints its id.
pub(crate) async fn commit(client: &mut Client, args: Commit) -> Result<Exit, Error> {
    let Commit { author, change: changes, message: comment, pause, no_pause, container, name } = args;
    let no_pause = no_pause || !pause;
    let request = CommitRequest { container, name: name.unwrap_or_default(), author, comment, changes, no_pause };
    let made = client.containers.commit(request).await.map_err(error::daemon)?.into_inner();
    output::print(&format!("{}\n", made.id))?;
    Ok(Exit(0))
}

/// Writes all files of a container as one tar.
pub(crate) async fn export(client: &mut Client, args: Export) -> Result<Exit, Error> {
    let Export { output: out, container } = args;
    let target = Target::open("export", out.as_deref())?;
    let pieces = client.containers.export(ContainerRef { container }).await.map_err(error::daemon)?.into_inner();
    target.take(pieces, |piece| piece.data).await?;
    Ok(Exit(0))
}
