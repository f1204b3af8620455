//! `rmi` and `image prune`: what images lose and what goes with them, as docker has it. What kubelet pulled is an image like any
//! other; what a container uses stays.

use model::{ChainId, DiffId, Digest, ErrorKind, ImageId, ImageRef};
use sha2::Digest as _;
use store::NamedImage;

use super::{
    Images,
    removal::{Force, Removal, User, decide},
};
use crate::{
    Engine,
    blocking::blocking,
    error::{About, Error, Step},
};

/// What a removal did, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    /// A name was taken away.
    Untagged(String),
    /// An image, or a layer (by chain id), is no more.
    Deleted(Digest),
}

/// What `prune` may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneImages {
    /// Every image without a container; else only those without a name.
    pub all: bool,
    /// Only those made before this time: seconds since 1970.
    pub until: Option<i64>,
    /// Only those with all of these labels (`KEY` or `KEY=VALUE`).
    pub labels: Vec<String>,
    /// Only those without these labels.
    pub without: Vec<String>,
}

/// What `prune` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// In order.
    pub gone: Vec<Gone>,
    /// Bytes freed.
    pub bytes: u64,
}

impl Engine {
    /// Removes an image or a name of it.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` with docker's words for what is in use or has several names.
    pub async fn remove_image_name(&self, name: &str, force: bool) -> Result<Vec<Gone>, Error> {
        let (image, asked) = self.images().find_named(name)?;
        let force = if force { Force::Given } else { Force::NotGiven };
        let removal =
            decide(&image, &asked, &self.users_of(&image.record.id), force).step(About::Image(name.to_owned()), "remove")?;
        self.images().take(image, removal).await.map(|(gone, _)| gone)
    }

    /// Removes what nobody uses. An image that a container uses under one of its names keeps that name.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn prune_images(&self, wanted: &PruneImages) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        for image in self.images().shared.store.images() {
            if !wanted.takes(&image) {
                continue;
            }
            let users = self.users_of(&image.record.id);
            let removal = if users.is_empty() {
                let untag = image.tags.iter().chain(&image.digests).cloned().collect();
                Removal { untag, delete: true }
            } else {
                continue;
            };
            let (gone, bytes) = self.images().take(image, removal).await?;
            pruned.gone.extend(gone);
            pruned.bytes += bytes;
        }
        Ok(pruned)
    }

    /// Whether a container, of a kubelet or of people, is made of an image or has it as a volume.
    pub fn has_image_users(&self, id: &ImageId) -> bool {
        !self.users_of(id).is_empty()
    }

    /// The containers of an image, and those that have it as a volume.
    fn users_of(&self, id: &ImageId) -> Vec<User> {
        let uses = |c: &&std::sync::Arc<crate::Container>| c.image.id == *id || c.volume_images.contains(id);
        let containers = self.containers();
        let user = |c: &std::sync::Arc<crate::Container>| User {
            container: c.id,
            running: !matches!(c.state(), model::container::ContainerState::Exited { .. }),
        };
        let mounts = |user: &std::sync::Arc<crate::user::UserContainer>| {
            let mut images = user.spec().mounts.into_iter().filter(|mount| mount.kind == model::user::UserMountKind::Image);
            images.any(|mount| self.images().status(&mount.source).is_some_and(|image| image.id == *id))
        };
        let of_people = self.users().into_iter().filter(|user| user.image.id == *id || mounts(user));
        let of_people = of_people.map(|user| User { container: user.id, running: user.is_running() });
        containers.iter().filter(uses).map(user).chain(of_people).collect()
    }
}

impl PruneImages {
    fn takes(&self, image: &NamedImage) -> bool {
        let labels = &image.record.defaults.labels;
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        };
        // A kubelet pulls by digest: such an image has no tag, but it is not a left-over.
        let nameless = image.tags.is_empty() && image.digests.is_empty();
        let old = self.until.is_none_or(|until| image.record.pulled_at / 1_000_000_000 < until);
        (self.all || nameless) && old && self.labels.iter().all(has) && !self.without.iter().any(has)
    }
}

impl Images {
    /// Carries a removal out; answers what went, and how many bytes.
    async fn take(&self, image: NamedImage, removal: Removal) -> Result<(Vec<Gone>, u64), Error> {
        let about = About::Image(image.record.id.to_string());
        let shared = self.shared.clone();
        blocking(move || {
            let mut gone: Vec<Gone> = Vec::new();
            for name in &removal.untag {
                let Ok(parsed) = name.parse::<ImageRef>() else { continue };
                if shared.store.untag(&parsed)? {
                    gone.push(Gone::Untagged(parsed.familiar()));
                }
            }
            if !removal.delete {
                return Ok((gone, 0));
            }
            let removed = shared.store.remove_image(&image.record.id)?;
            gone.push(Gone::Deleted(*image.record.id.digest()));
            let freed = |(diff, _): &(DiffId, ChainId)| removed.layers.contains(diff);
            let chains = chain_ids(&image.record.layers);
            gone.extend(chains.into_iter().rev().filter(freed).map(|(_, chain)| Gone::Deleted(*chain.digest())));
            tracing::info!(image = %image.record.id, bytes = removed.bytes, "removed");
            Ok::<_, store::Error>((gone, removed.bytes))
        })
        .await
        .step(about, "remove")
    }
}

/// The chain id of each layer (OCI image spec, config.md).
pub(super) fn chain_ids(layers: &[DiffId]) -> Vec<(DiffId, ChainId)> {
    let mut chain: Option<ChainId> = None;
    let next = |diff: &DiffId| {
        let id = match &chain {
            None => ChainId::root(*diff),
            Some(below) => ChainId::from_hash(Digest::Sha256(sha2::Sha256::digest(below.child_preimage(*diff)).into())),
        };
        chain = Some(id);
        (*diff, id)
    };
    layers.iter().map(next).collect()
}

impl crate::error::Kinded for super::removal::Conflict {
    fn kind(&self) -> ErrorKind {
        Self::kind(self)
    }
}
