//! Classes of block I/O: the file that `blockio_config` names. The keys are those that administrators know from other
//! engines (goresctrl), in TOML.

use std::{collections::BTreeMap, fs, io, path::Path, path::PathBuf};

use engine::spec::{BlockIoClasses, BlockIoRule};
use serde::Deserialize;

/// What the kernel takes as a weight (block/bfq-iosched.h; OCI runtime spec, config-linux.md#block-io).
const WEIGHT: std::ops::RangeInclusive<u16> = 10..=1000;

/// Why there are no classes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}", path.display())]
    Syntax { path: PathBuf, source: Box<toml::de::Error> },
    #[error("{}: class {class:?}: {why}", path.display())]
    Rule { path: PathBuf, class: String, why: String },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "Classes", default)]
    classes: BTreeMap<String, Vec<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Rule {
    #[serde(default)]
    devices: Vec<String>,
    weight: Option<u16>,
    throttle_read_bps: Option<Quantity>,
    throttle_write_bps: Option<Quantity>,
    #[serde(rename = "ThrottleReadIOPS")]
    throttle_read_iops: Option<Quantity>,
    #[serde(rename = "ThrottleWriteIOPS")]
    throttle_write_iops: Option<Quantity>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Quantity {
    Number(u64),
    Text(String),
}

/// The classes of a file; none if there is no name.
///
/// # Errors
/// It cannot be read, or says something that cannot be.
pub(crate) fn read(path: &Path) -> Result<BlockIoClasses, Error> {
    if path.as_os_str().is_empty() {
        return Ok(BlockIoClasses::new());
    }
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<BlockIoClasses, Error> {
    let file: File = toml::from_str(text).map_err(|source| Error::Syntax { path: path.to_owned(), source: Box::new(source) })?;
    let class = |(class, rules): (String, Vec<Rule>)| {
        let rules = rules.into_iter().map(rule).collect::<Result<_, _>>();
        match rules {
            Ok(rules) => Ok((class, rules)),
            Err(why) => Err(Error::Rule { path: path.to_owned(), class, why }),
        }
    };
    file.classes.into_iter().map(class).collect()
}

fn rule(rule: Rule) -> Result<BlockIoRule, String> {
    if let Some(weight) = rule.weight.filter(|weight| !WEIGHT.contains(weight)) {
        return Err(format!("Weight {weight} is not from 10 to 1000"));
    }
    if let Some(path) = rule.devices.iter().find(|path| !path.starts_with('/')) {
        return Err(format!("device {path:?} is not an absolute path"));
    }
    let read = BlockIoRule {
        weight: rule.weight,
        read_bps: quantity(rule.throttle_read_bps)?,
        write_bps: quantity(rule.throttle_write_bps)?,
        read_iops: quantity(rule.throttle_read_iops)?,
        write_iops: quantity(rule.throttle_write_iops)?,
        devices: rule.devices,
    };
    let throttles = [read.read_bps, read.write_bps, read.read_iops, read.write_iops].iter().any(Option::is_some);
    if throttles && read.devices.is_empty() {
        return Err("a rate needs Devices".to_owned());
    }
    Ok(read)
}

/// "50M" as in Kubernetes: k, M, G, T by thousands, Ki, Mi, Gi, Ti by 1024.
fn quantity(quantity: Option<Quantity>) -> Result<Option<u64>, String> {
    let text = match quantity {
        None => return Ok(None),
        Some(Quantity::Number(number)) => return Ok(Some(number)),
        Some(Quantity::Text(text)) => text,
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (base, power): (u64, u32) = match &text[digits.len()..] {
        "" => (1, 0),
        "k" => (1000, 1),
        "M" => (1000, 2),
        "G" => (1000, 3),
        "T" => (1000, 4),
        "Ki" => (1024, 1),
        "Mi" => (1024, 2),
        "Gi" => (1024, 3),
        "Ti" => (1024, 4),
        _ => return Err(format!("{text:?} is not a number with k, M, G, T, Ki, Mi, Gi or Ti")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a whole number"))?;
    number.checked_mul(base.pow(power)).map(Some).ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(text: &str) -> Result<BlockIoClasses, Error> {
        parse(Path::new("blockio.toml"), text)
    }

    #[test]
    fn classes_and_their_rules() {
        let text = r#"
            [[Classes.slow]]
            Weight = 80
            [[Classes.slow]]
            Devices = ["/dev/sd[a-z]"]
            ThrottleReadBps = "50M"
            ThrottleWriteIOPS = 100
            [[Classes.fast]]
            Weight = 1000
        "#;
        let read = classes(text).unwrap();
        let slow = &read["slow"];
        assert_eq!((slow[0].weight, slow[1].read_bps, slow[1].write_iops), (Some(80), Some(50_000_000), Some(100)));
        assert_eq!(read["fast"].len(), 1);
        assert!(read_nothing().is_empty());
    }

    fn read_nothing() -> BlockIoClasses {
        read(Path::new("")).unwrap()
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("[[Classes.a]]\nWeight = 5", "Weight 5"),
            ("[[Classes.a]]\nDevices = [\"sda\"]", "absolute"),
            ("[[Classes.a]]\nThrottleReadBps = 1", "needs Devices"),
            ("[[Classes.a]]\nDevices = [\"/dev/x\"]\nThrottleReadBps = \"5X\"", "5X"),
            ("[[Classes.a]]\nDevices = [\"/dev/x\"]\nThrottleReadBps = \"99999999999T\"", "too large"),
            ("[[Classes.a]]\nWieght = 5", "blockio.toml"),
        ] {
            let error = classes(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
