//! What can go wrong with a layer, and which kind of wrong it is.

use std::{io, path::PathBuf};

use model::ErrorKind;
use rustix::io::Errno;

use crate::Compression;

/// A failed operation on a layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's reader failed.
    #[error("read the layer")]
    Read(#[source] io::Error),
    /// The bytes are not what their compression promises.
    #[error("decompress as {compression}")]
    Decompress {
        /// What the layer was said to be.
        compression: Compression,
        /// What the decoder said.
        #[source]
        source: io::Error,
    },
    /// One of [`crate::Limits`] is exceeded.
    #[error("the layer has more than {max} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// The archive itself is damaged or ambiguous.
    #[error("tar header at byte {offset}: {reason}")]
    Malformed {
        /// Where the header starts in the uncompressed stream.
        offset: u64,
        /// What is wrong.
        reason: Malformed,
    },
    /// A well-formed entry that no layer may have.
    #[error("tar entry {path:?}: {reason}")]
    Entry {
        /// The entry's name, shortened.
        path: String,
        /// Why it is refused.
        reason: Refusal,
    },
    /// A system call below the target failed.
    #[error("{operation} {path:?} in the layer")]
    Write {
        /// The system call.
        operation: &'static str,
        /// The path inside the layer, shortened; empty for the layer itself.
        path: String,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// A system call on a directory that is to become a layer failed.
    #[error("{operation} {path:?} in the upper directory")]
    Upper {
        /// The system call.
        operation: &'static str,
        /// The path inside the directory, shortened; empty for the directory itself.
        path: String,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// A file became shorter, or another kind of file, while it was read into an archive.
    #[error("{path:?} was changed while it was read")]
    Changed {
        /// The path inside the directory, shortened.
        path: String,
    },
    /// The caller's writer failed.
    #[error("write the archive")]
    Archive(#[source] io::Error),
    /// The EROFS file could not be written or read.
    #[error("{operation} the layer's image file")]
    Image {
        /// What was being done.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file is not an image that this crate wrote.
    #[error("the file is not a layer image: {0}")]
    NotAnImage(&'static str),
    /// A step of a mount failed.
    #[error("mount {what}: {step}")]
    Mount {
        /// `erofs PATH` or `overlay`.
        what: String,
        /// The system call and its key.
        step: String,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// This kernel cannot stack so many layers.
    #[error("overlay of {layers} layers: this kernel takes no file descriptors and only {max} bytes of names")]
    TooManyLayers {
        /// How many were asked for.
        layers: usize,
        /// The length of one mount option.
        max: usize,
    },
    /// The probe's own files could not be made.
    #[error("probe for EROFS in {}", dir.display())]
    Probe {
        /// The directory that was probed.
        dir: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The probe's image mounted but showed something else than was written.
    #[error("probe for EROFS: the mounted image reads back {0}")]
    ProbeMismatch(&'static str),
}

/// Why an archive cannot be read in exactly one way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The stream ends inside something.
    #[error("the archive ends within {0}")]
    Truncated(&'static str),
    /// The header's checksum is wrong.
    #[error("wrong checksum")]
    Checksum,
    /// A numeric field is neither octal nor base-256, or out of range.
    #[error("field {0} is not a number in range")]
    Number(&'static str),
    /// One zero block is followed by something else.
    #[error("a lone zero block")]
    LoneZeroBlock,
    /// A type flag that layers do not use.
    #[error("unknown entry type {0:?}")]
    Type(char),
    /// An entry that has no content by its type says it has.
    #[error("an entry of type {0:?} with content")]
    Content(char),
    /// A PAX record that does not parse.
    #[error("PAX record {0:?} is malformed")]
    Pax(String),
    /// A global PAX record that would change entries; readers disagree about it.
    #[error("global PAX record {0:?} would change entries")]
    Global(String),
    /// Two extensions speak about the same thing; readers disagree which one wins.
    #[error("two extended headers in conflict for one entry")]
    Conflict,
    /// An extension with no entry after it.
    #[error("an extended header without an entry")]
    Dangling,
    /// A sparse map that is unordered, overlapping or does not add up.
    #[error("sparse map is malformed: {0}")]
    Sparse(&'static str),
    /// A NUL byte inside a name.
    #[error("a NUL byte in a name")]
    Nul,
}

/// Why an entry is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No name.
    #[error("empty name")]
    EmptyName,
    /// A name with a `..` component.
    #[error("name has a .. component")]
    DotDot,
    /// A component longer than 255 bytes.
    #[error("a name component is longer than 255 bytes")]
    LongName,
    /// The path (as given, or with the layer's symlinks resolved) is too long.
    #[error("path is too long")]
    LongPath,
    /// `.wh.`, `.wh..`, `.wh...`, or a whiteout in the middle of a path.
    #[error("not a valid whiteout name")]
    Whiteout,
    /// The root of the layer can only be a directory.
    #[error("the root is not a directory")]
    Root,
    /// A parent of the path is a file in this layer.
    #[error("a parent is not a directory")]
    NotADirectory,
    /// Symlinks in the parents lead in circles.
    #[error("too many symlinks in the parents")]
    Loop,
    /// The hard link's target is not in this layer.
    #[error("hard link to {0:?}, which is not in this layer")]
    LinkTarget(String),
    /// The hard link's target is a directory.
    #[error("hard link to {0:?}, which is a directory")]
    LinkDirectory(String),
    /// An empty or too long symlink target.
    #[error("symlink target is empty or longer than 4095 bytes")]
    SymlinkTarget,
    /// A device number that Linux cannot have.
    #[error("device number {0}:{1} is out of range")]
    Device(u64, u64),
    /// A user or group id that Linux cannot have.
    #[error("owner is out of range")]
    Owner,
    /// An extended attribute whose value the kernel would refuse.
    #[error("extended attribute {0:?} is malformed")]
    Xattr(String),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read(_) => ErrorKind::Unavailable,
            Self::Decompress { .. } | Self::Malformed { .. } | Self::NotAnImage(_) => ErrorKind::Corrupted,
            Self::Limit { .. } => ErrorKind::ResourceExhausted,
            Self::Entry { .. } => ErrorKind::InvalidArgument,
            Self::Write { source, .. } | Self::Upper { source, .. } | Self::Mount { source, .. } => kind_of(*source),
            Self::Changed { .. } => ErrorKind::FailedPrecondition,
            Self::Image { source, .. } | Self::Probe { source, .. } | Self::Archive(source) => {
                Errno::from_io_error(source).map_or(ErrorKind::Internal, kind_of)
            }
            Self::TooManyLayers { .. } | Self::ProbeMismatch(_) => ErrorKind::Unsupported,
        }
    }

    pub(crate) fn write(operation: &'static str, path: &[u8], source: Errno) -> Self {
        Self::Write { operation, path: shown(path), source }
    }

    pub(crate) fn upper(operation: &'static str, path: &[u8], source: Errno) -> Self {
        Self::Upper { operation, path: shown(path), source }
    }

    pub(crate) fn image(operation: &'static str, source: io::Error) -> Self {
        Self::Image { operation, source }
    }
}

fn kind_of(errno: Errno) -> ErrorKind {
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::FBIG => ErrorKind::ResourceExhausted,
        Errno::PERM | Errno::ACCESS => ErrorKind::PermissionDenied,
        Errno::NOENT => ErrorKind::NotFound,
        Errno::NOSYS | Errno::NODEV | Errno::OPNOTSUPP => ErrorKind::Unsupported,
        _ => ErrorKind::Internal,
    }
}

/// Hostile bytes, shortened for a message. Control characters are escaped by `{:?}` where it is printed.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const MAX: usize = 200;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX)]).into_owned();
    if bytes.len() > MAX { text + "..." } else { text }
}
