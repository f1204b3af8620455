//! What a writable layer changes of an image: `docker diff`.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, major, minor, openat, statat};
use sys::{
    Errno,
    path::{Links, Root},
};

use super::{Refused, call};

/// Most paths that are told of.
const MOST: usize = 1_000_000;

/// What has happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was there and is another.
    Modified,
    /// It was not there.
    Added,
    /// It is gone.
    Deleted,
}

/// A path that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What has happened to it.
    pub kind: ChangeKind,
    /// Absolute; what is not UTF-8 in it is replaced.
    pub path: String,
}

/// Everything in `upper` that is not as in `image`, by path. `places` (without a slash in front) are where something is
/// mounted: an empty file or directory there is not the container's doing.
pub(super) fn changes(upper: &Path, image: &Root, places: &BTreeSet<Vec<u8>>) -> Result<Vec<Change>, Refused> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(upper, flags, Mode::empty()).map_err(|e| call("open", "/", e))?;
    let mut found = BTreeMap::new();
    let mut todo = vec![(root, String::new())];
    while let Some((directory, path)) = todo.pop() {
        let listed = Dir::read_from(&directory).map_err(|e| call("getdents", &path, e))?;
        for entry in listed {
            let name = entry.map_err(|e| call("getdents", &path, e))?.file_name().to_owned();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let inside = format!("{path}/{}", name.to_string_lossy());
            let Some(stat) = stat_of(&directory, &name, &inside)? else { continue };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if let Some(change) = compare(image, &inside, &stat)? {
                note(&mut found, &inside, change);
            }
            if found.len() > MOST {
                return Err(Refused::Call { what: "list more than a million changes of", path: inside, source: Errno::TOOBIG });
            }
            if kind == FileType::Directory {
                let below =
                    openat(&directory, &name, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(|e| call("open", &inside, e))?;
                todo.push((below, inside));
            } else if places.contains(&inside.as_bytes()[1..]) && stat.st_size == 0 {
                found.remove(&inside);
            }
        }
    }
    leave_places(&mut found, places);
    Ok(found.into_iter().map(|(path, kind)| Change { kind, path }).collect())
}

fn stat_of(directory: &OwnedFd, name: &std::ffi::CStr, path: &str) -> Result<Option<Stat>, Refused> {
    match statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        // Gone since the directory was listed.
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(call("stat", path, e)),
    }
}

/// `None`: a directory that is only there for what is in it.
fn compare(image: &Root, path: &str, stat: &Stat) -> Result<Option<ChangeKind>, Refused> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    // A parent that is a link in the image was replaced, and nothing below it was there.
    let below = image.open(&format!("{parent}/."), OFlags::PATH | OFlags::DIRECTORY, Links::Refuse);
    let before = below.and_then(|parent| statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW));
    let before = match before {
        Ok(stat) => Some(stat),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
        Err(e) => return Err(call("stat", path, e)),
    };
    if kind == FileType::CharacterDevice && (major(stat.st_rdev), minor(stat.st_rdev)) == (0, 0) {
        // What was made and is gone again leaves a mark too.
        return Ok(before.map(|_| ChangeKind::Deleted));
    }
    let Some(before) = before else { return Ok(Some(ChangeKind::Added)) };
    let directories = kind == FileType::Directory && FileType::from_raw_mode(before.st_mode) == FileType::Directory;
    let owner = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
    Ok((!directories || owner(stat) != owner(&before)).then_some(ChangeKind::Modified))
}

/// A change, and the directories that have changed with it.
fn note(found: &mut BTreeMap<String, ChangeKind>, path: &str, kind: ChangeKind) {
    found.insert(path.to_owned(), kind);
    let mut parent = path;
    while let Some((above, _)) = parent.rsplit_once('/') {
        if above.is_empty() || found.contains_key(above) {
            break;
        }
        found.insert(above.to_owned(), ChangeKind::Modified);
        parent = above;
    }
}

/// Takes out directories that were made to mount something there, and parents that have nothing left but those.
fn leave_places(found: &mut BTreeMap<String, ChangeKind>, places: &BTreeSet<Vec<u8>>) {
    let mut deepest: Vec<String> = places.iter().flat_map(|place| with_parents(&String::from_utf8_lossy(place))).collect();
    deepest.sort_by_key(|path| std::cmp::Reverse(path.matches('/').count()));
    deepest.dedup();
    for path in deepest {
        let below = format!("{path}/");
        let mut inside = found.range(below.clone()..).take_while(|(name, _)| name.starts_with(&below));
        if inside.next().is_none() {
            found.remove(&path);
        }
    }
}

fn with_parents(place: &str) -> Vec<String> {
    let whole = format!("/{place}");
    let cuts = whole.match_indices('/').skip(1).map(|(at, _)| whole[..at].to_owned());
    cuts.chain([whole.clone()]).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn letters_of_docker_s() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, image) = (dir.path().join("upper"), dir.path().join("image"));
        for path in ["upper/etc", "upper/new/dir", "upper/proc", "upper/data", "image/etc", "image/data", "image/gone"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        fs::write(image.join("etc/passwd"), "a").unwrap();
        fs::write(upper.join("etc/passwd"), "b").unwrap();
        fs::write(upper.join("etc/hosts"), "").unwrap();
        fs::write(upper.join("new/dir/file"), "b").unwrap();
        let white = |name: &str| {
            rustix::fs::mknodat(rustix::fs::CWD, upper.join(name), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        };
        white("gone");
        white("never");
        let root = Root::open_host(&image).unwrap();
        let places = ["proc", "etc/hosts", "data/volume"].map(|place| place.as_bytes().to_vec()).into();
        let found = changes(&upper, &root, &places).unwrap();
        let found: Vec<_> = found.iter().map(|change| (change.kind, change.path.as_str())).collect();
        use ChangeKind::{Added, Deleted, Modified};
        assert_eq!(
            found,
            [
                (Modified, "/etc"),
                (Modified, "/etc/passwd"),
                (Deleted, "/gone"),
                (Added, "/new"),
                (Added, "/new/dir"),
                (Added, "/new/dir/file"),
            ]
        );
    }
}
