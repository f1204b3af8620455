//! A pod to run containers in: directories, cgroups, a root filesystem with busybox, and plans to change.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use container::{Created, Error, Exit, Io, Parts, PodEnv, Process, StartError, Stdio, create, exec};
use model::{
    ContainerId, ExecId,
    container::Propagation,
    plan::{Capabilities, ContainerPlan, ExecPlan, MountFlags, MountKind, MountPlan, PodPlan, ProcessPlan},
    pod::{PidMode, UserNamespace},
};
use rustix::fs::OFlags;
use sys::{
    cgroup::{Group, Hierarchies, Track},
    mount::{self as mounts, Attributes, Depth, Filesystem},
    ns,
    path::{Links, Root},
    process,
};

pub const LIMIT: Duration = Duration::from_secs(20);
/// What docker gives to root.
pub const DEFAULT_CAPS: u64 = 0xa804_25fb;
const APPLETS: [&str; 38] = [
    "sh", "cat", "ls", "id", "echo", "true", "false", "sleep", "touch", "mkdir", "stat", "tty", "hostname", "env", "pwd", "ps",
    "mount", "umount", "readlink", "head", "dd", "wc", "grep", "sort", "rm", "ln", "mknod", "kill", "test", "chmod", "find", "df",
    "stty", "tail", "seq", "cp", "tr", "printf",
];

