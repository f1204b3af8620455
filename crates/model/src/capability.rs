//! Capabilities by name and number (capabilities(7), linux/capability.h).

/// Names in the order of their numbers, without `CAP_`.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// All capabilities that have a name, as a mask.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// The number of a capability: any case, with or without `CAP_`.
pub fn number(name: &str) -> Option<u32> {
    let bare = match name.get(..4) {
        Some(prefix) if prefix.eq_ignore_ascii_case("CAP_") => &name[4..],
        _ => name,
    };
    (0..).zip(NAMES).find(|(_, known)| known.eq_ignore_ascii_case(bare)).map(|(number, _)| number)
}

/// The mask of one capability by name.
pub fn mask(name: &str) -> Option<u64> {
    number(name).map(|number| 1 << number)
}

/// The names in a mask, in the order of their numbers, without `CAP_`. Bits without a name are left out.
pub fn names(mask: u64) -> impl Iterator<Item = &'static str> {
    NAMES.iter().enumerate().filter(move |(number, _)| mask & (1 << number) != 0).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree_with_the_kernels_header() {
        for (name, expected) in
            [("CHOWN", 0), ("cap_net_bind_service", 10), ("CAP_SYS_ADMIN", 21), ("Setfcap", 31), ("CHECKPOINT_RESTORE", 40)]
        {
            assert_eq!(number(name), Some(expected), "{name}");
        }
        for bad in ["", "CAP_", "ALL", "CAP_CAP_CHOWN", "CHOWN ", "CAP\u{e9}"] {
            assert_eq!(number(bad), None, "{bad}");
        }
        assert_eq!(names(1 | 1 << 40 | 1 << 63).collect::<Vec<_>>(), ["CHOWN", "CHECKPOINT_RESTORE"]);
    }
}
