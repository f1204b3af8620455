//! The steps COPY and ADD.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    os::fd::AsFd as _,
};

use dockerfile::{Copy, from_of};
use model::{DiffId, ErrorKind};
use sys::path::Root;

use super::{
    Context, NamedContext,
    asked::{Asked, Link, Origin, Unpack},
    checks::hinted,
    copy::{self, Loose, Source, Target, What},
    find,
    graph::{Build, LATEST},
    key::{Key, Ownership},
    refuse,
    stages::Spot,
    state::State,
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
    owners: Owners,
    pub(super) _pins: Option<store::LayerPins>,
}

impl Build<'_> {
    pub(super) async fn copy(&self, state: &mut State, copy: &Copy, spot: Spot<'_>) -> Result<(), Error> {
        let asked = Asked::new(state, &spot.located.instruction, copy)?;
        let from = self.source(from_of(copy), spot.stage).await?;
        let progress = self.begun(format!("{} {}", self.place(spot), spot.located.text)).await?;
        let copied = async {
            let (sources, digests) = self.sources(&asked, &from).await?;
            let owners = self.owners(state, &asked, &from).await?;
            let key = key(state, &asked, &from, owners).list(digests);
            let linked = asked.link == Link::Nothing;
            let (layers, latest) = if linked { (Vec::new(), 0) } else { (state.layers.clone(), self.latest(state)) };
            let epoch = self.epoch;
            let Asked { path, directory, chown, chmod, exclude, .. } = asked;
            let work = move |root: &Root| {
                let by_name = || chown.as_deref().map(|chown| owner(chown, root)).transpose();
                let owners = owners.map_or_else(by_name, |owners| Ok(Some(owners)))?.unwrap_or(from.owners);
                let newest = copy::copy(&sources, root, &Target { path, directory, owners, chmod, exclude })?;
                Ok(epoch.unwrap_or_else(|| latest.max(i64::try_from(newest).unwrap_or(0).min(LATEST))))
            };
            let work = self.inner.write_layer(layers, work);
            self.make(state, key, &spot.located.text, work).await
        };
        self.ended(progress, copied).await
    }

    /// Finds what is copied, and the digests of all whose layers do not say what it is.
    async fn sources(&self, asked: &Asked, from: &From) -> Result<(Vec<Source>, Vec<[u8; 32]>), Error> {
        let mount = self.inner.mounted(from.layers.clone()).await?;
        let (origins, layout, unpack, exclude) = (asked.origins.clone(), asked.layout, asked.unpack, asked.exclude.clone());
        let (ownership, known) = (ownership(from.owners), from.known.is_some());
        let question = Key::new("digests", &from.layers).list(asked.origins.iter().map(|origin| format!("{origin:?}")));
        let question = question.list(&asked.excluded).part(format!("{layout:?} {unpack:?} {ownership:?}")).id();
        let inner = self.inner.clone();
        blocking(move || {
            let answer = inner.contexts.answer(question);
            let (mut found, mut digests) = (Vec::new(), Vec::new());
            for origin in &origins {
                let mut sources = match origin {
                    Origin::Path(path) => find::find(&mount, path, layout)?,
                    Origin::Document(name, content) => vec![document(&inner, name, content)?],
                    Origin::Url(url) => return Err(super::steps::not_yet(&format!("ADD of a URL ({url})"))),
                };
                if unpack != Unpack::None {
                    sources.iter_mut().try_for_each(Source::look_inside)?;
                }
                if answer.is_none() && (!known || matches!(origin, Origin::Document(..))) {
                    for source in &sources {
                        digests.push(source.digest(ownership, &exclude)?);
                    }
                }
                found.extend(sources);
            }
            let digests = answer.unwrap_or(digests);
            inner.contexts.remember(question, digests.clone());
            Ok((found, digests))
        })
        .await
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
        let files = |context: &Context| From { layers: context.layers.clone(), known: None, owners: Owners::Root, _pins: None };
        let Some(from) = from else { return Ok(files(&self.request.context)) };
        let from = match self.request.contexts.get(from) {
            Some(NamedContext::Files(context)) => return Ok(files(context)),
            Some(NamedContext::Image(name)) => name,
            None => from,
        };
        if let Some(stage) = self.stages.from_flag(stage, from) {
            let layers = self.finished(stage).await?.layers.clone();
            return Ok(From { known: Some(layers.clone()), layers, owners: Owners::Archive, _pins: None });
        }
        let basis = self.unless_canceled(self.inner.images.basis(from, self.pull(), &self.request.credentials)).await?;
        let basis = basis.map_err(|e| hinted(e, from, &self.stages))?;
        Ok(From { known: Some(basis.layers.clone()), layers: basis.layers, owners: Owners::Archive, _pins: Some(basis.pins) })
    }
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
