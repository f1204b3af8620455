//! Classes of block I/O: what the administrator allows under a name, for the devices that are there now.

use std::{collections::BTreeMap, fs, os::unix::fs::FileTypeExt, os::unix::fs::MetadataExt, path::Path};

use model::{BlockDevice, BlockIo};

use super::error::Error;

/// One rule of a class. Without devices it is the class's weight for all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockIoRule {
    /// Absolute paths; the last part may have `*`, `?` and `[a-z]`.
    pub devices: Vec<String>,
    /// 10 to 1000.
    pub weight: Option<u16>,
    /// Bytes read per second.
    pub read_bps: Option<u64>,
    /// Bytes written per second.
    pub write_bps: Option<u64>,
    /// Reads per second.
    pub read_iops: Option<u64>,
    /// Writes per second.
    pub write_iops: Option<u64>,
}

/// Classes by name.
pub type BlockIoClasses = BTreeMap<String, Vec<BlockIoRule>>;

/// What a class means on this machine now.
///
/// # Errors
/// The configuration has no such class.
pub(crate) fn resolve(classes: &BlockIoClasses, class: &str) -> Result<BlockIo, Error> {
    let rules = classes.get(class).ok_or_else(|| Error::BlockIoClass(class.to_owned()))?;
    let mut found = BlockIo::default();
    for rule in rules {
        if rule.devices.is_empty() {
            found.weight = rule.weight.or(found.weight);
        }
        for path in rule.devices.iter().flat_map(|pattern| matching(pattern)) {
            if let Some((major, minor)) = block_device(&path) {
                lay(&mut found, BlockDevice { major, minor, ..of(rule) });
            }
        }
    }
    Ok(found)
}

fn of(rule: &BlockIoRule) -> BlockDevice {
    let BlockIoRule { weight, read_bps, write_bps, read_iops, write_iops, .. } = *rule;
    BlockDevice { weight, read_bps, write_bps, read_iops, write_iops, ..BlockDevice::default() }
}

/// A later rule for the same device wins where it says something.
fn lay(found: &mut BlockIo, newer: BlockDevice) {
    match found.devices.iter_mut().find(|device| (device.major, device.minor) == (newer.major, newer.minor)) {
        Some(device) => {
            *device = BlockDevice {
                weight: newer.weight.or(device.weight),
                read_bps: newer.read_bps.or(device.read_bps),
                write_bps: newer.write_bps.or(device.write_bps),
                read_iops: newer.read_iops.or(device.read_iops),
                write_iops: newer.write_iops.or(device.write_iops),
                ..*device
            };
        }
        None => found.devices.push(newer),
    }
}

/// The kernel limits whole devices only, and `*` finds their partitions too (block/blk-cgroup.c, blkg_conf_open_bdev).
fn block_device(path: &Path) -> Option<(u32, u32)> {
    let metadata = fs::metadata(path).ok().filter(|metadata| metadata.file_type().is_block_device())?;
    let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    let partition = Path::new("/sys/dev/block").join(format!("{major}:{minor}/partition")).exists();
    (!partition).then_some((major, minor))
}

fn matching(pattern: &str) -> Vec<std::path::PathBuf> {
    let path = Path::new(pattern);
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return Vec::new() };
    if !name.contains(['*', '?', '[']) {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|text| matches(name.as_bytes(), text.as_bytes())))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// glob(7) for one name.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|at| matches(rest, &text[at..])),
        ([b'[', rest @ ..], [first, after @ ..]) => match rest.iter().skip(1).position(|byte| *byte == b']') {
            Some(end) => in_set(&rest[..=end], *first) && matches(&rest[end + 2..], after),
            None => false,
        },
        ([b'?', rest @ ..], [_, after @ ..]) => matches(rest, after),
        ([byte, rest @ ..], [first, after @ ..]) => byte == first && matches(rest, after),
        ([], [_, ..]) | ([_, ..], []) => false,
    }
}

fn in_set(set: &[u8], byte: u8) -> bool {
    let (set, negated) = match set {
        [b'!', rest @ ..] if !rest.is_empty() => (rest, true),
        set => (set, false),
    };
    let mut at = 0;
    let mut found = false;
    while at < set.len() {
        match set[at..] {
            [low, b'-', high, ..] => {
                found |= (low..=high).contains(&byte);
                at += 3;
            }
            _ => {
                found |= set[at] == byte;
                at += 1;
            }
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("sda", "sda", true),
            ("sd[a-c]", "sdb", true),
            ("sd[a-c]", "sdd", false),
            ("sd[!a]", "sda", false),
            ("sd[!a]", "sdb", true),
            ("nvme*n?", "nvme0n1", true),
            ("nvme*n?", "nvme0n", false),
            ("*", "", true),
            ("sd[", "sd[", false),
            ("[]a]x", "]x", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn later_rules_win_and_classes_have_to_be_there() {
        let rule = |weight, read_bps| BlockIoRule { weight, read_bps, ..BlockIoRule::default() };
        let classes: BlockIoClasses = [("slow".to_owned(), vec![rule(Some(80), None), rule(Some(90), None)])].into();
        assert_eq!(resolve(&classes, "slow").unwrap(), BlockIo { weight: Some(90), devices: Vec::new() });
        assert!(resolve(&classes, "fast").unwrap_err().to_string().contains("fast"));
        let mut found = BlockIo::default();
        let device = |weight, read_bps| BlockDevice { major: 8, ..of(&rule(weight, read_bps)) };
        lay(&mut found, device(Some(10), Some(5)));
        lay(&mut found, device(None, Some(7)));
        assert_eq!(found.devices, [device(Some(10), Some(7))]);
    }

    #[test]
    fn only_block_devices_count() {
        let classes: BlockIoClasses =
            [("c".to_owned(), vec![BlockIoRule { devices: vec!["/dev/nul*".into(), "/nope".into()], ..Default::default() }])]
                .into();
        assert!(resolve(&classes, "c").unwrap().devices.is_empty());
    }
}
