//! The process: its environment, limits, system calls, when it runs, and what runs beside it.

use ::nri::proto as p;
use minicbor::bytes::ByteVec;
use model::{
    container::EnvVar,
    plan::{Hook, HookStage, IoPriority, Rlimit, Scheduler},
};

use super::{Refusal, Target, unsupported};
use crate::spec;

/// Names of setrlimit(2)'s resources by their numbers.
pub(in crate::nri) const RLIMITS: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

impl Target<'_> {
    pub(super) fn env(&mut self, env: Vec<p::KeyValue>) -> Result<(), Refusal> {
        if env.is_empty() {
            return Ok(());
        }
        let removed: Vec<&str> = env.iter().filter_map(|entry| entry.key.strip_prefix('-')).collect();
        let added = env.iter().filter(|entry| !entry.key.starts_with('-'));
        let set: Vec<EnvVar> =
            added.map(|entry| EnvVar { name: entry.key.clone(), value: ByteVec::from(entry.value.clone().into_bytes()) }).collect();
        self.plan.process.env = spec::adjusted_env(&self.plan.process.env, &removed, &set).map_err(Refusal::spec("env"))?;
        Ok(())
    }

    pub(super) fn rlimits(&mut self, rlimits: Vec<p::PosixRlimit>) -> Result<(), Refusal> {
        for wanted in rlimits {
            let (remove, name) = match wanted.r#type.strip_prefix('-') {
                Some(name) => (true, name),
                None => (false, wanted.r#type.as_str()),
            };
            let place = RLIMITS.iter().position(|known| name.strip_prefix("RLIMIT_") == Some(known));
            let refuse = |why| Refusal::value("rlimits", name, why);
            let resource = place.and_then(|n| u32::try_from(n).ok()).ok_or_else(|| refuse("is no resource of setrlimit(2)"))?;
            self.plan.process.rlimits.retain(|known| known.resource != resource);
            if remove {
                continue;
            }
            if wanted.soft > wanted.hard {
                return Err(refuse("its soft limit is above its hard limit"));
            }
            self.plan.process.rlimits.push(Rlimit { resource, soft: wanted.soft, hard: wanted.hard });
        }
        Ok(())
    }

    pub(super) fn seccomp(&mut self, policy: &p::LinuxSeccomp) -> Result<(), Refusal> {
        if !policy.listener_path.is_empty() || !policy.listener_metadata.is_empty() {
            return unsupported("linux.seccomp_policy.listener_path");
        }
        if self.plan.oci.is_some() {
            return unsupported("linux.seccomp_policy with a handler that is an OCI runtime");
        }
        let bounding = self.plan.process.capabilities.bounding;
        let json = serde_json::to_vec(&seccomp_json(policy)).expect("a tree of strings and numbers");
        let program = spec::seccomp_program(&json, bounding).map_err(Refusal::spec("linux.seccomp_policy"))?;
        self.plan.process.seccomp = Some(program);
        Ok(())
    }

    pub(super) fn hooks(&mut self, hooks: p::Hooks) -> Result<(), Refusal> {
        let p::Hooks { prestart, create_runtime, create_container, start_container, poststart, poststop } = hooks;
        for (stage, list) in [
            (HookStage::Prestart, prestart),
            (HookStage::CreateRuntime, create_runtime),
            (HookStage::CreateContainer, create_container),
            (HookStage::StartContainer, start_container),
            (HookStage::Poststart, poststart),
            (HookStage::Poststop, poststop),
        ] {
            for hook in list {
                self.hooks.push(one_hook(stage, hook)?);
            }
        }
        Ok(())
    }
}

fn one_hook(stage: HookStage, hook: p::Hook) -> Result<Hook, Refusal> {
    let refuse = |why| Err(Refusal::value("hooks", &hook.path, why));
    if !hook.path.starts_with('/') {
        return refuse("its path must be absolute");
    }
    if [&hook.args, &hook.env].into_iter().flatten().chain([&hook.path]).any(|text| text.contains('\0')) {
        return refuse("has a NUL");
    }
    let timeout = hook.timeout.and_then(|timeout| u32::try_from(timeout.value).ok()).filter(|seconds| *seconds > 0);
    let timeout = timeout.unwrap_or(spec::HOOK_TIMEOUT).min(spec::HOOK_LIMIT);
    let args = if hook.args.is_empty() { vec![hook.path.clone()] } else { hook.args };
    Ok(Hook { stage, path: hook.path, args, env: hook.env, timeout })
}

pub(super) fn args(args: Vec<String>) -> Result<Vec<String>, Refusal> {
    match args.iter().find(|arg| arg.contains('\0')) {
        Some(arg) => Err(Refusal::value("args", arg, "has a NUL")),
        None => Ok(args),
    }
}

/// The numbers of the interface are the kernel's.
pub(super) fn io_priority(wanted: p::LinuxIoPriority) -> Result<IoPriority, Refusal> {
    let class = u8::try_from(wanted.class).ok().filter(|class| (1..=3).contains(class));
    let level = u8::try_from(wanted.priority).ok().filter(|level| *level < 8);
    match (class, level) {
        (Some(class), Some(level)) => Ok(IoPriority { class, level }),
        _ => {
            let value = format!("class {}, priority {}", wanted.class, wanted.priority);
            Err(Refusal::value("linux.io_priority", &value, "must be class 1 to 3 and priority 0 to 7"))
        }
    }
}

pub(super) fn scheduler(wanted: &p::LinuxScheduler) -> Result<Scheduler, Refusal> {
    use p::LinuxSchedulerPolicy as Policy;
    let refuse = |value: &str, why| Err(Refusal::value("linux.scheduler", value, why));
    let policy = match wanted.policy() {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => 6,
        other @ (Policy::SchedNone | Policy::SchedIso) => return refuse(other.as_str_name(), "is no policy of Linux"),
    };
    if !(-20..=19).contains(&wanted.nice) {
        return refuse(&format!("nice {}", wanted.nice), "must be -20 to 19");
    }
    let Some(priority) = u32::try_from(wanted.priority).ok().filter(|priority| *priority <= 99) else {
        return refuse(&format!("priority {}", wanted.priority), "must be 0 to 99");
    };
    // The interface counts the bits of sched.h.
    let flags = wanted.flags.iter().try_fold(0, |flags, bit| Some(flags | 1_u64.checked_shl(u32::try_from(*bit).ok()?)?));
    let Some(flags) = flags.filter(|flags| *flags < 1 << 7) else { return refuse("flags", "are not known") };
    let p::LinuxScheduler { nice, runtime, deadline, period, .. } = *wanted;
    Ok(Scheduler { policy, flags, nice, priority, runtime, deadline, period })
}

/// As `LinuxSeccomp` of the OCI runtime spec.
fn seccomp_json(policy: &p::LinuxSeccomp) -> serde_json::Value {
    let syscalls: Vec<_> = policy
        .syscalls
        .iter()
        .map(|rule| {
            let args = rule.args.iter();
            let args: Vec<_> = args
                .map(|arg| serde_json::json!({"index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op}))
                .collect();
            let mut json = serde_json::json!({"names": rule.names, "action": rule.action, "args": args});
            if let Some(errno) = rule.errno_ret {
                json["errnoRet"] = errno.value.into();
            }
            json
        })
        .collect();
    let mut json = serde_json::json!({
        "defaultAction": policy.default_action,
        "architectures": policy.architectures,
        "flags": policy.flags,
        "syscalls": syscalls,
    });
    if let Some(errno) = policy.default_errno {
        json["defaultErrnoRet"] = errno.value.into();
    }
    json
}
