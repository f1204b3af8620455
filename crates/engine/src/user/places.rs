//! Where something is mounted in an image, links followed: what had to be made for that is no part of what a program has written.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use model::DiffId;
use rustix::fs::{FileType, OFlags, fstat, readlinkat};
use sys::path::{Links, Root};

use super::UserContainer;
use crate::{Inner, blocking::blocking, error::Error};

/// Where the engine mounts something in every container.
const OURS: [&str; 6] = ["dev", "etc/hostname", "etc/hosts", "etc/resolv.conf", "proc", "sys"];

/// As the kernel.
const MAX_LINKS: usize = 40;

impl Inner {
    /// Where something is mounted in a container, relative to its root.
    pub(super) async fn places_of(self: &Arc<Self>, user: &UserContainer) -> Result<BTreeSet<Vec<u8>>, Error> {
        let spec = user.spec();
        let tmpfs = spec.container.own.iter().flat_map(|own| &own.tmpfs);
        let mounts = spec.mounts.iter().chain(tmpfs).map(|mount| mount.target.clone());
        let volumes = user.volumes().into_iter().map(|volume| volume.target);
        let layers = user.now.borrow().record.layers.clone();
        self.places(layers, mounts.chain(volumes).collect()).await
    }

    /// Where something is mounted on layers, which are pinned: the engine's own files, and `mounts`.
    pub(super) async fn places(self: &Arc<Self>, layers: Vec<DiffId>, mounts: Vec<String>) -> Result<BTreeSet<Vec<u8>>, Error> {
        let root = self.mounted(layers).await?;
        let found = move || OURS.iter().copied().chain(mounts.iter().map(String::as_str)).map(|path| place(&root, path)).collect();
        Ok(blocking(found).await)
    }
}

/// The place of `path` relative to the root, as the executor finds or makes it. Blocks.
fn place(root: &Root, path: &str) -> Vec<u8> {
    let mut todo: VecDeque<String> = parts(path).collect();
    let mut done: Vec<String> = Vec::new();
    let mut followed = 0;
    while let Some(part) = todo.pop_front() {
        if part == ".." {
            done.pop();
            continue;
        }
        done.push(part);
        if followed == MAX_LINKS {
            continue;
        }
        if let Some(target) = link(root, &done.join("/")) {
            followed += 1;
            if target.starts_with('/') {
                done.clear();
            } else {
                done.pop();
            }
            parts(&target).rev().for_each(|part| todo.push_front(part));
        }
    }
    done.join("/").into_bytes()
}

fn parts(path: &str) -> impl DoubleEndedIterator<Item = String> + '_ {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned)
}

/// Where a link leads, if it is one.
fn link(root: &Root, path: &str) -> Option<String> {
    let found = root.open(path, OFlags::PATH | OFlags::NOFOLLOW, Links::Refuse).ok()?;
    let kind = FileType::from_raw_mode(fstat(&found).ok()?.st_mode);
    if kind != FileType::Symlink {
        return None;
    }
    readlinkat(&found, c"", Vec::new()).ok()?.into_string().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_where_the_executor_goes() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        std::fs::create_dir_all(at("etc")).unwrap();
        std::fs::create_dir_all(at("usr/lib")).unwrap();
        symlink("../run/stub", at("etc/resolv.conf")).unwrap();
        symlink("usr/lib", at("lib")).unwrap();
        symlink("/../../etc", at("up")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let root = Root::open_host(home.path()).unwrap();
        for (path, wanted) in [
            ("/etc/hosts", "etc/hosts"),
            ("/etc/resolv.conf", "run/stub"),
            ("/lib/a/b", "usr/lib/a/b"),
            ("/up/x", "etc/x"),
            ("/../../a/./b/../c", "a/c"),
            ("/loop/x", "loop/x"),
        ] {
            assert_eq!(String::from_utf8(place(&root, path)).unwrap(), wanted, "{path}");
        }
    }
}
