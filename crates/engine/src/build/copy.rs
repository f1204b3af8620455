//! COPY and ADD: files of the context, of a stage or of an image come into a writable layer.
//!
//! Both sides are hostile. Where a path leads is found by openat2(2) in the root that it is in, and what is there goes over as an
//! archive that is unpacked entry by entry in the other root: nothing of the host is ever named (R31).

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use dockerfile::Ignore;
use layer::{Choice, Compression};
use model::ErrorKind;
use rustix::fs::{Mode, OFlags};
use sys::{
    Errno,
    path::{Links, Root},
};

use super::{key, listing::Listing, refuse};
use crate::{
    error::{Error, Step as _},
    image::Unmakable,
    user::{
        Owners, Replace,
        files::{Chmod, Place, View, bring, words},
    },
};

/// Bytes of a tar's header.
const BLOCK: usize = 512;
/// Bytes of an archive in the pipe's buffers.
const PIECE: usize = 256 << 10;

/// Something that is copied.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) what: What,
    /// Its last component, as named.
    pub(super) name: String,
    /// Where it was found; of --parents, the directory that paths count from.
    pub(super) path: Option<String>,
    /// ADD unpacks it.
    pub(super) packed: Option<Compression>,
}

#[derive(Debug)]
pub(super) enum What {
    /// A name in a directory.
    Entry(OwnedFd, Vec<u8>),
    /// What is in a directory.
    Contents(OwnedFd),
    /// Paths below a directory, with the directories that lead to them.
    Parents(OwnedFd, BTreeSet<String>),
    /// A file that is not anywhere yet.
    Loose(Loose),
}

/// A file of a Dockerfile's own or of the network: root's.
#[derive(Debug)]
pub(super) struct Loose {
    pub(super) file: File,
    pub(super) mode: u32,
    /// Seconds since 1970; `None`: it says no time, and none is made of it.
    pub(super) mtime: Option<u64>,
}

impl Source {
    /// Nothing but a name.
    pub(super) fn new(what: What, name: &str) -> Self {
        Self { what, name: name.to_owned(), path: None, packed: None }
    }

    /// Has ADD unpack it if it is an archive.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn look_inside(&mut self) -> Result<(), Error> {
        let Some(mut file) = self.file().map_err(failed)? else { return Ok(()) };
        let mut start = Vec::new();
        file.by_ref().take(6).read_to_end(&mut start).map_err(failed)?;
        let compression = Compression::detect(&start);
        // What cannot be read as one is a file like any other.
        let Ok(mut plain) = layer::decompress(io::Cursor::new(start).chain(file), compression, &layer::Limits::default()) else {
            return Ok(());
        };
        let mut block = [0; BLOCK];
        if plain.read_exact(&mut block).is_ok() && is_header(&block) {
            self.packed = Some(compression);
        }
        Ok(())
    }

    /// A regular file, to read from its beginning.
    fn file(&self) -> io::Result<Option<File>> {
        match &self.what {
            What::Contents(_) | What::Parents(..) => Ok(None),
            What::Loose(loose) => {
                let own = format!("/proc/self/fd/{}", loose.file.as_raw_fd());
                File::open(own).map(Some)
            }
            What::Entry(parent, name) => {
                // Not opened before it is known to be a file.
                let stat = rustix::fs::statat(parent, &name[..], rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
                if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
                    return Ok(None);
                }
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                Ok(Some(File::from(rustix::fs::openat(parent, &name[..], flags, Mode::empty())?)))
            }
        }
    }

    /// The digest of what goes over, out of a list of what is there; `None`: it does not say.
    pub(super) fn listed(&self, listing: &Listing, exclude: &Ignore) -> Option<[u8; 32]> {
        let path = self.path.as_deref()?;
        // The directory itself counts too: what is made for its contents is as it is.
        let choose = |rest: &str| self.choice(rest.as_bytes(), "", exclude);
        match &self.what {
            What::Loose(_) => None,
            What::Entry(..) | What::Contents(_) | What::Parents(..) => listing.digest((path, &self.name), choose),
        }
    }

    /// The digest of what goes over, which is read for it.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn digest(&self, ownership: key::Ownership, exclude: &Ignore) -> Result<[u8; 32], Error> {
        self.archived(&self.name, exclude, |archive| {
            key::of_archive(io::BufReader::with_capacity(PIECE, archive), ownership).map_err(failed)
        })
    }

    /// Lets `read` have it as an archive; a file is called `name` there, and so is the directory whose contents it is, unless that
    /// is empty.
    fn archived<T>(&self, name: &str, exclude: &Ignore, read: impl FnOnce(&mut dyn Read) -> Result<T, Error>) -> Result<T, Error> {
        let (mut reader, writer) = io::pipe().map_err(failed)?;
        std::thread::scope(|scope| {
            let packing = scope.spawn(move || self.pack(name, exclude, io::BufWriter::with_capacity(PIECE, writer)));
            let read = read(&mut reader).and_then(|read| {
                // What stands behind the end of the archive is read too: the writer is not to find its pipe broken.
                io::copy(&mut reader, &mut io::sink()).map_err(failed)?;
                Ok(read)
            });
            drop(reader);
            let packed = packing.join().map_err(|_| refuse(ErrorKind::Internal, "the work crashed; see the log"))?;
            match (read, packed) {
                (Ok(read), Ok(())) => Ok(read),
                // A reader that fails breaks the pipe of the writer: its own reason is the better one.
                (Err(error), Err(layer::Error::Archive(_)) | Ok(())) => Err(error),
                (_, Err(error)) => Err(error).step(crate::About::Words, "read what is copied"),
            }
        })
    }

    fn pack(&self, name: &str, exclude: &Ignore, writer: impl io::Write) -> Result<(), layer::Error> {
        let limits = layer::Limits::default();
        let choose = |path: &[u8]| self.choice(path, name, exclude);
        match &self.what {
            What::Entry(parent, inside) => layer::pick((parent.as_fd(), inside), name.as_bytes(), &choose, writer, &limits),
            What::Contents(directory) => layer::pick((directory.as_fd(), b"."), name.as_bytes(), &choose, writer, &limits),
            What::Parents(pivot, _) => layer::pick((pivot.as_fd(), b"."), b"", &choose, writer, &limits),
            What::Loose(loose) => return loose.pack(name, writer).map_err(layer::Error::Archive),
        }
        .map(drop)
    }

    /// Patterns are about the path from the directory that is copied, and about the name of a file.
    pub(super) fn choice(&self, path: &[u8], name: &str, exclude: &Ignore) -> Choice {
        let path = String::from_utf8_lossy(path);
        let path = match &self.what {
            What::Entry(..) | What::Loose(_) => &self.name,
            What::Contents(_) => path.strip_prefix(name).unwrap_or(&path).trim_start_matches('/'),
            What::Parents(_, wanted) => match wanted_below(wanted, &path) {
                Choice::Take => &path,
                other => return other,
            },
        };
        match exclude.excludes(path) {
            true if !path.is_empty() && self.packed.is_none() => match exclude.may_keep_below(path) {
                true => Choice::Below,
                false => Choice::Leave,
            },
            _ => Choice::Take,
        }
    }
}

