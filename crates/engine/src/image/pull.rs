//! PullImage: a registry's image becomes layers and one row in the store, in one pass over the bytes.

use std::{
    collections::HashSet,
    fmt,
    io::{self, Read},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::stream::TryStreamExt;
use model::{At, Descriptor, DiffId, Digest, ErrorKind, ImageId, ImageRef};
use registry::{Credentials, Resolved};
use sha2::Digest as _;
use store::{Document, LayerFacts, Name};
use tokio::sync::{broadcast, mpsc};

use super::{Images, Shared, config, crashed, joint::Joint};
use crate::{
    blocking::blocking,
    error::{About, Error, Step},
    failpoint,
};

/// Layers of one pull or push that are under way at once: enough to keep two cores busy with inflating, few enough to be fair.
pub(super) const PARALLEL: usize = 3;
/// Pieces of a blob between network and disk.
const PIECES: usize = 16;

/// Room on the disk that no layer may take, in bytes.
const SPARE: u64 = 64 << 20;

/// What to pull.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// Which image.
    pub reference: ImageRef,
    /// For its registry.
    pub credentials: Credentials,
    /// For another machine than this.
    pub platform: Option<registry::Platform>,
}

/// The name that a pulled image gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Under {
    /// That which was asked for.
    Asked,
    /// That of its manifest in the same repository: what was asked for is, or may be, another image here.
    Digest,
}

/// Where a layer is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not begun.
    Waiting,
    /// Coming.
    Downloading,
    /// All bytes are here; the rest is being written.
    Unpacking,
    /// In the store.
    Done,
    /// Was in the store already.
    Exists,
}

/// How far a layer of a pull is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerProgress {
    /// The image, by its full name.
    pub image: String,
    /// The layer's blob.
    pub digest: Digest,
    /// Where it is.
    pub phase: Phase,
    /// Bytes that have come.
    pub current: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Pulls in progress.
#[derive(Debug)]
pub(super) struct Pulls {
    /// By name, platform and a hash of the credentials: who has other rights does not join.
    images: Joint<(String, String, [u8; 32]), ImageId, Error>,
    layers: Joint<(Digest, DiffId), (), Error>,
    progress: broadcast::Sender<LayerProgress>,
}

impl Default for Pulls {
    fn default() -> Self {
        Self { images: Joint::default(), layers: Joint::default(), progress: broadcast::Sender::new(1024) }
    }
}

impl Images {
    /// Pulls an image, or joins a pull of it. A pull ends with the last who waits for it, and then leaves nothing.
    pub async fn pull(&self, request: PullRequest) -> Result<ImageId, Error> {
        let name = request.reference.to_string();
        let platform = request.platform.as_ref().map(ToString::to_string).unwrap_or_default();
        let key = (name.clone(), platform, fingerprint(&request.credentials));
        let shared = self.shared.clone();
        let pulled = self.shared.pulls.images.join(key, move || async move { shared.pull(request, Under::Asked).await }).await;
        pulled.unwrap_or_else(|| Err(crashed(&name)))
    }

    /// Pulls an image for another machine; here it is called after the digest of its manifest, and no other name moves.
    ///
    /// # Errors
    /// As [`Images::pull`].
    pub(super) async fn pull_aside(
        &self,
        reference: ImageRef,
        credentials: Credentials,
        platform: registry::Platform,
    ) -> Result<ImageId, Error> {
        let name = reference.to_string();
        let key = (name.clone(), format!("{platform}, aside"), fingerprint(&credentials));
        let request = PullRequest { reference, credentials, platform: Some(platform) };
        let shared = self.shared.clone();
        let pulled = self.shared.pulls.images.join(key, move || async move { shared.pull(request, Under::Digest).await }).await;
        pulled.unwrap_or_else(|| Err(crashed(&name)))
    }

    /// What a name stood for at its registry when it was pulled or pushed: the digest of an index or a manifest.
    pub fn target(&self, name: &ImageRef) -> Option<Digest> {
        self.shared.store.target(name)
    }

