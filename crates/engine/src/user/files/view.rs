//! A root with what is mounted in it, whether somebody has mounted it there or not: the files of a container as it sees them.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::fs::{Mode, OFlags, openat};
use sys::{
    Errno,
    path::{Links, Root},
};

use super::super::places;

/// Files as a container sees them.
#[derive(Debug)]
pub(crate) struct View {
    root: Root,
    /// By place: relative to the root, without links.
    mounts: BTreeMap<String, Mounted>,
}

/// Something that is mounted.
#[derive(Debug)]
struct Mounted {
    /// A directory or a file.
    root: Root,
    write: Write,
}

/// Whether something can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// It can, or the kernel says that it cannot.
    Asked,
    No,
}

impl From<Root> for View {
    fn from(root: Root) -> Self {
        Self { root, mounts: BTreeMap::new() }
    }
}

/// A directory, and what is called so in it; `.` is the directory itself.
#[derive(Debug)]
pub(crate) struct Spot {
    pub(crate) parent: OwnedFd,
    pub(crate) name: String,
}

impl View {
    /// With what is mounted at a place that no link leads to: what `mount` finds, if it finds something. What is above has to be
    /// mounted before.
    pub(super) fn mount(&mut self, target: &str, write: Write, mount: impl FnOnce(&Root, &str) -> Result<OwnedFd, Errno>) {
        let place = self.real(target);
        if let Ok(found) = mount(&self.root, &place) {
            self.mounts.insert(place, Mounted { root: Root::from(found), write });
        }
    }

    /// A path without links.
    pub(super) fn real(&self, path: &str) -> String {
        places::follow(path, |path| {
            let (mount, rest) = self.within(path);
            if rest.is_empty() { None } else { places::link(mount.map_or(&self.root, |mount| &mount.root), rest) }
        })
    }

    /// The mount that a place is in, and the path in it.
    fn within<'p>(&self, place: &'p str) -> (Option<&Mounted>, &'p str) {
        let mut above = place;
        loop {
            if let Some(mount) = self.mounts.get(above) {
                return (Some(mount), place[above.len()..].trim_start_matches('/'));
            }
            match above.rsplit_once('/') {
                Some((next, _)) => above = next,
                None => return (None, place),
            }
        }
    }

    /// What is at a place. Its directory has to be there, and no link on the way.
    pub(super) fn spot(&self, place: &str) -> Result<Spot, Errno> {
        let (mount, inside) = self.within(place);
        let root = mount.map_or(&self.root, |mount| &mount.root);
        if inside.is_empty() {
            let parent = root.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?;
            return Ok(Spot { parent, name: ".".to_owned() });
        }
        let (parent, name) = inside.rsplit_once('/').unwrap_or((".", inside));
        let parent = root.open(parent, OFlags::PATH | OFlags::DIRECTORY, Links::Refuse)?;
        Ok(Spot { parent, name: name.to_owned() })
    }

    /// The file that is mounted at a place, if one is.
    pub(super) fn mounted_at(&self, place: &str) -> Option<BorrowedFd<'_>> {
        self.mounts.get(place).map(|mount| mount.root.as_fd())
    }

    /// The directory of a path, made if it is missing, and the name in it. Links on the way are followed.
    ///
    /// # Errors
    /// EROFS; EBUSY: something is mounted right there; and what [`Root::make_parent`] says.
    pub(crate) fn make_parent(&self, path: &str) -> Result<Spot, Errno> {
        if self.mounts.is_empty() {
            let (parent, name) = self.root.make_parent(path, Links::Follow)?;
            return Ok(Spot { parent, name: name.to_owned() });
        }
        let (above, name) = path.trim_end_matches('/').rsplit_once('/').ok_or(Errno::INVAL)?;
        let place = self.real(above);
        let whole = if place.is_empty() { name.to_owned() } else { format!("{place}/{name}") };
        let (mount, inside) = self.within(&whole);
        if mount.is_some_and(|mount| mount.write == Write::No) {
            return Err(Errno::ROFS);
        }
        let root = mount.map_or(&self.root, |mount| &mount.root);
        if inside.is_empty() {
            // A directory stays and gets what the archive says of it; a file stays what it is.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let parent = openat(root, ".", flags, Mode::empty()).map_err(|_| Errno::BUSY)?;
            return Ok(Spot { parent, name: ".".to_owned() });
        }
        let (parent, name) = root.make_parent(inside, Links::Follow)?;
        Ok(Spot { parent, name: name.to_owned() })
    }

    /// Whether a place is in something that is mounted.
    pub(super) fn is_mounted(&self, place: &str) -> bool {
        self.within(place).0.is_some()
    }

    /// Whether a place can be written to, as far as it is known without trying.
    pub(super) fn write(&self, place: &str) -> Write {
        self.within(place).0.map_or(Write::Asked, |mount| mount.write)
    }

    /// What is mounted below a place: paths from there.
    pub(super) fn below(&self, place: &str) -> Result<BTreeMap<Vec<u8>, OwnedFd>, Errno> {
        let front = if place.is_empty() { String::new() } else { format!("{place}/") };
        let mut found = BTreeMap::new();
        for (at, mount) in &self.mounts {
            if let Some(rest) = at.strip_prefix(&front) {
                let copy = mount.root.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?;
                found.insert(rest.as_bytes().to_vec(), copy);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn paths_lead_through_mounts() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for path in ["root/etc", "root/data", "volume/sub", "inner"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("file"), "").unwrap();
        symlink("data/sub", at("root/link")).unwrap();
        symlink("/etc/../link", at("volume/back")).unwrap();
        let mut view = View::from(Root::open_host(at("root")).unwrap());
        let open = |name: &str| rustix::fs::open(at(name), OFlags::PATH, Mode::empty());
        view.mount("/data/", Write::Asked, |_, _| open("volume"));
        view.mount("/link/../deep", Write::No, |_, _| open("inner"));
        view.mount("/etc/hosts", Write::Asked, |_, _| open("file"));
        view.mount("/gone", Write::Asked, |_, _| Err(Errno::NOENT));
        for (path, real) in
            [("/data/back/x", "data/sub/x"), ("/link", "data/sub"), ("/../../link/../deep/y", "data/deep/y"), ("/", "")]
        {
            assert_eq!(view.real(path), real, "{path}");
        }
        let mounts: Vec<Vec<u8>> = view.below("").unwrap().into_keys().collect();
        assert_eq!(mounts, [&b"data"[..], b"data/deep", b"etc/hosts"]);
        assert_eq!(view.below("data").unwrap().into_keys().collect::<Vec<_>>(), [b"deep"]);
        assert_eq!((view.write("data/deep/x"), view.write("data/x"), view.write("x")), (Write::No, Write::Asked, Write::Asked));
        assert_eq!(view.make_parent("/data/deep/x").unwrap_err(), Errno::ROFS);
        assert_eq!(view.make_parent("/etc/hosts").unwrap_err(), Errno::BUSY);
        assert_eq!(view.make_parent("/data").unwrap().name, ".");
        view.make_parent("/data/back/new/file").unwrap();
        assert!(at("volume/sub/new").is_dir() && !at("root/data/sub").exists());
        assert_eq!(view.spot("data/sub").unwrap().name, "sub");
        assert_eq!(view.spot("link/x").unwrap_err(), Errno::LOOP);
    }
}
