//! How much a container's writable layer takes: asked of the file system where that counts projects, else counted by
//! walking, seldom enough not to be felt.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use model::{ContainerId, ErrorKind, container::ContainerState};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat},
    io::Errno,
};
use sys::quota::{self, Support};

use crate::{
    Inner,
    container::Container,
    error::{About, Error, Step},
};

/// A writable layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writable {
    /// The directory where all of them are, which tells the file system.
    pub path: PathBuf,
    /// Bytes on disk.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
    /// Bytes at most; `None`: no limit of its own.
    pub limit: Option<u64>,
}

/// What was found at the last walk.
#[derive(Clone, Debug)]
pub(super) struct Walked {
    at: Instant,
    took: Duration,
    /// It was over by then: nothing changes any more.
    last: bool,
    figure: Writable,
}

/// Walking costs per file, so the figures are this old at most (a kubelet asks every 10 s) ..
const AGE: Duration = Duration::from_secs(9);
/// .. and older where a walk takes long: one part in so many of the time goes into it.
const SHARE: u32 = 20;
/// A walk that took longer than this is repeated behind the answers, which meanwhile say what is known.
const SHORT: Duration = Duration::from_millis(1);
/// Files at most; a layer with more is said to have these.
const FILES: u64 = 2_000_000;
/// Directories within one another; each is held open while it is read.
const DEPTH: usize = 256;
/// Projects of containers have this bit, and not the next one: administrators number theirs from 1 (/etc/projects).
const PROJECTS: u32 = 0x4000_0000;
/// How many numbers are tried for one that is free.
const TRIES: u32 = 64;

impl Inner {
    /// Makes a container's writable layer with a project of its own, if the file system counts projects. To be called
    /// while it is empty.
    pub(crate) fn claim_project(&self, id: ContainerId) -> Result<(), Error> {
        if self.quota == Support::None {
            return Ok(());
        }
        let dir = self.store.container_dir(id).step(id, "make the writable layer")?;
        // Overlay moves files from `work` to `upper`, which the kernel refuses between projects (EXDEV).
        let own = self.store.container_path(id);
        let claimed = project(&own, &[&dir.upper, &dir.work], (id, self.config.writable_layer_limit));
        match (claimed, self.config.writable_layer_limit) {
            (Ok(()), _) => Ok(()),
            (Err(errno), None) => {
                tracing::debug!(container = %id.short(), %errno, "no project for the writable layer");
                Ok(())
            }
            (Err(errno), Some(_)) => {
                Err(sys::Error::Call { call: "limit the writable layer".to_owned(), source: errno }).step(id, "project quota")
            }
        }
    }

    /// Takes the limit of a writable layer away again, so that nothing is left of its project.
    pub(crate) fn drop_project(&self, id: ContainerId) {
        if self.quota != Support::None
            && let Ok(dir) = open(CWD, self.store.container_path(id))
            && let Ok(project @ PROJECTS..) = quota::project(&dir)
        {
            quota::set_limit(&dir, project, None).ok();
        }
    }

    /// What a container's writable layer takes. Blocks.
    pub(crate) fn writable(self: &Arc<Self>, container: &Arc<Container>) -> Writable {
        let own = self.store.container_path(container.id);
        let path = self.store.containers_path();
        if self.quota != Support::None
            && let Ok(quota::Usage { bytes, inodes, limit }) = counted(&own)
        {
            return Writable { path, bytes, inodes, limit };
        }
        let over = matches!(container.state(), ContainerState::Exited { .. });
        let known = {
            let mut samples = container.usage.lock().unwrap_or_else(PoisonError::into_inner);
            match &samples.writable {
                Some(walked) if walked.holds(over) => return walked.figure.clone(),
                // Somebody else is at it, or will be in a moment.
                Some(walked) if walked.took > SHORT => {
                    let figure = walked.figure.clone();
                    if std::mem::replace(&mut samples.walking, true) {
                        return figure;
                    }
                    Some(figure)
                }
                Some(_) | None => None,
            }
        };
        match known {
            Some(figure) => {
                let (inner, container) = (self.clone(), container.clone());
                tokio::task::spawn_blocking(move || inner.walk(&container, &own));
                figure
            }
            None => self.walk(container, &own),
        }
    }

