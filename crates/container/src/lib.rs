//! One container out of a plan and some file descriptors. Runs inside the single-threaded supervisor of a pod: the code
//! between clone3(2) and execve(2) is plain Rust in a copy of that process.
//!
//! [`PodEnv::new`] once, then [`create`] and [`Created::start`] per container and [`exec`] per further process. Whatever
//! goes wrong in the new process comes back with the step it was at. A container that an OCI runtime makes is prepared by
//! [`run`].
#![forbid(unsafe_code)]

mod create;
mod cwd;
mod error;
mod exec;
mod hooks;
mod identity;
mod init;
mod joined;
mod mounts;
mod pod;
mod program;
mod report;
mod restore;
mod runtime;
mod stdio;
mod sysctl;
mod terminal;
mod userns;

pub use create::{Created, Parts, Running, create};
pub use error::{Error, StartError};
pub use exec::exec;
pub use hooks::Hooks;
pub use pod::PodEnv;
pub use restore::{Images, Restored, restore, resume};
pub use runtime::{Bundle, Command, placeholder, run};
pub use stdio::{Io, Stdio};
pub use sys::process::{Exit, Process};
