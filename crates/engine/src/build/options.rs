//! What a client gives to RUN beside the Dockerfile.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use model::{Resources, plan::Rlimit};
use tokio::{net::UnixStream, sync::mpsc};

/// What RUN gets of the client.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Values of secrets by their ids. They are in memory only, and in nothing that a build leaves.
    pub secrets: BTreeMap<String, SecretValue>,
    /// Agents that the client relays to.
    pub agents: Option<Agents>,
    /// More lines of hosts(5): name, address; `host-gateway` stands for this machine's.
    pub hosts: Vec<(String, String)>,
    /// Bytes of /dev/shm; `None`: 64 MiB.
    pub shm_size: Option<u64>,
    /// Limits of setrlimit(2) over the engine's own.
    pub rlimits: Vec<Rlimit>,
    /// Limits of its cgroup.
    pub resources: Resources,
}

/// What nobody but a step is to see.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    /// Wraps a secret.
    pub fn new(value: Vec<u8>) -> Self {
        Self(value)
    }

    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Agents for ssh(1) that a client has.
#[derive(Clone, Debug)]
pub struct Agents {
    /// What they are called.
    pub ids: BTreeSet<String>,
    /// Takes connections that are to be relayed. They end with it.
    pub connections: mpsc::Sender<AgentConnection>,
}

/// A program of a build talks to an agent.
#[derive(Debug)]
pub struct AgentConnection {
    /// To which.
    pub id: String,
    /// What it says, and where the answers go.
    pub stream: UnixStream,
}
