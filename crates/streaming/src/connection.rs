//! How a connection lives and ends, whatever frames it carries.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// How long the client has to close a connection that we are done with. Closing it before its last bytes are read would
/// make the kernel send a reset, which can overtake what we said last (RFC 1122, 4.2.2.13).
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// When there was something last, in either direction.
#[derive(Debug)]
pub(crate) struct Activity {
    last: Mutex<Instant>,
    idle: Duration,
}

impl Activity {
    /// A connection that is closed when there is nothing for so long.
    pub(crate) fn new(idle: Duration) -> Self {
        Self { last: Mutex::new(Instant::now()), idle }
    }

    /// There is something.
    pub(crate) fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when there was nothing for too long.
    pub(crate) async fn ceased(&self) {
        loop {
            let until = self.last() + self.idle;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}
