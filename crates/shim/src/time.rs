//! Wall-clock time, and how the log writes it.

use std::time::{SystemTime, UNIX_EPOCH};

use model::pod::Timestamp;

const NANOS: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// Nanoseconds since 1970.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Bytes of a time as the log writes it.
pub(crate) const LENGTH: usize = "2016-10-06T00:17:09.669794202Z".len();

/// RFC 3339 in UTC, always with nine digits of a second, so that times sort as text.
pub(crate) fn rfc3339(at: Timestamp) -> [u8; LENGTH] {
    let (seconds, nanos) = (at.div_euclid(NANOS), at.rem_euclid(NANOS));
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], second / 3600);
    digits(&mut text[14..16], second / 60 % 60);
    digits(&mut text[17..19], second % 60);
    digits(&mut text[20..29], nanos);
    text
}

fn digits(place: &mut [u8], mut value: i64) {
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
            assert_eq!(std::str::from_utf8(&rfc3339(at)).unwrap(), text);
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
            last = (year, month, day);
        }
    }
}
