//! Kernel parameters of a pod: only such as belong to a namespace of its own (R16), one write each.

use model::plan::PodPlan;
use sys::proc::Proc;

use crate::Error;

/// Parameters of the IPC namespace (ipc_namespaces(7)); `fs.mqueue.*` besides.
const IPC: [&str; 11] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.msg_next_id",
    "kernel.sem_next_id",
    "kernel.shm_next_id",
];

/// Which parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Those of the IPC namespace.
    Ipc,
    /// The others.
    Rest,
}

/// Whether the plan may set all that it says.
pub(crate) fn check(plan: &PodPlan) -> Result<(), Error> {
    plan.sysctls.iter().try_for_each(|(key, value)| admit(plan, key, value).map(drop))
}

/// Sets parameters of the plan, which has been checked, in the namespaces of the calling process.
pub(crate) fn apply(plan: &PodPlan, proc: &Proc, whose: Whose) -> Result<(), sys::Error> {
    let wanted = plan.sysctls.iter().filter(|(key, _)| (whose == Whose::Ipc) == is_ipc(key));
    wanted.into_iter().try_for_each(|(key, value)| proc.write(&path(key), value))
}

fn is_ipc(key: &str) -> bool {
    key.starts_with("fs.mqueue.") || IPC.contains(&key)
}

fn path(key: &str) -> String {
    format!("sys/{}", key.replace('.', "/"))
}

/// The file of a parameter, if the plan may set it.
fn admit(plan: &PodPlan, key: &str, value: &str) -> Result<String, Error> {
    let refuse = |why| Err(Error::Plan { what: format!("sysctl {:?}", key.chars().take(100).collect::<String>()), why });
    let plain = key
        .split('.')
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')));
    if !plain {
        return refuse("not a dotted name of letters, digits, \"_\" and \"-\"");
    }
    if value.contains(['\n', '\0']) || value.len() > 4000 {
        return refuse("the value is not one line");
    }
    let allowed = match key.split_once('.') {
        Some(("net", _)) => plan.own_network,
        Some(("kernel", "domainname")) => plan.hostname.is_some(),
        Some(_) if is_ipc(key) => plan.own_ipc,
        _ => return refuse("belongs to the node, not to a pod"),
    };
    if allowed { Ok(path(key)) } else { refuse("the pod has no namespace of its own for it") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(own: bool) -> PodPlan {
        PodPlan {
            own_network: own,
            own_ipc: own,
            hostname: own.then(|| "h".to_owned()),
            shared_pid: false,
            sysctls: [].into(),
            shm_size: 0,
            cgroup: "/x".to_owned(),
            domainname: None,
            joined: None,
            userns: None,
            mount_label: None,
        }
    }

    #[test]
    fn ex_20_only_what_belongs_to_the_pod_can_be_set() {
        for good in ["kernel.shm_rmid_forced", "net.ipv4.ip_forward", "fs.mqueue.msg_max", "kernel.domainname"] {
            assert_eq!(admit(&plan(true), good, "1").unwrap(), format!("sys/{}", good.replace('.', "/")));
            assert!(admit(&plan(false), good, "1").is_err(), "{good} would be the node's");
        }
        for bad in [
            "kernel.core_pattern",
            "kernel.shm_rmid_forced=1+kernel.core_pattern",
            "net/../kernel/core_pattern",
            "net...kernel.core_pattern",
            "net.",
            "net",
            "",
            "vm.swappiness",
            "net.ipv4.ip forward",
            "net.ipv4.x\n",
            "fs.file-max",
            "kernel.hostname",
        ] {
            assert!(admit(&plan(true), bad, "1").is_err(), "{bad:?}");
        }
        assert!(admit(&plan(true), "kernel.msgmax", "1\n2").is_err());
    }
}
