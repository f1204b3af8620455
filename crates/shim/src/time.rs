//! Wall-clock time.

use std::time::{SystemTime, UNIX_EPOCH};

use model::pod::Timestamp;

/// Nanoseconds since 1970.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
