//! A pod with a real supervisor, driven over its socket as the daemon does it. Everything it makes goes when it drops.
#![allow(dead_code, reason = "each test binary uses some of it")]
#![allow(clippy::print_stderr, reason = "a test that fails says why")]

use std::{
    collections::VecDeque,
    ffi::CString,
    fs,
    os::fd::{AsFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use model::{
    ContainerId, ExecId, Signal,
    container::Propagation,
    plan::{Capabilities, ContainerPlan, ExecPlan, MountFlags, MountKind, MountPlan, PodPlan, ProcessPlan},
    pod::PidMode,
};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with},
};
use shim_proto::{
    Event, ExecPlanWithStdin, Exit, ExitRecord, Failure, FdRole, Incoming, Packet, REVISION, Reply, Request, Scope, State, VERSION,
    decode_incoming, encode_request, receive,
};
use sys::{
    cgroup::{Group, Hierarchies, Track},
    process::{Process, Program, Session},
};
use tempfile::TempDir;

/// For everything that has to happen.
pub(crate) const SOON: Duration = Duration::from_secs(30);

static NUMBER: AtomicU32 = AtomicU32::new(1);

/// A pod.
pub(crate) struct Pod {
    pub(crate) shim: Process,
    pub(crate) dir: TempDir,
    pub(crate) daemon: Daemon,
    group: Group,
    reaped: bool,
}

/// A daemon's connection.
pub(crate) struct Daemon {
    pub(crate) socket: OwnedFd,
    pub(crate) number: u64,
    pub(crate) events: VecDeque<Event>,
}

/// A container plan in the making.
pub(crate) struct Plan(pub(crate) ContainerPlan);

impl Pod {
    /// A pod with own network and IPC namespaces.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut PodPlan)) -> Self {
        let mut pod = Self::bare();
        let mut plan = PodPlan {
            own_network: true,
            own_ipc: true,
            hostname: Some("pod".into()),
            shared_pid: false,
            sysctls: [].into(),
            shm_size: 1 << 20,
            cgroup: format!("{}/shim", pod.group.path()),
            userns: None,
            domainname: None,
            joined: None,
            mount_label: None,
        };
        change(&mut plan);
        assert_eq!(pod.daemon.ask(&Request::Setup(plan)), Reply::Done);
        pod
    }

    /// Only the supervisor, not set up.
    pub(crate) fn bare() -> Self {
        let dir = tempfile::Builder::new().prefix("creel-shim-test-").tempdir().unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let hierarchies = Hierarchies::detect().unwrap();
        let group = Group::new(&hierarchies, &format!("/creel-test-shim-{}-{number}", std::process::id())).unwrap();
        Group::new(&hierarchies, &format!("{}/shim", group.path())).unwrap().create().unwrap();
        make_rootfs(&dir.path().join("rootfs"));
        fs::create_dir(dir.path().join("run")).unwrap();
        let shim = spawn(&dir.path().join("run"));
        let daemon = Daemon::connect(&dir.path().join("run"));
        Self { shim, dir, daemon, group, reaped: false }
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("0.log")
    }

    pub(crate) fn reconnect(&mut self) {
        self.daemon = Daemon::connect(&self.run_dir());
    }

    pub(crate) fn rootfs(&self) -> OwnedFd {
        sys::mount::clone_path(self.dir.path().join("rootfs").as_path(), sys::mount::Depth::Top).unwrap()
    }

    /// A container that runs a shell script, with its cgroup made.
    pub(crate) fn plan(&self, script: &str) -> Plan {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let cgroup = format!("{}/c{number}", self.group.path());
        self.group_at(&cgroup).create().unwrap();
        let mount = |target: &str, kind| MountPlan { target: target.into(), kind, flags: MountFlags::default(), idmap: None };
        Plan(ContainerPlan {
            id: ContainerId::from_bytes(id),
            process: process(&["sh", "-c", script]),
            pid: PidMode::Container,
            readonly_rootfs: false,
            mounts: vec![mount("/proc", MountKind::Proc), mount("/dev", MountKind::Dev)],
            devices: vec![],
            masked_paths: vec![],
            readonly_paths: vec![],
            cgroup,
            own_cgroup_namespace: false,
            log_path: Some(self.log().to_str().unwrap().into()),
            log_limit: None,
            stdin: false,
            stdin_once: false,
            root_propagation: Propagation::Private,
            annotations: None,
            oci: None,
            hooks: None,
            mount_label: None,
        })
    }

    pub(crate) fn group_at(&self, path: &str) -> Group {
        Group::new(&Hierarchies::detect().unwrap(), path).unwrap()
    }

    /// The supervisor's own cgroup.
    pub(crate) fn shim_group(&self) -> Group {
        self.group_at(&format!("{}/shim", self.group.path()))
    }

    /// Creates a container; its pid.
    pub(crate) fn create(&mut self, plan: &Plan) -> u32 {
        let reply = self.daemon.ask_with(&Request::Create(plan.0.clone()), vec![self.rootfs()]).0;
        let Reply::Created { pid, .. } = reply else { panic!("{reply:?}") };
        pid
    }

    /// Creates and starts a container; its pid.
    pub(crate) fn start(&mut self, plan: &Plan) -> u32 {
        let pid = self.create(plan);
        let reply = self.daemon.ask(&Request::Start { container: plan.0.id });
        assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
        pid
    }

    /// Runs a container to its end.
    pub(crate) fn run(&mut self, plan: &Plan) -> ExitRecord {
        self.start(plan);
        self.daemon.exit_of(plan.0.id)
    }

    /// Runs a process in a container: its descriptors by role.
    pub(crate) fn exec(&mut self, container: &Plan, script: &str, change: impl FnOnce(&mut ExecPlanWithStdin)) -> Running {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let track = Track::new(&self.group_at(&container.0.cgroup), &format!("e{number}")).unwrap();
        track.create().unwrap();
        let plan = ExecPlan {
            id: ExecId::from_bytes(id),
            container: container.0.id,
            process: process(&["sh", "-c", script]),
            cgroup: track.path().to_owned(),
            oci_process: None,
        };
        let mut request = ExecPlanWithStdin { plan, stdin: false };
        change(&mut request);
        let id = request.plan.id;
        let (reply, fds) = self.daemon.ask_with(&Request::Exec(request), Vec::new());
        let Reply::Exec { pid, fds: roles } = reply else { panic!("{reply:?}") };
        assert_eq!(roles.len(), fds.len());
        Running { id, pid, fds: roles.into_iter().zip(fds).collect() }
    }

    /// The log without its times, as it is.
    pub(crate) fn lines(&self) -> Vec<String> {
        texts(&self.log())
    }

    /// How many descriptors the supervisor has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.shim.pid.as_raw_nonzero())).unwrap().count()
    }

    /// Waits for the supervisor's end.
    pub(crate) fn wait(&mut self) -> sys::process::Exit {
        self.reaped = true;
        sys::process::wait(&self.shim, SOON).unwrap()
    }

    /// What it complained of.
    pub(crate) fn complaints(&self) -> String {
        fs::read_to_string(self.run_dir().join("shim.log")).unwrap_or_default()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("supervisor's complaints:\n{}", self.complaints());
        }
        let _ = sys::process::signal(&self.shim, Signal::KILL);
        if !self.reaped {
            let _ = sys::process::wait(&self.shim, SOON);
        }
        let _ = self.group.kill_all(SOON);
        let _ = self.group.remove();
    }
}

