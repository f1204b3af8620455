//! One daemon per root.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::error::{During, Error};

/// How long to wait for a lock that is taken. A child of its last holder shares it between fork(2) and execve(2).
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// Held as long as the store is open. The kernel lets go of it when the process dies, however it dies (flock(2)).
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn take(path: &Path, root: &Path) -> Result<Self, Error> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut file = options.during("open", path)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(Error::Locked { root: root.to_owned(), pid: holder(file) }),
                Err(TryLockError::Error(e)) => return Err(Error::io("lock", path, e)),
            }
        }
        // Only for the message above: a full disk must not keep the daemon from starting.
        let text = format!("{}\n", std::process::id());
        file.rewind().and_then(|()| file.write_all(text.as_bytes())).and_then(|()| file.set_len(text.len() as u64)).ok();
        Ok(Self { _file: file })
    }
}

fn holder(file: File) -> String {
    let mut pid = String::new();
    file.take(20).read_to_string(&mut pid).ok();
    if pid.trim().is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() }
}
