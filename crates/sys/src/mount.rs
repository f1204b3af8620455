//! Mounts by file descriptor: made detached, given their attributes, attached last. No path below a root filesystem
//! that somebody else can write is ever named twice, so nothing can be swapped between two uses of it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{AtFlags, CWD},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_fd,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
    },
};

use crate::{Context, Error};

pub use rustix::mount::{MountAttrFlags as Attributes, MountPropagationFlags as Propagation};

/// A filesystem being configured (fsopen(2)).
#[derive(Debug)]
pub struct Filesystem {
    kind: String,
    context: OwnedFd,
}

impl Filesystem {
    /// Starts with a filesystem type: "tmpfs", "overlay", ...
    ///
    /// # Errors
    /// ENODEV: the kernel lacks it.
    pub fn open(kind: &str) -> Result<Self, Error> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).during(|| format!("fsopen({kind:?})"))?;
        Ok(Self { kind: kind.to_owned(), context })
    }

    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// What the filesystem says against it.
    pub fn set(self, key: &str, value: impl rustix::path::Arg) -> Result<Self, Error> {
        let result = fsconfig_set_string(&self.context, key, value);
        self.explained(result, &format!("fsconfig({:?}, {key:?})", self.kind))?;
        Ok(self)
    }

    /// Sets `key` to an open file; overlay takes `lowerdir+`, `upperdir` and `workdir` so since Linux 6.13.
    ///
    /// # Errors
    /// What the filesystem says against it.
    pub fn set_fd(self, key: &str, fd: impl AsFd) -> Result<Self, Error> {
        let result = fsconfig_set_fd(&self.context, key, fd);
        self.explained(result, &format!("fsconfig({:?}, {key:?}, fd)", self.kind))?;
        Ok(self)
    }

    /// Sets a flag.
    ///
    /// # Errors
    /// What the filesystem says against it.
    pub fn flag(self, key: &str) -> Result<Self, Error> {
        let result = fsconfig_set_flag(&self.context, key);
        self.explained(result, &format!("fsconfig({:?}, {key:?})", self.kind))?;
        Ok(self)
    }

    /// The mount, attached nowhere: gone when the descriptor is closed before [`attach`].
    ///
    /// # Errors
    /// What the filesystem says against its configuration.
    pub fn mount(self, attributes: Attributes) -> Result<OwnedFd, Error> {
        let created = fsconfig_create(&self.context);
        self.explained(created, &format!("fsconfig({:?}, CMD_CREATE)", self.kind))?;
        let mounted = fsmount(&self.context, FsMountFlags::FSMOUNT_CLOEXEC, attributes);
        self.explained(mounted, &format!("fsmount({:?})", self.kind))
    }

    /// The kernel explains refusals in lines of "e message" (error), "w" (warning), "i" on the context itself.
    fn explained<T>(&self, result: Result<T, Errno>, call: &str) -> Result<T, Error> {
        let Err(source) = result else { return result.during(String::new) };
        let mut buffer = [0; 512];
        let mut message = String::new();
        while let Ok(length) = rustix::io::read(&self.context, &mut buffer) {
            if message.len() > 2000 || length == 0 {
                break;
            }
            let line = String::from_utf8_lossy(&buffer[..length]);
            if let Some(text) = line.strip_prefix("e ") {
                message.push_str(if message.is_empty() { "" } else { "; " });
                message.push_str(text.trim_end());
            }
        }
        let call = call.to_owned();
        Err(if message.is_empty() { Error::Call { call, source } } else { Error::Explained { call, message, source } })
    }
}

/// How much of a tree a clone takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// One mount.
    Top,
    /// With every mount below it.
    Recursive,
}

/// A detached copy of the mount at `path` (a bind mount that is nowhere yet). Follows symbolic links: only for paths
/// of the host.
///
/// # Errors
/// ENOENT and what else open_tree(2) says.
pub fn clone_path(path: impl rustix::path::Arg, depth: Depth) -> Result<OwnedFd, Errno> {
    open_tree(CWD, path, clone_flags(depth))
}

/// A detached copy of the mount at an open file or directory. If that lies in a detached mount itself, Linux 6.15 or
/// newer is needed (EINVAL before).
///
/// # Errors
/// What open_tree(2) says.
pub fn clone_fd(at: impl AsFd, depth: Depth) -> Result<OwnedFd, Errno> {
    open_tree(at, c"", clone_flags(depth) | OpenTreeFlags::AT_EMPTY_PATH)
}

