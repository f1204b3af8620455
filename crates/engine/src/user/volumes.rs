//! What the mounts of a container become.

use std::{os::fd::OwnedFd, path::Path, sync::Arc};

use model::{
    ContainerId, ErrorKind, VolumeName,
    container::{BindMount, ImageVolume, Propagation},
    plan::MountFlags,
    user::{UserContainerSpec, UserMount, UserMountKind},
};

use sys::{
    mount::Depth,
    path::{Links, Root},
};

use super::{
    Anonymous,
    record::{UserRecord, VolumeUse},
};
use crate::{
    Inner,
    blocking::blocking,
    container::given::{Given, GivenMount},
    error::{About, Error},
    image::ImageInfo,
    volumes::{NewVolume, Place, Volumes, Wanted},
};

/// The mounts of one run.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) binds: Vec<BindMount>,
    pub(super) images: Vec<ImageVolume>,
    pub(super) tmpfs: Vec<UserMount>,
    /// Parts of volumes.
    pub(super) given: Given,
}

fn refuse(why: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, About::Words, why)
}

/// Checks what is asked for, and makes and fills the volumes that are not there, when a container is made. Answers those it has.
/// What it takes of other containers is added to `spec`.
pub(super) async fn make(
    inner: &Arc<Inner>,
    id: ContainerId,
    spec: &mut UserContainerSpec,
    image: &ImageInfo,
) -> Result<Vec<VolumeUse>, Error> {
    take_from_others(inner, spec)?;
    let binds: Vec<_> = spec.mounts.iter().filter(|mount| mount.kind == UserMountKind::Bind).cloned().collect();
    blocking(move || binds.iter().try_for_each(check_bind)).await?;
    let wanted = wanted(spec, image)?;
    let asked = wanted.iter().map(|mount| NewVolume {
        name: mount.source.clone(),
        labels: mount.volume_labels.clone(),
        ..NewVolume::default()
    });
    let (volumes, asked) = (inner.volumes.clone(), asked.collect());
    let names = blocking(move || volumes.claim(id, asked)).await.map_err(|e| words(&e))?;
    // A part is of a volume that is there.
    let fill = wanted.iter().zip(&names).filter(|(mount, _)| !mount.no_copy && mount.subpath.is_empty());
    let fill: Vec<_> = fill.map(|(mount, name)| Wanted { volume: name.clone(), target: mount.target.clone() }).collect();
    let (filling, of) = (inner.clone(), image.clone());
    let filled = blocking(move || filling.volumes.fill(&filling.images, &of, &fill)).await;
    if let Err(error) = filled {
        release(inner, id, Anonymous::Go).await;
        return Err(words(&error));
    }
    let one = |(mount, name): (UserMount, VolumeName)| VolumeUse {
        name: name.to_string(),
        target: mount.target,
        anonymous: mount.source.is_empty(),
        read_only: mount.read_only,
        subpath: mount.subpath,
    };
    Ok(wanted.into_iter().zip(names).map(one).collect())
}

/// `--volumes-from CONTAINER[:ro|:rw]`: what others have and the container itself says nothing about.
fn take_from_others(inner: &Inner, spec: &mut UserContainerSpec) -> Result<(), Error> {
    for from in spec.volumes_from.clone() {
        let (name, mode) = from.split_once(':').unwrap_or((&from, ""));
        if !matches!(mode, "" | "ro" | "rw") {
            return Err(refuse(format!("invalid mode: {mode}")));
        }
        let other = inner.users.resolve(name)?;
        let volume = |volume: VolumeUse| UserMount {
            source: volume.name,
            read_only: volume.read_only,
            no_copy: true,
            ..empty(UserMountKind::Volume, volume.target)
        };
        let binds = other.spec().mounts.into_iter().filter(|mount| mount.kind == UserMountKind::Bind);
        for mut mount in other.volumes().into_iter().map(volume).chain(binds) {
            mount.read_only |= mode == "ro";
            if !spec.mounts.iter().any(|own| same(&own.target, &mount.target)) {
                spec.mounts.push(mount);
            }
        }
    }
    Ok(())
}

fn empty(kind: UserMountKind, target: String) -> UserMount {
    UserMount {
        kind,
        source: String::new(),
        target,
        read_only: false,
        propagation: String::new(),
        must_exist: false,
        no_copy: false,
        tmpfs_size: None,
        tmpfs_mode: None,
        subpath: String::new(),
        volume_labels: Default::default(),
        options: Vec::new(),
        relabel: String::new(),
        recursive_read_only: false,
    }
}

/// Whether two paths in a container are one.
fn same(one: &str, other: &str) -> bool {
    let parts = |path: &str| path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect::<Vec<_>>();
    parts(one) == parts(other)
}

