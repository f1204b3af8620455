//! Sockets that systemd opened for us (sd_listen_fds(3)).

use std::{
    os::fd::{FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};

/// The first descriptor that is passed; the others follow.
const FIRST: RawFd = 3;
/// More than anybody passes; the number comes from the environment.
const MOST: RawFd = 64;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The sockets that were passed, close-on-exec; none if the environment is not meant for this process, and on every
/// call but the first. To be called before anything else opens a file: the numbers are taken on trust.
///
/// # Errors
/// EBADF: a descriptor that was announced is not open.
pub fn take_listen_fds() -> Result<Vec<OwnedFd>, Errno> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<RawFd>().ok());
    let ours = number("LISTEN_PID").is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()));
    let count = number("LISTEN_FDS").filter(|count| ours && (1..=MOST).contains(count)).unwrap_or_default();
    if count == 0 || TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    (FIRST..FIRST + count).map(adopt).collect()
}

fn adopt(number: RawFd) -> Result<OwnedFd, Errno> {
    #[allow(unsafe_code, reason = "a descriptor that comes by number has no owner yet")]
    // SAFETY: sd_listen_fds(3) gives the descriptors from 3 on to the process whose id is LISTEN_PID, which is this
    // one; TAKEN makes sure that they are taken once; the caller opens nothing before, so nobody else owns them. That
    // it is open is checked right below, and a number that is not open is forgotten again instead of closed.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    let flags = match fcntl_getfd(&fd) {
        Ok(flags) => flags,
        Err(errno) => {
            std::mem::forget(fd);
            return Err(errno);
        }
    };
    fcntl_setfd(&fd, flags | FdFlags::CLOEXEC)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_environment_for_somebody_else_is_ignored() {
        assert!(super::take_listen_fds().unwrap().is_empty());
    }
}
