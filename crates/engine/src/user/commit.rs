//! An image out of a container of people's: its image, and what it has changed.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use model::{ErrorKind, ImageId, ImageRef};
use serde_json::{Map, Value, json};

use super::{UserContainer, record::Phase};
use crate::{
    Engine, Inner,
    blocking::blocking,
    container::Container,
    error::{About, Error, Step},
    failpoint,
    image::Commit,
};

/// How long freezing may take.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at a freezer.
const GLANCE: Duration = Duration::from_millis(5);
/// What an image out of a container is to be.
#[derive(Clone, Debug)]
pub struct UserCommit {
    /// None: the image has no name.
    pub name: Option<ImageRef>,
    /// Who made it; may be empty.
    pub author: String,
    /// What they say of it; may be empty.
    pub comment: String,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// Whether the container stands still meanwhile.
    pub pause: Pause,
}

/// Whether a container stands still while it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// It does.
    Yes,
    /// What it writes meanwhile may be in the image or not, or half.
    No,
}

impl Engine {
    /// Makes an image out of a container. It stands still meanwhile, unless it does not run or `pause` says no.
    ///
    /// # Errors
    /// `InvalidArgument` for changes that are none; if the disk fails. Nothing is left then.
    pub async fn commit_user(&self, user: &Arc<UserContainer>, wanted: UserCommit) -> Result<ImageId, Error> {
        let (inner, user) = (self.inner().clone(), user.clone());
        // Whoever asked may go away; the container runs again in any case.
        let done = tokio::spawn(async move { inner.commit_user(&user, wanted).await });
        done.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, About::Engine, "the work crashed; see the log")))
    }
}

impl Inner {
    async fn commit_user(self: &Arc<Self>, user: &Arc<UserContainer>, wanted: UserCommit) -> Result<ImageId, Error> {
        let _ops = user.ops.lock().await;
        let commit = self.commit_of(user, &wanted).await?;
        let paused = user.now.borrow().paused;
        let container = self.table.container(user.id).ok().filter(|_| user.phase() == Phase::Running && !paused);
        let frozen = match (wanted.pause, &container) {
            (Pause::Yes, Some(container)) => Some(self.stand_still(container).await?),
            _ => None,
        };
        let made = match failpoint::hit("commit.frozen", user.id) {
            Ok(()) => self.images.commit(commit).await,
            Err(error) => Err(error),
        };
        if let Some(frozen) = frozen {
            frozen.end(self).await?;
        }
        let id = made?;
        self.tell_user(user, "commit", [("imageID", id.to_string()), ("comment", wanted.comment)]);
        Ok(id)
    }

    /// The supervisor freezes and not we: it lets the container run again if we die.
    async fn stand_still<'c>(&self, container: &'c Arc<Container>) -> Result<Frozen<'c>, Error> {
        let id = container.id;
        container.pod.shim()?.freeze(vec![id]).await.step(id, "freeze the container")?;
        let frozen = Frozen { container };
        let group = self.group(&container.plan.cgroup).step(id, "find the container's freezer")?;
        let wait = async {
            while !group.is_frozen().step(id, "look at the freezer")? {
                tokio::time::sleep(GLANCE).await;
            }
            Ok(())
        };
        let waited = tokio::time::timeout(FREEZE_DEADLINE, wait).await;
        let late = || Err(Error::new(ErrorKind::DeadlineExceeded, id.into(), "it did not freeze"));
        match waited.unwrap_or_else(|_| late()) {
            Ok(()) => Ok(frozen),
            Err(error) => frozen.end(self).await.and(Err(error)),
        }
    }

    async fn commit_of(self: &Arc<Self>, user: &Arc<UserContainer>, wanted: &UserCommit) -> Result<Commit, Error> {
        // Of one that has never run it is made now, and empty.
        let dir = self.store.container_dir(user.id).step(user.id, "make the writable layer")?;
        let upper =
            blocking(move || std::fs::File::open(dir.upper).map(OwnedFd::from)).await.step(user.id, "open the writable layer")?;
        Ok(Commit {
            image: user.image.id,
            upper,
            mounted: self.places_of(user).await?,
            config: config_of(user),
            changes: wanted.changes.clone(),
            author: wanted.author.clone(),
            comment: wanted.comment.clone(),
            created_by: user.command().join(" "),
            name: wanted.name.clone(),
        })
    }
}

/// A container that stands still.
struct Frozen<'c> {
    container: &'c Arc<Container>,
}

impl Frozen<'_> {
    /// It runs again, if anything can make it: the supervisor, or we.
    async fn end(self, inner: &Inner) -> Result<(), Error> {
        let id = self.container.id;
        // A supervisor that is gone has taken the container with it.
        let Ok(shim) = self.container.pod.shim() else { return Ok(()) };
        let Err(asked) = shim.thaw().await.step(id, "let the container run again") else { return Ok(()) };
        let thawed = inner.group(&self.container.plan.cgroup).and_then(|group| group.set_freezer(sys::cgroup::Freezer::Thawed));
        thawed.map_err(|_| asked)
    }
}

/// The container's own values, named as in an image's config. What it has from its image is not among them.
fn config_of(user: &UserContainer) -> Map<String, Value> {
    let (spec, image) = (user.spec(), &user.defaults);
    let container = &spec.container;
    let mut config = Map::new();
    let mut set = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
    let reset = container.own.as_ref().is_some_and(|own| own.no_entrypoint);
    if reset || !container.command.is_empty() {
        set("Entrypoint", json!(container.command));
        set("Cmd", json!(container.args));
    } else if !container.args.is_empty() {
        set("Cmd", json!(container.args));
    }
    let mut env = image.env.clone();
    for variable in &container.envs {
        let line = format!("{}={}", variable.name, String::from_utf8_lossy(&variable.value));
        env.retain(|known| known.split('=').next() != Some(variable.name.as_str()));
        env.push(line);
    }
    set("Env", json!(env));
    let user_name = container.own.as_ref().map_or("", |own| own.user.as_str());
    for (key, value) in [("WorkingDir", container.working_dir.as_str()), ("User", user_name)] {
        if !value.is_empty() {
            set(key, json!(value));
        }
    }
    if let Some(signal) = &container.stop_signal {
        set("StopSignal", json!(signal.to_string()));
    }
    let labels = image.labels.iter().chain(&container.labels);
    set("Labels", Value::Object(labels.map(|(key, value)| (key.clone(), json!(value))).collect()));
    let volumes = image.volumes.iter().chain(&spec.volumes);
    set("Volumes", Value::Object(volumes.map(|path| (path.clone(), json!({}))).collect()));
    let exposed = &spec.network.exposed;
    if !exposed.is_empty() {
        let port = |port: &String| if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
        let ports = image.exposed_ports.iter().chain(exposed).map(|text| (port(text), json!({})));
        set("ExposedPorts", Value::Object(ports.collect()));
    }
    config
}
