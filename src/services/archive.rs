//! An archive on its way into a file without a name.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use tonic::Status;

use super::status;

/// Most bytes of an archive, as it comes and unpacked: an image's limit, with room for several layers' worth of tar headers.
pub(super) const LIMIT: u64 = 128 << 30;

/// Writes an archive to a file that is gone with the request, and unpacks it if it is compressed.
pub(super) async fn receive(mut next: impl AsyncFnMut() -> Result<Option<Vec<u8>>, Status>, dir: &Path) -> Result<File, Status> {
    let mut archive = Archive::new(dir)?;
    while let Some(piece) = next().await? {
        archive = archive.take(piece).await?;
    }
    archive.whole().await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|_| status::panicked())
}

/// An archive that is being received: a file that does not grow beyond a limit.
#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    dir: PathBuf,
    left: u64,
}

impl Archive {
    /// An empty one, below this directory.
    pub(super) fn new(dir: &Path) -> Result<Self, Status> {
        let file = engine::nameless(dir).map_err(|e| status::of_archive(&e))?;
        Ok(Self { file, dir: dir.to_owned(), left: LIMIT })
    }

    /// With the next piece.
    pub(super) async fn take(self, piece: Vec<u8>) -> Result<Self, Status> {
        blocking(move || self.write(&piece)).await?.map_err(|e| status::of_archive(&e))
    }

    /// All of it, from its beginning, unpacked.
    pub(super) async fn whole(self) -> Result<File, Status> {
        blocking(move || engine::unpacked(self.file, &self.dir, LIMIT)).await?.map_err(|e| status::of_engine(&e))
    }

    /// Takes the next piece. Blocks.
    fn write(mut self, piece: &[u8]) -> io::Result<Self> {
        let left = self.left.checked_sub(piece.len() as u64);
        self.left = left.ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "longer than 128 GiB"))?;
        self.file.write_all(piece)?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive { left: 10, ..Archive::new(dir.path()).unwrap() };
        let full = archive.write(&[0; 10]).unwrap();
        assert_eq!(full.write(&[0]).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
