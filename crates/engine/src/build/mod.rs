//! Builds: a Dockerfile and its context become an image of the store.
//!
//! A state is a list of layers and a config. FROM begins one, instructions change its config, and RUN, COPY, ADD and WORKDIR add a
//! layer: of what a container, or a copy, has written. Contexts, stages and images are all lists of layers, mounted read-only where
//! something is copied from them. What a step has made is kept under the digest of everything that went into it ([`cache`]).

mod agents;
mod asked;
pub(crate) mod cache;
pub(crate) mod caches;
mod checks;
pub(crate) mod contexts;
mod copy;
mod copying;
mod difference;
mod elsewhere;
pub(crate) mod fetch;
mod find;
mod graph;
pub(crate) mod history;
pub(crate) mod kept;
mod key;
mod listing;
mod memory;
mod mounts;
mod named;
mod options;
mod past;
mod platforms;
mod recording;
mod results;
mod run;
mod several;
mod shown;
mod stages;
mod state;
mod steps;
mod straight;

pub use checks::{BuildWarning, CheckRequest};
pub use contexts::{Compared, Context};
pub use difference::ContextFile;
pub use elsewhere::{CacheFrom, CacheRequest, CacheTo, Extent};
pub use kept::{Kept, KeptKind, PruneBuilds};
pub use named::{NamedContext, context_name};
pub use options::{AgentConnection, Agents, RunOptions, SecretValue};
pub use past::{Asked, PastBuild, PastFailure, PastOutput, PastStep};

pub use results::{BuildOutput, Built, Wanted};

use std::{collections::BTreeMap, fs::File, os::fd::OwnedFd, sync::Arc, time::Duration};

use model::{DiffId, ErrorKind, ImageRef, container::ImageDefaults};
use rustix::fs::OFlags;
use sys::path::{Links, Root};
use tokio::sync::mpsc;

use crate::{
    Engine, Inner,
    blocking::blocking,
    error::{About, Error, Step},
    image::{ImageInfo, Known, Platform},
};

/// Events that may wait to be remembered.
const WAITING: usize = 64;
/// The largest Dockerfile.
const DOCKERFILE: u64 = 8 << 20;
/// Lines of a Dockerfile that are shown of something in it; a heredoc may have many more.
const SHOWN: usize = 50;

/// The network of RUN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BuildNetwork {
    /// A namespace of its own, on the built-in bridge.
    #[default]
    Default,
    /// A namespace with nothing but loopback.
    None,
    /// The machine's.
    Host,
}

/// What is to be built.
#[derive(Debug)]
pub struct BuildRequest {
    /// The Dockerfile; `None`: it is in the context.
    pub dockerfile: Option<Vec<u8>>,
    /// Its name in the context, or what it is called in errors.
    pub file: String,
    /// Where the context comes from, for people: the client's directory, or nothing.
    pub place: String,
    /// Everything that can be copied.
    pub context: Context,
    /// What has come of the context: its bytes, and how long that took.
    pub received: (u64, Duration),
    /// What else FROM and --from mean, by [`context_name`].
    pub contexts: BTreeMap<String, NamedContext>,
    /// Names of the image.
    pub names: Vec<ImageRef>,
    /// Values for ARGs.
    pub args: BTreeMap<String, String>,
    /// A stage; empty: the last one.
    pub target: String,
    /// Nothing is taken from earlier builds.
    pub no_cache: bool,
    /// Images of FROM are asked for at their registries again.
    pub pull: bool,
    /// Labels of the image, over those of the Dockerfile.
    pub labels: BTreeMap<String, String>,
    /// The network of RUN.
    pub network: BuildNetwork,
    /// The `.dockerignore` that the context was made with.
    pub ignore: Vec<u8>,
    /// What else RUN gets.
    pub run: RunOptions,
    /// Who to be at registries.
    pub credentials: Known,
    /// Stages, by name or number, for which nothing is taken from earlier builds.
    pub no_cache_filter: Vec<String>,
    /// What is built for; none: this machine.
    pub platforms: Vec<Platform>,
    /// What becomes of the result.
    pub wanted: Wanted,
    /// Steps of other machines.
    pub cache: CacheRequest,
}

/// What happens in a build. Steps are numbered from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildEvent {
    /// A step begins.
    Begun {
        /// Its number.
        step: u32,
        /// `[2/4] RUN make`
        title: String,
    },
    /// It says something.
    Output {
        /// Its number.
        step: u32,
        /// What.
        data: Vec<u8>,
    },
    /// The next piece of an archive for whoever listens. The numbers of outputs go from 0, first those of [`Wanted::outputs`], then
    /// an archive of steps for each [`CacheTo::Archive`].
    Exported {
        /// Of which output.
        output: u32,
        /// What.
        data: Vec<u8>,
    },
    /// It is over.
    Done {
        /// Its number.
        step: u32,
        /// How long it took.
        took: Duration,
        /// How.
        end: StepEnd,
    },
    /// Something in the Dockerfile may be meant otherwise.
    Warning(BuildWarning),
}

/// How a step has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// It was done.
    Made,
    /// It was there, from an earlier build or from one that did the same.
    Cached,
    /// Another one has failed, or the client has gone.
    Canceled,
    /// Why it has failed.
    Failed(String),
}

/// Why there is no image.
#[derive(Clone, Debug)]
pub struct BuildFailure {
    /// Why.
    pub error: Error,
    /// The lines of the Dockerfile around, as docker shows them; may be empty.
    pub excerpt: String,
}

