//! Contexts that stay, so that only what has changed is sent again. One is a list of files and the layers that they are in: what
//! came first, and what has changed each time after that. A client says under which name it is to be compared.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Cursor, Read as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use minicbor::{Decode, Encode, bytes::ByteVec};
use model::{DiffId, ErrorKind, StepId, container::ImageDefaults, pod::Timestamp};
use sha2::{Digest as _, Sha256};
use store::{LayerPins, Store};

use super::{
    difference::{self, ContextFile, Difference},
    kept::{Keeper, Kept, KeptKind},
    listing::{self, Content, Listing},
    refuse,
};
use crate::{
    Engine, Inner,
    blocking::blocking,
    clock,
    error::{About, Error, Step as _},
    image::{ImageInfo, Packed},
    record,
};

/// Contexts that are kept.
const MOST: usize = 32;
/// Layers of one context: with more it is made one again.
const LAYERS: usize = 8;
/// Answers about contexts that are remembered.
const ANSWERS: usize = 1000;
/// Bytes of a name.
const NAME: usize = 4096;

/// On the disk. Field numbers are for ever.
#[derive(Debug, Encode, Decode)]
struct Record {
    #[n(0)]
    name: String,
    #[n(1)]
    layers: Vec<DiffId>,
    #[n(2)]
    created: Timestamp,
    #[n(3)]
    files: Vec<ContextFile>,
    /// The digests of what is in them, one after the other.
    #[n(4)]
    contents: Option<ByteVec>,
}

/// Files that are copied from.
#[derive(Clone, Debug)]
pub struct Context {
    pub(super) layers: Vec<DiffId>,
    /// What is in them, if that is known without looking.
    pub(super) listing: Option<Arc<Listing>>,
    _pins: Vec<Arc<LayerPins>>,
    /// Whoever holds it uses it.
    _used: Arc<()>,
    /// Bytes that were sent of it.
    pub sent: u64,
}

#[derive(Debug)]
struct Entry {
    name: String,
    context: Context,
    created: Timestamp,
    used: Timestamp,
    uses: u64,
}

/// All contexts that are kept.
#[derive(Debug)]
pub(crate) struct Contexts {
    store: Arc<Store>,
    entries: Mutex<HashMap<StepId, Entry>>,
    /// Digests of files in layers that were asked for before, by the question.
    answers: Mutex<HashMap<StepId, Vec<[u8; 32]>>>,
}

/// What is in a context that came before.
#[derive(Debug, Default)]
struct Known {
    files: Vec<ContextFile>,
    /// Their digests, in this order; of an older daemon's none.
    contents: Vec<Content>,
}

/// A context that is compared.
#[derive(Debug)]
pub struct Compared {
    name: String,
    files: Vec<ContextFile>,
    /// What it is compared with.
    before: Option<Context>,
    known: Known,
    difference: Difference,
}

impl Compared {
    /// Numbers of the files that are wanted, in order. None, and none that are gone: the context is there.
    pub fn wanted(&self) -> &[u32] {
        &self.difference.wanted
    }
}

fn id_of(name: &str) -> StepId {
    StepId::from_bytes(Sha256::digest(format!("context {name}")).into())
}

impl Contexts {
    /// None: see [`Contexts::load`].
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, entries: Mutex::default(), answers: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StepId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the records and pins their layers, which is to be done before anything is freed. Blocks.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn load(&self) -> Result<(), store::Error> {
        let (found, damaged) = self.store.load_contexts()?;
        for damaged in &damaged {
            tracing::warn!(record = %damaged, "damaged record put aside");
        }
        for (id, bytes) in found {
            let whole = minicbor::decode::<Record>(&bytes).ok().and_then(|found| Some((self.context(&found.layers)?, found)));
            match whole {
                Some((context, Record { name, created, .. })) => {
                    self.lock().insert(id, Entry { name, context, created, used: created, uses: 0 });
                }
                None => self.store.remove_context(id)?,
            }
        }
        Ok(())
    }

    /// Layers that are there, as a context.
    fn context(&self, layers: &[DiffId]) -> Option<Context> {
        let pins = vec![Arc::new(self.store.pin(layers))];
        let there = layers.iter().all(|layer| self.store.layer(layer).is_some());
        there.then(|| Context { layers: layers.to_vec(), listing: None, _pins: pins, _used: Arc::default(), sent: 0 })
    }

