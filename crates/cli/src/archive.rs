//! `creel save`, `creel load` and `creel import`.

use std::{
    io::{IsTerminal as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    pin::Pin,
};

use api::creel::{ImportImageRequest, ImportImageStart, LoadImageRequest, SaveImagesRequest};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::{mpsc, oneshot},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    args::{Import, Load, Save},
    client::Client,
    error::{self, Error, Exit},
    name, output,
};

/// Bytes of an archive that are sent at once.
const PIECE: usize = 1 << 20;

/// Writes images to a file, or to standard output if that is no terminal.
pub(crate) async fn save(client: &mut Client, args: Save) -> Result<Exit, Error> {
    let Save { output: out, images } = args;
    let target = Target::open("save", out.as_deref())?;
    let pieces = client.images.save(SaveImagesRequest { images }).await.map_err(error::daemon)?.into_inner();
    target.take(pieces, |piece| piece.data).await?;
    Ok(Exit(0))
}

/// Where an archive goes: a file, or standard output.
pub(crate) struct Target(Option<Temporary>);

impl Target {
    /// Standard output is taken if it is no terminal.
    pub(crate) fn open(command: &str, file: Option<&Path>) -> Result<Self, Error> {
        if file.is_none() && std::io::stdout().is_terminal() {
            let why = "cowardly refusing to save to a terminal. Use the -o flag or redirect";
            return Err(Error::Refused { name: command.into(), why });
        }
        file.map(Temporary::create).transpose().map(Self)
    }

    /// Writes the next piece.
    pub(crate) fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        let written = match &self.0 {
            Some(file) => (&file.file).write_all(data),
            None => std::io::stdout().lock().write_all(data),
        };
        written.map_err(error::io("write the archive"))
    }

    /// It is whole: a file gets its name.
    pub(crate) fn keep(self) -> Result<(), Error> {
        std::io::stdout().flush().map_err(error::io("write the archive"))?;
        self.0.map_or(Ok(()), Temporary::keep)
    }

    /// Writes all of it.
    pub(crate) async fn take<T>(self, mut pieces: Streaming<T>, data: impl Fn(T) -> Vec<u8>) -> Result<(), Error> {
        let mut sink: Box<dyn Write> = match &self.0 {
            Some(file) => Box::new(&file.file),
            None => Box::new(std::io::stdout().lock()),
        };
        while let Some(piece) = pieces.message().await.map_err(error::daemon)? {
            sink.write_all(&data(piece)).map_err(error::io("write the archive"))?;
        }
        sink.flush().map_err(error::io("write the archive"))?;
        drop(sink);
        self.0.map_or(Ok(()), Temporary::keep)
    }
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
        let file = file.map_err(error::io(format!("create {}", wanted.display())))?;
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
pub(crate) async fn load(client: &mut Client, args: Load) -> Result<Exit, Error> {
    let source = match args.input {
        None if std::io::stdin().is_terminal() => {
            return Err(Error::Refused { name: "load".into(), why: "requested load from stdin, but stdin is empty" });
        }
        None => Source::stdin(),
        Some(path) => Source::file(&path).await?,
    };
    let (stream, read_error) = source.send(|data| LoadImageRequest { data });
    let answer = client.creel.load_image(stream).await;
    for image in read_error.before(answer).await?.images {
        let renamed = |(name, old): (&String, &String)| {
            format!("The image {} already exists, renaming the old one with ID {old} to empty string\n", familiar(name))
        };
        output::print(&image.replaced.iter().map(renamed).collect::<String>())?;
        output::print(&loaded(&image.id, &image.names))?;
    }
    Ok(Exit(0))
}

/// Sends a tar of files and prints the id of the image that it has become.
pub(crate) async fn import(client: &mut Client, args: Import) -> Result<Exit, Error> {
    let Import { change, message, platform, file, name } = args;
    let remote = file.starts_with("http://") || file.starts_with("https://");
    if file.contains("://") && !remote {
        return Err(Error::Refused { name: file, why: "what is fetched is http:// or https://" });
    }
    let source = match file.as_str() {
        "-" if std::io::stdin().is_terminal() => {
            return Err(Error::Refused { name: "import".into(), why: "standard input is a terminal" });
        }
        "-" => Source::stdin(),
        // The daemon gets it.
        _ if remote => Source::nothing(),
        path => Source::file(Path::new(path)).await?,
    };
    let start = ImportImageStart {
        url: if remote { file.clone() } else { String::new() },
        name: name.unwrap_or_default(),
        changes: change,
        message: message.unwrap_or_else(|| format!("Imported from {file}")),
        platform: platform.unwrap_or_default(),
    };
    let mut start = Some(start);
    let (stream, read_error) = source.send(move |data| ImportImageRequest { start: start.take(), data });
    let answer = client.images.import(stream).await;
    output::print(&format!("{}\n", read_error.before(answer).await?.id))?;
    Ok(Exit(0))
}

