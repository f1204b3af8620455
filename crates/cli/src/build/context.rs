//! Contexts on their way to the daemon: a tar as it is, of a directory what the daemon lacks, without what `.dockerignore` leaves
//! out.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use api::creel::{BuildRequest, BuildStart, ContextWanted};
use dockerfile::Ignore;
use model::Pieces;
use tokio::sync::mpsc;

use super::files::Files;
use crate::error::{self, Error};

/// Bytes of an archive in one message.
const PIECE: usize = 1 << 20;
/// Files of a list in one message.
const FILES: usize = 1000;
/// Bytes of a `.dockerignore`, and some more.
const IGNORE: u64 = 2 << 20;
/// Enough of an archive to know it as one.
pub(super) const START: usize = 512;
/// Where tar says that it is tar.
const MAGIC: std::ops::Range<usize> = 257..262;
/// gzip, zstd, bzip2, xz: what the daemon does not read, it refuses by name.
const PACKED: [&[u8]; 4] = [&[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd], b"BZh", b"\xfd7zXZ\0"];

/// What is copied from.
#[derive(Debug)]
pub(super) enum Context {
    /// Nothing.
    Empty,
    /// An archive on standard input, whose beginning has been read.
    Stdin(Vec<u8>),
    /// A directory.
    Directory(PathBuf, Ignore),
}

/// Whether this is the beginning of an archive.
pub(super) fn is_archive(start: &[u8]) -> bool {
    start.get(MAGIC) == Some(b"ustar") || PACKED.iter().any(|magic| start.starts_with(magic))
}

/// Reads until the buffer is full or there is no more.
pub(super) fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

impl Context {
    /// A directory, with the patterns of `FILE.dockerignore`, `.containerignore` or `.dockerignore`, whichever is there first.
    /// Answers their text too.
    pub(super) fn directory(root: &Path, dockerfile: &Path) -> Result<(Self, Vec<u8>), Error> {
        let mut beside = dockerfile.as_os_str().to_owned();
        beside.push(".dockerignore");
        let known = [PathBuf::from(beside), root.join(".containerignore"), root.join(".dockerignore")];
        let Some(file) = known.iter().find(|file| file.symlink_metadata().is_ok()) else {
            return Ok((Self::Directory(root.to_owned(), Ignore::default()), Vec::new()));
        };
        let text = read_inside(root, file, IGNORE).map_err(error::io(format!("read {}", file.display())))?;
        let ignore = Ignore::parse(&text).map_err(|e| Error::Words(format!("ERROR: {}: {e}", file.display())))?;
        Ok((Self::Directory(root.to_owned(), ignore), text))
    }

    /// What it is compared with; empty: it is sent as it is.
    pub(super) fn name(&self) -> Result<String, Error> {
        let Self::Directory(root, _) = self else { return Ok(String::new()) };
        let whole = fs::canonicalize(root).map_err(error::io(format!("path {:?}", root.display())))?;
        Ok(whole.to_string_lossy().into_owned())
    }
}

/// Reads a file. One that is in the context must not lead out of it: whoever has made the context is not to be shown what only the
/// builder can read.
pub(super) fn read_inside(root: &Path, file: &Path, most: u64) -> io::Result<Vec<u8>> {
    let (root, whole) = (fs::canonicalize(root)?, fs::canonicalize(file)?);
    let parent = fs::canonicalize(file.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")))?;
    if (parent.starts_with(&root) || file.starts_with(&root)) && !whole.starts_with(&root) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is a link that leads out of the build context"));
    }
    if !fs::metadata(&whole)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    let mut text = Vec::new();
    fs::File::open(whole)?.take(most + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// What the daemon has said to a list of files.
pub(super) type Wanted = std::sync::mpsc::Receiver<ContextWanted>;

/// Sends contexts as messages. Blocks. Ends early, without an error, when nobody listens any more: the daemon's answer then says
/// why.
pub(super) fn send(contexts: Vec<Context>, to: &mpsc::Sender<BuildRequest>, wanted: &Wanted) -> Result<(), Error> {
    let daemon = Daemon(to);
    let sent = contexts.into_iter().try_for_each(|context| daemon.send(context, wanted));
    match sent {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(error::io("read the context")),
    }
}

/// The first message.
pub(super) fn begin(start: BuildStart) -> BuildRequest {
    BuildRequest { start: Some(start), ..BuildRequest::default() }
}

/// Who is sent to, from a blocking thread.
struct Daemon<'t>(&'t mpsc::Sender<BuildRequest>);

impl Daemon<'_> {
    fn send(&self, context: Context, wanted: &Wanted) -> io::Result<()> {
        let mut pieces = Pieces::new(PIECE, |data| self.tell(BuildRequest { data, ..BuildRequest::default() }).is_ok());
        match context {
            Context::Empty => tar::Builder::new(&mut pieces).into_inner().map(drop)?,
            Context::Stdin(beginning) => {
                let mut all = beginning.chain(io::stdin().lock());
                io::copy(&mut all, &mut pieces).map(drop)?;
            }
            Context::Directory(root, ignore) => {
                let files = Files::read(&root, &ignore)?;
                for list in files.list.chunks(FILES) {
                    self.tell(BuildRequest { files: list.to_vec(), ..BuildRequest::default() })?;
                }
                self.whole()?;
                let ContextWanted { files: wanted } = wanted.recv().map_err(|_| gone())?;
                files.archive(&wanted, &mut pieces)?;
            }
        }
        pieces.flush()?;
        self.whole()
    }

    /// What has been sent so far is a part.
    fn whole(&self) -> io::Result<()> {
        self.tell(BuildRequest { whole: true, ..BuildRequest::default() })
    }

    fn tell(&self, message: BuildRequest) -> io::Result<()> {
        self.0.blocking_send(message).map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the daemon listens no longer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_out_of_the_context_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("context")).unwrap();
        fs::write(at("secret"), "root only").unwrap();
        fs::write(at("context/real"), "FROM a").unwrap();
        std::os::unix::fs::symlink("../secret", at("context/Dockerfile")).unwrap();
        std::os::unix::fs::symlink("real", at("context/inside")).unwrap();
        std::os::unix::fs::symlink(at("secret"), at("context/.dockerignore")).unwrap();
        let read = |name: &str| read_inside(&at("context"), &at(name), 100);
        assert!(read("context/Dockerfile").unwrap_err().to_string().contains("leads out of the build context"));
        assert_eq!(read("context/inside").unwrap(), b"FROM a");
        assert_eq!(read("secret").unwrap(), b"root only", "whoever names a file outside means it");
        let told = Context::directory(&at("context"), &at("context/real")).unwrap_err().to_string();
        assert!(told.contains(".dockerignore"), "{told}");
    }

    #[test]
    fn archives_are_known_by_their_beginning() {
        let mut tar = vec![0; START];
        tar[MAGIC].copy_from_slice(b"ustar");
        assert!(is_archive(&tar) && is_archive(&[0x1f, 0x8b, 8]));
        assert!(!is_archive(b"FROM busybox\n") && !is_archive(b""));
    }
}
