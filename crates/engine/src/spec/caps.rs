//! Capability sets: the field's default, what a client adds and drops, and what there is to give.

use model::{capability, container::SecuritySpec, plan::Capabilities};
use sys::Errno;

use super::error::{Error, cut};

/// What containerd and docker give by default.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The default set as a mask.
pub(crate) fn default_set() -> u64 {
    DEFAULT.iter().filter_map(|name| capability::mask(name)).sum()
}

/// What the engine can hand on: a supervisor gets its bounding set by execve(2) as root (capabilities(7)).
///
/// # Errors
/// /proc cannot be read.
pub(crate) fn available() -> Result<u64, Error> {
    let unreadable = |source| Error::Kernel { call: "read CapBnd of /proc/self/status", source };
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|e| unreadable(e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)))?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).ok_or_else(|| unreadable(Errno::INVAL))
}

/// The sets of a container's processes.
///
/// `ALL` comes before single names on both sides, so `drop: ALL, add: X` gives X, as everywhere in the field. Of the
/// default set and of `ALL` what is not available is left out; a single name that is not available is an error.
pub(crate) fn resolve(security: &SecuritySpec, available: u64) -> Result<Capabilities, Error> {
    let mut set = if security.privileged { available } else { default_set() & available };
    if !security.privileged {
        let (add_all, add) = names(&security.add_capabilities)?;
        let (drop_all, drop) = names(&security.drop_capabilities)?;
        if add_all {
            set = available;
        }
        if drop_all {
            set = 0;
        }
        if let Some(missing) = capability::names(add & !available).next() {
            let why = "the engine does not have it itself (its bounding set or the kernel lacks it)";
            return Err(Error::Capability { name: missing.to_owned(), why });
        }
        set = (set | add) & !drop;
    }
    let (ambient_all, ambient) = names(&security.ambient_capabilities)?;
    let ambient = if ambient_all { set } else { ambient };
    if let Some(missing) = capability::names(ambient & !set).next() {
        let why = "is to be ambient but is not among the container's capabilities";
        return Err(Error::Capability { name: missing.to_owned(), why });
    }
    Ok(Capabilities { bounding: set, permitted: set, ambient })
}

/// Whether `ALL` is among the names, and the mask of the others.
fn names(list: &[String]) -> Result<(bool, u64), Error> {
    let (mut all, mut set) = (false, 0);
    for name in list {
        if name.eq_ignore_ascii_case("ALL") {
            all = true;
        } else {
            set |= capability::mask(name).ok_or_else(|| Error::Capability { name: cut(name), why: "no such capability" })?;
        }
    }
    Ok((all, set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::security;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn resolved(add: &[&str], drop: &[&str], ambient: &[&str]) -> Result<Capabilities, Error> {
        let spec = SecuritySpec {
            add_capabilities: strings(add),
            drop_capabilities: strings(drop),
            ambient_capabilities: strings(ambient),
            ..security()
        };
        // A node without SYS_RESOURCE.
        resolve(&spec, capability::ALL & !(1 << 24))
    }

    #[test]
    fn ex_14_sets_are_the_golden_ones() {
        let bit = |name| capability::mask(name).unwrap();
        for (add, drop, expected) in [
            (&[][..], &[][..], 0xa804_25fb),
            (&["NET_ADMIN"], &[], 0xa804_25fb | bit("NET_ADMIN")),
            (&["cap_net_admin"], &["CAP_KILL"], (0xa804_25fb | bit("NET_ADMIN")) & !bit("KILL")),
            (&[], &["ALL"], 0),
            (&["NET_BIND_SERVICE"], &["ALL"], bit("NET_BIND_SERVICE")),
            (&["ALL"], &["SYS_ADMIN"], capability::ALL & !bit("SYS_RESOURCE") & !bit("SYS_ADMIN")),
            (&["ALL"], &["ALL"], 0),
            (&["KILL"], &["KILL"], 0xa804_25fb & !bit("KILL")),
        ] {
            let got = resolved(add, drop, &[]).unwrap();
            assert_eq!(got, Capabilities { bounding: expected, permitted: expected, ambient: 0 }, "+{add:?} -{drop:?}");
        }
        let privileged = resolve(&SecuritySpec { privileged: true, ..security() }, 0x1ff).unwrap();
        assert_eq!(privileged, Capabilities { bounding: 0x1ff, permitted: 0x1ff, ambient: 0 });
    }

    #[test]
    fn ambient_is_only_what_is_asked_for_and_there() {
        let bit = capability::mask("NET_BIND_SERVICE").unwrap();
        assert_eq!(resolved(&[], &[], &["NET_BIND_SERVICE"]).unwrap().ambient, bit);
        assert!(resolved(&[], &["ALL"], &["NET_BIND_SERVICE"]).is_err());
    }

    #[test]
    fn unknown_and_unavailable_names_are_refused() {
        for bad in ["", "NOPE", "CAP_", "NET ADMIN", "SYS_RESOURCE"] {
            assert!(resolved(&[bad], &[], &[]).is_err(), "{bad}");
        }
        assert!(resolved(&[], &["NOPE"], &[]).is_err());
        assert!(available().unwrap() != 0);
    }
}