/// An archive that is here.
struct Source {
    name: String,
    reader: Pin<Box<dyn AsyncRead + Send>>,
}

/// Why reading it has ended early.
struct ReadError {
    name: String,
    error: oneshot::Receiver<std::io::Error>,
}

impl Source {
    fn stdin() -> Self {
        Self { name: "standard input".into(), reader: Box::pin(tokio::io::stdin()) }
    }

    fn nothing() -> Self {
        Self { name: "nothing".into(), reader: Box::pin(tokio::io::empty()) }
    }

    async fn file(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let file = tokio::fs::File::open(path).await.map_err(error::io(format!("open {name}")))?;
        Ok(Self { name, reader: Box::pin(file) })
    }

    /// Its bytes as messages.
    fn send<M: Send + 'static>(self, message: impl FnMut(Vec<u8>) -> M + Send + 'static) -> (ReceiverStream<M>, ReadError) {
        let (pieces, stream) = mpsc::channel(2);
        let (broken, error) = oneshot::channel();
        tokio::spawn(async move {
            if let Err(e) = send(self.reader, pieces, message).await {
                broken.send(e).ok();
            }
        });
        (ReceiverStream::new(stream), ReadError { name: self.name, error })
    }
}

impl ReadError {
    /// An archive that could not be read to its end is that, whatever the daemon made of its beginning.
    async fn before<T>(self, answer: Result<tonic::Response<T>, tonic::Status>) -> Result<T, Error> {
        if let Ok(source) = self.error.await {
            return Err(Error::Io { what: format!("read {}", self.name), source });
        }
        Ok(answer.map_err(error::daemon)?.into_inner())
    }
}

/// A full name with a tag, as people write it.
fn familiar(full: &str) -> String {
    full.rsplit_once(':').map_or_else(|| full.to_owned(), |(full, tag)| format!("{}:{tag}", name::familiar(full)))
}

/// A line per name, as docker says it.
fn loaded(id: &str, names: &[String]) -> String {
    if names.is_empty() {
        return format!("Loaded image ID: {id}\n");
    }
    names.iter().map(|full| format!("Loaded image: {}\n", familiar(full))).collect()
}

/// Ends early, without an error, when nobody listens any more: the daemon's answer then says why.
async fn send<M>(
    mut archive: Pin<Box<dyn AsyncRead + Send>>,
    pieces: mpsc::Sender<M>,
    mut message: impl FnMut(Vec<u8>) -> M,
) -> std::io::Result<()> {
    for number in 0_u64.. {
        let mut data = Vec::with_capacity(PIECE);
        let read = (&mut archive).take(PIECE as u64).read_to_end(&mut data).await?;
        // The first message says more than bytes: it goes even without any.
        let over = read == 0 && number > 0;
        if over || pieces.send(message(data)).await.is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn archives_go_in_pieces() {
        let (pieces, mut stream) = mpsc::channel(8);
        let archive = vec![7u8; PIECE * 2 + 5];
        send(Box::pin(std::io::Cursor::new(archive)), pieces, |data| data).await.unwrap();
        let mut sizes = Vec::new();
        while let Some(piece) = stream.recv().await {
            sizes.push(piece.len());
        }
        assert_eq!(sizes, [PIECE, PIECE, 5]);
    }

    #[test]
    fn what_was_loaded_is_said_as_docker_does() {
        let names = ["docker.io/library/x:1".to_owned(), "r.example:5000/y:2".to_owned()];
        assert_eq!(loaded("sha256:ab", &names), "Loaded image: x:1\nLoaded image: r.example:5000/y:2\n");
        assert_eq!(loaded("sha256:ab", &[]), "Loaded image ID: sha256:ab\n");
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
