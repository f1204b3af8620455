//! Images and their names.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use model::{At, DiffId, Digest, ImageId, ImageRef};

use crate::{
    Error, ImageRecord, Store, blob, disk,
    schema::{ImageRow, NameRow, Stored},
    state::{Change, State},
    store::Shared,
};

/// A name for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The name. If it has a tag, the tag is moved to the image.
    pub name: ImageRef,
    /// The document (index or manifest) that the name stood for at its registry; `None`: it came from no registry.
    pub target: Option<Digest>,
}

/// A document to be kept with an image: its config, manifest or index.
#[derive(Clone, Copy, Debug)]
pub struct Document<'b> {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: &'b [u8],
}

/// An image that is to be put in.
#[derive(Clone, Copy, Debug)]
pub struct NewImage<'i> {
    /// The image.
    pub record: &'i ImageRecord,
    /// Its names.
    pub names: &'i [Name],
    /// What is kept with it.
    pub documents: &'i [Document<'i>],
}

/// An image and its names, in full form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedImage {
    /// The image.
    pub record: ImageRecord,
    /// Names with a tag.
    pub tags: Vec<String>,
    /// Names with a digest.
    pub digests: Vec<String>,
    /// The digests of its documents, config included.
    pub documents: Vec<Digest>,
}

/// What a removal freed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The names that are gone.
    pub names: Vec<String>,
    /// The layers that are gone; others are still needed.
    pub layers: Vec<DiffId>,
    /// Bytes freed.
    pub bytes: u64,
}

impl Store {
    /// Puts an image and its names in, all or nothing. A tag that named another image is taken from it; that image
    /// stays, without the tag, under its digests.
    ///
    /// # Errors
    /// `NotFound` if a layer is not there; `Corrupted` if a document is not what its digest says; if the disk fails.
    pub fn put_image(&self, record: &ImageRecord, names: &[Name], documents: &[Document<'_>]) -> Result<(), Error> {
        self.put_images(&[NewImage { record, names, documents }])
    }

    /// Puts images in, all of them or none, as [`Store::put_image`] does with one. What two of them claim is the later one's.
    ///
    /// # Errors
    /// As [`Store::put_image`].
    pub fn put_images(&self, images: &[NewImage<'_>]) -> Result<(), Error> {
        let shared = &self.shared;
        let mut writer = shared.writer();
        let mut layers = images.iter().flat_map(|image| &image.record.layers);
        if let Some(missing) = layers.find(|id| self.layer(id).is_none()) {
            return Err(Error::NoLayer(*missing));
        }
        let state = shared.state();
        let mut change = Change::default();
        for image in images {
            let Change { images, names, layers } = addition(&state, image);
            change.images.extend(images);
            change.names.extend(names);
            change.layers.extend(layers);
        }
        let documents = images.iter().flat_map(|image| image.documents.iter().copied());
        let new = blob::missing(&shared.layout, documents)?;
        let files: Vec<_> = new.iter().map(|new| (shared.layout.blob(&new.digest), new.bytes.to_vec())).collect();
        let done = disk::write_all(&shared.layout, &files).and_then(|()| shared.commit(&mut writer, &change));
        if done.is_err() {
            let used = state.used_blobs();
            // What cannot be removed now is garbage for the next collection.
            new.iter()
                .filter(|new| !used.contains(&new.digest))
                .for_each(|new| drop(disk::unlink(&shared.layout.blob(&new.digest))));
        }
        done
    }

    /// All images.
    pub fn images(&self) -> Vec<NamedImage> {
        let state = self.shared.state();
        let mut names: HashMap<ImageId, Vec<&str>> = HashMap::new();
        for (name, row) in &state.names {
            names.entry(row.image).or_default().push(name);
        }
        state.images.values().map(|row| named(row, names.remove(&row.record.id).unwrap_or_default())).collect()
    }

    /// An image by id.
    pub fn image(&self, id: &ImageId) -> Option<NamedImage> {
        let state = self.shared.state();
        state.images.get(id).map(|row| named(row, state.names_of(*id).map(|(name, _)| &**name)))
    }

    /// The image that a full name (with tag or digest) stands for.
    pub fn image_id(&self, name: &ImageRef) -> Option<ImageId> {
        self.shared.state().names.get(name.to_string().as_str()).map(|row| row.image)
    }

    /// The document that a name stood for at its registry when it was pulled.
    pub fn target(&self, name: &ImageRef) -> Option<Digest> {
        self.shared.state().names.get(name.to_string().as_str())?.target
    }

    /// The one image whose id (its hexadecimal part) begins with `prefix`: for people.
    ///
    /// # Errors
    /// `InvalidArgument` if there is more than one.
    pub fn image_by_prefix(&self, prefix: &str) -> Result<Option<ImageId>, Error> {
        let state = self.shared.state();
        let mut found = state.images.keys().filter(|id| id.digest().hex().starts_with(prefix));
        let first = found.next().copied();
        match found.count() {
            0 => Ok(first),
            more => Err(Error::Ambiguous { prefix: prefix.to_owned(), count: more + 1 }),
        }
    }

    /// Takes a name away; the image stays. Answers whether the name was there.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn untag(&self, name: &ImageRef) -> Result<bool, Error> {
        let shared = &self.shared;
        let mut writer = shared.writer();
        let name: Arc<str> = name.to_string().into();
        if !shared.state().names.contains_key(&name) {
            return Ok(false);
        }
        let change = Change { names: vec![(name, None)], ..Change::default() };
        shared.reserve.lend(|| shared.commit(&mut writer, &change))?;
        shared.reserve.fill();
        Ok(true)
    }

    /// Removes an image under all its names, and frees what no other image and nobody's pin needs before it returns.
    /// Pinned layers go when their last pin does. An unknown image is fine.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn remove_image(&self, id: &ImageId) -> Result<Removed, Error> {
        let shared = &self.shared;
        let mut writer = shared.writer();
        let before = shared.state();
        let Some(row) = before.images.get(id) else { return Ok(Removed::default()) };
        let names: Vec<Arc<str>> = before.names_of(*id).map(|(name, _)| name.clone()).collect();
        let change = Change {
            images: vec![(*id, None)],
            names: names.iter().map(|name| (name.clone(), None)).collect(),
            layers: Vec::new(),
        };
        let retired = shared.retire(&mut writer, &row.record.layers, change)?;
        shared.forget_documents(row);
        drop(writer);
        shared.empty(&retired)?;
        Ok(Removed { names: names.iter().map(ToString::to_string).collect(), layers: retired.layers, bytes: retired.bytes })
    }
}

