//! creel's own API for images: docker's commands on the images of CRI.

use std::collections::{BTreeMap, HashMap};

use api::creel::{self as own, images_server::Images as ImagesApi, push_image_event, removal};
use engine::{
    Engine,
    image::{FromFiles, Gone, ImageInfo, PruneImages, PushPhase, PushProgress, PushRequest},
    user::UserEventKind,
};
use model::{At, ImageId, ImageRef, Pieces};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming as Incoming};

use super::{
    archive::{LIMIT, receive},
    creel::{credentials, platform},
    image::trim_soon,
    pruning::Pruning,
    status,
    stream::Streaming,
};

/// Bytes of an archive in one message.
const PIECE: usize = 1 << 20;
/// Hits of a search when nobody says how many.
const HITS: u32 = 25;
/// Most hits of a search, as docker has it.
const MOST_HITS: u32 = 100;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct ImagesService {
    engine: Engine,
    pruning: Pruning,
}

impl ImagesService {
    /// Serves the images of this engine.
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, pruning: Pruning::default() }
    }

    /// How many containers use each image: a kubelet's, and people's whether they run or not.
    fn users(&self) -> HashMap<ImageId, u32> {
        let mut users = HashMap::new();
        for container in self.engine.containers() {
            let mut images = container.volume_images.clone();
            images.push(container.image.id);
            images.sort_unstable();
            images.dedup();
            images.into_iter().for_each(|image| *users.entry(image).or_default() += 1);
        }
        self.engine.users().iter().for_each(|user| *users.entry(user.image.id).or_default() += 1);
        users
    }

    fn summaries(&self) -> Vec<own::ImageSummary> {
        let users = self.users();
        let images = self.engine.images();
        let mut list: Vec<own::ImageSummary> = images
            .footprints()
            .into_iter()
            .map(|(image, footprint)| own::ImageSummary {
                shared_size: footprint.shared,
                unique_size: footprint.unique,
                size: footprint.unpacked,
                containers: users.get(&image.id).copied().unwrap_or_default(),
                pinned: images.is_pinned(&image),
                layer_sizes: footprint.layers,
                ..summary(&image)
            })
            .collect();
        list.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        list
    }
}

/// Tells people of something that has happened to an image, in docker's words.
pub(super) fn tell(engine: &Engine, action: &str, id: impl ToString, name: impl ToString) {
    engine.tell(UserEventKind::Image, action, id, BTreeMap::from([("name".to_owned(), name.to_string())]));
}

impl ImagesService {
    fn tell_removals(&self, id: &str, gone: &[Gone]) {
        for gone in gone {
            match gone {
                Gone::Untagged(name) => tell(&self.engine, "untag", id, name),
                // Layers go without a word.
                Gone::Deleted(digest) if digest.to_string() == id => tell(&self.engine, "delete", id, id),
                Gone::Deleted(_) => {}
            }
        }
    }
}

fn summary(image: &ImageInfo) -> own::ImageSummary {
    own::ImageSummary {
        id: image.id.to_string(),
        tags: image.repo_tags.clone(),
        digests: image.repo_digests.clone(),
        created: image.created.clone(),
        labels: image.defaults.labels.clone().into_iter().collect(),
        layers: image.layers.iter().map(ToString::to_string).collect(),
        platform: image.platform.clone(),
        ..own::ImageSummary::default()
    }
}

fn removals(gone: Vec<Gone>) -> Vec<own::Removal> {
    let one = |gone| match gone {
        Gone::Untagged(name) => removal::What::Untagged(name),
        Gone::Deleted(digest) => removal::What::Deleted(digest.to_string()),
    };
    gone.into_iter().map(|gone| own::Removal { what: Some(one(gone)) }).collect()
}

fn name(field: &str, text: &str) -> Result<ImageRef, Status> {
    text.parse().map_err(|e: model::ReferenceError| status::bad_field(field, &e.to_string()))
}

