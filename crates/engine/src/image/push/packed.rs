//! Layers of a manifest that is made now: each is a blob that it was before, if the registry has it, or else is compressed while it
//! goes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Write},
    sync::Arc,
};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use model::{Descriptor, DiffId, MediaType};
use registry::{Growing, Grown};
use store::{Form, Packing};
use tokio::sync::watch;

use super::{
    super::{
        Shared,
        pull::PARALLEL,
        save::{self, Unsavable},
    },
    Push, PushPhase,
};
use crate::{
    blocking::blocking,
    error::{Error, Step as _},
    failpoint, unpack,
};

impl Push<'_> {
    /// Brings all layers there; answers what the manifest says of them.
    pub(super) async fn layers(&self) -> Result<Vec<save::Entry>, Error> {
        let layers = &self.image.record.layers;
        let different: BTreeSet<DiffId> = layers.iter().copied().collect();
        let jobs = different.into_iter().map(|layer| async move { Ok::<_, Error>((layer, self.layer(layer).await?)) });
        let jobs: Vec<_> = jobs.collect();
        let there: BTreeMap<DiffId, Form> = stream::iter(jobs).buffer_unordered(PARALLEL).try_collect().await?;
        let (shared, forms) = (self.shared.clone(), there.iter().map(|(layer, form)| (*layer, *form)).collect::<Vec<_>>());
        blocking(move || shared.store.remember_forms(&forms)).await.step(self.about(), "remember what was pushed")?;
        let blobs = layers.iter().filter_map(|layer| there.get(layer)).map(blob_of);
        Ok(blobs.map(|blob| save::Entry::new(&blob.media_type, &blob.digest, blob.size)).collect())
    }

    async fn layer(&self, layer: DiffId) -> Result<Form, Error> {
        let size = self.shared.store.layer(&layer).map_or(0, |info| info.tar_size);
        self.tell(layer, PushPhase::Preparing, 0, size);
        let mut begun = None;
        for form in self.shared.store.forms(&layer) {
            match self.look(layer, &blob_of(&form)).await? {
                None => return Ok(form),
                Some(upload) => begun = Some(upload),
            }
        }
        failpoint::hit("push.blob", self.about())?;
        let root = self.shared.store.root().to_owned();
        let file = blocking(move || unpack::nameless(&root)).await.step(self.about(), "make room for a layer")?;
        let file = Arc::new(file);
        let (sender, grown) = watch::channel(Grown::default());
        let (shared, out) = (self.shared.clone(), Arc::clone(&file));
        let packing = blocking(move || shared.compress(&layer, &out, sender));
        let progress = |done| self.tell(layer, PushPhase::Pushing, done, size);
        let sending = self.target.upload_growing(*layer.digest(), begun, Growing { file, grown }, &progress);
        let (digest, bytes) = match tokio::join!(packing, sending) {
            (Ok(()), Ok(sent)) => sent,
            // Who compresses for nobody fails too; and who cannot compress leaves nothing to send.
            (Err(e), Ok(_) | Err(registry::Error::Content { .. })) => {
                return Err(Error::new(e.kind(), self.about(), format!("push: {}", crate::chain(&e))));
            }
            (_, Err(error)) => return Err(error).step(self.about(), "push layer"),
        };
        self.tell(layer, PushPhase::Pushed, bytes, bytes);
        Ok(Form { digest, size: bytes, packing: Packing::Gzip })
    }
}

impl Shared {
    /// A layer as a gzipped blob: the same bytes every time.
    fn compress(&self, layer: &DiffId, file: &File, grown: watch::Sender<Grown>) -> Result<(), Unsavable> {
        let (mut tar, _) = self.layer_tar(layer)?;
        let (digest, bytes) = layer::gzip(&mut tar, Told { file, grown: &grown })?;
        tar.verify()?;
        grown.send_replace(Grown { bytes, digest: Some(digest) });
        Ok(())
    }
}

/// A file whose growth somebody follows.
struct Told<'t> {
    file: &'t File,
    grown: &'t watch::Sender<Grown>,
}

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.grown.is_closed() {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes it any more"));
        }
        let written = self.file.write(bytes)?;
        self.grown.send_modify(|grown| grown.bytes += written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn blob_of(form: &Form) -> Descriptor {
    let media_type = match form.packing {
        Packing::Plain => MediaType::OciLayer,
        Packing::Gzip => MediaType::OciLayerGzip,
        Packing::Zstd => MediaType::OciLayerZstd,
    };
    Descriptor { media_type, digest: form.digest, size: form.size }
}
