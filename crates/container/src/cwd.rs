//! The working directory of a process: inside its root, whatever its path claims (R02).

use rustix::fs::OFlags;
use sys::{
    Errno,
    path::{Links, Root},
};

use crate::error::{At, Step, refuse};

/// Moves the calling process, whose root is the container's, to `path`.
///
/// # Errors
/// ELOOP: it leads through a magic link such as /proc/self/fd/7, that is out of the root (CVE-2024-21626).
pub(crate) fn enter(path: &str) -> Step<()> {
    let step = || format!("working directory {path:?}");
    check(path)?;
    let root = Root::open_host(c"/").at(step)?;
    match root.open(path, OFlags::PATH | OFlags::DIRECTORY, Links::Follow) {
        Err(Errno::LOOP) => return refuse(step(), "leads outside of the container's root"),
        other => rustix::process::fchdir(other.at(step)?).at(step)?,
    }
    let now = rustix::process::getcwd(Vec::new()).at(step)?;
    // The kernel says "(unreachable)/..." of a directory that is not below the root (getcwd(2)).
    if now.as_bytes().starts_with(b"/") { Ok(()) } else { refuse(step(), "is outside of the container's root") }
}

/// Makes the directory if it is not there, below the container's root as it is being built.
pub(crate) fn make(root: &Root, path: &str) -> Step<()> {
    check(path)?;
    match root.make_directories(path, Links::Follow) {
        Err(Errno::LOOP) => refuse(format!("working directory {path:?}"), "leads outside of the container's root"),
        other => other.map(|_| ()).at(|| format!("make working directory {path:?}")),
    }
}

fn check(path: &str) -> Step<()> {
    if path.starts_with('/') && !path.contains('\0') {
        Ok(())
    } else {
        refuse(format!("working directory {path:?}"), "is not an absolute path")
    }
}
