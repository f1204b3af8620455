//! Wall-clock time that never stands still: two calls never return the same instant, so `created_at` orders.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use model::pod::Timestamp;

static LAST: AtomicI64 = AtomicI64::new(0);

/// Nanoseconds since 1970, greater than every earlier answer of this process.
pub(crate) fn now() -> Timestamp {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX - 1);
    let mut last = LAST.load(Ordering::Relaxed);
    loop {
        let next = wall.max(last + 1);
        match LAST.compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return next,
            Err(seen) => last = seen,
        }
    }
}

/// Makes sure that `now` stays behind a time read from a record.
pub(crate) fn seen(at: Timestamp) {
    LAST.fetch_max(at, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    #[test]
    fn strictly_increasing() {
        let times: Vec<_> = (0..1000).map(|_| super::now()).collect();
        assert!(times.windows(2).all(|w| w[0] < w[1]));
    }
}
