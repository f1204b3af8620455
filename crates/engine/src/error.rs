//! What went wrong, about which pod, container or image, at which step.

use std::{error::Error as StdError, fmt, sync::Arc};

use model::{ContainerId, ErrorKind, PodId};

/// What an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// The engine as a whole.
    Engine,
    /// A pod.
    Pod(PodId),
    /// A container.
    Container(ContainerId),
    /// An image, by the name or id that the client used.
    Image(String),
    /// An image that a container was to get as a volume, by the name or id that the client used.
    ImageVolume(String),
    /// Nothing: the text says everything, in docker's own words, which scripts look for.
    Words,
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine => f.write_str("engine"),
            Self::Pod(id) => write!(f, "pod {}", id.short()),
            Self::Container(id) => write!(f, "container {}", id.short()),
            Self::Image(name) => write!(f, "image {name}"),
            Self::ImageVolume(name) => write!(f, "image volume {name}"),
            Self::Words => Ok(()),
        }
    }
}

/// An error of the engine: clonable, because everybody who joined an attempt gets it.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    about: About,
    step: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A refusal or fault without a deeper cause; `why` is the whole story.
    pub fn new(kind: ErrorKind, about: About, why: impl Into<String>) -> Self {
        Self { kind, about, step: why.into(), source: None }
    }

    /// Which of the closed set of kinds.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What it is about.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The same without what it is about: the text says it.
    pub(crate) fn plain(self) -> Self {
        Self { about: About::Words, ..self }
    }

    pub(crate) fn no_pod(id: PodId) -> Self {
        Self::new(ErrorKind::NotFound, About::Pod(id), "no such pod")
    }

    pub(crate) fn no_container(id: ContainerId) -> Self {
        Self::new(ErrorKind::NotFound, About::Container(id), "no such container")
    }

    /// The whole chain on one line: `about: step: cause: cause of the cause`.
    pub fn chain(&self) -> String {
        crate::chain(self)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.about {
            About::Words => f.write_str(&self.step),
            _ => write!(f, "{}: {}", self.about, self.step),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

/// An error that knows its kind.
pub(crate) trait Kinded: StdError + Send + Sync + 'static {
    fn kind(&self) -> ErrorKind;
}

macro_rules! kinded {
    ($($error:ty),* $(,)?) => { $(
        impl Kinded for $error {
            fn kind(&self) -> ErrorKind { <$error>::kind(self) }
        }
    )* };
}
kinded!(
    cdi::Error,
    crate::hooks::Error,
    ::nri::Error,
    crate::nri::Refusal,
    crate::image::PullError,
    crate::image::Unmakable,
    crate::image::Unsavable,
    crate::image::RootfsError,
    crate::security::Error,
    crate::image::VolumeError,
    crate::shim::Error,
    crate::spec::Error,
    layer::Error,
    net::Error,
    registry::Error,
    store::Error,
    sys::Error,
    systemd::Error,
    crate::volumes::Error,
    crate::networks::Error,
);

impl Kinded for crate::image::UnusableConfig {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

impl Kinded for crate::checkpoint::images::Refused {
    fn kind(&self) -> ErrorKind {
        ErrorKind::FailedPrecondition
    }
}

impl Kinded for model::pod::Refusal {
    fn kind(&self) -> ErrorKind {
        ErrorKind::FailedPrecondition
    }
}

impl Kinded for std::io::Error {
    fn kind(&self) -> ErrorKind {
        use std::io::ErrorKind as Io;
        match self.kind() {
            Io::StorageFull | Io::QuotaExceeded | Io::OutOfMemory => ErrorKind::ResourceExhausted,
            Io::TimedOut => ErrorKind::DeadlineExceeded,
            _ => ErrorKind::Internal,
        }
    }
}

/// Names the step that failed and what it was about.
pub(crate) trait Step<T> {
    fn step(self, about: impl Into<About>, step: &'static str) -> Result<T, Error>;
}

impl<T, E: Kinded> Step<T> for Result<T, E> {
    fn step(self, about: impl Into<About>, step: &'static str) -> Result<T, Error> {
        self.map_err(|e| {
            let about = about.into();
            Error { kind: seen_from(&about, e.kind()), about, step: step.to_owned(), source: Some(Arc::new(e)) }
        })
    }
}

/// That a pod or container is not there is only for the table to say: a client believes it, and never stops or removes
/// it again. A file, process or interface that is missing within a step is another matter.
fn seen_from(about: &About, kind: ErrorKind) -> ErrorKind {
    match (about, kind) {
        (About::Pod(_) | About::Container(_), ErrorKind::NotFound) => ErrorKind::FailedPrecondition,
        (_, kind) => kind,
    }
}

impl From<PodId> for About {
    fn from(id: PodId) -> Self {
        Self::Pod(id)
    }
}

impl From<ContainerId> for About {
    fn from(id: ContainerId) -> Self {
        Self::Container(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_names_everything_once() {
        let e = Err::<(), _>(std::io::Error::from_raw_os_error(28)).step(PodId::from_bytes([1; 32]), "write hosts").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::ResourceExhausted);
        assert_eq!(e.chain(), "pod 010101010101: write hosts: No space left on device (os error 28)");
    }

    #[test]
    fn what_is_missing_within_a_step_is_not_the_pod_itself() {
        #[derive(Debug, thiserror::Error)]
        #[error("gone")]
        struct Gone;
        impl Kinded for Gone {
            fn kind(&self) -> ErrorKind {
                ErrorKind::NotFound
            }
        }
        let kind = |about: About| Err::<(), _>(Gone).step(about, "x").unwrap_err().kind();
        assert_eq!(kind(PodId::from_bytes([1; 32]).into()), ErrorKind::FailedPrecondition);
        assert_eq!(kind(ContainerId::from_bytes([1; 32]).into()), ErrorKind::FailedPrecondition);
        assert_eq!(kind(About::Image("x".into())), ErrorKind::NotFound);
        assert_eq!(Error::no_pod(PodId::from_bytes([1; 32])).kind(), ErrorKind::NotFound);
    }
}
