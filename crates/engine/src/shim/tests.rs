//! The client against supervisors, real and false.

use std::{
    fs,
    io::{Read, Write},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::Instant,
};

use model::{
    ErrorKind, ExecId, Signal,
    container::Propagation,
    plan::{Capabilities, ContainerPlan, ExecPlan, MountFlags, MountKind, MountPlan, PodPlan, ProcessPlan},
    pod::PidMode,
};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, socket_with};
use shim_proto::{Packet, REVISION, Reply, VERSION, encode_reply};
use sys::cgroup::{Group, Hierarchies, Track};

use super::*;

static NUMBER: AtomicU8 = AtomicU8::new(1);

/// A pod's directories and cgroups; all gone when it drops.
struct Place {
    dir: PathBuf,
    pod: PodId,
    group: Group,
}

impl Place {
    fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("creel-engine-shim-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir(&dir).unwrap();
        let group = Group::new(&Hierarchies::detect().unwrap(), &format!("/{name}")).unwrap();
        Self { dir, pod: PodId::from_bytes([number; 32]), group }
    }

    fn pod_dir(&self) -> PathBuf {
        self.dir.join("pods").join(self.pod.to_string())
    }

    async fn spawn(&self) -> (Shim, ShimEvents) {
        let exe = Arc::new(program().try_clone().unwrap());
        Shim::spawn(SpawnArgs { exe, pod: self.pod, pod_dir: self.pod_dir() }).await.unwrap()
    }

    async fn connect(&self) -> (Shim, ShimState, ShimEvents) {
        Shim::connect(&self.pod_dir(), self.pod).await.unwrap()
    }

    /// A supervisor that is set up.
    async fn pod(&self) -> (Shim, ShimEvents) {
        let cgroup = self.group_at("shim");
        let (shim, events) = self.spawn().await;
        let plan = PodPlan {
            own_network: true,
            own_ipc: false,
            hostname: None,
            shared_pid: false,
            sysctls: [].into(),
            shm_size: 1 << 20,
            cgroup,
            userns: None,
            domainname: None,
            joined: None,
            mount_label: None,
        };
        shim.setup(&plan, Vec::new()).await.unwrap();
        (shim, events)
    }

    fn group_at(&self, name: &str) -> String {
        let path = format!("{}/{name}", self.group.path());
        Group::new(&Hierarchies::detect().unwrap(), &path).unwrap().create().unwrap();
        path
    }

    /// A container that runs a script of busybox's shell, created.
    async fn create(&self, shim: &Shim, script: &str) -> ContainerPlan {
        let root = self.dir.join("root");
        for name in ["bin", "proc", "dev"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists());
        let busybox = busybox.expect("the tests need a static busybox (Debian: busybox-static)");
        // By a process of its own: nobody's fork can hold it open for writing when it is run (execve(2), ETXTBSY).
        let copied = std::process::Command::new("cp").arg(busybox).arg(root.join("bin")).status();
        assert!(copied.unwrap().success());
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mount = |target: &str, kind| MountPlan { target: target.into(), kind, flags: MountFlags::default(), idmap: None };
        let plan = ContainerPlan {
            id: ContainerId::from_bytes([number; 32]),
            process: process(script),
            pid: PidMode::Container,
            readonly_rootfs: false,
            mounts: vec![mount("/proc", MountKind::Proc), mount("/dev", MountKind::Dev)],
            devices: vec![],
            masked_paths: vec![],
            readonly_paths: vec![],
            cgroup: self.group_at(&format!("c{number}")),
            own_cgroup_namespace: false,
            log_path: Some(self.dir.join("0.log").to_str().unwrap().into()),
            log_limit: None,
            stdin: false,
            stdin_once: false,
            root_propagation: Propagation::Private,
            annotations: None,
            oci: None,
            hooks: None,
            mount_label: None,
        };
        let rootfs = sys::mount::clone_path(root.as_path(), sys::mount::Depth::Top).unwrap();
        assert!(shim.create(&plan, rootfs.as_fd(), &[]).await.unwrap().is_empty());
        plan
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.group.kill_all(Duration::from_secs(10));
        let _ = self.group.remove();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn process(script: &str) -> ProcessPlan {
    ProcessPlan {
        args: ["/bin/busybox", "sh", "-c", script].map(str::to_owned).into(),
        env: vec![b"PATH=/bin".to_vec().into()],
        cwd: "/".into(),
        uid: 0,
        gid: 0,
        groups: vec![0],
        capabilities: Capabilities { bounding: 0xa804_25fb, permitted: 0xa804_25fb, ambient: 0 },
        no_new_privs: true,
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

/// The supervisor's program, built beside this test.
fn program() -> &'static OwnedFd {
    static PROGRAM: OnceLock<OwnedFd> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        // TARGET/debug/deps/engine-0123
        let profile = test.parent().unwrap().parent().unwrap();
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "shim", "--bin", "creel-shim"])
            .env("CARGO_TARGET_DIR", profile.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.unwrap().success());
        sys::memfd::sealed_memfd_of(&profile.parent().unwrap().join("debug/creel-shim")).unwrap()
    })
}

