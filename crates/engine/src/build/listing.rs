//! What is in a context, in memory: its list, with the digest of each file as it came. What a COPY takes of it is told by that, so
//! that no file is read again because another one has changed. Digests are the daemon's own, of bytes that it has had.

use std::collections::HashMap;

use layer::Choice;
use rustix::fs::FileType;
use sha2::{Digest as _, Sha256};

use super::{difference::ContextFile, key::Key};

/// As many symbolic links as the kernel follows (path_resolution(7)).
const LINKS: usize = 40;

/// The digest of a file's content; nothing but zeros: nobody knows it.
pub(super) type Content = [u8; 32];

/// What a file is whose digest is not known.
pub(super) const UNKNOWN: Content = [0; 32];

/// A context's files by path.
#[derive(Debug)]
pub(super) struct Listing {
    files: Vec<(ContextFile, Content)>,
}

impl Listing {
    /// Of a good list; contents in the order of the files.
    pub(super) fn new(files: Vec<ContextFile>, contents: Vec<Content>) -> Self {
        let mut files: Vec<_> = files.into_iter().zip(contents).collect();
        files.sort_unstable_by(|(a, _), (b, _)| a.path.cmp(&b.path));
        Self { files }
    }

    fn at(&self, path: &str) -> Option<&(ContextFile, Content)> {
        self.files.binary_search_by(|(file, _)| file.path.as_str().cmp(path)).ok().and_then(|at| self.files.get(at))
    }

    /// Where a path leads, links followed, all of them inside; `None`: nowhere.
    fn resolve(&self, path: &str) -> Option<String> {
        let mut left: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let (mut found, mut links) = (Vec::<String>::new(), 0);
        while let Some(part) = left.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    found.pop();
                    continue;
                }
                _ => found.push(part),
            }
            let Some((file, _)) = self.at(&found.join("/")).filter(|(file, _)| file.kind() == FileType::Symlink) else { continue };
            links += 1;
            let target = std::str::from_utf8(&file.link).ok().filter(|_| links <= LINKS)?;
            if target.starts_with('/') {
                found.clear();
            } else {
                found.pop();
            }
            left.extend(target.split('/').rev().map(str::to_owned));
        }
        Some(found.join("/"))
    }

    /// The digest of a directory's contents, or of a file, that goes over as `name`, as far as `choose` takes it by its path from
    /// there. `None`: it is not known.
    pub(super) fn digest(&self, (path, name): (&str, &str), choose: impl Fn(&str) -> Choice) -> Option<[u8; 32]> {
        let path = self.resolve(path)?;
        let top = self.at(&path);
        let below = if path.is_empty() { String::new() } else { format!("{path}/") };
        let from = self.files.partition_point(|(file, _)| file.path.as_str() < below.as_str());
        let inside = self.files[from..].iter().take_while(|(file, _)| file.path.starts_with(&below));
        let mut key = Key::new("listed", &[]).part(name);
        let mut left_out: Option<&str> = None;
        for (file, content) in top.into_iter().chain(inside) {
            if left_out.is_some_and(|above| file.path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))) {
                continue;
            }
            let rest = file.path.strip_prefix(&below).unwrap_or_default();
            if choose(rest) == Choice::Leave {
                left_out = Some(&file.path);
                continue;
            }
            let known = file.kind() != FileType::RegularFile || *content != UNKNOWN;
            key = known.then(|| one(key, rest, file, content))?;
        }
        Some(*key.id().as_bytes())
    }
}

fn one(key: Key, path: &str, file: &ContextFile, content: &Content) -> Key {
    let attributes = file.xattrs.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_slice()]);
    // Every link has the same permissions.
    let mode = if file.kind() == FileType::Symlink { file.mode | 0o777 } else { file.mode };
    key.part(path).part(mode.to_le_bytes()).part(&**file.link).part(content).list(attributes)
}

/// Contents for a list, in its order: those that have come, and of other files what was known before, by path.
pub(super) fn contents(
    files: &[ContextFile],
    mut came: HashMap<u32, Content>,
    before: (&[ContextFile], &[Content]),
) -> Vec<Content> {
    let known: HashMap<&str, &Content> = before.0.iter().map(|file| file.path.as_str()).zip(before.1).collect();
    let of = |(number, file): (u32, &ContextFile)| {
        let old = || known.get(file.path.as_str()).map(|known| **known);
        came.remove(&number).or_else(old).unwrap_or(UNKNOWN)
    };
    (0_u32..).zip(files).map(of).collect()
}