    /// All tags of a repository at its registry.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn remote_tags(&self, repository: &ImageRef, credentials: &Credentials) -> Result<Vec<String>, Error> {
        let about = About::Image(repository.name());
        self.shared.registry.tags(repository, credentials).await.step(about, "list tags")
    }

    /// How far all pulls are, from now on.
    pub fn progress(&self) -> broadcast::Receiver<LayerProgress> {
        self.shared.pulls.progress.subscribe()
    }
}

/// Tells credentials apart without keeping them.
fn fingerprint(credentials: &Credentials) -> [u8; 32] {
    let mut hash = sha2::Sha256::new();
    let secrets = [&credentials.password, &credentials.auth, &credentials.identity_token, &credentials.registry_token];
    let secrets = secrets.map(|s| s.as_ref().map_or("", |s| s.expose()));
    for part in [credentials.username.as_str(), credentials.server_address.as_deref().unwrap_or("")].into_iter().chain(secrets) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

impl Shared {
    async fn pull(self: Arc<Self>, request: PullRequest, under: Under) -> Result<ImageId, Error> {
        let name = request.reference.to_string();
        let about = || About::Image(name.clone());
        let resolved = match &request.platform {
            None => self.registry.resolve(&request.reference, &request.credentials).await,
            Some(platform) => self.registry.resolve_for(&request.reference, &request.credentials, platform).await,
        };
        let resolved = resolved.step(about(), "pull")?;
        let parsed = config::parse(&resolved.config_bytes, resolved.layers.len()).step(about(), "pull")?;
        let id = ImageId::new(resolved.config.digest);
        // From here on nothing that this image needs is collected.
        let _pins = self.store.pin(&parsed.diff_ids);
        let resolved = Arc::new(resolved);
        // The same layer may be in an image twice (OCI image spec, "Empty layers" of many builders).
        let mut seen = HashSet::new();
        let layers = resolved.layers.iter().cloned().zip(parsed.diff_ids.iter().copied()).filter(|layer| seen.insert(layer.1));
        let jobs = layers.map(|(blob, diff)| {
            let (shared, resolved, name) = (self.clone(), resolved.clone(), name.clone());
            Ok::<_, Error>(async move { shared.layer(resolved, blob, diff, name).await })
        });
        futures_util::stream::iter(jobs.collect::<Vec<_>>())
            .try_buffer_unordered(PARALLEL)
            .try_for_each(|()| async { Ok(()) })
            .await?;
        let (shared, mut reference, mut target) = (self.clone(), request.reference, resolved.target.digest);
        if under == Under::Digest {
            target = resolved.manifest.digest;
            reference.at = At::Digest(target);
        }
        blocking(move || shared.commit(Name { name: reference, target: Some(target) }, &resolved, parsed))
            .await
            .step(about(), "pull: keep the image")?;
        tracing::info!(image = %id, name, "pulled");
        Ok(id)
    }

    /// Brings a layer in unless it is there, or joins who does; the caller has pinned it.
    pub(super) async fn layer(
        self: &Arc<Self>,
        resolved: Arc<Resolved>,
        blob: Descriptor,
        diff: DiffId,
        image: String,
    ) -> Result<(), Error> {
        let report = Report { sender: self.pulls.progress.clone(), image: image.clone(), digest: blob.digest, total: blob.size };
        if self.store.layer(&diff).is_some() {
            report.say(Phase::Exists, blob.size);
            return Ok(());
        }
        report.say(Phase::Waiting, 0);
        let (shared, done) = (self.clone(), report.clone());
        let fetched =
            self.pulls.layers.join((blob.digest, diff), || async move { fetch(shared, resolved, blob, diff, report).await });
        fetched.await.unwrap_or_else(|| Err(crashed(&image)))?;
        done.say(Phase::Done, done.total);
        Ok(())
    }

    fn commit(&self, name: Name, resolved: &Resolved, parsed: config::Parsed) -> Result<(), store::Error> {
        let sizes = resolved.layers.iter().map(|l| l.size).sum::<u64>();
        let record = parsed.into_record(ImageId::new(resolved.config.digest), sizes + resolved.config.size);
        let documents = [
            Document { digest: resolved.config.digest, bytes: &resolved.config_bytes },
            Document { digest: resolved.manifest.digest, bytes: &resolved.manifest_bytes },
            Document { digest: resolved.target.digest, bytes: &resolved.target_bytes },
        ];
        self.store.put_image(&record, &[name], &documents)
    }
}

/// Says how far a layer is. Nobody listening is fine.
#[derive(Clone)]
struct Report {
    sender: broadcast::Sender<LayerProgress>,
    image: String,
    digest: Digest,
    total: u64,
}

impl Report {
    fn say(&self, phase: Phase, current: u64) {
        if self.sender.receiver_count() > 0 {
            let progress = LayerProgress { image: self.image.clone(), digest: self.digest, phase, current, total: self.total };
            self.sender.send(progress).ok();
        }
    }
}

/// A piece of a blob on its way from the network to the disk.
enum Piece {
    Bytes(Bytes),
    /// All bytes have come and are those that the digest names. Without it the rest is not the end, but a loss.
    End,
}

async fn fetch(shared: Arc<Shared>, resolved: Arc<Resolved>, blob: Descriptor, diff: DiffId, report: Report) -> Result<(), Error> {
    let about = About::Image(report.image.clone());
    let mut reader = shared.registry.blob(&resolved.source, &blob).await.step(about.clone(), "pull layer")?;
    let (sender, pieces) = mpsc::channel(PIECES);
    let (wanted, store) = (blob.clone(), shared.clone());
    let unpacking = tokio::task::spawn_blocking(move || {
        store.unpack(Pieces { pieces, current: Bytes::new(), ended: false }, Some(&wanted), diff)
    });
    let download = async {
        while let Some(piece) = reader.next().await {
            let piece = piece.step(about.clone(), "pull layer")?;
            // A reader that has gone has failed; it says why.
            if sender.send(Piece::Bytes(piece)).await.is_err() {
                return Ok(());
            }
            report.say(Phase::Downloading, reader.position());
        }
        report.say(Phase::Unpacking, report.total);
        sender.send(Piece::End).await.ok();
        Ok(())
    };
    let downloaded = download.await;
    drop(sender);
    // The layer is ours to leave behind or not: wait for the writer in any case.
    let unpacked = unpacking.await.unwrap_or_else(|_| Err(Unpack::Crashed));
    downloaded?;
    unpacked.step(about, "pull layer").map(drop)
}

/// Pieces as a stream of bytes.
struct Pieces {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the download was given up")),
            }
        }
        let n = self.current.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

