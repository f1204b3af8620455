//! Ids as clients write them.

use model::ContainerId;

use super::{Result, invalid};

/// The container whose PID namespace is joined.
pub(crate) fn container_target(text: &str) -> Result<ContainerId> {
    text.parse().map_err(|e| invalid("linux.security_context.namespace_options.target_id", e))
}

/// Whether `text` can be the beginning of an id.
pub(crate) fn is_id_prefix(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}
