//! `creel cp`: files between a container and this machine, by docker's rules.

mod pack;
mod unpack;

pub(crate) use unpack::{Into, Keep, unpack};

use std::{
    fs, io,
    io::{IsTerminal as _, Read, Write as _},
    path::{Path, PathBuf},
};

use api::creel::{self as own, PathStat};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Streaming};

use super::args::Cp;
use crate::{
    client::Client,
    error::{self, Error, Exit},
    output,
};

/// Pieces of an archive on their way.
const AHEAD: usize = 8;
/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// The kind of a file in st_mode.
const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// A tar on standard input or output.
    Pipe,
    Here(String),
    There {
        container: String,
        path: String,
    },
}

impl End {
    /// `CONTAINER:PATH`; a path that begins with `/` or `.` is of this machine, whatever colons are in it.
    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Self::Pipe,
            Some((container, path)) if !text.starts_with(['/', '.']) => {
                Self::There { container: container.to_owned(), path: path.to_owned() }
            }
            _ => Self::Here(text.to_owned()),
        }
    }
}

/// Copies.
pub(super) async fn copy(client: &mut Client, args: Cp) -> Result<Exit, Error> {
    let quiet = args.quiet || !io::stdout().is_terminal();
    let words = |text: &str| Err(Error::Words(text.to_owned()));
    match (End::parse(&args.source), End::parse(&args.target)) {
        (End::There { .. }, End::There { .. }) => words("copying between containers is not supported"),
        (End::There { container, path }, End::Pipe) => {
            let mut from = From { client, container, follow: args.follow_link }.open(&path).await?.1;
            while let Some(piece) = from.message().await.map_err(error::daemon)? {
                io::stdout().write_all(&piece.data).map_err(error::io("write to standard output"))?;
            }
            Ok(Exit(0))
        }
        (End::There { container, path }, End::Here(target)) => {
            let bytes = From { client, container, follow: args.follow_link }.into(&path, &target, args.archive).await?;
            said(quiet, bytes, &target);
            Ok(Exit(0))
        }
        (source @ (End::Here(_) | End::Pipe), End::There { container, path }) => {
            let name = format!("{container}:{path}");
            let bytes = To { client, container, args: &args }.from(source, &path).await?;
            said(quiet, bytes, &name);
            Ok(Exit(0))
        }
        _ => words("must specify at least one container source"),
    }
}

fn said(quiet: bool, bytes: u64, target: &str) {
    if !quiet {
        output::note(&format!("Successfully copied {} to {target}", output::bytes(bytes)));
    }
}

/// Out of a container.
struct From<'c> {
    client: &'c mut Client,
    container: String,
    follow: bool,
}

impl From<'_> {
    /// What is at a path, and the archive of it.
    async fn open(&mut self, path: &str) -> Result<(PathStat, Streaming<own::CopyFromResponse>), Error> {
        let request = own::CopyFromRequest { container: self.container.clone(), path: path.to_owned(), follow_link: self.follow };
        let mut pieces = self.client.containers.copy_from(request).await.map_err(error::daemon)?.into_inner();
        let first = pieces.message().await.map_err(error::daemon)?;
        Ok((first.and_then(|first| first.stat).unwrap_or_default(), pieces))
    }

    /// Copies to a path of this machine; answers how many bytes the archive had.
    async fn into(mut self, path: &str, target: &str, archive: bool) -> Result<u64, Error> {
        let (stat, mut pieces) = self.open(path).await?;
        let is_directory = stat.mode & S_IFMT == S_IFDIR;
        let place = Place::find(target)?;
        let into = match place {
            Place::Directory(directory) => Into::Directory(directory),
            Place::File(_) if is_directory => return Err(Error::Words("cannot copy directory".to_owned())),
            Place::File(file) => Into::File(file),
            Place::New(new) if is_directory => {
                // What is in it goes into a directory of the new name.
                fs::create_dir(&new).map_err(error::io(format!("mkdir {}", new.display())))?;
                pieces = self.open(&format!("{}/.", path.trim_end_matches("/."))).await?.1;
                Into::Directory(new)
            }
            Place::New(_) if target.ends_with('/') => return Err(Error::Words("no such directory".to_owned())),
            Place::New(file) => Into::File(file),
        };
        let (to, from) = mpsc::channel(AHEAD);
        let unpacking =
            tokio::task::spawn_blocking(move || unpack(Pieces::new(from), &into, if archive { Keep::Owners } else { Keep::Modes }));
        while let Some(piece) = pieces.message().await.map_err(error::daemon)? {
            if to.send(piece.data).await.is_err() {
                break;
            }
        }
        drop(to);
        unpacking.await.map_err(|e| Error::Io { what: "unpack".into(), source: io::Error::other(e) })?
    }
}

/// What is where somebody wants to copy to.
enum Place {
    Directory(PathBuf),
    File(PathBuf),
    New(PathBuf),
}

impl Place {
    fn find(target: &str) -> Result<Self, Error> {
        let path = PathBuf::from(target);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => Ok(Self::Directory(path)),
            Ok(_) if target.ends_with('/') => Err(Error::Words(format!("not a directory: {target}"))),
            Ok(_) => Ok(Self::File(path)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                if parent.is_dir() {
                    Ok(Self::New(path))
                } else {
                    Err(Error::Words(format!("invalid output path: directory {:?} does not exist", parent.display().to_string())))
                }
            }
            Err(e) => Err(Error::Io { what: format!("stat {target}"), source: e }),
        }
    }
}

/// Into a container.
struct To<'c> {
    client: &'c mut Client,
    container: String,
    args: &'c Cp,
}

