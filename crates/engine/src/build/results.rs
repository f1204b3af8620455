//! What becomes of a build's result: an image in the store, at registries, in an archive, or files for whoever builds.

use std::{io::Write, os::fd::AsFd as _, sync::Arc};

use model::{Descriptor, ErrorKind, ImageId, ImageRef, Pieces};

use super::{
    BuildEvent, StepEnd,
    graph::{Build, canceled},
    refuse,
    state::State,
};
use crate::{
    blocking::blocking,
    error::{About, Error, Step as _},
    image::{Annotations, CACHE_FIELD, Draft, PushPhase, PushProgress, PushRequest, Unsavable, cache_field},
};

/// Bytes of an archive in one event.
const PIECE: usize = 256 << 10;

/// What is wanted of the result.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// None: an image in the store.
    pub outputs: Vec<BuildOutput>,
    /// Of the manifests that are made of the image.
    pub annotations: Annotations,
}

/// Something that the result becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildOutput {
    /// An image in the store.
    Image,
    /// The same, pushed under all its names.
    Push,
    /// An archive of the image, to whoever listens: an OCI layout that docker loads too. Names in it; empty: the image's.
    Archive(Vec<ImageRef>),
    /// Its files as an archive, to whoever listens.
    Files,
}

/// What has become of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// The image, if it has become one.
    pub image: Option<ImageId>,
    /// The manifest that was pushed or written.
    pub manifest: Option<Descriptor>,
    /// It is in the store, under its names.
    pub kept: bool,
}