/// The name that a new image is to have: with a tag, or none at all.
pub(super) fn new_name(field: &str, text: &str) -> Result<Option<ImageRef>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let name = name(field, text)?;
    match name.at {
        At::Tag(_) => Ok(Some(name)),
        At::Digest(_) => Err(status::bad_field(field, &format!("{text}: a new image's name has no digest"))),
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ImagesApi for ImagesService {
    async fn list(&self, _: Request<own::ListImagesRequest>) -> Answer<own::ListImagesResponse> {
        Ok(Response::new(own::ListImagesResponse { images: self.summaries() }))
    }

    async fn inspect(&self, request: Request<own::InspectImageRequest>) -> Answer<own::ImageDetails> {
        let details = self.engine.images().details(&request.into_inner().image).await.map_err(|e| status::of_engine(&e))?;
        let id = details.info.id.to_string();
        let line = |entry: engine::image::HistoryEntry| own::HistoryEntry {
            created: entry.created,
            created_by: entry.created_by,
            comment: entry.comment,
            size: entry.size,
        };
        Ok(Response::new(own::ImageDetails {
            summary: self.summaries().into_iter().find(|summary| summary.id == id),
            config: details.config,
            history: details.history.into_iter().map(line).collect(),
        }))
    }

    async fn tag(&self, request: Request<own::TagImageRequest>) -> Answer<own::TagImageResponse> {
        let request = request.into_inner();
        let target = name("target", &request.target)?;
        let images = self.engine.images();
        images.tag(&request.source, target.clone()).await.map_err(|e| status::of_engine(&e))?;
        if let Some(image) = images.status(&target.to_string()) {
            tell(&self.engine, "tag", image.id, target.familiar());
        }
        Ok(Response::new(own::TagImageResponse {}))
    }

    async fn remove(&self, request: Request<own::RemoveImageRequest>) -> Answer<own::RemoveImageResponse> {
        let request = request.into_inner();
        let id = self.engine.images().find(&request.image).map(|image| image.id.to_string()).unwrap_or_default();
        let gone = self.engine.remove_image_name(&request.image, request.force).await.map_err(|e| status::of_engine(&e))?;
        self.tell_removals(&id, &gone);
        Ok(Response::new(own::RemoveImageResponse { removals: removals(gone) }))
    }

    async fn prune(&self, request: Request<own::PruneImagesRequest>) -> Answer<own::PruneImagesResponse> {
        let _turn = self.pruning.begin()?;
        let request = request.into_inner();
        let wanted = PruneImages {
            all: request.all,
            until: Some(request.until).filter(|until| *until != 0),
            labels: request.labels,
            without: request.without_labels,
        };
        let known: Vec<String> = self.engine.images().list().iter().map(|image| image.id.to_string()).collect();
        let pruned = self.engine.prune_images(&wanted).await.map_err(|e| status::of_engine(&e))?;
        for gone in &pruned.gone {
            match gone {
                Gone::Untagged(name) => tell(&self.engine, "untag", name, name),
                Gone::Deleted(digest) if known.contains(&digest.to_string()) => tell(&self.engine, "delete", digest, digest),
                Gone::Deleted(_) => {}
            }
        }
        let reclaimed = BTreeMap::from([("reclaimed".to_owned(), pruned.bytes.to_string())]);
        self.engine.tell(UserEventKind::Image, "prune", "", reclaimed);
        Ok(Response::new(own::PruneImagesResponse { removals: removals(pruned.gone), reclaimed: pruned.bytes }))
    }

    type SaveStream = Streaming<own::SaveImagesResponse>;

    async fn save(&self, request: Request<own::SaveImagesRequest>) -> Answer<Self::SaveStream> {
        let wanted = request.into_inner().images;
        if wanted.is_empty() {
            return Err(status::bad_field("images", "missing"));
        }
        // What is missing is said before the first byte.
        for image in &wanted {
            self.engine.images().savable(image).map_err(|e| status::of_engine(&e))?;
        }
        let (sender, pieces) = mpsc::channel(4);
        let engine = self.engine.clone();
        tokio::spawn(async move {
            let images = engine.images();
            let saved: Vec<_> = wanted.iter().filter_map(|name| Some((images.find(name).ok()?.id, name.clone()))).collect();
            let client = sender.clone();
            let out = Pieces::new(PIECE, move |data| client.blocking_send(Ok(own::SaveImagesResponse { data })).is_ok());
            match images.save(wanted, out).await {
                Ok(()) => saved.into_iter().for_each(|(id, name)| tell(&engine, "save", id, name)),
                Err(error) => drop(sender.send(Err(status::of_engine(&error))).await),
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(pieces))))
    }

    async fn import(&self, request: Request<Incoming<own::ImportImageRequest>>) -> Answer<own::ImportImageResponse> {
        let mut pieces = request.into_inner();
        let first = pieces.message().await?.ok_or_else(|| status::bad_field("start", "missing"))?;
        let start = first.start.ok_or_else(|| status::bad_field("start", "missing"))?;
        let wanted = FromFiles {
            name: new_name("name", &start.name)?,
            changes: start.changes,
            comment: start.message,
            platform: platform(&start.platform)?,
        };
        let mut early = Some(first.data);
        let next = async move || match early.take() {
            Some(data) => Ok(Some(data)),
            None => Ok(pieces.message().await?.map(|piece| piece.data)),
        };
        let archive = match start.url.as_str() {
            "" => receive(next, &self.engine.info().config.root).await?,
            url => self.engine.fetch_archive(url, LIMIT).await.map_err(|e| status::of_engine(&e))?,
        };
        let id = self.engine.images().import_files(archive, wanted).await.map_err(|e| status::of_engine(&e))?;
        trim_soon();
        tell(&self.engine, "import", id, start.name);
        Ok(Response::new(own::ImportImageResponse { id: id.to_string() }))
    }

    async fn tags(&self, request: Request<own::ImageTagsRequest>) -> Answer<own::ImageTagsResponse> {
        let request = request.into_inner();
        let repository = name("repository", &request.repository)?;
        let tags = self.engine.images().remote_tags(&repository, &credentials(request.credentials)).await;
        let tags = tags.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(own::ImageTagsResponse { name: repository.name(), tags }))
    }

    type PushStream = Streaming<own::PushImageEvent>;

    async fn push(&self, request: Request<own::PushImageRequest>) -> Answer<Self::PushStream> {
        let request = request.into_inner();
        let push = PushRequest {
            name: name("image", &request.image)?,
            credentials: credentials(request.credentials),
            sources: request.sources.into_iter().map(|(host, of_it)| (host, credentials(Some(of_it)))).collect(),
            annotations: Default::default(),
        };
        let (sender, events) = mpsc::channel(64);
        let (engine, name) = (self.engine.clone(), push.name.clone());
        tokio::spawn(async move {
            let report = |progress: PushProgress| {
                // Progress is only that: what a slow client misses, the next event makes good.
                sender.try_send(Ok(event(push_image_event::Event::Layer(push_progress(progress))))).ok();
            };
            // A client that goes away ends the push; finished layers stay in the registry.
            let outcome = tokio::select! {
                outcome = engine.images().push(push, &report) => outcome,
                () = sender.closed() => return,
            };
            if outcome.is_ok() {
                tell(&engine, "push", name.familiar(), name.familiar_name());
            }
            let last = outcome.map_err(|e| status::of_engine(&e)).map(|pushed| {
                let (digest, size) = (pushed.manifest.digest.to_string(), pushed.manifest.size);
                event(push_image_event::Event::Pushed(own::Pushed { digest, size, note: pushed.note }))
            });
            sender.send(last).await.ok();
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }

    async fn search(&self, request: Request<own::SearchImagesRequest>) -> Answer<own::SearchImagesResponse> {
        let request = request.into_inner();
        let limit = if request.limit == 0 { HITS } else { request.limit };
        if limit > MOST_HITS {
            return Err(status::bad_field("limit", &format!("{limit}: not from 1 to {MOST_HITS}")));
        }
        let hits = self.engine.images().search(&request.term, limit as usize, &credentials(request.credentials)).await;
        let hit = |hit: engine::image::Hit| own::SearchHit {
            name: hit.name,
            description: hit.description,
            stars: hit.stars,
            official: hit.official,
        };
        let hits = hits.map_err(|e| status::of_engine(&e))?.into_iter().map(hit).collect();
        Ok(Response::new(own::SearchImagesResponse { hits }))
    }

    async fn check_login(&self, request: Request<own::CheckLoginRequest>) -> Answer<own::CheckLoginResponse> {
        let request = request.into_inner();
        let checked = self.engine.images().check_login(&request.registry, &credentials(request.credentials)).await;
        checked.map_err(|e| status::of_engine(&e))?;
        Ok(Response::new(own::CheckLoginResponse {}))
    }
}

fn event(event: push_image_event::Event) -> own::PushImageEvent {
    own::PushImageEvent { event: Some(event) }
}

fn push_progress(progress: PushProgress) -> own::PushProgress {
    let (phase, from) = match progress.phase {
        PushPhase::Preparing => (own::PushPhase::Preparing, String::new()),
        PushPhase::Pushing => (own::PushPhase::Pushing, String::new()),
        PushPhase::Pushed => (own::PushPhase::Pushed, String::new()),
        PushPhase::Exists => (own::PushPhase::Exists, String::new()),
        PushPhase::Mounted(from) => (own::PushPhase::Mounted, from),
    };
    let (layer, phase) = (progress.layer.to_string(), phase.into());
    own::PushProgress { layer, phase, current: progress.current, total: progress.total, from }
}
