//! Resolve, pull, push, list and search in OCI distribution registries; hands out verified bytes.
//!
//! A registry is hostile until proven otherwise: every document and blob is checked against its digest while it is
//! read, every body and header block has a limit, every wait a deadline, and credentials go to exactly the origin
//! they are meant for. Where a registry is asked, and how, is configured per host in containerd's `hosts.toml` format.
#![forbid(unsafe_code)]

mod blob;
mod challenge;
mod client;
mod config;
mod content;
mod credentials;
mod dial;
mod endpoint;
mod error;
mod exchange;
mod failure;
mod fetch;
mod hosts;
mod json;
mod list;
mod manifest;
mod platform;
mod push;
mod registry;
mod resolve;
mod rounds;
mod source;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod url;

pub use blob::BlobReader;
pub use challenge::{Challenge, ChallengeError, parse_challenge};
pub use config::{Config, Timeouts};
pub use content::{Content, Growing, Grown};
pub use credentials::{Credentials, Secret};
pub use error::{Error, Step, Tried};
pub use failure::{ConnectError, Failure, TlsProblem};
pub use fetch::{Fetching, Version};
pub use hosts::{Capabilities, ConfigError, HostEntry, HostsFile, parse_hosts_toml};
pub use list::Hit;
pub use manifest::{Document, DocumentError, Image, Index, IndexEntry, parse_manifest};
pub use platform::Platform;
pub use push::{Found, Target, Upload};
pub use registry::Registry;
pub use resolve::Resolved;
pub use source::Source;
pub use url::{Origin, Scheme, Url, UrlError};