impl To<'_> {
    async fn from(mut self, source: End, path: &str) -> Result<u64, Error> {
        let (path, stat) = self.resolve(path).await?;
        let is_directory = stat.as_ref().map(|stat| stat.mode & S_IFMT == S_IFDIR);
        let (to, from) = mpsc::channel(AHEAD);
        let End::Here(source) = source else {
            if is_directory != Some(true) {
                return Err(Error::Words(format!("destination \"{}:{path}\" must be a directory", self.container)));
            }
            let piping = tokio::task::spawn_blocking(move || pack::pipe(io::stdin().lock(), &mut Pieced { to, sent: 0 }));
            return self.send(&path, from, piping).await;
        };
        let packed = pack::Source::find(&source, self.args.follow_link)?;
        let (directory, name) = match is_directory {
            Some(true) => (path, None),
            Some(false) if packed.is_directory() => return Err(Error::Words("cannot copy directory".to_owned())),
            None if path.ends_with('/') && !packed.is_directory() => return Err(Error::Words("no such directory".to_owned())),
            Some(false) | None => {
                let (parent, base) = split(&path);
                (parent, Some(base))
            }
        };
        let packing = tokio::task::spawn_blocking(move || packed.pack(name.as_deref(), &mut Pieced { to, sent: 0 }));
        self.send(&directory, from, packing).await
    }

    /// What is at a path; where it leads if it is a symbolic link.
    async fn resolve(&mut self, path: &str) -> Result<(String, Option<PathStat>), Error> {
        let stat = self.stat(path).await?;
        match stat {
            Some(stat) if stat.mode & S_IFMT == S_IFLNK => {
                let target = if stat.link_target.starts_with('/') {
                    stat.link_target
                } else {
                    format!("{}/{}", split(path).0.trim_end_matches('/'), stat.link_target)
                };
                let stat = self.stat(&target).await?;
                Ok((target, stat))
            }
            stat => Ok((path.to_owned(), stat)),
        }
    }

    async fn stat(&mut self, path: &str) -> Result<Option<PathStat>, Error> {
        let request = own::CopyFromRequest { container: self.container.clone(), path: path.to_owned(), follow_link: false };
        let first = match self.client.containers.copy_from(request).await {
            Ok(answer) => answer.into_inner().message().await,
            Err(status) => Err(status),
        };
        match first {
            Ok(first) => Ok(first.and_then(|first| first.stat)),
            Err(status) if status.code() == Code::NotFound && !status.message().contains("No such container:") => Ok(None),
            Err(status) => Err(error::daemon(status)),
        }
    }

    async fn send(
        self,
        path: &str,
        pieces: mpsc::Receiver<Vec<u8>>,
        packing: tokio::task::JoinHandle<Result<u64, Error>>,
    ) -> Result<u64, Error> {
        let start = own::CopyToStart {
            container: self.container,
            path: path.to_owned(),
            keep_owner: self.args.archive,
            no_overwrite_kind: true,
        };
        let first = tokio_stream::once(own::CopyToRequest { start: Some(start), data: Vec::new() });
        let rest = ReceiverStream::new(pieces).map(|data| own::CopyToRequest { start: None, data });
        let sent = self.client.containers.copy_to(first.chain(rest)).await;
        let packed = packing.await.map_err(|e| Error::Io { what: "pack".into(), source: io::Error::other(e) })?;
        // A daemon that refuses what it gets is why packing failed; a source that cannot be read is why the daemon did.
        match (sent, packed) {
            (Ok(_), packed) => packed,
            (Err(_), Err(packing)) if !packing.is_broken_pipe() => Err(packing),
            (Err(status), _) => Err(error::daemon(status)),
        }
    }
}

/// Directory and last component.
fn split(path: &str) -> (String, String) {
    let bare = path.trim_end_matches('/');
    match bare.rsplit_once('/') {
        Some(("", base)) => ("/".to_owned(), base.to_owned()),
        Some((parent, base)) => (parent.to_owned(), base.to_owned()),
        None => ("/".to_owned(), bare.to_owned()),
    }
}

/// What comes in pieces, to be read in one go.
pub(crate) struct Pieces {
    from: mpsc::Receiver<Vec<u8>>,
    piece: io::Cursor<Vec<u8>>,
    got: u64,
}

impl Pieces {
    pub(crate) fn new(from: mpsc::Receiver<Vec<u8>>) -> Self {
        Self { from, piece: io::Cursor::default(), got: 0 }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                self.got += read as u64;
                return Ok(read);
            }
            match self.from.blocking_recv() {
                Some(piece) => self.piece = io::Cursor::new(piece),
                None => return Ok(0),
            }
        }
    }
}

/// What is written, sent on in pieces.
struct Pieced {
    to: mpsc::Sender<Vec<u8>>,
    sent: u64,
}

impl io::Write for Pieced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        self.to.blocking_send(piece.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.sent += piece.len() as u64;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        let there = |container: &str, path: &str| End::There { container: container.into(), path: path.into() };
        assert_eq!(End::parse("c:/a:b"), there("c", "/a:b"));
        assert_eq!(End::parse("./c:/a"), End::Here("./c:/a".into()));
        assert_eq!(
            (End::parse("/a:b"), End::parse("-"), End::parse("a")),
            (End::Here("/a:b".into()), End::Pipe, End::Here("a".into()))
        );
        assert_eq!(split("/a/b/"), ("/a".into(), "b".into()));
        assert_eq!((split("/a"), split("a")), (("/".into(), "a".into()), ("/".into(), "a".into())));
    }
}
