//! Who a process is: limits, user, groups, capabilities, seccomp. The order is the point (R10, R11, R18).

use model::plan::ProcessPlan;
use rustix::{
    process::{Signal, set_parent_process_death_signal, umask},
    thread::{Gid, Uid, set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use sys::{Errno, caps, proc::Proc, rlimit, sched, seccomp};

use crate::{
    error::{At, Step, refuse},
    report::Reporter,
};

/// Sets the OOM killer's preference. Lowering it needs CAP_SYS_RESOURCE, which an engine inside of a container may lack;
/// the container can live without. Called while `proc` still shows the calling process.
pub(crate) fn set_oom_score(plan: &ProcessPlan, proc: &Proc, reporter: &Reporter) -> Step<()> {
    let Some(score) = plan.oom_score_adj else { return Ok(()) };
    match proc.write("self/oom_score_adj", &score.to_string()) {
        Err(error) if matches!(error.errno(), Some(Errno::ACCESS | Errno::PERM)) => {
            reporter.warn(&format!("oom_score_adj {score} is not permitted here"));
            Ok(())
        }
        other => other.at(|| format!("set oom_score_adj {score}")),
    }
}

/// Says what execve(2) turns the process into for AppArmor and SELinux. No program runs before the container's, so it does
/// not matter how early; but `proc` must still show the calling process, and nothing of the container be mounted over it
/// (R04). What was written is read again: a process that would run unconfined must not run.
pub(crate) fn set_labels(plan: &ProcessPlan, proc: &Proc) -> Step<()> {
    if let Some(profile) = &plan.apparmor {
        let step = || format!("set AppArmor profile {profile:?}");
        // A directory of its own since Linux 5.1, beside SELinux's files.
        let file = match proc.read("self/attr/apparmor/exec") {
            Ok(_) => "self/attr/apparmor/exec",
            Err(_) => "self/attr/exec",
        };
        proc.write(file, &format!("exec {profile}")).at(step)?;
        let now = proc.read(file).at(step)?;
        if now.trim_end().rsplit_once(" (").is_none_or(|(name, _)| name != profile) {
            return refuse(step(), format!("the kernel says {:?}", now.trim_end()));
        }
    }
    let Some(label) = &plan.selinux else { return Ok(()) };
    let step = || format!("set SELinux label {label:?}");
    proc.write("self/attr/exec", label).at(step)?;
    let now = proc.read("self/attr/exec").at(step)?;
    if now.trim_end_matches(['\0', '\n']) == label { Ok(()) } else { refuse(step(), format!("the kernel says {now:?}")) }
}

/// Becomes who the plan says. With no_new_privs the filter comes later ([`confine`]), as close to execve as can be;
/// without, it can be installed only while the process still has CAP_SYS_ADMIN, so the filter has to allow what follows.
pub(crate) fn assume(plan: &ProcessPlan, reporter: &Reporter) -> Step<()> {
    for limit in &plan.rlimits {
        rlimit::set(limit.resource, limit.soft, limit.hard)
            .at(|| format!("set rlimit {} to {}:{}", limit.resource, limit.soft, limit.hard))?;
    }
    schedule(plan)?;
    let wanted = plan.capabilities;
    caps::bound(wanted.bounding).at(|| "drop bounding set".to_owned())?;
    if !plan.no_new_privs {
        install_filter(plan)?;
    }
    set_keep_capabilities(true).at(|| "prctl(PR_SET_KEEPCAPS)".to_owned())?;
    set_ids(plan)?;
    set_keep_capabilities(false).at(|| "prctl(PR_SET_KEEPCAPS)".to_owned())?;
    set_capabilities(plan, reporter)?;
    if plan.no_new_privs {
        set_no_new_privs(true).at(|| "prctl(PR_SET_NO_NEW_PRIVS)".to_owned())?;
    }
    umask(rustix::fs::Mode::from_raw_mode(plan.umask.unwrap_or(0o022)));
    // After the change of user, which clears it (prctl(2)).
    set_parent_process_death_signal(Some(Signal::KILL)).at(|| "prctl(PR_SET_PDEATHSIG)".to_owned())
}

/// While the process may: both can need CAP_SYS_NICE.
fn schedule(plan: &ProcessPlan) -> Step<()> {
    if let Some(model::plan::Scheduler { policy, flags, nice, priority, runtime, deadline, period }) = plan.scheduler {
        let attributes = sched::Attributes { size: 0, policy, flags, nice, priority, runtime, deadline, period };
        sched::set(attributes).at(|| format!("sched_setattr(policy {policy}, nice {nice}, priority {priority})"))?;
    }
    match plan.io_priority {
        Some(io) => sched::set_io_priority(io.class, io.level).at(|| format!("ioprio_set(class {}, {})", io.class, io.level)),
        None => Ok(()),
    }
}

/// The filter of a process with no_new_privs: nothing of ours but execve and the report of its failure comes after it.
pub(crate) fn confine(plan: &ProcessPlan) -> Step<()> {
    if plan.no_new_privs { install_filter(plan) } else { Ok(()) }
}

fn install_filter(plan: &ProcessPlan) -> Step<()> {
    plan.seccomp.as_ref().map_or(Ok(()), |program| seccomp::install(program).at(|| "install seccomp filter".to_owned()))
}

fn set_ids(plan: &ProcessPlan) -> Step<()> {
    let mut groups: Vec<Gid> = plan.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    if !groups.contains(&gid) {
        // A file that denies a group is open to a process that has it only as its primary one and drops that.
        groups.push(gid);
    }
    set_thread_groups(&groups).at(|| format!("setgroups({:?})", plan.groups))?;
    set_thread_res_gid(gid, gid, gid).at(|| format!("setresgid({})", plan.gid))?;
    set_thread_res_uid(uid, uid, uid).at(|| format!("setresuid({})", plan.uid))
}

/// A privileged container asks for everything, also where the engine itself does not have it.
fn set_capabilities(plan: &ProcessPlan, reporter: &Reporter) -> Step<()> {
    let wanted = plan.capabilities;
    let have = caps::permitted().at(|| "capget".to_owned())?;
    let lacking = wanted.permitted & !have & caps::known().at(|| "prctl(PR_CAPBSET_READ)".to_owned())?;
    if lacking != 0 {
        reporter.warn(&format!("capabilities {lacking:#x} are not permitted here"));
    }
    let permitted = wanted.permitted & have;
    let ambient = wanted.ambient & permitted;
    // The kernel wants ambient capabilities inheritable as well; without any, nothing is inheritable (CVE-2022-24769).
    caps::set(permitted, ambient).at(|| format!("capset({permitted:#x})"))?;
    caps::set_ambient(ambient).at(|| format!("set ambient capabilities {ambient:#x}"))
}
