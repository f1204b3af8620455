//! Detached mounts: of one layer's image, and of an overlay of many layers. Nothing appears in the host's mount table;
//! a mount lives as long as its descriptor, or as what it was attached to.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string,
        fsmount, fsopen,
    },
};

use crate::Error;

/// Mounts a layer's image read-only. Devices and setuid files in it stay usable, since images may bring them: what a
/// container may do with them is for its device cgroup and capabilities to say.
///
/// # Errors
/// [`Error::Mount`]; `ENOTBLK` or `EINVAL` where the kernel cannot mount images from files.
pub fn mount_erofs(path: &Path) -> Result<OwnedFd, Error> {
    let what = || format!("erofs {}", path.display());
    let failed = |step: &str, source| Error::Mount { what: what(), step: step.to_owned(), source };
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| failed("fsopen", e))?;
    fsconfig_set_string(&context, "source", path).map_err(|e| failed("source", e))?;
    fsconfig_set_flag(&context, "ro").map_err(|e| failed("ro", e))?;
    fsconfig_create(&context).map_err(|e| failed("create", e))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY).map_err(|e| failed("fsmount", e))
}

/// What happens to a container's changes when the machine crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// fsync and umount write the upper directory to disk.
    Durable,
    /// Nothing is synced, which makes unmounting 20 to 40 times faster; after a crash of the machine the upper directory
    /// cannot be used again (overlayfs.rst, "Volatile mount").
    Volatile,
}

/// The writable part of an overlay. Both directories are on one file system; `work` is empty and ours.
#[derive(Clone, Copy, Debug)]
pub struct Upper<'f> {
    /// Takes the changes.
    pub upper: BorrowedFd<'f>,
    /// Overlayfs's own working directory.
    pub work: BorrowedFd<'f>,
    /// Whether the changes must survive a crash of the machine.
    pub durability: Durability,
}

/// Layers on top of each other.
#[derive(Clone, Copy, Debug)]
pub struct Overlay<'f> {
    /// Directories or mounts of layers, the topmost first. May be empty.
    pub lowers: &'f [BorrowedFd<'f>],
    /// Without it the overlay is read-only.
    pub upper: Option<Upper<'f>>,
}

/// How directories are named to the kernel, from the newest way to the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// Descriptors (Linux 6.13).
    Descriptors,
    /// One `lowerdir+` per layer (Linux 6.8).
    Single,
    /// One `lowerdir` for all, in 255 bytes.
    Joined,
}

/// fsconfig(2): a string is at most 256 bytes with its NUL.
const MAX_STRING: usize = 255;

impl Overlay<'_> {
    /// Mounts it, detached.
    ///
    /// # Errors
    /// [`Error::Mount`], and [`Error::TooManyLayers`] on kernels before 6.8 whose one option cannot name them all.
    pub fn mount(&self) -> Result<OwnedFd, Error> {
        self.mount_labelled(None)
    }

    /// The same with one SELinux label for all files.
    ///
    /// # Errors
    /// As [`Self::mount`]; `EINVAL` for a label that the policy does not know.
    pub fn mount_labelled(&self, label: Option<&str>) -> Result<OwnedFd, Error> {
        match self.mount_naming(Naming::Descriptors, label) {
            // EBADF: of descriptors that are only places (O_PATH).
            Err(Error::Mount { source: Errno::INVAL | Errno::BADF, .. }) => {}
            other => return other,
        }
        // EINVAL says that the kernel does not know the way, or that it does not like the layers; the next way tells.
        match self.mount_naming(Naming::Single, label) {
            Err(Error::Mount { source: Errno::INVAL, .. }) => self.mount_naming(Naming::Joined, label),
            other => other,
        }
    }

    /// Whether an empty layer is put below the others: overlayfs wants one lower directory, and two when there is no upper one.
    pub fn lacks_lower(&self) -> bool {
        self.lowers.len() < if self.upper.is_some() { 1 } else { 2 }
    }

    fn mount_naming(&self, naming: Naming, label: Option<&str>) -> Result<OwnedFd, Error> {
        let empty = if self.lacks_lower() { Some(empty_root()?) } else { None };
        let mut lowers = self.lowers.to_vec();
        if let Some(empty) = &empty {
            if lowers.is_empty() && self.upper.is_none() {
                return empty.try_clone().map_err(|e| failed("dup", Errno::from_io_error(&e).unwrap_or(Errno::IO)));
            }
            lowers.push(empty.as_fd());
        }
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| failed("fsopen", e))?;
        fsconfig_set_string(&context, "source", "overlay").map_err(|e| failed("source", e))?;
        set_lowers(&context, &lowers, naming)?;
        if let Some(upper) = &self.upper {
            set_directory(&context, "upperdir", upper.upper, naming)?;
            set_directory(&context, "workdir", upper.work, naming)?;
            if upper.durability == Durability::Volatile {
                fsconfig_set_flag(&context, "volatile").map_err(|e| failed("volatile", e))?;
            }
        }
        // Layers never carry redirects or metadata-only copies (their trusted.overlay.* attributes are stripped), so
        // following any would be following an attacker. xino makes all of it one
        // device with unique inode numbers; `auto` would give that up for EROFS, whose file handles are of 64 bits
        // although its inode numbers, offsets in units of 32, are small.
        for (key, value) in [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"), ("xino", "on")] {
            fsconfig_set_string(&context, key, value).map_err(|e| failed(key, e))?;
        }
        if let Some(label) = label {
            fsconfig_set_string(&context, "context", label).map_err(|e| failed("context", e))?;
        }
        fsconfig_create(&context).map_err(|e| failed("create", e))?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(|e| failed("fsmount", e))
    }
}

