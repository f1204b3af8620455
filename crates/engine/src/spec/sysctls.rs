//! Sysctls that belong to a pod's own namespaces (R16). An allow-list: what a namespace does not own is the node's.

use std::collections::BTreeMap;

use super::error::{Error, cut};

/// The kernel's IPC sysctls that are per namespace (ipc/ipc_sysctl.c).
const IPC: [&str; 11] = [
    "auto_msgmni",
    "msg_next_id",
    "msgmax",
    "msgmnb",
    "msgmni",
    "sem",
    "sem_next_id",
    "shm_next_id",
    "shm_rmid_forced",
    "shmall",
    "shmmax",
];
const SHMMNI: &str = "shmmni";
const MAX: usize = 256;

/// Which namespaces the pod has for itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    pub(crate) network: bool,
    pub(crate) ipc: bool,
}

/// Checks all; nothing is changed.
///
/// # Errors
/// Names the key and why it may not be set.
pub(crate) fn check(sysctls: &BTreeMap<String, String>, own: Own) -> Result<(), Error> {
    sysctls.iter().try_for_each(|(key, value)| check_one(key, value, own).map_err(|why| Error::Sysctl { key: cut(key), why }))
}

fn check_one(key: &str, value: &str, own: Own) -> Result<(), &'static str> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if key.len() > MAX || !key.chars().all(word) || key.split('.').any(str::is_empty) {
        return Err("must be words of letters, digits, `_` and `-`, joined by dots");
    }
    if value.len() > MAX || value.chars().any(|c| c != '\t' && c.is_control()) {
        return Err("its value is too long or has control characters");
    }
    let ipc = |allowed: bool| match (allowed, own.ipc) {
        (true, true) => Ok(()),
        (true, false) => Err("needs an IPC namespace of the pod's own"),
        (false, _) => Err("is not of any namespace of a pod"),
    };
    match key.split_once('.') {
        Some(("net", _)) if own.network => Ok(()),
        Some(("net", _)) => Err("needs a network namespace of the pod's own"),
        Some(("kernel", name)) => ipc(IPC.contains(&name) || name == SHMMNI),
        Some(("fs", name)) => ipc(name.starts_with("mqueue.")),
        Some(_) | None => Err("is not of any namespace of a pod"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(key: &str, value: &str, network: bool, ipc: bool) -> Result<(), Error> {
        check(&[(key.to_owned(), value.to_owned())].into(), Own { network, ipc })
    }

    #[test]
    fn ex_20_what_a_namespace_owns_may_be_set() {
        for key in ["net.ipv4.ip_forward", "net.core.somaxconn", "net.ipv4.conf.eth0-1.rp_filter"] {
            checked(key, "1", true, false).unwrap();
            assert!(checked(key, "1", false, true).is_err(), "{key} on the host's network");
        }
        for key in ["kernel.shm_rmid_forced", "kernel.msgmax", "kernel.sem", "kernel.shmmni", "fs.mqueue.msg_max"] {
            checked(key, "250\t32000 32 128", false, true).unwrap();
            assert!(checked(key, "1", true, false).is_err(), "{key} with the host's IPC");
        }
    }

    #[test]
    fn ex_20_everything_else_is_refused() {
        for key in [
            "kernel.shm_rmid_forced=1+kernel.core_pattern",
            "kernel.core_pattern",
            "kernel.domainname",
            "kernel.hostname",
            "kernel.shm",
            "kernel.shm_rmid_forced.x",
            "net/../kernel/core_pattern",
            "net/ipv4/ip_forward",
            "net..ipv4",
            "net.",
            ".net",
            "net",
            "",
            "kernel.sem ",
            "kernel.sem\n",
            "net.ipv4\0",
            "vm.overcommit_memory",
            "fs.mqueue",
            "fs.file-max",
            "user.max_user_namespaces",
            &"net.a".repeat(100),
        ] {
            assert!(checked(key, "1", true, true).is_err(), "{key:?}");
        }
        for value in ["1\n", "1\0", &"1".repeat(1000)] {
            assert!(checked("kernel.msgmax", value, true, true).is_err(), "{value:?}");
        }
    }
}
