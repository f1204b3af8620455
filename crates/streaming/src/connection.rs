//! How a connection lives and ends, whatever frames it carries.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// A connection without a byte in either direction for so long is closed.
const IDLE: Duration = Duration::from_secs(4 * 3600);
/// How long the client has to close a connection that we are done with. Closing it before its last bytes are read would
/// make the kernel send a reset, which can overtake what we said last (RFC 1122, 4.2.2.13).
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// When there was something last.
#[derive(Debug)]
pub(crate) struct Activity(Mutex<Instant>);

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// There is something.
    pub(crate) fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when there was nothing for [`IDLE`].
    pub(crate) async fn ceased(&self) {
        loop {
            let until = self.last() + IDLE;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}
