//! The life of a container's first process from clone3(2) to execve(2). Nothing of it is another program's code: from
//! here to execve there are only system calls (R07), and hooks where the node's administrator or a device wants some.

use std::os::fd::OwnedFd;

use model::{
    container::Propagation,
    plan::{ContainerPlan, HookStage},
};
use rustix::fs::Mode;
use sys::{
    cgroup::Join,
    mount::{self, Change, Depth},
    ns::{self, Kinds, New},
    path::Root,
    process,
};

use crate::{
    Hooks, PodEnv, Stdio, cwd,
    error::{At, Failure, Step, refuse},
    identity,
    mounts::{Attached, Given, Masks, Sources, make_nodes_outside_dev, make_readonly, protect},
    program::Program,
    report::Reporter,
    terminal::{self, Terminal},
};

/// What the child needs beside the plan; made before the fork.
#[derive(Debug)]
pub(crate) struct Material {
    pub(crate) ground: Ground,
    pub(crate) stdio: Stdio,
    pub(crate) join: Join,
}

/// Mounts that were made before the fork.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) rootfs: OwnedFd,
    pub(crate) given: Given,
}

/// Never returns: becomes the container's program, or reports and exits.
pub(crate) fn run(env: &PodEnv, plan: &ContainerPlan, material: Material, reporter: Reporter) -> ! {
    let prepared = prepare(env, plan, material, &reporter);
    wait_for_start(prepared, plan, reporter)
}

/// The same for a process that was born inside of the pod's user namespace and can make no mounts: it gets them from a
/// builder ([`run_builder`]), by the supervisor. It is in its cgroup already.
pub(crate) fn run_member(plan: &ContainerPlan, stdio: Stdio, reporter: Reporter) -> ! {
    let prepared = prepare_member(plan, stdio, &reporter);
    wait_for_start(prepared, plan, reporter)
}

/// Never returns: makes a container's mounts, gives them to the pod's user namespace, and ends when it is told to.
pub(crate) fn run_builder(env: &PodEnv, plan: &ContainerPlan, ground: Ground, stdio: &Stdio, reporter: &Reporter) -> ! {
    match prepare_builder(env, plan, ground, stdio, reporter) {
        Ok(()) => {
            reporter.ready();
            reporter.wait_go();
            process::exit_now(0)
        }
        Err(failure) => give_up(reporter, &failure),
    }
}

