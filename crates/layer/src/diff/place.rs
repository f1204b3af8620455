//! Pieces of other trees as the archive of a layer that puts them into their place: what COPY does, without a copy in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    rc::Rc,
};

use rustix::fs::{AtFlags, Mode, OFlags, fstat, openat, statat};

use super::{Bare, Choice, Diffed, Leave, Level, Walk, xattrs_of};
use crate::{Error, Limits, tar::Flag, tar::Head, tar::Time, xattr::Xattrs};

/// What becomes of everything that a piece brings.
pub struct Shape<'s> {
    /// Whose it is; `None`: whose it was.
    pub owner: Option<(u32, u32)>,
    /// The permissions of a file, or of a directory (true), that has these.
    pub mode: &'s dyn Fn(u32, bool) -> u32,
    /// Extended attributes that come along, by name.
    pub keeps: &'s dyn Fn(&[u8]) -> bool,
    /// What comes at all, by its path in the archive.
    pub choose: &'s dyn Fn(&[u8]) -> Choice,
    /// What is younger gets this time: seconds since 1970.
    pub latest: i64,
}

impl std::fmt::Debug for Shape<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shape").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Shape<'_> {
    /// Mode, user and group.
    pub(super) fn of(&self, mode: u32, flag: Flag, own: (u32, u32)) -> (u32, u32, u32) {
        let mode = if flag == Flag::Symlink { mode } else { (self.mode)(mode, flag == Flag::Directory) };
        let (uid, gid) = self.owner.unwrap_or(own);
        (mode, uid, gid)
    }
}

/// A directory on the way to the place, the root first.
#[derive(Debug)]
pub enum Above {
    /// It is there, as what lies below has it, and stays so; it is told only with something in it.
    There(OwnedFd),
    /// It is made, with this owner.
    New(u32, u32),
}

/// Something that comes into the last of the directories.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'p> {
    /// The directory that it is in, and its name there.
    pub from: (BorrowedFd<'p>, &'p [u8]),
    /// What it is called in its place.
    pub told: Told<'p>,
}

/// How a piece is told.
#[derive(Clone, Copy, Debug)]
pub enum Told<'p> {
    /// By this name.
    As(&'p [u8]),
    /// It is a directory, and what is in it is meant.
    Contents,
}

/// Writes the archive of a layer that has `pieces` (of which only one may be contents) in a directory; `above` are its names from
/// the root.
///
/// # Errors
/// As [`super::pick`].
pub fn place(
    above: Vec<(Vec<u8>, Above)>,
    pieces: &[Piece<'_>],
    shape: &Shape<'_>,
    writer: impl Write,
    limits: &Limits,
) -> Result<Diffed, Error> {
    let nothing = BTreeSet::new();
    let (choose, latest) = (shape.choose, shape.latest);
    let leave = Leave { choose, latest: Some(latest), shape: Some(shape), ..Leave::nothing(&nothing) };
    let mut walk = Walk::new(&leave, writer, limits);
    let mut path = Vec::new();
    for (name, above) in above {
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(name);
        walk.above(&path, above, latest)?;
    }
    for piece in pieces {
        walk.piece(piece, &path)?;
    }
    walk.below()?;
    walk.end()
}

impl<W: Write> Walk<'_, W> {
    /// Goes into a directory that is not read.
    fn above(&mut self, path: &[u8], above: Above, latest: i64) -> Result<(), Error> {
        let shown = if path.is_empty() { b"./".to_vec() } else { [path, b"/"].concat() };
        let tell = |mode, (uid, gid), xattrs: &Xattrs| {
            let mtime = Time { seconds: latest, nanos: 0 };
            Head { path: &shown, link: b"", flag: Flag::Directory, mode, uid, gid, size: 0, mtime, device: (0, 0), xattrs }.encode()
        };
        let (head, fd, bare) = match above {
            Above::New(uid, gid) => (tell(0o755, (uid, gid), &Xattrs::new()), None, Bare::Kept),
            Above::There(fd) => {
                let stat = fstat(&fd).map_err(|e| Error::upper("fstat", path, e))?;
                let found: BTreeMap<_, _> = xattrs_of(&fd).map_err(|e| Error::upper("fgetxattr", path, e))?;
                let admitted = crate::xattr::admit(found, crate::xattr::Bearer::Directory, self.limits);
                let (xattrs, _) = admitted.map_err(|reason| Error::Entry { path: crate::error::shown(path), reason })?;
                (tell(stat.st_mode & 0o7777, (stat.st_uid, stat.st_gid), &xattrs), Some(fd), Bare::LeftOut)
            }
        };
        let fd = match fd {
            Some(fd) => Rc::new(fd),
            // Nothing of it is ever looked at.
            None => match self.levels.last() {
                Some(level) => Rc::clone(&level.fd),
                None => Rc::new(open(rustix::fs::CWD, b".")?),
            },
        };
        self.levels.push(Level { fd, path: path.to_vec(), device: 0, names: Vec::new(), pending: Some(head), opaque: None, bare });
        Ok(())
    }

    fn piece(&mut self, piece: &Piece<'_>, place: &[u8]) -> Result<(), Error> {
        let (parent, name) = piece.from;
        // Each is a tree of its own: a file that comes twice is two files.
        self.names.clear();
        match piece.told {
            Told::As(told) => {
                let path = if place.is_empty() { told.to_vec() } else { [place, b"/", told].concat() };
                let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| Error::upper("statat", &path, e))?;
                if let Some(level) = self.levels.last_mut() {
                    // It may be the root of a mount: it is what was asked for.
                    level.device = stat.st_dev;
                }
                self.entry(parent, name, path)
            }
            Told::Contents => {
                let fd = open(parent, name)?;
                let names = self.names_in(&fd, place)?;
                let device = fstat(&fd).map_err(|e| Error::upper("fstat", place, e))?.st_dev;
                if let Some(level) = self.levels.last_mut() {
                    (level.fd, level.names, level.device) = (Rc::new(fd), names, device);
                }
                Ok(())
            }
        }
    }
}

