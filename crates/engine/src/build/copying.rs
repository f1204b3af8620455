//! The steps COPY and ADD.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    os::fd::AsFd as _,
    sync::Arc,
};

use dockerfile::{Copy, from_of};
use model::{DiffId, ErrorKind};
use sha2::{Digest as _, Sha256};
use sys::path::Root;

use super::{
    Context, NamedContext,
    asked::{Asked, Link, Origin, Unpack},
    copy::{self, Loose, Source, Target, What},
    fetch::Remote,
    find,
    graph::{Build, LATEST},
    key::{Key, Ownership},
    listing::Listing,
    refuse,
    stages::Spot,
    state::State,
    steps::Written,
    straight,
};
use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error, Step as _},
    user::{Owners, owner_of},
};

/// Where files are copied from.
pub(super) struct From {
    pub(super) layers: Vec<DiffId>,
    /// What goes into the key instead of the files themselves; `None`: the files do.
    pub(super) known: Option<Vec<DiffId>>,
    pub(super) listing: Option<Arc<Listing>>,
    owners: Owners,
    pub(super) _pins: Option<store::LayerPins>,
}

impl Build<'_> {
    pub(super) async fn copy(&self, state: &mut State, copy: &Copy, spot: Spot<'_>) -> Result<(), Error> {
        let asked = Asked::new(state, &spot.located.instruction, copy)?;
        let from = self.source(from_of(copy), spot.stage).await?;
        let progress = self.begun(format!("{} {}", self.place(spot), spot.located.text)).await?;
        let copied = async {
            let (found, digests) = self.find(&asked, &from).await?;
            let owners = self.owners(state, &asked, &from).await?;
            let key = key(state, &asked, &from, owners).list(digests);
            let linked = asked.link == Link::Nothing;
            let (layers, latest) = if linked { (Vec::new(), 0) } else { (state.layers.clone(), self.latest(state)) };
            let epoch = self.epoch;
            let Asked { path, directory, chown, chmod, exclude, unpack, .. } = asked;
            let sources = self.fetched(found, unpack);
            let target = move |root: &Root| {
                let by_name = || chown.as_deref().map(|chown| owner(chown, root)).transpose();
                let owners = owners.map_or_else(by_name, |owners| Ok(Some(owners)))?.unwrap_or(from.owners);
                Ok(Target { path, directory, owners, chmod, exclude })
            };
            let when = move |newest: i64| epoch.unwrap_or_else(|| latest.max(newest.clamp(0, LATEST)));
            let work = async {
                let sources = sources.await?;
                self.inner.copied(layers, sources, target, when).await
            };
            self.make(state, key, &spot.located.text, work).await
        };
        self.ended(progress, copied).await
    }

    /// Finds what is copied, and the digests of all whose layers do not say what it is.
    async fn find(&self, asked: &Asked, from: &From) -> Result<(Vec<Found>, Vec<[u8; 32]>), Error> {
        let (mut found, mut digests, mut paths) = (Vec::new(), Vec::new(), Vec::new());
        for origin in &asked.origins {
            match origin {
                Origin::Url(url) => {
                    let find = Remote::find(&self.inner, url, asked.checksum.as_ref());
                    let remote = self.unless_canceled(find).await??;
                    if !remote.has_name() && asked.directory {
                        let why = format!("cannot determine filename from url: {url}");
                        return Err(refuse(ErrorKind::InvalidArgument, why));
                    }
                    digests.push(Sha256::digest(remote.digest.to_string()).into());
                    found.push(Found::Away(remote));
                }
                Origin::Path(path) => paths.push(path.clone()),
                Origin::Document(name, content) => {
                    digests.push(Sha256::digest(content).into());
                    let (inner, name, content) = (self.inner.clone(), name.clone(), content.clone());
                    found.push(Found::Here(blocking(move || document(&inner, &name, &content)).await?));
                }
            }
        }
        if !paths.is_empty() {
            let (sources, more) = self.sources(paths, asked, from).await?;
            found.extend(sources.into_iter().map(Found::Here));
            digests.extend(more);
        }
        Ok((found, digests))
    }

    /// What is in the layers that files are copied from.
    async fn sources(&self, paths: Vec<String>, asked: &Asked, from: &From) -> Result<(Vec<Source>, Vec<[u8; 32]>), Error> {
        let mount = self.inner.mounted(from.layers.clone()).await?;
        let (layout, unpack, exclude) = (asked.layout, asked.unpack, asked.exclude.clone());
        let (ownership, known) = (ownership(from.owners), from.known.is_some());
        let question = Key::new("digests", &from.layers).list(&paths).list(&asked.excluded);
        let question = question.part(format!("{layout:?} {unpack:?} {ownership:?}")).id();
        let (inner, listing) = (self.inner.clone(), from.listing.clone());
        blocking(move || {
            let mut found = Vec::new();
            for path in &paths {
                found.extend(find::find(&mount, path, layout)?);
            }
            if unpack != Unpack::None {
                found.iter_mut().try_for_each(Source::look_inside)?;
            }
            if known {
                return Ok((found, Vec::new()));
            }
            let listed = |listing: Arc<Listing>| found.iter().map(|source| source.listed(&listing, &exclude)).collect();
            if let Some(digests) = listing.and_then(listed) {
                return Ok((found, digests));
            }
            // Layers never change, and so do not the files in them.
            let digests = match inner.contexts.answer(question) {
                Some(digests) => digests,
                None => found.iter().map(|source| source.digest(ownership, &exclude)).collect::<Result<Vec<_>, _>>()?,
            };
            inner.contexts.remember(question, digests.clone());
            Ok((found, digests))
        })
        .await
    }

    /// Everything, here.
    async fn fetched(&self, found: Vec<Found>, unpack: Unpack) -> Result<Vec<Source>, Error> {
        let mut sources = Vec::new();
        for found in found {
            sources.push(match found {
                Found::Here(source) => source,
                Found::Away(remote) => {
                    let mut source = self.unless_canceled(remote.source(&self.inner)).await??;
                    if unpack == Unpack::All {
                        source = blocking(move || source.look_inside().map(|()| source)).await?;
                    }
                    source
                }
            });
        }
        Ok(sources)
    }

    /// Whose the files are if that is to be known now: names are looked up in the files so far, which `--link` does not copy onto.
    async fn owners(&self, state: &State, asked: &Asked, from: &From) -> Result<Option<Owners>, Error> {
        let Some(chown) = &asked.chown else { return Ok(Some(from.owners)) };
        if asked.link == Link::Parent {
            return Ok(None);
        }
        let root = self.inner.mounted(state.layers.clone()).await?;
        let chown = chown.clone();
        blocking(move || owner(&chown, &root)).await.map(Some)
    }

    /// What `--from` means. The layers of stages and images say what is in them; of the context only what is copied counts.
    pub(super) async fn source(&self, from: Option<&str>, stage: usize) -> Result<From, Error> {
        let files = |context: &Context| {
            let (layers, listing) = (context.layers.clone(), context.listing.clone());
            From { layers, known: None, listing, owners: Owners::Root, _pins: None }
        };
        let Some(from) = from else { return Ok(files(&self.request.context)) };
        let named = self.named(from);
        if let Some(NamedContext::Files(context)) = named {
            return Ok(files(context));
        }
        if let Some(stage) = self.stages.from_flag(stage, from).filter(|_| named.is_none()) {
            let layers = self.finished(stage).await?.layers.clone();
            return Ok(From { known: Some(layers.clone()), layers, listing: None, owners: Owners::Archive, _pins: None });
        }
        let basis = self.basis(from, &self.platform).await?;
        let (known, pins) = (Some(basis.layers.clone()), Some(basis.pins));
        Ok(From { known, layers: basis.layers, listing: None, owners: Owners::Archive, _pins: pins })
    }
}

