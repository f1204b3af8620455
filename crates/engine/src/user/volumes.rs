//! What the mounts of a container become.

use std::{path::Path, sync::Arc};

use model::{
    ContainerId, ErrorKind,
    container::{BindMount, ImageVolume, Propagation},
    user::{UserContainerSpec, UserMount, UserMountKind},
};

use super::{
    Anonymous,
    record::{UserRecord, VolumeUse},
};
use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error},
    image::ImageInfo,
};

/// The mounts of one run.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) binds: Vec<BindMount>,
    pub(super) images: Vec<ImageVolume>,
    pub(super) tmpfs: Vec<UserMount>,
}

fn refuse(why: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, About::Words, why)
}

/// Checks what is asked for and makes the volumes that are not there, when a container is made. Answers those it has.
pub(super) async fn make(
    _inner: &Arc<Inner>,
    _id: ContainerId,
    spec: &UserContainerSpec,
    _image: &ImageInfo,
) -> Result<Vec<VolumeUse>, Error> {
    if let Some(volume) = spec.mounts.iter().find(|mount| mount.kind == UserMountKind::Volume) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            About::Words,
            format!("volume {:?}: volumes are not there yet", volume.source),
        ));
    }
    if let Some(other) = spec.volumes_from.first() {
        return Err(Error::new(ErrorKind::Unsupported, About::Words, format!("--volumes-from {other}: volumes are not there yet")));
    }
    let binds: Vec<_> = spec.mounts.iter().filter(|mount| mount.kind == UserMountKind::Bind).cloned().collect();
    blocking(move || binds.iter().try_for_each(check_bind)).await?;
    Ok(Vec::new())
}

fn check_bind(mount: &UserMount) -> Result<(), Error> {
    bind(mount)?;
    if mount.must_exist && !Path::new(&mount.source).exists() {
        let source = &mount.source;
        return Err(refuse(format!("invalid mount config for type \"bind\": bind source path does not exist: {source}")));
    }
    Ok(())
}

/// What a run gets mounted.
pub(super) async fn resolve(_inner: &Arc<Inner>, record: &UserRecord) -> Result<Mounts, Error> {
    let mut mounts = Mounts::default();
    for mount in &record.spec.mounts {
        match mount.kind {
            UserMountKind::Bind => mounts.binds.push(bind(mount)?),
            UserMountKind::Tmpfs => mounts.tmpfs.push(mount.clone()),
            UserMountKind::Image => mounts.images.push(ImageVolume {
                container_path: mount.target.clone(),
                image: mount.source.clone(),
                sub_path: mount.subpath.clone(),
                user_specified_image: mount.source.clone(),
                runtime_handler: String::new(),
                annotations: Default::default(),
                mount_options: mount.options.clone(),
            }),
            UserMountKind::Volume => {}
        }
    }
    Ok(mounts)
}

/// A container is gone: its volumes are not its own any more, and anonymous ones go with it if so wanted.
pub(super) async fn release(_inner: &Arc<Inner>, _volumes: &[VolumeUse], _anonymous: Anonymous) {}

/// A directory or file of the host.
fn bind(mount: &UserMount) -> Result<BindMount, Error> {
    let propagation = match mount.propagation.as_str() {
        "" | "private" | "rprivate" => Propagation::Private,
        "slave" | "rslave" => Propagation::HostToContainer,
        "shared" | "rshared" => Propagation::Bidirectional,
        other => return Err(refuse(format!("invalid mount config for type \"bind\": invalid propagation mode: {other}"))),
    };
    Ok(BindMount {
        container_path: mount.target.clone(),
        host_path: mount.source.clone(),
        readonly: mount.read_only,
        recursive_read_only: mount.recursive_read_only,
        propagation,
        selinux_relabel: !mount.relabel.is_empty(),
        mount_options: mount.options.clone(),
        idmap: None,
    })
}
