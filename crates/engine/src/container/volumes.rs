//! Images that a container gets as volumes: found and mounted before its plan is written.

use std::{os::fd::OwnedFd, sync::Arc};

use model::{ErrorKind, container::ImageVolume};

use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error, Step},
    image::{Idmap, ImageInfo},
};

/// Image volumes at most: each is a descriptor on its way to the supervisor.
const MOST: usize = shim_proto::FDS_MAX - 8;

impl Inner {
    /// The images of image volumes, one for each.
    pub(super) fn volume_images(&self, asked: &[ImageVolume]) -> Result<Vec<Arc<ImageInfo>>, Error> {
        let refuse = |volume: &ImageVolume, kind, why: String| Error::new(kind, About::ImageVolume(volume.image.clone()), why);
        if let Some(further) = asked.get(MOST) {
            let why = format!("{} image volumes are asked for, more than {MOST}", asked.len());
            return Err(refuse(further, ErrorKind::InvalidArgument, why));
        }
        let missing = |volume| refuse(volume, ErrorKind::NotFound, "no such image: pull it first".to_owned());
        asked.iter().map(|volume| self.images.status(&volume.image).ok_or_else(|| missing(volume))).collect()
    }

    /// Mounts image volumes, detached. Their layers are pinned by the caller.
    pub(super) async fn mount_volumes(
        &self,
        asked: &[ImageVolume],
        images: &[Arc<ImageInfo>],
        idmap: Option<&Arc<Idmap>>,
    ) -> Result<Vec<OwnedFd>, Error> {
        let mut mounts = Vec::with_capacity(asked.len());
        for (volume, image) in asked.iter().zip(images) {
            let (images, image, path) = (self.images.clone(), image.clone(), volume.sub_path.clone());
            let idmap = idmap.cloned();
            let mounted = blocking(move || images.volume(&image, &path, idmap.as_deref())).await;
            mounts.push(mounted.step(About::ImageVolume(volume.image.clone()), "mount")?);
        }
        Ok(mounts)
    }
}