async fn next(events: &mut ShimEvents) -> ShimEvent {
    tokio::time::timeout(Duration::from_secs(30), events.recv()).await.expect("an event").expect("the channel is open")
}

async fn exit(shim: &Shim, events: &mut ShimEvents) -> Exited {
    let ShimEvent::Exited(exited) = next(events).await else { panic!("not an exit") };
    shim.ack(exited.sequence).await.unwrap();
    exited
}

async fn read_to_end(fd: Option<OwnedFd>) -> String {
    let mut file: fs::File = fd.unwrap().into();
    tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    })
    .await
    .unwrap()
}

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_from_its_start_to_its_shutdown() {
    let place = Place::new();
    let (shim, mut events) = place.pod().await;
    assert_ne!(fs::read_link(shim.netns()).unwrap(), fs::read_link("/proc/self/ns/net").unwrap());
    assert_eq!(fs::metadata(place.pod_dir()).unwrap().mode() & 0o777, 0o700);
    let plan = place.create(&shim, "echo out; exit 3").await;
    let started = shim.start(plan.id, None).await.unwrap();
    let exited = exit(&shim, &mut events).await;
    assert_eq!((exited.container, exited.status.code), (plan.id, 3));
    assert!(exited.at >= started);
    assert_eq!(exit_record(&place.pod_dir(), plan.id), Some((exited.status, exited.at)));
    assert!(fs::read_to_string(place.dir.join("0.log")).unwrap().ends_with(" stdout F out\n"));
    let report = shim.container(plan.id).await.unwrap().unwrap();
    assert_eq!((report.started_at, report.exited), (Some(started), Some((exited.status, exited.at))));
    shim.forget(plan.id).await.unwrap();
    assert_eq!(shim.container(plan.id).await.unwrap(), None);
    assert_eq!(exit_record(&place.pod_dir(), plan.id), None);
    // A program that is not there.
    let mut wrong = place.create(&shim, "").await;
    shim.forget(wrong.id).await.unwrap();
    wrong.process.args = vec!["/no/such".into()];
    let rootfs = sys::mount::clone_path(place.dir.join("root").as_path(), sys::mount::Depth::Top).unwrap();
    shim.create(&wrong, rootfs.as_fd(), &[]).await.unwrap();
    let error = shim.start(wrong.id, None).await.unwrap_err();
    assert_eq!((error.exit_code(), error.kind()), (Some(127), ErrorKind::NotFound), "{error}");
    // What runs is killed by a shutdown, reported before its answer; no zombie is left.
    let plan = place.create(&shim, "sleep 1000").await;
    shim.start(plan.id, None).await.unwrap();
    shim.shutdown().await.unwrap();
    let ShimEvent::Exited(exited) = next(&mut events).await else { panic!("not an exit") };
    assert_eq!((exited.container, exited.status.code), (plan.id, 137));
    assert!(matches!(next(&mut events).await, ShimEvent::Lost { .. }));
    while !is_gone(shim.pid()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(shim.state().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_comes_back_finds_everything() {
    let place = Place::new();
    let (shim, events) = place.pod().await;
    let pid = shim.pid();
    let ends = place.create(&shim, "sleep 0.2; exit 4").await;
    let stays = place.create(&shim, "sleep 1000").await;
    let started = [shim.start(ends.id, None).await.unwrap(), shim.start(stays.id, None).await.unwrap()];
    drop((shim, events));
    while exit_record(&place.pod_dir(), ends.id).is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (shim, state, mut events) = place.connect().await;
    assert!(shim.pid() == pid && state.set_up);
    let of = |id| state.containers.iter().find(|report| report.container == id).unwrap();
    assert_eq!((of(stays.id).started_at, of(stays.id).exited), (Some(started[1]), None));
    assert_eq!((of(ends.id).started_at, of(ends.id).exited.unwrap().0.code), (Some(started[0]), 4));
    let exited = exit(&shim, &mut events).await;
    assert_eq!((exited.container, exited.status.code), (ends.id, 4));
    // Acknowledged: the next one does not hear of it again.
    drop((shim, events));
    let (shim, state, mut events) = place.connect().await;
    assert_eq!(state.containers.len(), 2);
    shim.signal(stays.id, Signal::KILL).await.unwrap();
    assert_eq!(exit(&shim, &mut events).await.container, stays.id);
    shim.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn f_06_a_supervisor_that_is_killed_is_lost_and_leaves_no_zombie() {
    let place = Place::new();
    let (shim, mut events) = place.pod().await;
    let plan = place.create(&shim, "sleep 1000").await;
    shim.start(plan.id, None).await.unwrap();
    let main = shim.container(plan.id).await.unwrap().unwrap().pid;
    let exec = shim.exec(&exec_plan(&plan, "sleep 1000")).await.unwrap();
    sys::process::signal(shim.pidfd(), Signal::KILL).unwrap();
    assert!(matches!(next(&mut events).await, ShimEvent::Lost { .. }));
    assert!(exec.exit.await.is_err());
    assert!(events.try_recv().is_err());
    let end = Instant::now() + Duration::from_secs(30);
    while !(is_gone(shim.pid()) && is_gone(main)) {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(Shim::connect(&place.pod_dir(), place.pod).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

fn exec_plan(container: &ContainerPlan, script: &str) -> ExecPlan {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let group = Group::new(&Hierarchies::detect().unwrap(), &container.cgroup).unwrap();
    let track = Track::new(&group, &format!("e{number}")).unwrap();
    track.create().unwrap();
    let cgroup = track.path().to_owned();
    ExecPlan { id: ExecId::from_bytes([number; 32]), container: container.id, process: process(script), cgroup, oci_process: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn execs_at_the_same_time() {
    let place = Place::new();
    let (shim, mut events) = place.pod().await;
    let plan = place.create(&shim, "sleep 1000").await;
    shim.start(plan.id, None).await.unwrap();
    let run = async |n: i32| {
        let io = shim.exec_with_stdin(&exec_plan(&plan, &format!("cat; exit {n}"))).await.unwrap();
        fs::File::from(io.stdin.unwrap()).write_all(n.to_string().as_bytes()).unwrap();
        assert_eq!(read_to_end(io.stdout).await, n.to_string());
        assert_eq!(read_to_end(io.stderr).await, "");
        assert_eq!(io.exit.await.unwrap().code, n);
    };
    futures_util::join!(run(1), run(2), run(3), run(4), run(5));
    let mut plan_tty = exec_plan(&plan, "tty; exit 6");
    plan_tty.process.tty = true;
    let io = shim.exec(&plan_tty).await.unwrap();
    assert!(io.stdin.is_some() && io.stdout.is_some() && io.stderr.is_none());
    assert_eq!(io.exit.await.unwrap().code, 6);
    // An exec's end is acknowledged by itself, and is no event of the engine's.
    let end = Instant::now() + Duration::from_secs(30);
    while !shim.fetch_state().await.unwrap().exits.is_empty() {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(events.try_recv().is_err());
    shim.shutdown().await.unwrap();
}

/// A socket where a supervisor's would be, and a thread that does what `behave` says with the first who connects.
fn pretend(place: &Place, behave: impl FnOnce(OwnedFd) + Send + 'static) {
    fs::create_dir_all(place.pod_dir()).unwrap();
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let dir = fs::File::open(place.pod_dir()).unwrap();
    bind(&socket, &SocketAddrUnix::new(format!("/proc/self/fd/{}/shim.sock", dir.as_raw_fd())).unwrap()).unwrap();
    listen(&socket, 1).unwrap();
    std::thread::spawn(move || behave(accept(&socket).unwrap()));
}

fn say(socket: &OwnedFd, number: u64, reply: &Reply) {
    Packet::new(encode_reply(number, reply), Vec::new()).unwrap().send(socket).unwrap();
}

async fn fails(place: &Place) -> ErrorKind {
    let end = Instant::now() + Duration::from_secs(10);
    let error = Shim::connect(&place.pod_dir(), place.pod).await.unwrap_err();
    assert!(Instant::now() < end, "a daemon must not wait for it so long");
    error.kind()
}

#[tokio::test(flavor = "multi_thread")]
async fn st_07_false_supervisors() {
    let place = Place::new();
    assert_eq!(fails(&place).await, ErrorKind::NotFound);
    let forever = |socket: OwnedFd| {
        std::thread::sleep(Duration::from_secs(20));
        drop(socket);
    };
    let cases = [
        (Box::new(forever) as Box<dyn FnOnce(OwnedFd) + Send>, ErrorKind::DeadlineExceeded),
        (Box::new(drop), ErrorKind::Unavailable),
        (Box::new(|socket| say_raw(&socket, b"garbage")), ErrorKind::Unavailable),
        (Box::new(|socket| say_raw(&socket, &[0x1b, 0, 0, 0, 0, 0x40, 0, 0, 0])), ErrorKind::Unavailable),
        (Box::new(|socket| say_raw(&socket, &vec![0x82; 150 << 10])), ErrorKind::Unavailable),
        (Box::new(|socket| stay(&socket, &Reply::Hello { version: 9, revision: 1, pid: 1 })), ErrorKind::Unsupported),
        (Box::new(|socket| stay(&socket, &Reply::Done)), ErrorKind::Internal),
        // Says hello and nothing more.
        (
            Box::new(|socket| stay(&socket, &Reply::Hello { version: VERSION, revision: REVISION, pid: 1 })),
            ErrorKind::DeadlineExceeded,
        ),
    ];
    for (number, (behave, kind)) in cases.into_iter().enumerate() {
        let place = Place::new();
        pretend(&place, behave);
        assert_eq!(fails(&place).await, kind, "case {number}");
    }
}

fn say_raw(socket: &OwnedFd, bytes: &[u8]) {
    rustix::net::send(socket, bytes, rustix::net::SendFlags::NOSIGNAL).unwrap();
    std::thread::sleep(Duration::from_millis(500));
}

fn stay(socket: &OwnedFd, reply: &Reply) {
    // An answer to what has not been asked yet is nobody's.
    sys::process::readable(socket.as_fd(), Duration::from_secs(10)).unwrap();
    say(socket, 1, reply);
    std::thread::sleep(Duration::from_secs(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn f_07_a_supervisor_that_is_stopped_costs_one_deadline() {
    let place = Place::new();
    let (shim, events) = place.spawn().await;
    sys::process::signal(shim.pidfd(), Signal::from_number(19).unwrap()).unwrap();
    assert_eq!(shim.state().await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(fails(&place).await, ErrorKind::DeadlineExceeded);
    sys::process::signal(shim.pidfd(), Signal::from_number(18).unwrap()).unwrap();
    drop((shim, events));
    let (shim, _, _events) = place.connect().await;
    shim.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_none() {
    let place = Place::new();
    let exe = Arc::new(OwnedFd::from(fs::File::open("/etc/hostname").unwrap()));
    let error = Shim::spawn(SpawnArgs { exe, pod: place.pod, pod_dir: place.pod_dir() }).await.unwrap_err();
    assert!(matches!(error, Error::Spawn { .. }), "{error:?}");
    // One that ends at once.
    let exe = Arc::new(OwnedFd::from(fs::File::open("/bin/true").unwrap()));
    let error = Shim::spawn(SpawnArgs { exe, pod: place.pod, pod_dir: place.pod_dir() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
}
