//! Images for several platforms: a manifest each, and an index of them.

use std::{collections::BTreeSet, io::Write};

use model::{At, Descriptor, Digest, ErrorKind, ImageRef, MediaType};
use serde::Serialize;
use sha2::Digest as _;

use super::{
    Credentials, Images, PushProgress, Pushed,
    make::Draft,
    save::{Annotations, Entry, Platform, Unsavable, Wanted},
};
use crate::error::{About, Error, Step as _};

/// An index of manifests (OCI image index).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    schema_version: u8,
    media_type: &'static str,
    manifests: Vec<Entry>,
}

impl Index {
    pub(super) fn new(manifests: Vec<Entry>) -> Self {
        Self { schema_version: 2, media_type: "application/vnd.oci.image.index.v1+json", manifests }
    }

    /// Its bytes, and what they are.
    pub(super) fn written(&self) -> serde_json::Result<(Vec<u8>, Descriptor)> {
        let bytes = serde_json::to_vec(self)?;
        let digest = Digest::Sha256(sha2::Sha256::digest(&bytes).into());
        let size = bytes.len() as u64;
        Ok((bytes, Descriptor { media_type: MediaType::OciIndex, digest, size }))
    }
}

impl Draft {
    fn platform(&self) -> Platform {
        let store::ImageRecord { os, architecture, variant, .. } = self.record.clone();
        Platform { architecture, os, variant }
    }
}

impl Images {
    /// Writes images that are not in the store, one per platform, whose layers the caller has pinned, as an OCI layout whose one
    /// image is an index of them. Blocks.
    ///
    /// # Errors
    /// What writing says; the disk's.
    pub(crate) fn save_several(
        &self,
        drafts: Vec<Draft>,
        names: &BTreeSet<ImageRef>,
        annotations: &Annotations,
        out: impl Write,
    ) -> Result<Descriptor, Unsavable> {
        let wanted = drafts.into_iter().map(|draft| (draft.platform(), Wanted::of_draft(draft, annotations.clone())));
        self.shared.archive_of_platforms(wanted.collect(), names, out)
    }

    /// Pushes images that are not in the store, one per platform, whose layers the caller has pinned, and an index of them under the
    /// name.
    ///
    /// # Errors
    /// What the registry says.
    pub(crate) async fn push_several(
        &self,
        drafts: Vec<Draft>,
        (name, annotations): (&ImageRef, &Annotations),
        credentials: &Credentials,
        tell: &(dyn Fn(PushProgress) + Sync),
    ) -> Result<Pushed, Error> {
        let about = || About::Image(name.to_string());
        let At::Tag(tag) = &name.at else {
            return Err(Error::new(ErrorKind::InvalidArgument, about(), "cannot push a digest reference"));
        };
        let mut manifests = Vec::new();
        for draft in drafts {
            let platform = draft.platform();
            let Descriptor { media_type, digest, size } =
                self.push_part(draft, name, (credentials, annotations), tell).await?.manifest;
            manifests.push(Entry { platform: Some(platform), ..Entry::new(&media_type, &digest, size) });
        }
        let written = Index::new(manifests).written();
        let (bytes, manifest) = written.map_err(|e| Error::new(ErrorKind::Internal, about(), e.to_string()))?;
        let target = self.shared.registry.target(name, credentials).await.step(about(), "push")?;
        target.publish(Some(tag.as_str()), &manifest, bytes.into()).await.step(about(), "push index")?;
        Ok(Pushed { manifest, note: String::new() })
    }
}