impl Loose {
    fn pack(&self, name: &str, writer: impl io::Write) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(self.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.mtime.unwrap_or(0));
        header.set_size(self.file.metadata()?.len());
        let mut archive = tar::Builder::new(writer);
        archive.append_data(&mut header, name, File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))?)?;
        archive.finish()
    }
}

/// What --parents takes: paths, all below them, and the directories above.
fn wanted_below(wanted: &BTreeSet<String>, path: &str) -> Choice {
    let above = |path: &str| wanted.range(format!("{path}/")..).next().is_some_and(|next| next.starts_with(&format!("{path}/")));
    let mut cuts = path.match_indices('/').map(|(at, _)| &path[..at]).chain([path]);
    match cuts.any(|cut| wanted.contains(cut)) {
        true => Choice::Take,
        false if path.is_empty() || above(path) => Choice::Below,
        false => Choice::Leave,
    }
}

/// Whether a block is a tar's first: its checksum is the sum of its bytes, with blanks instead of itself.
fn is_header(block: &[u8; BLOCK]) -> bool {
    let header = tar::Header::from_byte_slice(block);
    let sum: u32 = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
    block[0] != 0 && header.cksum().is_ok_and(|told| told == sum)
}

pub(super) fn failed(error: io::Error) -> Error {
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
    pub(super) chmod: Option<Chmod>,
    pub(super) exclude: Ignore,
}

impl Target {
    /// The directory that a source comes into, and its name there; without one it is what is in it that comes.
    pub(super) fn place_of<'t>(&'t self, source: &'t Source, root: &Root) -> (&'t str, &'t str) {
        let exists = root.open(&format!("{}/.", self.path), OFlags::PATH | OFlags::DIRECTORY, Links::Follow).is_ok();
        let (parent, base) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let into = (self.path.as_str(), "");
        match &source.what {
            _ if source.packed.is_some() => into,
            What::Parents(..) => into,
            // A directory that is made for what was in another one is as that one is.
            What::Contents(_) if !exists && !self.directory && is_free(root, &self.path) => (parent, base),
            What::Contents(_) => into,
            What::Entry(..) | What::Loose(_) if self.directory || exists => (self.path.as_str(), source.name.as_str()),
            What::Entry(..) | What::Loose(_) => (parent, base),
        }
    }
}

