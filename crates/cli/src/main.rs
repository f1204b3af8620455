//! creel: the command line. A gRPC client of creeld and nothing else; it never opens the store.
#![forbid(unsafe_code)]

mod archive;
mod args;
mod attach;
mod auth;
mod build;
mod client;
mod commit;
mod container;
mod each;
mod error;
mod examples;
mod exec;
mod find;
mod follow;
mod format;
mod forward;
mod images;
mod info;
mod inspect;
mod login;
mod manual;
mod name;
mod network;
mod output;
mod progress;
mod pull;
mod push;
mod rmi;
mod session;
mod system;
mod template;
mod terminal;
mod time;
mod volume;

use std::{io::Write, process::ExitCode};

use clap::{CommandFactory, Parser};
use clap_complete::CompleteEnv;

use crate::{
    args::{Arguments, Command, Image},
    client::Client,
    error::{Error, Exit},
    format::Format,
};

fn main() -> ExitCode {
    // A shell that wants to know what could come next gets an answer and nothing else happens.
    CompleteEnv::with_factory(Arguments::command).complete();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { error::ENGINE } else { 0 });
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(command(arguments));
            // A reader of standard input may still wait for a key: it is not waited for.
            runtime.shutdown_background();
            result
        }
        Err(e) => Err(Error::Io { what: "start".into(), source: e }),
    };
    match result {
        Ok(Exit(code)) => ExitCode::from(code),
        // Whoever read our output has seen enough.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        // docker's words stand alone: scripts compare lines.
        Err(error @ (Error::Daemon(_) | Error::Words(_))) => {
            writeln!(std::io::stderr(), "{error}").ok();
            ExitCode::from(error.exit_code())
        }
        Err(error) => {
            writeln!(std::io::stderr(), "creel: {}", error.chain()).ok();
            ExitCode::from(error.exit_code())
        }
    }
}

async fn command(arguments: Arguments) -> Result<Exit, Error> {
    let Arguments { socket, format, command } = arguments;
    match &command {
        Command::Completions { shell } => return manual::completions(*shell),
        Command::Man { directory } => return manual::pages(directory),
        Command::Logout(args) => return login::logout(args),
        _ => {}
    }
    let mut client = Client::connect(&socket).await?;
    match command {
        Command::Info => info::info(&mut client, &format).await,
        Command::Version => info::version(&mut client, &format).await,
        Command::Pull(args) => pull::pull(&mut client, &format, &args).await,
        Command::Push(args) => push::push(&mut client, &format, &args).await,
        Command::Images(args) => images::list(&mut client, &format, &args).await,
        Command::Rmi(args) => rmi::remove(&mut client, &args).await,
        Command::Tag { source, target } => rmi::tag(&mut client, source, target).await,
        Command::History(args) => inspect::history(&mut client, &format, &args).await,
        Command::Save(args) => archive::save(&mut client, args).await,
        Command::Load(args) => archive::load(&mut client, args).await,
        Command::Import(args) => archive::import(&mut client, args).await,
        Command::Search(args) => inspect::search(&mut client, &format, &args).await,
        Command::Login(args) => login::login(&mut client, args).await,
        Command::Build(args) => build::build_or(&mut client, &format, *args).await,
        Command::Builder(command) => build::builder(&mut client, &format, command).await,
        Command::Commit(args) => commit::commit(&mut client, args).await,
        Command::Export(args) => commit::export(&mut client, args).await,
        Command::System(command) => system::system(&mut client, &format, command).await,
        Command::Image(command) => image(&mut client, &format, command).await,
        Command::Volume(command) => volume::volume(&mut client, &format, command).await,
        Command::Network(command) => network::network(&mut client, &format, command).await,
        Command::Life(command) => container::life(&mut client, &format, command).await,
        Command::Ps(args) => container::ps(&mut client, &format, &args).await,
        Command::Container(command) => container::container(&mut client, &format, command).await,
        Command::Inspect(args) => container::inspect::inspect(&mut client, &format, args).await,
        Command::Events(args) => container::events::events(&mut client, &format, &args).await,
        Command::PortForward(args) => forward::forward(&mut client, args).await,
        Command::Completions { .. } | Command::Man { .. } | Command::Logout(_) => Ok(Exit(0)),
    }
}

/// `creel image ...`
async fn image(client: &mut Client, format: &Format, command: Image) -> Result<Exit, Error> {
    match command {
        Image::Ls(args) => images::list(client, format, &args).await,
        Image::Rm(args) => rmi::remove(client, &args).await,
        Image::Prune(args) => rmi::prune(client, &args).await,
        Image::Inspect { template, images } => inspect::images(client, template.as_ref().unwrap_or(format), &images).await,
        Image::History(args) => inspect::history(client, format, &args).await,
        Image::Tag { source, target } => rmi::tag(client, source, target).await,
        Image::Pull(args) => pull::pull(client, format, &args).await,
        Image::Push(args) => push::push(client, format, &args).await,
        Image::Import(args) => archive::import(client, args).await,
        Image::Save(args) => archive::save(client, args).await,
        Image::Load(args) => archive::load(client, args).await,
    }
}