/// An error about the Dockerfile, and where it is.
#[derive(Debug)]
struct Failed {
    error: Error,
    /// First and last line, from 1.
    lines: Option<(usize, usize)>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, lines: None }
    }
}

/// An error that says everything itself.
fn refuse(kind: ErrorKind, why: impl Into<String>) -> Error {
    Error::new(kind, About::Words, why)
}

/// The components of a path, without `.`, and without `..` that would lead above its beginning.
fn clean(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
}

impl Engine {
    /// Builds an image, or none at all: names are given to it in the end and all at once. If nobody listens to `events` any more,
    /// the build ends.
    ///
    /// # Errors
    /// What is wrong with the Dockerfile, what a step ends with, the registry's and the disk's.
    pub async fn build(&self, request: BuildRequest, events: mpsc::Sender<BuildEvent>) -> Result<Built, BuildFailure> {
        let inner = self.inner().clone();
        let crashed =
            || BuildFailure { error: refuse(ErrorKind::Internal, "the build crashed; see the log"), excerpt: String::new() };
        // Whoever asked may go away; what was begun is taken down in any case.
        let building = tokio::spawn(async move {
            let mut recording = recording::Recording::begin(&inner, &request).await;
            let (sender, happened) = mpsc::channel(WAITING);
            let (built, ()) = tokio::join!(inner.clone().build(request, sender), recording.pass(happened, events));
            recording.end(&built).await;
            blocking(move || inner.settle_builds()).await;
            built
        });
        building.await.unwrap_or_else(|_| Err(crashed()))
    }
}

impl Inner {
    async fn build(self: Arc<Self>, request: BuildRequest, events: mpsc::Sender<BuildEvent>) -> Result<Built, BuildFailure> {
        let bare = |error: Error| BuildFailure { error, excerpt: String::new() };
        let text = match &request.dockerfile {
            Some(text) => text.clone(),
            None => self.dockerfile(&request.context, &request.file).await.map_err(bare)?,
        };
        let name = request.file.clone();
        let built = graph::build(self, request, &text, events).await;
        built.map_err(|failed| failed.shown(&name, &String::from_utf8_lossy(&text)))
    }

    /// The Dockerfile of a context.
    async fn dockerfile(self: &Arc<Self>, context: &Context, file: &str) -> Result<Vec<u8>, Error> {
        let root = self.mounted(context.layers.clone()).await?;
        let wanted = format!("/{}", clean(file).join("/"));
        let why = format!("failed to read dockerfile: open {file}: no such file or directory");
        blocking(move || {
            use std::io::Read as _;
            let missing = || refuse(ErrorKind::NotFound, why.clone());
            // Not opened before it is known to be a file.
            let found = root.resolve(&wanted, Links::Follow).map_err(|_| missing())?;
            let stat = rustix::fs::fstat(&found).map_err(|_| missing())?;
            if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
                return Err(refuse(ErrorKind::InvalidArgument, format!("failed to read dockerfile: {wanted} is no file")));
            }
            let file = root.open(&wanted, OFlags::RDONLY | OFlags::NONBLOCK, Links::Follow).map_err(|_| missing())?;
            let mut text = Vec::new();
            File::from(file).take(DOCKERFILE + 1).read_to_end(&mut text).map_err(|_| missing())?;
            Ok(text)
        })
        .await
    }

    /// Layers on each other, to read; they are pinned by the caller.
    pub(crate) async fn mounted(self: &Arc<Self>, layers: Vec<DiffId>) -> Result<Root, Error> {
        let inner = self.clone();
        let mount: OwnedFd = blocking(move || {
            let image = ImageInfo::loose(layers, ImageDefaults::default());
            inner.images.volume(&image, "", None).step(About::Words, "mount what is copied from")
        })
        .await?;
        Ok(Root::from(mount))
    }
}

/// The lines around, two of a single one and one of several as docker has it, with marks at those that are meant.
fn excerpt(name: &str, text: &str, (first, last): (usize, usize)) -> String {
    let rule = "-".repeat(20);
    let around = if first == last { 2 } else { 1 };
    let (from, to) = (first.saturating_sub(around).max(1), last + around);
    let line = |(number, line): (usize, &str)| {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let shown: String = line.chars().take(500).collect();
        format!("{number:4} | {mark} {shown}\n")
    };
    let numbered = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    let lines: String = numbered.skip(from - 1).take_while(|(number, _)| *number <= to).take(SHOWN).map(line).collect();
    format!("{name}:{first}\n{rule}\n{lines}{rule}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_marked() {
        let text = "FROM a\n\nRUN false \\\n  && true\nCMD x\n";
        let wanted = "D:3\n--------------------\n   2 |     \n   3 | >>> RUN false \\\n   4 | >>>   && true\n   5 |     CMD x\n--------------------\n";
        assert_eq!(excerpt("D", text, (3, 4)), wanted);
        let single =
            "D:5\n--------------------\n   3 |     RUN false \\\n   4 |       && true\n   5 | >>> CMD x\n--------------------\n";
        assert_eq!(excerpt("D", text, (5, 5)), single);
        assert_eq!(excerpt("D", &"x\n".repeat(999), (2, 900)).lines().count(), 3 + SHOWN);
        assert_eq!(excerpt("D", "", (1, 1)), "D:1\n--------------------\n--------------------\n");
    }

    #[test]
    fn paths_stay_inside() {
        assert_eq!(clean("/a/../../b/./c/"), ["b", "c"]);
        assert_eq!(clean("../.."), Vec::<&str>::new());
    }
}
