//! The socket that plugins connect to: root's alone, in a directory that is root's alone (R50).

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::net::{UnixListener, UnixStream};

use crate::Error;

/// How long to wait after an accept(2) that failed: a full table of descriptors must not become a busy loop.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket; its file goes with it.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`. What a dead runtime left there is removed, what is alive is not.
    ///
    /// # Errors
    /// Somebody else's thing is there; a step that failed.
    pub fn bind(path: &Path) -> Result<Self, Error> {
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| Error::Socket { step, path, source: Arc::new(source) }
        };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.ok_or_else(|| Error::Taken { path: path.to_owned(), why: "the socket's path must be absolute" })?;
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("mkdir", dir))?;
        remove_stale(path)?;
        // Under another name first: from the first moment at which it can be found, it has its final mode.
        let hidden = path.with_extension(format!("{}.new", std::process::id()));
        remove(&hidden).map_err(failed("remove", &hidden))?;
        let listener = UnixListener::bind(&hidden).map_err(failed("bind", &hidden))?;
        let placed = fs::set_permissions(&hidden, Permissions::from_mode(0o600))
            .map_err(failed("chmod", &hidden))
            .and_then(|()| fs::rename(&hidden, path).map_err(failed("rename to", path)));
        if placed.is_err() {
            remove(&hidden).map_err(failed("remove", &hidden))?;
        }
        placed?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// The next connection of root's.
    pub async fn accept(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match stream.peer_cred() {
                    // The file's mode keeps others out, unless somebody changed it.
                    Ok(peer) if peer.uid() == 0 => return stream,
                    Ok(peer) => tracing::warn!(uid = peer.uid(), pid = peer.pid(), "connection of a plugin refused: not root"),
                    Err(error) => tracing::warn!(%error, "who is at the other end of a plugin's connection"),
                },
                Err(error) => {
                    tracing::warn!(%error, "accept a plugin's connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Nobody is harmed by one that stays: it is found dead at the next start.
        remove(&self.path).ok();
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn remove_stale(path: &Path) -> Result<(), Error> {
    let taken = |why| Err(Error::Taken { path: path.to_owned(), why });
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return taken("is there and is not a socket"),
        Ok(_) => {}
        Err(_) => return Ok(()),
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            remove(path).map_err(|source| Error::Socket { step: "remove", path: path.to_owned(), source: Arc::new(source) })
        }
        _ => taken("something else listens there; give this runtime a socket_path of its own or turn NRI off"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[tokio::test]
    async fn st_06_roots_alone_and_only_a_dead_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nri/nri.sock");
        let listener = Listener::bind(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no other name stays");
        let client = UnixStream::connect(&path).await.unwrap();
        listener.accept().await;
        drop(client);
        assert!(Listener::bind(&path).unwrap_err().to_string().contains("something else listens there"));
        drop(listener);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        Listener::bind(&path).unwrap();
        fs::write(&path, "x").unwrap();
        assert!(Listener::bind(&path).unwrap_err().to_string().ends_with("is there and is not a socket"));
        let link = dir.path().join("link.sock");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(Listener::bind(&link).unwrap_err().to_string().ends_with("is there and is not a socket"));
        assert!(matches!(Listener::bind(&dir.path().join("x".repeat(200))), Err(Error::Socket { step: "bind", .. })));
    }
}
