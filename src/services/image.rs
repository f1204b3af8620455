//! ImageService.

use std::{collections::BTreeMap, sync::Arc};

use api::runtime::{self as cri, image_service_server::ImageService};
use engine::{
    Engine,
    image::{Credentials, ImageInfo, PullRequest, Secret},
};
use model::{ErrorKind, ImageRef};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{
    events, status,
    stream::{Streaming, chunks},
};

type Answer<T> = Result<Response<T>, Status>;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    engine: Engine,
}

impl Images {
    /// Serves the images of this engine.
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    fn list(&self, filter: Option<cri::ImageFilter>) -> Vec<cri::Image> {
        let name = filter.and_then(|filter| filter.image).map(|spec| spec.image).unwrap_or_default();
        match name.as_str() {
            "" => self.engine.images().list().iter().map(|image| self.to_proto(image)).collect(),
            name => find(&self.engine, name).iter().map(|image| self.to_proto(image)).collect(),
        }
    }

    fn to_proto(&self, image: &ImageInfo) -> cri::Image {
        cri::Image { pinned: self.engine.images().is_pinned(image), ..to_proto(image) }
    }
}

/// An image by any of its names, by its id, or by the beginning of just one id.
pub(crate) fn find(engine: &Engine, name: &str) -> Option<Arc<ImageInfo>> {
    if let Some(image) = engine.images().status(name) {
        return Some(image);
    }
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    // Shorter ones are names that nobody has, rather than ids.
    if digits.len() < 4 || !super::convert::is_id_prefix(digits) {
        return None;
    }
    let mut matching = engine.images().list().into_iter().filter(|image| image.id.digest().hex().starts_with(digits));
    matching.next().filter(|_| matching.next().is_none())
}

/// What is to be pulled, out of a name and credentials.
pub(crate) fn pull_request(name: &str, credentials: Credentials) -> Result<PullRequest, Status> {
    let reference: ImageRef = name.parse().map_err(|e: model::ReferenceError| status::bad_field("image", &e.to_string()))?;
    Ok(PullRequest { reference, credentials, platform: None })
}

/// A big pull leaves much free memory behind: it is given back to the kernel.
pub(crate) fn trim_soon() {
    tokio::task::spawn_blocking(sys::malloc::trim);
}

fn credentials(auth: Option<cri::AuthConfig>) -> Credentials {
    let secret = |text: String| (!text.is_empty()).then(|| Secret::new(text));
    let auth = auth.unwrap_or_default();
    Credentials {
        username: auth.username,
        password: secret(auth.password),
        auth: secret(auth.auth),
        identity_token: secret(auth.identity_token),
        registry_token: secret(auth.registry_token),
        server_address: Some(auth.server_address).filter(|address| !address.is_empty()),
    }
}

