//! creel: the command line. A gRPC client of creeld and nothing else; it never opens the store.
#![forbid(unsafe_code)]

mod args;
mod attach;
mod auth;
mod client;
mod containers;
mod error;
mod exec;
mod find;
mod follow;
mod forward;
mod images;
mod info;
mod log;
mod output;
mod progress;
mod pull;
mod run;
mod session;
mod terminal;

use std::{io::Write, process::ExitCode};

use clap::{CommandFactory, Parser};

use crate::{
    args::{Arguments, Command},
    client::Client,
    error::{Error, Exit},
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
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
        Err(error) => {
            writeln!(std::io::stderr(), "creel: {}", error.chain()).ok();
            ExitCode::from(error.exit_code())
        }
    }
}

async fn command(arguments: Arguments) -> Result<Exit, Error> {
    let Arguments { socket, format, command } = arguments;
    if let Command::Completions { shell } = command {
        clap_complete::generate(shell, &mut Arguments::command(), "creel", &mut std::io::stdout());
        return Ok(Exit(0));
    }
    let mut client = Client::connect(&socket).await?;
    match command {
        Command::Info => info::info(&mut client, format).await,
        Command::Version => info::version(&mut client, format).await,
        Command::Pull(args) => pull::pull(&mut client, &args).await,
        Command::Images { quiet } => images::list(&mut client, format, quiet).await,
        Command::Rmi { images } => images::remove(&mut client, &images).await,
        Command::Load { input, quiet } => images::load(&mut client, input, quiet).await,
        Command::Run(args) => run::run(&mut client, *args).await,
        Command::Ps { all, quiet } => containers::list(&mut client, format, all, quiet).await,
        Command::Logs(args) => log::logs(&mut client, &args).await,
        Command::Stop { time, containers } => containers::stop(&mut client, time, &containers).await,
        Command::Rm { force, containers } => containers::remove(&mut client, force, &containers).await,
        Command::Exec(args) => exec::exec(&mut client, args).await,
        Command::Attach(args) => attach::attach(&mut client, args).await,
        Command::PortForward(args) => forward::forward(&mut client, args).await,
        Command::Completions { .. } => Ok(Exit(0)),
    }
}
