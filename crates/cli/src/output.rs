//! Tables, JSON, and quantities for people.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::error::{self, Error};

/// Between two columns.
const GAP: usize = 3;

/// A table as text: columns as wide as their widest cell, no blanks at the ends of lines.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column)).map(|cell| cell.chars().count());
    let widths: Vec<usize> =
        header.iter().enumerate().map(|(column, name)| cells(column).max().unwrap_or(0).max(name.len())).collect();
    let mut text = String::new();
    let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + GAP));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// To standard output.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(error::io("write to standard output"))
}

/// Texts to standard output, each on a line of its own.
pub(crate) fn lines(lines: impl IntoIterator<Item = String>) -> Result<(), Error> {
    print(&lines.into_iter().map(|line| line + "\n").collect::<String>())
}

/// One JSON document to standard output.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(Error::Json)?;
    print(&(text + "\n"))
}

/// Documents as docker inspects them: an array with four blanks a level.
pub(crate) fn array(values: &[serde_json::Value]) -> Result<(), Error> {
    if values.is_empty() {
        return print("[]\n");
    }
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    values.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter)).map_err(Error::Json)?;
    print(&(String::from_utf8_lossy(&text) + "\n"))
}

/// A remark to standard error.
pub(crate) fn note(text: &str) {
    writeln!(io::stderr(), "{text}").ok();
}

/// The first twelve digits of an id or digest.
pub(crate) fn short(id: &str) -> String {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    hex.chars().take(12).collect()
}

/// Bytes with at most three digits, as docker shows sizes in tables: powers of a thousand.
pub(crate) fn bytes(number: u64) -> String {
    model::size::decimal(number, 3)
}

/// Bytes with at most four digits, as docker shows sums of space.
pub(crate) fn space(number: u64) -> String {
    model::size::decimal(number, 4)
}

/// Bytes with at most four digits in powers of 1024, as docker shows memory.
pub(crate) fn binary(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    let before = if value >= 1000.0 {
        4
    } else if value >= 100.0 {
        3
    } else if value >= 10.0 {
        2
    } else {
        1
    };
    let text = format!("{value:.*}", 4 - before);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

/// How long ago an instant in nanoseconds since 1970 was.
pub(crate) fn age(nanoseconds: i64) -> String {
    span(since(nanoseconds))
}

/// The time since a point in time, in nanoseconds since 1970.
pub(crate) fn since(nanoseconds: i64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default()))
}

/// A span of time in its biggest unit, in docker's words.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        _ => match hours {
            0..=1 => "About an hour".to_owned(),
            2..48 => format!("{hours} hours"),
            48..336 => format!("{} days", hours / 24),
            336..1440 => format!("{} weeks", hours / 24 / 7),
            1440..17_520 => format!("{} months", hours / 24 / 30),
            _ => format!("{} years", hours / 24 / 365),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_as_wide_as_they_must_be() {
        let rows = [vec!["a".to_owned(), "long cell".to_owned()], vec!["bbbb".to_owned(), String::new()]];
        assert_eq!(table(&["X", "Y"], &rows), "X      Y\na      long cell\nbbbb\n");
        assert_eq!(table(&["X", "Y"], &[]), "X   Y\n");
    }

    #[test]
    fn quantities() {
        let cases =
            [(0, "0B"), (999, "999B"), (1000, "1kB"), (1_234_567, "1.23MB"), (99_960_000, "100MB"), (4_200_000_000, "4.2GB")];
        for (number, text) in cases {
            assert_eq!(bytes(number), text);
        }
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (90000, "25 hours"),
            (864_000, "10 days"),
            (1_300_000, "2 weeks"),
            (8_000_000, "3 months"),
            (200_000_000, "6 years"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!((space(1_234_567), space(3_000_000), space(0)), ("1.235MB".to_owned(), "3MB".to_owned(), "0B".to_owned()));
        for (number, text) in [(0, "0B"), (3 << 20, "3MiB"), (1_500_000_000, "1.397GiB"), (1023, "1023B"), (12_345_678, "11.77MiB")]
        {
            assert_eq!(binary(number), text);
        }
        assert_eq!(short(&format!("sha256:{}", "ab".repeat(32))), "abababababab");
    }
}