fn wait_for_start(prepared: Step<Program>, plan: &ContainerPlan, reporter: Reporter) -> ! {
    match prepared {
        Ok(program) => {
            // `prepare` has dropped every descriptor that it owned; what else there is belongs to frames of the
            // supervisor's that never run in this process.
            let Ok(reporter) = reporter.alone() else { process::exit_now(128) };
            reporter.ready();
            if !reporter.wait_go() {
                process::exit_now(128);
            }
            match Hooks::of(plan).map_or(Ok(()), |hooks| hooks.run_inside()) {
                Ok(()) => launch(&program, &plan.process, &reporter),
                Err(failure) => give_up(&reporter, &failure),
            }
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
    identity::set_labels(&plan.process, &env.proc)?;
    rustix::process::setsid().at(|| "setsid".to_owned())?;
    let Material { ground, stdio, join } = material;
    let terminal = build(env, plan, ground, &stdio, reporter)?;
    // Not earlier: the device rules of the group may forbid to make the nodes.
    join.join().at(|| format!("join cgroup {:?}", plan.cgroup))?;
    go_inside(env, plan)?;
    if let Some(terminal) = &terminal {
        terminal.hand_over(reporter)?;
    }
    settle(plan, terminal.map(|terminal| terminal.slave), stdio, reporter)?;
    Ok(program)
}

fn prepare_member(plan: &ContainerPlan, stdio: Stdio, reporter: &Reporter) -> Step<Program> {
    process::reset_signals();
    die_with_parent()?;
    rustix::process::umask(Mode::empty());
    let program = Program::new(&plan.process)?;
    rustix::process::setsid().at(|| "setsid".to_owned())?;
    let Some((mounts, slave)) = reporter.wait_mounts() else { return refuse("enter mount namespace", "nobody has made one") };
    ns::enter_link(&mounts, Kinds::MOUNT).at(|| "setns(CLONE_NEWNS)".to_owned())?;
    unshare_cgroups(plan, New::empty())?;
    settle(plan, slave, stdio, reporter)?;
    Ok(program)
}

fn prepare_builder(env: &PodEnv, plan: &ContainerPlan, ground: Ground, stdio: &Stdio, reporter: &Reporter) -> Step<()> {
    process::reset_signals();
    die_with_parent()?;
    rustix::process::umask(Mode::empty());
    let terminal = build(env, plan, ground, stdio, reporter)?;
    let Some(userns) = &env.userns else { return refuse("enter user namespace", "the pod has none") };
    userns.enter()?;
    ns::unshare(New::NEWNS).at(|| "unshare(CLONE_NEWNS)".to_owned())?;
    terminal.map_or(Ok(()), |terminal| terminal.hand_over(reporter))
}

fn die_with_parent() -> Step<()> {
    let killed = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(killed).at(|| "set death signal".to_owned())
}

/// Everything that is mounted, and what takes the host's privileges besides. The calling process's root is then the
/// container's.
fn build(env: &PodEnv, plan: &ContainerPlan, ground: Ground, stdio: &Stdio, reporter: &Reporter) -> Step<Option<Terminal>> {
    env.own_files()?;
    let sources = Sources::prepare(env, plan, ground.given, reporter)?;
    // From here on nothing that is mounted travels to the host.
    mount::change_all(mount::Propagation::PRIVATE).at(|| "make mounts private".to_owned())?;
    let masks = Masks::new()?;
    let hooks = Hooks::of(plan);
    attach_root(env, &ground.rootfs, hooks.as_ref())?;
    // A clone of a directory on a shared mount is its peer; pivot_root(2) refuses such a root, and rightly so.
    let private = Change { propagation: Some(mount::Propagation::PRIVATE), ..Change::default() };
    mount::change(&ground.rootfs, Depth::Recursive, &private).at(|| "make root filesystem private".to_owned())?;
    let root = Root::from(ground.rootfs);
    let attached = sources.attach(&root)?;
    make_nodes_outside_dev(&root, plan)?;
    let owner = env.host_uid(plan.process.uid)?;
    let terminal = make_terminal(&attached, stdio, owner)?;
    // Before anything is hidden or read-only: to change what is in the root is what some of them are for.
    if let Some(hooks) = &hooks {
        run_hooks(env, hooks, reporter)?;
    }
    finish_mounts(plan, &root, &attached, &masks)?;
    pivot(plan, &root)?;
    if let Stdio::Io(io) = stdio {
        io.give_to(owner)?;
    }
    Ok(terminal)
}

/// Hooks inside of the mount namespace find the root by a path.
fn attach_root(env: &PodEnv, rootfs: &OwnedFd, hooks: Option<&Hooks>) -> Step<()> {
    let attached = match hooks {
        Some(hooks) => env.as_host(|| Ok(mount::attach_at(rootfs, hooks.root().as_path())))?,
        None => mount::attach_at(rootfs, c"/"),
    };
    attached.at(|| "attach root filesystem".to_owned())
}

fn run_hooks(env: &PodEnv, hooks: &Hooks, reporter: &Reporter) -> Step<()> {
    if hooks.any(&[HookStage::Prestart, HookStage::CreateRuntime]) && !reporter.hooks() {
        return refuse("wait for hooks", "the supervisor wants no container any more");
    }
    hooks.run_outside(env)
}

/// Into the pod's user namespace, if it has one, and into namespaces of the container's own that belong to it: a copy of all
/// its mounts, and the view of cgroups.
fn go_inside(env: &PodEnv, plan: &ContainerPlan) -> Step<()> {
    match &env.userns {
        Some(userns) => {
            userns.enter()?;
            unshare_cgroups(plan, New::NEWNS)
        }
        None => unshare_cgroups(plan, New::empty()),
    }
}

fn unshare_cgroups(plan: &ContainerPlan, mut new: New) -> Step<()> {
    new.set(New::NEWCGROUP, plan.own_cgroup_namespace);
    if new.is_empty() { Ok(()) } else { ns::unshare(new).at(|| format!("unshare({new:?})")) }
}

/// The last steps before the wait for the start: the process is in all its namespaces.
fn settle(plan: &ContainerPlan, terminal: Option<OwnedFd>, stdio: Stdio, reporter: &Reporter) -> Step<()> {
    cwd::enter(&plan.process.cwd)?;
    match (terminal, stdio) {
        (Some(slave), Stdio::Terminal) => terminal::control(&slave)?,
        (None, Stdio::Io(io)) => io.install()?,
        (Some(_), Stdio::Io(_)) | (None, Stdio::Terminal) => return refuse("stdio", "terminal or not: plan and caller differ"),
    }
    identity::assume(&plan.process, reporter)
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
