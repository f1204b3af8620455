//! A container of people is made: its image, its name, its volumes, its record.

use std::sync::Arc;

use model::{
    ContainerId, ErrorKind,
    container::ContainerImage,
    user::{RestartPolicy, UserContainerSpec},
};

use super::{
    Anonymous, UserContainer,
    life::words,
    networks,
    record::{Phase, UserRecord},
    shares, volumes,
};
use crate::{
    Inner, clock,
    error::{About, Error, Step},
    failpoint,
    image::ImageInfo,
    spec,
};

impl Inner {
    pub(super) async fn create_user(self: &Arc<Self>, name: String, spec: UserContainerSpec) -> Result<Arc<UserContainer>, Error> {
        let inner = self.clone();
        self.detached(About::Words, async move { inner.make_user(&name, spec).await }).await
    }

    async fn make_user(self: &Arc<Self>, name: &str, mut spec: UserContainerSpec) -> Result<Arc<UserContainer>, Error> {
        let id = ContainerId::from_bytes(crate::random_id());
        let name = self.users.reserve(name, id)?;
        let (image, _) = self.images.find_named(&spec.container.image).map_err(Error::plain)?;
        let image = ImageInfo::of(image);
        let pins = self.store.pin(&image.layers);
        // Between the look-up and the pin it may have gone.
        if self.images.find_named(&image.id.to_string()).is_err() {
            return Err(words(ErrorKind::NotFound, format!("No such image: {}", spec.container.image)));
        }
        check(&spec, &image)?;
        check_platform(&spec, &image)?;
        shares::settle(self, &mut spec)?;
        networks::check(self, &spec)?;
        self.handlers.admit(&spec.pod.runtime_handler, spec.own_userns).await?;
        spec.container.image = image.id.to_string();
        failpoint::hit("user.create", id)?;
        let volumes = volumes::make(self, id, &mut spec, &image).await?;
        let record = UserRecord { volumes, ..record(id, &name.name, &image, spec) };
        failpoint::hit("user.record", id)?;
        let user = UserContainer::new(record, pins);
        if let Err(error) = user.change(self, |_| {}).await {
            volumes::release(self, id, Anonymous::Go).await;
            return Err(error);
        }
        failpoint::hit("user.created", id)?;
        self.users.insert(user.clone());
        name.keep();
        tracing::info!(container = %id.short(), name = user.name(), image = %image.id, to = "created", "user container");
        self.tell_user(&user, "create", []);
        Ok(user)
    }
}

/// What is kept of one that has never run.
pub(super) fn record(id: ContainerId, name: &str, image: &ImageInfo, spec: UserContainerSpec) -> UserRecord {
    UserRecord {
        id,
        name: name.to_owned(),
        created_at: clock::now(),
        image: ContainerImage {
            id: image.id,
            name: image.repo_tags.first().cloned().unwrap_or_default(),
            digest: image.repo_digests.first().cloned(),
        },
        layers: image.layers.clone(),
        defaults: image.defaults.clone(),
        platform: image.platform.clone(),
        phase: Phase::Created,
        last: Default::default(),
        restarts: 0,
        by_hand: false,
        warnings: Vec::new(),
        volumes: Vec::new(),
        health: None,
        spec,
    }
}

/// An image of another platform is as good as none, for the client may pull the right one.
fn check_platform(spec: &UserContainerSpec, image: &ImageInfo) -> Result<(), Error> {
    let (wanted, actual) = (&spec.platform, &image.platform);
    let fits = actual.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if wanted.is_empty() || fits {
        return Ok(());
    }
    let shown: String = wanted.chars().take(80).collect();
    let why = format!(
        "image with reference {} was found but does not match the specified platform: wanted {shown}, actual: {actual}",
        spec.container.user_specified_image
    );
    Err(words(ErrorKind::NotFound, why))
}

/// What would fail at every start is said when it is made.
fn check(spec: &UserContainerSpec, image: &ImageInfo) -> Result<(), Error> {
    if spec.auto_remove && spec.restart != RestartPolicy::No {
        return Err(words(ErrorKind::InvalidArgument, "can't create 'AutoRemove' container with restart policy"));
    }
    if spec::has_no_command(&spec.container, &image.defaults) {
        return Err(words(ErrorKind::InvalidArgument, "no command specified"));
    }
    spec::effective_resources(&spec.container.resources, 0).step(About::Words, "limits").map(drop)
}
