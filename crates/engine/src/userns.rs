//! Whether pods can have user namespaces here: asked of the kernel and of the file systems that matter, once.

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use layer::Overlay;
use model::{
    ErrorKind,
    pod::{IdMap, UserNamespace},
};
use sys::{
    Errno,
    mount::{self, Depth},
    userns::Sample,
};

use crate::{
    Inner,
    blocking::blocking,
    error::{About, Error},
    overlay,
};

/// As a kubelet deals them out: 65536 ids for each pod, from the second 65536 on.
const RUN: IdMap = IdMap { host_id: 65_536, length: 65_536 };

/// Why there are none.
#[derive(Debug, thiserror::Error)]
enum Lacking {
    #[error("make one (/proc/sys/user/max_user_namespaces may be 0)")]
    Namespace(#[source] sys::Error),
    #[error("{0:?} is on a file system that cannot show owners by a mapping (idmapped mounts)")]
    Idmap(PathBuf, #[source] Errno),
    #[error("overlay of a mount that shows owners by a mapping (Linux 5.19)")]
    Overlay(#[source] Box<layer::Error>),
}

/// The answer, once somebody has asked: `Err` says why there are none.
#[derive(Debug, Default)]
pub(crate) struct Support(OnceLock<Result<(), String>>);

impl Inner {
    /// Whether pods can have user namespaces.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn user_namespaces(&self) -> Result<(), Error> {
        let refuse = |why: String| {
            Error::new(ErrorKind::Unsupported, About::Engine, format!("pods cannot have user namespaces on this node: {why}"))
        };
        if let Some(known) = self.userns.0.get() {
            return known.clone().map_err(refuse);
        }
        let config = self.config.clone();
        let found = blocking(move || probe(&config.root, &config.run)).await.map_err(|error| crate::chain(&error));
        if let Err(why) = &found {
            tracing::warn!(why, "pods cannot have user namespaces");
        }
        self.userns.0.get_or_init(|| found).clone().map_err(refuse)
    }
}

/// The writable layers are below `root`, hosts and resolv.conf of a pod below `run`.
fn probe(root: &Path, run: &Path) -> Result<(), Lacking> {
    let sample = Sample::new(&UserNamespace { uids: RUN, gids: RUN }).map_err(Lacking::Namespace)?;
    let userns = sample.open().map_err(Lacking::Namespace)?;
    let show = |path: &Path| {
        let copy = mount::clone_path(path, Depth::Top).and_then(|copy| mount::idmap(&copy, Depth::Top, &userns).map(|()| copy));
        copy.map_err(|e| Lacking::Idmap(path.to_owned(), e))
    };
    show(run)?;
    let lower = show(root)?;
    overlay::mount(&Overlay { lowers: &[lower.as_fd()], upper: None }, None, None)
        .map(drop)
        .map_err(|e| Lacking::Overlay(Box::new(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_shown_by_a_mapping_is_named() {
        let home = tempfile::tempdir().unwrap();
        probe(home.path(), home.path()).unwrap();
        let bad = Path::new("/proc/sys");
        for (root, run) in [(home.path(), bad), (bad, home.path())] {
            let error = probe(root, run).unwrap_err();
            assert!(matches!(&error, Lacking::Idmap(path, Errno::INVAL) if path == bad), "{error:?}");
        }
    }
}
