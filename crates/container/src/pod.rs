//! What the containers of a pod share, held by the supervisor: its namespaces, /dev/shm, and the init of a shared PID
//! namespace. There is no pause container: the supervisor itself lives in the pod's namespaces.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use model::plan::{ContainerPlan, MountKind, PodPlan};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use sys::{
    Errno,
    cgroup::{Group, Hierarchies},
    mount::{self, Attributes, Depth, Filesystem},
    ns::{self, New},
    proc::Proc,
    process::{self, Fork, Pid, Process},
};

use crate::{
    error::{At, Error, Failure, Step},
    joined,
    report::{self, Message, Reporter},
    sysctl::{self, Whose},
    userns::UserNamespace,
};

const INIT_LIMIT: Duration = Duration::from_secs(20);

/// The environment that every container of a pod is made in.
#[derive(Debug)]
pub struct PodEnv {
    pub(crate) proc: Proc,
    pub(crate) hierarchies: Hierarchies,
    /// The supervisor's own PID namespace, to come back to.
    pub(crate) pid_namespace: OwnedFd,
    /// Where hooks run.
    pub(crate) started_in: StartedIn,
    pub(crate) userns: Option<UserNamespace>,
    shm: Shm,
    init: Option<Process>,
    /// The PID namespace of somebody else's that containers may be made in.
    foreign_pids: Option<OwnedFd>,
}

/// Namespaces that the supervisor was started in.
#[derive(Debug)]
pub(crate) struct StartedIn {
    pub(crate) net: OwnedFd,
    pub(crate) ipc: OwnedFd,
    pub(crate) uts: OwnedFd,
}

/// The pod's /dev/shm.
#[derive(Debug)]
enum Shm {
    /// The host's, as the IPC namespace is.
    Host,
    /// A mount that is attached nowhere and cloned for each container (Linux 6.15).
    Detached(OwnedFd),
    /// A mount at a path of the host.
    At(PathBuf),
}