/// Copies into a root. Answers the newest time of what it has copied, in seconds since 1970. Blocks.
///
/// # Errors
/// Something of another kind is in the way; the disk's.
pub(super) fn copy(sources: &[Source], root: &Root, target: &Target) -> Result<u64, Error> {
    let mut newest = 0;
    for source in sources {
        newest = newest.max(one(source, root, target)?);
    }
    Ok(newest)
}

fn one(source: &Source, root: &Root, target: &Target) -> Result<u64, Error> {
    let (prefix, name) = target.place_of(source, root);
    directories(root, prefix, target.owners).map_err(|e| match e {
        Errno::NOTDIR => refuse(ErrorKind::InvalidArgument, format!("cannot copy to non-directory: {prefix}")),
        e => refuse(sys::kind_of(e), format!("{prefix:?}: {e}")),
    })?;
    let own = root.resolve("/", Links::Follow).map_err(|e| refuse(sys::kind_of(e), format!("/: {e}")))?;
    let place = Place {
        view: View::from(Root::from(own)),
        prefix: prefix.trim_end_matches('/').to_owned(),
        // As docker has it: what an archive says of owners holds, whatever --chown says.
        owners: if source.packed.is_some() { Owners::Archive } else { target.owners },
        replace: if source.packed.is_some() { Replace::AnyKind } else { Replace::SameKind },
        chmod: target.chmod.clone(),
    };
    let Some(compression) = source.packed else {
        return source.archived(name, &target.exclude, |archive| bring(&place, archive).map_err(words));
    };
    let file = source.file().map_err(failed)?.ok_or_else(|| refuse(ErrorKind::Internal, "the archive has gone"))?;
    let plain = layer::decompress(file, compression, &layer::Limits::default());
    bring(&place, plain.step(crate::About::Words, "unpack the archive")?).map_err(words)
}

fn is_free(root: &Root, path: &str) -> bool {
    root.open(path, OFlags::PATH | OFlags::NOFOLLOW, Links::Follow).is_err_and(|e| e == Errno::NOENT)
}

