//! `creel build`: a Dockerfile and its context become an image.

mod agents;
mod caches;
mod commands;
mod context;
mod credentials;
mod files;
mod history;
pub(crate) mod kept;
mod layout;
mod named;
mod outputs;
mod progress;
mod secrets;
mod talk;

pub(crate) use commands::{BuildOr, Builder, build_or, builder};
pub(crate) use files::attributes;

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};

use api::creel::{BuildRun, BuildStart, BuiltImage, CheckRequest, build_event::Event};
use clap::Args;

use talk::{Asked, Talk};

use crate::{
    client::Client,
    container::{flags::LimitFlags, options},
    error::{self, Error, Exit},
    output,
};

/// The largest Dockerfile.
const DOCKERFILE: u64 = 8 << 20;
/// When everything is said to be made, in seconds since 1970.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

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
    #[command(flatten)]
    outputs: outputs::OutputFlags,
    #[command(flatten)]
    caches: caches::CacheFlags,
    /// Print the image's id and nothing else
    #[arg(short, long)]
    quiet: bool,
    /// Write the image's id into a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// How to show what happens
    #[arg(long, value_enum, default_value = "auto", env = "BUILDKIT_PROGRESS", value_name = "HOW")]
    progress: progress::Mode,
    /// Build nothing, but say what may be meant otherwise in the Dockerfile
    #[arg(long)]
    check: bool,
    /// What else FROM and --from mean: NAME=PATH, NAME=docker-image://IMAGE or NAME=oci-layout://DIR[:TAG|@DIGEST]
    #[arg(long, value_name = "NAME=PLACE")]
    build_context: Vec<String>,
    /// The directory that files are copied from; - is a Dockerfile or a tar on standard input
    // Empty only beside another command, which needs none.
    #[arg(required = true, default_value = "", hide_default_value = true)]
    path: String,
}

/// What is sent.
struct Input {
    dockerfile: Vec<u8>,
    file: String,
    context: context::Context,
    /// What the context leaves out, as text.
    ignore: Vec<u8>,
}

/// Builds, and says what happens to standard error.
pub(crate) async fn build(client: &mut Client, args: Build) -> Result<Exit, Error> {
    let input = if args.path == "-" { from_stdin(&args)? } else { from_directory(&args)? };
    if args.check {
        return check(client, args, input).await;
    }
    let mut shown = progress::Shown::new(if args.quiet { progress::Mode::Quiet } else { args.progress })?;
    let (mut asked, sinks) = ask(&args, input)?;
    let mut outputs = outputs::Outputs::ask(&args.outputs, &mut asked.start, sinks)?;
    asked.start.credentials = credentials::known(&asked.start)?;
    if let Some(file) = &args.iidfile {
        // One of an earlier build is not taken for this one's.
        std::fs::remove_file(file).ok();
    }
    let tags = asked.start.tags.clone();
    let after = After { iidfile: args.iidfile, quiet: args.quiet, piped: outputs.is_piped(), tags };
    let mut talk = Talk::begin(client, asked).await?;
    while let Some(event) = talk.next().await? {
        match event {
            Event::Exported(piece) => outputs.take(piece).await?,
            Event::Built(built) => {
                outputs.finish(&built).await?;
                return after.built(built, &mut shown);
            }
            Event::Failed(failed) => return Err(shown.failed(&failed)),
            event => shown.event(&event)?,
        }
    }
    Err(Error::Words("ERROR: the daemon ended the build without a word".to_owned()))
}

/// What is asked for, and where caches are kept that come back.
fn ask(args: &Build, input: Input) -> Result<(Asked, Vec<outputs::Sink>), Error> {
    let Input { dockerfile, file, context, ignore } = input;
    let sockets = agents::parse(&args.ssh)?;
    let run = Some(run(args, &sockets)?);
    let named::Named { told: contexts, directories, layouts: of_contexts } = named::parse(&args.build_context)?;
    let mut start = BuildStart {
        run,
        dockerfile,
        file,
        tags: args.tag.clone(),
        args: arguments(&args.build_arg),
        target: args.target.clone(),
        no_cache: args.no_cache,
        pull: args.pull,
        labels: args.label.iter().map(|label| pair(label)).collect(),
        network: args.network.clone(),
        ignore,
        context: context.name()?,
        contexts,
        ..BuildStart::default()
    };
    let (mut layouts, sinks) = args.caches.ask(&mut start)?;
    layouts.add(of_contexts);
    let contexts = std::iter::once(context).chain(directories).collect();
    Ok((Asked { start, layouts, contexts, sockets }, sinks))
}

