//! A process as the OCI runtime spec has it: main or exec.

use minicbor::bytes::ByteVec;
use model::{
    capability,
    plan::{IoPriority, ProcessPlan, Scheduler},
};
use serde_json::{Value, json};

use super::NotText;

/// Names of setrlimit(2)'s numbers (asm-generic/resource.h).
const RLIMITS: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

/// Flags of sched_setattr(2) by bit (linux/sched.h).
const SCHEDULER_FLAGS: [&str; 7] = [
    "SCHED_FLAG_RESET_ON_FORK",
    "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
];

/// The process. Its seccomp profile is the container's.
///
/// # Errors
/// An environment that JSON cannot hold.
pub(crate) fn process(plan: &ProcessPlan) -> Result<Value, NotText> {
    let mut user = json!({ "uid": plan.uid, "gid": plan.gid, "additionalGids": plan.groups });
    if let Some(umask) = plan.umask {
        user["umask"] = umask.into();
    }
    let limits = plan.rlimits.iter().filter_map(|limit| {
        let name = RLIMITS.get(usize::try_from(limit.resource).ok()?)?;
        Some(json!({ "type": name, "soft": limit.soft, "hard": limit.hard }))
    });
    let mut process = json!({
        "terminal": plan.tty,
        "user": user,
        "args": plan.args,
        "env": plan.env.iter().map(text).collect::<Result<Vec<_>, _>>()?,
        "cwd": plan.cwd,
        "capabilities": capabilities(plan),
        "rlimits": limits.collect::<Vec<_>>(),
        "noNewPrivileges": plan.no_new_privs,
    });
    if let Some(profile) = &plan.apparmor {
        process["apparmorProfile"] = profile.as_str().into();
    }
    if let Some(label) = &plan.selinux {
        process["selinuxLabel"] = label.as_str().into();
    }
    if let Some(priority) = plan.io_priority {
        process["ioPriority"] = io_priority(priority);
    }
    if let Some(scheduler) = plan.scheduler {
        process["scheduler"] = self::scheduler(&scheduler);
    }
    Ok(process)
}

/// runc knows it since 1.2, crun since 1.9; before, both pass over it.
fn io_priority(priority: IoPriority) -> Value {
    let class = ["IOPRIO_CLASS_NONE", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"].get(usize::from(priority.class));
    json!({ "class": class, "priority": priority.level })
}

/// As [`io_priority`].
fn scheduler(given: &Scheduler) -> Value {
    let policy = match given.policy {
        1 => "SCHED_FIFO",
        2 => "SCHED_RR",
        3 => "SCHED_BATCH",
        4 => "SCHED_ISO",
        5 => "SCHED_IDLE",
        6 => "SCHED_DEADLINE",
        _ => "SCHED_OTHER",
    };
    let flags: Vec<_> =
        SCHEDULER_FLAGS.iter().enumerate().filter(|(bit, _)| given.flags & (1 << bit) != 0).map(|(_, name)| name).collect();
    json!({
        "policy": policy,
        "nice": given.nice,
        "priority": given.priority,
        "flags": flags,
        "runtime": given.runtime,
        "deadline": given.deadline,
        "period": given.period,
    })
}

fn text(entry: &ByteVec) -> Result<&str, NotText> {
    std::str::from_utf8(entry).map_err(|_| {
        let name = entry.split(|byte| *byte == b'=').next().unwrap_or_default();
        NotText { name: String::from_utf8_lossy(name).chars().take(128).collect() }
    })
}

/// Ambient capabilities have to be inheritable; nothing else is (CVE-2022-24769).
fn capabilities(plan: &ProcessPlan) -> Value {
    let sets = plan.capabilities;
    let names = |mask: u64| capability::names(mask).map(|name| format!("CAP_{name}")).collect::<Vec<_>>();
    json!({
        "bounding": names(sets.bounding),
        "permitted": names(sets.permitted),
        "effective": names(sets.permitted),
        "inheritable": names(sets.ambient),
        "ambient": names(sets.ambient),
    })
}
