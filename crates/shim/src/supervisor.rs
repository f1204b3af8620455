//! The loop: who has something to say, and what it means.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use model::{ContainerId, Signal, container::ExitStatus};
use nix::sys::{
    signal::{SigSet, Signal as Named},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    io::Errno,
    net::{SocketFlags, accept_with},
    process::Pid,
};
use shim_proto::{Event, Exit, Failure, Reply, Request, decode_request};
use sys::process::Exit as Ending;

use crate::{
    capture::Still,
    cgroups::Cgroups,
    complain,
    connection::{Broken, Connection},
    error::Error,
    executor::Pod,
    exits::Exits,
    output::Scratch,
    poller::{Interest, Poller, Token},
    table::{Exec, Table},
    time,
};

/// How long a `Shutdown` may take until it is said that somebody does not die.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// How long a daemon has to take the last answer before the supervisor ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// The supervisor of one pod.
pub(crate) struct Supervisor {
    pub(crate) pod_dir: PathBuf,
    pub(crate) poller: Poller,
    listener: OwnedFd,
    signals: SignalFd,
    daemon: Option<Connection>,
    newcomer: Option<Connection>,
    pub(crate) cgroups: Cgroups,
    pub(crate) pod: Option<Pod>,
    pub(crate) table: Table,
    pub(crate) exits: Exits,
    pub(crate) scratch: Scratch,
    pub(crate) stopping: Option<Stopping>,
    pub(crate) still: Still,
    /// The process is in no state to go on, and ends once that has been said.
    pub(crate) spoiled: bool,
}

/// A `Shutdown` under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopping {
    /// Number of the request.
    number: u64,
    /// When to give up.
    until: Instant,
}

impl Supervisor {
    /// A supervisor that listens. The process becomes the parent of all orphans below it.
    pub(crate) fn new(listener: OwnedFd, pod_dir: PathBuf) -> Result<Self, Error> {
        let failed = |step| move |source| Error::Sys { step, source };
        let signals = block_signals().map_err(failed("signalfd"))?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(failed("prctl(PR_SET_CHILD_SUBREAPER)"))?;
        rustix::io::ioctl_fionbio(&listener, true).map_err(failed("ioctl(FIONBIO)"))?;
        let poller = Poller::new().map_err(failed("epoll_create"))?;
        poller.add(&listener, Token::Listener).map_err(failed("epoll_ctl"))?;
        poller.add(&signals, Token::Signals).map_err(failed("epoll_ctl"))?;
        Ok(Self {
            exits: Exits::new(&pod_dir)?,
            pod_dir,
            poller,
            listener,
            signals,
            daemon: None,
            newcomer: None,
            cgroups: Cgroups::detect()?,
            pod: None,
            table: Table::default(),
            scratch: Scratch::new(),
            stopping: None,
            still: Still::default(),
            spoiled: false,
        })
    }

