//! How long is waited before a container that has ended starts again.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(100);
/// The longest one.
const LONGEST: Duration = Duration::from_secs(60);
/// Whoever has run so long is well again.
const WELL: Duration = Duration::from_secs(10);

/// Doubles from start to start.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// How long to wait after a run of `ran`.
    pub(super) fn next(&mut self, ran: Duration) -> Duration {
        let next = match self.last {
            Some(last) if ran < WELL => (last * 2).min(LONGEST),
            _ => FIRST,
        };
        self.last = Some(next);
        next
    }

    /// A person has started it.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.next(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        assert_eq!(backoff.next(WELL), FIRST);
        assert_eq!(backoff.next(Duration::ZERO), FIRST * 2);
        backoff.reset();
        assert_eq!(backoff.next(Duration::ZERO), FIRST);
    }
}
