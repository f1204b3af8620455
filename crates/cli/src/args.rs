//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    container::args::{Container, Events, Inspect, Life, Ps},
    format::Format,
};

/// Where creeld listens if nobody says otherwise.
pub(crate) const SOCKET: &str = "/run/creel/creel.sock";

/// Containers on this machine: a client of creeld
#[derive(Debug, Parser)]
#[command(name = "creel", version, propagate_version = false)]
pub(crate) struct Arguments {
    /// Socket of creeld
    #[arg(long, env = "CREEL_SOCKET", default_value = SOCKET, global = true, value_name = "PATH")]
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
    #[command(flatten)]
    Life(Life),
    /// List containers
    Ps(Ps),
    /// Everything about containers
    #[command(subcommand)]
    Container(Container),
    /// Show everything about containers, images, volumes and networks, as JSON
    Inspect(Inspect),
    /// Show what happens
    Events(Events),
    /// Lead ports of this machine into a pod
    PortForward(PortForward),
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
        #[arg(add = crate::container::complete::images())]
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
    /// Make an image out of a Dockerfile
    Build(Box<crate::build::BuildOr>),
    /// Everything about builds
    #[command(subcommand, visible_alias = "buildx")]
    Builder(crate::build::Builder),
    /// Make an image out of a container
    Commit(crate::commit::Commit),
    /// Write the files of a container into a tar
    Export(crate::commit::Export),
    /// What takes the disk, and what of it can go
    #[command(subcommand)]
    System(crate::system::System),
    /// Everything about images
    #[command(subcommand)]
    Image(Image),
    /// Everything about volumes
    #[command(subcommand)]
    Volume(crate::volume::Command),
    /// Everything about networks
    #[command(subcommand)]
    Network(crate::network::Command),
    /// Show what the engine is and what it found on this machine
    Info,
    /// Show the versions of client and daemon
    Version,
    /// Write the manual's pages into a directory
    Man {
        /// Directory; it is made if need be
        directory: PathBuf,
    },
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
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
        /// A Go template
        #[arg(short = 'f', value_name = "TEMPLATE")]
        template: Option<Format>,
        /// Names or ids
        #[arg(required = true, add = crate::container::complete::images())]
        images: Vec<String>,
    },
    /// Show how an image was made
    History(History),
    /// Give an image another name
    Tag {
        /// Name or id
        #[arg(add = crate::container::complete::images())]
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
    #[arg(required = true, add = crate::container::complete::images())]
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
    #[arg(required = true, add = crate::container::complete::images())]
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
    #[arg(add = crate::container::complete::images())]
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
    #[arg(add = crate::container::complete::images())]
    pub(crate) image: String,
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
    /// The tar, which may be compressed, or its http:// or https:// URL; - is standard input
    pub(crate) file: String,
    /// Name of the image
    pub(crate) name: Option<String>,
}

/// Shells that can be taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

impl Shell {
    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Elvish => "elvish",
            Self::Fish => "fish",
            Self::Powershell => "powershell",
            Self::Zsh => "zsh",
        }
    }
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
        let Command::Life(Life::Run(run)) = arguments.command else { panic!("not run") };
        assert_eq!((run.create.image(), run.create.rm), ("busybox", false));
        assert_eq!(run.create.command(), ["sh", "-c", "echo $A", "--rm"]);
    }
}
