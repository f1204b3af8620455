//! What can go wrong between us and a registry.

use std::{fmt, path::PathBuf};

use model::{Digest, ErrorKind};

use crate::{ConfigError, DocumentError, Failure, Platform};

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Ask what a tag stands for.
    Resolve,
    /// Fetch a manifest or index by digest.
    Manifest,
    /// Fetch an image's config.
    Config,
    /// Fetch a layer.
    Blob,
    /// Ask whether a registry has a blob already.
    Find,
    /// Upload a blob.
    Upload,
    /// Upload a manifest or index.
    Publish,
    /// List a repository's tags.
    Tags,
    /// Look for repositories.
    Search,
    /// Show credentials.
    Login,
    /// Fetch a file that is no registry's.
    File,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolve",
            Self::Manifest => "fetch manifest",
            Self::Config => "fetch config",
            Self::Blob => "fetch blob",
            Self::Find => "look for blob",
            Self::Upload => "upload blob",
            Self::Publish => "upload manifest",
            Self::Tags => "list tags of",
            Self::Search => "search",
            Self::Login => "log in to",
            Self::File => "fetch",
        })
    }
}

/// One place that was asked, and what came of it.
#[derive(Debug)]
pub struct Tried {
    /// `https://HOST[:PORT]`.
    pub place: String,
    /// What happened there last.
    pub why: Failure,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.why)
    }
}

struct All<'a>(&'a [Tried]);

impl fmt::Display for All<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, tried) in self.0.iter().enumerate() {
            write!(f, "{}{tried}", if n == 0 { "" } else { "; " })?;
        }
        if self.0.is_empty() { f.write_str("no place is configured that may be asked for it") } else { Ok(()) }
    }
}

/// What can go wrong between us and a registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration of the registry.
    #[error("configuration of registry {host} in {path}")]
    Config {
        /// The registry.
        host: String,
        /// The directory that is wrong.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// The credentials are malformed.
    #[error("credentials: {why}")]
    Credentials {
        /// In which way.
        why: &'static str,
    },
    /// No place gave it. The last one is the registry itself, those before are mirrors.
    #[error("{step} {name}: {}", All(tried))]
    Asked {
        /// What was being done.
        step: Step,
        /// With what: an image name or `REPOSITORY@DIGEST`.
        name: String,
        /// What happened at each place, in the order of asking.
        tried: Vec<Tried>,
    },
    /// What is to be uploaded cannot be read.
    #[error("read blob {digest} to upload it")]
    Content {
        /// The blob.
        digest: Digest,
        /// Why not.
        source: std::io::Error,
    },
    /// The image is there, but not one that we take.
    #[error("image {name}")]
    Document {
        /// The image.
        name: String,
        /// What is wrong with it.
        source: DocumentError,
    },
    /// The image is not there for this machine.
    #[error("image {name} is not available for platform {wanted}, only for {}", available.join(", "))]
    Platform {
        /// The image.
        name: String,
        /// What was wanted.
        wanted: Platform,
        /// What there is.
        available: Vec<String>,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config { .. } | Self::Credentials { .. } => ErrorKind::InvalidArgument,
            // The registry itself knows best: that a mirror lacks an image says nothing.
            Self::Asked { tried, .. } => tried.last().map_or(ErrorKind::InvalidArgument, |t| t.why.kind()),
            Self::Content { .. } => ErrorKind::Internal,
            Self::Document { source, .. } => source.kind(),
            Self::Platform { .. } => ErrorKind::NotFound,
        }
    }
}