impl Build<'_> {
    /// What the last stage is becomes what was asked for. An image that is in the store stays there, whatever follows.
    pub(super) async fn finish(&self, targets: &[Arc<State>]) -> Result<Built, Error> {
        let [target] = targets else { return self.finish_several(targets).await };
        let mut built = Built::default();
        let outputs = match self.request.wanted.outputs.as_slice() {
            [] => &[BuildOutput::Image],
            some => some,
        };
        for (number, output) in (0..).zip(outputs) {
            match output {
                BuildOutput::Image => self.put_into_store(target, &mut built).await?,
                BuildOutput::Push => {
                    self.put_into_store(target, &mut built).await?;
                    self.push(None, &mut built).await?;
                }
                BuildOutput::Archive(names) => self.archive(target, (number, names), &mut built).await?,
                BuildOutput::Files => self.export_files(target, number).await?,
            }
        }
        // The next outputs of whoever listens are the caches that go there.
        let first = u32::try_from(outputs.len()).unwrap_or(u32::MAX);
        self.export_steps(target, first).await?;
        Ok(built)
    }

    /// The image's config, with what made it if that is wanted.
    pub(super) fn draft(&self, target: &State) -> (serde_json::Map<String, serde_json::Value>, u64) {
        let (mut document, size) = target.finish(&self.request.labels);
        if self.request.cache.inline {
            document.insert(CACHE_FIELD.to_owned(), cache_field(&target.carried()));
        }
        (document, size)
    }

    async fn put_into_store(&self, target: &State, built: &mut Built) -> Result<(), Error> {
        if built.kept {
            return Ok(());
        }
        let progress = self.begun("exporting to image".to_owned()).await?;
        let (number, mut kept) = (progress.number, None);
        let exported = async {
            let (document, size) = self.draft(target);
            let (inner, layers, names) = (self.inner.clone(), target.layers.clone(), self.request.names.clone());
            let id = blocking(move || inner.images.keep_built(document, &layers, size, names)).await;
            let id = *kept.insert(id.step(About::Words, "keep the image")?);
            let named = self.request.names.iter().map(|name| format!("naming to {name} done\n"));
            let text = format!("writing image {id} done\n{}", named.collect::<String>());
            self.say(number, text).await;
            Ok(StepEnd::Made)
        };
        let ended = self.ended(progress, exported).await;
        // It is there, whether anybody hears of it or not.
        let id = kept.map_or_else(|| ended.and(Err(canceled())), Ok)?;
        (built.image, built.kept) = (Some(id), true);
        Ok(())
    }

    pub(super) async fn say(&self, step: u32, text: impl Into<Vec<u8>>) {
        self.tell(BuildEvent::Output { step, data: text.into() }).await.ok();
    }

    /// Pushes under every name: an index of these images, or else the one that the store has.
    pub(super) async fn push(&self, drafts: Option<&[Draft]>, built: &mut Built) -> Result<(), Error> {
        if self.request.names.is_empty() {
            return Err(refuse(ErrorKind::InvalidArgument, "tag is needed when pushing to registry"));
        }
        for name in &self.request.names {
            let progress = self.begun(format!("pushing {name}")).await?;
            let number = progress.number;
            let pushed = async {
                let (manifest, said) = match drafts {
                    Some(drafts) => self.push_index(drafts, name, number).await?,
                    None => self.push_image(name, number).await?,
                };
                self.say(number, said).await;
                built.manifest = Some(manifest);
                Ok(StepEnd::Made)
            };
            self.ended(progress, pushed).await?;
        }
        Ok(())
    }

    /// Answers the manifest, and what is to be said.
    async fn push_image(&self, name: &ImageRef, number: u32) -> Result<(Descriptor, String), Error> {
        let request = PushRequest {
            name: name.clone(),
            credentials: self.known(name),
            sources: self.request.credentials.clone(),
            annotations: self.request.wanted.annotations.clone(),
        };
        let tell = |progress| self.pushing(number, &progress);
        let pushed = self.unless_canceled(self.inner.images.push(request, &tell)).await??;
        let said = format!("pushing manifest for {name}@{} done\n{}", pushed.manifest.digest, pushed.note);
        Ok((pushed.manifest, said))
    }

    /// Where a push changes its phase it says so. What a slow listener misses is only that.
    pub(super) fn pushing(&self, step: u32, progress: &PushProgress) {
        let layer = progress.layer;
        let text = match &progress.phase {
            PushPhase::Pushed => format!("pushing layer {layer} {} bytes done\n", progress.total),
            PushPhase::Exists => format!("pushing layer {layer} exists\n"),
            PushPhase::Mounted(from) => format!("pushing layer {layer} mounted from {from}\n"),
            PushPhase::Preparing | PushPhase::Pushing => return,
        };
        self.events.try_send(BuildEvent::Output { step, data: text.into_bytes() }).ok();
    }

    /// Who to be at the registry of a name.
    pub(super) fn known(&self, name: &ImageRef) -> crate::image::Credentials {
        self.request.credentials.get(name.registry.as_str()).cloned().unwrap_or_default()
    }

    async fn archive(&self, target: &State, (output, names): (u32, &[ImageRef]), built: &mut Built) -> Result<(), Error> {
        let names = if names.is_empty() { self.request.names.as_slice() } else { names };
        let (document, size) = self.draft(target);
        let draft = Draft::new(document, &target.layers, size).step(About::Words, "make the image")?;
        built.image = Some(draft.record.id);
        let title = "exporting to oci image format".to_owned();
        built.manifest = self.write_draft((output, title), draft, names, self.request.wanted.annotations.clone()).await?;
        Ok(())
    }

    /// An image as an archive for whoever listens; its layers are pinned by the caller.
    pub(super) async fn write_draft(
        &self,
        (output, title): (u32, String),
        draft: Draft,
        names: &[ImageRef],
        annotations: Annotations,
    ) -> Result<Option<Descriptor>, Error> {
        let progress = self.begun(title).await?;
        let (mut manifest, number) = (None, progress.number);
        let written = async {
            let (inner, names, out) = (self.inner.clone(), names.iter().cloned().collect(), self.pieces(output));
            let saved = blocking(move || {
                let mut out = out;
                let saved = inner.images.save_draft(draft, names, annotations, &mut out)?;
                out.flush()?;
                Ok::<_, Unsavable>(saved)
            });
            manifest = saved.await.step(About::Words, "write the image")?;
            if let Some(manifest) = &manifest {
                self.say(number, format!("exporting manifest {} done\n", manifest.digest)).await;
            }
            Ok(StepEnd::Made)
        };
        self.ended(progress, written).await?;
        Ok(manifest)
    }

    async fn export_files(&self, target: &State, output: u32) -> Result<(), Error> {
        let progress = self.begun("exporting to client".to_owned()).await?;
        let written = async {
            let root = self.inner.mounted(target.layers.clone()).await?;
            let mut out = self.pieces(output);
            let packed = blocking(move || {
                let packed = layer::diff(root.as_fd(), &mut out, &layer::Limits::default())?;
                out.flush().map_err(layer::Error::Archive)?;
                Ok::<_, layer::Error>(packed)
            });
            packed.await.step(About::Words, "read the files")?;
            Ok(StepEnd::Made)
        };
        self.ended(progress, written).await
    }

    /// An archive on its way to whoever listens, from a blocking thread.
    pub(super) fn pieces(&self, output: u32) -> impl Write + Send + 'static {
        let events = self.events.clone();
        Pieces::new(PIECE, move |data| events.blocking_send(BuildEvent::Exported { output, data }).is_ok())
    }
}
