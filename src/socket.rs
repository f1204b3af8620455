//! The socket: made by us or passed by systemd, and who may speak on it.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, chown},
        unix::net::UnixStream as StdStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::net::{UnixListener, UnixStream};

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("another creeld is running with {}", dir.display())]
    Taken { dir: PathBuf },
    #[error("something else listens on {}", path.display())]
    InUse { path: PathBuf },
    #[error("{} is there and is not a socket", path.display())]
    NotASocket { path: PathBuf },
    #[error("group {name:?}: not in /etc/group")]
    NoSuchGroup { name: String },
    #[error("{call} {}", path.display())]
    Call { call: &'static str, path: PathBuf, source: io::Error },
    #[error("take the socket that systemd passed")]
    Passed(#[source] io::Error),
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    /// Whoever passed the check of the file's mode may speak, not root alone.
    by_mode: bool,
}

/// Held as long as this daemon lives: only one per run directory.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

fn call(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Call { call, path: path.to_owned(), source }
}

/// Makes the run directory ours.
pub(crate) fn lock(run: &Path) -> Result<Lock, Error> {
    fs::DirBuilder::new().recursive(true).mode(0o711).create(run).map_err(call("mkdir", run))?;
    let path = run.join("creeld.lock");
    let file = File::create(&path).map_err(call("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(Error::Taken { dir: run.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::Call { call: "flock", path, source }),
    }
}

impl Socket {
    /// Listens on the socket that systemd passed, or else on one of our own at `path`. Call within the runtime.
    pub(crate) fn listen(path: &Path, group: &str, passed: Option<OwnedFd>) -> Result<Self, Error> {
        let by_mode = !group.is_empty();
        let listener = match passed {
            Some(fd) => std::os::unix::net::UnixListener::from(fd),
            None => bind(path, group)?,
        };
        listener.set_nonblocking(true).map_err(Error::Passed)?;
        let listener = UnixListener::from_std(listener).map_err(Error::Passed)?;
        Ok(Self { listener, by_mode })
    }

    /// The connections of those who may. An accept(2) that fails (too many open files) is tried again: a full table
    /// must not end the daemon.
    pub(crate) fn connections(self) -> impl Stream<Item = io::Result<UnixStream>> {
        stream::unfold(self, |socket| async {
            loop {
                match socket.listener.accept().await {
                    Ok((stream, _)) if socket.admits(&stream) => return Some((Ok(stream), socket)),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "accept");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        })
    }

    /// The file's mode keeps others out already, unless somebody changed it or passed the descriptor on.
    fn admits(&self, stream: &UnixStream) -> bool {
        let Ok(peer) = stream.peer_cred() else { return false };
        let admitted = peer.uid() == 0 || self.by_mode || Some(peer.uid()) == own_uid();
        if !admitted {
            tracing::warn!(uid = peer.uid(), pid = peer.pid(), "connection refused: not root");
        }
        admitted
    }
}

/// The user that this process runs as.
fn own_uid() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").ok().map(|metadata| metadata.uid())
}

fn bind(path: &Path, group: &str) -> Result<std::os::unix::net::UnixListener, Error> {
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(call("mkdir", dir))?;
    }
    remove_stale(path)?;
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(call("bind", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(call("chmod", path))?;
    if !group.is_empty() {
        chown(path, None, Some(gid(group)?)).map_err(call("chown", path))?;
    }
    Ok(listener)
}

/// A socket file outlives its daemon. It is removed only if nobody answers on it.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Call { call: "stat", path: path.to_owned(), source }),
    };
    if !kind.is_socket() {
        return Err(Error::NotASocket { path: path.to_owned() });
    }
    match StdStream::connect(path) {
        Ok(_) => Err(Error::InUse { path: path.to_owned() }),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(call("unlink", path)),
        Err(source) => Err(Error::Call { call: "connect", path: path.to_owned(), source }),
    }
}

/// The number of a group, by name or as a number.
fn gid(name: &str) -> Result<u32, Error> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let path = Path::new("/etc/group");
    let text = fs::read_to_string(path).map_err(call("read", path))?;
    let number = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1).and_then(|gid| gid.parse().ok())).flatten()
    };
    text.lines().find_map(number).ok_or_else(|| Error::NoSuchGroup { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn one_daemon_per_directory_and_no_stale_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert!(matches!(lock(dir.path()), Err(Error::Taken { .. })));
        drop(held);
        lock(dir.path()).unwrap();

        let path = dir.path().join("sub/creel.sock");
        let socket = Socket::listen(&path, "", None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        assert!(matches!(Socket::listen(&path, "", None), Err(Error::InUse { .. })));
        drop(socket);
        // The file is still there, but nobody listens.
        assert!(path.exists());
        Socket::listen(&path, "0", None).unwrap();

        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(Socket::listen(&file, "", None), Err(Error::NotASocket { .. })));
        assert!(file.exists());
        assert!(matches!(gid("no-such-group-here"), Err(Error::NoSuchGroup { .. })));
        assert_eq!(gid("root").unwrap(), 0);
    }

    #[tokio::test]
    async fn connections_of_our_own_user_come_through() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let passed = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let socket = Socket::listen(&path, "", Some(passed.into())).unwrap();
        let _client = StdStream::connect(&path).unwrap();
        let mut connections = std::pin::pin!(socket.connections());
        assert!(connections.next().await.unwrap().is_ok());
    }
}
