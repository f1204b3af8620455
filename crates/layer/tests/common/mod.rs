//! What the suites share: an archive writer that can write anything, and a walk over the result of applying it.
#![allow(
    clippy::print_stderr,
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "every suite uses its own part of this module, and says what it skips"
)]

pub mod archive;
pub mod snapshot;

use std::{
    fs::{File, OpenOptions},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use layer::{Applied, Compression, Error, Format, Limits, Target, apply, mount_erofs, probe};
use snapshot::Snapshot;

/// A layer that was applied, open for looking at.
pub struct Layer {
    pub applied: Applied,
    pub root: OwnedFd,
    /// The image file, or the directory.
    pub path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Layer {
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.root.as_fd())
    }
}

/// The formats that work here. A kernel without the one is said so once.
pub fn formats() -> &'static [Format] {
    static FORMATS: OnceLock<Vec<Format>> = OnceLock::new();
    FORMATS.get_or_init(|| {
        let probed = probe(&std::env::temp_dir());
        match probed.format {
            Format::Erofs => vec![Format::Directory, Format::Erofs],
            Format::Directory => {
                eprintln!("SKIPPED for EROFS: {:?}", probed.reason);
                vec![Format::Directory]
            }
        }
    })
}

pub fn erofs_works() -> bool {
    formats().contains(&Format::Erofs)
}

pub fn apply_as(format: Format, tar: &[u8]) -> Result<Layer, Error> {
    apply_with(format, tar, Compression::None, &Limits::default())
}

pub fn apply_with(format: Format, bytes: &[u8], compression: Compression, limits: &Limits) -> Result<Layer, Error> {
    let dir = tempfile::tempdir().unwrap();
    match format {
        Format::Erofs => {
            let path = dir.path().join("layer.erofs");
            let applied = apply(bytes, compression, Target::Erofs(&image(&path)), limits)?;
            let root = mount_erofs(&path)?;
            Ok(Layer { applied, root, path, _dir: dir })
        }
        Format::Directory => {
            let path = dir.path().join("layer");
            std::fs::create_dir(&path).unwrap();
            let root: OwnedFd = File::open(&path).unwrap().into();
            let applied = apply(bytes, compression, Target::Directory(root.as_fd()), limits)?;
            Ok(Layer { applied, root, path, _dir: dir })
        }
    }
}

pub fn image(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).unwrap()
}

/// Applies in every format and demands the same result of all.
pub fn same_in_all_formats(tar: &[u8]) -> Snapshot {
    let mut results = formats().iter().map(|format| (format, apply_as(*format, tar).unwrap_or_else(|e| panic!("{}", chain(&e)))));
    let (_, first) = results.next().unwrap();
    let snapshot = first.snapshot();
    for (format, other) in results {
        assert_eq!(other.snapshot(), snapshot, "{format:?} differs");
        assert_eq!(other.applied, first.applied);
    }
    snapshot
}

/// The error that every format gives, which is the same.
pub fn refused_in_all_formats(tar: &[u8]) -> Error {
    let mut errors = formats().iter().map(|format| match apply_as(*format, tar) {
        Ok(layer) => panic!("{format:?} accepted it: {:?}", layer.snapshot()),
        Err(error) => error,
    });
    let first = errors.next().unwrap();
    for other in errors {
        assert_eq!(other.to_string(), first.to_string());
    }
    first
}

pub fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Compressed with bzip2.
pub fn bzip2(plain: impl std::io::Read) -> Vec<u8> {
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut bzip2::read::BzEncoder::new(plain, bzip2::Compression::best()), &mut out).unwrap();
    out
}

/// Compressed with xz, at a level of its program.
pub fn xz(mut plain: impl std::io::Read, level: u32) -> Vec<u8> {
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(level)).unwrap();
    std::io::copy(&mut plain, &mut encoder).unwrap();
    encoder.finish().unwrap()
}
