//! Starting a supervisor, and reaching the socket of one.

use std::{
    ffi::CString,
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::DirBuilderExt},
    },
    path::Path,
    time::Duration,
};

use model::PodId;
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with},
};
use sys::process::{Process, Program, Session, spawn};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::Instant,
};

use super::{Error, HELLO, SpawnArgs, connection::register};

const SOCKET: &str = "shim.sock";
const LOG: &str = "shim.log";

/// How long a killed supervisor may take to be gone.
const COLLECT: Duration = Duration::from_secs(5);

/// A supervisor that has just been started.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) process: Process,
    pub(super) socket: OwnedFd,
}

/// Makes the pod's directory and socket, starts the supervisor with it, connects.
pub(super) async fn launch(args: SpawnArgs) -> Result<Launched, Error> {
    let (pod, dir) = (args.pod, args.pod_dir.clone());
    let started = tokio::task::spawn_blocking(move || start(&args)).await;
    let process = started.map_err(|join| Error::Sys { pod, step: "start", source: io::Error::other(join) })??;
    match dial(pod, &dir, HELLO).await {
        Ok(socket) => Ok(Launched { process, socket }),
        Err(error) => {
            let _ = sys::process::signal(&process, model::Signal::KILL);
            collect(&process.pidfd).await;
            Err(error)
        }
    }
}

fn start(args: &SpawnArgs) -> Result<Process, Error> {
    let (pod, dir) = (args.pod, &args.pod_dir);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| Error::Path { pod, step: "make directory", path: dir.clone(), source: errno(&error) })?;
    let listener = make_listener(pod, dir)?;
    let log_path = dir.join(LOG);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let log = openat(CWD, &log_path, flags, Mode::from_raw_mode(0o600)).map_err(|source| Error::Path {
        pod,
        step: "open",
        path: log_path,
        source,
    })?;
    let run_dir = CString::new(dir.as_os_str().as_bytes()).map_err(|_| Error::Path {
        pod,
        step: "use directory",
        path: dir.clone(),
        source: Errno::INVAL,
    })?;
    let pod_id = CString::new(pod.to_string()).expect("an id has no NUL");
    let argv = [c"creel-shim".into(), c"--pod".into(), pod_id, c"--run-dir".into(), run_dir];
    let program = Program {
        executable: args.exe.as_fd(),
        argv: &argv,
        env: &[],
        stdio: [Some(listener.as_fd()), None, Some(log.as_fd())],
        fds: &[],
        session: Session::Own,
    };
    spawn(&program).map_err(|source| Error::Spawn { pod, source })
}

/// The socket, listening. What an earlier attempt for the same pod left at its name is removed.
fn make_listener(pod: PodId, dir: &Path) -> Result<OwnedFd, Error> {
    let path = dir.join(SOCKET);
    let failed = |step| move |source| Error::Path { pod, step, path: dir.join(SOCKET), source };
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove")(errno(&error))),
        _ => {}
    }
    let socket = new_socket(SocketFlags::CLOEXEC).map_err(failed("socket"))?;
    let opened = File::open(dir).map_err(|error| failed("open directory of")(errno(&error)))?;
    let address = address(&opened).map_err(failed("name"))?;
    bind(&socket, &address).map_err(failed("bind"))?;
    listen(&socket, 8).map_err(failed("listen"))?;
    Ok(socket)
}

/// Connects to a supervisor's socket. One that is stopped has a full backlog and is tried again until the time is over.
pub(super) async fn dial(pod: PodId, dir: &Path, limit: Duration) -> Result<OwnedFd, Error> {
    let failed = |step| move |source| Error::Path { pod, step, path: dir.join(SOCKET), source };
    let opened = File::open(dir).map_err(|error| failed("open directory of")(errno(&error)))?;
    let address = address(&opened).map_err(failed("name"))?;
    let end = Instant::now() + limit;
    loop {
        let socket = new_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).map_err(failed("socket"))?;
        match connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::AGAIN) if Instant::now() < end => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(Errno::AGAIN) => return Err(Error::Deadline { pod, request: "connect", limit }),
            Err(Errno::CONNREFUSED) => return Err(Error::Lost { pod, why: "nobody listens on its socket".to_owned() }),
            Err(source) => return Err(failed("connect to")(source)),
        }
    }
}

fn new_socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// The socket's address by way of its directory's descriptor: an address has 108 bytes, a run directory may have more.
fn address(dir: &File) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

/// A pidfd of a supervisor that was not started here.
pub(super) fn pidfd_of(pod: PodId, pid: u32) -> Result<OwnedFd, Error> {
    let id = i32::try_from(pid).ok().and_then(sys::process::Pid::from_raw);
    let opened = id.ok_or(Errno::RANGE).and_then(sys::process::open);
    opened.map_err(|source| Error::Sys { pod, step: "pidfd_open", source: source.into() })
}

/// Waits for a child that was killed, so that no zombie is left.
pub(super) async fn collect(pidfd: &OwnedFd) {
    let Ok(owned) = pidfd.try_clone() else { return };
    let Ok(pidfd) = register(owned, Interest::READABLE) else { return };
    if tokio::time::timeout(COLLECT, pidfd.readable()).await.is_ok() {
        reap(&pidfd);
    }
}

/// Collects a process that has ended, if it is our child.
pub(super) fn reap(pidfd: &AsyncFd<OwnedFd>) {
    // ECHILD: an earlier daemon's child.
    let _ = sys::process::try_wait(pidfd.get_ref());
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