/// The volumes that a container is to have: those that it names, and one for each path that it or its image wants one at and
/// nothing else is mounted on.
fn wanted(spec: &UserContainerSpec, image: &ImageInfo) -> Result<Vec<UserMount>, Error> {
    let mut wanted: Vec<UserMount> = Vec::new();
    for (at, mount) in spec.mounts.iter().enumerate() {
        if spec.mounts[..at].iter().any(|before| same(&before.target, &mount.target)) {
            return Err(refuse(format!("Duplicate mount point: {}", mount.target)));
        }
        if mount.kind != UserMountKind::Volume {
            continue;
        }
        let cannot = |what: &str| Err(refuse(format!("invalid mount config for type \"volume\": {what}")));
        match mount {
            UserMount { subpath, source, .. } if !subpath.is_empty() && source.is_empty() => {
                return cannot("must not set Subpath when using anonymous volumes");
            }
            UserMount { subpath, .. } if subpath.starts_with('/') || subpath.split('/').any(|part| part == "..") => {
                return cannot("subpath must be a relative path within the volume");
            }
            UserMount { propagation, .. } if !propagation.is_empty() => return cannot("mounts do not travel through volumes"),
            _ => wanted.push(mount.clone()),
        }
    }
    for path in spec.volumes.iter().chain(&image.defaults.volumes) {
        let taken = spec.mounts.iter().chain(&wanted).any(|mount| same(&mount.target, path));
        if !path.starts_with('/') {
            return Err(refuse(format!("invalid volume specification: {path:?} is not an absolute path")));
        }
        if !taken {
            wanted.push(empty(UserMountKind::Volume, path.clone()));
        }
    }
    Ok(wanted)
}

fn words(error: &crate::volumes::Error) -> Error {
    Error::new(error.kind(), About::Words, crate::chain(error))
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
pub(super) async fn resolve(inner: &Arc<Inner>, record: &UserRecord) -> Result<Mounts, Error> {
    let (volumes, of) = (inner.volumes.clone(), record.clone());
    let mut mounts = blocking(move || {
        let mut mounts = Mounts::default();
        of.volumes.iter().try_for_each(|volume| place(&volumes, &of, volume, &mut mounts)).map(|()| mounts)
    })
    .await?;
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

/// What has to be there for a run and not longer.
pub(super) async fn wake(inner: &Arc<Inner>, record: &UserRecord) -> Result<(), Error> {
    let (volumes, id, names) = (inner.volumes.clone(), record.id, names(&record.volumes));
    blocking(move || volumes.wake(id, &names)).await.map_err(|e| words(&e))
}

/// A volume at its place in a run.
fn place(volumes: &Volumes, record: &UserRecord, volume: &VolumeUse, mounts: &mut Mounts) -> Result<(), Error> {
    let name: VolumeName = volume.name.parse().map_err(|e: model::VolumeNameError| refuse(e.to_string()))?;
    let asked = record.spec.mounts.iter().find(|mount| same(&mount.target, &volume.target));
    let options = asked.map(|mount| mount.options.clone()).unwrap_or_default();
    let Place { path, readonly } = volumes.place(&name).map_err(|e| words(&e))?;
    let readonly = readonly || volume.read_only;
    if !volume.subpath.is_empty() {
        let has = |option: &str| options.iter().any(|known| known == option);
        let flags = MountFlags { readonly, recursive: false, nosuid: has("nosuid"), nodev: has("nodev"), noexec: has("noexec") };
        let mount = part(&path, volume)?;
        let parts = volume.target.split('/').filter(|part| !part.is_empty() && *part != ".");
        let target = parts.fold(String::new(), |path, part| path + "/" + part);
        mounts.given.mounts.push(GivenMount { target, mount, flags });
        return Ok(());
    }
    mounts.binds.push(BindMount {
        container_path: volume.target.clone(),
        host_path: path.to_string_lossy().into_owned(),
        readonly,
        recursive_read_only: false,
        propagation: Propagation::Private,
        selinux_relabel: asked.is_some_and(|mount| !mount.relabel.is_empty()),
        mount_options: options,
        // Owners in it are those that the container sees, as in its image.
        idmap: record.spec.pod.userns,
    });
    Ok(())
}

/// A detached mount of a part of a volume. What is in a volume is a container's to change at any time, so it is opened once, and
/// what was opened is mounted: links lead nowhere else.
fn part(path: &Path, volume: &VolumeUse) -> Result<OwnedFd, Error> {
    let failed = |errno: sys::Errno| {
        let why = std::io::Error::from(errno);
        refuse(format!("cannot access path {} of volume {}: {why}", volume.subpath, volume.name))
    };
    let found = Root::open_host(path).and_then(|root| root.resolve(&volume.subpath, Links::Follow)).map_err(failed)?;
    sys::mount::clone_fd(found, Depth::Recursive).map_err(failed)
}

/// After a start of the daemon: what a container has stays its own.
pub(super) fn reclaim(inner: &Inner, id: ContainerId, volumes: &[VolumeUse]) {
    inner.volumes.reclaim(id, &names(volumes));
}

fn names(volumes: &[VolumeUse]) -> Vec<VolumeName> {
    volumes.iter().filter_map(|volume| volume.name.parse().ok()).collect()
}

/// A container is gone: its volumes are not its own any more, and anonymous ones go with it if so wanted.
pub(super) async fn release(inner: &Arc<Inner>, id: ContainerId, anonymous: Anonymous) {
    let volumes = inner.volumes.clone();
    if let Err(e) = blocking(move || volumes.release(id, anonymous == Anonymous::Go)).await {
        tracing::warn!(container = %id.short(), error = crate::chain(&e), "volumes of a container that is gone");
    }
}

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