/// What is to be done when there is a result.
struct After {
    iidfile: Option<PathBuf>,
    quiet: bool,
    /// Standard output has an archive.
    piped: bool,
    tags: Vec<String>,
}

impl After {
    fn built(self, built: BuiltImage, shown: &mut progress::Shown) -> Result<Exit, Error> {
        // Several platforms are an index.
        let id = if built.id.is_empty() { built.digest } else { built.id };
        if let Some(file) = self.iidfile.filter(|_| !id.is_empty()) {
            std::fs::write(&file, &id).map_err(error::io(format!("write {}", file.display())))?;
        }
        shown.built()?;
        if id.is_empty() || self.piped {
            return Ok(Exit(0));
        }
        if self.quiet {
            output::print(&format!("{id}\n"))?;
        } else if shown.is_plain() {
            output::print(&as_ever(&id, &self.tags))?;
        }
        Ok(Exit(0))
    }
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

/// What scripts have looked for since there are builders: it is printed where docker prints line by line.
fn as_ever(id: &str, tags: &[String]) -> String {
    let tagged = tags.iter().map(|tag| {
        let last = tag.rsplit('/').next().unwrap_or_default();
        let latest = if last.contains([':', '@']) { "" } else { ":latest" };
        format!("Successfully tagged {tag}{latest}\n")
    });
    format!("Successfully built {}\n{}", output::short(id), tagged.collect::<String>())
}

/// `--check`: nothing is built. Findings are an error, as docker has it.
async fn check(client: &mut Client, args: Build, input: Input) -> Result<Exit, Error> {
    let Input { dockerfile, file, ignore, .. } = input;
    if dockerfile.is_empty() {
        return Err(Error::Refused {
            name: "--check".into(),
            why: "the Dockerfile is in an archive: unpack it, and give its directory",
        });
    }
    let request = CheckRequest { dockerfile, file, args: arguments(&args.build_arg), target: args.target, ignore };
    let found = client.builds.check(request).await.map_err(error::daemon)?.into_inner();
    if found.failed.is_none() || !found.warnings.is_empty() {
        output::print(&progress::checked(&found.warnings))?;
    }
    match found.failed {
        Some(failed) => Err(progress::Shown::new(progress::Mode::Quiet)?.failed(&failed)),
        None => Ok(Exit(u8::from(!found.warnings.is_empty()))),
    }
}

/// Without `=` it is the environment's, and nothing if that has none. When everything is said to be made is always told.
fn arguments(given: &[String]) -> BTreeMap<String, String> {
    let one = |text: &String| match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => std::env::var(text).ok().map(|value| (text.clone(), value)),
    };
    let epoch = std::env::var(EPOCH).ok().map(|value| (EPOCH.to_owned(), value));
    epoch.into_iter().chain(given.iter().filter_map(one)).collect()
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
        return Ok(Input { dockerfile: Vec::new(), file, context: context::Context::Stdin(start), ignore: Vec::new() });
    }
    if args.file.is_some() {
        return Err(Error::Refused { name: "build".into(), why: "standard input is no tar, and -f names a file of one" });
    }
    let mut rest = std::io::stdin().lock().take(DOCKERFILE + 1);
    rest.read_to_end(&mut start).map_err(error::io("read standard input"))?;
    Ok(Input { dockerfile: nonempty(start)?, file: "Dockerfile".to_owned(), context: context::Context::Empty, ignore: Vec::new() })
}

fn from_directory(args: &Build) -> Result<Input, Error> {
    if named::is_remote(&args.path) {
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
        Some(file) => (read(&root, Path::new(file))?, PathBuf::from(file)),
        None => {
            let known = ["Containerfile", "Dockerfile"].map(|name| root.join(name));
            let file = known.iter().find(|file| file.symlink_metadata().is_ok()).unwrap_or(&known[1]);
            (read(&root, file)?, file.clone())
        }
    };
    let (context, ignore) = context::Context::directory(&root, &file)?;
    let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Input { dockerfile: nonempty(dockerfile)?, file, context, ignore })
}

fn read(root: &Path, path: &Path) -> Result<Vec<u8>, Error> {
    let failed = error::io(format!("failed to read dockerfile: open {}", path.display()));
    context::read_inside(root, path, DOCKERFILE).map_err(failed)
}

fn nonempty(text: Vec<u8>) -> Result<Vec<u8>, Error> {
    if text.is_empty() { Err(Error::Refused { name: "build".into(), why: "the Dockerfile cannot be empty" }) } else { Ok(text) }
}