impl PodEnv {
    /// Moves the calling process, which must have one thread, into namespaces of its own as the plan says, and makes
    /// what goes with them. `run_dir` is the pod's directory; on kernels before 6.15 `run_dir/shm` is mounted upon,
    /// see [`Self::close`].
    ///
    /// `joined`: the descriptors of the plan's joined namespaces, in their order.
    ///
    /// # Errors
    /// The step that failed. The process is then somewhere in between and should end.
    pub fn new(plan: &PodPlan, run_dir: &Path, joined: Vec<OwnedFd>) -> Result<Self, Error> {
        // Nobody may look into a process of ours that a container can see, even before it has left the host (R01).
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Error::call("prctl(PR_SET_DUMPABLE)"))?;
        let hierarchies = Hierarchies::detect().map_err(Error::host("detect cgroups"))?;
        let group = Group::new(&hierarchies, &plan.cgroup).map_err(Error::host("supervisor's cgroup"))?;
        let join = group.open_join().map_err(Error::host("open supervisor's cgroup"))?;
        join.join().map_err(Error::call("join supervisor's cgroup"))?;
        let proc = Proc::new().map_err(Error::host("mount private procfs"))?;
        let pid_namespace = ns::own("pid").map_err(Error::call("open own pid namespace"))?;
        let own = |name| ns::own(name).map_err(Error::call("open own namespaces"));
        let started_in = StartedIn { net: own("net")?, ipc: own("ipc")?, uts: own("uts")? };
        sysctl::check(plan)?;
        let mut joined = joined::Joined::pair(plan, joined)?;
        joined.enter()?;
        let userns = enter_namespaces(plan, &proc)?;
        let owner = userns.as_ref().map_or((0, 0), UserNamespace::root);
        let shm = match joined.take_shm()? {
            Some(mount) => Shm::of(mount, run_dir)?,
            None if plan.own_ipc => Shm::new(plan, owner, run_dir)?,
            None => Shm::Host,
        };
        let init = if plan.shared_pid { Some(start_init(userns.as_ref(), plan.mount_label.as_deref())?) } else { None };
        let foreign_pids = joined.take_pids();
        Ok(Self { proc, hierarchies, pid_namespace, started_in, userns, shm, init, foreign_pids })
    }

    /// The init of the pod's shared PID namespace, as the host numbers it.
    pub fn init_pid(&self) -> Option<Pid> {
        self.init.as_ref().map(|init| init.pid)
    }

    /// The PID namespace of somebody else's that containers may be made in.
    pub fn foreign_pids(&self) -> Option<BorrowedFd<'_>> {
        self.foreign_pids.as_ref().map(AsFd::as_fd)
    }

    /// The same as a descriptor: readable when it has died, and with it everything in the namespace.
    pub fn init(&self) -> Option<BorrowedFd<'_>> {
        self.init.as_ref().map(|init| init.pidfd.as_fd())
    }

    /// Kills the init and with it whatever lives in the shared PID namespace, and unmounts a /dev/shm that is at a path.
    /// To be called last: children of the calling process that have ended are collected, because an init stays until
    /// the last process of its namespace is gone for good (pid_namespaces(7)).
    ///
    /// # Errors
    /// The unmount failed, or the init did not die in time.
    pub fn close(self) -> Result<(), Error> {
        if let Some(init) = &self.init {
            match process::signal(init, model::Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(Error::call("kill pod init")(errno)),
            }
            collect_until(init.pid)?;
        }
        match &self.shm {
            Shm::At(path) => mount::detach(path.as_path()).map_err(Error::call("unmount pod's /dev/shm")),
            Shm::Host | Shm::Detached(_) => Ok(()),
        }
    }

    /// The network namespace that the pod is in: the supervisor's.
    ///
    /// # Errors
    /// open(2).
    pub fn network_namespace(&self) -> Result<OwnedFd, Error> {
        ns::own("net").map_err(Error::call("open network namespace"))
    }

    /// What the calling process makes on file systems belongs to the pod's root from now on.
    pub(crate) fn own_files(&self) -> Step<()> {
        let Some(userns) = &self.userns else { return Ok(()) };
        let (uid, gid) = userns.root();
        sys::userns::set_file_ids(uid, gid).at(|| format!("make files as user {uid}"))
    }

    /// Does something with the host's files as the host's root, between [`Self::own_files`] and what it is called for: a
    /// server of a network file system may know that one only.
    pub(crate) fn as_host<T>(&self, work: impl FnOnce() -> Step<T>) -> Step<T> {
        if self.userns.is_none() {
            return work();
        }
        sys::userns::set_file_ids(0, 0).at(|| "read files as root".to_owned())?;
        let done = work();
        self.own_files()?;
        done
    }

    /// The host's number of a user of the pod.
    pub(crate) fn host_uid(&self, uid: u32) -> Step<u32> {
        self.userns.as_ref().map_or(Ok(uid), |userns| userns.uid(uid))
    }

    /// A detached mount of /dev/shm, if the container is to have it. Called in the supervisor: clones of a detached mount can
    /// be made only in the mount namespace that it comes from.
    pub(crate) fn shm(&self, plan: &ContainerPlan) -> Result<Option<OwnedFd>, Error> {
        if !plan.mounts.iter().any(|mount| matches!(mount.kind, MountKind::Shm)) {
            return Ok(None);
        }
        let clone = match &self.shm {
            Shm::Host => mount::clone_path(c"/dev/shm", Depth::Top),
            Shm::Detached(mount) => mount::clone_fd(mount, Depth::Top),
            Shm::At(path) => mount::clone_path(path.as_path(), Depth::Top),
        };
        clone.map(Some).map_err(Error::call("clone /dev/shm"))
    }
}

impl Shm {
    /// R23: of limited size, and charged to whoever touches its pages, so to the pod.
    fn new(plan: &PodPlan, (uid, gid): (u32, u32), run_dir: &Path) -> Result<Self, Error> {
        let flags = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOEXEC;
        let (uid, gid) = (uid.to_string(), gid.to_string());
        let mut options = vec![("mode", "1777".to_owned()), ("size", plan.shm_size.to_string()), ("uid", uid), ("gid", gid)];
        options.extend(plan.mount_label.clone().map(|label| ("context", label)));
        let tmpfs =
            options.iter().try_fold(Filesystem::open("tmpfs").map_err(Error::host("mount /dev/shm"))?, |tmpfs, (key, value)| {
                tmpfs.set(key, value.as_str()).map_err(Error::host("mount /dev/shm"))
            })?;
        Self::of(tmpfs.mount(flags).map_err(Error::host("mount /dev/shm"))?, run_dir)
    }

    /// A mount that is attached nowhere.
    fn of(mount: OwnedFd, run_dir: &Path) -> Result<Self, Error> {
        if mount::clone_fd(&mount, Depth::Top).is_ok() {
            return Ok(Self::Detached(mount));
        }
        let path = run_dir.join("shm");
        match rustix::fs::mkdir(&path, rustix::fs::Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::call("mkdir pod's /dev/shm")(errno)),
        }
        mount::attach_at(&mount, path.as_path()).map_err(Error::call("attach pod's /dev/shm"))?;
        Ok(Self::At(path))
    }
}

