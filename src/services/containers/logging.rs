//! Where what containers of people say goes.

use api::creel as own;
use model::plan::LogLimit;
use tonic::Status;

use super::convert::{invalid, shown};

/// What is kept of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// The newest of it.
    Newest(LogLimit),
    /// Nothing.
    Nothing,
}

/// Drivers by docker's names. All logs that are kept are files of the engine, in CRI's format.
pub(super) fn of(host: &own::HostConfig) -> Result<Kept, Status> {
    let driver = match host.log_driver.as_str() {
        "" | "json-file" => "json-file",
        "local" => "local",
        "none" => "none",
        other => return Err(invalid(format!("logger: no log driver named '{}' is registered", shown(other)))),
    };
    let mut limit = LogLimit::default();
    for (name, value) in &host.log_options {
        match name.as_str() {
            "max-size" if driver != "none" => limit.file_bytes = size(value)?,
            "max-file" if driver != "none" => limit.files = files(value)?,
            _ => return Err(invalid(format!("unknown log opt '{}' for {driver} log driver", shown(name)))),
        }
    }
    Ok(if driver == "none" { Kept::Nothing } else { Kept::Newest(limit) })
}

/// Bytes with docker's decimal units; -1: there is no limit.
fn size(text: &str) -> Result<u64, Status> {
    let bad = || invalid(format!("invalid max-size: '{}' is not a size like 10m", shown(text)));
    if text == "-1" {
        return Ok(u64::MAX);
    }
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        _ => return Err(bad()),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(bad)
}

fn files(text: &str) -> Result<u32, Status> {
    match text.parse() {
        Ok(0) => Err(invalid("max-file cannot be less than 1")),
        Ok(files) => Ok(files),
        Err(_) => Err(invalid(format!("invalid max-file: '{}' is not a number", shown(text)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(driver: &str, options: &[(&str, &str)]) -> Result<Kept, Status> {
        let log_options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        of(&own::HostConfig { log_driver: driver.to_owned(), log_options, ..Default::default() })
    }

    #[test]
    fn drivers_and_their_options() {
        assert_eq!(with("", &[]).unwrap(), Kept::Newest(LogLimit { file_bytes: 100_000_000, files: 3 }));
        let asked = with("json-file", &[("max-size", "10m"), ("max-file", "5")]);
        assert_eq!(asked.unwrap(), Kept::Newest(LogLimit { file_bytes: 10_000_000, files: 5 }));
        assert_eq!(with("none", &[]).unwrap(), Kept::Nothing);
        assert_eq!(with("local", &[("max-size", "-1")]).unwrap(), Kept::Newest(LogLimit { file_bytes: u64::MAX, files: 3 }));
        for (driver, option, value) in [
            ("syslog", "max-size", "1m"),
            ("none", "max-size", "1m"),
            ("json-file", "compress", "true"),
            ("json-file", "max-size", "0"),
            ("json-file", "max-size", "1x"),
            ("json-file", "max-size", "99999999999999g"),
            ("json-file", "max-file", "0"),
            ("json-file", "max-file", "-1"),
        ] {
            assert!(with(driver, &[(option, value)]).is_err(), "{driver} {option}={value}");
        }
    }
}
