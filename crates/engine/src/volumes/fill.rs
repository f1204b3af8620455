//! What an image has at a volume's place is copied into a volume that is empty when a container is made with it.
//!
//! The image is hostile: its paths are resolved inside of it. The copy is made aside, and once it is whole and on disk, renamed
//! to `staged`; from there its entries are moved into the volume one by one, again and again after any crash until none is
//! left. The directory itself stays, because other containers may have it mounted.

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::Path,
};

use model::VolumeName;
use rustix::fs::{CWD, Dir, Mode, OFlags, RenameFlags, openat, renameat_with};
use store::VolumeDir;
use sys::{
    Errno,
    path::{Links, Root},
};

use super::{Error, Source, Volumes, lock};
use crate::{
    error::{About, Step},
    failpoint,
    image::{ImageInfo, Images},
    spec::volumes::{attributes, copy},
};

/// A volume at its place in a container that is being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) volume: VolumeName,
    /// Absolute path in the container.
    pub(crate) target: String,
}

impl Volumes {
    /// Copies what the image has at each volume's place into those that are empty. The image's layers are pinned by the
    /// caller, the volumes claimed. Blocks.
    ///
    /// # Errors
    /// If the disk is full or fails, or the image has more directories within one another than can be. Nothing of the copy is
    /// to be seen then.
    pub(crate) fn fill(&self, images: &Images, image: &ImageInfo, wanted: &[Wanted]) -> Result<(), Error> {
        if wanted.is_empty() {
            return Ok(());
        }
        let mount = images.volume(image, "", None).step(About::Image(image.id.to_string()), "mount").map_err(Error::Image)?;
        let root = Root::from(mount);
        wanted.iter().try_for_each(|place| self.fill_one(&root, place))
    }

    fn fill_one(&self, root: &Root, place: &Wanted) -> Result<(), Error> {
        let missing = || Error::Missing(place.volume.to_string());
        let entry = lock(&self.shared.entries).get(&place.volume).map(|entry| (entry.record.clone(), entry.filling.clone()));
        let (record, filling) = entry.ok_or_else(missing)?;
        if Source::read(&record.options)? != Source::Own {
            return Ok(());
        }
        let _one_at_a_time = lock(&filling);
        fill(&self.shared.store.volume_dir(&place.volume), root, &place.target).map_err(|source| Error::Fill {
            volume: place.volume.to_string(),
            target: place.target.clone(),
            source,
        })
    }
}