/// Makes what is missing of a path. New directories belong to whom the files will.
fn directories(root: &Root, path: &str, owners: Owners) -> Result<(), Errno> {
    let cuts = path.match_indices('/').skip(1).map(|(at, _)| &path[..at]).chain([path]).filter(|cut| !cut.is_empty());
    let look = |cut: &str| root.open(cut, OFlags::PATH | OFlags::DIRECTORY, Links::Follow);
    let missing = |cut: &&str| look(cut).is_err_and(|e| e == Errno::NOENT);
    let new: Vec<&str> = cuts.filter(missing).collect();
    root.make_directories(if path.is_empty() { "/" } else { path }, Links::Follow)?;
    let Owners::Ids(uid, gid) = owners else { return Ok(()) };
    for made in new {
        let made = root.open(made, OFlags::RDONLY | OFlags::DIRECTORY, Links::Follow)?;
        rustix::fs::fchown(&made, Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
        path::Path,
    };

    use super::{
        super::find::{Layout, find},
        *,
    };

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
            self.copy_as(sources, Target { directory, ..target(path) }, Layout::Flat)
        }

        fn copy_as(&self, sources: &[&str], target: Target, layout: Layout) -> Result<(), String> {
            let found = sources.iter().map(|source| find(&self.root("from"), source, layout)).collect::<Result<Vec<_>, _>>();
            let found: Vec<Source> = found.map_err(|e| e.chain())?.into_iter().flatten().collect();
            copy(&found, &self.root("to"), &target).map(drop).map_err(|e| e.chain())
        }
    }

    fn target(path: &str) -> Target {
        let (owners, exclude) = (Owners::Root, Ignore::default());
        Target { path: path.to_owned(), directory: false, owners, chmod: None, exclude }
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
        let digest = |name: &str| {
            let found = find(&lab.root("from"), name, Layout::Flat).unwrap();
            found[0].digest(key::Ownership::Ignored, &Ignore::of(["*.md"]).unwrap()).unwrap()
        };
        let first = digest("sub");
        fs::write(lab.at("from/sub/deep/f"), "f").unwrap();
        fs::write(lab.at("from/sub/x.md"), "left out").unwrap();
        assert_eq!(digest("sub"), first);
        fs::write(lab.at("from/sub/deep/f"), "g").unwrap();
        assert_ne!(digest("sub"), first);
    }

    #[test]
    fn patterns_leave_out_what_they_match() {
        let lab = Lab::new();
        fs::create_dir_all(lab.at("from/sub/keep/in")).unwrap();
        for name in ["keep/a.txt", "keep/in/b.txt", "deep/c.md"] {
            fs::write(lab.at("from/sub").join(name), name).unwrap();
        }
        let without = |patterns: &[&str]| Ignore::of(patterns.iter().copied()).unwrap();
        let target_of = |path: &str, patterns: &[&str]| Target { exclude: without(patterns), ..target(path) };
        lab.copy_as(&["sub"], target_of("/one", &["keep", "!keep/in", "**/*.md"]), Layout::Flat).unwrap();
        assert!(lab.at("to/one/keep/in/b.txt").exists() && lab.at("to/one/deep/f").exists());
        assert!(!lab.at("to/one/keep/a.txt").exists() && !lab.at("to/one/deep/c.md").exists());
        let all = Target { directory: true, ..target_of("/two", &["*.txt"]) };
        lab.copy_as(&["*.*"], all, Layout::Flat).unwrap();
        assert_eq!(fs::read_dir(lab.at("to/two")).unwrap().count(), 1, "c.md");
    }

    #[test]
    fn parents_come_along() {
        let lab = Lab::new();
        fs::set_permissions(lab.at("from/sub"), fs::Permissions::from_mode(0o750)).unwrap();
        fs::create_dir_all(lab.at("from/sub/empty")).unwrap();
        symlink("sub", lab.at("from/link")).unwrap();
        lab.copy_as(&["sub/deep/f", "*.md"], target("/all"), Layout::Parents).unwrap();
        assert_eq!((read(&lab.at("to/all/sub/deep/f")), read(&lab.at("to/all/c.md"))), ("f".into(), "c".into()));
        assert_eq!(fs::metadata(lab.at("to/all/sub")).unwrap().mode() & 0o777, 0o750, "as it is there");
        assert!(!lab.at("to/all/sub/empty").exists() && !lab.at("to/all/a.txt").exists());
        lab.copy_as(&["sub/./deep"], target("/pivot"), Layout::Parents).unwrap();
        assert_eq!(read(&lab.at("to/pivot/deep/f")), "f");
        lab.copy_as(&["./**/f"], target("/stars"), Layout::Parents).unwrap();
        assert_eq!(read(&lab.at("to/stars/sub/deep/f")), "f");
        lab.copy_as(&["link"], target("/links"), Layout::Parents).unwrap();
        assert_eq!(fs::read_link(lab.at("to/links/link")).unwrap(), Path::new("sub"));
        let told = lab.copy_as(&["link/deep/f"], target("/x"), Layout::Parents).unwrap_err();
        assert!(told.contains("a directory on the way is a symbolic link"), "{told}");
        assert_eq!(lab.copy_as(&["none/*"], target("/x"), Layout::Parents).unwrap_err(), "\"/none/*\": not found");
    }

    #[test]
    fn a_new_directory_is_as_the_one_that_is_copied() {
        let lab = Lab::new();
        fs::set_permissions(lab.at("from/sub"), fs::Permissions::from_mode(0o711)).unwrap();
        let mode = |path: &str| fs::metadata(lab.at(path)).unwrap().mode() & 0o777;
        lab.copy(&["sub"], "/same", false).unwrap();
        lab.copy(&["sub"], "/plain", true).unwrap();
        let chmod = Chmod::parse("u=rwX,go=");
        lab.copy_as(&["sub"], Target { chmod, owners: Owners::Ids(7, 8), ..target("/a/b/changed") }, Layout::Flat).unwrap();
        assert_eq!((mode("to/same"), mode("to/plain"), mode("to/a"), mode("to/a/b/changed")), (0o711, 0o755, 0o755, 0o700));
        assert_eq!(mode("to/a/b/changed/deep/f"), 0o600);
        let owner = |path: &str| fs::metadata(lab.at(path)).map(|found| (found.uid(), found.gid())).unwrap();
        assert_eq!((owner("to/a"), owner("to/a/b/changed/deep/f")), ((7, 8), (7, 8)), "directories on the way too");
    }

    #[test]
    fn archives_are_known_by_their_first_header() {
        let lab = Lab::new();
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_old();
        header.set_size(1);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        builder.append_data(&mut header, "inside", &b"x"[..]).unwrap();
        let tar = builder.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &tar).unwrap();
        let files = [
            ("t.tar", tar.clone()),
            ("t.tgz", gzip.finish().unwrap()),
            ("cut.gz", vec![0x1f, 0x8b, 8, 0]),
            ("zero", vec![0; 2048]),
        ];
        for (name, bytes) in &files {
            fs::write(lab.at("from").join(name), bytes).unwrap();
        }
        let look = |name: &str| {
            let mut found = find(&lab.root("from"), name, Layout::Flat).unwrap().remove(0);
            found.look_inside().unwrap();
            found
        };
        assert_eq!(look("t.tar").packed, Some(Compression::None));
        assert_eq!(
            (look("cut.gz").packed, look("zero").packed, look("a.txt").packed, look("sub").packed),
            (None, None, None, None)
        );
        copy(&[look("t.tgz")], &lab.root("to"), &target("/unpacked")).unwrap();
        assert_eq!(read(&lab.at("to/unpacked/inside")), "x");
    }
}
