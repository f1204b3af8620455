//! The calendar, and instants as RFC 3339 writes them. No clock: what now is, others know.

use crate::pod::Timestamp;

const NANOS: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// Bytes of an instant as [`rfc3339`] writes it.
pub const LENGTH: usize = "2016-10-06T00:17:09.669794202Z".len();

/// An instant as RFC 3339 writes it: in UTC, always with nine digits of a second, so that instants sort as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rfc3339([u8; LENGTH]);

/// Writes an instant.
pub fn rfc3339(at: Timestamp) -> Rfc3339 {
    let (seconds, nanos) = (at.div_euclid(NANOS), at.rem_euclid(NANOS));
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    put(&mut text[0..4], year);
    put(&mut text[5..7], month);
    put(&mut text[8..10], day);
    put(&mut text[11..13], second / 3600);
    put(&mut text[14..16], second / 60 % 60);
    put(&mut text[17..19], second % 60);
    put(&mut text[20..29], nanos);
    Rfc3339(text)
}

impl Rfc3339 {
    /// Its bytes, all of them ASCII.
    pub fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

impl std::fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| std::fmt::Write::write_char(f, char::from(*byte)))
    }
}

fn put(place: &mut [u8], mut value: i64) {
    for digit in place.iter_mut().rev() {
        *digit = b"0123456789"[usize::try_from(value.rem_euclid(10)).unwrap_or(0)];
        value /= 10;
    }
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar (exact for all of `Timestamp`'s
/// range, 1677 to 2262). A year is counted from March, so that the leap day is its last.
fn date(days: i64) -> (i64, i64, i64) {
    // Days since 0000-03-01; 400 years have 146,097 of them.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    // Leap days before this one within the era: every 1460 days one, but not after 36,524 days, but after 146,096.
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March the months have 31 30 31 30 31 days, over and over: 153 in five.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = 400 * era + year_of_era;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. The caller knows that it is one: years from 1 to 9999, months from
/// 1 to 12, days from 1 to 31.
pub fn days(year: i64, month: i64, day: i64) -> i64 {
    // As in `date`: years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// What [`rfc3339`] writes, and the same with another number of digits or an offset from UTC.
pub fn from_rfc3339(text: &str) -> Option<Timestamp> {
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
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(NANOS)?.checked_add(nanos)
}

fn digits(text: &str, count: usize) -> Option<i64> {
    (!text.is_empty() && text.len() == count && text.bytes().all(|c| c.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        for (at, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (1_475_713_029_669_794_202, "2016-10-06T00:17:09.669794202Z"),
            (951_782_400 * NANOS, "2000-02-29T00:00:00.000000000Z"),
            (951_868_800 * NANOS, "2000-03-01T00:00:00.000000000Z"),
            (1_709_164_799 * NANOS + 999_999_999, "2024-02-28T23:59:59.999999999Z"),
            (1_709_164_800 * NANOS + 1, "2024-02-29T00:00:00.000000001Z"),
            (1_735_689_599 * NANOS, "2024-12-31T23:59:59.000000000Z"),
            (4_107_542_399 * NANOS, "2100-02-28T23:59:59.000000000Z"),
            (4_107_542_400 * NANOS, "2100-03-01T00:00:00.000000000Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
        ] {
            assert_eq!(rfc3339(at).to_string(), text);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = date(-107_000);
        for days in -106_999..107_000 {
            let (year, month, day) = date(days);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let next_month =
                day == 1 && (month == last.1 + 1 && year == last.0 || month == 1 && last.1 == 12 && year == last.0 + 1);
            assert!(next_month || (year, month, day) == (last.0, last.1, last.2 + 1), "{days}");
            assert!(!(month == 2 && day == 29) || leap, "{days}");
            assert_eq!(super::days(year, month, day), days);
            last = (year, month, day);
        }
    }

    #[test]
    fn instants_are_written_for_people() {
        assert_eq!(rfc3339(0).to_string(), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_827_696_789_000_000).to_string(), "2000-02-29T12:34:56.789000000Z");
        assert_eq!(rfc3339(-1).to_string(), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn what_is_written_can_be_read() {
        for at in [0, 951_827_696_789_000_000, -1, 1_795_273_624_123_456_789, 1_709_164_800_000_000_001] {
            assert_eq!(from_rfc3339(&rfc3339(at).to_string()), Some(at));
        }
        assert_eq!(from_rfc3339("2000-02-29T13:34:56.789+01:00"), Some(951_827_696_789_000_000));
        assert_eq!(from_rfc3339("2000-02-29T12:34:56Z"), Some(951_827_696_000_000_000));
        for bad in ["", "T", "2000-02-29", "2000-13-01T00:00:00Z", "2000-02-29T12:34:56", "2000-02-29T12:34:56.Z", "x-y-zTa:b:cZ"] {
            assert_eq!(from_rfc3339(bad), None, "{bad}");
        }
    }
}
