//! What has changed between two lists of a context's files: what is wanted of the client, and what is gone. The lists are the
//! client's word, and so is the archive that follows: it is held to the list.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs::File,
    io::{self, Read},
};

use minicbor::{Decode, Encode, bytes::ByteVec};
use model::ErrorKind;
use rustix::fs::FileType;

use super::{
    listing::{self, Content},
    refuse,
};
use crate::error::Error;

/// Files of one context.
const MOST: usize = 2_000_000;
/// Bytes of a path or a link's target (PATH_MAX).
const LONGEST: usize = 4095;
/// Bytes of all paths, links and attributes.
const LARGEST: usize = 512 << 20;
/// What OCI puts before the name of something that is gone.
const WHITEOUT: &str = ".wh.";
const NANOS: i64 = 1_000_000_000;
/// Bytes that are read at a time.
const BUFFER: usize = 128 << 10;

/// A file, directory or symbolic link of a context. Field numbers are for ever.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ContextFile {
    /// Relative, without `.` and `..`.
    #[n(0)]
    pub path: String,
    /// st_mode.
    #[n(1)]
    pub mode: u32,
    /// Bytes of a file.
    #[n(2)]
    pub size: u64,
    /// Nanoseconds since 1970.
    #[n(3)]
    pub mtime: i64,
    /// Of a symbolic link.
    #[n(4)]
    pub link: ByteVec,
    /// Equal as long as nothing was written to it; 0: nobody knows.
    #[n(5)]
    pub stamp: u64,
    /// Extended attributes.
    #[n(6)]
    pub xattrs: BTreeMap<String, ByteVec>,
}

impl ContextFile {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Seconds since 1970, as an archive has them.
    fn seconds(&self) -> u64 {
        u64::try_from(self.mtime.div_euclid(NANOS)).unwrap_or(0)
    }
}

/// The directories above a path, the topmost first.
fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

fn wrong(path: &str, why: &str) -> Error {
    let shown: String = path.chars().take(200).collect();
    refuse(ErrorKind::InvalidArgument, format!("context: {shown:?}: {why}"))
}

/// Whether a list can be one.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn check(files: &[ContextFile]) -> Result<(), Error> {
    let too_much = |what: &str| refuse(ErrorKind::ResourceExhausted, format!("context: {what}"));
    if files.len() > MOST {
        return Err(too_much(&format!("more than {MOST} files")));
    }
    let mut kinds: HashMap<&str, FileType> = HashMap::with_capacity(files.len());
    let mut bytes = 0;
    for file in files {
        let path = file.path.as_str();
        let attributes: usize = file.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        bytes += path.len() + file.link.len() + attributes;
        if bytes > LARGEST {
            return Err(too_much(&format!("names of more than {LARGEST} bytes")));
        }
        if path.len() > LONGEST || file.link.len() > LONGEST {
            return Err(wrong(path, "longer than a path can be"));
        }
        if !sys::path::is_normal(&format!("/{path}")) || path.is_empty() {
            return Err(wrong(path, "not a path below the context"));
        }
        if path.split('/').any(|part| part.starts_with(WHITEOUT)) {
            return Err(wrong(path, "in a layer such a name means that something is gone"));
        }
        if !matches!(file.kind(), FileType::RegularFile | FileType::Directory | FileType::Symlink) {
            return Err(wrong(path, "neither a file nor a directory nor a link"));
        }
        if kinds.insert(path, file.kind()).is_some() {
            return Err(wrong(path, "it is there twice"));
        }
    }
    for file in files {
        if above(&file.path).any(|parent| kinds.get(parent).is_some_and(|kind| *kind != FileType::Directory)) {
            return Err(wrong(&file.path, "what it is in is no directory"));
        }
    }
    Ok(())
}

/// What has happened since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Numbers of files that are not as they were, and of the directories that they are or were in.
    pub(super) wanted: Vec<u32>,
    /// Paths that are gone, with all below them.
    pub(super) gone: Vec<String>,
}

