//! The life of a container's first process from clone3(2) to execve(2). Nothing of it is another program's code: from
//! here to execve there are only system calls (R07).

use std::os::fd::OwnedFd;

use model::{container::Propagation, plan::ContainerPlan};
use rustix::fs::Mode;
use sys::{
    cgroup::Join,
    mount::{self, Change, Depth},
    ns::{self, New},
    path::Root,
    process,
};

use crate::{
    PodEnv, Stdio, cwd,
    error::{At, Failure, Step, refuse},
    identity,
    mounts::{Attached, Given, Masks, Sources, make_nodes_outside_dev, make_readonly, protect},
    program::Program,
    report::Reporter,
    terminal::Terminal,
};

/// What the child needs beside the plan; made before the fork.
#[derive(Debug)]
pub(crate) struct Material {
    pub(crate) rootfs: OwnedFd,
    pub(crate) mounts: Vec<OwnedFd>,
    pub(crate) stdio: Stdio,
    pub(crate) shm: Option<OwnedFd>,
    pub(crate) join: Join,
}

/// Never returns: becomes the container's program, or reports and exits.
pub(crate) fn run(env: &PodEnv, plan: &ContainerPlan, material: Material, reporter: Reporter) -> ! {
    match prepare(env, plan, material, &reporter) {
        Ok(program) => {
            // `prepare` has dropped every descriptor that it owned; what else there is belongs to frames of the
            // supervisor's that never run in this process.
            let Ok(reporter) = reporter.alone() else { process::exit_now(128) };
            reporter.ready();
            if !reporter.wait_go() {
                process::exit_now(128);
            }
            launch(&program, &plan.process, &reporter)
        }
        Err(failure) => give_up(&reporter, &failure),
    }
}

/// The last steps of every process.
pub(crate) fn launch(program: &Program, plan: &model::plan::ProcessPlan, reporter: &Reporter) -> ! {
    let last = process::cloexec_from(3).at(|| "close_range".to_owned()).and_then(|()| identity::confine(plan));
    let failure = match last {
        Ok(()) => program.run(),
        Err(failure) => failure,
    };
    give_up(reporter, &failure)
}

pub(crate) fn give_up(reporter: &Reporter, failure: &Failure) -> ! {
    reporter.fail(failure);
    process::exit_now(if failure.exit_code == 0 { 128 } else { failure.exit_code })
}

fn prepare(env: &PodEnv, plan: &ContainerPlan, material: Material, reporter: &Reporter) -> Step<Program> {
    process::reset_signals();
    rustix::process::umask(Mode::empty());
    let program = Program::new(&plan.process)?;
    identity::set_oom_score(&plan.process, &env.proc, reporter)?;
    rustix::process::setsid().at(|| "setsid".to_owned())?;

    env.own_files()?;
    let sources = Sources::prepare(env, plan, Given { shm: material.shm, detached: material.mounts }, reporter)?;
    // From here on nothing that is mounted travels to the host.
    mount::change_all(mount::Propagation::PRIVATE).at(|| "make mounts private".to_owned())?;
    let masks = Masks::new()?;
    mount::attach_at(&material.rootfs, c"/").at(|| "attach root filesystem".to_owned())?;
    // A clone of a directory on a shared mount is its peer; pivot_root(2) refuses such a root, and rightly so.
    let private = Change { propagation: Some(mount::Propagation::PRIVATE), ..Change::default() };
    mount::change(&material.rootfs, Depth::Recursive, &private).at(|| "make root filesystem private".to_owned())?;
    let root = Root::from(material.rootfs);
    let attached = sources.attach(&root)?;
    make_nodes_outside_dev(&root, plan)?;

    // Not earlier: the device rules of the group may forbid to make the nodes.
    material.join.join().at(|| format!("join cgroup {:?}", plan.cgroup))?;
    let owner = env.host_uid(plan.process.uid)?;
    let terminal = make_terminal(&attached, &material.stdio, owner)?;
    finish_mounts(plan, &root, &attached, &masks)?;
    pivot(plan, &root)?;
    if let Stdio::Io(io) = &material.stdio {
        io.give_to(owner)?;
    }
    go_inside(env, plan)?;
    cwd::enter(&plan.process.cwd)?;
    match (terminal, material.stdio) {
        (Some(terminal), Stdio::Terminal) => terminal.install(reporter)?,
        (None, Stdio::Io(io)) => io.install()?,
        (Some(_), Stdio::Io(_)) | (None, Stdio::Terminal) => return refuse("stdio", "terminal or not: plan and caller differ"),
    }
    identity::assume(&plan.process, reporter)?;
    Ok(program)
}

/// Into the pod's user namespace, if it has one, and into namespaces of the container's own that belong to it: a copy of all
/// its mounts, and the view of cgroups. Everything that takes the host's privileges has been done.
fn go_inside(env: &PodEnv, plan: &ContainerPlan) -> Step<()> {
    let mut new = New::empty();
    new.set(New::NEWCGROUP, plan.own_cgroup_namespace);
    if let Some(userns) = &env.userns {
        userns.enter()?;
        new |= New::NEWNS;
    }
    if new.is_empty() { Ok(()) } else { ns::unshare(new).at(|| format!("unshare({new:?})")) }
}

fn make_terminal(attached: &Attached, stdio: &Stdio, owner: u32) -> Step<Option<Terminal>> {
    if matches!(stdio, Stdio::Io(_)) {
        return Ok(None);
    }
    let Some(devpts) = attached.devpts() else { return refuse("make terminal", "the plan has no /dev") };
    let terminal = Terminal::new(devpts, owner)?;
    attached.attach_console(&terminal.slave)?;
    Ok(Some(terminal))
}

/// What can be done only when all mount points exist.
pub(crate) fn finish_mounts(plan: &ContainerPlan, root: &Root, attached: &Attached, masks: &Masks) -> Step<()> {
    cwd::make(root, &plan.process.cwd)?;
    masks.hide(root, &plan.masked_paths)?;
    protect(root, &plan.readonly_paths)?;
    attached.seal()?;
    if plan.readonly_rootfs {
        make_readonly(root).at(|| "make root filesystem read-only".to_owned())?;
    }
    Ok(())
}

fn pivot(plan: &ContainerPlan, root: &Root) -> Step<()> {
    rustix::process::fchdir(root).at(|| "fchdir(root filesystem)".to_owned())?;
    mount::pivot_to_cwd().at(|| "pivot_root".to_owned())?;
    let propagation = match plan.root_propagation {
        Propagation::Private => return Ok(()),
        Propagation::HostToContainer => mount::Propagation::DOWNSTREAM,
        Propagation::Bidirectional => mount::Propagation::SHARED,
    };
    let change = Change { propagation: Some(propagation), ..Change::default() };
    mount::change(root, Depth::Top, &change).at(|| "set propagation of the root".to_owned())
}