pub struct World {
    pub env: Option<PodEnv>,
    pub dir: tempfile::TempDir,
    pub hierarchies: Hierarchies,
    pub base: String,
    userns: Option<UserNamespace>,
    containers: usize,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut PodPlan)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hierarchies = Hierarchies::detect().unwrap();
        let base = format!("/creel-executor-{}", std::process::id());
        let mut plan = PodPlan {
            own_network: true,
            own_ipc: true,
            hostname: Some("pod".to_owned()),
            shared_pid: false,
            sysctls: [].into(),
            shm_size: 1 << 20,
            cgroup: format!("{base}/supervisor"),
            domainname: None,
            joined: None,
            userns: None,
            mount_label: None,
        };
        change(&mut plan);
        Group::new(&hierarchies, &plan.cgroup).unwrap().create().unwrap();
        let mut world = Self { env: None, dir, hierarchies, base, userns: plan.userns, containers: 0 };
        make_image(&world.image());
        world.env = Some(PodEnv::new(&plan, world.dir.path(), Vec::new()).unwrap());
        world
    }

    pub fn env(&self) -> &PodEnv {
        self.env.as_ref().unwrap()
    }

    /// Directory of the image: what is changed here is what containers made later see.
    pub fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// A directory of the host with things that must stay as they are.
    pub fn canary(&self) -> PathBuf {
        let canary = self.dir.path().join("canary");
        if !canary.exists() {
            fs::create_dir(&canary).unwrap();
            for name in ["ptmx", "null", "hosts", "resolv.conf"] {
                fs::write(canary.join(name), name).unwrap();
            }
        }
        canary
    }

    pub fn assert_canary(&self) {
        let mut names: Vec<_> = fs::read_dir(self.canary()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["hosts", "null", "ptmx", "resolv.conf"]);
        for name in names {
            assert_eq!(fs::read_to_string(self.canary().join(&name)).unwrap(), name.to_str().unwrap());
        }
    }

    pub fn rootfs(&mut self) -> OwnedFd {
        self.containers += 1;
        let at = |name: &str| self.dir.path().join(format!("{name}-{}", self.containers));
        let (upper, work) = (at("upper"), at("work"));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        if let Some(userns) = self.userns {
            return self.idmapped_rootfs(userns);
        }
        let overlay = Filesystem::open("overlay").unwrap();
        let overlay = overlay.set("lowerdir", self.image().as_path()).unwrap();
        let overlay = overlay.set("upperdir", upper.as_path()).unwrap().set("workdir", work.as_path()).unwrap();
        overlay.mount(Attributes::empty()).unwrap()
    }

    /// All of it in one mount that shows owners by the mapping; overlayfs makes its files as the namespace's root.
    fn idmapped_rootfs(&self, userns: UserNamespace) -> OwnedFd {
        let all = mounts::clone_path(self.dir.path(), Depth::Top).unwrap();
        mounts::idmap(&all, Depth::Top, ns::owner(ns::own("ipc").unwrap()).unwrap()).unwrap();
        let work = || {
            sys::userns::set_file_ids(userns.uids.host_id, userns.gids.host_id).unwrap();
            let at = |name: &str| Root::from(all.try_clone().unwrap()).open(name, OFlags::DIRECTORY, Links::Refuse).unwrap();
            let overlay = Filesystem::open("overlay").unwrap().set_fd("lowerdir+", at("image")).unwrap();
            let overlay = overlay.set_fd("upperdir", at(&format!("upper-{}", self.containers))).unwrap();
            overlay.set_fd("workdir", at(&format!("work-{}", self.containers))).unwrap().mount(Attributes::empty()).unwrap()
        };
        std::thread::scope(|scope| scope.spawn(work).join()).unwrap()
    }

    /// A plan like that of an ordinary container that runs a shell script.
    pub fn plan(&self, script: &str) -> ContainerPlan {
        let cgroup = format!("{}/container", self.base);
        Group::new(&self.hierarchies, &cgroup).unwrap().create().unwrap();
        let masked = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi", "/proc/scsi", "/sys/firmware"];
        let readonly = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
        ContainerPlan {
            id: ContainerId::from_bytes([7; 32]),
            process: shell(script),
            pid: PidMode::Container,
            readonly_rootfs: false,
            mounts: standard_mounts(),
            devices: vec![],
            masked_paths: masked.map(str::to_owned).into(),
            readonly_paths: readonly.map(str::to_owned).into(),
            cgroup,
            own_cgroup_namespace: true,
            log_path: None,
            log_limit: None,
            stdin: false,
            stdin_once: false,
            root_propagation: Propagation::Private,
            annotations: None,
            oci: None,
            hooks: None,
            mount_label: None,
        }
    }

    pub fn create(&mut self, plan: &ContainerPlan) -> Result<(Created, Pipes), Error> {
        let (stdio, pipes) = if plan.process.tty { (Stdio::Terminal, Pipes::default()) } else { make_pipes() };
        let parts = Parts { rootfs: self.rootfs(), mounts: Vec::new(), stdio, target: None };
        create(self.env(), plan, parts).map(|created| (created, pipes))
    }

    pub fn start(&mut self, plan: &ContainerPlan) -> Result<(Process, Pipes), StartError> {
        let (created, pipes) = self.create(plan).unwrap();
        created.start().map(|(process, _)| (process, pipes))
    }

    /// Runs to the end: exit code, output, errors.
    pub fn run(&mut self, plan: &ContainerPlan) -> (i32, String) {
        let (process, pipes) = self.start(plan).unwrap();
        (wait(&process).code(), pipes.read())
    }

    /// The same for a plain script.
    pub fn sh(&mut self, script: &str) -> (i32, String) {
        let plan = self.plan(script);
        self.run(&plan)
    }

    /// Creation fails, with a message.
    pub fn refused(&mut self, plan: &ContainerPlan) -> String {
        match self.create(plan) {
            Ok(_) => panic!("was created"),
            Err(error) => describe(&error),
        }
    }

    pub fn exec_plan(&self, script: &str) -> ExecPlan {
        let track = Track::new(&Group::new(&self.hierarchies, &format!("{}/container", self.base)).unwrap(), "exec").unwrap();
        track.create().unwrap();
        ExecPlan {
            id: ExecId::from_bytes([1; 32]),
            container: ContainerId::from_bytes([7; 32]),
            process: shell(script),
            cgroup: track.path().to_owned(),
            oci_process: None,
        }
    }

    pub fn exec(&self, target: &Process, plan: &ExecPlan) -> Result<(i32, String), Error> {
        let (stdio, pipes) = make_pipes();
        let exec = exec(self.env(), target.as_fd(), plan, stdio)?;
        Ok((wait(&exec.process).code(), pipes.read()))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let group = Group::new(&self.hierarchies, &format!("{}/container", self.base)).unwrap();
        let _ = group.kill_all(LIMIT);
        if let Some(env) = self.env.take() {
            env.close().unwrap();
        }
        // The supervisor is in its group itself: it leaves for the root of every hierarchy.
        for (root, controllers) in self.hierarchies.mounts() {
            let file = if controllers.is_empty() { "cgroup.procs" } else { "tasks" };
            fs::write(root.join(file), "0").unwrap();
        }
        Group::new(&self.hierarchies, &self.base).unwrap().remove().unwrap();
    }
}