/// A detached copy of what `inside`, a file or directory of the detached mount `mount`, is the top of.
///
/// # Errors
/// What open_tree(2) says.
pub fn subtree(mount: &OwnedFd, inside: &OwnedFd) -> Result<OwnedFd, Errno> {
    match clone_fd(inside, Depth::Top) {
        Err(Errno::INVAL) => attached_subtree(mount, inside),
        other => other,
    }
}

/// Before Linux 6.15 only what is attached can be copied.
fn attached_subtree(mount: &OwnedFd, inside: &OwnedFd) -> Result<OwnedFd, Errno> {
    while_attached(&[mount.as_fd()], || clone_fd(inside, Depth::Top))?
}

/// Does something while detached mounts are attached where nobody sees them: a thread of its own attaches them in a mount
/// namespace of its own. They go with it, so that they cannot be attached again.
///
/// # Errors
/// What unshare(2) and move_mount(2) say; EIO if `job` panicked.
pub fn while_attached<T: Send>(mounts: &[BorrowedFd<'_>], job: impl FnOnce() -> T + Send) -> Result<T, Errno> {
    let attached = || {
        crate::ns::unshare(crate::ns::New::NEWNS)?;
        change_all(Propagation::PRIVATE)?;
        // Each on top of the one before; descriptors lead to those below as well. A copy is its original's peer, on which
        // the next would show up too.
        let alone = Change { propagation: Some(Propagation::PRIVATE), ..Change::default() };
        for mount in mounts {
            change(mount, Depth::Recursive, &alone)?;
            attach_at(mount, c"/")?;
        }
        Ok(job())
    };
    std::thread::scope(|scope| scope.spawn(attached).join()).unwrap_or(Err(Errno::IO))
}

fn clone_flags(depth: Depth) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if depth == Depth::Recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// Attaches a detached mount on top of an open file or directory. Both are descriptors, so nothing is looked up.
///
/// # Errors
/// What move_mount(2) says; EINVAL if the target is in another mount namespace.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}

/// Attaches a detached mount on a path of the host.
///
/// # Errors
/// What move_mount(2) says.
pub fn attach_at(mount: impl AsFd, target: impl rustix::path::Arg) -> Result<(), Errno> {
    move_mount(mount, c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Changes of a mount's attributes (mount_setattr(2)).
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Attributes to set.
    pub set: Attributes,
    /// Attributes to clear.
    pub clear: Attributes,
    /// New propagation, if any.
    pub propagation: Option<Propagation>,
}

impl Default for Change {
    fn default() -> Self {
        Self { set: MountAttrFlags::empty(), clear: MountAttrFlags::empty(), propagation: None }
    }
}

/// Changes a mount; recursively it is all mounts below or none.
///
/// # Errors
/// What mount_setattr(2) says; EINVAL if the descriptor is not the root of a mount.
pub fn change(mount: impl AsFd, depth: Depth, change: &Change) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: change.set.bits().into(),
        attr_clr: change.clear.bits().into(),
        propagation: change.propagation.map_or(0, |p| u64::from(p.bits())),
        userns_fd: 0,
    };
    set_attributes(mount.as_fd(), depth, &attributes)
}

/// Shows the owners in a detached mount that was never attached by the mapping of a user namespace: what is 0 on disk
/// becomes the host's id that the namespace's 0 is, and back when something is written.
///
/// # Errors
/// EINVAL: the filesystem cannot (Linux 5.12 for ext4 and xfs, 6.3 for tmpfs; never NFS, procfs or an overlay). EPERM: it
/// is mapped already, or belongs to a user namespace itself.
pub fn idmap(mount: impl AsFd, depth: Depth, userns: impl AsFd) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(userns.as_fd().as_raw_fd()).map_err(|_| Errno::BADF)?,
    };
    set_attributes(mount.as_fd(), depth, &attributes)
}

fn set_attributes(mount: BorrowedFd<'_>, depth: Depth, attributes: &libc::mount_attr) -> Result<(), Errno> {
    let mut flags = libc::AT_EMPTY_PATH;
    if depth == Depth::Recursive {
        flags |= libc::AT_RECURSIVE;
    }
    #[allow(unsafe_code, reason = "no library wraps mount_setattr(2)")]
    // SAFETY: the descriptor is open for the borrow's time, the path is an empty C string (AT_EMPTY_PATH), and
    // `attributes` is an initialised mount_attr whose size is passed; the kernel only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const *attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(crate::process::last_errno()) }
}

/// Changes the propagation of everything mounted in the caller's namespace.
///
/// # Errors
/// What mount(2) says.
pub fn change_all(propagation: Propagation) -> Result<(), Errno> {
    rustix::mount::mount_change(c"/", propagation | Propagation::REC)
}

