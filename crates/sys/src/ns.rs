//! Namespaces of the calling thread.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    thread::{LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space, move_into_thread_name_spaces},
};

pub use rustix::thread::{ThreadNameSpaceType as Kinds, UnshareFlags as New};

/// Moves the calling thread into new namespaces (unshare(2)).
///
/// # Errors
/// EINVAL for flags that are not about namespaces; else what the kernel says.
pub fn unshare(new: New) -> Result<(), Errno> {
    if new.intersects(UnshareFlags::FILES | UnshareFlags::FS | UnshareFlags::SYSVSEM) {
        return Err(Errno::INVAL);
    }
    #[allow(unsafe_code, reason = "rustix marks unshare unsafe for the sake of CLONE_FILES")]
    // SAFETY: the only condition is that CLONE_FILES does not take a descriptor away from other code of the thread;
    // CLONE_FILES was refused above.
    unsafe {
        rustix::thread::unshare_unsafe(new)
    }
}

/// Moves the calling thread into namespaces of the process behind a pidfd, all or none. With [`Kinds`] PROCESS_ID
/// only children made later are affected. A mount namespace also needs a thread that shares its working directory
/// with no other.
///
/// # Errors
/// ESRCH: the process is gone. Else setns(2).
pub fn enter(pidfd: impl AsFd, kinds: Kinds) -> Result<(), Errno> {
    move_into_thread_name_spaces(pidfd.as_fd(), kinds)
}

/// Moves the calling thread into the namespace behind a descriptor of `/proc/PID/ns/KIND` or a pinned one.
///
/// # Errors
/// setns(2).
pub fn enter_link(namespace: impl AsFd, kind: Kinds) -> Result<(), Errno> {
    let kind = match kind {
        ThreadNameSpaceType::NETWORK => LinkNameSpaceType::Network,
        ThreadNameSpaceType::PROCESS_ID => LinkNameSpaceType::ProcessID,
        ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION => LinkNameSpaceType::InterProcessCommunication,
        ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME => LinkNameSpaceType::HostNameAndNISDomainName,
        ThreadNameSpaceType::CONTROL_GROUP => LinkNameSpaceType::ControlGroup,
        ThreadNameSpaceType::USER => LinkNameSpaceType::User,
        ThreadNameSpaceType::MOUNT => LinkNameSpaceType::Mount,
        _ => return Err(Errno::INVAL),
    };
    move_into_link_name_space(namespace.as_fd(), Some(kind))
}

/// NS_GET_USERNS of linux/nsfs.h: `_IO(0xb7, 1)`.
const GET_USERNS: libc::Ioctl = 0xb701;

/// The user namespace that owns a namespace (ioctl_nsfs(2)).
///
/// # Errors
/// EPERM: it is neither the caller's own nor below that.
pub fn owner(namespace: impl AsFd) -> Result<OwnedFd, Errno> {
    #[allow(unsafe_code, reason = "neither rustix nor nix wraps NS_GET_USERNS")]
    // SAFETY: NS_GET_USERNS takes no argument and touches no memory; it comes back with a new descriptor, close-on-exec,
    // that nobody else owns, or with -1.
    unsafe {
        match libc::ioctl(namespace.as_fd().as_raw_fd(), GET_USERNS) {
            -1 => Err(crate::process::last_errno()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// A namespace of the calling thread, `name` as in `/proc/thread-self/ns/`: "net", "pid", "mnt", ...
///
/// # Errors
/// open(2).
pub fn own(name: &str) -> Result<OwnedFd, Errno> {
    if name.contains('/') {
        return Err(Errno::INVAL);
    }
    openat(CWD, format!("/proc/thread-self/ns/{name}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// A namespace of another process, `name` as for [`own`]. The caller makes sure that the process is still the one it means.
///
/// # Errors
/// open(2).
pub fn of(process: crate::process::Pid, name: &str) -> Result<OwnedFd, Errno> {
    if name.contains('/') {
        return Err(Errno::INVAL);
    }
    let path = format!("/proc/{}/ns/{name}", process.as_raw_nonzero());
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Switches the loopback interface of the calling thread's network namespace on (netdevice(7)).
///
/// # Errors
/// EPERM: the namespace is not ours.
pub fn loopback_up() -> Result<(), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut name = [0; libc::IFNAMSIZ];
    (name[0], name[1]) = (b'l'.cast_signed(), b'o'.cast_signed());
    let flags = libc::__c_anonymous_ifr_ifru { ifru_flags: (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short };
    let request = libc::ifreq { ifr_name: name, ifr_ifru: flags };
    #[allow(unsafe_code, reason = "neither rustix nor nix wraps SIOCSIFFLAGS")]
    // SAFETY: SIOCSIFFLAGS reads one ifreq with a terminated name and the flags set; it outlives the call.
    let result = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result == 0 { Ok(()) } else { Err(crate::process::last_errno()) }
}
