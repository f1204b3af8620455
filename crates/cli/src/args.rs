//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::format::Format;

/// Containers on this machine: a client of creeld
#[derive(Debug, Parser)]
#[command(version, propagate_version = false)]
pub(crate) struct Arguments {
    /// Socket of creeld
    #[arg(long, env = "CREEL_SOCKET", default_value = "/run/creel/creel.sock", global = true, value_name = "PATH")]
    pub(crate) socket: PathBuf,
    /// How lists are printed: table, json, or a Go template like '{{.ID}}'
    #[arg(long, default_value = "table", global = true)]
    pub(crate) format: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command in a new container
    Run(Box<Run>),
    /// List containers
    Ps {
        /// Those that have ended too
        #[arg(short, long)]
        all: bool,
        /// Only ids
        #[arg(short, long)]
        quiet: bool,
    },
    /// Run a command in a running container
    Exec(Exec),
    /// Follow the streams of a running container
    Attach(Attach),
    /// Lead ports of this machine into a pod
    PortForward(PortForward),
    /// Print what a container said
    Logs(Logs),
    /// Stop containers
    Stop {
        /// Seconds until they are killed
        #[arg(short, long, default_value_t = 10, value_name = "SECONDS")]
        time: u32,
        /// Names or ids
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Remove containers that have ended
    Rm {
        /// Those that run too
        #[arg(short, long)]
        force: bool,
        /// Names or ids
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Get an image from a registry
    Pull(Pull),
    /// Upload an image to the registry of its name
    Push(Push),
    /// List images
    Images(Images),
    /// Remove names of images, and images with their last one
    Rmi(Rmi),
    /// Give an image another name
    Tag {
        /// Name or id
        source: String,
        /// The new name
        target: String,
    },
    /// Show how an image was made
    History(History),
    /// Write images into an archive that docker, podman and skopeo read
    Save(Save),
    /// Take images out of an archive (docker save, or an OCI layout in a tar)
    Load(Load),
    /// Make an image out of a tar of files
    Import(Import),
    /// Look for images at Docker Hub, or at the registry that the term begins with
    Search(Search),
    /// Log in to a registry
    Login(Login),
    /// Log out of a registry
    Logout(Logout),
    /// Everything about images
    #[command(subcommand)]
    Image(Image),
    /// Everything about volumes
    #[command(subcommand)]
    Volume(crate::volume::Command),
    /// Show what the engine is and what it found on this machine
    Info,
    /// Show the versions of client and daemon
    Version,
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// `creel image`
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// List images
    #[command(visible_alias = "list")]
    Ls(Images),
    /// Remove names of images, and images with their last one
    #[command(visible_alias = "remove")]
    Rm(Rmi),
    /// Remove images that nobody uses
    Prune(Prune),
    /// Show everything about images, as JSON
    Inspect {
        /// Names or ids
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Show how an image was made
    History(History),
    /// Give an image another name
    Tag {
        /// Name or id
        source: String,
        /// The new name
        target: String,
    },
    /// Get an image from a registry
    Pull(Pull),
    /// Upload an image to the registry of its name
    Push(Push),
    /// Make an image out of a tar of files
    Import(Import),
    /// Write images into an archive that docker, podman and skopeo read
    Save(Save),
    /// Take images out of an archive (docker save, or an OCI layout in a tar)
    Load(Load),
}

/// `creel save`
#[derive(Args, Debug)]
pub(crate) struct Save {
    /// The archive; standard output if not given
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Names or ids
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

/// `creel load`
#[derive(Args, Debug)]
pub(crate) struct Load {
    /// The archive; standard input if not given
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// No progress (there is none to be shown; for docker's users)
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `creel images`
#[derive(Args, Debug, Default)]
pub(crate) struct Images {
    /// All images (none is left out without it either)
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Digests too
    #[arg(long)]
    pub(crate) digests: bool,
    /// Whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Which layers images share, and what removing each would free
    #[arg(long)]
    pub(crate) tree: bool,
    /// reference=, dangling=, label=, before=, since=, until=
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Only this repository, or name with tag
    pub(crate) repository: Option<String>,
}

/// `creel rmi`
#[derive(Args, Debug)]
pub(crate) struct Rmi {
    /// Also with several names, or if a container that has ended uses it
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names or ids
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
}

/// `creel image prune`
#[derive(Args, Debug)]
pub(crate) struct Prune {
    /// Every image without a container; else only those without a name
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// until=, label=, label!=, dangling=
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
}

/// `creel history`
#[derive(Args, Debug)]
pub(crate) struct History {
    /// Sizes and dates for people
    #[arg(short = 'H', long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) human: bool,
    /// Whole ids and instructions
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Name or id
    pub(crate) image: String,
}

/// `creel search`
#[derive(Args, Debug)]
pub(crate) struct Search {
    #[command(flatten)]
    pub(crate) creds: Creds,
    /// At most so many
    #[arg(long, default_value_t = 25)]
    pub(crate) limit: u32,
    /// stars=, is-official=
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Whole descriptions
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// [REGISTRY/]TERM
    pub(crate) term: String,
}

/// `creel login`
#[derive(Args, Debug)]
pub(crate) struct Login {
    /// Who
    #[arg(short, long)]
    pub(crate) username: Option<String>,
    /// The password; visible to others, better use --password-stdin
    #[arg(short, long)]
    pub(crate) password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// HOST[:PORT]; Docker Hub if not given
    pub(crate) registry: Option<String>,
}

/// `creel logout`
#[derive(Args, Debug)]
pub(crate) struct Logout {
    /// HOST[:PORT]; Docker Hub if not given
    pub(crate) registry: Option<String>,
}

/// `creel push`
#[derive(Args, Debug)]
pub(crate) struct Push {
    #[command(flatten)]
    pub(crate) creds: Creds,
    /// All tags of the repository
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Print the name alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Name, with a tag or for `latest`
    pub(crate) image: String,
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
    /// Seconds that it may take; 0: as long as it likes
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub(crate) timeout: u32,
    /// Keys that leave it running, with -it; empty: none
    #[arg(long, default_value = "ctrl-p,ctrl-q", value_name = "KEYS")]
    pub(crate) detach_keys: String,
    /// Name or id
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
    /// Keys that leave it, if it has a terminal; empty: none
    #[arg(long, default_value = "ctrl-p,ctrl-q", value_name = "KEYS")]
    pub(crate) detach_keys: String,
    /// Name or id
    pub(crate) container: String,
}

/// `creel port-forward`
#[derive(Args, Debug)]
pub(crate) struct PortForward {
    /// Address to listen on
    #[arg(long, default_value_t = crate::forward::LOOPBACK, value_name = "IP")]
    pub(crate) address: std::net::IpAddr,
    /// Name or id of a container or pod
    pub(crate) target: String,
    /// Port here and port there; one: the same; none here: any that is free
    #[arg(required = true, value_name = "[[LOCAL]:]REMOTE")]
    pub(crate) ports: Vec<String>,
}

/// Credentials, on the command line or better in the environment.
#[derive(Args, Clone, Debug)]
pub(crate) struct Creds {
    /// Who to be at the registry; if not given, what `docker login` has left behind
    #[arg(long, env = "CREEL_CREDS", hide_env_values = true, value_name = "USER:PASSWORD")]
    pub(crate) creds: Option<String>,
}

/// `creel pull`
#[derive(Args, Debug)]
pub(crate) struct Pull {
    #[command(flatten)]
    pub(crate) creds: Creds,
    /// Print the name alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// All tags of the repository
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// For another machine than this
    #[arg(long, env = "DOCKER_DEFAULT_PLATFORM", value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// Name with tag or digest
    pub(crate) image: String,
}

/// `creel import`
#[derive(Args, Debug)]
pub(crate) struct Import {
    /// Change the image as an instruction of a Dockerfile does
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub(crate) change: Vec<String>,
    /// What is said of it; where it comes from if not given
    #[arg(short, long)]
    pub(crate) message: Option<String>,
    /// For another machine than this
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// The tar, which may be compressed; - is standard input
    pub(crate) file: String,
    /// Name of the image
    pub(crate) name: Option<String>,
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
    /// Only so many lines from the end
    #[arg(short = 'n', long, value_name = "LINES")]
    pub(crate) tail: Option<usize>,
    /// Name or id
    pub(crate) container: String,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullWhen {
    /// If it is not there
    Missing,
    /// Every time
    Always,
    /// Not at all
    Never,
}

/// Which network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkKind {
    /// One of its own
    Pod,
    /// This machine's
    Host,
}

/// `creel run`
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// Name of the container; if not given, one is made up
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Run in the background and print the id
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Remove the container when it has ended
    #[arg(long, conflicts_with = "detach")]
    pub(crate) rm: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set a variable; without a value it is taken from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Show a directory or file of this machine in it
    #[arg(short, long, value_name = "HOST:CONTAINER[:ro]")]
    pub(crate) volume: Vec<String>,
    /// Lead a port of this machine into it
    #[arg(short, long, value_name = "[IP:]HOST:CONTAINER[/udp]")]
    pub(crate) publish: Vec<String>,
    /// Network
    #[arg(long, value_enum, default_value_t = NetworkKind::Pod)]
    pub(crate) network: NetworkKind,
    /// Host name; the container's name if not given
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// User, and a group by number
    #[arg(short, long, value_name = "USER[:GID]")]
    pub(crate) user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "PATH")]
    pub(crate) workdir: Option<String>,
    /// Replaces the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// All capabilities and devices, and nothing confined
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Capability to add
    #[arg(long, value_name = "NAME")]
    pub(crate) cap_add: Vec<String>,
    /// Capability to drop
    #[arg(long, value_name = "NAME")]
    pub(crate) cap_drop: Vec<String>,
    /// Nothing can be written to its root
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Most memory, for example 512m
    #[arg(short, long, value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Most processors, for example 1.5
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<f64>,
    /// Label
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// When the image is pulled
    #[arg(long, value_enum, default_value_t = PullWhen::Missing)]
    pub(crate) pull: PullWhen,
    #[command(flatten)]
    pub(crate) creds: Creds,
    /// Name or id of the image
    pub(crate) image: String,
    /// Command; the image's if not given
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_follows_the_image_is_the_command() {
        let arguments = Arguments::try_parse_from(["creel", "run", "-e", "A=1", "busybox", "sh", "-c", "echo $A", "--rm"]).unwrap();
        let Command::Run(run) = arguments.command else { panic!("not run") };
        assert_eq!((run.image.as_str(), run.rm), ("busybox", false));
        assert_eq!(run.command, ["sh", "-c", "echo $A", "--rm"]);
        assert!(Arguments::try_parse_from(["creel", "run", "--rm", "-d", "busybox"]).is_err());
    }
}
