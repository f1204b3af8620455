//! creel-shim, the supervisor of one pod: parent of all its processes, keeper of their output and of how they ended.
//!
//! One thread, one epoll loop. A daemon may come and go; nothing here depends on one being there. Started as
//! `creel-shim --pod ID --run-dir DIR` (the pod's own run directory) with the listening socket as descriptor 0 (as inetd does it: the one way to be
//! given a descriptor that safe code can take) and a place for its own complaints as descriptor 2.
#![forbid(unsafe_code)]

mod capture;
mod cgroups;
mod connection;
mod console;
mod drain;
mod error;
mod executor;
mod exits;
mod hooks;
mod lines;
mod log;
mod message;
mod oom;
mod output;
mod poller;
mod requests;
mod runtime;
mod supervisor;
mod table;
mod time;

use std::{ffi::OsString, io::Write, os::fd::OwnedFd, path::PathBuf, process::ExitCode};

use model::PodId;
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::fcntl_dupfd_cloexec,
};

use crate::{error::Error, supervisor::Supervisor};

fn main() -> ExitCode {
    let outcome = arguments(std::env::args_os().skip(1))
        .ok_or_else(|| "usage: creel-shim --pod ID --run-dir DIR".to_owned())
        .and_then(|(_, run_dir)| run(run_dir).map_err(|error| error.chain()));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

/// The pod is there for people who look at the list of processes.
fn arguments(mut given: impl Iterator<Item = OsString>) -> Option<(PodId, PathBuf)> {
    let (mut pod, mut run_dir) = (None, None);
    while let Some(name) = given.next() {
        let value = given.next()?;
        match name.to_str()? {
            "--pod" => pod = Some(value.to_str()?.parse().ok()?),
            "--run-dir" => run_dir = Some(PathBuf::from(value)),
            _ => return None,
        }
    }
    Some((pod?, run_dir.filter(|dir| dir.is_absolute())?))
}

fn run(pod_dir: PathBuf) -> Result<(), Error> {
    outlive_containers();
    Supervisor::new(take_listener()?, pod_dir)?.run()
}

/// The supervisor is charged to the pod's cgroup, whose limit is that of its containers. A container of the Guaranteed class has
/// -997: without this the OOM killer would take the supervisor first, and the whole pod with it. Lowering needs
/// CAP_SYS_RESOURCE (proc_pid_oom_score_adj(5)), which an engine inside of a container may lack: nothing to be done then.
fn outlive_containers() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
}

/// Takes the socket from descriptor 0 and leaves /dev/null there, so that no process started here can inherit it.
fn take_listener() -> Result<OwnedFd, Error> {
    let failed = |step| move |source| Error::Sys { step, source };
    let listener = fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map_err(failed("fcntl(0, F_DUPFD_CLOEXEC)"))?;
    let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed("open /dev/null"))?;
    rustix::stdio::dup2_stdin(&null).map_err(failed("dup2(0)"))?;
    Ok(listener)
}

/// Says what went wrong where the daemon may find it.
pub(crate) fn complain(what: &str) {
    let at = model::time::rfc3339(time::now());
    // Nowhere to say that this failed.
    let _ = writeln!(std::io::stderr(), "{at} {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_exactly_these() {
        let id = "ab".repeat(32);
        let parse = |words: &[&str]| arguments(words.iter().map(OsString::from));
        assert_eq!(parse(&["--pod", &id, "--run-dir", "/run/creel"]).unwrap().1, std::path::Path::new("/run/creel"));
        for wrong in [
            &[][..],
            &["--pod", &id],
            &["--pod", "../..", "--run-dir", "/run"],
            &["--pod", &id, "--run-dir", "run"],
            &["--pod", &id, "--run-dir", "/run", "--more"],
            &["--pod", &id, "--run-dir", "/run", "--more", "x"],
        ] {
            assert!(parse(wrong).is_none(), "{wrong:?}");
        }
    }
}
