//! The process that becomes criu: it makes the container's mounts from the plan, lays each where criu can take it, and shows
//! criu nothing of the host that could be written to.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use model::{checkpoint::RestorePlan, plan::ContainerPlan};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, fstat, mkdir, openat},
    process::{Signal, set_parent_process_death_signal},
};
use sys::{
    Errno,
    cgroup::Join,
    mount::{self, Attributes, Change, Depth, Filesystem},
    ns::{self, New},
    path::{Links, Root},
    process,
};

use super::{
    Images,
    mountinfo::{self, Mount},
};
use crate::{
    Io, PodEnv,
    error::{At, Step, refuse},
    identity,
    init::{self, finish_mounts},
    mounts::{Given, Masks, Sources, make_nodes_outside_dev},
    program::Program,
    report::Reporter,
};

/// What the process needs beside the plan; made before the fork.
#[derive(Debug)]
pub(super) struct Material<'a> {
    pub(super) images: Images<'a>,
    pub(super) shm: Option<OwnedFd>,
    pub(super) join: Join,
    /// Takes the table of mounts that the container is to have.
    pub(super) expected: &'a OwnedFd,
    /// Takes what criu says.
    pub(super) complaints: &'a OwnedFd,
}

/// Never returns: becomes criu, or reports and exits.
pub(super) fn run(env: &PodEnv, plan: &ContainerPlan, material: Material<'_>, reporter: &Reporter) -> ! {
    let failure = match prepare(env, plan, material, reporter) {
        Ok(program) => program.run(),
        Err(failure) => failure,
    };
    init::give_up(reporter, &failure)
}

fn prepare(env: &PodEnv, plan: &ContainerPlan, material: Material<'_>, reporter: &Reporter) -> Step<Program> {
    let Material { images, shm, join, expected, complaints } = material;
    let Images { restore, rootfs, mounts, io } = images;
    process::reset_signals();
    rustix::process::umask(Mode::empty());
    identity::set_oom_score(&plan.process, &env.proc, reporter)?;
    rustix::process::setsid().at(|| "setsid".to_owned())?;

    let sources = Sources::prepare(env, plan, Given { shm, detached: mounts }, reporter)?;
    mount::change_all(mount::Propagation::PRIVATE).at(|| "make mounts private".to_owned())?;
    let stage = Stage::new(&restore.stage)?;
    let masks = Masks::new()?;
    let root = stage.attach_root(rootfs)?;
    let attached = sources.attach(&root)?;
    make_nodes_outside_dev(&root, plan)?;
    join.join().at(|| format!("join cgroup {:?}", plan.cgroup))?;
    finish_mounts(plan, &root, &attached, &masks)?;
    // The masks' own mount, on top of the procfs that criu needs.
    mount::detach(c"/proc").at(|| "detach masks".to_owned())?;
    // Before there is a cgroup namespace: tables say where a cgroup is as seen from the reader's.
    let table = stage.mounts(env)?;
    write_table(expected, &table)?;
    if plan.own_cgroup_namespace {
        ns::unshare(New::NEWCGROUP).at(|| "unshare(CLONE_NEWCGROUP)".to_owned())?;
    }
    let external = stage.lay_out(&root, &mountinfo::parse(&table))?;

    rustix::process::chdir(stage.work()).at(|| "chdir to the stage".to_owned())?;
    // Nothing but what is named from here on: what else criu inherits, its processes could.
    process::cloexec_from(3).at(|| "close_range".to_owned())?;
    let mut args = arguments(restore, &stage, &external);
    inherit(&mut args, [&io.stdin, &io.stdout, &io.stderr], &restore.streams)?;
    let complaints = complaints.try_clone().map_err(|_| Errno::MFILE).at(|| "dup".to_owned())?;
    Io { stdin: null()?, stdout: null()?, stderr: complaints }.install()?;
    set_parent_process_death_signal(Some(Signal::KILL)).at(|| "prctl(PR_SET_PDEATHSIG)".to_owned())?;
    Program::of_host(&args)
}

fn null() -> Step<OwnedFd> {
    openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).at(|| "open /dev/null".to_owned())
}

fn arguments(restore: &RestorePlan, stage: &Stage, external: &[(String, PathBuf)]) -> Vec<String> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let mut args: Vec<String> = [restore.criu.as_str(), "restore", "-v1", "--no-default-config"].map(str::to_owned).into();
    args.extend(["--images-dir".to_owned(), restore.images.clone(), "--work-dir".into(), text(stage.work())]);
    // A directory without plugins: what they do is decided by images too.
    args.extend(["--libdir".to_owned(), text(stage.work()), "--root".into(), text(stage.root())]);
    let flags =
        ["--restore-detached", "--restore-sibling", "--leave-stopped", "--manage-cgroups=ignore", "--tcp-close", "--file-locks"];
    args.extend(flags.map(str::to_owned));
    for (place, source) in external {
        args.extend(["--external".to_owned(), format!("mnt[{place}]:{}", source.display())]);
    }
    args
}