    /// Runs until a `Shutdown` has been carried out.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let mut ready = Vec::with_capacity(16);
        loop {
            let stop = self.stopping.map(|stopping| stopping.until);
            let until = [self.table.deadline(), stop, self.still.deadline()].into_iter().flatten().min();
            self.poller.wait(until, &mut ready).map_err(|source| Error::Sys { step: "epoll_wait", source })?;
            for token in &ready {
                match *token {
                    Token::Listener => self.accept(),
                    Token::Signals => self.reap(),
                    Token::Daemon => self.listen(),
                    Token::Newcomer => self.greet(),
                    Token::Stream(key, index) => self.read_stream(key, index),
                }
            }
            self.settle_ended();
            self.expire_deletions();
            self.expire_capture();
            if self.spoiled {
                self.say_farewell();
                return Err(Error::Spoiled);
            }
            if self.shut_down() {
                return Ok(());
            }
        }
    }

    /// Takes one who connects: only root, and one at a time until it has said hello.
    fn accept(&mut self) {
        let socket = match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return,
            Err(errno) => return complain(&format!("accept: {errno}")),
        };
        match sys::sock::peer(&socket) {
            Ok(peer) if peer.uid == 0 => {}
            Ok(peer) => return complain(&format!("refused a connection of uid {} (pid {})", peer.uid, peer.pid)),
            Err(errno) => return complain(&format!("getsockopt(SO_PEERCRED): {errno}")),
        }
        let newcomer = Connection::new(socket);
        if let Some(old) = self.newcomer.take() {
            self.poller.remove(&old);
        }
        match self.poller.add(&newcomer, Token::Newcomer) {
            Ok(()) => self.newcomer = Some(newcomer),
            Err(errno) => complain(&format!("epoll_ctl: {errno}")),
        }
    }

    /// The first message of a newcomer decides whether it becomes the daemon, in place of the one before.
    fn greet(&mut self) {
        let Some(mut newcomer) = self.newcomer.take() else { return };
        let message = match newcomer.receive() {
            Ok(Some(message)) => message,
            Ok(None) => return self.newcomer = Some(newcomer),
            Err(why) => return self.drop_connection(&newcomer, &why),
        };
        self.poller.remove(&newcomer);
        let Ok((number, Request::Hello { version, .. })) = decode_request(&message.bytes) else {
            return complain("refused a connection: its first message is not hello");
        };
        let reply = crate::requests::hello(version);
        let welcome = matches!(reply, Reply::Hello { .. });
        if newcomer.reply(number, &reply, Vec::new()).is_err() || !welcome {
            return;
        }
        if let Some(old) = self.daemon.take() {
            self.poller.remove(&old);
            self.abandon_capture();
        }
        match self.poller.add(&newcomer, Token::Daemon) {
            Ok(()) => self.daemon = Some(newcomer),
            Err(errno) => complain(&format!("epoll_ctl: {errno}")),
        }
    }

    /// Hears one request of the daemon, and tells it what is queued.
    fn listen(&mut self) {
        let Some(daemon) = self.daemon.as_mut() else { return };
        let received = daemon.flush().and_then(|()| daemon.receive());
        match received {
            Ok(Some(message)) => match decode_request(&message.bytes) {
                Ok((number, Request::Shutdown)) => self.begin_shutdown(number),
                Ok((number, Request::Capture(plan))) => self.begin_capture(number, &plan),
                Ok((number, request)) => {
                    let (reply, fds) = self.handle(request, message.fds);
                    self.answer(number, &reply, fds);
                }
                Err(shim_proto::Error::Body { number, source }) => {
                    let error = shim_proto::Error::Body { number, source };
                    let failure =
                        Failure { step: "decode request".to_owned(), message: chain(&error), kind: error.kind(), exit_code: None };
                    self.answer(number, &Reply::Failed(failure), Vec::new());
                }
                Err(error) => self.drop_daemon(&Broken::Protocol(error)),
            },
            Ok(None) => self.watch_daemon(),
            Err(why) => self.drop_daemon(&why),
        }
    }

    pub(crate) fn answer(&mut self, number: u64, reply: &Reply, fds: Vec<OwnedFd>) {
        let Some(daemon) = self.daemon.as_mut() else { return };
        match daemon.reply(number, reply, fds) {
            Ok(()) => self.watch_daemon(),
            Err(why) => self.drop_daemon(&why),
        }
    }

    /// Says something to the daemon, if there is one.
    pub(crate) fn tell(&mut self, event: &Event) {
        let Some(daemon) = self.daemon.as_mut() else { return };
        match daemon.event(event) {
            Ok(()) => self.watch_daemon(),
            Err(why) => self.drop_daemon(&why),
        }
    }

    /// Something is not as it should be.
    pub(crate) fn warn(&mut self, container: Option<ContainerId>, message: String) {
        complain(&message);
        self.tell(&Event::Warning { container, message });
    }

    fn watch_daemon(&self) {
        if let Some(daemon) = &self.daemon {
            let interest = if daemon.wants_to_send() { Interest::ReadAndWrite } else { Interest::Read };
            self.poller.change(daemon, Token::Daemon, interest);
        }
    }

    fn drop_daemon(&mut self, why: &Broken) {
        if let Some(daemon) = self.daemon.take() {
            self.drop_connection(&daemon, why);
            self.abandon_capture();
        }
    }

    fn drop_connection(&self, connection: &Connection, why: &Broken) {
        self.poller.remove(connection);
        match why {
            Broken::Closed => {}
            Broken::Stalled => complain("dropped a daemon that does not read"),
            Broken::Protocol(error) => complain(&format!("dropped a connection: {}", chain(error))),
        }
    }

    /// Collects every child that has ended.
    fn reap(&mut self) {
        // The signal only says that there are some; several may have come as one.
        while let Ok(Some(_)) = self.signals.read_signal() {}
        while let Ok(Some((pid, ending))) = sys::process::try_wait_any() {
            self.ended(pid, ending);
        }
    }

    fn ended(&mut self, pid: Pid, ending: Ending) {
        if self.capture_ended(pid, ending) {
            return;
        }
        let (at, exit) = (time::now(), status(ending));
        if let Some(deletion) = self.table.take_deletion(pid) {
            self.deleted(deletion, ending);
        } else if let Some(exec) = self.table.take_exec(pid) {
            self.exec_ended(&exec, exit, at);
        } else if let Some(container) = self.table.by_pid(pid) {
            let id = container.id;
            self.main_ended(id, exit, at);
        } else if self.pod.as_ref().and_then(Pod::init).is_some_and(|init| init == pid) {
            if let Some(pod) = self.pod.as_mut() {
                pod.init_is_gone();
            }
            complain("the init of the pod's PID namespace has ended");
            self.tell(&Event::InitExited { exit, at });
        }
        // Else an orphan that became ours, or a helper of the executor.
    }

    fn exec_ended(&mut self, exec: &Exec, exit: ExitStatus, at: i64) {
        let (id, container) = (exec.id, exec.container);
        let exit = self.table.add_exit(|sequence| Exit::Exec { sequence, exec: id, container, exit, at }).clone();
        self.tell(&Event::Exited(exit));
    }

    fn begin_shutdown(&mut self, number: u64) {
        self.stopping = Some(Stopping { number, until: Instant::now() + SHUTDOWN });
        // What is frozen on v1 does not even die.
        self.abandon_capture();
        self.kill_everything();
    }

    fn kill_everything(&mut self) {
        for pidfd in self.table.living() {
            // Gone already: as wanted.
            let _ = sys::process::signal(pidfd.as_fd(), Signal::KILL);
        }
    }

    /// Whether a `Shutdown` is complete and the supervisor may end.
    fn shut_down(&mut self) -> bool {
        let Some(stopping) = self.stopping else { return false };
        if self.table.quiet() {
            if let Some(Err(error)) = self.pod.take().map(Pod::close) {
                complain(&error.chain());
            }
            let _ = fs::remove_file(self.pod_dir.join(shim_socket()));
            self.answer(stopping.number, &Reply::Done, Vec::new());
            self.say_farewell();
            return true;
        }
        if Instant::now() >= stopping.until {
            self.stopping = None;
            let error = Error::NotDead { left: self.table.living().count() };
            self.answer(stopping.number, &Reply::Failed(error.failure("shut down")), Vec::new());
        }
        false
    }

    fn say_farewell(&mut self) {
        let end = Instant::now() + FAREWELL;
        while let Some(daemon) = self.daemon.as_mut().filter(|daemon| daemon.wants_to_send()) {
            if Instant::now() >= end || daemon.flush().is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The socket's name in the pod's run directory.
fn shim_socket() -> &'static str {
    "shim.sock"
}

/// Blocks what is read from the descriptor, and what has to have no effect: only the daemon ends a supervisor.
fn block_signals() -> Result<SignalFd, Errno> {
    let ignored = [Named::SIGHUP, Named::SIGINT, Named::SIGQUIT, Named::SIGTERM, Named::SIGUSR1, Named::SIGUSR2];
    let children = SigSet::from(Named::SIGCHLD);
    let all: SigSet = ignored.into_iter().chain([Named::SIGCHLD]).collect();
    let made = all.thread_block().and_then(|()| SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC));
    made.map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

fn status(ending: Ending) -> ExitStatus {
    let signal = match ending {
        Ending::Code(_) => None,
        Ending::Signal(signal) => Some(signal),
    };
    ExitStatus { code: ending.code(), signal, ..ExitStatus::default() }
}

/// An error and its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