/// An exec that runs.
pub(crate) struct Running {
    pub(crate) id: ExecId,
    pub(crate) pid: u32,
    pub(crate) fds: Vec<(FdRole, OwnedFd)>,
}

impl Running {
    pub(crate) fn take(&mut self, role: FdRole) -> fs::File {
        take(&mut self.fds, role)
    }
}

pub(crate) fn take(fds: &mut Vec<(FdRole, OwnedFd)>, role: FdRole) -> fs::File {
    let at = fds.iter().position(|(it, _)| *it == role).unwrap_or_else(|| panic!("no {role:?}"));
    fds.remove(at).1.into()
}

impl Daemon {
    /// Connects without a word.
    pub(crate) fn dial(run_dir: &Path) -> OwnedFd {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        connect(&socket, &SocketAddrUnix::new(run_dir.join("shim.sock")).unwrap()).unwrap();
        socket
    }

    /// Connected, and nothing said yet.
    pub(crate) fn silent(run_dir: &Path) -> Self {
        Self { socket: Self::dial(run_dir), number: 0, events: VecDeque::new() }
    }

    pub(crate) fn connect(run_dir: &Path) -> Self {
        let mut daemon = Self::silent(run_dir);
        let reply = daemon.ask(&Request::Hello { version: VERSION, revision: REVISION });
        assert!(matches!(reply, Reply::Hello { .. }), "{reply:?}");
        daemon
    }

