//! What RUN has mounted: found before the step's key is known, made when it runs. Everything goes by descriptors that are attached
//! nowhere (R57), so that nothing is looked up twice, and what goes is the mount and never a path.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use dockerfile::{
    Ignore, Run,
    mount::{self as asked, Mount, MountKind, Owner, Sharing},
};
use model::{ContainerId, DiffId, ErrorKind, container::ImageDefaults, plan::MountFlags};
use rustix::fs::OFlags;
use sys::{
    mount,
    path::{Links, Root},
};

use super::{
    agents,
    caches::{Held, Wanted},
    clean,
    copy::Source,
    copying::From,
    find,
    graph::Build,
    key::{Key, Ownership},
    memory, refuse,
    state::State,
};
use crate::{
    Inner,
    blocking::blocking,
    container::given::{Given, GivenMount},
    error::{About, Error, Step as _},
    image::{Durability, ImageInfo},
    spec,
};

/// Where the script of a heredoc is, as docker has it.
const PIPES: &str = "/dev/pipes";
/// Mode of a secret's file.
const SECRET: u32 = 0o400;
/// Mode of an agent's socket.
const SOCKET: u32 = 0o600;

/// The mounts of one RUN.
#[derive(Default)]
pub(super) struct Mounts {
    list: Vec<Found>,
    /// Variables that the program has from them.
    env: Vec<(String, Vec<u8>)>,
}

struct Found {
    target: String,
    readonly: bool,
    what: What,
    /// Everything that tells it from others.
    key: Vec<Vec<u8>>,
}

enum What {
    Bind(Files),
    Cache {
        wanted: Wanted,
        basis: Option<Files>,
    },
    Tmpfs(Option<u64>),
    Secret(super::SecretValue, Owner),
    Agent(String, Owner),
    Script(Vec<u8>),
    /// Nothing: a secret that is only a variable, something that nobody has and that need not be.
    Nothing,
}

/// A part of a stage, an image or the context.
struct Files {
    from: From,
    path: String,
}

impl Mounts {
    /// Adds everything that tells these mounts from others.
    pub(super) fn count(&self, key: Key) -> Key {
        let key = key.part((self.list.len() as u64).to_le_bytes());
        self.list.iter().fold(key, |key, found| key.part(&found.target).part([u8::from(found.readonly)]).list(&found.key))
    }

    /// The script of a heredoc that says itself what it is run by; answers where it is.
    pub(super) fn script(&mut self, name: &str, content: &str) -> String {
        let target = format!("{PIPES}/{}", name.replace('/', "_"));
        let what = What::Script(content.as_bytes().to_vec());
        let key = vec![b"script".to_vec(), content.as_bytes().to_vec()];
        self.list.push(Found { target: target.clone(), readonly: true, what, key });
        target
    }
}

fn invalid(why: impl Into<String>) -> Error {
    refuse(ErrorKind::InvalidArgument, why)
}

/// Where it goes.
///
/// # Errors
/// A place where nothing may be mounted.
fn target_of(working_dir: &str, target: &str) -> Result<String, Error> {
    let path = if target.starts_with('/') { target.to_owned() } else { format!("{working_dir}/{target}") };
    let clean = format!("/{}", clean(&path).join("/"));
    if matches!(clean.as_str(), "/" | "/dev" | "/sys") {
        return Err(invalid(format!("invalid mount target {target:?}")));
    }
    spec::check_mount_target(&clean).step(About::Words, "RUN --mount")?;
    Ok(clean)
}

