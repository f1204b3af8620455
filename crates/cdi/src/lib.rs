//! Container Device Interface: a device's name becomes what has to be done to a container that gets it.
//!
//! Specifications are files of vendors in a few directories (SPEC.md of cncf-tags/container-device-interface, versions
//! 0.3.0 to 1.1.0, JSON or YAML). They are read anew for every container that asks for a device, so that nothing can be
//! stale: a container starts seldom, and a specification is small. What they say is checked for its form here; whether a
//! node may do it is for the caller.
//!
//! **Invariant:** hostile files cost at most the limits of `library` and end in an error that names the file.
#![forbid(unsafe_code)]

mod edits;
mod error;
mod library;
mod name;
mod spec;
#[cfg(test)]
mod tests;
mod version;
mod yaml;

pub use edits::{DeviceNode, DeviceType, Edits, Hook, HookStage, IntelRdt, Mount, NetDevice, Permissions};
pub use error::{Error, Problem};
pub use library::resolve;
pub use name::Name;
pub use spec::{Format, Spec, parse};
