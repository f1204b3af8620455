//! Layers, each stored on its own under its diff id, so that images share them whatever is below.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{DiffId, Digest};

use crate::{
    Error, Form, LayerKind, LayerPins, Store, disk,
    error::During,
    remove,
    schema::LayerRow,
    state::Change,
    store::{Shared, Writer},
};

/// As many forms of a layer are remembered: where it came from, and what it was pushed as.
const FORMS: usize = 4;

/// A layer that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// The file or directory.
    pub path: PathBuf,
    /// Which of the two.
    pub kind: LayerKind,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes of the uncompressed tar.
    pub tar_size: u64,
}

/// What is known of a layer once its stream was read to the end and verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerFacts {
    /// Its diff id, as computed, not as promised.
    pub diff_id: DiffId,
    /// Bytes of the uncompressed tar.
    pub tar_size: u64,
    /// Bytes of file content; how much a directory counts on disk.
    pub content: u64,
    /// Inodes; how many a directory counts on disk.
    pub inodes: u64,
    /// The compressed blob that it came in, if its digest was verified too.
    pub blob: Option<Form>,
}

/// A layer on its way in. Dropped without [`LayerIngest::commit`] it leaves nothing.
#[derive(Debug)]
pub struct LayerIngest {
    shared: Arc<Shared>,
    path: PathBuf,
    kind: Option<LayerKind>,
}

impl LayerIngest {
    /// Makes the empty file for an EROFS image.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn create_file(&mut self) -> Result<File, Error> {
        self.kind = Some(LayerKind::Erofs);
        disk::create(&self.path)
    }

    /// Makes the empty directory for an unpacked layer.
    ///
    /// # Errors
    /// What mkdir(2) and open(2) say.
    pub fn create_directory(&mut self) -> Result<OwnedFd, Error> {
        self.kind = Some(LayerKind::Directory);
        disk::make_dir(&self.path, 0o755)?;
        Ok(File::open(&self.path).during("open", &self.path)?.into())
    }

    /// Makes the layer durable and visible; one that is there already wins over this one. The layer is pinned from
    /// before it is visible until the answer is dropped.
    ///
    /// # Errors
    /// If the disk fails; nothing is left then.
    pub fn commit(mut self, facts: &LayerFacts) -> Result<LayerPins, Error> {
        let pins = self.shared.pins.pin(&[facts.diff_id]);
        let Some(kind) = self.kind else { return Err(Error::NoLayer(facts.diff_id)) };
        let row = self.measure(kind, facts)?;
        // The expensive part, before anybody has to wait for us.
        match kind {
            LayerKind::Erofs => disk::sync_file(&self.path)?,
            LayerKind::Directory => disk::sync_file_system(&self.path)?,
        }
        let shared = self.shared.clone();
        let mut writer = shared.writer();
        if let Some(known) = shared.whole_layer(&facts.diff_id) {
            shared.remember_blob(&mut writer, facts, &known)?;
            return Ok(pins);
        }
        let path = shared.layout.layer(&facts.diff_id, kind);
        // Without a row it is a left-over, and with one it was not whole.
        if let Some(old) = remove::to_trash(&path, &shared.layout)? {
            shared.broom.delete(old);
        }
        disk::rename(&self.path, &path)?;
        self.path.clone_from(&path);
        disk::sync_parent(&path)?;
        shared.commit(&mut writer, &Change { layers: vec![(facts.diff_id, Some(Arc::new(row)))], ..Change::default() })?;
        self.kind = None;
        Ok(pins)
    }

    fn measure(&self, kind: LayerKind, facts: &LayerFacts) -> Result<LayerRow, Error> {
        let (bytes, inodes) = match kind {
            LayerKind::Erofs => (std::fs::metadata(&self.path).during("stat", &self.path)?.blocks() * 512, 1),
            LayerKind::Directory => (facts.content, facts.inodes),
        };
        let (blobs, forms) = (facts.blob.map(|form| form.digest).into_iter().collect(), facts.blob.into_iter().collect());
        Ok(LayerRow { kind, tar_size: facts.tar_size, bytes, inodes, blobs, forms })
    }
}

impl Drop for LayerIngest {
    fn drop(&mut self) {
        let gone = match self.kind {
            None => true,
            Some(LayerKind::Erofs) => disk::unlink(&self.path).is_ok(),
            Some(LayerKind::Directory) => false,
        };
        if !gone {
            self.shared.broom.delete(self.path.clone());
        }
    }
}

impl Shared {
    /// The row of a layer whose file is really there.
    fn whole_layer(&self, diff_id: &DiffId) -> Option<Arc<LayerRow>> {
        let row = self.state().layers.get(diff_id)?.clone();
        self.layout.layer(diff_id, row.kind).symlink_metadata().ok()?;
        Some(row)
    }

    fn remember_blob(&self, writer: &mut Writer<'_>, facts: &LayerFacts, known: &LayerRow) -> Result<(), Error> {
        let Some(row) = facts.blob.and_then(|form| with_form(known, form)) else { return Ok(()) };
        self.commit(writer, &Change { layers: vec![(facts.diff_id, Some(Arc::new(row)))], ..Change::default() })
    }