/// The digest of everything that a reader has left.
///
/// # Errors
/// The reader's.
pub(super) fn content(reader: &mut impl std::io::Read, buffer: &mut [u8]) -> std::io::Result<Content> {
    let mut digest = Sha256::new();
    loop {
        match reader.read(buffer)? {
            0 => return Ok(digest.finalize().into()),
            read => digest.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use minicbor::bytes::ByteVec;

    use super::*;

    fn file(path: &str, mode: u32, link: &str) -> ContextFile {
        let link = ByteVec::from(link.as_bytes().to_vec());
        ContextFile { path: path.into(), mode, size: 1, mtime: 5, link, stamp: 1, xattrs: BTreeMap::new() }
    }

    fn files() -> Vec<ContextFile> {
        vec![
            file("d", 0o040_755, ""),
            file("d/b", 0o100_644, ""),
            file("d/a", 0o100_644, ""),
            file("d-e", 0o100_644, ""),
            file("implied/x", 0o100_644, ""),
            file("l", 0o120_777, "/d/../d/./"),
            file("d/up", 0o120_777, "../../d/a"),
            file("loop", 0o120_777, "loop"),
        ]
    }

    fn listing(change: impl FnOnce(&mut Vec<ContextFile>, &mut Vec<Content>)) -> Listing {
        let mut files = files();
        let mut contents: Vec<Content> = (1_u8..).map(|n| [n; 32]).take(files.len()).collect();
        change(&mut files, &mut contents);
        Listing::new(files, contents)
    }

    fn all(_: &str) -> Choice {
        Choice::Take
    }

    #[test]
    fn paths_lead_where_links_do() {
        let listing = listing(|_, _| {});
        for (path, to) in
            [("/d/a", "d/a"), ("l/a", "d/a"), ("d/up", "d/a"), ("/", ""), ("../..", ""), ("implied", "implied"), ("l", "d")]
        {
            assert_eq!(listing.resolve(path).as_deref(), Some(to), "{path}");
        }
        assert_eq!(listing.resolve("loop/x"), None);
    }

    #[test]
    fn what_is_copied_counts_and_nothing_else() {
        let first = listing(|_, _| {});
        let of = |listing: &Listing| listing.digest(("/d", "d"), all).unwrap();
        let same = of(&first);
        assert_eq!(first.digest(("l", "d"), all).unwrap(), same, "through a link");
        type Change = fn(&mut Vec<ContextFile>, &mut Vec<Content>);
        let others: [Change; 5] = [
            |_, contents| contents[1] = [99; 32],
            |files, _| files[1].mode = 0o100_755,
            |files, _| files[0].mode = 0o040_700,
            |files, _| files[1].path = "d/c".into(),
            |files, _| drop(files[1].xattrs.insert("user.a".into(), vec![1].into())),
        ];
        for (number, change) in others.into_iter().enumerate() {
            assert_ne!(of(&listing(change)), same, "{number}");
        }
        let equal: [Change; 4] = [
            |_, contents| contents[3] = [99; 32],
            |files, _| (files[1].mtime, files[1].stamp) = (7, 8),
            |files, contents| {
                files.swap(1, 2);
                contents.swap(1, 2);
            },
            |files, _| files[4].mode = 0o100_600,
        ];
        for (number, change) in equal.into_iter().enumerate() {
            assert_eq!(of(&listing(change)), same, "{number}");
        }
        let without =
            |listing: &Listing| listing.digest(("d", "d"), |path| if path == "b" { Choice::Leave } else { Choice::Take }).unwrap();
        assert_eq!(without(&listing(|_, contents| contents[1] = [99; 32])), without(&first));
        assert_ne!(without(&first), same);
        assert_ne!(first.digest(("d/a", "a"), all), first.digest(("d/a", "b"), all), "what it is called there");
    }

    #[test]
    fn nothing_is_made_up() {
        let unknown = listing(|_, contents| contents[1] = UNKNOWN);
        assert_eq!((unknown.digest(("d", ""), all), unknown.digest(("loop/x", ""), all)), (None, None));
        assert!(unknown.digest(("d/a", ""), all).is_some());
    }

    #[test]
    fn contents_are_what_came_or_what_was_there() {
        let (before, now) =
            ([file("a", 0o100_644, ""), file("b", 0o100_644, "")], [file("b", 0o100_644, ""), file("c", 0o100_644, "")]);
        let found = contents(&now, HashMap::from([(1, [3; 32])]), (&before, &[[1; 32], [2; 32]]));
        assert_eq!(found, [[2; 32], [3; 32]]);
        assert_eq!(contents(&now, HashMap::new(), (&[], &[])), [UNKNOWN, UNKNOWN]);
    }
}