impl Shared {
    /// Removes the files that only this image needed; the database has forgotten it, so that what fails here is
    /// garbage for the next collection.
    fn forget_documents(&self, row: &ImageRow) {
        let used = self.state().used_blobs();
        disk::unlink(&self.layout.backup(&row.record.id)).ok();
        for document in row.documents.iter().filter(|d| !used.contains(&d.digest)) {
            disk::unlink(&self.layout.blob(&document.digest)).ok();
        }
    }
}

fn addition(state: &State, image: &NewImage<'_>) -> Change {
    let NewImage { record, names, documents } = *image;
    let known = state.images.get(&record.id);
    let mut row = ImageRow { record: record.clone(), documents: known.map(|k| k.documents.clone()).unwrap_or_default() };
    if let Some(known) = known {
        row.record.pulled_at = known.record.pulled_at;
    }
    let mut seen: HashSet<Digest> = row.documents.iter().map(|d| d.digest).collect();
    let new = documents.iter().filter(|document| seen.insert(document.digest));
    row.documents.extend(new.map(|d| Stored { digest: d.digest, size: d.bytes.len() as u64 }));
    let mut change = Change { images: vec![(record.id, Some(Arc::new(row)))], ..Change::default() };
    let name_row = Arc::new(NameRow { image: record.id, target: None, sequence: state.next_sequence() });
    for Name { name, target } in names {
        let row = Arc::new(NameRow { target: *target, ..(*name_row).clone() });
        if let Some(target) = target {
            change.names.push((name.with_digest(*target).to_string().into(), Some(row.clone())));
        }
        if matches!(name.at, At::Tag(_)) || target.is_none() {
            change.names.push((name.to_string().into(), Some(row)));
        }
    }
    change
}

fn named<'n>(row: &ImageRow, names: impl IntoIterator<Item = &'n str>) -> NamedImage {
    let (digests, tags) = names.into_iter().map(str::to_owned).partition(|name| name.contains('@'));
    NamedImage { record: row.record.clone(), tags, digests, documents: row.documents.iter().map(|d| d.digest).collect() }
}
