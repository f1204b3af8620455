//! `creel save` and `creel load`.

use std::{
    io::{IsTerminal as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    pin::Pin,
};

use api::creel::{LoadImageRequest, SaveImagesRequest};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::{mpsc, oneshot},
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    client::Client,
    error::{self, Error, Exit},
    name, output,
};

/// Bytes of an archive that are sent at once.
const PIECE: usize = 1 << 20;

/// Writes images to a file, or to standard output if that is no terminal.
pub(crate) async fn save(client: &mut Client, out: Option<PathBuf>, images: Vec<String>) -> Result<Exit, Error> {
    if out.is_none() && std::io::stdout().is_terminal() {
        return Err(Error::Refused {
            name: "save".into(),
            why: "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        });
    }
    let file = out.as_deref().map(Temporary::create).transpose()?;
    let mut pieces = client.images.save(SaveImagesRequest { images }).await.map_err(error::daemon)?.into_inner();
    let mut sink: Box<dyn Write> = match &file {
        Some(file) => Box::new(&file.file),
        None => Box::new(std::io::stdout().lock()),
    };
    while let Some(piece) = pieces.message().await.map_err(error::daemon)? {
        sink.write_all(&piece.data).map_err(error::io("write the archive"))?;
    }
    sink.flush().map_err(error::io("write the archive"))?;
    drop(sink);
    if let Some(file) = file {
        file.keep()?;
    }
    Ok(Exit(0))
}

/// A file that has its name only when it is whole.
struct Temporary {
    file: std::fs::File,
    path: PathBuf,
    wanted: PathBuf,
    kept: bool,
}

impl Temporary {
    fn create(wanted: &Path) -> Result<Self, Error> {
        let name = wanted
            .file_name()
            .ok_or_else(|| Error::Refused { name: wanted.display().to_string(), why: "not the name of a file" })?;
        let path = wanted.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(error::io(format!("create {}", path.display())))?;
        Ok(Self { file, path, wanted: wanted.to_owned(), kept: false })
    }

    fn keep(mut self) -> Result<(), Error> {
        std::fs::rename(&self.path, &self.wanted).map_err(error::io(format!("create {}", self.wanted.display())))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// Sends an archive and prints what was in it.
pub(crate) async fn load(client: &mut Client, input: Option<PathBuf>, quiet: bool) -> Result<Exit, Error> {
    let (name, archive): (String, Pin<Box<dyn AsyncRead + Send>>) = match input {
        None if std::io::stdin().is_terminal() => {
            return Err(Error::Refused { name: "load".into(), why: "requested load from stdin, but stdin is empty" });
        }
        None => ("standard input".into(), Box::pin(tokio::io::stdin())),
        Some(path) => {
            let name = path.display().to_string();
            let file = tokio::fs::File::open(path).await.map_err(error::io(format!("open {name}")))?;
            (name, Box::pin(file))
        }
    };
    let (pieces, stream) = mpsc::channel(2);
    let (broken, read_error) = oneshot::channel();
    tokio::spawn(async move {
        if let Err(e) = send(archive, pieces).await {
            broken.send(e).ok();
        }
    });
    let answer = client.creel.load_image(ReceiverStream::new(stream)).await;
    // An archive that could not be read to its end is that, whatever the daemon made of its beginning.
    if let Ok(source) = read_error.await {
        return Err(Error::Io { what: format!("read {name}"), source });
    }
    for image in answer.map_err(error::daemon)?.into_inner().images {
        output::print(&loaded(&image.id, &image.names, quiet))?;
    }
    Ok(Exit(0))
}

/// A line per name, as docker says it; with `-q` the id alone.
fn loaded(id: &str, names: &[String], quiet: bool) -> String {
    if quiet {
        return format!("{id}\n");
    }
    if names.is_empty() {
        return format!("Loaded image ID: {id}\n");
    }
    let short =
        |full: &String| full.rsplit_once(':').map_or_else(|| full.clone(), |(full, tag)| format!("{}:{tag}", name::familiar(full)));
    names.iter().map(|full| format!("Loaded image: {}\n", short(full))).collect()
}

/// Ends early, without an error, when nobody listens any more: the daemon's answer then says why.
async fn send(mut archive: Pin<Box<dyn AsyncRead + Send>>, pieces: mpsc::Sender<LoadImageRequest>) -> std::io::Result<()> {
    loop {
        let mut data = Vec::with_capacity(PIECE);
        let read = (&mut archive).take(PIECE as u64).read_to_end(&mut data).await?;
        if read == 0 || pieces.send(LoadImageRequest { data }).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn archives_go_in_pieces() {
        let (pieces, mut stream) = mpsc::channel(8);
        let archive = vec![7u8; PIECE * 2 + 5];
        send(Box::pin(std::io::Cursor::new(archive)), pieces).await.unwrap();
        let mut sizes = Vec::new();
        while let Some(piece) = stream.recv().await {
            sizes.push(piece.data.len());
        }
        assert_eq!(sizes, [PIECE, PIECE, 5]);
    }

    #[test]
    fn what_was_loaded_is_said_as_docker_does() {
        let names = ["docker.io/library/x:1".to_owned(), "r.example:5000/y:2".to_owned()];
        assert_eq!(loaded("sha256:ab", &names, false), "Loaded image: x:1\nLoaded image: r.example:5000/y:2\n");
        assert_eq!(loaded("sha256:ab", &[], false), "Loaded image ID: sha256:ab\n");
        assert_eq!(loaded("sha256:ab", &names, true), "sha256:ab\n");
    }

    #[test]
    fn a_file_that_was_not_finished_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = dir.path().join("x.tar");
        drop(Temporary::create(&wanted).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        Temporary::create(&wanted).unwrap().keep().unwrap();
        assert!(wanted.exists());
    }
}