/// Why a layer did not get into the store.
#[derive(Debug)]
pub(crate) enum Unpack {
    Layer(Digest, Box<layer::Error>),
    /// A layer that is made here.
    New(Box<layer::Error>),
    Store(store::Error),
    /// The layer's blob; the promised and the real diff id.
    Mismatch(Digest, Box<[DiffId; 2]>),
    MediaType(Digest, String),
    Crashed,
}

impl fmt::Display for Unpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(blob, _) => write!(f, "unpack layer {blob}"),
            Self::New(_) => f.write_str("unpack"),
            Self::Store(_) => f.write_str("keep layer"),
            Self::Mismatch(blob, ids) => write!(f, "layer {blob}: diff id is {}, the config promises {}", ids[1], ids[0]),
            Self::MediaType(blob, kind) => write!(f, "layer {blob}: media type {kind:?} is not that of a layer"),
            Self::Crashed => f.write_str("unpacking crashed; see the log"),
        }
    }
}

impl std::error::Error for Unpack {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Layer(_, e) | Self::New(e) => Some(&**e),
            Self::Store(e) => Some(e),
            Self::Mismatch(..) | Self::MediaType(..) | Self::Crashed => None,
        }
    }
}

impl Unpack {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Layer(_, e) | Self::New(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Mismatch(..) => ErrorKind::Corrupted,
            Self::MediaType(..) => ErrorKind::InvalidArgument,
            Self::Crashed => ErrorKind::Internal,
        }
    }
}

impl Shared {
    /// Unpacks a stream into the store, if its diff id is the promised one. `blob`: what it came as, if from a registry.
    pub(super) fn unpack(
        &self,
        reader: impl Read + Send,
        blob: Option<&Descriptor>,
        diff: DiffId,
    ) -> Result<store::LayerPins, Unpack> {
        let digest = blob.map_or(*diff.digest(), |b| b.digest);
        let compression = match blob {
            Some(blob) => {
                layer::Compression::of(&blob.media_type).ok_or_else(|| Unpack::MediaType(digest, blob.media_type.to_string()))?
            }
            None => layer::Compression::None,
        };
        self.unpack_as(reader, compression, blob.map(|b| b.digest), diff)
    }

