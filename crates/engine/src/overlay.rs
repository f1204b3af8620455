//! Overlays of mounts that are attached nowhere. Overlayfs takes those since Linux 6.15; before, they are attached for the
//! moment that it needs to make its own copies.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use layer::{Error, Overlay};
use sys::{
    Errno,
    mount::{self, Depth},
};

/// Mounts an overlay, detached. `holder`: the mount that the directories of its upper layer are in, if that is attached
/// nowhere. `label`: an SELinux label for all files. On an older kernel what is attached nowhere can be used only this once.
///
/// # Errors
/// As [`Overlay::mount_labelled`].
pub(crate) fn mount(overlay: &Overlay<'_>, holder: Option<BorrowedFd<'_>>, label: Option<&str>) -> Result<OwnedFd, Error> {
    match overlay.mount_labelled(label) {
        Err(Error::Mount { source: Errno::INVAL, .. }) => attached(overlay, holder, label),
        other => other,
    }
}

fn attached(overlay: &Overlay<'_>, holder: Option<BorrowedFd<'_>>, label: Option<&str>) -> Result<OwnedFd, Error> {
    let failed = |source| Error::Mount { what: "overlay".to_owned(), step: "attach its layers".to_owned(), source };
    let empty = if overlay.lacks_lower() { Some(layer::empty_root()?) } else { None };
    // Of what is attached already a copy is: in the other mount namespace the original counts as little. What is attached
    // nowhere cannot be copied.
    let copies: Vec<Option<OwnedFd>> = overlay.lowers.iter().map(|lower| mount::clone_fd(lower, Depth::Top).ok()).collect();
    let lowers = overlay.lowers.iter().zip(&copies).map(|(lower, copy)| copy.as_ref().map_or(*lower, AsFd::as_fd));
    let lowers: Vec<_> = lowers.chain(empty.as_ref().map(AsFd::as_fd)).collect();
    let all: Vec<_> = lowers.iter().copied().chain(holder).collect();
    let overlay = Overlay { lowers: &lowers, upper: overlay.upper };
    mount::while_attached(&all, || overlay.mount_labelled(label)).map_err(failed)?
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use layer::{Durability, Upper};
    use rustix::fs::{Mode, OFlags, openat};

    use super::*;

    /// A detached copy of a new directory that has one file.
    fn detached(name: &str) -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), name).unwrap();
        let copy = mount::clone_path(dir.path(), Depth::Top).unwrap();
        (dir, copy)
    }

    fn listed(root: &OwnedFd) -> Vec<String> {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(root));
        let mut names: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    /// As on a kernel before 6.15; newer ones can do it as well.
    #[test]
    fn layers_that_are_attached_nowhere_are_attached_for_a_moment() {
        // On a node under systemd, what is mounted shows up everywhere.
        let on_a_node = || {
            sys::ns::unshare(sys::ns::New::NEWNS).unwrap();
            mount::change_all(mount::Propagation::SHARED).unwrap();
            let table = || std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            let before = table();
            layers_of_all_kinds();
            assert_eq!(table(), before, "somebody sees it");
        };
        std::thread::scope(|scope| scope.spawn(on_a_node).join()).unwrap();
    }

    fn layers_of_all_kinds() {
        let ((_a, a), (_b, b), (kept, copy)) = (detached("a"), detached("b"), detached("c"));
        drop(copy);
        let plain: OwnedFd = File::open(kept.path()).unwrap().into();
        let lowers = [a.as_fd(), plain.as_fd()];
        let (upper_dir, holder) = detached("ignored");
        for name in ["upper", "work"] {
            std::fs::create_dir(upper_dir.path().join(name)).unwrap();
        }
        let inside = |name: &str| openat(&holder, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let (upper, work) = (inside("upper"), inside("work"));
        let upper = Upper { upper: upper.as_fd(), work: work.as_fd(), durability: Durability::Volatile };
        let root = attached(&Overlay { lowers: &lowers, upper: Some(upper) }, Some(holder.as_fd()), None).unwrap();
        assert_eq!(listed(&root), ["a", "c"]);
        openat(&root, "new", OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR).unwrap();
        assert!(upper_dir.path().join("upper/new").exists());
        // One layer needs an empty one below it.
        let root = attached(&Overlay { lowers: &[b.as_fd()], upper: None }, None, None).unwrap();
        assert_eq!(listed(&root), ["b"]);
    }
}
