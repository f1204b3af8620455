//! Why a profile cannot become a program.

use model::ErrorKind;

/// Cuts text of a profile to what fits into a message.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Why a profile cannot become a program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Larger than any profile is.
    #[error("seccomp profile has {0} bytes, more than {max}", max = crate::MAX_PROFILE)]
    TooLarge(usize),
    /// Not JSON, or not of the form of a profile.
    #[error("parse seccomp profile")]
    Parse(#[source] serde_json::Error),
    /// No such action.
    #[error("seccomp profile: unknown action {action:?} of {place}")]
    Action {
        /// As written.
        action: String,
        /// Where.
        place: String,
    },
    /// An action that needs a supervisor in user space.
    #[error("seccomp profile: SCMP_ACT_NOTIFY of {0} is not supported: there is no notification listener")]
    Notify(String),
    /// An errno for an action that returns none.
    #[error("seccomp profile: errnoRet {errno} does not fit action {action} of {place}")]
    Errno {
        /// The number.
        errno: u32,
        /// The action.
        action: String,
        /// Where.
        place: String,
    },
    /// No such architecture.
    #[error("seccomp profile: unknown architecture {0:?}")]
    Architecture(String),
    /// Both ways to say the architectures.
    #[error("seccomp profile: both architectures and archMap are set")]
    BothArchitectures,
    /// No such comparison.
    #[error("seccomp profile: unknown operator {operator:?} of {place}")]
    Operator {
        /// As written.
        operator: String,
        /// Where.
        place: String,
    },
    /// System calls have six arguments.
    #[error("seccomp profile: argument index {index} of {place} is not in 0..=5")]
    Index {
        /// As written.
        index: u32,
        /// Where.
        place: String,
    },
    /// A rule about nothing, or about both `name` and `names`.
    #[error("seccomp profile: rule {0} must have either names or name")]
    Names(usize),
    /// No such flag.
    #[error("seccomp profile: unknown flag {0:?}")]
    Flag(String),
    /// No such capability in `includes` or `excludes`.
    #[error("seccomp profile: unknown capability {0:?}")]
    Capability(String),
    /// Not a kernel version.
    #[error("seccomp profile: minKernel {0:?} is not MAJOR.MINOR")]
    Kernel(String),
    /// What libseccomp cannot be told so that it means the same.
    #[error("seccomp profile: system call {call} has {why}, which OCI runtimes read in another way than it is meant")]
    Ambiguous {
        /// The system call.
        call: String,
        /// What of it.
        why: &'static str,
    },
    /// The kernel takes no more.
    #[error("seccomp profile needs {0} instructions, the kernel takes 4096 (BPF_MAXINSNS)")]
    TooLong(usize),
}

impl Error {
    /// Which of the closed set of kinds.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Notify(_) | Self::Ambiguous { .. } => ErrorKind::Unsupported,
            Self::TooLarge(_)
            | Self::Parse(_)
            | Self::Action { .. }
            | Self::Errno { .. }
            | Self::Architecture(_)
            | Self::BothArchitectures
            | Self::Operator { .. }
            | Self::Index { .. }
            | Self::Names(_)
            | Self::Flag(_)
            | Self::Capability(_)
            | Self::Kernel(_)
            | Self::TooLong(_) => ErrorKind::InvalidArgument,
        }
    }
}
