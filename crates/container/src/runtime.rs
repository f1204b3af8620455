//! Running an OCI runtime, and what it finds: a container's mounts in its bundle, in a mount namespace that ends with it.
//!
//! The namespace is a slave of the host's: what is attached in it never shows on the host, and what the host mounts later
//! still travels into volumes that ask for it. Volumes from which mounts shall travel back are attached ready-made, as
//! peers of the host's. A cgroup v2 mount beside v1 is not in it: no limit is set there, runc would make groups in it that
//! nobody removes, and crun refuses to run.

use std::{os::fd::OwnedFd, path::Path};

use model::plan::{ContainerPlan, ProcessPlan, oci};
use rustix::{
    fs::Mode,
    process::{Signal, set_parent_process_death_signal},
};
use sys::{
    cgroup::Version,
    mount::{self, Change, Depth},
    ns::New,
    process::{self, Fork, Process},
};

use crate::{
    Error, Io, PodEnv,
    create::Created,
    error::{At, Step},
    identity, init,
    mounts::{Given, Sources},
    program::Program,
    report::{self, Reporter},
};

/// A command of a runtime.
#[derive(Debug)]
pub struct Command<'a> {
    /// The program's path on the host, and its arguments.
    pub args: &'a [String],
    /// Working directory.
    pub directory: &'a Path,
    /// What it reads and writes, and the container after it.
    pub io: Io,
    /// The process that the runtime makes, for its OOM score: the runtime cannot know whether lowering it is permitted.
    pub process: Option<&'a ProcessPlan>,
}

/// What the runtime makes a container from.
#[derive(Debug)]
pub struct Bundle<'a> {
    /// The plan.
    pub plan: &'a ContainerPlan,
    /// The root filesystem: a mount that is attached nowhere.
    pub rootfs: OwnedFd,
    /// The mounts of the plan's `MountKind::Detached`.
    pub mounts: Vec<OwnedFd>,
}

/// Starts a command; with a bundle its mounts are attached below the command's working directory. Comes back when the program
/// runs, with what was asked for and is not so.
///
/// # Errors
/// The step that failed; nothing is left of the process then.
pub fn run(env: &PodEnv, command: Command<'_>, bundle: Option<Bundle<'_>>) -> Result<(Process, Vec<String>), Error> {
    let shm = bundle.as_ref().map_or(Ok(None), |bundle| env.shm(bundle.plan))?;
    let (listener, reporter) = report::pair()?;
    let process = match process::fork(New::NEWNS, None).map_err(Error::call("clone3"))? {
        Fork::Child => become_runtime(env, command, bundle, shm, &reporter),
        Fork::Parent(process) => process,
    };
    drop((command, bundle, shm, reporter));
    let running = Created::new(process, listener).run()?;
    Ok((running.process, running.warnings))
}

/// A process that does nothing until it is killed, in place of a container that cannot be.
///
/// # Errors
/// clone3(2).
pub fn placeholder() -> Result<Process, Error> {
    match process::fork(New::empty(), None).map_err(Error::call("clone3"))? {
        Fork::Parent(process) => Ok(process),
        Fork::Child => {
            process::reset_signals();
            if set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
                process::exit_now(128);
            }
            process::idle_for_ever()
        }
    }
}

fn become_runtime(env: &PodEnv, command: Command<'_>, bundle: Option<Bundle<'_>>, shm: Option<OwnedFd>, reporter: &Reporter) -> ! {
    let failure = match prepare(env, command, bundle, shm, reporter) {
        Ok(program) => program.run(),
        Err(failure) => failure,
    };
    init::give_up(reporter, &failure)
}

fn prepare(
    env: &PodEnv,
    command: Command<'_>,
    bundle: Option<Bundle<'_>>,
    shm: Option<OwnedFd>,
    reporter: &Reporter,
) -> Step<Program> {
    process::reset_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let program = Program::of_host(command.args)?;
    if let Some(process) = command.process {
        identity::set_oom_score(process, &env.proc, reporter)?;
    }
    rustix::process::setsid().at(|| "setsid".to_owned())?;
    match bundle {
        Some(bundle) => attach(env, bundle, shm, command.directory, reporter)?,
        None => leave_the_host(env)?,
    }
    rustix::process::chdir(command.directory).at(|| format!("chdir({:?})", command.directory))?;
    command.io.install()?;
    // Nothing but standard files: what else a runtime inherits, its container could (CVE-2024-21626).
    process::cloexec_from(3).at(|| "close_range".to_owned())?;
    set_parent_process_death_signal(Some(Signal::KILL)).at(|| "prctl(PR_SET_PDEATHSIG)".to_owned())?;
    Ok(program)
}

fn attach(env: &PodEnv, bundle: Bundle<'_>, shm: Option<OwnedFd>, directory: &Path, reporter: &Reporter) -> Step<()> {
    let (places, mounts): (Vec<_>, Vec<_>) = bundle
        .plan
        .mounts
        .iter()
        .enumerate()
        .filter(|(_, mount)| mount.ready_made())
        .map(|(index, mount)| (directory.join(oci::mount(index)), mount.clone()))
        .unzip();
    let plan = ContainerPlan { mounts, ..bundle.plan.clone() };
    let sources = Sources::prepare(env, &plan, Given { shm, detached: bundle.mounts }, reporter)?;
    leave_the_host(env)?;
    let private = Change { propagation: Some(mount::Propagation::PRIVATE), ..Change::default() };
    mount::change(&bundle.rootfs, Depth::Recursive, &private).at(|| "make root filesystem private".to_owned())?;
    mount::attach_at(&bundle.rootfs, directory.join(oci::ROOTFS)).at(|| "attach root filesystem".to_owned())?;
    sources.attach_at(places)
}

/// From here on nothing that is mounted travels to the host, but the other way round it does.
fn leave_the_host(env: &PodEnv) -> Step<()> {
    mount::change_all(mount::Propagation::DOWNSTREAM).at(|| "make mounts slaves".to_owned())?;
    if env.hierarchies.version() == Version::V2 {
        return Ok(());
    }
    let step = || "hide cgroup v2".to_owned();
    let table = env.proc.read("self/mountinfo").at(step)?;
    let unified = table.lines().filter(|line| line.contains(" - cgroup2 "));
    unified.filter_map(|line| line.split(' ').nth(4)).try_for_each(|path| mount::detach(path).at(step))
}
