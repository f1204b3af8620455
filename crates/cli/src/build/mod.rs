//! `creel build`: a Dockerfile and its context become an image.

mod agents;
mod commands;
mod context;
pub(crate) mod kept;
mod progress;
mod secrets;

pub(crate) use commands::{BuildOr, Builder, build_or, builder};

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};

use api::creel::{BuildFailed, BuildRun, BuildStart, build_event::Event};
use clap::{Args, ValueEnum};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    client::Client,
    container::{flags::LimitFlags, options},
    error::{self, Error, Exit},
    output,
};

/// The largest Dockerfile.
const DOCKERFILE: u64 = 8 << 20;

/// How a build shows what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Progress {
    /// Line by line
    Plain,
    /// Not at all
    Quiet,
}

/// `creel build`
#[derive(Args, Debug)]
pub(crate) struct Build {
    /// Name of the image; may be given more than once
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<String>,
    /// The Dockerfile; - is standard input [default: Containerfile or Dockerfile of PATH]
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Value of an ARG; without `=`, that of the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// The stage to build
    #[arg(long, default_value = "")]
    target: String,
    /// Take nothing from earlier builds
    #[arg(long)]
    no_cache: bool,
    /// Ask registries for the images of FROM again
    #[arg(long)]
    pull: bool,
    /// Label of the image
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Network of RUN: default, none or host
    #[arg(long, default_value = "default")]
    network: String,
    /// Something that RUN --mount=type=secret may see: id=ID[,src=FILE|,env=NAME]
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// An agent that RUN --mount=type=ssh may ask: default, or ID=SOCKET
    #[arg(long, value_name = "AGENT")]
    ssh: Vec<String>,
    /// More lines of /etc/hosts while RUN runs: NAME:ADDRESS, or NAME:host-gateway for this machine
    #[arg(long, value_name = "HOST")]
    add_host: Vec<String>,
    /// Size of /dev/shm of RUN
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// Limit of RUN: NAME=SOFT[:HARD]
    #[arg(long, value_name = "LIMIT")]
    ulimit: Vec<String>,
    #[command(flatten)]
    limits: LimitFlags,
    /// Print the image's id and nothing else
    #[arg(short, long)]
    quiet: bool,
    /// Write the image's id into a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// How to show what happens
    #[arg(long, value_enum, default_value = "plain")]
    progress: Progress,
    /// The directory that files are copied from; - is a Dockerfile or a tar on standard input
    path: String,
}

/// What is sent.
struct Input {
    dockerfile: Vec<u8>,
    file: String,
    context: context::Context,
}

/// Builds, and says what happens to standard error.
pub(crate) async fn build(client: &mut Client, args: Build) -> Result<Exit, Error> {
    let input = if args.path == "-" { from_stdin(&args)? } else { from_directory(&args)? };
    let Input { dockerfile, file, context } = input;
    let sockets = agents::parse(&args.ssh)?;
    let run = Some(run(&args, &sockets)?);
    let start = BuildStart {
        run,
        dockerfile,
        file,
        tags: args.tag,
        args: arguments(&args.build_arg),
        target: args.target,
        no_cache: args.no_cache,
        pull: args.pull,
        labels: args.label.iter().map(|label| pair(label)).collect(),
        network: args.network,
        ..BuildStart::default()
    };
    let (pieces, stream) = mpsc::channel(4);
    let mut agents = (!sockets.is_empty()).then(|| agents::Agents::new(sockets, pieces.clone()));
    let sending = tokio::task::spawn_blocking(move || context.send(start, &pieces));
    let answer = client.builds.build(ReceiverStream::new(stream)).await;
    // A context that cannot be read to its end is that, whatever the daemon made of its beginning.
    if let Ok(Err(error)) = sending.await {
        return Err(error);
    }
    let mut events = answer.map_err(error::daemon)?.into_inner();
    let quiet = args.quiet || args.progress == Progress::Quiet;
    let mut shown = progress::Plain::new();
    while let Some(event) = events.message().await.map_err(error::daemon)? {
        match event.event {
            Some(Event::Built(built)) => {
                if let Some(file) = &args.iidfile {
                    std::fs::write(file, &built.id).map_err(error::io(format!("write {}", file.display())))?;
                }
                if args.quiet {
                    output::print(&format!("{}\n", built.id))?;
                }
                return Ok(Exit(0));
            }
            Some(Event::Agent(piece)) => {
                if let Some(agents) = &mut agents {
                    agents.take(piece);
                }
            }
            Some(Event::Failed(failed)) => return Err(Error::Words(told(&failed))),
            Some(event) if !quiet => shown.show(&event)?,
            _ => {}
        }
    }
    Err(Error::Words("ERROR: the daemon ended the build without a word".to_owned()))
}