fn set_lowers(context: &OwnedFd, lowers: &[BorrowedFd<'_>], naming: Naming) -> Result<(), Error> {
    if naming != Naming::Joined {
        return lowers.iter().try_for_each(|lower| set_directory(context, "lowerdir+", *lower, naming));
    }
    let joined = lowers.iter().map(|lower| fd_path(*lower)).collect::<Vec<_>>().join(":");
    if joined.len() > MAX_STRING {
        return Err(Error::TooManyLayers { layers: lowers.len(), max: MAX_STRING });
    }
    fsconfig_set_string(context, "lowerdir", joined).map_err(|e| failed("lowerdir", e))
}

fn set_directory(context: &OwnedFd, key: &str, dir: BorrowedFd<'_>, naming: Naming) -> Result<(), Error> {
    match naming {
        Naming::Descriptors => fsconfig_set_fd(context, key, dir),
        Naming::Single | Naming::Joined => fsconfig_set_string(context, key, fd_path(dir)),
    }
    .map_err(|e| failed(key, e))
}

fn fd_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// An empty read-only directory, detached: what an image without layers consists of.
///
/// # Errors
/// [`Error::Mount`]
pub fn empty_root() -> Result<OwnedFd, Error> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| failed("fsopen tmpfs", e))?;
    fsconfig_set_string(&context, "mode", "0755").map_err(|e| failed("tmpfs mode", e))?;
    fsconfig_create(&context).map_err(|e| failed("create tmpfs", e))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY).map_err(|e| failed("fsmount tmpfs", e))
}

fn failed(step: &str, source: Errno) -> Error {
    Error::Mount { what: "overlay".to_owned(), step: step.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;

    /// Directories that each hold one file named after them.
    fn layers(count: usize) -> (tempfile::TempDir, Vec<File>) {
        let dir = tempfile::tempdir().unwrap();
        let open = |i: usize| {
            let path = dir.path().join(i.to_string());
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join(i.to_string()), b"").unwrap();
            File::open(path).unwrap()
        };
        let files = (0..count).map(open).collect();
        (dir, files)
    }

    #[test]
    fn every_way_of_naming_gives_the_same_overlay() {
        let (_dir, files) = layers(5);
        let lowers: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        for naming in [Naming::Descriptors, Naming::Single, Naming::Joined] {
            let root = match (Overlay { lowers: &lowers, upper: None }).mount_naming(naming, None) {
                Err(Error::Mount { source: Errno::INVAL, .. }) if naming != Naming::Joined => {
                    continue; // A kernel without it; mount() goes on to the next one.
                }
                other => other.unwrap(),
            };
            let listed = std::fs::read_dir(fd_path(root.as_fd())).unwrap().count();
            assert_eq!(listed, 5, "{naming:?}");
        }
    }

    #[test]
    fn old_kernels_refuse_what_one_option_cannot_name() {
        let (_dir, files) = layers(30);
        let lowers: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let error = Overlay { lowers: &lowers, upper: None }.mount_naming(Naming::Joined, None).unwrap_err();
        assert!(matches!(error, Error::TooManyLayers { layers: 30, .. }), "{error}");
    }
}
