//! creeld: the daemon. It may end and be replaced at any time without a container noticing.
#![forbid(unsafe_code)]

mod block_io;
mod config;
mod edge;
mod server;
mod services;
mod sessions;
mod socket;
mod start;

use std::{error::Error, io::Write, process::ExitCode};

use clap::{Parser, Subcommand};

/// A container engine for one Linux node: serves Kubernetes CRI v1 and creel's own API on a unix socket
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: config::Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at the configuration instead of running
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum ConfigCommand {
    /// Print the defaults with their documentation
    Default,
    /// Check the configuration and print what is in force
    Check,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("creeld: {error}");
            let mut next = error.source();
            while let Some(cause) = next {
                text.push_str(&format!(": {cause}"));
                next = cause.source();
            }
            writeln!(std::io::stderr(), "{text}").ok();
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    match arguments.command {
        Some(Command::Config(ConfigCommand::Default)) => Ok(write!(std::io::stdout(), "{}", config::DEFAULT)?),
        Some(Command::Config(ConfigCommand::Check)) => {
            let config = config::Config::load(&arguments.flags)?;
            Ok(write!(std::io::stdout(), "{}", config.to_toml())?)
        }
        None => Ok(start::daemon(config::Config::load(&arguments.flags)?)?),
    }
}
