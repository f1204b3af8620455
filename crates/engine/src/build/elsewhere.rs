//! Steps of other machines: taken instead of making them again, and given away.

use std::{
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use model::{DiffId, ImageRef, StepId};
use store::LayerPins;

use super::{BuildEvent, BuildWarning, StepEnd, cache::Made, graph::Build, key::Key, state::State};
use crate::{
    blocking::blocking,
    error::{About, Error, Step as _},
    image::{Annotations, CarriedStep, Elsewhere, PushProgress, cache_draft},
};

/// What is taken from others and given to them.
#[derive(Debug, Default)]
pub struct CacheRequest {
    /// Where steps are looked for that are not here, in this order.
    pub from: Vec<CacheFrom>,
    /// Where they go.
    pub to: Vec<CacheTo>,
    /// They go into the image's config too.
    pub inline: bool,
}

/// Steps that were made elsewhere.
#[derive(Debug)]
pub enum CacheFrom {
    /// An image at a registry.
    Registry(ImageRef),
    /// An OCI layout: a plain tar.
    Archive(File),
}

/// Where steps go. Their second part: also those that the result is not made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheTo {
    /// To a registry under this name.
    Registry(ImageRef, Extent),
    /// An OCI layout as an archive, to whoever listens: a further output after all others.
    Archive(Extent),
}

/// Which steps go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Those that the result is made of.
    Min,
    /// All.
    Max,
}

/// Steps from elsewhere.
#[derive(Debug)]
pub(super) struct Source {
    elsewhere: Arc<Elsewhere>,
    /// A layer could not be had: nothing more is asked for there.
    broken: AtomicBool,
}

impl Source {
    /// What this source has brought is found again only by who names it: a step of a source that nobody has named is not taken on
    /// trust by the next build.
    fn key(&self, id: StepId) -> StepId {
        Key::new("elsewhere", &[]).part(self.elsewhere.digest.to_string()).part(id.to_string()).id()
    }
}

impl Build<'_> {
    /// Reads what there is elsewhere. What cannot be read is told, and done without.
    pub(super) async fn look_elsewhere(&self) {
        let mut found = Vec::new();
        for from in &self.request.cache.from {
            let name = match from {
                CacheFrom::Registry(name) => name.to_string(),
                CacheFrom::Archive(_) => "the client".to_owned(),
            };
            let Ok(progress) = self.begun(format!("importing cache manifest from {name}")).await else { return };
            let read = async {
                let elsewhere = Arc::new(self.steps_of(from).await?);
                found.push(Source { elsewhere, broken: AtomicBool::new(false) });
                Ok(StepEnd::Made)
            };
            if let Err(error) = self.ended(progress, read).await {
                tracing::info!(from = name, error = %error.chain(), "steps of elsewhere are not used");
            }
        }
        self.elsewhere.set(found).ok();
    }

    async fn steps_of(&self, from: &CacheFrom) -> Result<Elsewhere, Error> {
        match from {
            CacheFrom::Registry(name) => {
                let known = self.known(name);
                self.unless_canceled(self.inner.images.steps_at(name, &known)).await?
            }
            CacheFrom::Archive(file) => {
                let file = file.try_clone().step(About::Words, "read the cache")?;
                let inner = self.inner.clone();
                blocking(move || inner.images.steps_in(file)).await
            }
        }
    }

    /// What somebody else has made of a step, if it can be had.
    pub(super) async fn made_elsewhere(&self, id: StepId) -> Option<(Made, Arc<LayerPins>)> {
        for source in self.elsewhere.get().into_iter().flatten() {
            let own = source.key(id);
            if let Some(found) = self.inner.builds.find(own) {
                return Some(found);
            }
            let Some(step) = source.elsewhere.steps.get(&id).filter(|_| !source.broken.load(Ordering::Relaxed)) else { continue };
            match self.take(source, step).await {
                Ok(found) => return Some(found),
                Err(error) => {
                    source.broken.store(true, Ordering::Relaxed);
                    let detail = format!("{} is made again, its cache cannot be used: {}", step.what, error.chain());
                    let warning = BuildWarning { rule: None, detail, excerpt: String::new(), line: 0 };
                    self.tell(BuildEvent::Warning(warning)).await.ok();
                }
            }
        }
        None
    }

    async fn take(&self, source: &Source, step: &CarriedStep) -> Result<(Made, Arc<LayerPins>), Error> {
        let _pins = self.inner.store.pin(step.layer.as_slice());
        let mut layer: Option<(DiffId, u64)> = None;
        if let Some(wanted) = step.layer {
            let fetched = self.unless_canceled(self.inner.images.layer_from(&source.elsewhere, wanted)).await?;
            layer = Some((wanted, fetched?));
        }
        let mut made = Made::now(layer).by(&step.what);
        made.created.clone_from(&step.created);
        let (inner, id, kept) = (self.inner.clone(), source.key(step.id), made.clone());
        let pins = blocking(move || inner.builds.put(id, kept)).await.step(About::Words, "remember the step")?;
        Ok((made, pins))
    }

    /// Gives away what was asked for. `first`: the number of the first output that is free.
    pub(super) async fn export_steps(&self, target: &State, first: u32) -> Result<(), Error> {
        let mut output = first;
        for to in &self.request.cache.to {
            let (CacheTo::Registry(_, extent) | CacheTo::Archive(extent)) = to;
            let mut steps = target.carried();
            if *extent == Extent::Max {
                for stage in &self.stages.needed {
                    let more = self.finished(*stage).await?.carried();
                    steps
                        .extend(more.into_iter().filter(|step| !steps.iter().any(|known| known.id == step.id)).collect::<Vec<_>>());
                }
            }
            let draft = cache_draft(&steps).step(About::Words, "export cache")?;
            match to {
                CacheTo::Archive(_) => {
                    self.write_draft((output, "exporting cache to client".to_owned()), draft, &[], Annotations::new()).await?;
                    output += 1;
                }
                CacheTo::Registry(name, _) => self.push_steps(name, draft).await?,
            }
        }
        Ok(())
    }

    async fn push_steps(&self, name: &ImageRef, draft: crate::image::Draft) -> Result<(), Error> {
        let progress = self.begun(format!("exporting cache to registry {name}")).await?;
        let number = progress.number;
        let pushed = async {
            let tell = |progress: PushProgress| self.pushing(number, &progress);
            let known = self.known(name);
            let pushed = self.inner.images.push_draft(draft, name.clone(), &known, &tell);
            let pushed = self.unless_canceled(pushed).await??;
            let data = format!("writing cache manifest {} done\n", pushed.manifest.digest).into_bytes();
            self.tell(BuildEvent::Output { step: number, data }).await.ok();
            Ok(StepEnd::Made)
        };
        self.ended(progress, pushed).await
    }
}
