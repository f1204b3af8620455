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

/// Files that the engine mounts in every container.
pub(super) const FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];
/// The kernel's own file systems in every container.
const KERNEL: [&str; 3] = ["dev", "proc", "sys"];

/// As the kernel.
const MAX_LINKS: usize = 40;

impl Inner {
    /// Where something is mounted in a container, relative to its root.
    pub(super) async fn places_of(self: &Arc<Self>, user: &UserContainer) -> Result<BTreeSet<Vec<u8>>, Error> {
        let layers = user.now.borrow().record.layers.clone();
        self.places(layers, targets(user)).await
    }

    /// Where something is mounted on layers, which are pinned: the engine's own files, and `mounts`.
    pub(super) async fn places(self: &Arc<Self>, layers: Vec<DiffId>, mounts: Vec<String>) -> Result<BTreeSet<Vec<u8>>, Error> {
        let root = self.mounted(layers).await?;
        let found = move || {
            FILES.into_iter().chain(KERNEL).chain(mounts.iter().map(String::as_str)).map(|path| place(&root, path)).collect()
        };
        Ok(blocking(found).await)
    }
}

/// Where something is mounted in a container because somebody has asked for it.
pub(super) fn targets(user: &UserContainer) -> Vec<String> {
    let spec = user.spec();
    let tmpfs = spec.container.own.iter().flat_map(|own| &own.tmpfs);
    let mounts = spec.mounts.iter().chain(tmpfs).map(|mount| mount.target.clone());
    mounts.chain(user.volumes().into_iter().map(|volume| volume.target)).collect()
}

/// The place of `path` relative to the root, as the executor finds or makes it. Blocks.
fn place(root: &Root, path: &str) -> Vec<u8> {
    follow(path, |path| link(root, path)).into_bytes()
}

/// A path without links, and without slashes around it; `link` says where a name leads that is one.
pub(super) fn follow(path: &str, link: impl Fn(&str) -> Option<String>) -> String {
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
        if let Some(target) = link(&done.join("/")) {
            followed += 1;
            if target.starts_with('/') {
                done.clear();
            } else {
                done.pop();
            }
            parts(&target).rev().for_each(|part| todo.push_front(part));
        }
    }
    done.join("/")
}

fn parts(path: &str) -> impl DoubleEndedIterator<Item = String> + '_ {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned)
}

/// Where a link leads, if it is one.
pub(super) fn link(root: &Root, path: &str) -> Option<String> {
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
