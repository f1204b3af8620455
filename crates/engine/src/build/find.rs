//! What COPY and ADD mean by their sources: patterns are compared with what is there, and links followed inside of the root.

use std::{collections::BTreeSet, os::fd::OwnedFd};

use dockerfile::Ignore;
use model::ErrorKind;
use rustix::fs::{Dir, FileType, OFlags};
use sys::{
    Errno,
    path::{Links, Root},
};

use super::{
    copy::{Source, What},
    refuse,
};
use crate::{
    error::Error,
    user::{Last, files::entry},
};

/// Paths that one pattern stands for, and directories that are read for it.
const MOST: usize = 100_000;

/// How the paths of sources count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Only the last component.
    Flat,
    /// All of it (--parents).
    Parents,
}

/// Finds what is meant. Blocks.
///
/// # Errors
/// `NotFound`, and what is wrong with a pattern.
pub(super) fn find(root: &Root, text: &str, layout: Layout) -> Result<Vec<Source>, Error> {
    if layout == Layout::Parents {
        return Ok(vec![parents(root, text)?]);
    }
    let paths = expand(root, text)?;
    if paths.is_empty() {
        return Err(missing(text));
    }
    paths.iter().map(|path| source(root, path).map_err(|e| call(text, e))).collect()
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

/// `--parents`: what stands before `/./` does not count.
fn parents(root: &Root, text: &str) -> Result<Source, Error> {
    let (before, after) = text.split_once("/./").unwrap_or(("", text));
    let pivot = format!("/{}", super::clean(before).join("/"));
    let opened = directory(root, &pivot).map_err(|e| call(text, e))?;
    let own = Root::from(opened.try_clone().map_err(|_| call(text, Errno::MFILE))?);
    let mut paths = BTreeSet::new();
    for path in expand(&own, after)? {
        // The directories above come along as what they are, so that none may be a link; what is meant may be one.
        match own.open(&path, OFlags::PATH | OFlags::NOFOLLOW, Links::Refuse) {
            Err(Errno::LOOP) => {
                let why = format!("--parents: {text:?}: a directory on the way is a symbolic link");
                return Err(refuse(ErrorKind::InvalidArgument, why));
            }
            other => drop(other.map_err(|e| call(text, e))?),
        }
        paths.insert(path.trim_start_matches('/').to_owned());
    }
    if paths.is_empty() {
        return Err(missing(text));
    }
    Ok(Source { path: Some(pivot), ..Source::new(What::Parents(opened, paths), "") })
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
        let escaped = if part.starts_with('!') { format!("\\{part}") } else { part.to_owned() };
        let fits = Ignore::of([escaped.as_str()]).map_err(wrong)?;
        let mut next = Vec::new();
        for path in found {
            if part == "**" {
                next.extend(below(root, &path).map_err(|e| call(&path, e))?);
            } else {
                let names = names(root, &path).map_err(|e| call(&path, e))?;
                next.extend(names.into_iter().filter(|(name, _)| fits.excludes(name)).map(|(name, _)| format!("{path}/{name}")));
            }
            if next.len() > MOST {
                return Err(refuse(ErrorKind::ResourceExhausted, format!("{pattern:?}: more than {MOST} files")));
            }
        }
        found = next;
    }
    // What a pattern has matched is there; what only stands behind it need not be.
    if pattern.contains(['*', '?', '[']) {
        found.retain(|path| root.open(path, OFlags::PATH | OFlags::NOFOLLOW, Links::Follow).is_ok());
    }
    Ok(found)
}

/// A directory and all below it, links not followed.
fn below(root: &Root, path: &str) -> Result<Vec<String>, Errno> {
    let (mut found, mut todo) = (Vec::new(), vec![path.to_owned()]);
    while let Some(next) = todo.pop() {
        let inside = names(root, &next)?.into_iter().filter(|(_, kind)| *kind == FileType::Directory);
        todo.extend(inside.map(|(name, _)| format!("{next}/{name}")));
        found.push(next);
        if found.len() + todo.len() > MOST {
            return Err(Errno::TOOBIG);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// What is in a directory; nothing, if it is none.
fn names(root: &Root, path: &str) -> Result<Vec<(String, FileType)>, Errno> {
    let dir = match directory(root, path) {
        Err(Errno::NOTDIR | Errno::NOENT) => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        match entry.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push((name.to_owned(), entry.file_type())),
        }
    }
    names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(names)
}

fn directory(root: &Root, path: &str) -> Result<OwnedFd, Errno> {
    root.open(&format!("{path}/.").replace("//", "/"), OFlags::RDONLY | OFlags::DIRECTORY, Links::Follow)
}

fn source(root: &Root, path: &str) -> Result<Source, Errno> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let what = match directory(root, path) {
        Ok(directory) => What::Contents(directory),
        Err(Errno::NOTDIR) => {
            let (parent, inside) = entry(root, path, Last::Target)?;
            What::Entry(parent, inside)
        }
        Err(errno) => return Err(errno),
    };
    Ok(Source { path: Some(path.to_owned()), ..Source::new(what, name) })
}
