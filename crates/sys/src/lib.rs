//! The kernel with types: the only crate with `unsafe`.
//!
//! Small wrappers answer with [`Errno`]; what takes several calls answers with [`Error`], which names the call that
//! failed in strace form. Every file descriptor is close-on-exec.

pub mod activation;
pub mod caps;
pub mod cgroup;
mod error;
pub mod malloc;
pub mod memfd;
pub mod mount;
pub mod ns;
pub mod path;
pub mod proc;
pub mod process;
pub mod quota;
pub mod rlimit;
pub mod sched;
pub mod seccomp;
pub mod sock;
pub mod userns;

pub use error::{Context, Error, kind_of};
pub use rustix::io::Errno;
