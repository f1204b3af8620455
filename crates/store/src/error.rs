//! What can go wrong with durable state.

use std::{io, path::PathBuf};

use model::{DiffId, Digest, ErrorKind};

/// A failed operation of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on one of our files.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("the store {} is in use by process {pid}: one daemon per root directory", root.display())]
    Locked {
        /// The store's root.
        root: PathBuf,
        /// The process, as it wrote itself down; `unknown` if it could not.
        pid: String,
    },
    /// The root directory is not ours.
    #[error("the store {} belongs to uid {found}, not to uid {expected}", root.display())]
    Owner {
        /// The store's root.
        root: PathBuf,
        /// Whose it is.
        found: u32,
        /// Whose it should be.
        expected: u32,
    },
    /// The root exists and is no directory.
    #[error("the store {} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// Written by a newer creel.
    #[error("the store {} has schema {found:?}, this program knows up to {known}: use the newer creel that wrote it", root.display())]
    Schema {
        /// The store's root.
        root: PathBuf,
        /// What the version file says, shortened.
        found: String,
        /// The newest schema that is understood.
        known: u32,
    },
    /// The database refused.
    #[error("database: {operation}")]
    Database {
        /// What was being done.
        operation: &'static str,
        /// What redb said.
        #[source]
        source: Box<redb::Error>,
    },
    /// A row of the database is not what it should be.
    #[error("database: row {key:?} of {table} is damaged")]
    Row {
        /// The table.
        table: String,
        /// The key, shortened.
        key: String,
    },
    /// Bytes to be stored are not what their digest says.
    #[error("blob {0}: the bytes to be stored have another digest")]
    WrongDigest(Digest),
    /// A stored blob changed on disk.
    #[error("blob {digest} is damaged on disk and was put aside ({}); pulling the image again heals it", quarantine.display())]
    BlobDamaged {
        /// The blob.
        digest: Digest,
        /// Where it is now.
        quarantine: PathBuf,
    },
    /// No such blob.
    #[error("blob {0} is not in the store")]
    NoBlob(Digest),
    /// An image names a layer that is not there.
    #[error("layer {0} is not in the store")]
    NoLayer(DiffId),
    /// More than one image has an id that begins so.
    #[error("{count} images have ids that begin with {prefix:?}")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// How many fit.
        count: usize,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => kind_of(source),
            Self::Locked { .. } | Self::Owner { .. } | Self::NotADirectory(_) => ErrorKind::FailedPrecondition,
            Self::Schema { .. } => ErrorKind::Unsupported,
            Self::Database { source, .. } => match source.as_ref() {
                redb::Error::Io(e) => kind_of(e),
                redb::Error::Corrupted(_) => ErrorKind::Corrupted,
                _ => ErrorKind::Internal,
            },
            Self::Row { .. } | Self::WrongDigest(_) | Self::BlobDamaged { .. } => ErrorKind::Corrupted,
            Self::NoBlob(_) | Self::NoLayer(_) => ErrorKind::NotFound,
            Self::Ambiguous { .. } => ErrorKind::InvalidArgument,
        }
    }

    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io { operation, path: path.into(), source: source.into() }
    }

    pub(crate) fn database(operation: &'static str, source: impl Into<redb::Error>) -> Self {
        Self::Database { operation, source: Box::new(source.into()) }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.kind() == ErrorKind::ResourceExhausted
    }
}

fn kind_of(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::OutOfMemory => ErrorKind::ResourceExhausted,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        // EMFILE and ENFILE have no name in std.
        _ => match error.raw_os_error() {
            Some(23 | 24) => ErrorKind::ResourceExhausted,
            _ => ErrorKind::Internal,
        },
    }
}

/// Names what was being done, and on which path.
pub(crate) trait During<T> {
    fn during(self, operation: &'static str, path: &std::path::Path) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, operation: &'static str, path: &std::path::Path) -> Result<T, Error> {
        self.map_err(|source| Error::io(operation, path, source))
    }
}
