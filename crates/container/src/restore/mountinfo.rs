//! Mounts as /proc/PID/mountinfo lists them (proc_pid_mountinfo(5)).

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) id: u64,
    /// `major:minor` of the file system.
    pub(super) device: String,
    /// What of the file system is its top.
    pub(super) root: String,
    /// Where it is, below the reader's root.
    pub(super) place: String,
    pub(super) options: Vec<String>,
    /// It has peers, or a master.
    pub(super) travels: bool,
    pub(super) kind: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let fields: Vec<&str> = left.split(' ').collect();
        let [id, _, device, root, place, options, tags @ ..] = &fields[..] else { return None };
        let mut options: Vec<String> = options.split(',').map(str::to_owned).collect();
        options.sort();
        Some(Self {
            id: id.parse().ok()?,
            device: (*device).to_owned(),
            root: unescape(root),
            place: unescape(place),
            options,
            travels: !tags.is_empty(),
            kind: right.split(' ').next()?.to_owned(),
        })
    }

    /// procfs is of the PID namespace that it is mounted in, so it cannot be made before that is there.
    pub(super) fn is_proc(&self) -> bool {
        self.kind == "proc"
    }

    /// What has to be the same after a restore.
    fn essence(&self) -> (&str, &str, &str, &[String], bool, &str) {
        let device = if self.is_proc() { "" } else { &self.device };
        (&self.place, &self.kind, &self.root, &self.options, self.travels, device)
    }
}

/// All mounts of a table.
pub(super) fn parse(table: &str) -> Vec<Mount> {
    table.lines().filter_map(Mount::parse).collect()
}

/// The first mount by which two tables differ, and how.
pub(super) fn difference(expected: &[Mount], got: &[Mount]) -> Option<String> {
    let sorted = |mounts: &[Mount]| {
        let mut mounts = mounts.to_vec();
        mounts.sort_by(|a, b| a.essence().cmp(&b.essence()));
        mounts
    };
    let (expected, got) = (sorted(expected), sorted(got));
    let lacks =
        |a: &[Mount], b: &[Mount]| a.iter().find(|mount| !b.iter().any(|other| other.essence() == mount.essence())).cloned();
    let say = |mount: Mount, what: &str| {
        let Mount { place, kind, root, options, .. } = mount;
        format!("{what} {kind} {root:?} on {place:?} ({})", options.join(","))
    };
    if let Some(mount) = lacks(&got, &expected) {
        return Some(say(mount, "there is also a mount of"));
    }
    if let Some(mount) = lacks(&expected, &got) {
        return Some(say(mount, "there is no mount of"));
    }
    (expected.len() != got.len()).then(|| "a mount is there twice".to_owned())
}

/// Blanks, line breaks and backslashes are written `\040`.
fn unescape(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let number = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|d| u8::from_str_radix(d, 8).ok());
        match number {
            Some(byte) if *first == b'\\' => {
                plain.push(byte);
                rest = &after[3..];
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "69 71 0:43 / / rw,relatime - overlay overlay rw,lowerdir+=/
92 69 0:46 / /proc rw,nosuid - proc none rw
93 69 0:47 / /a\\040b\\134 ro,nosuid shared:3 master:2 - tmpfs none rw";

    #[test]
    fn a_table_is_read_and_compared() {
        let mounts = parse(TABLE);
        assert_eq!((mounts[2].id, mounts[2].place.as_str(), mounts[2].travels), (93, "/a b\\", true));
        assert_eq!(difference(&mounts, &mounts), None);
        // Another procfs is as good, another order too.
        let mut other = parse(&TABLE.replace("0:46", "0:99").replace("rw,nosuid", "nosuid,rw"));
        other.reverse();
        assert_eq!(difference(&mounts, &other), None);
        let less = difference(&mounts, &mounts[..2]).unwrap();
        assert!(less.starts_with("there is no mount of tmpfs"), "{less}");
        let more = difference(&mounts[..2], &mounts).unwrap();
        assert!(more.starts_with("there is also a mount of tmpfs"), "{more}");
        for (from, to) in
            [("ro,nosuid", "rw,nosuid"), ("0:47", "0:48"), ("0:47 /", "0:47 /x"), ("shared:3 master:2 ", ""), ("- tmpfs", "- ext4")]
        {
            assert!(difference(&mounts, &parse(&TABLE.replace(from, to))).is_some(), "{from}");
        }
        let twice = [&mounts[..], &mounts[..1]].concat();
        assert_eq!(difference(&mounts, &twice).unwrap(), "a mount is there twice");
    }
}