impl Build<'_> {
    /// What the flags of a RUN mean.
    pub(super) async fn mounts(&self, state: &State, run: &Run, stage: usize) -> Result<Mounts, Error> {
        let mut mounts = Mounts::default();
        for flag in run.flags.iter().filter(|flag| flag.name == "mount") {
            let text = flag.value.as_deref().unwrap_or_default();
            let mount = asked::read(text, |value| state.changed.word(value)).map_err(|e| invalid(e.to_string()))?;
            let found = self.found(mount, &mut mounts, state, stage).await?;
            if mounts.list.iter().any(|other| !matches!(other.what, What::Nothing) && other.target == found.target) {
                return Err(invalid(format!("RUN --mount: {} is mounted on twice", found.target)));
            }
            mounts.list.push(found);
        }
        Ok(mounts)
    }

    async fn found(&self, mount: Mount, mounts: &mut Mounts, state: &State, stage: usize) -> Result<Found, Error> {
        let place = |default: &str| target_of(state.working_dir(), mount.target.as_deref().unwrap_or(default));
        let readonly = mount.readonly;
        match mount.kind.clone() {
            MountKind::Bind { from, source } => {
                let (target, files) = (place("")?, self.files(from.as_deref(), &source, stage).await?);
                let key = [vec![b"bind".to_vec()], self.key_of(&files).await?].concat();
                Ok(Found { target, readonly, what: What::Bind(files), key })
            }
            MountKind::Cache { id, from, source, sharing, owner } => {
                let target = place("")?;
                let basis = match from {
                    Some(from) => Some(self.files(Some(&from), &source, stage).await?),
                    None if source != "/" => return Err(invalid(format!("{source:?}: not found: an empty cache has no source"))),
                    None => None,
                };
                let basis_key = match &basis {
                    Some(files) => self.key_of(files).await?,
                    None => Vec::new(),
                };
                let name = id.unwrap_or_else(|| target.clone());
                let shown = basis_key.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect();
                let wanted = Wanted { name: name.clone(), basis: shown, sharing, owner };
                let key = [vec![b"cache".to_vec(), name.into_bytes(), format!("{sharing:?} {owner:?}").into_bytes()], basis_key];
                Ok(Found { target, readonly, what: What::Cache { wanted, basis }, key: key.concat() })
            }
            MountKind::Tmpfs { size } => {
                let key = vec![b"tmpfs".to_vec(), format!("{size:?}").into_bytes()];
                Ok(Found { target: place("")?, readonly, what: What::Tmpfs(size), key })
            }
            MountKind::Secret { id, env, required, owner } => {
                let last = id.rsplit('/').next().unwrap_or_default().to_owned();
                let target = place(&format!("/run/secrets/{last}"))?;
                let value = self.request.run.secrets.get(&id);
                if required && value.is_none() {
                    return Err(refuse(ErrorKind::NotFound, format!("secret {id}: not found")));
                }
                let key = vec![b"secret".to_vec(), id.into_bytes(), format!("{env:?} {owner:?} {required}").into_bytes()];
                if let (Some(name), Some(value)) = (&env, value) {
                    mounts.env.push((name.clone(), value.expose().to_vec()));
                }
                let what = match value {
                    Some(value) if env.is_none() || mount.target.is_some() => What::Secret(value.clone(), owner),
                    _ => What::Nothing,
                };
                Ok(Found { target, readonly: true, what, key })
            }
            MountKind::Ssh { id, required, owner } => {
                let number = mounts.list.iter().filter(|found| found.key.first().is_some_and(|kind| kind == b"ssh")).count();
                let target = place(&format!("/run/buildkit/ssh_agent.{number}"))?;
                let there = self.request.run.agents.as_ref().is_some_and(|agents| agents.ids.contains(&id));
                if required && !there {
                    return Err(refuse(ErrorKind::NotFound, format!("ssh forward: {id}: not found (give --ssh {id})")));
                }
                if number == 0 && !state.environment().iter().any(|(name, _)| name == "SSH_AUTH_SOCK") {
                    mounts.env.push(("SSH_AUTH_SOCK".to_owned(), target.clone().into_bytes()));
                }
                let key = vec![b"ssh".to_vec(), id.clone().into_bytes(), format!("{owner:?} {required}").into_bytes()];
                let what = if there { What::Agent(id, owner) } else { What::Nothing };
                Ok(Found { target, readonly: false, what, key })
            }
        }
    }

    async fn files(&self, from: Option<&str>, source: &str, stage: usize) -> Result<Files, Error> {
        let from = self.source(from, stage).await?;
        Ok(Files { from, path: format!("/{}", clean(source).join("/")) })
    }

    /// What is mounted: the layers that are known, or of the context what the files are.
    async fn key_of(&self, files: &Files) -> Result<Vec<Vec<u8>>, Error> {
        let mut key = vec![files.path.clone().into_bytes()];
        match &files.from.known {
            Some(layers) => key.extend(layers.iter().map(|layer| layer.to_string().into_bytes())),
            None => {
                let (root, path) = (self.inner.mounted(files.from.layers.clone()).await?, escaped(&files.path));
                let listing = files.from.listing.clone();
                let digest = blocking(move || {
                    let (found, all) = (find::find(&root, &path, find::Layout::Flat)?, Ignore::default());
                    let known = |source: &Source| source.listed(listing.as_ref()?, &all);
                    let digest = |source| known(source).map_or_else(|| source.digest(Ownership::Ignored, &all), Ok);
                    found.iter().map(digest).collect::<Result<Vec<_>, _>>()
                });
                key.extend(digest.await?.into_iter().map(|digest| digest.to_vec()));
            }
        }
        Ok(key)
    }

    /// Makes them. Caches that are somebody else's alone are waited for, always in the same order.
    pub(super) async fn make_mounts(&self, mounts: Mounts) -> Result<Given, Error> {
        let mut given = Given { env: mounts.env, ..Given::default() };
        let held = self.caches(&mounts.list).await?;
        for Found { target, readonly, what, .. } in mounts.list {
            let mut flags = MountFlags { readonly, recursive: false, nosuid: false, nodev: true, noexec: false };
            let closed = MountFlags { nosuid: true, noexec: true, ..flags };
            let mount = match what {
                What::Nothing => continue,
                What::Bind(files) => self.bind(files, readonly, &mut given).await?,
                What::Cache { wanted, .. } => {
                    let of = |held: &&(Wanted, Arc<Held>)| held.0.order() == wanted.order();
                    let (_, held) = held.iter().find(of).ok_or_else(|| refuse(ErrorKind::Internal, "a cache is missing"))?;
                    given.keep.push(Box::new(held.clone()));
                    held.mount(&wanted.name)?
                }
                What::Tmpfs(size) => memory::directory(size)?,
                What::Secret(value, owner) => {
                    flags = closed;
                    memory::file(value.expose(), owner, SECRET)?
                }
                What::Script(content) => memory::file(&content, Owner::default(), 0o755)?,
                What::Agent(id, owner) => {
                    flags = MountFlags { readonly: false, ..closed };
                    let (mount, relay) = agents::socket(self.request.run.agents.clone(), id, owner, SOCKET)?;
                    given.keep.push(Box::new(relay));
                    mount
                }
            };
            given.mounts.push(GivenMount { target, mount, flags });
        }
        Ok(given)
    }

    /// All caches, each once however often it is mounted.
    async fn caches(&self, list: &[Found]) -> Result<Vec<(Wanted, Arc<Held>)>, Error> {
        let mut wanted: Vec<(Wanted, Option<&Files>)> = Vec::new();
        for found in list {
            let What::Cache { wanted: one, basis } = &found.what else { continue };
            match wanted.iter_mut().find(|(known, _)| known.order() == one.order()) {
                Some((known, _)) if known.sharing == Sharing::Shared => known.sharing = one.sharing,
                Some(_) => {}
                None => wanted.push((one.clone(), basis.as_ref())),
            }
        }
        wanted.sort_by_key(|(wanted, _)| wanted.order());
        let mut held = Vec::new();
        for (wanted, basis) in wanted {
            let basis = match basis {
                Some(files) => {
                    let (root, path) = (self.inner.mounted(files.from.layers.clone()).await?, files.path.clone());
                    Some(blocking(move || opened(&root, &path)).await?)
                }
                None => None,
            };
            let fill = move |new: &OwnedFd| basis.map_or(Ok(()), |basis| spec::volumes::copy(&basis, new));
            let cache = self.unless_canceled(self.inner.caches.hold(wanted.clone(), fill)).await??;
            held.push((wanted, Arc::new(cache)));
        }
        Ok(held)
    }

    async fn bind(&self, files: Files, readonly: bool, given: &mut Given) -> Result<OwnedFd, Error> {
        let Files { from, path } = files;
        if readonly {
            let root = self.inner.mounted(from.layers).await?;
            return blocking(move || part(&root, &path)).await;
        }
        let scratch = Scratch { inner: self.inner.clone(), id: ContainerId::from_bytes(crate::random_id()) };
        let (inner, id) = (self.inner.clone(), scratch.id);
        given.keep.push(Box::new(scratch));
        blocking(move || part(&inner.discarded(from.layers, id)?, &path)).await
    }
}