    /// Moves layers that no image needs and nobody pins out of sight and into the trash. Answers which, and where
    /// they are now.
    pub(crate) fn retire(&self, writer: &mut Writer<'_>, layers: &[DiffId], mut change: Change) -> Result<Retired, Error> {
        let before = self.state();
        let mut next = (*before).clone();
        next.apply(&change);
        let used = next.used_layers();
        let doomed: Vec<_> = {
            // From here until the state is swapped no pin can come: one that comes later finds the layer gone.
            let pins = self.pins.hold();
            let free =
                |id: &&DiffId| self.is_armed() && !used.contains(id) && !pins.contains_key(id) && next.layers.contains_key(id);
            let mut doomed: Vec<DiffId> = layers.iter().filter(free).copied().collect();
            doomed.sort();
            doomed.dedup();
            change.layers.extend(doomed.iter().map(|id| (*id, None)));
            next.apply(&change);
            self.swap_state(writer, Arc::new(next));
            doomed
        };
        if change.is_empty() {
            return Ok(Retired::default());
        }
        if let Err(e) = self.reserve.lend(|| writer.commit(&change)) {
            self.swap_state(writer, before);
            return Err(e);
        }
        self.tell_freed(&doomed);
        let mut retired = Retired { layers: doomed, ..Retired::default() };
        for id in &retired.layers {
            let Some(row) = before.layers.get(id) else { continue };
            retired.bytes += row.bytes;
            self.discard(&self.layout.layer(id, row.kind), &mut retired.trash);
        }
        Ok(retired)
    }

    /// What cannot be moved has no row any more, so the next collection takes it.
    fn discard(&self, path: &Path, trash: &mut Vec<PathBuf>) {
        match remove::to_trash(path, &self.layout) {
            Ok(Some(moved)) => trash.push(moved),
            Ok(None) => {}
            // A full directory cannot take another name.
            Err(_) => drop(remove::delete(path, &self.layout)),
        }
    }

    /// Frees those of the layers that nobody needs any more.
    pub(crate) fn free_layers(&self, layers: &[DiffId]) -> Result<(), Error> {
        let mut writer = self.writer();
        let retired = self.retire(&mut writer, layers, Change::default())?;
        drop(writer);
        self.empty(&retired)
    }

    /// Deletes what was moved away.
    pub(crate) fn empty(&self, retired: &Retired) -> Result<(), Error> {
        let mut first = Ok(());
        for path in &retired.trash {
            let deleted = remove::delete(path, &self.layout);
            if deleted.is_err() {
                self.broom.delete(path.clone());
            }
            first = first.and(deleted);
        }
        self.reserve.fill();
        first
    }
}

/// A layer's row that knows a form as its latest; `None`: it does already.
fn with_form(known: &LayerRow, form: Form) -> Option<LayerRow> {
    if known.forms.last() == Some(&form) {
        return None;
    }
    let mut row = known.clone();
    if !row.blobs.contains(&form.digest) {
        row.blobs.push(form.digest);
    }
    row.forms.retain(|known| *known != form);
    row.forms.push(form);
    let over = row.forms.len().saturating_sub(FORMS);
    row.forms.drain(..over);
    Some(row)
}

/// Layers on their way out.
#[derive(Debug, Default)]
pub(crate) struct Retired {
    pub(crate) layers: Vec<DiffId>,
    pub(crate) bytes: u64,
    trash: Vec<PathBuf>,
}

impl Store {
    /// A place to write a layer to.
    pub fn layer_ingest(&self) -> LayerIngest {
        LayerIngest { shared: self.shared.clone(), path: self.shared.layout.temporary(), kind: None }
    }

    /// A layer, if it is there. Pin it before asking: an unpinned one may go at any time.
    pub fn layer(&self, diff_id: &DiffId) -> Option<LayerInfo> {
        let row = self.shared.whole_layer(diff_id)?;
        let path = self.shared.layout.layer(diff_id, row.kind);
        Some(LayerInfo { path, kind: row.kind, bytes: row.bytes, tar_size: row.tar_size })
    }

    /// The blobs that a layer was pulled or pushed as, the latest first.
    pub fn forms(&self, diff_id: &DiffId) -> Vec<Form> {
        let row = self.shared.state().layers.get(diff_id).cloned();
        row.map(|row| row.forms.iter().rev().copied().collect()).unwrap_or_default()
    }

    /// Remembers what layers were pushed as. One that has gone meanwhile is fine.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn remember_forms(&self, forms: &[(DiffId, Form)]) -> Result<(), Error> {
        let mut writer = self.shared.writer();
        let state = self.shared.state();
        let row = |(id, form): &(DiffId, Form)| Some((*id, Some(Arc::new(with_form(state.layers.get(id)?, *form)?))));
        self.shared.commit(&mut writer, &Change { layers: forms.iter().filter_map(row).collect(), ..Change::default() })
    }

    /// The layer that a compressed blob was seen to contain, if it is still there.
    pub fn layer_of_blob(&self, blob: &Digest) -> Option<DiffId> {
        let diff_id = self.shared.state().by_blob.get(blob).copied()?;
        self.shared.whole_layer(&diff_id).map(|_| diff_id)
    }
}
