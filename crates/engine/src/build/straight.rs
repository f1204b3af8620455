//! COPY whose layer is written at once, as the archive of what comes where: no file is made in between. That is for what comes upon
//! nothing but directories and files that it may replace; everything else is done by [`super::copy`], in a writable layer.

use std::{
    collections::HashSet,
    ffi::CStr,
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use layer::{Above, Choice, Piece, Shape, Told};
use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat, fstat, statat};
use sys::{
    Errno,
    path::{Links, Root},
};

use super::copy::{Source, Target, What, failed};
use crate::{
    Inner,
    error::{About, Error, Step as _},
    image::Packed,
    user::{Owners, files::is_kept},
};

/// Writes what COPY brings as a layer. `lower` is what it comes upon; `when` says, from the newest time of what is copied, what
/// nothing may be younger than (seconds since 1970). Answers the layer, if there is anything in it, and that time. `None`: it is not
/// that easy. Blocks.
///
/// # Errors
/// The disk's.
pub(super) fn layer(
    inner: &Inner,
    lower: &Root,
    sources: &[Source],
    target: &Target,
    when: &impl Fn(i64) -> i64,
) -> Result<Option<(Option<Packed>, i64)>, Error> {
    let Some(plan) = Plan::new(lower, sources, target).map_err(|e| failed(e.into()))? else { return Ok(None) };
    let Plan { above, place, told, newest } = plan;
    let latest = when(newest);
    let owner = match target.owners {
        Owners::Archive => None,
        Owners::Root => Some((0, 0)),
        Owners::Ids(uid, gid) => Some((uid, gid)),
    };
    let write = move |writer: io::PipeWriter| {
        let mode = |mode: u32, directory: bool| target.chmod.as_ref().map_or(mode, |chmod| chmod.of(mode, directory));
        let both = || sources.iter().zip(&told);
        let choose = |path: &[u8]| {
            let rest = |told: &str| below(path, &place).and_then(|rest| below(rest, told.as_bytes()));
            let of = |(source, told): (&Source, &String)| Some(source.choice(rest(told)?, "", &target.exclude));
            both().find_map(of).unwrap_or(Choice::Take)
        };
        let shape = Shape { owner, mode: &mode, keeps: &is_kept, choose: &choose, latest };
        let pieces: Vec<Piece<'_>> = both().filter_map(|(source, told)| piece(source, told)).collect();
        let writer = io::BufWriter::with_capacity(256 << 10, writer);
        layer::place(above, &pieces, &shape, writer, &layer::Limits::default())
    };
    let layer = inner.images.written_layer(write).step(About::Words, "keep what is copied")?;
    Ok(Some((layer, latest)))
}

/// The rest of a path that is a directory or below it.
fn below<'p>(path: &'p [u8], directory: &[u8]) -> Option<&'p [u8]> {
    match path.strip_prefix(directory)? {
        rest if directory.is_empty() || rest.is_empty() => Some(rest),
        rest => rest.strip_prefix(b"/"),
    }
}

fn piece<'s>(source: &'s Source, told: &'s str) -> Option<Piece<'s>> {
    let (from, contents) = match &source.what {
        What::Entry(parent, name) => ((parent.as_fd(), name.as_slice()), false),
        What::Contents(directory) => ((directory.as_fd(), &b"."[..]), told.is_empty()),
        What::Parents(..) | What::Loose(_) => return None,
    };
    Some(Piece { from, told: if contents { Told::Contents } else { Told::As(told.as_bytes()) } })
}

/// What comes where.
struct Plan {
    above: Vec<(Vec<u8>, Above)>,
    /// The last directory above, relative to the root.
    place: Vec<u8>,
    /// The name of each source there; of contents that come into the place itself it is empty.
    told: Vec<String>,
    /// Of what is copied, in seconds since 1970.
    newest: i64,
}

impl Plan {
    /// `None`: something is in the way, or not what can be copied so.
    fn new(lower: &Root, sources: &[Source], target: &Target) -> Result<Option<Self>, Errno> {
        let places: Vec<_> = sources.iter().map(|source| target.place_of(source, lower)).collect();
        let Some((prefix, _)) = places.first().copied() else { return Ok(None) };
        let told: Vec<String> = places.iter().map(|(_, name)| (*name).to_owned()).collect();
        let alone = sources.len() == 1;
        let easy = |source: &Source| match source.what {
            What::Entry(..) => source.packed.is_none(),
            What::Contents(_) => alone,
            What::Parents(..) | What::Loose(_) => false,
        };
        let together = places.iter().all(|(other, _)| *other == prefix) && told.iter().collect::<HashSet<_>>().len() == told.len();
        if !together || !sources.iter().all(easy) {
            return Ok(None);
        }
        let Some((above, there)) = above(lower, prefix, target.owners)? else { return Ok(None) };
        let mut newest = 0;
        for (source, told) in sources.iter().zip(&told) {
            match survey(source, target, told, there.as_ref())? {
                Some(time) => newest = newest.max(time),
                None => return Ok(None),
            }
        }
        let place = prefix.trim_matches('/').as_bytes().to_vec();
        Ok(Some(Self { above, place, told, newest }))
    }
}

