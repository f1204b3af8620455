//! Files of this machine as a tar.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read, Write},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use super::{PIECE, Pieced};
use crate::{
    build::attributes,
    error::{self, Error},
};

/// What is copied.
pub(super) struct Source {
    path: PathBuf,
    metadata: fs::Metadata,
    /// Its name in the archive, unless another is wanted.
    name: String,
}

impl Source {
    /// A path as it was written: with `/.` at its end what is in the directory is meant and not the directory.
    pub(super) fn find(text: &str, follow: bool) -> Result<Self, Error> {
        let path = PathBuf::from(text);
        let failed = || error::io(format!("lstat {text}"));
        let follow = follow || text.ends_with('/') || text.ends_with("/.");
        let metadata = if follow { fs::metadata(&path) } else { fs::symlink_metadata(&path) }.map_err(failed())?;
        if (text.ends_with('/') || text.ends_with("/.")) && !metadata.is_dir() {
            return Err(Error::Words(format!("not a directory: {text}")));
        }
        let contents = text == "." || text.ends_with("/.");
        let base = match path.file_name() {
            _ if contents => ".".to_owned(),
            Some(name) => name.to_string_lossy().into_owned(),
            // `..` and `/`.
            None => ".".to_owned(),
        };
        let path = if follow { fs::canonicalize(&path).map_err(failed())? } else { path };
        Ok(Self { path, metadata, name: base })
    }

    pub(super) fn is_directory(&self) -> bool {
        self.metadata.is_dir()
    }

    /// Writes it, under another name if one is wanted; answers the bytes.
    pub(super) fn pack(&self, name: Option<&str>, to: &mut Pieced) -> Result<u64, Error> {
        let failed = || error::io(format!("read {}", self.path.display()));
        let buffered = io::BufWriter::with_capacity(PIECE, &mut *to);
        let mut archive = Archive { tar: tar::Builder::new(buffered), names: HashMap::new() };
        archive.tar.follow_symlinks(false);
        let name = Path::new(name.unwrap_or(&self.name));
        if self.is_directory() {
            archive.tree(&self.path, name).map_err(failed())?;
        } else {
            archive.one(&self.path, name).map_err(failed())?;
        }
        let mut buffered = archive.end().map_err(failed())?;
        buffered.flush().map_err(failed())?;
        drop(buffered);
        Ok(to.sent)
    }
}

/// An archive that is being written.
struct Archive<W: Write> {
    tar: tar::Builder<W>,
    /// The first name of every file that has several, by device and inode.
    names: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Archive<W> {
    /// A directory before what is in it, in the order of names.
    fn tree(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        self.attributes(path)?;
        self.tar.append_dir(name, path)?;
        let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), name.join(entry.file_name()));
            if entry.file_type()?.is_dir() {
                self.tree(&path, &name)?;
            } else {
                self.one(&path, &name)?;
            }
        }
        Ok(())
    }

    /// Anything but a directory. A socket cannot be in an archive.
    fn one(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        const S_IFMT: u32 = 0o170_000;
        const S_IFSOCK: u32 = 0o140_000;
        let metadata = fs::symlink_metadata(path)?;
        if metadata.mode() & S_IFMT == S_IFSOCK {
            return Ok(());
        }
        if metadata.nlink() > 1 {
            let first = self.names.entry((metadata.dev(), metadata.ino())).or_insert_with(|| name.to_owned());
            if first != name {
                let mut header = tar::Header::new_gnu();
                header.set_metadata(&metadata);
                header.set_entry_type(tar::EntryType::Link);
                header.set_size(0);
                return self.tar.append_link(&mut header, name, first);
            }
        }
        if !metadata.is_symlink() {
            self.attributes(path)?;
        }
        self.tar.append_path_with_name(path, name)
    }

    fn end(self) -> io::Result<W> {
        self.tar.into_inner()
    }

    /// The extended attributes of the next entry.
    fn attributes(&mut self, path: &Path) -> io::Result<()> {
        let found = attributes(path.as_os_str().as_bytes())?;
        if found.is_empty() {
            return Ok(());
        }
        let mut named: Vec<_> = found.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value)).collect();
        named.sort();
        self.tar.append_pax_extensions(named.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
    }
}

/// A tar as it comes.
pub(super) fn pipe(mut from: impl Read, to: &mut Pieced) -> Result<u64, Error> {
    io::copy(&mut from, to).map_err(error::io("read standard input"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn packed(source: &str, name: Option<&str>) -> Vec<String> {
        let (to, mut from) = tokio::sync::mpsc::channel(1000);
        Source::find(source, false).unwrap().pack(name, &mut Pieced { to, sent: 0 }).unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = from.blocking_recv() {
            bytes.extend(piece);
        }
        let mut archive = tar::Archive::new(bytes.as_slice());
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn names_in_the_archive() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("d");
        fs::create_dir_all(base.join("sub")).unwrap();
        fs::write(base.join("sub/f"), "x").unwrap();
        symlink("/nowhere", base.join("link")).unwrap();
        let base = base.display().to_string();
        assert_eq!(packed(&base, None), ["d", "d/link", "d/sub", "d/sub/f"]);
        assert_eq!(packed(&format!("{base}/."), None), [".", "link", "sub", "sub/f"]);
        assert_eq!(packed(&base, Some("new"))[1], "new/link");
        assert_eq!(packed(&format!("{base}/sub/f"), Some("g")), ["g"]);
        fs::hard_link(format!("{base}/sub/f"), format!("{base}/sub/g")).unwrap();
        assert_eq!(packed(&format!("{base}/sub"), None), ["sub", "sub/f", "sub/g"]);
        assert!(Source::find("/nonexistent/x", false).is_err() && Source::find(&format!("{base}/sub/f/"), false).is_err());
    }
}