fn open(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent.as_fd(), name, flags, Mode::empty()).map_err(|e| Error::upper("open", name, e))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::{PermissionsExt as _, symlink},
        path::Path,
    };

    use super::*;

    fn fd(path: impl AsRef<Path>) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    /// Path, mode, user, time and target of what has no extended header.
    fn told(archive: &[u8]) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_matches(['\0', ' ']).to_owned();
        let number = |bytes: &[u8]| u64::from_str_radix(&text(bytes), 8).unwrap();
        let (mut told, mut at) = (Vec::new(), 0);
        while archive[at] != 0 {
            let head = &archive[at..at + 512];
            let link = if head[157] == 0 { String::new() } else { format!(" -> {}", text(&head[157..257])) };
            let (mode, uid, mtime) = (number(&head[100..108]), number(&head[108..116]), number(&head[136..148]));
            told.push(format!("{} {mode:o} {uid} {mtime}{link}", text(&head[..100])));
            at += 512 + usize::try_from(number(&head[124..136])).unwrap().next_multiple_of(512);
        }
        told
    }

    fn placed(above: Vec<(&str, Above)>, pieces: &[Piece<'_>], owner: Option<(u32, u32)>) -> Vec<String> {
        let above = above.into_iter().map(|(name, above)| (name.as_bytes().to_vec(), above)).collect();
        let choose = |path: &[u8]| if path.ends_with(b".md") { Choice::Leave } else { Choice::Take };
        let mode = |mode, directory| if directory { 0o711 } else { mode & 0o700 };
        let shape = Shape { owner, mode: &mode, keeps: &|_| true, choose: &choose, latest: 5 };
        let mut archive = Vec::new();
        let diffed = place(above, pieces, &shape, &mut archive, &Limits::default()).unwrap();
        let told = told(&archive);
        assert_eq!(diffed.entries, told.len() as u64);
        told
    }

    #[test]
    fn pieces_come_into_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("from/sub/empty")).unwrap();
        fs::create_dir(at("lower")).unwrap();
        fs::set_permissions(at("lower"), fs::Permissions::from_mode(0o750)).unwrap();
        for file in ["from/a", "from/b.md", "from/sub/f"] {
            fs::write(at(file), file).unwrap();
        }
        fs::hard_link(at("from/a"), at("from/sub/a")).unwrap();
        symlink("a", at("from/link")).unwrap();
        let from = fd(at("from"));
        let contents = [Piece { from: (from.as_fd(), b"."), told: Told::Contents }];
        let there = || Above::There(fd(at("lower")));
        assert_eq!(
            placed(vec![("", there()), ("app", Above::New(7, 8))], &contents, Some((1, 2))),
            [
                "./ 750 0 5",
                "app/ 755 7 5",
                "app/a 600 1 5",
                "app/link 777 1 5 -> a",
                "app/sub/ 711 1 5",
                "app/sub/a 600 1 5 -> app/a",
                "app/sub/empty/ 711 1 5",
                "app/sub/f 600 1 5",
            ]
        );
        let pieces = ["a", "sub"].map(|name| Piece { from: (from.as_fd(), name.as_bytes()), told: Told::As(name.as_bytes()) });
        let all = ["./ 750 0 5", "a 600 0 5", "sub/ 711 0 5", "sub/a 600 0 5", "sub/empty/ 711 0 5", "sub/f 600 0 5"];
        assert_eq!(placed(vec![("", there())], &pieces, None), all, "a piece of its own has no links to another");
    }

    #[test]
    fn nothing_is_told_of_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let empty = fd(dir.path());
        let contents = [Piece { from: (empty.as_fd(), b"."), told: Told::Contents }];
        let there = || Above::There(fd(dir.path()));
        assert!(placed(vec![("", there()), ("app", there())], &contents, None).is_empty());
        let new = placed(vec![("", there()), ("app", Above::New(0, 0))], &contents, None);
        assert_eq!(new.len(), 2, "{new:?}");
    }
}