type Way = (Vec<(Vec<u8>, Above)>, Option<Root>);

/// The directories of a path, and the last one if it is there. `None`: one of them is none, or behind a link.
fn above(lower: &Root, path: &str, owners: Owners) -> Result<Option<Way>, Errno> {
    let (uid, gid) = if let Owners::Ids(uid, gid) = owners { (uid, gid) } else { (0, 0) };
    let open = |path: &str| lower.open(path, OFlags::RDONLY | OFlags::DIRECTORY, Links::Refuse);
    let root = open("/")?;
    let (mut so_far, mut last) = (String::new(), Some(own(&root)?));
    let mut way = vec![(Vec::new(), Above::There(root))];
    for name in path.split('/').filter(|name| !name.is_empty()) {
        so_far.extend(["/", name]);
        let here = match last.take().map(|_| open(&so_far)) {
            None | Some(Err(Errno::NOENT)) => Above::New(uid, gid),
            Some(Err(Errno::LOOP | Errno::NOTDIR)) => return Ok(None),
            Some(directory) => {
                let directory = directory?;
                last = Some(own(&directory)?);
                Above::There(directory)
            }
        };
        way.push((name.as_bytes().to_vec(), here));
    }
    Ok(Some((way, last)))
}

fn own(directory: &OwnedFd) -> Result<Root, Errno> {
    directory.try_clone().map(Root::from).map_err(|_| Errno::MFILE)
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn stat_in(directory: &OwnedFd, name: &CStr) -> Result<Option<Stat>, Errno> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The newest time of what a source brings into a directory that is `there`. `None`: something that is there is in the way.
fn survey(source: &Source, target: &Target, told: &str, there: Option<&Root>) -> Result<Option<i64>, Errno> {
    match &source.what {
        What::Entry(parent, name) => {
            let stat = statat(parent, &name[..], AtFlags::SYMLINK_NOFOLLOW)?;
            let there = there.map(|there| there.open("/", OFlags::RDONLY | OFlags::DIRECTORY, Links::Refuse)).transpose()?;
            let old = there.map(|there| statat(&there, told, AtFlags::SYMLINK_NOFOLLOW));
            let blocked = is_directory(&stat) || matches!(old, Some(Ok(old)) if is_directory(&old));
            Ok((!blocked).then_some(stat.st_mtime))
        }
        What::Contents(directory) => {
            // A directory of its own is new.
            let there = there.filter(|_| told.is_empty());
            below_of(directory, there, &|path| source.choice(path, "", &target.exclude))
        }
        What::Parents(..) | What::Loose(_) => Ok(None),
    }
}

fn below_of(directory: &OwnedFd, there: Option<&Root>, choose: &dyn Fn(&[u8]) -> Choice) -> Result<Option<i64>, Errno> {
    let root = own(directory)?;
    let open = |root: &Root, path: &str| root.open(&format!("/{path}"), OFlags::RDONLY | OFlags::DIRECTORY, Links::Refuse);
    let mut newest = fstat(directory)?.st_mtime;
    let (mut todo, mut left) = (vec![(String::new(), there.is_some())], layer::Limits::default().entries);
    while let Some((path, upon)) = todo.pop() {
        let inside = open(&root, &path)?;
        let old = there.filter(|_| upon).map(|there| open(there, &path)).transpose()?;
        if !path.is_empty() && old.as_ref().map(has_attributes).transpose()? == Some(true) {
            return Ok(None);
        }
        for entry in Dir::read_from(&inside)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { return Ok(None) };
            if matches!(name, "." | "..") {
                continue;
            }
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            let choice = choose(path.as_bytes());
            let Some(stat) = (choice != Choice::Leave).then(|| stat_in(&inside, entry.file_name())).transpose()?.flatten() else {
                continue;
            };
            let old = old.as_ref().map(|old| stat_in(old, entry.file_name())).transpose()?.flatten();
            if choice == Choice::Take {
                newest = newest.max(stat.st_mtime);
            }
            if old.as_ref().is_some_and(|old| is_directory(old) != is_directory(&stat)) || left == 0 {
                return Ok(None);
            }
            left -= 1;
            if is_directory(&stat) {
                todo.push((path, old.is_some()));
            }
        }
    }
    Ok(Some(newest))
}

/// A directory that keeps what it has would lose attributes in a layer that tells of it anew.
fn has_attributes(directory: &OwnedFd) -> Result<bool, Errno> {
    let mut names = vec![0; 64 << 10];
    match rustix::fs::flistxattr(directory, &mut names) {
        Err(Errno::OPNOTSUPP) => Ok(false),
        length => Ok(names[..length?].split(|byte| *byte == 0).any(is_kept)),
    }
}