    /// The context of this name, with its files and their digests. Blocks.
    fn before(&self, name: &str) -> Result<Option<(Context, Known)>, store::Error> {
        let id = id_of(name);
        let Some(context) = self.lock().get(&id).map(|entry| entry.context.clone()) else { return Ok(None) };
        let record = self.store.context(id)?.and_then(|bytes| minicbor::decode::<Record>(&bytes).ok());
        // Another build may have written it since.
        let record = record.filter(|record| record.layers == context.layers && record.name == name);
        Ok(record.map(|Record { files, contents, .. }| {
            let contents = contents.map(|contents| contents.as_chunks().0.to_vec()).unwrap_or_default();
            (context, Known { files, contents })
        }))
    }

    fn used(&self, name: &str) {
        if let Some(entry) = self.lock().get_mut(&id_of(name)) {
            (entry.used, entry.uses) = (clock::now(), entry.uses + 1);
        }
    }

    /// Keeps one instead of what had its name; the longest unused are forgotten when there are too many. Blocks.
    fn put(&self, name: String, context: &Context, (files, contents): (Vec<ContextFile>, &[Content])) -> Result<(), store::Error> {
        let (id, created) = (id_of(&name), clock::now());
        let contents = Some(contents.concat().into());
        let record = Record { name, layers: context.layers.clone(), created, files, contents };
        let payload = record::encode(&record);
        let name = record.name;
        let old = {
            // Record and entry change together, whoever else puts the same.
            let mut entries = self.lock();
            if self.store.put_context(id, &payload).is_err() {
                // It is too much, or the disk is full: all of it is sent again next time.
                return self.store.remove_context(id).map(|()| drop(entries.remove(&id)));
            }
            entries.insert(id, Entry { name, context: context.clone(), created, used: created, uses: 1 });
            let mut by_use: Vec<_> = entries.iter().map(|(id, entry)| (entry.used, *id)).collect();
            by_use.sort_unstable();
            let many = by_use.len().saturating_sub(MOST);
            by_use.into_iter().take(many).filter_map(|(_, id)| Some((id, entries.remove(&id)?))).collect::<Vec<_>>()
        };
        // Records go before what they name.
        old.iter().try_for_each(|(id, _)| self.store.remove_context(*id))
    }

    /// What was found out before about files in layers.
    pub(super) fn answer(&self, question: StepId) -> Option<Vec<[u8; 32]>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&question).cloned()
    }

    /// Remembers it: layers are what their names say.
    pub(super) fn remember(&self, question: StepId, answer: Vec<[u8; 32]>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS {
            answers.clear();
        }
        answers.insert(question, answer);
    }

    fn size(&self, entry: &Entry) -> u64 {
        entry.context.layers.iter().filter_map(|layer| self.store.layer(layer)).map(|layer| layer.bytes).sum()
    }
}

impl Keeper for Contexts {
    fn kept(&self) -> Vec<Kept> {
        let one = |(id, entry): (&StepId, &Entry)| Kept {
            id: id.to_string(),
            kind: KeptKind::Context,
            what: format!("local source for {}", entry.name),
            size: self.size(entry),
            created: entry.created,
            used: entry.used,
            uses: entry.uses,
            in_use: Arc::strong_count(&entry.context._used) > 1,
            shared: false,
        };
        self.lock().iter().map(one).collect()
    }

    fn forget(&self, id: &str) -> Result<Option<u64>, store::Error> {
        let Ok(id) = id.parse::<StepId>() else { return Ok(None) };
        let (entry, bytes) = {
            let mut entries = self.lock();
            let Some(entry) = entries.get(&id).filter(|entry| Arc::strong_count(&entry.context._used) == 1) else {
                return Ok(None);
            };
            let bytes = self.size(entry);
            self.store.remove_context(id)?;
            (entries.remove(&id), bytes)
        };
        drop(entry);
        Ok(Some(bytes))
    }
}

