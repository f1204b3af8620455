//! /etc/passwd and /etc/group of an image: hostile files, read with bounds (R13).
//!
//! Looked up inside the root only, regular files of at most 10 MiB only, opened so that nothing blocks. Nothing of a
//! C library is asked: name service modules would be code of the image run as host root (R07).

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader, Read},
    os::fd::{AsRawFd, BorrowedFd},
};

use rustix::fs::{FileType, Mode, OFlags};
use sys::{
    Errno,
    path::{Links, Root},
};

use super::error::Error;

pub(crate) const PASSWD: &str = "/etc/passwd";
pub(crate) const GROUP: &str = "/etc/group";
/// Most bytes of either file.
pub(crate) const MAX_FILE: u64 = 10 << 20;
/// Kubernetes' own bound, and what an `int` of a C program can hold.
pub(crate) const MAX_ID: u32 = 2_147_483_647;
/// NGROUPS_MAX of the kernel (limits.h): setgroups(2) takes no more.
pub(crate) const MAX_GROUPS: usize = 65_536;

/// A line of passwd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
}

/// Gets name, gid and members of a group; says whether to go on.
type EachGroup<'a> = dyn FnMut(&str, u32, &[u8]) -> Result<bool, &'static str> + 'a;

/// The user databases of one root.
#[derive(Debug)]
pub(crate) struct Databases {
    root: Root,
}

impl Databases {
    pub(crate) fn new(rootfs: BorrowedFd<'_>) -> Result<Self, Error> {
        let root = rootfs.try_clone_to_owned().map_err(|e| kernel("dup of the root file system", &e))?;
        Ok(Self { root: Root::from(root) })
    }

    /// The first user that `wanted` accepts by name and uid.
    pub(crate) fn user(&self, wanted: impl Fn(&str, u32) -> bool) -> Result<Option<User>, Error> {
        let mut found = None;
        self.lines(PASSWD, &mut |line| {
            let mut fields = line.split(|byte| *byte == b':').map(std::str::from_utf8);
            let mut field = || fields.next().and_then(Result::ok);
            let (Some(name), Some(_), Some(uid), Some(gid)) = (field(), field(), field(), field()) else { return Ok(true) };
            let home = (field(), field()).1.unwrap_or_default();
            let (Some(uid), Some(gid)) = (id(uid), id(gid)) else { return Ok(true) };
            if !wanted(name, uid) {
                return Ok(true);
            }
            if uid > MAX_ID || gid > MAX_ID {
                return Err("has an id above 2147483647");
            }
            found = Some(User { name: name.to_owned(), uid, gid, home: home.to_owned() });
            Ok(false)
        })?;
        Ok(found)
    }

    /// The gid of a group by name.
    pub(crate) fn group(&self, wanted: &str) -> Result<Option<u32>, Error> {
        let mut found = None;
        self.groups(&mut |name, gid, _| {
            if name != wanted {
                return Ok(true);
            }
            found = Some(gid);
            Ok(false)
        })?;
        Ok(found)
    }

    /// The gids of all groups that list a user as a member, in the file's order.
    pub(crate) fn groups_of(&self, user: &str) -> Result<Vec<u32>, Error> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        self.groups(&mut |_, gid, members| {
            if members.split(|byte| *byte == b',').any(|member| member == user.as_bytes()) && seen.insert(gid) {
                if found.len() == MAX_GROUPS {
                    return Err("puts the user into more than 65536 groups");
                }
                found.push(gid);
            }
            Ok(true)
        })?;
        Ok(found)
    }

    fn groups(&self, each: &mut EachGroup<'_>) -> Result<(), Error> {
        self.lines(GROUP, &mut |line| {
            let mut fields = line.splitn(4, |byte| *byte == b':');
            let (Some(name), Some(_), Some(gid)) = (fields.next(), fields.next(), fields.next()) else { return Ok(true) };
            let (Ok(name), Ok(gid)) = (std::str::from_utf8(name), std::str::from_utf8(gid)) else { return Ok(true) };
            match id(gid) {
                Some(gid) if gid <= MAX_ID => each(name, gid, fields.next().unwrap_or_default()),
                Some(_) | None => Ok(true),
            }
        })
    }

    /// Hands every line to `each` until it says `false`. A file that is not there has no lines. Lines of other forms
    /// than expected are passed over, as C libraries do.
    fn lines(&self, file: &'static str, each: &mut dyn FnMut(&[u8]) -> Result<bool, &'static str>) -> Result<(), Error> {
        let Some(open) = self.open(file)? else { return Ok(()) };
        let mut reader = BufReader::new(open.take(MAX_FILE + 1));
        let (mut line, mut total) = (Vec::new(), 0);
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(|e| database(file, &e))?;
            total += read as u64;
            if total > MAX_FILE {
                return Err(Error::DatabaseForm { file, why: TOO_LARGE });
            }
            if read == 0 {
                return Ok(());
            }
            let text = line.trim_ascii_end();
            let passed_over = text.is_empty() || matches!(text[0], b'#' | b'+' | b'-') || text.contains(&0);
            if !passed_over && !each(text).map_err(|why| Error::DatabaseForm { file, why })? {
                return Ok(());
            }
        }
    }

    fn open(&self, file: &'static str) -> Result<Option<File>, Error> {
        let failed = |source| Error::Database { file, source };
        let handle = match self.root.resolve(file, Links::Follow) {
            Ok(handle) => handle,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        let stat = rustix::fs::fstat(&handle).map_err(failed)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(Error::DatabaseForm { file, why: "is not a regular file" });
        }
        if u64::try_from(stat.st_size).is_ok_and(|size| size > MAX_FILE) {
            return Err(Error::DatabaseForm { file, why: TOO_LARGE });
        }
        // The handle is of the very file that was looked at, so nobody can put a pipe in its place any more.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = rustix::fs::open(format!("/proc/self/fd/{}", handle.as_raw_fd()), flags, Mode::empty());
        open.map(|fd| Some(File::from(fd))).map_err(failed)
    }
}

const TOO_LARGE: &str = "is larger than 10 MiB";

fn id(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) { None } else { text.parse().ok() }
}

fn database(file: &'static str, error: &std::io::Error) -> Error {
    Error::Database { file, source: error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error) }
}

fn kernel(call: &'static str, error: &std::io::Error) -> Error {
    Error::Kernel { call, source: error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error) }
}