/// Makes the working directory, which must be the root of a mount with nothing on top of it, the root of the caller's
/// mount namespace, and forgets the old root with all that is mounted in it.
///
/// # Errors
/// What pivot_root(2) and umount2(2) say; EBUSY if anything of the old root would still be there.
pub fn pivot_to_cwd() -> Result<(), Errno> {
    let handle = |path: &std::ffi::CStr| {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::openat(CWD, path, flags, rustix::fs::Mode::empty())
    };
    let new = handle(c".")?;
    // With "." twice the old root ends up on top of the new one, so no directory is needed for it (pivot_root(2)).
    rustix::process::pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")?;
    // umount2 takes the topmost mount away. Had the old root one on top of itself, that would have gone instead, and the
    // next process to enter the namespace would find the host. "/.." is the topmost one; "/" need not be.
    if crate::path::same(&new, handle(c"/..")?)? { Ok(()) } else { Err(Errno::BUSY) }
}

/// Takes a mount at a path of the host away, even if it is in use; a path that is not there or not mounted is fine.
///
/// # Errors
/// What umount2(2) says.
pub fn detach(path: impl rustix::path::Arg) -> Result<(), Errno> {
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Whether the mount that an open file is on is read-only.
///
/// # Errors
/// What fstatvfs says.
pub fn is_readonly(fd: impl AsFd) -> Result<bool, Errno> {
    Ok(rustix::fs::fstatvfs(fd)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Whether detached mounts can be cloned and mounted upon (Linux 6.15); asked of the kernel once per call.
///
/// # Errors
/// No tmpfs at all.
pub fn detached_clones() -> Result<bool, Error> {
    let probe = Filesystem::open("tmpfs")?.mount(MountAttrFlags::empty())?;
    Ok(clone_fd(&probe, Depth::Top).is_ok())
}

/// Kernel-wide id of the mount that an open file is on: the first field of /proc/PID/mountinfo.
///
/// # Errors
/// What statx(2) says; ENOSYS before Linux 5.8.
pub fn mount_id(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::MNT_ID)?;
    if stat.stx_mask & rustix::fs::StatxFlags::MNT_ID.bits() == 0 { Err(Errno::NOSYS) } else { Ok(stat.stx_mnt_id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_explained() {
        let error = Filesystem::open("tmpfs").unwrap().set("size", "lots").unwrap_err();
        assert!(error.to_string().contains("fsconfig(\"tmpfs\", \"size\")"), "{error}");
        assert!(matches!(error, Error::Explained { .. }), "{error:?}");
        assert_eq!(Filesystem::open("nosuchfs").unwrap_err().errno(), Some(Errno::NODEV));
    }

    #[test]
    fn a_part_of_a_detached_mount_is_a_mount_of_its_own() {
        let named = |fd: &OwnedFd, name: &str| format!("/proc/self/fd/{}/{name}", fd.as_raw_fd());
        for way in [subtree, attached_subtree] {
            let tmpfs = Filesystem::open("tmpfs").unwrap().mount(Attributes::empty()).unwrap();
            std::fs::create_dir(named(&tmpfs, "d")).unwrap();
            std::fs::write(named(&tmpfs, "d/f"), "text").unwrap();
            let open = |path: &str| crate::path::Root::from(tmpfs.try_clone().unwrap()).resolve(path, crate::path::Links::Follow);
            let (directory, file) = (open("d").unwrap(), open("d/f").unwrap());
            let part = way(&tmpfs, &directory).unwrap();
            assert_eq!(std::fs::read_to_string(named(&part, "f")).unwrap(), "text");
            assert!(!std::path::Path::new(&named(&part, "../d")).exists(), "it has no way up");
            if way(&tmpfs, &file).is_err() {
                // Attached once already, the mount went with its namespace.
                assert_eq!(way as usize, attached_subtree as *const () as usize);
            }
        }
    }

    #[test]
    fn a_detached_mount_can_be_made_readonly() {
        let tmpfs = Filesystem::open("tmpfs").unwrap().mount(Attributes::empty()).unwrap();
        assert!(!is_readonly(&tmpfs).unwrap());
        let readonly = Change { set: Attributes::MOUNT_ATTR_RDONLY, ..Change::default() };
        change(&tmpfs, Depth::Recursive, &readonly).unwrap();
        assert!(is_readonly(&tmpfs).unwrap());
        assert!(mount_id(tmpfs.as_fd()).unwrap() > 0);
    }
}
