//! creel's own API: what CRI cannot say.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
};

use api::creel::{self as own, creel_server::Creel, pull_image_event::Event};
use engine::{
    Engine,
    image::{Credentials, LayerProgress, Phase, Platform, Secret},
};
use futures_util::stream;
use model::{Digest, ImageId};
use serde_json::json;
use tokio::sync::broadcast;
use tonic::{Request, Response, Status, Streaming as Incoming};

use super::{archive::receive, features, image, images, session, status, stream::Streaming};

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct CreelService {
    engine: Engine,
}

impl CreelService {
    /// Serves this engine.
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }
}

/// The configuration in force, for verbose answers.
pub(crate) fn config_json(engine: &Engine, handlers: &[engine::Handler]) -> serde_json::Value {
    let info = engine.info();
    json!({
        "root": info.config.root,
        "run": info.config.run,
        "cgroupDriver": info.cgroup_driver.name(),
        "cgroupParent": info.cgroup_parent,
        "cgroupVersion": info.cgroup_version,
        "layerFormat": info.layer_format,
        "apparmor": info.security.apparmor,
        "selinux": info.security.selinux,
        "warnings": warnings(&info, handlers),
        "network": network_name(&info.config.network),
    })
}

fn network_name(network: &net::Config) -> &'static str {
    match network {
        net::Config::Cni(_) => "cni",
        net::Config::Bridge(_) => "bridge",
    }
}

/// What an administrator should know.
fn warnings(info: &engine::Info, handlers: &[engine::Handler]) -> Vec<String> {
    let mut warnings = Vec::new();
    for handler in handlers {
        if let Err(why) = &handler.state {
            warnings.push(format!("no pods with runtime handler {}: {why}", handler.name));
        }
    }
    if info.cgroup_version == "v1" {
        warnings.push("cgroup v1: a kubelet from 1.35 on only starts with failCgroupV1: false".to_owned());
    }
    warnings.extend(info.security.warnings.iter().cloned());
    if info.layer_format == "directory" {
        warnings.push("this kernel does not mount EROFS images from files, so that images are unpacked file by file".to_owned());
    }
    warnings
}

#[tonic::async_trait]
impl Creel for CreelService {
    async fn info(&self, _: Request<own::InfoRequest>) -> Result<Response<own::InfoResponse>, Status> {
        let info = self.engine.info();
        let network_not_ready = match self.engine.network_status().await {
            net::Status::Ready => String::new(),
            net::Status::NotReady { message, .. } => message,
        };
        Ok(Response::new(own::InfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            root: info.config.root.display().to_string(),
            run: info.config.run.display().to_string(),
            storage_format: info.layer_format.to_owned(),
            cgroups: format!("{} ({})", info.cgroup_version, info.cgroup_driver.name()),
            network: network_name(&info.config.network).to_owned(),
            network_not_ready,
            kernel: features::kernel(),
            features: features::all(&info.security)
                .into_iter()
                .chain([own::Feature { name: "project quotas".to_owned(), present: info.project_quotas }])
                .collect(),
            pods: info.pods.1 as u64,
            containers: info.containers.1 as u64,
            containers_running: info.containers.0 as u64,
            images: info.images as u64,
            warnings: warnings(&info, &self.engine.handlers().await),
            log_root: info.config.logs().display().to_string(),
        }))
    }

    type PullImageStream = Streaming<own::PullImageEvent>;

    async fn pull_image(&self, request: Request<own::PullImageRequest>) -> Result<Response<Self::PullImageStream>, Status> {
        let request = request.into_inner();
        let mut pull = image::pull_request(&request.image, credentials(request.credentials))?;
        pull.platform = platform(&request.platform)?;
        let (reference, engine) = (pull.reference.clone(), self.engine.clone());
        let pulled = move || {
            images::tell(&engine, "pull", reference.familiar(), reference.familiar_name());
            engine.images().target(&reference)
        };
        let (images, name) = (self.engine.images().clone(), pull.reference.to_string());
        let state = Pull {
            progress: images.progress(),
            work: Some(Box::pin(async move { images.pull(pull).await.map_err(|e| status::of_pull(&e)) })),
            name,
            pulled: Box::new(pulled),
            waiting: VecDeque::new(),
        };
        // The stream owns the pull: when the client goes away, so does the pull.
        Ok(Response::new(Box::pin(stream::unfold(state, |mut state| async { state.next().await.map(|event| (event, state)) }))))
    }

    async fn load_image(
        &self,
        request: Request<Incoming<own::LoadImageRequest>>,
    ) -> Result<Response<own::LoadImageResponse>, Status> {
        let mut pieces = request.into_inner();
        let next = async move || Ok(pieces.message().await?.map(|piece| piece.data));
        let archive = receive(next, &self.engine.info().config.root).await?;
        // Who loses a name meanwhile is not told of it: this is for people.
        let before = names(&self.engine);
        let images = self.engine.images().import(archive).await.map_err(|e| status::of_engine(&e))?;
        image::trim_soon();
        images.iter().for_each(|(id, names)| {
            let name = names.first().cloned().unwrap_or_else(|| id.to_string());
            images::tell(&self.engine, "load", id, name);
        });
        let loaded = |(id, names): (ImageId, Vec<String>)| {
            let others = names.iter().filter_map(|name| before.get(name).filter(|old| **old != id).map(|old| (name, old)));
            let replaced = others.map(|(name, old)| (name.clone(), old.to_string())).collect();
            own::LoadedImage { id: id.to_string(), names, replaced }
        };
        Ok(Response::new(own::LoadImageResponse { images: images.into_iter().map(loaded).collect() }))
    }

    type ExecStream = Streaming<own::ProcessOutput>;

    async fn exec(&self, request: Request<Incoming<own::ExecRequest>>) -> Result<Response<Self::ExecStream>, Status> {
        session::exec(&self.engine, request.into_inner()).await.map(Response::new)
    }

    type AttachStream = Streaming<own::ProcessOutput>;

    async fn attach(&self, request: Request<Incoming<own::AttachRequest>>) -> Result<Response<Self::AttachStream>, Status> {
        session::attach(&self.engine, request.into_inner()).await.map(Response::new)
    }

    type PortForwardStream = Streaming<own::PortForwardResponse>;

    async fn port_forward(
        &self,
        request: Request<Incoming<own::PortForwardRequest>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        session::port_forward(&self.engine, request.into_inner()).await.map(Response::new)
    }
}

