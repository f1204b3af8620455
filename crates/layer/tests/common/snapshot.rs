//! Everything that can be seen of a tree, path by path.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{Metadata, symlink_metadata},
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt},
        },
    },
    path::Path,
};

use sha2::{Digest, Sha256};

/// What one path shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: Kind,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub links: u64,
    /// The first path with the same inode.
    pub same_as: String,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File { size: u64, sha256: String },
    Directory,
    Symlink(Vec<u8>),
    Char(u64),
    Block(u64),
    Fifo,
    Socket,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:o} {:?} {:?} x{} ={}", self.kind, self.mode, self.owner, self.mtime, self.links, self.same_as)?;
        if self.xattrs.is_empty() { Ok(()) } else { write!(f, " {:?}", self.xattrs) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(pub BTreeMap<String, Seen>);

impl Snapshot {
    pub fn of(root: BorrowedFd<'_>) -> Self {
        let mut walk = Walk { seen: BTreeMap::new(), inodes: BTreeMap::new() };
        let top = format!("/proc/self/fd/{}/.", root.as_raw_fd());
        walk.visit(Path::new(&top), "");
        Self(walk.seen)
    }

    pub fn paths(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    pub fn get(&self, path: &str) -> &Seen {
        self.0.get(path).unwrap_or_else(|| panic!("{path} is not in {:?}", self.paths()))
    }

    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    pub fn is_whiteout(&self, path: &str) -> bool {
        self.0.get(path).is_some_and(|seen| seen.kind == Kind::Char(0))
    }

    pub fn is_opaque(&self, path: &str) -> bool {
        self.get(path).xattrs.get("trusted.overlay.opaque").is_some_and(|value| value == b"y")
    }
}

/// What the snapshot of a file with this content shows.
pub fn file(data: &[u8]) -> Kind {
    Kind::File { size: data.len() as u64, sha256: hex(&Sha256::digest(data)) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Walk {
    seen: BTreeMap<String, Seen>,
    inodes: BTreeMap<(u64, u64), String>,
}

impl Walk {
    fn visit(&mut self, real: &Path, shown: &str) {
        let metadata = symlink_metadata(real).unwrap_or_else(|e| panic!("{shown}: {e}"));
        let key = (metadata.dev(), metadata.ino());
        assert!(metadata.ino() != 0, "{shown} has inode number 0");
        let same_as = self.inodes.entry(key).or_insert_with(|| shown.to_owned()).clone();
        let seen = Seen {
            kind: kind(real, &metadata),
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            links: metadata.nlink(),
            same_as,
            xattrs: xattrs(real),
        };
        let is_directory = seen.kind == Kind::Directory;
        self.seen.insert(shown.to_owned(), seen);
        if is_directory {
            let mut names: Vec<_> = std::fs::read_dir(real).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort_unstable();
            for name in names {
                let text = name.as_bytes().escape_ascii().to_string();
                let below = if shown.is_empty() { text } else { format!("{shown}/{text}") };
                self.visit(&real.join(&name), &below);
            }
        }
    }
}

fn kind(path: &Path, metadata: &Metadata) -> Kind {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => Kind::Directory,
        () if kind.is_symlink() => Kind::Symlink(std::fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()),
        () if kind.is_char_device() => Kind::Char(metadata.rdev()),
        () if kind.is_block_device() => Kind::Block(metadata.rdev()),
        () if kind.is_fifo() => Kind::Fifo,
        () if kind.is_socket() => Kind::Socket,
        () => {
            let mut hash = Sha256::new();
            let mut file = std::fs::File::open(path).unwrap();
            let mut size = 0;
            let mut buffer = vec![0; 64 << 10];
            loop {
                let n = std::io::Read::read(&mut file, &mut buffer).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                if n == 0 {
                    break;
                }
                hash.update(&buffer[..n]);
                size += n as u64;
            }
            assert_eq!(size, metadata.size(), "{}", path.display());
            Kind::File { size, sha256: hex(&hash.finalize()) }
        }
    }
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0; 64 << 10];
    let n = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    list.truncate(n);
    let mut found = BTreeMap::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let n = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(n);
        found.insert(name.escape_ascii().to_string(), value);
    }
    found
}