/// What RUN gets.
fn run(args: &Build, sockets: &agents::Sockets) -> Result<BuildRun, Error> {
    Ok(BuildRun {
        secrets: secrets::read(&args.secret)?,
        agents: sockets.keys().cloned().collect(),
        extra_hosts: args.add_host.iter().map(|text| options::host(text)).collect::<Result<_, _>>()?,
        shm_size: args.shm_size.as_deref().map(|text| options::bytes("--shm-size", text)).transpose()?.unwrap_or_default(),
        ulimits: args.ulimit.iter().map(|text| options::ulimit(text)).collect::<Result<_, _>>()?,
        limits: Some(options::limits(&args.limits)?),
    })
}

/// docker's words around what is wrong.
fn told(failed: &BuildFailed) -> String {
    format!("{}ERROR: failed to build: failed to solve: {}", failed.excerpt, failed.message)
}

/// Without `=` it is the environment's, and nothing if that has none.
fn arguments(given: &[String]) -> BTreeMap<String, String> {
    let one = |text: &String| match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => std::env::var(text).ok().map(|value| (text.clone(), value)),
    };
    given.iter().filter_map(one).collect()
}

fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

/// A tar, or a Dockerfile that has nothing to copy.
fn from_stdin(args: &Build) -> Result<Input, Error> {
    if std::io::stdin().is_terminal() {
        return Err(Error::Refused { name: "build".into(), why: "standard input is a terminal" });
    }
    let mut start = vec![0; context::START];
    let read = context::fill(&mut std::io::stdin().lock(), &mut start).map_err(error::io("read standard input"))?;
    start.truncate(read);
    if context::is_archive(&start) {
        let file = args.file.clone().unwrap_or_else(|| "Dockerfile".to_owned());
        return Ok(Input { dockerfile: Vec::new(), file, context: context::Context::Stdin(start) });
    }
    if args.file.is_some() {
        return Err(Error::Refused { name: "build".into(), why: "standard input is no tar, and -f names a file of one" });
    }
    let mut rest = std::io::stdin().lock().take(DOCKERFILE + 1);
    rest.read_to_end(&mut start).map_err(error::io("read standard input"))?;
    Ok(Input { dockerfile: nonempty(start)?, file: "Dockerfile".to_owned(), context: context::Context::Empty })
}

fn from_directory(args: &Build) -> Result<Input, Error> {
    if args.path.contains("://") || args.path.starts_with("git@") {
        return Err(Error::Refused { name: args.path.clone(), why: "a URL: fetch it first, and give its directory" });
    }
    let root = PathBuf::from(&args.path);
    let found = std::fs::metadata(&root).map_err(error::io(format!("path {:?}", args.path)))?;
    if !found.is_dir() {
        return Err(Error::Refused { name: args.path.clone(), why: "not a directory" });
    }
    let (dockerfile, file) = match args.file.as_deref() {
        Some("-") => {
            let mut text = Vec::new();
            std::io::stdin().lock().take(DOCKERFILE + 1).read_to_end(&mut text).map_err(error::io("read standard input"))?;
            (text, PathBuf::from("Dockerfile"))
        }
        Some(file) => (read(Path::new(file))?, PathBuf::from(file)),
        None => {
            let known = ["Containerfile", "Dockerfile"].map(|name| root.join(name));
            let file = known.iter().find(|file| file.exists()).unwrap_or(&known[1]);
            (read(file)?, file.clone())
        }
    };
    let context = context::Context::directory(&root, &file)?;
    let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Input { dockerfile: nonempty(dockerfile)?, file, context })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let what = || format!("failed to read dockerfile: open {}", path.display());
    let file = std::fs::File::open(path).map_err(error::io(what()))?;
    let mut text = Vec::new();
    file.take(DOCKERFILE + 1).read_to_end(&mut text).map_err(error::io(what()))?;
    Ok(text)
}

fn nonempty(text: Vec<u8>) -> Result<Vec<u8>, Error> {
    if text.is_empty() { Err(Error::Refused { name: "build".into(), why: "the Dockerfile cannot be empty" }) } else { Ok(text) }
}
