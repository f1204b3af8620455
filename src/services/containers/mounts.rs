//! Mounts of containers of people.

use api::creel::{self as own, mount};
use model::user::{UserMount, UserMountKind};
use tonic::Status;

use super::convert::{invalid, shown};

/// Most mounts of one container.
const MOST: usize = 1024;

/// All mounts.
pub(super) fn all(mounts: &[own::Mount]) -> Result<Vec<UserMount>, Status> {
    if mounts.len() > MOST {
        return Err(invalid(format!("{} mounts, more than {MOST}", mounts.len())));
    }
    let mounts: Vec<UserMount> = mounts.iter().map(one).collect::<Result<_, _>>()?;
    let mut seen = std::collections::HashSet::new();
    match mounts.iter().find(|mount| !seen.insert(mount.target.trim_end_matches('/'))) {
        Some(twice) => Err(invalid(format!("Duplicate mount point: {}", shown(&twice.target)))),
        None => Ok(mounts),
    }
}

/// A place in the container.
pub(super) fn target(path: &str) -> Result<String, Status> {
    let bad = |why: &str| Err(invalid(format!("invalid mount path: '{}' {why}", shown(path))));
    if !path.starts_with('/') {
        return bad("mount path must be absolute");
    }
    if path.trim_end_matches('/').is_empty() {
        return bad("destination can't be '/'");
    }
    if path.len() >= 4096 || path.chars().any(char::is_control) {
        return bad("is too long or has control characters");
    }
    Ok(path.to_owned())
}

fn one(asked: &own::Mount) -> Result<UserMount, Status> {
    let (kind, name) = match asked.kind() {
        mount::Kind::Bind => (UserMountKind::Bind, "bind"),
        mount::Kind::Volume => (UserMountKind::Volume, "volume"),
        mount::Kind::Tmpfs => (UserMountKind::Tmpfs, "tmpfs"),
        mount::Kind::Image => (UserMountKind::Image, "image"),
        mount::Kind::Unspecified => return Err(invalid("invalid mount config: no type")),
    };
    let bad = |why: String| Err(invalid(format!("invalid mount config for type \"{name}\": {why}")));
    match kind {
        UserMountKind::Bind if !asked.source.starts_with('/') => {
            return bad(format!("invalid mount path: '{}' mount path must be absolute", shown(&asked.source)));
        }
        UserMountKind::Image if asked.source.is_empty() => return bad("field Source must not be empty".to_owned()),
        UserMountKind::Tmpfs if !asked.source.is_empty() => return bad("field Source must not be specified".to_owned()),
        _ => {}
    }
    let known = |option: &str| matches!(option, "noexec" | "exec" | "nosuid" | "suid" | "nodev" | "dev" | "rw" | "ro");
    if let Some(option) = asked.options.iter().find(|option| !known(option)) {
        return bad(format!("unknown option {:?}", shown(option)));
    }
    if !matches!(asked.relabel.as_str(), "" | "z" | "Z") {
        return bad(format!("unknown relabel {:?}", shown(&asked.relabel)));
    }
    Ok(UserMount {
        kind,
        source: asked.source.clone(),
        target: target(&asked.target)?,
        read_only: asked.read_only,
        propagation: asked.propagation.clone(),
        must_exist: asked.must_exist,
        no_copy: asked.no_copy,
        tmpfs_size: Some(asked.tmpfs_size).filter(|size| *size > 0),
        tmpfs_mode: Some(asked.tmpfs_mode).filter(|mode| *mode > 0),
        subpath: asked.subpath.clone(),
        volume_labels: asked.volume_labels.clone().into_iter().collect(),
        options: asked.options.clone(),
        relabel: asked.relabel.clone(),
        recursive_read_only: asked.recursive_read_only,
    })
}
