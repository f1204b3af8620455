//! COPY and ADD: files of the context, of a stage or of an image come into a writable layer.
//!
//! Both sides are hostile. Where a path leads is found by openat2(2) in the root that it is in, and what is there goes over as an
//! archive that is unpacked entry by entry in the other root: nothing of the host is ever named (R31).

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd as _, OwnedFd},
};

use dockerfile::Ignore;
use model::ErrorKind;
use rustix::fs::{Dir, FileType, Mode, OFlags, fstat};
use sys::{
    Errno,
    path::{Links, Root},
};

use super::{key, refuse};
use crate::{
    error::{Error, Step as _},
    image::Unmakable,
    user::{
        Last, Owners, Replace,
        files::{Place, bring, entry, words},
    },
};

/// Entries of a directory that a pattern is compared with.
const MOST: usize = 100_000;
/// What an archive begins with that ADD would unpack: gzip, bzip2, xz, zstd.
const PACKED: [&[u8]; 4] = [&[0x1f, 0x8b], b"BZh", b"\xfd7zXZ\0", &[0x28, 0xb5, 0x2f, 0xfd]];
/// Where tar says that it is tar.
const MAGIC: std::ops::Range<usize> = 257..262;

/// Something that is copied.
#[derive(Debug)]
pub(super) struct Source {
    what: What,
    /// Its last component, as named.
    name: String,
}

#[derive(Debug)]
enum What {
    /// A name in a directory.
    Entry(OwnedFd, Vec<u8>),
    /// What is in a directory.
    Contents(OwnedFd),
}

/// Finds what is meant: patterns are compared, links at the end followed in the root. Blocks.
///
/// # Errors
/// `NotFound`, and what is wrong with a pattern.
pub(super) fn find(root: &Root, named: &[String]) -> Result<Vec<Source>, Error> {
    let mut found = Vec::new();
    for text in named {
        let paths = expand(root, text)?;
        if paths.is_empty() {
            return Err(missing(text));
        }
        for path in paths {
            found.push(source(root, &path).map_err(|e| call(text, e))?);
        }
    }
    Ok(found)
}

fn missing(path: &str) -> Error {
    refuse(ErrorKind::NotFound, format!("\"/{}\": not found", path.trim_start_matches('/')))
}

fn call(path: &str, errno: Errno) -> Error {
    match errno {
        Errno::NOENT | Errno::NOTDIR => missing(path),
        errno => refuse(sys::kind_of(errno), format!("{path:?}: {errno}")),
    }
}

/// Absolute paths in the root; `..` stays inside of it.
fn expand(root: &Root, pattern: &str) -> Result<Vec<String>, Error> {
    let mut found = vec![String::new()];
    for part in super::clean(pattern) {
        if !part.contains(['*', '?', '[', '\\']) {
            found.iter_mut().for_each(|path| path.extend(["/", part]));
            continue;
        }
        let wrong = |e: dockerfile::IgnoreError| refuse(ErrorKind::InvalidArgument, format!("{pattern:?}: {e}"));
        // It begins a list of what is left out there.
        let part = if part.starts_with('!') { format!("\\{part}") } else { part.to_owned() };
        let fits = Ignore::of([part.as_str()]).map_err(wrong)?;
        let mut next = Vec::new();
        for path in found {
            let names = match list(root, &path) {
                Err(Errno::NOTDIR | Errno::NOENT) => Vec::new(),
                other => other.map_err(|e| call(&path, e))?,
            };
            next.extend(names.into_iter().filter(|name| fits.excludes(name)).map(|name| format!("{path}/{name}")));
        }
        if next.len() > MOST {
            return Err(refuse(ErrorKind::ResourceExhausted, format!("{pattern:?}: more than {MOST} files")));
        }
        found = next;
    }
    Ok(found)
}

