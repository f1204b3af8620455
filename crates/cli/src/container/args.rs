//! What can be said about containers on the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::flags::{CreateFlags, LimitFlags};

/// Keys that leave a container running.
pub(crate) const KEYS: &str = "ctrl-p,ctrl-q";

/// Commands that are there as `creel COMMAND` and as `creel container COMMAND`.
#[derive(Debug, Subcommand)]
pub(crate) enum Life {
    /// Run a command in a new container
    #[command(disable_help_flag = true)]
    Run(Box<Run>),
    /// Make a container and do not start it
    #[command(disable_help_flag = true)]
    Create(Box<Create>),
    /// Start containers that do not run, with the files that they had
    Start(Start),
    /// Stop containers
    Stop(Stop),
    /// Stop containers and start them again
    Restart(Stop),
    /// Send containers a signal
    Kill(Kill),
    /// Freeze containers
    Pause(Names),
    /// Let frozen containers go on
    Unpause(Names),
    /// Wait until containers have ended and print their exit codes
    Wait(Names),
    /// Remove containers with what they have written
    Rm(Rm),
    /// Give a container another name
    Rename {
        /// Name or id
        #[arg(add = super::complete::containers())]
        container: String,
        /// The new name
        name: String,
    },
    /// Change limits and restart policy
    Update(Update),
    /// Print what a container said
    Logs(Logs),
    /// Run a command in a running container
    Exec(Exec),
    /// Follow the streams of a running container
    Attach(Attach),
    /// Copy files between a container and this machine
    Cp(Cp),
    /// List what a container has changed of its image's files
    Diff {
        /// Name or id
        #[arg(add = super::complete::containers())]
        container: String,
    },
    /// List a container's processes
    Top(Top),
    /// Show what containers use
    Stats(Stats),
    /// List a container's published ports
    Port {
        /// Name or id
        #[arg(add = super::complete::containers())]
        container: String,
        /// Only this one
        #[arg(value_name = "PORT[/PROTOCOL]")]
        port: Option<String>,
    },
}

/// `creel container`
#[derive(Debug, Subcommand)]
pub(crate) enum Container {
    #[command(flatten)]
    Life(Life),
    /// List containers
    #[command(visible_aliases = ["ps", "list"])]
    Ls(Ps),
    /// Show everything about containers, as JSON
    Inspect(InspectContainers),
    /// Remove all containers that do not run
    Prune(PruneContainers),
}

/// Containers.
#[derive(Args, Debug)]
pub(crate) struct Names {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER", add = super::complete::containers())]
    pub(crate) containers: Vec<String>,
}

/// `creel run`
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// Run in the background and print the id
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Pass signals on to it, unless it has a terminal
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) sig_proxy: bool,
    /// Keys that leave it running, with -it; empty: none
    #[arg(long, default_value = KEYS, value_name = "KEYS")]
    pub(crate) detach_keys: String,
    #[command(flatten)]
    pub(crate) create: CreateFlags,
}

/// `creel create`
#[derive(Args, Debug)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) create: CreateFlags,
}

/// `creel start`
#[derive(Args, Debug)]
pub(crate) struct Start {
    /// Show what it says, and pass signals on
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Pass signals on to it, with -a and unless it has a terminal
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) sig_proxy: bool,
    /// Keys that leave it running, with -a; empty: none
    #[arg(long, default_value = KEYS, value_name = "KEYS")]
    pub(crate) detach_keys: String,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER", add = super::complete::containers())]
    pub(crate) containers: Vec<String>,
}

/// `creel stop` and `creel restart`
#[derive(Args, Debug)]
pub(crate) struct Stop {
    /// Seconds until they are killed; -1: never [default: the container's own, else 10]
    #[arg(short = 't', long = "timeout", visible_alias = "time", value_name = "SECONDS", allow_negative_numbers = true)]
    pub(crate) timeout: Option<i32>,
    /// Instead of the container's stop signal
    #[arg(short, long, value_name = "SIGNAL")]
    pub(crate) signal: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER", add = super::complete::containers())]
    pub(crate) containers: Vec<String>,
}

/// `creel kill`
#[derive(Args, Debug)]
pub(crate) struct Kill {
    /// Which
    #[arg(short, long, default_value = "KILL", value_name = "SIGNAL")]
    pub(crate) signal: String,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER", add = super::complete::containers())]
    pub(crate) containers: Vec<String>,
}

/// `creel rm`
#[derive(Args, Debug)]
pub(crate) struct Rm {
    /// Those that run too
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Their anonymous volumes too
    #[arg(short, long)]
    pub(crate) volumes: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER", add = super::complete::containers())]
    pub(crate) containers: Vec<String>,
}

