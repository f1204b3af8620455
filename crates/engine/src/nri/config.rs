//! What is configured of plugins.

use std::{path::PathBuf, time::Duration};

/// How plugins are found and how long they may take.
#[derive(Clone, Debug)]
pub struct NriConfig {
    /// Where plugins connect; `None`: they may not.
    pub socket: Option<PathBuf>,
    /// Programs that are started with the engine.
    pub plugins: PathBuf,
    /// Their configuration.
    pub plugin_config: PathBuf,
    /// For a plugin's registration, its configuration and its synchronization, each.
    pub registration_timeout: Duration,
    /// For any other call.
    pub request_timeout: Duration,
}