fn list(root: &Root, path: &str) -> Result<Vec<String>, Errno> {
    let dir = root.open(&format!("{path}/."), OFlags::RDONLY | OFlags::DIRECTORY, Links::Follow)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        match entry.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn source(root: &Root, path: &str) -> Result<Source, Errno> {
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    let there = root.open(&format!("{path}/.").replace("//", "/"), OFlags::RDONLY | OFlags::DIRECTORY, Links::Follow);
    let what = match there {
        Ok(directory) => What::Contents(directory),
        Err(Errno::NOTDIR) => {
            let (parent, inside) = entry(root, path, Last::Target)?;
            What::Entry(parent, inside)
        }
        Err(errno) => return Err(errno),
    };
    Ok(Source { what, name })
}

impl Source {
    /// Whether ADD would unpack it.
    pub(super) fn is_archive(&self) -> io::Result<bool> {
        let What::Entry(parent, name) = &self.what else { return Ok(false) };
        // Not opened before it is known to be a file.
        let stat = rustix::fs::statat(parent, &name[..], rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(parent, &name[..], flags, Mode::empty())?);
        let mut start = Vec::new();
        file.take(MAGIC.end as u64).read_to_end(&mut start)?;
        Ok(PACKED.iter().any(|magic| start.starts_with(magic)) || start.get(MAGIC) == Some(b"ustar"))
    }

    /// The digest of what goes over.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn digest(&self, ownership: key::Ownership) -> Result<[u8; 32], Error> {
        self.archived(&self.name, |archive| {
            key::of_archive(io::BufReader::with_capacity(256 << 10, archive), ownership).map_err(failed)
        })
    }

    /// Lets `read` have it as an archive; a file is called `name` there.
    fn archived<T>(&self, name: &str, read: impl FnOnce(File) -> Result<T, Error>) -> Result<T, Error> {
        let (reader, writer) = io::pipe().map_err(failed)?;
        std::thread::scope(|scope| {
            let packing = scope.spawn(move || {
                let writer = io::BufWriter::with_capacity(256 << 10, writer);
                let limits = layer::Limits::default();
                match &self.what {
                    What::Entry(parent, inside) => layer::pack(parent.as_fd(), inside, name.as_bytes(), writer, &limits),
                    What::Contents(directory) => layer::diff(directory.as_fd(), writer, &limits),
                }
            });
            let read = reader.try_clone().map_err(failed).and_then(|mut rest| {
                let read = read(File::from(OwnedFd::from(reader)))?;
                // What stands behind the end of the archive is read too: the writer is not to find its pipe broken.
                io::copy(&mut rest, &mut io::sink()).map_err(failed)?;
                Ok(read)
            });
            let packed = packing.join().map_err(|_| refuse(ErrorKind::Internal, "the work crashed; see the log"))?;
            match (read, packed) {
                (Ok(read), Ok(_)) => Ok(read),
                // A reader that fails breaks the pipe of the writer: its own reason is the better one.
                (Err(error), Err(layer::Error::Archive(_)) | Ok(_)) => Err(error),
                (_, Err(error)) => Err(error).step(crate::About::Words, "read what is copied"),
            }
        })
    }
}

fn failed(error: io::Error) -> Error {
    refuse(Unmakable::Io(io::Error::from(error.kind())).kind(), format!("read what is copied: {error}"))
}

/// Where to, and how.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Absolute and clean.
    pub(super) path: String,
    /// It is a directory, whether it is there or not.
    pub(super) directory: bool,
    pub(super) owners: Owners,
    pub(super) mode: Option<Mode>,
}