fn fill(dir: &VolumeDir, root: &Root, target: &str) -> io::Result<()> {
    finish(dir)?;
    if !is_empty(&open(&dir.data)?)? {
        return Ok(());
    }
    let from = match root.open(target, OFlags::RDONLY | OFlags::DIRECTORY, Links::Follow) {
        Ok(from) => from,
        // Nothing there, or a file that a directory is to be mounted on: the mount will tell.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    crate::remove_tree(&dir.staging)?;
    fs::create_dir(&dir.staging)?;
    let copied = open(&dir.staging).and_then(|to| {
        copy(&from, &to)?;
        point("volume.copied")?;
        Ok(rustix::fs::syncfs(&to)?)
    });
    if let Err(e) = copied {
        // A full disk is to have its room back. What is left is no harm: it is removed before the next copy.
        crate::remove_tree(&dir.staging).ok();
        return Err(e);
    }
    fs::rename(&dir.staging, &dir.staged)?;
    point("volume.staged")?;
    finish(dir)
}

/// Moves what is whole into the volume.
pub(super) fn finish(dir: &VolumeDir) -> io::Result<()> {
    let from = match open(&dir.staged) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let to = open(&dir.data)?;
    for entry in Dir::read_from(&from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match renameat_with(&from, name, &to, name, RenameFlags::NOREPLACE) {
            // A container was faster with something of its own; that stays.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    attributes(&from, &to)?;
    File::from(to).sync_all()?;
    crate::remove_tree(&dir.staged)
}

fn point(name: &'static str) -> io::Result<()> {
    failpoint::hit(name, crate::About::Engine).map_err(|e| io::Error::other(e.chain()))
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

fn is_empty(dir: &OwnedFd) -> io::Result<bool> {
    for entry in Dir::read_from(dir)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    struct Lab {
        home: tempfile::TempDir,
        dir: VolumeDir,
    }

    impl Lab {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let at = |name: &str| home.path().join(name);
            fs::create_dir_all(at("root/data/in")).unwrap();
            fs::write(at("root/data/in/file"), "text").unwrap();
            fs::write(at("root/data/top"), "top").unwrap();
            fs::set_permissions(at("root/data"), fs::Permissions::from_mode(0o1770)).unwrap();
            std::os::unix::fs::chown(at("root/data"), Some(33), Some(34)).unwrap();
            fs::create_dir_all(at("volume/_data")).unwrap();
            let dir = VolumeDir { data: at("volume/_data"), staging: at("volume/staging"), staged: at("volume/staged") };
            Self { home, dir }
        }

        fn fill(&self, target: &str) -> io::Result<()> {
            fill(&self.dir, &Root::open_host(self.home.path().join("root")).unwrap(), target)
        }

        fn whole(&self) {
            assert_eq!(fs::read_to_string(self.dir.data.join("in/file")).unwrap(), "text");
            let found = fs::metadata(&self.dir.data).unwrap();
            assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o1770, 33, 34));
            assert!(!self.dir.staging.exists() && !self.dir.staged.exists());
        }
    }

    #[test]
    fn only_what_is_empty_is_filled() {
        let lab = Lab::new();
        lab.fill("/data").unwrap();
        lab.whole();
        assert!(lab.dir.data.join("top").exists());
        fs::write(lab.home.path().join("root/data/new"), "x").unwrap();
        lab.fill("/data").unwrap();
        assert!(!lab.dir.data.join("new").exists());
    }

    #[test]
    fn nothing_of_the_host_is_copied() {
        let lab = Lab::new();
        let root = lab.home.path().join("root");
        fs::create_dir(lab.home.path().join("outside")).unwrap();
        fs::write(lab.home.path().join("outside/secret"), "x").unwrap();
        symlink(lab.home.path().join("outside"), root.join("a")).unwrap();
        symlink("../outside", root.join("b")).unwrap();
        symlink("/proc/self/root", root.join("c")).unwrap();
        symlink("d", root.join("d")).unwrap();
        for target in ["/a", "/b", "/c", "/d", "/missing", "/data/top"] {
            lab.fill(target).unwrap();
            assert_eq!(fs::read_dir(&lab.dir.data).unwrap().count(), 0, "{target}");
        }
    }

    #[test]
    fn what_was_begun_is_brought_to_its_end() {
        let lab = Lab::new();
        // Died while copying, and while moving.
        fs::create_dir_all(lab.dir.staging.join("half")).unwrap();
        lab.fill("/data").unwrap();
        lab.whole();
        assert!(!lab.dir.data.join("half").exists());
        fs::create_dir(&lab.dir.staged).unwrap();
        fs::rename(lab.dir.data.join("in"), lab.dir.staged.join("in")).unwrap();
        attributes(&open(&lab.dir.data).unwrap(), &open(&lab.dir.staged).unwrap()).unwrap();
        fs::set_permissions(&lab.dir.data, fs::Permissions::from_mode(0o755)).unwrap();
        finish(&lab.dir).unwrap();
        lab.whole();
        // What a container has meanwhile made stays.
        fs::create_dir(&lab.dir.staged).unwrap();
        attributes(&open(&lab.dir.data).unwrap(), &open(&lab.dir.staged).unwrap()).unwrap();
        fs::write(lab.dir.staged.join("top"), "image").unwrap();
        finish(&lab.dir).unwrap();
        assert_eq!(fs::read_to_string(lab.dir.data.join("top")).unwrap(), "top");
        lab.whole();
    }
}
