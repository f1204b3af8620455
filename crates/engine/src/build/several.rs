//! What becomes of a build for several platforms: an index, in an archive or at registries.

use std::{io::Write as _, sync::Arc};

use model::{Descriptor, ErrorKind, ImageRef};

use super::{BuildOutput, Built, StepEnd, graph::Build, refuse, state::State};
use crate::{
    blocking::blocking,
    error::{About, Error, Step as _},
    image::{Draft, PushProgress, Unsavable},
};

impl Build<'_> {
    /// The results of all platforms become what was asked for.
    pub(super) async fn finish_several(&self, targets: &[Arc<State>]) -> Result<Built, Error> {
        let draft = |target: &Arc<State>| {
            let (document, size) = self.draft(target);
            Draft::new(document, &target.layers, size).step(About::Words, "make the image")
        };
        let drafts = targets.iter().map(draft).collect::<Result<Vec<_>, _>>()?;
        let mut built = Built::default();
        for (number, output) in (0..).zip(&self.request.wanted.outputs) {
            match output {
                BuildOutput::Archive(names) => self.archive_several(drafts.clone(), (number, names), &mut built).await?,
                BuildOutput::Push => self.push(Some(&drafts), &mut built).await?,
                BuildOutput::Image | BuildOutput::Files => {
                    return Err(refuse(ErrorKind::Unsupported, "several platforms are an index, and nothing else"));
                }
            }
        }
        Ok(built)
    }

    async fn archive_several(
        &self,
        drafts: Vec<Draft>,
        (output, names): (u32, &[ImageRef]),
        built: &mut Built,
    ) -> Result<(), Error> {
        let names = if names.is_empty() { self.request.names.as_slice() } else { names };
        let progress = self.begun("exporting to oci image format".to_owned()).await?;
        let (number, mut out) = (progress.number, self.pieces(output));
        let (inner, names, annotations) =
            (self.inner.clone(), names.iter().cloned().collect(), self.request.wanted.annotations.clone());
        let written = async {
            let saved = blocking(move || {
                let saved = inner.images.save_several(drafts, &names, &annotations, &mut out)?;
                out.flush()?;
                Ok::<_, Unsavable>(saved)
            });
            let index = saved.await.step(About::Words, "write the images")?;
            self.say(number, format!("exporting manifest list {} done\n", index.digest)).await;
            built.manifest = Some(index);
            Ok(StepEnd::Made)
        };
        self.ended(progress, written).await
    }

    /// Answers the index, and what is to be said.
    pub(super) async fn push_index(&self, drafts: &[Draft], name: &ImageRef, number: u32) -> Result<(Descriptor, String), Error> {
        let tell = |progress: PushProgress| self.pushing(number, &progress);
        let (known, annotations) = (self.known(name), &self.request.wanted.annotations);
        let pushed = self.inner.images.push_several(drafts.to_vec(), (name, annotations), &known, &tell);
        let pushed = self.unless_canceled(pushed).await??;
        let said = format!("pushing manifest list for {name}@{} done\n", pushed.manifest.digest);
        Ok((pushed.manifest, said))
    }
}