/// Copies into a root. Blocks.
///
/// # Errors
/// Something of another kind is in the way; the disk's.
pub(super) fn copy(sources: &[Source], root: &Root, target: &Target) -> Result<(), Error> {
    let exists = root.open(&format!("{}/.", target.path), OFlags::PATH | OFlags::DIRECTORY, Links::Follow).is_ok();
    for source in sources {
        let directory = target.directory || exists || matches!(source.what, What::Contents(_));
        let (prefix, name) = if directory {
            (target.path.as_str(), source.name.as_str())
        } else {
            target.path.rsplit_once('/').unwrap_or(("", &target.path))
        };
        let made = root.make_directories(if prefix.is_empty() { "/" } else { prefix }, Links::Follow);
        let made = made.map_err(|e| match e {
            Errno::NOTDIR => refuse(ErrorKind::InvalidArgument, format!("cannot copy to non-directory: {prefix}")),
            e => call(prefix, e),
        })?;
        fstat(&made).map_err(|e| call(prefix, e))?;
        let own = root.resolve("/", Links::Follow).map_err(|e| call("/", e))?;
        let (owners, mode) = (target.owners, target.mode);
        let place = Place { root: Root::from(own), prefix: prefix.to_owned(), owners, replace: Replace::SameKind, mode };
        source.archived(name, |archive| bring(&place, archive).map_err(words))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::*;

    struct Lab {
        home: tempfile::TempDir,
    }

    impl Lab {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            for dir in ["from/sub/deep", "to/usr/bin", "outside"] {
                fs::create_dir_all(home.path().join(dir)).unwrap();
            }
            fs::write(home.path().join("outside/secret"), "host").unwrap();
            for (name, text) in [("from/a.txt", "a"), ("from/b.txt", "b"), ("from/c.md", "c"), ("from/sub/deep/f", "f")] {
                fs::write(home.path().join(name), text).unwrap();
            }
            symlink("usr/bin", home.path().join("to/bin")).unwrap();
            Self { home }
        }

        fn at(&self, path: &str) -> std::path::PathBuf {
            self.home.path().join(path)
        }

        fn root(&self, name: &str) -> Root {
            Root::open_host(self.at(name)).unwrap()
        }

        fn copy(&self, sources: &[&str], path: &str, directory: bool) -> Result<(), String> {
            let sources: Vec<String> = sources.iter().map(|source| (*source).to_owned()).collect();
            let target = Target { path: path.to_owned(), directory, owners: Owners::Root, mode: None };
            let found = find(&self.root("from"), &sources).map_err(|e| e.chain())?;
            copy(&found, &self.root("to"), &target).map_err(|e| e.chain())
        }
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn files_patterns_and_directories() {
        let lab = Lab::new();
        lab.copy(&["a.txt"], "/new/name", false).unwrap();
        assert_eq!(read(&lab.at("to/new/name")), "a");
        lab.copy(&["*.txt"], "/texts", true).unwrap();
        assert_eq!((read(&lab.at("to/texts/a.txt")), lab.at("to/texts/c.md").exists()), ("a".into(), false));
        lab.copy(&["sub"], "/app", false).unwrap();
        assert_eq!(read(&lab.at("to/app/deep/f")), "f");
        lab.copy(&["su[a-c]/*/f"], "/bin", false).unwrap();
        assert_eq!(read(&lab.at("to/usr/bin/f")), "f", "through a link of the image");
        lab.copy(&["."], "/", true).unwrap();
        assert_eq!(read(&lab.at("to/sub/deep/f")), "f");
        assert_eq!(lab.copy(&["*.none"], "/x", true).unwrap_err(), "\"/*.none\": not found");
        assert_eq!(lab.copy(&["../../none"], "/x", false).unwrap_err(), "\"/../../none\": not found");
    }

    #[test]
    fn bu_01_nothing_of_the_host_is_read_or_written() {
        let lab = Lab::new();
        symlink(lab.at("outside/secret"), lab.at("from/link")).unwrap();
        symlink(lab.at("outside"), lab.at("from/dir")).unwrap();
        symlink("../outside/secret", lab.at("from/up")).unwrap();
        symlink(lab.at("outside"), lab.at("to/out")).unwrap();
        for source in ["link", "dir", "dir/secret", "up", "dir/*"] {
            assert!(lab.copy(&[source], "/got", false).is_err(), "{source}");
        }
        lab.copy(&["a.txt"], "/out/secret", false).unwrap();
        assert_eq!(read(&lab.at("outside/secret")), "host");
        // A link below what is copied stays one.
        symlink("/etc/shadow", lab.at("from/sub/shadow")).unwrap();
        lab.copy(&["sub"], "/app", false).unwrap();
        assert_eq!(fs::read_link(lab.at("to/app/shadow")).unwrap(), Path::new("/etc/shadow"));
    }

    #[test]
    fn what_is_of_another_kind_stays() {
        let lab = Lab::new();
        fs::write(lab.at("to/file"), "x").unwrap();
        assert!(lab.copy(&["sub"], "/file", false).unwrap_err().contains("cannot copy to non-directory: /file"));
        fs::create_dir_all(lab.at("to/d/a.txt")).unwrap();
        assert!(lab.copy(&["a.txt"], "/d", true).unwrap_err().contains("cannot overwrite directory"));
    }

    #[test]
    fn digests_are_of_content() {
        let lab = Lab::new();
        let digest = |name: &str| find(&lab.root("from"), &[name.to_owned()]).unwrap()[0].digest(key::Ownership::Ignored).unwrap();
        let first = digest("sub");
        fs::write(lab.at("from/sub/deep/f"), "f").unwrap();
        assert_eq!(digest("sub"), first);
        fs::write(lab.at("from/sub/deep/f"), "g").unwrap();
        assert_ne!(digest("sub"), first);
    }
}