fn enter_namespaces(plan: &PodPlan, proc: &Proc) -> Result<Option<UserNamespace>, Error> {
    let mut new = New::empty();
    new.set(New::NEWNET, plan.own_network);
    new.set(New::NEWIPC, plan.own_ipc);
    new.set(New::NEWUTS, plan.hostname.is_some());
    let userns = match plan.userns {
        Some(_) if !plan.own_ipc => {
            let why = "needs an IPC namespace of the pod's own";
            return Err(Error::Plan { what: "user namespace".to_owned(), why });
        }
        Some(map) => Some(UserNamespace::found(plan, map, new, proc)?),
        None => {
            if !new.is_empty() {
                ns::unshare(new).map_err(Error::call("unshare pod's namespaces"))?;
            }
            sysctl::apply(plan, proc, Whose::Ipc).map_err(Error::host("set sysctl"))?;
            None
        }
    };
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(Error::call("sethostname"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).map_err(Error::call("setdomainname"))?;
    }
    if plan.own_network {
        ns::loopback_up().map_err(Error::call("bring up lo"))?;
    }
    sysctl::apply(plan, proc, Whose::Rest).map_err(Error::host("set sysctl"))?;
    Ok(userns)
}

/// Collects children until one of them is `last`, or none is left.
fn collect_until(last: Pid) -> Result<(), Error> {
    let end = Instant::now() + INIT_LIMIT;
    loop {
        match process::try_wait_any() {
            Ok(Some((pid, _))) if pid == last => return Ok(()),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return Ok(()),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
            Ok(None) | Err(_) => return Err(Error::Deadline { what: "killing the pod's init", limit: INIT_LIMIT }),
        }
    }
}

/// A copy of this process that holds a PID namespace and does nothing: no program of an image is needed for it, and the
/// kernel collects its children. It sees an empty root and has no privileges, because containers of the pod see it.
fn start_init(userns: Option<&UserNamespace>, label: Option<&str>) -> Result<Process, Error> {
    let (listener, reporter) = report::pair()?;
    let new = New::NEWPID | New::NEWNS;
    let forked = userns.map_or_else(
        || process::fork(new, None).map_err(Error::call("clone3 for pod init")),
        |userns| userns.fork(new, |_| Ok(())),
    )?;
    match forked {
        Fork::Child => run_init(&reporter, label),
        Fork::Parent(init) => {
            drop(reporter);
            let message = listener.next(Instant::now() + INIT_LIMIT);
            if let Ok(Some(Message::Ready)) = message {
                return Ok(init);
            }
            let _ = process::signal(&init, model::Signal::KILL);
            let exit = process::wait(&init, INIT_LIMIT).ok();
            Err(match message {
                Ok(Some(Message::Failed(Failure { step, reason, .. }))) => Error::Step { step, source: reason },
                Ok(None) => Error::Died { exit },
                Ok(Some(_)) => Error::Report,
                Err(_) => Error::Deadline { what: "starting the pod's init", limit: INIT_LIMIT },
            })
        }
    }
}

fn run_init(reporter: &Reporter, label: Option<&str>) -> ! {
    match prepare_init(label) {
        Ok(()) => {
            reporter.ready();
            process::idle_for_ever()
        }
        Err(failure) => {
            reporter.fail(&failure);
            process::exit_now(1)
        }
    }
}

fn prepare_init(label: Option<&str>) -> Step<()> {
    process::reset_signals();
    process::ignore_children();
    // Fails only for a process that leads a session already, and that is as good.
    let _ = rustix::process::setsid();
    mount::change_all(mount::Propagation::PRIVATE).at(|| "make mounts private".to_owned())?;
    let flags = Attributes::MOUNT_ATTR_RDONLY
        | Attributes::MOUNT_ATTR_NOSUID
        | Attributes::MOUNT_ATTR_NODEV
        | Attributes::MOUNT_ATTR_NOEXEC;
    let labelled = |tmpfs: Filesystem| match label {
        Some(label) => tmpfs.set("context", label),
        None => Ok(tmpfs),
    };
    let empty = Filesystem::open("tmpfs").and_then(labelled).and_then(|tmpfs| tmpfs.mount(flags));
    let empty = empty.at(|| "mount an empty root".to_owned())?;
    mount::attach_at(&empty, c"/").at(|| "attach an empty root".to_owned())?;
    rustix::process::fchdir(&empty).at(|| "fchdir(empty root)".to_owned())?;
    mount::pivot_to_cwd().at(|| "pivot_root to an empty root".to_owned())?;
    sys::caps::bound(0).at(|| "drop bounding set".to_owned())?;
    sys::caps::set(0, 0).at(|| "drop capabilities".to_owned())?;
    rustix::thread::set_no_new_privs(true).at(|| "set no_new_privs".to_owned())?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).at(|| "set death signal".to_owned())
}