/// `creel update`
#[derive(Args, Debug)]
pub(crate) struct Update {
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    /// When it starts again by itself: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER", add = super::complete::containers())]
    pub(crate) containers: Vec<String>,
}

/// `creel ps`
#[derive(Args, Debug)]
pub(crate) struct Ps {
    /// Those that do not run too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Only so many, the newest, running or not
    #[arg(short = 'n', long, value_name = "NUMBER")]
    pub(crate) last: Option<u32>,
    /// Only the newest one, running or not
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Their sizes too
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Whole ids, commands and lists
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// The containers of kubelet's pods too
    #[arg(long)]
    pub(crate) pods: bool,
    /// id=, name=, label=, status=, exited=, ancestor=, before=, since=, volume=, network=, publish=, expose=
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
}

/// `creel container inspect`
#[derive(Args, Debug)]
pub(crate) struct InspectContainers {
    /// A Go template
    #[arg(short = 'f', value_name = "TEMPLATE")]
    pub(crate) template: Option<crate::format::Format>,
    /// Their sizes too
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER", add = super::complete::containers())]
    pub(crate) containers: Vec<String>,
}

/// What a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Container,
    Image,
    Volume,
    Network,
}

/// `creel inspect`
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// A Go template
    #[arg(short = 'f', value_name = "TEMPLATE")]
    pub(crate) template: Option<crate::format::Format>,
    /// Containers' sizes too
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Only what is this [default: container, else image, else volume, else network]
    #[arg(long = "type", value_enum, value_name = "KIND")]
    pub(crate) kind: Option<Kind>,
    /// Names or ids
    #[arg(required = true, value_name = "NAME", add = super::complete::anything())]
    pub(crate) names: Vec<String>,
}

/// `creel container prune`
#[derive(Args, Debug)]
pub(crate) struct PruneContainers {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// until=, label=, label!=
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
}

/// `creel logs`
#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// Go on until the container ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print the time of every line
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Only so many lines from the end, or all
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all")]
    pub(crate) tail: String,
    /// Only what was said after this: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only what was said before this: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Name or id
    #[arg(add = super::complete::containers())]
    pub(crate) container: String,
}

/// `creel exec`
#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// Pass standard input on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Do not wait for it
    #[arg(short, long, conflicts_with = "interactive")]
    pub(crate) detach: bool,
    /// Set a variable; without a value it is taken from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Set the variables of a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Who runs it; the container's user if not given
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Working directory; the container's if not given
    #[arg(short, long, value_name = "PATH")]
    pub(crate) workdir: Option<String>,
    /// With all capabilities
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Seconds that it may take; 0: as long as it likes
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub(crate) timeout: u32,
    /// Keys that leave it running, with -it; empty: none
    #[arg(long, default_value = KEYS, value_name = "KEYS")]
    pub(crate) detach_keys: String,
    /// Name or id
    #[arg(add = super::complete::containers())]
    pub(crate) container: String,
    /// The command with its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// `creel attach`
#[derive(Args, Debug)]
pub(crate) struct Attach {
    /// Do not pass standard input on
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// Pass signals on to it, unless it has a terminal
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) sig_proxy: bool,
    /// Keys that leave it, if it has a terminal; empty: none
    #[arg(long, default_value = KEYS, value_name = "KEYS")]
    pub(crate) detach_keys: String,
    /// Name or id
    #[arg(add = super::complete::containers())]
    pub(crate) container: String,
}

/// `creel cp`
#[derive(Args, Debug)]
pub(crate) struct Cp {
    /// Keep uid and gid
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// Follow a symbolic link that is named as the source
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// Say nothing
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// CONTAINER:PATH, a path of this machine, or - for a tar on standard input
    pub(crate) source: String,
    /// CONTAINER:PATH, a path of this machine, or - for a tar on standard output
    pub(crate) target: String,
}

/// `creel top`
#[derive(Args, Debug)]
pub(crate) struct Top {
    /// Name or id
    #[arg(add = super::complete::containers())]
    pub(crate) container: String,
    /// Arguments of ps(1) [default: -ef]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<String>,
}

/// `creel stats`
#[derive(Args, Debug)]
pub(crate) struct Stats {
    /// Those that do not run too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Once, and not again and again
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Names or ids; all that run if none is given
    #[arg(value_name = "CONTAINER", add = super::complete::containers())]
    pub(crate) containers: Vec<String>,
}

/// `creel events`
#[derive(Args, Debug)]
pub(crate) struct Events {
    /// Also what has happened since: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Until then: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// container=, event=, image=, label=, network=, type=, volume=
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
}