/// Compares two lists that are good.
pub(super) fn compare(before: &[ContextFile], now: &[ContextFile]) -> Difference {
    let known: HashMap<&str, &ContextFile> = before.iter().map(|file| (file.path.as_str(), file)).collect();
    let same = |file: &ContextFile| {
        let tells = file.stamp != 0 || file.kind() != FileType::RegularFile;
        tells && known.get(file.path.as_str()).is_some_and(|before| *before == file)
    };
    let mut wanted: BTreeSet<u32> = (0_u32..).zip(now).filter(|(_, file)| !same(file)).map(|(number, _)| number).collect();
    let mut directories: HashSet<&str> = now.iter().flat_map(|file| above(&file.path)).collect();
    directories.extend(now.iter().filter(|file| file.kind() == FileType::Directory).map(|file| file.path.as_str()));
    let others: HashSet<&str> =
        now.iter().filter(|file| file.kind() != FileType::Directory).map(|file| file.path.as_str()).collect();
    let mut gone = HashSet::new();
    for file in before {
        let path = file.path.as_str();
        // The first of the directories above, or it itself, that is no directory now.
        let first = above(path).chain([path]).find(|part| !directories.contains(part));
        // What is replaced by something else hides what was there.
        gone.extend(first.filter(|first| !others.contains(first)).map(str::to_owned));
    }
    let mut gone: Vec<String> = gone.into_iter().collect();
    gone.sort_unstable();
    // A directory is what the topmost layer says that has something of it.
    let numbers: HashMap<&str, u32> = now.iter().map(|file| file.path.as_str()).zip(0_u32..).collect();
    let changed = wanted.iter().filter_map(|number| now.get(usize::try_from(*number).ok()?)).map(|file| file.path.as_str());
    let around: Vec<u32> =
        changed.chain(gone.iter().map(String::as_str)).flat_map(above).filter_map(|parent| numbers.get(parent).copied()).collect();
    wanted.extend(around);
    Difference { wanted: wanted.into_iter().collect(), gone }
}

/// An archive's beginning that says what is gone, to be followed by another archive.
pub(super) fn whiteouts(gone: &[String]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for path in gone {
        let (parent, name) = path.rsplit_once('/').map_or(("", path.as_str()), |(parent, name)| (parent, name));
        let slash = if parent.is_empty() { "" } else { "/" };
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(0);
        archive.append_data(&mut header, format!("{parent}{slash}{WHITEOUT}{name}"), io::empty())?;
    }
    // Without what ends an archive.
    Ok(archive.get_ref().clone())
}

/// Whether an archive has exactly the files that were wanted. Answers the digests of their contents, by their numbers.
///
/// # Errors
/// The first difference; the disk's.
pub(super) fn verify(archive: &File, files: &[ContextFile], wanted: &[u32]) -> Result<HashMap<u32, Content>, Error> {
    let unreadable = |e: io::Error| refuse(ErrorKind::InvalidArgument, format!("context: read what was sent: {e}"));
    let mut left = wanted.iter().filter_map(|number| Some((*number, files.get(usize::try_from(*number).ok()?)?)));
    let (mut came, mut buffer) = (HashMap::new(), vec![0; BUFFER]);
    let mut archive = tar::Archive::new(io::BufReader::with_capacity(BUFFER, archive));
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).trim_end_matches('/').to_owned();
        let (number, file) = left.next().ok_or_else(|| wrong(&path, "sent without having been wanted"))?;
        if !is_as_listed(&mut entry, &path, file).map_err(unreadable)? {
            return Err(wrong(&file.path, "what was sent is not what was listed"));
        }
        if file.kind() == FileType::RegularFile {
            came.insert(number, listing::content(&mut entry, &mut buffer).map_err(unreadable)?);
        }
    }
    match left.next() {
        Some((_, file)) => Err(wrong(&file.path, "it was not sent")),
        None => Ok(came),
    }
}

