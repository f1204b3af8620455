//! Times as people write and read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::output;

/// Seconds since 1970 of an RFC 3339 time; fractions are dropped.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone_at);
    let numbers = |text: &str, separator: char| text.split(separator).map(|n| n.parse::<i64>().ok()).collect::<Option<Vec<_>>>();
    let date = numbers(date, '-')?;
    let clock = numbers(clock.split('.').next()?, ':')?;
    let ([year, month, day], [hour, minute, second]) = (date.as_slice(), clock.as_slice()) else { return None };
    let legal = (1..=9999).contains(year) && (1..=12).contains(month) && (1..=31).contains(day);
    if !legal || !(0..24).contains(hour) || !(0..60).contains(minute) || !(0..=60).contains(second) {
        return None;
    }
    let offset = match zone.strip_prefix(['+', '-']) {
        Some(away) => {
            let (hours, minutes) = away.split_once(':')?;
            let seconds = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
            if zone.starts_with('-') { -seconds } else { seconds }
        }
        None => 0,
    };
    Some(model::time::days(*year, *month, *day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

/// How long ago an RFC 3339 time was; `N/A` for what is none.
pub(crate) fn since(text: &str) -> String {
    let Some(then) = parse(text) else { return "N/A".to_owned() };
    format!("{} ago", output::span(Duration::from_secs(u64::try_from(now() - then).unwrap_or(0))))
}

/// A filter's time: RFC 3339, seconds since 1970, or how long ago (`24h`, `10m`).
pub(crate) fn point(text: &str) -> Option<i64> {
    if let Some(time) = parse(text).or_else(|| text.parse().ok()) {
        return Some(time);
    }
    Some(now() - ago(text)?)
}

/// Seconds of `1h30m`.
fn ago(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut ago: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        let (unit, after) = rest[digits..].split_at_checked(1)?;
        ago = ago.checked_add(number.checked_mul(match unit {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            "d" => 86_400,
            _ => return None,
        })?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(ago)
}

/// Nanoseconds since 1970 as RFC 3339 writes them, in UTC, with nine digits after the second.
pub(crate) fn rfc3339(nanoseconds: i64) -> String {
    model::time::rfc3339(nanoseconds).to_string()
}

/// A filter's time in nanoseconds since 1970, with the fraction of a second that it may have.
pub(crate) fn nanoseconds(text: &str) -> Option<i64> {
    if let Some((seconds, fraction)) = text.split_once('.')
        && let Ok(seconds) = seconds.parse::<i64>()
        && fraction.len() <= 9
        && fraction.bytes().all(|c| c.is_ascii_digit())
    {
        return seconds.checked_mul(1_000_000_000)?.checked_add(format!("{fraction:0<9}").parse().ok()?);
    }
    if let Some(ago) = ago(text) {
        // To the nanosecond: what has happened a moment ago was before now.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        return i64::try_from(now.as_nanos()).ok()?.checked_sub(ago.checked_mul(1_000_000_000)?);
    }
    let seconds = point(text)?.checked_mul(1_000_000_000)?;
    let digits = text.split_once('T').and_then(|(_, clock)| clock.split_once('.')).map_or("", |(_, rest)| rest);
    let digits: String = digits.chars().take_while(char::is_ascii_digit).take(9).collect();
    seconds.checked_add(format!("{digits:0<9}").parse().ok()?)
}

/// An instant as docker lists it: `2026-11-21 15:07:04 +0000 UTC`.
pub(crate) fn local(nanoseconds: i64) -> String {
    let text = rfc3339(nanoseconds);
    let seconds = text.split(['.', 'Z']).next().unwrap_or_default();
    format!("{} +0000 UTC", seconds.replace('T', " "))
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_while_ago_is_to_the_nanosecond() {
        let before = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        assert!(nanoseconds("0s").unwrap() >= before);
        assert!(nanoseconds("1m30s").unwrap() >= before - 90_000_000_000);
        for bad in ["s", "1x", "9999999999999999999h", "9223372036854775807h", "1\u{fc}"] {
            assert_eq!(nanoseconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_are_written() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_827_696_789_000_000), "2000-02-29T12:34:56.789000000Z");
        assert_eq!(parse(&rfc3339(1_795_273_624_000_000_001)), Some(1_795_273_624));
    }

    #[test]
    fn times_are_read() {
        assert_eq!(nanoseconds("2026-11-21T15:07:04.5Z"), Some(1_795_273_624_500_000_000));
        assert_eq!(
            (nanoseconds("5.000000001"), nanoseconds("7"), nanoseconds("x")),
            (Some(5_000_000_001), Some(7_000_000_000), None)
        );
        assert_eq!(local(1_795_273_624_500_000_000), "2026-11-21 15:07:04 +0000 UTC");
        assert_eq!(parse("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse("2026-11-21T15:07:04.123456789Z"), Some(1_795_273_624));
        assert_eq!(parse("2026-11-21T16:07:04+01:00"), Some(1_795_273_624));
        assert_eq!(parse("0001-01-01T00:00:00Z"), Some(-62_135_596_800));
        for bad in ["", "2026-11-21", "2026-13-01T00:00:00Z", "x", "2026-11-21T25:00:00Z", "2026-11-21T00:00:00"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!((since("nonsense"), point("5")), ("N/A".to_owned(), Some(5)));
        let hour = now() - point("1h").unwrap();
        assert!((3600..3602).contains(&hour), "{hour}");
        assert_eq!((point("1x"), point("h"), point("")), (None, None, None));
    }
}
