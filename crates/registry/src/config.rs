//! What a [`Registry`](crate::Registry) is told at start.

use std::{path::PathBuf, time::Duration};

use crate::Platform;

/// How registries are asked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where `HOST/hosts.toml` and docker's `HOST/{*.crt,*.cert,*.key}` are. Read anew at each pull.
    pub certs_dir: PathBuf,
    /// Registries (`HOST[:PORT]`, exactly as in image names) that speak plain http where `hosts.toml` says nothing
    /// else. `localhost`, `127.x.x.x` and `[::1]` need not be listed unless they have certificates.
    pub plain_http: Vec<String>,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Which image of an index is wanted.
    pub platform: Platform,
    /// How long things may take.
    pub timeouts: Timeouts,
}

impl Config {
    /// The usual settings over a directory of per-registry configuration.
    pub fn new(certs_dir: impl Into<PathBuf>) -> Self {
        Self {
            certs_dir: certs_dir.into(),
            plain_http: Vec::new(),
            user_agent: concat!("creel/", env!("CARGO_PKG_VERSION")).to_owned(),
            platform: Platform::host(),
            timeouts: Timeouts::default(),
        }
    }
}

/// Deadlines and retries.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For name lookup, TCP and TLS together. `dial_timeout` of a host overrides it.
    pub connect: Duration,
    /// From the end of a request to the end of the answer's headers.
    pub headers: Duration,
    /// For the whole body of a manifest, config or token.
    pub document: Duration,
    /// A blob must make progress (16 KiB) within this time of waiting.
    pub progress: Duration,
    /// An idle connection is closed after this time.
    pub idle: Duration,
    /// How often a request is tried again; a blob gets as many again after each 8 MiB.
    pub retries: u32,
    /// The first pause between tries; it doubles each time and is jittered down to half of itself.
    pub backoff: Duration,
    /// No `Retry-After` makes us wait longer than this.
    pub retry_after: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            headers: Duration::from_secs(30),
            document: Duration::from_secs(60),
            progress: Duration::from_secs(60),
            idle: Duration::from_secs(5),
            retries: 5,
            backoff: Duration::from_millis(250),
            retry_after: Duration::from_secs(60),
        }
    }
}