impl Inner {
    /// Layers with a writable one on them that nobody keeps. Blocks.
    fn discarded(&self, layers: Vec<DiffId>, id: ContainerId) -> Result<Root, Error> {
        let image = ImageInfo::loose(layers, ImageDefaults::default());
        let root = self.images.rootfs(&image, id, Durability::Volatile, (None, None));
        Ok(Root::from(root.step(About::Words, "mount what is written to")?))
    }
}

/// A writable layer that is thrown away.
struct Scratch {
    inner: Arc<Inner>,
    id: ContainerId,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // One rename(2); what cannot be removed now is at the next start.
        if let Err(error) = self.inner.store.remove_container_dir(self.id) {
            tracing::warn!(error = crate::chain(&error), "files that a step has written and nobody keeps");
        }
    }
}

/// A pattern that means just this path.
fn escaped(path: &str) -> String {
    path.chars().flat_map(|c| matches!(c, '*' | '?' | '[' | '\\').then_some('\\').into_iter().chain([c])).collect()
}

fn missing(path: &str) -> impl Fn(sys::Errno) -> Error {
    move |e| match e {
        sys::Errno::NOENT | sys::Errno::NOTDIR => refuse(ErrorKind::NotFound, format!("{path:?}: not found")),
        e => refuse(sys::kind_of(e), format!("{path:?}: {e}")),
    }
}

fn opened(root: &Root, path: &str) -> Result<OwnedFd, Error> {
    root.open(path, OFlags::RDONLY | OFlags::DIRECTORY, Links::Follow).map_err(missing(path))
}

/// A mount of a file or directory in a detached one. Blocks.
fn part(root: &Root, path: &str) -> Result<OwnedFd, Error> {
    let whole = root.as_fd().try_clone_to_owned().map_err(|_| refuse(ErrorKind::ResourceExhausted, "open files"))?;
    if path == "/" {
        return Ok(whole);
    }
    let inside = root.resolve(path, Links::Follow).map_err(missing(path))?;
    mount::subtree(&whole, &inside).map_err(missing(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_stay_where_they_may_be() {
        let told = |target| target_of("/src", target).map_err(|e| e.chain());
        assert_eq!(told("a/../b"), Ok("/src/b".to_owned()));
        assert_eq!(told("/x//y/"), Ok("/x/y".to_owned()));
        for bad in ["/", "..", "/..", "/dev", "/sys", "/proc", "/proc/self/attr", "/a/../proc/x"] {
            assert!(told(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_mean_themselves() {
        assert_eq!(escaped("/a[b]*"), "/a\\[b]\\*");
    }
}
