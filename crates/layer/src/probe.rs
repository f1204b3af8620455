//! Which format this kernel can use, found out by using it.

use std::{fs::File, io::Read, os::fd::AsFd, path::Path};

use rustix::fs::{Mode, OFlags};

use crate::{Compression, Error, Limits, Overlay, Target, apply, mount_erofs};

/// How layers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// One EROFS image file per layer, mounted from the file (Linux >= 6.12; below overlayfs without a place in the mount
    /// table >= 6.15).
    Erofs,
    /// One directory per layer.
    Directory,
}

/// What [`probe`] found.
#[derive(Debug)]
pub struct Probed {
    /// The best format.
    pub format: Format,
    /// Why it is not EROFS.
    pub reason: Option<Error>,
}

/// Makes a small image in `dir` (where the layers will be: not every file system can hold images), mounts it detached, puts
/// an overlay over it, and reads it. The file has no name and goes away by itself.
pub fn probe(dir: &Path) -> Probed {
    match try_erofs(dir) {
        Ok(()) => Probed { format: Format::Erofs, reason: None },
        Err(error) => Probed { format: Format::Directory, reason: Some(error) },
    }
}

const NAME: &str = "probe";

fn try_erofs(dir: &Path) -> Result<(), Error> {
    let failed = |source: rustix::io::Errno| Error::Probe { dir: dir.to_owned(), source: source.into() };
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?);
    apply(&archive()[..], Compression::None, Target::Erofs(&file), &Limits::default())?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let image = mount_erofs(Path::new(&path))?;
    let root = Overlay { lowers: &[image.as_fd()], upper: None }.mount()?;
    let opened = rustix::fs::openat(&root, NAME, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let mut text = Vec::new();
    File::from(opened).read_to_end(&mut text).map_err(|source| Error::Probe { dir: dir.to_owned(), source })?;
    if text == content() { Ok(()) } else { Err(Error::ProbeMismatch("other bytes")) }
}

/// More than a page and not a multiple of one, at an offset that is a multiple of 512 only.
fn content() -> Vec<u8> {
    (0..5000u32).map(|i| (i % 251) as u8).collect()
}

/// A tar of one file.
fn archive() -> Vec<u8> {
    let content = content();
    let mut header = [0u8; 512];
    header[..NAME.len()].copy_from_slice(NAME.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut out = [&header[..], &content].concat();
    out.resize(out.len().next_multiple_of(512) + 1024, 0);
    out
}