fn is_as_listed(entry: &mut tar::Entry<'_, impl Read>, path: &str, file: &ContextFile) -> io::Result<bool> {
    let mut found = BTreeMap::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let name = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr."));
        found.extend(name.map(|name| (name.to_owned(), ByteVec::from(extension.value_bytes().to_vec()))));
    }
    let header = entry.header();
    let kind = match header.entry_type() {
        tar::EntryType::Regular => FileType::RegularFile,
        tar::EntryType::Directory => FileType::Directory,
        tar::EntryType::Symlink => FileType::Symlink,
        _ => FileType::Unknown,
    };
    let size = if kind == FileType::RegularFile { file.size } else { 0 };
    let link = if kind == FileType::Symlink { entry.link_name_bytes().unwrap_or_default().into_owned() } else { Vec::new() };
    Ok(path == file.path
        && kind == file.kind()
        && entry.size() == size
        && link == **file.link
        && header.mode()? & 0o7777 == file.mode & 0o7777
        && header.mtime()? == file.seconds()
        && header.uid()? == 0
        && header.gid()? == 0
        && found == file.xattrs)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    fn file(path: &str, mode: u32, stamp: u64) -> ContextFile {
        let (size, mtime, link, xattrs) = (1, 5 * NANOS, ByteVec::from(Vec::new()), BTreeMap::new());
        ContextFile { path: path.into(), mode, size, mtime, link, stamp, xattrs }
    }

    fn regular(path: &str, stamp: u64) -> ContextFile {
        file(path, 0o100_644, stamp)
    }

    fn directory(path: &str) -> ContextFile {
        ContextFile { size: 0, ..file(path, 0o040_755, 0) }
    }

    #[test]
    fn only_what_has_changed_is_wanted() {
        let before = [directory("d"), regular("d/a", 1), regular("d/b", 1), regular("young", 0)];
        let same = compare(&before, &before);
        assert_eq!(same, Difference { wanted: vec![3], gone: vec![] }, "what is too young to tell is sent again");
        let now = [directory("d"), regular("d/b", 2), regular("new/x", 1), file("d/a", 0o100_755, 1)];
        assert_eq!(compare(&before, &now), Difference { wanted: vec![0, 1, 2, 3], gone: vec!["young".into()] });
        let fewer = compare(&before, &before[..2]);
        assert_eq!(fewer, Difference { wanted: vec![0], gone: vec!["d/b".into(), "young".into()] }, "what it was in");
        assert_eq!(compare(&[], &before).wanted, [0, 1, 2, 3]);
    }

    #[test]
    fn what_is_gone_goes_with_all_below_it() {
        let before = [directory("a"), directory("a/b"), regular("a/b/c", 1), regular("implied/x/y", 1), regular("f/g", 1)];
        let gone = |now: &[ContextFile]| compare(&before, now).gone;
        assert_eq!(gone(&[]), ["a", "f", "implied"]);
        assert_eq!(gone(&[directory("a"), regular("implied/z", 1)]), ["a/b", "f", "implied/x"]);
        // A file where a directory was hides what was in that.
        assert_eq!(gone(&[regular("a", 1), regular("f/g", 1), regular("implied/x/y", 1)]), Vec::<String>::new());
        assert_eq!(gone(&[regular("a/b", 1), regular("f/g/h", 1), regular("implied/x/y", 1)]), Vec::<String>::new());
    }

    #[test]
    fn hostile_lists_are_refused() {
        for (path, part) in [
            ("", "not a path below"),
            ("/etc", "not a path below"),
            ("a/../../b", "not a path below"),
            ("a//b", "not a path below"),
            ("a/./b", "not a path below"),
            ("a\0b", "not a path below"),
            ("x/.wh.y", "means that something is gone"),
            (".wh.x/y", "means that something is gone"),
            (&"x/".repeat(3000), "longer than a path"),
        ] {
            let told = check(&[regular(path, 1)]).unwrap_err().chain();
            assert!(told.contains(part), "{path:?}: {told}");
        }
        let told = |files: &[ContextFile]| check(files).unwrap_err().chain();
        assert!(told(&[regular("a", 1), regular("a", 1)]).contains("twice"));
        assert!(told(&[file("a", 0o120_777, 1), regular("a/b", 1)]).contains("no directory"));
        assert!(told(&[file("a", 0o020_666, 1)]).contains("neither a file"));
        check(&[directory("a"), regular("a/b", 1), regular("c/d", 1)]).unwrap();
    }

    fn archive(entries: &[(&str, &[u8], u64)]) -> File {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content, mtime) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(*mtime);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, *content).unwrap();
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&builder.into_inner().unwrap()).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn an_archive_is_held_to_its_list() {
        let files = [regular("a", 1), regular("b", 1), regular("c", 1)];
        let told = |entries: &[(&str, &[u8], u64)]| verify(&archive(entries), &files, &[0, 2]).map_err(|e| e.chain());
        let digest = |bytes: &[u8]| listing::content(&mut &bytes[..], &mut [0; 8]).unwrap();
        assert_eq!(told(&[("a", b"x", 5), ("c", b"y", 5)]), Ok(HashMap::from([(0, digest(b"x")), (2, digest(b"y"))])));
        for (entries, part) in [
            (&[("a", &b"x"[..], 5)][..], "\"c\": it was not sent"),
            (&[("a", b"x", 5), ("c", b"y", 5), ("d", b"z", 5)], "\"d\": sent without having been wanted"),
            (&[("a", b"xx", 5), ("c", b"y", 5)], "\"a\": what was sent is not what was listed"),
            (&[("a", b"x", 5), ("b", b"y", 5)], "\"c\": what was sent"),
            (&[("a", b"x", 6), ("c", b"y", 5)], "\"a\": what was sent"),
        ] {
            let told = told(entries).unwrap_err();
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn whiteouts_begin_an_archive() {
        let mut bytes = whiteouts(&["a/b".into(), "c".into()]).unwrap();
        bytes.extend([0; 1024]);
        let mut archive = tar::Archive::new(&bytes[..]);
        let names: Vec<String> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["a/.wh.b", ".wh.c"]);
    }
}