/// Copies the streams to numbers that criu finds them by. The copies are not close-on-exec.
fn inherit(args: &mut Vec<String>, streams: [&OwnedFd; 3], names: &[String; 3]) -> Step<()> {
    for (fd, name) in streams.into_iter().zip(names).filter(|(_, name)| !name.is_empty()) {
        let copy = rustix::io::dup(fd).at(|| "dup(stream)".to_owned())?;
        args.extend(["--inherit-fd".to_owned(), format!("fd[{}]:{name}", copy.as_raw_fd())]);
        // Open until execve, and after it.
        std::mem::forget(copy);
    }
    Ok(())
}

fn write_table(to: &OwnedFd, table: &str) -> Step<()> {
    let mut bytes = table.as_bytes();
    while !bytes.is_empty() {
        let written = rustix::io::write(to, bytes).at(|| "write table of mounts".to_owned())?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// A tmpfs that only this process and criu see: `root` the container as it is to be, `top` its root alone, `part` its other
/// mounts, each alone, `work` for criu.
struct Stage(PathBuf);

impl Stage {
    /// Makes it, with everything else of the host made read-only, but for what criu needs: it makes mount points in /tmp and
    /// sets up its processes through procfs.
    fn new(place: &str) -> Step<Self> {
        let step = || format!("make stage {place:?}");
        let kept = [c"/tmp", c"/proc"].map(|path| mount::clone_path(path, Depth::Top).map(|mount| (path, mount)));
        let host = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at(step)?;
        let readonly = Change { set: Attributes::MOUNT_ATTR_RDONLY, ..Change::default() };
        mount::change(host, Depth::Recursive, &readonly).at(|| "make the host read-only for criu".to_owned())?;
        for kept in kept {
            let (path, mount) = kept.at(step)?;
            mount::attach_at(&mount, path).at(step)?;
        }
        let flags = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV;
        let tmpfs = Filesystem::open("tmpfs").and_then(|tmpfs| tmpfs.set("mode", "700")?.mount(flags)).at(step)?;
        mount::attach_at(&tmpfs, place).at(step)?;
        let stage = Self(PathBuf::from(place));
        for name in ["root", "top", "part", "work"] {
            mkdir(stage.0.join(name), Mode::from_raw_mode(0o700)).at(step)?;
        }
        Ok(stage)
    }

    fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    fn root(&self) -> PathBuf {
        self.0.join("top")
    }

    fn attach_root(&self, rootfs: OwnedFd) -> Step<Root> {
        mount::attach_at(&rootfs, self.0.join("root")).at(|| "attach root filesystem".to_owned())?;
        let private = Change { propagation: Some(mount::Propagation::PRIVATE), ..Change::default() };
        mount::change(&rootfs, Depth::Recursive, &private).at(|| "make root filesystem private".to_owned())?;
        Ok(Root::from(rootfs))
    }

    /// The container's table of mounts, as it will see it itself.
    fn mounts(&self, env: &PodEnv) -> Step<String> {
        let table = env.proc.read("self/mountinfo").at(|| "read mounts".to_owned())?;
        let prefix = self.0.join("root").to_string_lossy().replace('\\', "\\134").replace(' ', "\\040");
        let mut lines = String::new();
        for line in table.lines() {
            let mut fields: Vec<&str> = line.split(' ').collect();
            let Some(inside) = fields.get(4).and_then(|place| place.strip_prefix(&prefix)) else { continue };
            match inside {
                "" => fields[4] = "/",
                inside if inside.starts_with('/') => fields[4] = inside,
                _ => continue,
            }
            lines.push_str(&fields.join(" "));
            lines.push('\n');
        }
        Ok(lines)
    }

    /// Lays each mount, without what is on top of it, at a place of its own: the mounts by what criu's images call them.
    fn lay_out(&self, root: &Root, mounts: &[Mount]) -> Step<Vec<(String, PathBuf)>> {
        let top = mount::clone_fd(root, Depth::Top).at(|| "clone root filesystem".to_owned())?;
        mount::attach_at(&top, self.root()).at(|| "attach root filesystem alone".to_owned())?;
        let mut laid = Vec::new();
        for (index, one) in mounts.iter().enumerate().filter(|(_, mount)| mount.place != "/" && !mount.is_proc()) {
            let step = || format!("lay out mount {:?}", one.place);
            if mounts.iter().filter(|other| other.place == one.place).count() > 1 {
                return refuse(step(), "two mounts are on top of each other there, which cannot be restored");
            }
            let handle = root.resolve(&one.place, Links::Refuse).at(step)?;
            let place = self.0.join("part").join(index.to_string());
            make_place(&place, &handle).at(step)?;
            let alone = mount::clone_fd(&handle, Depth::Top).at(step)?;
            mount::attach_at(&alone, &place).at(step)?;
            laid.push((one.place.clone(), place));
        }
        Ok(laid)
    }
}

fn make_place(place: &Path, like: &OwnedFd) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o700);
    if FileType::from_raw_mode(fstat(like)?.st_mode).is_dir() {
        return mkdir(place, mode);
    }
    openat(CWD, place, OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, mode).map(drop)
}