    fn walk(&self, container: &Container, own: &Path) -> Writable {
        let last = matches!(container.state(), ContainerState::Exited { .. });
        let begun = Instant::now();
        let mut figure = Writable { path: self.store.containers_path(), ..Writable::default() };
        if let Ok(upper) = open(CWD, own.join("upper")) {
            add_tree(&upper, &mut figure, 0);
        }
        let mut samples = container.usage.lock().unwrap_or_else(PoisonError::into_inner);
        samples.walking = false;
        samples.writable = Some(Walked { at: Instant::now(), took: begun.elapsed(), last, figure: figure.clone() });
        figure
    }
}

impl Walked {
    fn holds(&self, over: bool) -> bool {
        self.last || (!over && self.at.elapsed() < AGE.max(self.took * SHARE))
    }
}

fn project(own: &Path, within: &[&Path], (id, limit): (ContainerId, Option<u64>)) -> Result<(), Errno> {
    let directory = open(CWD, own)?;
    let project = free_project(&directory, id)?;
    quota::set_project(&directory, project)?;
    for path in within {
        quota::set_project(open(CWD, *path)?, project)?;
    }
    quota::set_limit(&directory, project, limit)
}

/// A number that nothing on the file system has. It follows from the container's id but for collisions.
fn free_project(file: &OwnedFd, id: ContainerId) -> Result<u32, Errno> {
    let [a, b, c, d, ..] = *id.as_bytes();
    let first = u32::from_be_bytes([a, b, c, d]);
    let mut candidates = (0..TRIES).map(|offset| PROJECTS | (first.wrapping_add(offset) & (PROJECTS - 1)));
    let free = |project: &u32| match quota::usage(file, *project) {
        Ok(usage) => usage.bytes == 0 && usage.inodes == 0,
        // XFS: there is nothing with this project.
        Err(errno) => errno == Errno::NOENT,
    };
    candidates.find(free).ok_or(Errno::USERS)
}

fn counted(own: &Path) -> Result<quota::Usage, Errno> {
    let directory = open(CWD, own)?;
    match quota::project(&directory)? {
        project @ PROJECTS.. => quota::usage(&directory, project),
        // Made before the file system counted projects.
        _ => Err(Errno::NODATA),
    }
}

/// What a file system's project quotas are good for.
pub(crate) fn support(root: &Path, limit: Option<u64>) -> Result<Support, Error> {
    let support = open(CWD, root).map_or(Support::None, |root| quota::support(&root));
    if limit.is_some() && support != Support::Enforced {
        let why = "writable_layer_limit: the file system of the root directory enforces no project quotas (mount XFS or ext4 with prjquota)";
        return Err(Error::new(ErrorKind::Unsupported, About::Engine, why));
    }
    Ok(support)
}

fn open(at: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Bytes on disk of what is below a directory.
pub(crate) fn tree_bytes(path: &Path) -> u64 {
    let mut sum = Writable::default();
    if let Ok(dir) = open(CWD, path) {
        add_tree(&dir, &mut sum, 0);
    }
    sum.bytes
}

/// Adds up a tree, from descriptor to descriptor: the container may put links in the place of its directories meanwhile.
/// What vanishes does not count.
fn add_tree(dir: &OwnedFd, sum: &mut Writable, depth: usize) {
    let Ok(entries) = Dir::read_from(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if sum.inodes >= FILES {
            return;
        }
        sum.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        sum.inodes += 1;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            && depth < DEPTH
            && let Ok(below) = open(dir, name)
        {
            add_tree(&below, sum, depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_added_up_without_leaving_them() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("below")).unwrap();
        std::fs::write(dir.path().join("below/file"), vec![1; 10_000]).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("link")).unwrap();
        let mut sum = Writable::default();
        add_tree(&open(CWD, dir.path()).unwrap(), &mut sum, 0);
        assert_eq!(sum.inodes, 3);
        assert!((10_000..50_000).contains(&sum.bytes), "{sum:?}");
    }

    #[test]
    fn how_old_a_figure_may_be() {
        let walked = |took, last| Walked { at: Instant::now() - Duration::from_secs(12), took, last, figure: Writable::default() };
        assert!(!walked(Duration::from_millis(1), false).holds(false), "older than nine seconds");
        assert!(walked(Duration::from_secs(1), false).holds(false), "walking takes a second: every twenty at most");
        assert!(!walked(Duration::from_secs(1), false).holds(true), "it has ended since");
        assert!(walked(Duration::ZERO, true).holds(true));
    }

    #[test]
    fn a_limit_that_nobody_enforces_is_refused() {
        assert_eq!(support(Path::new("/proc"), None).unwrap(), Support::None);
        let refused = support(Path::new("/proc"), Some(1)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
    }
}
