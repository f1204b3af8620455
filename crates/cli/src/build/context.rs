//! The context on its way to the daemon: a directory as a tar, without what `.dockerignore` leaves out.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use api::creel::{BuildRequest, BuildStart};
use dockerfile::Ignore;
use tokio::sync::mpsc;

use crate::error::{self, Error};

/// Bytes of an archive in one message.
const PIECE: usize = 1 << 20;
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
    pub(super) fn directory(root: &Path, dockerfile: &Path) -> Result<Self, Error> {
        let mut beside = dockerfile.as_os_str().to_owned();
        beside.push(".dockerignore");
        let known = [PathBuf::from(beside), root.join(".containerignore"), root.join(".dockerignore")];
        let Some(file) = known.iter().find(|file| file.exists()) else {
            return Ok(Self::Directory(root.to_owned(), Ignore::default()));
        };
        let text = fs::read(file).map_err(error::io(format!("read {}", file.display())))?;
        let ignore = Ignore::parse(&text).map_err(|e| Error::Words(format!("ERROR: {}: {e}", file.display())))?;
        Ok(Self::Directory(root.to_owned(), ignore))
    }

    /// Sends it as messages, the first one with `start`. Blocks. Ends early, without an error, when nobody listens any more: the
    /// daemon's answer then says why.
    pub(super) fn send(self, start: BuildStart, to: &mpsc::Sender<BuildRequest>) -> Result<(), Error> {
        let mut pieces = Pieces { to, start: Some(start), piece: Vec::with_capacity(PIECE) };
        let sent = match self {
            Self::Empty => tar::Builder::new(&mut pieces).into_inner().map(drop),
            Self::Stdin(beginning) => {
                let mut all = beginning.chain(io::stdin().lock());
                io::copy(&mut all, &mut pieces).map(drop)
            }
            Self::Directory(root, ignore) => {
                let mut archive = tar::Builder::new(&mut pieces);
                archive.follow_symlinks(false);
                walk(&mut archive, &root, "", &ignore).and_then(|()| archive.into_inner().map(drop))
            }
        };
        match sent.and_then(|()| pieces.last()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(error::io("read the context")),
        }
    }
}

/// What is in a directory, by name. A directory that is left out may have something in it that is not.
fn walk(archive: &mut tar::Builder<impl Write>, root: &Path, below: &str, ignore: &Ignore) -> io::Result<()> {
    let mut entries = fs::read_dir(root.join(below))?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let shown = || entry.path().display().to_string();
        let name = name.to_str().ok_or_else(|| io::Error::other(format!("{}: its name is not UTF-8", shown())))?;
        let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
        let found = entry.metadata().map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", shown())))?;
        let excluded = ignore.excludes(&path);
        if excluded && !(found.is_dir() && ignore.may_keep_below(&path)) {
            continue;
        }
        if name.starts_with(".wh.") {
            return Err(io::Error::other(format!("{}: in a layer such a name means that something is gone", shown())));
        }
        if found.is_dir() {
            if !excluded {
                archive.append_data(&mut header(&found), format!("{path}/"), io::empty())?;
            }
            walk(archive, root, &path, ignore)?;
        } else if found.is_symlink() {
            let target = fs::read_link(entry.path())?;
            archive.append_link(&mut header(&found), &path, target)?;
        } else if found.is_file() {
            let file = fs::File::open(entry.path()).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", shown())))?;
            append(archive, &found, &path, file)?;
        } else if !found.file_type().is_socket() {
            return Err(io::Error::other(format!("{}: neither a file nor a directory nor a link", shown())));
        }
    }
    Ok(())
}

/// A file that grows meanwhile is sent as long as it was; one that shrinks is an error.
fn append(archive: &mut tar::Builder<impl Write>, found: &fs::Metadata, path: &str, file: fs::File) -> io::Result<()> {
    let mut limited = Exactly { file, left: found.len() };
    archive.append_data(&mut header(found), path, &mut limited)
}

struct Exactly {
    file: fs::File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file has become shorter while it was read"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// Mode, size and time of a file; it is root's.
fn header(found: &fs::Metadata) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_metadata(found);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(found.mode() & 0o7777);
    header.set_size(if found.is_file() { found.len() } else { 0 });
    header
}

/// An archive on its way to the daemon, from a blocking thread.
struct Pieces<'t> {
    to: &'t mpsc::Sender<BuildRequest>,
    start: Option<BuildStart>,
    piece: Vec<u8>,
}

impl Pieces<'_> {
    fn last(&mut self) -> io::Result<()> {
        self.send()?;
        let sent = self.to.blocking_send(BuildRequest { whole: true, ..BuildRequest::default() });
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the daemon listens no longer"))
    }

    fn send(&mut self) -> io::Result<()> {
        let data = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let sent = self.to.blocking_send(BuildRequest { start: self.start.take(), data, ..BuildRequest::default() });
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the daemon listens no longer"))
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_not_sent() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("node_modules/keep")).unwrap();
        fs::create_dir_all(at("src")).unwrap();
        for file in ["node_modules/x", "node_modules/keep/y", "src/main", "secret.key"] {
            fs::write(at(file), file).unwrap();
        }
        std::os::unix::fs::symlink("/etc/shadow", at("link")).unwrap();
        fs::write(at(".dockerignore"), "node_modules\n!node_modules/keep\n*.key\n.dockerignore\n").unwrap();
        let Context::Directory(root, ignore) = Context::directory(dir.path(), &at("Dockerfile")).unwrap() else { panic!() };
        let mut archive = tar::Builder::new(Vec::new());
        walk(&mut archive, &root, "", &ignore).unwrap();
        let bytes = archive.into_inner().unwrap();
        let mut names = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let entry = entry.unwrap();
            names.push((entry.path().unwrap().display().to_string(), entry.header().entry_type().is_symlink()));
            assert_eq!(entry.header().uid().unwrap(), 0);
        }
        let names: Vec<_> = names.iter().map(|(name, link)| (name.trim_end_matches('/'), *link)).collect();
        let wanted =
            [("link", true), ("node_modules/keep", false), ("node_modules/keep/y", false), ("src", false), ("src/main", false)];
        assert_eq!(names, wanted);
    }

    #[test]
    fn archives_are_known_by_their_beginning() {
        let mut tar = vec![0; START];
        tar[MAGIC].copy_from_slice(b"ustar");
        assert!(is_archive(&tar) && is_archive(&[0x1f, 0x8b, 8]));
        assert!(!is_archive(b"FROM busybox\n") && !is_archive(b""));
    }
}