fn to_proto(image: &ImageInfo) -> cri::Image {
    let (uid, username) = user(&image.defaults.user);
    cri::Image {
        id: image.id.to_string(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        uid,
        username,
        spec: None,
        pinned: false,
    }
}

/// The user of `USER[:GROUP]`: a number or a name. None is root.
fn user(text: &str) -> (Option<cri::Int64Value>, String) {
    let user = text.split(':').next().unwrap_or_default();
    match user.parse::<u32>() {
        Ok(uid) => (Some(cri::Int64Value { value: uid.into() }), String::new()),
        Err(_) => (None, user.to_owned()),
    }
}

fn info(image: &ImageInfo) -> BTreeMap<String, String> {
    let defaults = &image.defaults;
    let value = json!({
        "imageSpec": {
            "created": image.created,
            "architecture": image.architecture,
            "config": {
                "User": defaults.user,
                "Env": defaults.env,
                "Entrypoint": defaults.entrypoint,
                "Cmd": defaults.cmd,
                "WorkingDir": defaults.working_dir,
                "Labels": defaults.labels,
                "StopSignal": defaults.stop_signal,
                "Volumes": defaults.volumes,
            },
            "rootfs": { "diffIDs": image.layers.iter().map(ToString::to_string).collect::<Vec<_>>() },
        },
    });
    BTreeMap::from([("info".to_owned(), value.to_string())])
}

/// The name in a request; it has to be there.
fn named(spec: Option<cri::ImageSpec>) -> Result<String, Status> {
    match spec {
        Some(spec) if !spec.image.is_empty() => Ok(spec.image),
        _ => Err(status::bad_field("image", "missing")),
    }
}

#[tonic::async_trait]
impl ImageService for Images {
    async fn list_images(&self, request: Request<cri::ListImagesRequest>) -> Answer<cri::ListImagesResponse> {
        Ok(Response::new(cri::ListImagesResponse { images: self.list(request.into_inner().filter) }))
    }

    type StreamImagesStream = Streaming<cri::StreamImagesResponse>;

    async fn stream_images(&self, request: Request<cri::StreamImagesRequest>) -> Answer<Self::StreamImagesStream> {
        Ok(chunks(self.list(request.into_inner().filter), |images| cri::StreamImagesResponse { images }))
    }

    async fn image_status(&self, request: Request<cri::ImageStatusRequest>) -> Answer<cri::ImageStatusResponse> {
        let request = request.into_inner();
        // An image is the same for all handlers, so it has none in a list: a kubelet that keeps images by handler
        // (RuntimeClassInImageCriApi) counts one for all. Who asks for one handler's is told that it is.
        let spec = request.image.as_ref().filter(|spec| !spec.runtime_handler.is_empty());
        let spec = spec.map(|spec| cri::ImageSpec { annotations: Default::default(), ..spec.clone() });
        let image = find(&self.engine, &named(request.image)?);
        Ok(Response::new(cri::ImageStatusResponse {
            image: image.as_deref().map(|image| cri::Image { spec, ..self.to_proto(image) }),
            info: image.as_deref().filter(|_| request.verbose).map(info).unwrap_or_default(),
        }))
    }

    async fn pull_image(&self, request: Request<cri::PullImageRequest>) -> Answer<cri::PullImageResponse> {
        let request = request.into_inner();
        let name = named(request.image)?;
        let pull = self.engine.images().pull(pull_request(&name, credentials(request.auth))?);
        let id = pull.await.map_err(|e| status::of_pull(&e))?;
        trim_soon();
        Ok(Response::new(cri::PullImageResponse { image_ref: id.to_string() }))
    }

    async fn remove_image(&self, request: Request<cri::RemoveImageRequest>) -> Answer<cri::RemoveImageResponse> {
        let name = named(request.into_inner().image)?;
        if let Some(image) = find(&self.engine, &name) {
            let removed = self.engine.images().remove(&image.id.to_string()).await;
            match removed {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(status::of_engine(&e)),
                // Another call was faster: gone is gone.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(Response::new(cri::RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<cri::ImageFsInfoRequest>) -> Answer<cri::ImageFsInfoResponse> {
        let timestamp = events::now();
        let filesystem = |path: std::path::PathBuf, bytes, inodes| cri::FilesystemUsage {
            timestamp,
            fs_id: Some(cri::FilesystemIdentifier { mountpoint: path.display().to_string() }),
            used_bytes: Some(cri::UInt64Value { value: bytes }),
            inodes_used: Some(cri::UInt64Value { value: inodes }),
        };
        let images = self.engine.images().clone();
        let (path, usage) = images.usage();
        let (bytes, inodes) = self.engine.writable_total().await;
        Ok(Response::new(cri::ImageFsInfoResponse {
            image_filesystems: vec![filesystem(path, usage.bytes, usage.inodes)],
            container_filesystems: vec![filesystem(images.containers_path(), bytes, inodes)],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers_or_names() {
        for (text, uid, name) in
            [("", None, ""), ("0", Some(0), ""), ("1000:5", Some(1000), ""), ("www:data", None, "www"), ("-1", None, "-1")]
        {
            let (number, username) = user(text);
            assert_eq!((number.map(|n| n.value), username.as_str()), (uid, name), "{text}");
        }
    }

    #[test]
    fn credentials_that_are_not_given_are_none() {
        let given = credentials(Some(cri::AuthConfig { username: "u".into(), password: "p".into(), ..Default::default() }));
        assert!(given.password.is_some() && given.auth.is_none() && given.server_address.is_none());
        assert!(!format!("{given:?}").contains("\"p\""));
        assert_eq!(named(None).unwrap_err().code(), tonic::Code::InvalidArgument);
        assert!(pull_request("UPPER", Credentials::default()).unwrap_err().message().starts_with("image: "));
    }
}