    pub(crate) fn send(&mut self, request: &Request, fds: Vec<OwnedFd>) -> u64 {
        self.number += 1;
        Packet::new(encode_request(self.number, request), fds).unwrap().send(&self.socket).unwrap();
        self.number
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Reply {
        self.ask_with(request, Vec::new()).0
    }

    pub(crate) fn ask_with(&mut self, request: &Request, fds: Vec<OwnedFd>) -> (Reply, Vec<OwnedFd>) {
        let asked = self.send(request, fds);
        loop {
            if let (Incoming::Reply { number, reply }, fds) = self.receive() {
                assert_eq!(number, asked);
                return (reply, fds);
            }
        }
    }

    pub(crate) fn fails(&mut self, request: &Request) -> Failure {
        match self.ask(request) {
            Reply::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn state(&mut self) -> State {
        match self.ask(&Request::State) {
            Reply::State(state) => state,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn signal(&mut self, container: ContainerId, signal: Signal) {
        assert_eq!(self.ask(&Request::Signal { container, signal, scope: Scope::Main }), Reply::Done);
    }

    /// The next message; an event is kept, too.
    pub(crate) fn receive(&mut self) -> (Incoming, Vec<OwnedFd>) {
        sys::process::readable(self.socket.as_fd(), SOON).expect("the supervisor says nothing");
        let message = receive(&self.socket).unwrap();
        let incoming = decode_incoming(&message.bytes).unwrap();
        if let Incoming::Event(event) = &incoming {
            self.events.push_back(event.clone());
        }
        (incoming, message.fds)
    }

    /// Waits for an event that `pick` wants; others stay.
    pub(crate) fn event<T>(&mut self, pick: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            if let Some(at) = self.events.iter().position(|event| pick(event).is_some()) {
                return pick(&self.events.remove(at).unwrap()).unwrap();
            }
            self.receive();
        }
    }

    /// Waits for a container's end, and acknowledges it.
    pub(crate) fn exit_of(&mut self, id: ContainerId) -> ExitRecord {
        let (sequence, record) = self.event(|event| match event {
            Event::Exited(Exit::Container { sequence, record }) if record.container == id => Some((*sequence, record.clone())),
            _ => None,
        });
        assert_eq!(self.ask(&Request::Ack { sequence }), Reply::Done);
        record
    }

    /// Waits for an exec's end, and acknowledges it: its exit code.
    pub(crate) fn exec_exit(&mut self, id: ExecId) -> i32 {
        let (sequence, code) = self.event(|event| match event {
            Event::Exited(Exit::Exec { sequence, exec, exit, .. }) if *exec == id => Some((*sequence, exit.code)),
            _ => None,
        });
        assert_eq!(self.ask(&Request::Ack { sequence }), Reply::Done);
        code
    }

    /// The supervisor has hung up.
    pub(crate) fn hung_up(&self) -> bool {
        let end = Instant::now() + SOON;
        loop {
            match receive(&self.socket) {
                Err(shim_proto::Error::Closed | shim_proto::Error::Receive(Errno::CONNRESET)) => return true,
                Err(error) if error.would_block() && Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
                Err(_) => return false,
                Ok(_) => {}
            }
        }
    }
}

/// A process of root with all that a usual container has.
pub(crate) fn process(args: &[&str]) -> ProcessPlan {
    ProcessPlan {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec![b"PATH=/bin".to_vec().into()],
        cwd: "/".into(),
        uid: 0,
        gid: 0,
        groups: vec![0],
        capabilities: Capabilities { bounding: 0xa804_25fb, permitted: 0xa804_25fb, ambient: 0 },
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

/// A root directory with a static busybox.
fn make_rootfs(root: &Path) {
    for dir in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.expect("the tests need a static busybox (Debian: busybox-static)"), root.join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "sleep", "echo", "stty", "grep", "head", "tail", "dd", "kill", "seq", "yes", "printf", "tr", "ps"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

/// Starts a supervisor as the daemon does it.
fn spawn(run_dir: &Path) -> Process {
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    bind(&listener, &SocketAddrUnix::new(run_dir.join("shim.sock")).unwrap()).unwrap();
    listen(&listener, 8).unwrap();
    // CREEL_SHIM: another build of it, such as the static one that is shipped.
    let exe = std::env::var_os("CREEL_SHIM").unwrap_or_else(|| env!("CARGO_BIN_EXE_creel-shim").into());
    let exe = openat(CWD, exe, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let log = fs::File::create(run_dir.join("shim.log")).unwrap();
    let pod = CString::new("ab".repeat(32)).unwrap();
    let dir = CString::new(run_dir.as_os_str().as_bytes()).unwrap();
    let argv = [c"creel-shim".into(), c"--pod".into(), pod, c"--run-dir".into(), dir];
    let stdio = [Some(listener.as_fd()), None, Some(log.as_fd())];
    sys::process::spawn(&Program { executable: exe.as_fd(), argv: &argv, env: &[], stdio, fds: &[], session: Session::Own })
        .unwrap()
}

/// A log without its times. Every line has to be whole.
pub(crate) fn texts(path: &Path) -> Vec<String> {
    let bytes = fs::read(path).unwrap();
    assert!(bytes.is_empty() || bytes.ends_with(b"\n"));
    let log = String::from_utf8_lossy(&bytes);
    // Not lines(), which takes a carriage return away.
    log.split_terminator('\n')
        .map(|line| {
            let (time, rest) = line.split_once(' ').expect("a time");
            assert!(time.len() == "2016-10-06T00:17:09.669794202Z".len() && time.ends_with('Z'), "{line}");
            rest.to_owned()
        })
        .collect()
}

/// Tries until it is so.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process exists and is no zombie.
pub(crate) fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