/// The ends of a process's pipes that the test holds.
#[derive(Default)]
pub struct Pipes {
    pub stdin: Option<OwnedFd>,
    output: Option<OwnedFd>,
}

impl Pipes {
    pub fn read(self) -> String {
        drop(self.stdin);
        self.output.map_or_else(String::new, |output| {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut fs::File::from(output), &mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
}

pub fn make_pipes() -> (Stdio, Pipes) {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let ((stdin, their_stdin), (output, stdout)) = (pipe(), pipe());
    let stderr = stdout.try_clone().unwrap();
    (Stdio::Io(Io { stdin, stdout, stderr }), Pipes { stdin: Some(their_stdin), output: Some(output) })
}

pub fn wait(process: &Process) -> Exit {
    process::wait(process, LIMIT).unwrap()
}

pub fn describe(error: &Error) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}

pub fn shell(script: &str) -> ProcessPlan {
    ProcessPlan {
        args: ["sh", "-c", script].map(str::to_owned).into(),
        env: vec![b"PATH=/usr/bin:/bin".to_vec().into(), b"HOME=/".to_vec().into()],
        cwd: "/".to_owned(),
        uid: 0,
        gid: 0,
        groups: vec![0],
        capabilities: Capabilities { bounding: DEFAULT_CAPS, permitted: DEFAULT_CAPS, ambient: 0 },
        no_new_privs: false,
        seccomp: None,
        rlimits: vec![],
        oom_score_adj: None,
        tty: false,
        umask: None,
        io_priority: None,
        scheduler: None,
        apparmor: None,
        selinux: None,
    }
}

pub fn mount(target: &str, kind: MountKind, flags: MountFlags) -> MountPlan {
    MountPlan { target: target.to_owned(), kind, flags, idmap: None }
}

pub fn bind(source: &Path, target: &str, flags: MountFlags) -> MountPlan {
    let source = source.to_str().unwrap().to_owned();
    mount(target, MountKind::Bind { source, propagation: Propagation::Private }, flags)
}

pub const NO_FLAGS: MountFlags = MountFlags { readonly: false, recursive: false, nosuid: false, nodev: false, noexec: false };
pub const READONLY: MountFlags = MountFlags { readonly: true, recursive: false, nosuid: false, nodev: false, noexec: false };

pub fn standard_mounts() -> Vec<MountPlan> {
    let hard = MountFlags { readonly: false, recursive: false, nosuid: true, nodev: true, noexec: true };
    vec![
        mount("/proc", MountKind::Proc, hard),
        mount("/dev", MountKind::Dev, MountFlags { nosuid: true, ..NO_FLAGS }),
        mount("/dev/mqueue", MountKind::Mqueue, hard),
        mount("/dev/shm", MountKind::Shm, hard),
        mount("/sys", MountKind::Sysfs, MountFlags { readonly: true, ..hard }),
        mount("/sys/fs/cgroup", MountKind::Cgroup, MountFlags { readonly: true, ..hard }),
    ]
}

fn make_image(image: &Path) {
    for directory in ["", "bin", "etc", "proc", "sys", "dev", "tmp", "run", "data"] {
        fs::create_dir(image.join(directory)).unwrap();
    }
    // By a process of its own: nobody's fork can hold it open for writing when it is run (execve(2), ETXTBSY).
    assert!(std::process::Command::new("cp").arg("/bin/busybox").arg(image.join("bin")).status().unwrap().success());
    for applet in APPLETS {
        symlink("busybox", image.join("bin").join(applet)).unwrap();
    }
    fs::write(image.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    std::os::unix::fs::chown(image, Some(0), Some(0)).unwrap();
    fs::set_permissions(image, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}