    /// A layer may not take the last room on the disk from running containers, not even until it is thrown away again.
    fn limits(&self) -> layer::Limits {
        let limits = layer::Limits::default();
        let free = rustix::fs::statvfs(self.store.root()).map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        layer::Limits { unpacked: limits.unpacked.min(free.saturating_sub(SPARE)), ..limits }
    }

    pub(super) fn unpack_as(
        &self,
        reader: impl Read + Send,
        compression: layer::Compression,
        blob: Option<Digest>,
        diff: DiffId,
    ) -> Result<store::LayerPins, Unpack> {
        let digest = blob.unwrap_or(*diff.digest());
        let (ingest, applied) = self.ingest(reader, compression).map_err(|e| e.into_unpack(digest))?;
        if applied.diff_id != diff {
            return Err(Unpack::Mismatch(digest, Box::new([diff, applied.diff_id])));
        }
        failpoint::hit("image.layer", About::Engine).map_err(|_| Unpack::Crashed)?;
        ingest.commit(&facts(&applied, blob, compression)).map_err(Unpack::Store)
    }

    /// Unpacks a layer that nobody has promised anything of; its diff id and the size of its archive.
    pub(super) fn unpack_new(
        &self,
        reader: impl Read + Send,
        compression: layer::Compression,
    ) -> Result<(DiffId, u64, store::LayerPins), Unpack> {
        let (ingest, applied) = self.ingest(reader, compression).map_err(|e| match e {
            Ingest::Layer(e) => Unpack::New(e),
            Ingest::Store(e) => Unpack::Store(e),
        })?;
        failpoint::hit("image.layer", About::Engine).map_err(|_| Unpack::Crashed)?;
        let pins = ingest.commit(&facts(&applied, None, compression)).map_err(Unpack::Store)?;
        Ok((applied.diff_id, applied.tar_size, pins))
    }

    fn ingest(
        &self,
        reader: impl Read + Send,
        compression: layer::Compression,
    ) -> Result<(store::LayerIngest, layer::Applied), Ingest> {
        let mut ingest = self.store.layer_ingest();
        let limits = self.limits();
        let failed = |e| Ingest::Layer(Box::new(e));
        let applied = match self.format {
            layer::Format::Erofs => {
                let file = ingest.create_file().map_err(Ingest::Store)?;
                layer::apply(reader, compression, layer::Target::Erofs(&file), &limits).map_err(failed)?
            }
            layer::Format::Directory => {
                let dir = ingest.create_directory().map_err(Ingest::Store)?;
                layer::apply(reader, compression, layer::Target::Directory(std::os::fd::AsFd::as_fd(&dir)), &limits)
                    .map_err(failed)?
            }
        };
        Ok((ingest, applied))
    }
}

/// Why a layer was not unpacked.
enum Ingest {
    Layer(Box<layer::Error>),
    Store(store::Error),
}

impl Ingest {
    fn into_unpack(self, digest: Digest) -> Unpack {
        match self {
            Self::Layer(e) => Unpack::Layer(digest, e),
            Self::Store(e) => Unpack::Store(e),
        }
    }
}

/// `blob`: what it came as, if from a registry, and how that is compressed.
fn facts(applied: &layer::Applied, blob: Option<Digest>, compression: layer::Compression) -> LayerFacts {
    let layer::Applied { diff_id, tar_size, content, inodes, compressed_size, .. } = *applied;
    let packing = match compression {
        layer::Compression::None => Some(store::Packing::Plain),
        layer::Compression::Gzip => Some(store::Packing::Gzip),
        layer::Compression::Zstd => Some(store::Packing::Zstd),
        // Registries have no such layers.
        layer::Compression::Bzip2 | layer::Compression::Xz => None,
    };
    let form = |(digest, packing)| store::Form { digest, size: compressed_size, packing };
    LayerFacts { diff_id, tar_size, content, inodes, blob: blob.zip(packing).map(form) }
}