impl Inner {
    /// What has come of copying onto these layers: a layer that is written at once, or what a writable one has then.
    async fn copied(
        self: &Arc<Self>,
        layers: Vec<DiffId>,
        sources: Vec<Source>,
        target: impl FnOnce(&Root) -> Result<Target, Error> + Send + 'static,
        when: impl Fn(i64) -> i64 + Send + 'static,
    ) -> Result<Written, Error> {
        let (inner, lower) = (self.clone(), self.mounted(layers.clone()).await?);
        let straight = move || {
            let target = target(&lower)?;
            let straight = straight::layer(&inner, &lower, &sources, &target, &when)?;
            Ok((straight, sources, target, when))
        };
        let (straight, sources, target, when) = blocking(straight).await?;
        if let Some((layer, newest)) = straight {
            return Ok(Written { layer, newest });
        }
        let work = move |root: &Root| {
            let newest = copy::copy(&sources, root, &target)?;
            Ok(when(i64::try_from(newest).unwrap_or(0)))
        };
        self.write_layer(layers, work).await
    }
}

/// Something that is copied.
#[derive(Debug)]
enum Found {
    Here(Source),
    Away(Remote),
}

/// Everything but what is copied.
fn key(state: &State, asked: &Asked, from: &From, owners: Option<Owners>) -> Key {
    let layers = if asked.link == Link::Parent { state.layers.as_slice() } else { &[] };
    let named = asked.origins.iter().map(|origin| match origin {
        Origin::Path(path) | Origin::Url(path) => path.as_str(),
        Origin::Document(name, _) => name,
    });
    Key::new("COPY", layers)
        .list(from.known.iter().flatten().map(ToString::to_string))
        .list(named)
        .list([&asked.path, &asked.destination])
        .list(&asked.excluded)
        .part(asked.chown.as_deref().unwrap_or_default())
        .part(format!("{owners:?} {:?} {:?}", asked.chmod, ownership(from.owners)))
        .part(format!("{} {:?} {:?} {:?}", asked.directory, asked.link, asked.layout, asked.unpack))
}

/// A file of the Dockerfile's own.
fn document(inner: &Inner, name: &str, content: &str) -> Result<Source, Error> {
    let written = || -> std::io::Result<File> {
        let mut file = crate::nameless(&inner.config.root)?;
        file.write_all(content.as_bytes())?;
        file.rewind()?;
        Ok(file)
    };
    let file = written().map_err(|e| refuse(ErrorKind::Internal, format!("write {name}: {e}")))?;
    Ok(Source::new(What::Loose(Loose { file, mode: 0o644, mtime: None }), name))
}

fn ownership(owners: Owners) -> Ownership {
    if owners == Owners::Archive { Ownership::Counts } else { Ownership::Ignored }
}

/// `--chown=USER[:GROUP]`, names as the image has them. Without a group it is the user's number, as docker has it.
fn owner(text: &str, root: &Root) -> Result<Owners, Error> {
    let found = owner_of(text, root.as_fd()).step(About::Words, "--chown")?;
    let gid = if text.contains(':') { found.gid } else { found.uid };
    Ok(Owners::Ids(found.uid, gid))
}