impl Engine {
    /// Compares a context with the one that came under this name before.
    ///
    /// # Errors
    /// What is wrong with the list; the disk's.
    pub async fn compare_context(&self, name: String, files: Vec<ContextFile>) -> Result<Compared, Error> {
        let inner = self.inner().clone();
        blocking(move || {
            if name.len() > NAME {
                return Err(refuse(ErrorKind::InvalidArgument, format!("context: its name is longer than {NAME} bytes")));
            }
            difference::check(&files)?;
            let before = inner.contexts.before(&name).step(About::Words, "read what is known of the context")?;
            let (before, known) = before.unzip();
            let known = known.unwrap_or_default();
            let difference = difference::compare(&known.files, &files);
            Ok(Compared { name, files, before, known, difference })
        })
        .await
    }

    /// The context, with a plain archive of what was wanted of it.
    ///
    /// # Errors
    /// The archive is not what was wanted; the disk's.
    pub async fn take_context(&self, compared: Compared, archive: File) -> Result<Context, Error> {
        let inner = self.inner().clone();
        blocking(move || inner.take_context(compared, archive)).await
    }

    /// A context that came as a plain archive, which is not kept.
    ///
    /// # Errors
    /// What is wrong with the archive; the disk's.
    pub async fn unpack_context(&self, archive: File) -> Result<Context, Error> {
        let inner = self.inner().clone();
        blocking(move || {
            let sent = archive.metadata().map_or(0, |found| found.len());
            let packed = inner.images.loose_layer(archive).step(About::Words, "unpack the context")?;
            Ok(Context { sent, ..Context::of(Vec::new(), packed) })
        })
        .await
    }
}

impl Context {
    /// What was there before, and a layer on it.
    fn of(before: Vec<Context>, (layer, _, pins): Packed) -> Self {
        let mut layers: Vec<DiffId> = before.iter().flat_map(|context| context.layers.clone()).collect();
        layers.push(layer);
        let pins = before.into_iter().flat_map(|context| context._pins).chain([Arc::new(pins)]).collect();
        Self { layers, listing: None, _pins: pins, _used: Arc::default(), sent: 0 }
    }

    fn listed(self, files: Vec<ContextFile>, contents: Vec<Content>) -> Self {
        Self { listing: Some(Arc::new(Listing::new(files, contents))), ..self }
    }
}

impl Inner {
    fn take_context(&self, compared: Compared, archive: File) -> Result<Context, Error> {
        let Compared { name, files, before, known, difference } = compared;
        let sent = archive.metadata().map_or(0, |found| found.len());
        let (wanted, gone) = (difference.wanted.len(), difference.gone.len());
        tracing::info!(context = name, files = files.len(), wanted, gone, bytes = sent, "context received");
        let contents = |came| listing::contents(&files, came, (&known.files, &known.contents));
        if let Some(context) = before.clone().filter(|_| difference == Difference::default()) {
            self.contexts.used(&name);
            let contents = contents(HashMap::new());
            return Ok(context.listed(files, contents));
        }
        let contents = contents(difference::verify(&archive, &files, &difference.wanted)?);
        let rewound = || -> io::Result<_> {
            io::Seek::rewind(&mut &archive)?;
            Ok(Cursor::new(difference::whiteouts(&difference.gone)?).chain(&archive))
        };
        let reader = rewound().map_err(|e| refuse(ErrorKind::Internal, format!("read the context: {e}")))?;
        let packed = self.images.loose_layer(reader).step(About::Words, "unpack the context")?;
        let mut context = Context::of(before.into_iter().collect(), packed);
        if context.layers.len() > LAYERS {
            context = self.squashed(&context)?;
        }
        self.contexts.put(name, &context, (files.clone(), &contents)).step(About::Words, "keep the context")?;
        Ok(Context { sent, ..context.listed(files, contents) })
    }

    /// The same in one layer.
    fn squashed(&self, context: &Context) -> Result<Context, Error> {
        let image = ImageInfo::loose(context.layers.clone(), ImageDefaults::default());
        let mount = self.images.volume(&image, "", None).step(About::Words, "mount the context")?;
        let packed = self.images.layer_of(mount, &Default::default(), None).step(About::Words, "make the context one layer")?;
        Ok(packed.map_or_else(
            || Context { layers: Vec::new(), listing: None, _pins: Vec::new(), _used: Arc::default(), sent: 0 },
            |packed| Context::of(Vec::new(), packed),
        ))
    }
}
