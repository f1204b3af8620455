//! User namespaces: their mappings, who their root is, and a thread's ids for files.

use std::{os::fd::OwnedFd, time::Duration};

use model::pod::{IdMap, UserNamespace};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use crate::{
    Context, Error,
    ns::New,
    proc::Proc,
    process::{self, Pid, Process},
};

/// Writes the mappings of the user namespace that a process has just made. setgroups(2) stays allowed in it: the caller is
/// privileged outside (user_namespaces(7)).
///
/// # Errors
/// EPERM: they are written already, or the caller may not. EINVAL: no mapping that the kernel takes.
pub fn map(proc: &Proc, process: Pid, userns: &UserNamespace) -> Result<(), Error> {
    let pid = process.as_raw_nonzero();
    let line = |map: IdMap| format!("0 {} {}\n", map.host_id, map.length);
    proc.write(&format!("{pid}/gid_map"), &line(userns.gids))?;
    proc.write(&format!("{pid}/uid_map"), &line(userns.uids))
}

/// A user namespace that nobody uses, to find out what can be done with one. It goes when this is dropped.
#[derive(Debug)]
pub struct Sample {
    holder: Process,
}

impl Sample {
    /// Makes one.
    ///
    /// # Errors
    /// ENOSPC: /proc/sys/user/max_user_namespaces. Else clone3(2), or as [`map`].
    pub fn new(userns: &UserNamespace) -> Result<Self, Error> {
        let holder = process::fork_idle(New::NEWUSER).during(|| "clone3(CLONE_NEWUSER)".to_owned())?;
        let sample = Self { holder };
        map(&Proc::new()?, sample.holder.pid, userns)?;
        Ok(sample)
    }

    /// A descriptor of it.
    ///
    /// # Errors
    /// open(2).
    pub fn open(&self) -> Result<OwnedFd, Error> {
        let path = format!("/proc/{}/ns/user", self.holder.pid.as_raw_nonzero());
        openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).during(|| format!("open({path:?})"))
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        let _ = process::signal(&self.holder, model::Signal::KILL);
        let _ = process::wait(&self.holder, Duration::from_secs(5));
    }
}

/// Makes the calling thread root of the user namespace that it has entered, with no further groups: until then its ids are
/// those that it had outside, which are nobody's inside.
///
/// # Errors
/// EPERM: it has no CAP_SETUID and CAP_SETGID there. EINVAL: 0 is not mapped.
pub fn become_root() -> Result<(), Errno> {
    set_thread_groups(&[])?;
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

/// Gives what the calling thread makes on file systems to another user and group from now on, and keeps its capabilities
/// (setfsuid(2); SECBIT_NO_SETUID_FIXUP of capabilities(7)). The way to make files in an idmapped mount from outside of its
/// user namespace: ids that the mapping does not have are refused there with EOVERFLOW.
///
/// # Errors
/// EPERM without CAP_SETPCAP, CAP_SETUID and CAP_SETGID.
pub fn set_file_ids(uid: u32, gid: u32) -> Result<(), Errno> {
    let securebits = rustix::thread::capabilities_secure_bits()? | rustix::thread::CapabilitiesSecureBits::NO_SETUID_FIXUP;
    rustix::thread::set_capabilities_secure_bits(securebits)?;
    #[allow(unsafe_code, reason = "rustix has no setfsuid(2)")]
    // SAFETY: both calls take an integer and touch no memory; they change the calling thread only, because these are the raw
    // system calls. They answer with the id that was set before, so the second round tells what came of the first.
    let set = unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
        (libc::syscall(libc::SYS_setfsuid, uid), libc::syscall(libc::SYS_setfsgid, gid))
    };
    // 32 bits come back sign-extended.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an id has 32 bits")]
    let now = (set.0 as u32, set.1 as u32);
    if now == (uid, gid) { Ok(()) } else { Err(Errno::PERM) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn owners_are_shown_by_a_mapping() {
        let ids = |host_id| IdMap { host_id, length: 65_536 };
        let sample = Sample::new(&UserNamespace { uids: ids(1 << 20), gids: ids(1 << 21) }).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        std::os::unix::fs::chown(dir.path().join("file"), Some(5), Some(6)).unwrap();
        let mount = crate::mount::clone_path(dir.path(), crate::mount::Depth::Top).unwrap();
        crate::mount::idmap(&mount, crate::mount::Depth::Top, sample.open().unwrap()).unwrap();
        let shown = rustix::fs::statat(&mount, "file", rustix::fs::AtFlags::empty()).unwrap();
        assert_eq!((shown.st_uid, shown.st_gid), ((1 << 20) + 5, (1 << 21) + 6));
        let work = move || {
            set_file_ids(1 << 20, 1 << 21).unwrap();
            rustix::fs::mkdirat(&mount, "made", Mode::RWXU).unwrap();
        };
        std::thread::spawn(work).join().unwrap();
        let made = dir.path().join("made").metadata().unwrap();
        assert_eq!((made.uid(), made.gid()), (0, 0), "on disk are the container's numbers");
    }

    #[test]
    fn a_thread_makes_files_for_somebody_else() {
        let dir = tempfile::tempdir().unwrap();
        let (file, second) = (dir.path().join("file"), dir.path().join("second"));
        let path = file.clone();
        let work = move || {
            set_file_ids(4711, 4_000_000_000).unwrap();
            std::fs::write(&path, "x").unwrap();
            // Still root where that counts.
            assert!(std::fs::read("/etc/shadow").is_ok());
            crate::mount::Filesystem::open("tmpfs").unwrap().mount(crate::mount::Attributes::empty()).unwrap();
        };
        std::thread::spawn(work).join().unwrap();
        let made = file.metadata().unwrap();
        assert_eq!((made.uid(), made.gid()), (4711, 4_000_000_000));
        std::fs::write(&second, "x").unwrap();
        assert_eq!(second.metadata().unwrap().uid(), 0, "other threads are who they were");
    }
}