/// Credentials of creel's own API.
pub(super) fn credentials(given: Option<own::Credentials>) -> Credentials {
    let secret = |text: String| (!text.is_empty()).then(|| Secret::new(text));
    let given = given.unwrap_or_default();
    Credentials {
        username: given.username,
        password: secret(given.password),
        identity_token: secret(given.identity_token),
        ..Credentials::default()
    }
}

/// Another machine's platform, if one is asked for.
pub(super) fn platform(text: &str) -> Result<Option<Platform>, Status> {
    let wrong = || status::bad_field("platform", &format!("{text:?} is not OS/ARCHITECTURE[/VARIANT]"));
    (!text.is_empty()).then(|| Platform::parse(text).ok_or_else(wrong)).transpose()
}

type Work = Pin<Box<dyn Future<Output = Result<ImageId, Status>> + Send>>;

/// A pull and what there is to tell of it.
struct Pull {
    progress: broadcast::Receiver<LayerProgress>,
    /// Gone when it has ended.
    work: Option<Work>,
    name: String,
    /// What is to be done when it has been pulled; answers what the name stands for.
    pulled: Box<dyn Fn() -> Option<Digest> + Send>,
    /// Told before anything else.
    waiting: VecDeque<Result<own::PullImageEvent, Status>>,
}

impl Pull {
    async fn next(&mut self) -> Option<Result<own::PullImageEvent, Status>> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            let work = self.work.as_mut()?;
            tokio::select! {
                biased;
                progress = self.progress.recv() => match progress {
                    Ok(layer) => self.tell(layer),
                    // What was missed is older than what comes next.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => {
                        let outcome = work.as_mut().await;
                        self.end(outcome);
                    }
                },
                outcome = work.as_mut() => self.end(outcome),
            }
        }
    }

    fn tell(&mut self, layer: LayerProgress) {
        if layer.image == self.name {
            self.waiting.push_back(Ok(own::PullImageEvent { event: Some(Event::Layer(to_proto(&layer))) }));
        }
    }

    /// What was sent before the end is told before it.
    fn end(&mut self, outcome: Result<ImageId, Status>) {
        self.work = None;
        while let Ok(layer) = self.progress.try_recv() {
            self.tell(layer);
        }
        image::trim_soon();
        if let Some(digest) = outcome.is_ok().then(|| (self.pulled)()).flatten() {
            self.waiting.push_back(Ok(own::PullImageEvent { event: Some(Event::Digest(digest.to_string())) }));
        }
        let event = outcome.map(|id| own::PullImageEvent { event: Some(Event::ImageId(id.to_string())) });
        self.waiting.push_back(event);
    }
}

fn to_proto(layer: &LayerProgress) -> own::LayerProgress {
    let phase = match layer.phase {
        Phase::Waiting => own::layer_progress::Phase::Waiting,
        Phase::Downloading => own::layer_progress::Phase::Downloading,
        Phase::Unpacking => own::layer_progress::Phase::Unpacking,
        Phase::Done => own::layer_progress::Phase::Done,
        Phase::Exists => own::layer_progress::Phase::Exists,
    };
    own::LayerProgress { digest: layer.digest.to_string(), phase: phase.into(), current: layer.current, total: layer.total }
}

/// Which image every name with a tag stands for.
fn names(engine: &Engine) -> HashMap<String, ImageId> {
    let images = engine.images().list();
    images.iter().flat_map(|image| image.repo_tags.iter().map(|name| (name.clone(), image.id))).collect()
}
