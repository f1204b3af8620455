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

/// An instant as RFC 3339 writes it, in UTC.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    let (seconds, nanos) = (at.div_euclid(1_000_000_000), at.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01, in eras of 400 years: leap days come last in such years.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// What [`rfc3339`] writes, and the same with another number of digits or an offset from UTC.
pub(crate) fn from_rfc3339(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once('T')?;
    let (time, offset) = match time.strip_suffix('Z') {
        Some(time) => (time, 0),
        None => {
            let at = time.rfind(['+', '-'])?;
            let (hours, minutes) = time[at + 1..].split_once(':')?;
            let seconds = digits(hours, 2)? * 3600 + digits(minutes, 2)? * 60;
            (&time[..at], if time[at..].starts_with('-') { -seconds } else { seconds })
        }
    };
    let mut parts = date.splitn(3, '-');
    let (year, month, day) = (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = time.splitn(3, ':');
    let (hour, minute, second) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 || fraction.len() > 9 {
        return None;
    }
    let nanos = digits(fraction, fraction.len())? * 10_i64.pow(9 - u32::try_from(fraction.len()).ok()?);
    // The inverse of `rfc3339`: years begin with March there.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day - 1;
    let seconds = (days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

fn digits(text: &str, count: usize) -> Option<i64> {
    (!text.is_empty() && text.len() == count && text.bytes().all(|c| c.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Makes sure that `now` stays behind a time read from a record.
pub(crate) fn seen(at: Timestamp) {
    LAST.fetch_max(at, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    #[test]
    fn instants_are_written_for_people() {
        assert_eq!(super::rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(super::rfc3339(951_827_696_789_000_000), "2000-02-29T12:34:56.789000000Z");
        assert_eq!(super::rfc3339(-1), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn what_is_written_can_be_read() {
        for at in [0, 951_827_696_789_000_000, -1, 1_795_273_624_123_456_789, 1_709_164_800_000_000_001] {
            assert_eq!(super::from_rfc3339(&super::rfc3339(at)), Some(at));
        }
        assert_eq!(super::from_rfc3339("2000-02-29T13:34:56.789+01:00"), Some(951_827_696_789_000_000));
        assert_eq!(super::from_rfc3339("2000-02-29T12:34:56Z"), Some(951_827_696_000_000_000));
        for bad in ["", "T", "2000-02-29", "2000-13-01T00:00:00Z", "2000-02-29T12:34:56", "2000-02-29T12:34:56.Z", "x-y-zTa:b:cZ"] {
            assert_eq!(super::from_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn strictly_increasing() {
        let times: Vec<_> = (0..1000).map(|_| super::now()).collect();
        assert!(times.windows(2).all(|w| w[0] < w[1]));
    }
}
