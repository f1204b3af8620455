//! A container whose processes come out of criu's images instead of a program.
//!
//! The images are somebody else's bytes, and criu is root. So criu sees the host read-only, in a mount namespace of its own,
//! where the container's mounts are made as for any other container, from its plan; what the images name is matched with
//! those by their places. What criu made stands still then, and is asked of the kernel before anything of it runs
//! ([`verify`]): a process that is more than the plan allows never does.

mod mountinfo;
mod stage;
mod verify;

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt},
    time::Duration,
};

use model::{
    Signal,
    checkpoint::{self, RestorePlan},
    container::Propagation,
    plan::{ContainerPlan, MountKind},
    pod::PidMode,
};
use rustix::fs::{MemfdFlags, memfd_create};
use sys::{
    Errno,
    cgroup::Group,
    ns::New,
    process::{self, Exit, Fork, Pid, Process},
};

use crate::{Error, Io, PodEnv, create::Created, report};

/// How much is read of what criu complains about.
const COMPLAINTS: usize = 64 << 10;
/// For processes that have to go.
const KILL: Duration = Duration::from_secs(10);

/// What a container is made of beside its plan.
#[derive(Debug)]
pub struct Images<'a> {
    /// How its processes are made.
    pub restore: &'a RestorePlan,
    /// Its root filesystem: a mount that is attached nowhere.
    pub rootfs: OwnedFd,
    /// The mounts of the plan's `MountKind::Detached`.
    pub mounts: Vec<OwnedFd>,
    /// Where its processes read and write, if they still do where they did when they were captured.
    pub io: Io,
}

/// A restored container, whose processes stand still.
#[derive(Debug)]
pub struct Restored {
    /// The first of its processes, a child of the caller.
    pub process: Process,
    /// What was asked for and is not so.
    pub warnings: Vec<String>,
}

/// Makes a container's processes and leaves them stopped: none has run an instruction. On an error nothing is left of them but
/// children to collect.
///
/// # Errors
/// What cannot be restored at all, the step that failed, criu's own words, or what the processes are and must not be.
pub fn restore(env: &PodEnv, plan: &ContainerPlan, images: Images<'_>) -> Result<Restored, Error> {
    refuse(env, plan)?;
    let group = Group::new(&env.hierarchies, &plan.cgroup).map_err(Error::host("container's cgroup"))?;
    let limit = Duration::from_millis(images.restore.limit);
    let memory = |name: &str| memfd_create(name, MemfdFlags::CLOEXEC).map_err(Error::call("memfd_create"));
    let (expected, complaints) = (memory("mounts")?, memory("criu")?);
    let (criu, warnings) = run(env, plan, &group, images, (&expected, &complaints))?;
    let outcome = wait(&criu, limit, &complaints).and_then(|()| {
        let expected = text(&expected).map_err(Error::call("read expected mounts"))?;
        verify::verify(env, plan, &group, &expected)
    });
    match outcome.and_then(adopt) {
        Ok(process) => Ok(Restored { process, warnings }),
        Err(error) => {
            let _ = process::signal(&criu, Signal::KILL);
            let _ = group.kill_all(KILL);
            let _ = process::wait(&criu, KILL);
            Err(error)
        }
    }
}

/// Lets a restored container run.
///
/// # Errors
/// Its processes could not be signalled.
pub fn resume(env: &PodEnv, plan_cgroup: &str) -> Result<(), Error> {
    let group = Group::new(&env.hierarchies, plan_cgroup).map_err(Error::host("container's cgroup"))?;
    for pid in group.pids().map_err(Error::host("list restored processes"))? {
        // None of them has run, so none can have ended and left its number to a stranger.
        let Ok(process) = process::open(pid) else { continue };
        match process::signal(process, Signal::CONT) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(Error::call("pidfd_send_signal(SIGCONT)")(errno)),
        }
    }
    Ok(())
}

fn refuse(env: &PodEnv, plan: &ContainerPlan) -> Result<(), Error> {
    let bidirectional =
        |kind: &MountKind| matches!(kind, MountKind::Bind { propagation, .. } if *propagation != Propagation::Private);
    let why = match () {
        () if plan.pid != PidMode::Container => "only a PID namespace of the container's own can be restored",
        () if env.userns.is_some() => "a user namespace cannot be restored",
        () if plan.process.tty => "a terminal cannot be restored",
        () if plan.process.apparmor.is_some() || plan.process.selinux.is_some() => {
            "confinement by a security module cannot be restored"
        }
        () if plan.oci.is_some() => "only containers of the native handler can be restored",
        () if plan.root_propagation != Propagation::Private => "mounts that travel cannot be restored",
        () if plan.mounts.iter().any(|mount| bidirectional(&mount.kind)) => "mounts that travel cannot be restored",
        () => return Ok(()),
    };
    Err(Error::Plan { what: "restore".to_owned(), why })
}

/// Starts criu.
fn run(
    env: &PodEnv,
    plan: &ContainerPlan,
    group: &Group,
    images: Images<'_>,
    (expected, complaints): (&OwnedFd, &OwnedFd),
) -> Result<(Process, Vec<String>), Error> {
    let join = group.open_join().map_err(Error::host("open container's cgroup"))?;
    let shm = env.shm(plan)?;
    let material = stage::Material { images, shm, join, expected, complaints };
    let (listener, reporter) = report::pair()?;
    let process = match process::fork(New::NEWNS, None).map_err(Error::call("clone3"))? {
        Fork::Child => stage::run(env, plan, material, &reporter),
        Fork::Parent(process) => process,
    };
    drop((material, reporter));
    let running = Created::new(process, listener).run()?;
    Ok((running.process, running.warnings))
}

fn wait(criu: &Process, limit: Duration, complaints: &OwnedFd) -> Result<(), Error> {
    match process::wait(criu, limit) {
        Ok(Exit::Code(0)) => Ok(()),
        Ok(exit) => Err(Error::Restore { why: said(complaints).unwrap_or_else(|| format!("it ended ({exit:?})")) }),
        Err(Errno::TIMEDOUT) => Err(Error::Deadline { what: "restoring the processes", limit }),
        Err(errno) => Err(Error::call("wait for criu")(errno)),
    }
}

fn said(log: &OwnedFd) -> Option<String> {
    checkpoint::complaint(&text(log).ok()?)
}

fn text(memory: &OwnedFd) -> Result<String, Errno> {
    let file = File::from(memory.try_clone().map_err(|_| Errno::MFILE)?);
    let mut bytes = vec![0; 4 << 20];
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
    let start = if length > COMPLAINTS && length == bytes.len() { length - COMPLAINTS } else { 0 };
    Ok(String::from_utf8_lossy(&bytes[start..length]).into_owned())
}

/// It is our child, so its number is its own until we collect it.
fn adopt(root: Pid) -> Result<Process, Error> {
    Ok(Process { pid: root, pidfd: process::open(root).map_err(Error::call("pidfd_open"))? })
}
