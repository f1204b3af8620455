//! One connection to a supervisor: requests out, answers and events in, told apart by number.

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use model::{ExecId, PodId, container::ExitStatus};
use shim_proto::{Event, Exit, Incoming, Message, Packet, Reply, Request, decode_incoming, encode_request, receive};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, oneshot, watch},
};

use super::{Error, ShimEvent, ShimEvents, container_exit, launch};

type Answer = (Reply, Vec<OwnedFd>);

/// How long what a supervisor said before its end may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The connection. Its reader task ends when it is hung up or lost.
#[derive(Debug)]
pub(super) struct Connection {
    pod: PodId,
    socket: AsyncFd<OwnedFd>,
    numbers: AtomicU64,
    shared: Mutex<Shared>,
    events: mpsc::UnboundedSender<ShimEvent>,
    hung_up: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Shared {
    requests: HashMap<u64, oneshot::Sender<Answer>>,
    execs: HashMap<ExecId, oneshot::Sender<ExitStatus>>,
    /// Why nothing will ever come again.
    lost: Option<String>,
}

impl Connection {
    /// A connection over a socket whose other end is a supervisor's.
    pub(super) fn open(pod: PodId, socket: OwnedFd) -> Result<(Arc<Self>, ShimEvents), Error> {
        let failed = |step| move |source| Error::Sys { pod, step, source };
        let (events, receiver) = mpsc::unbounded_channel();
        let connection = Arc::new(Self {
            pod,
            socket: register(socket, Interest::READABLE | Interest::WRITABLE).map_err(failed("register socket"))?,
            numbers: AtomicU64::new(1),
            shared: Mutex::default(),
            events,
            hung_up: watch::Sender::new(false),
        });
        tokio::spawn(connection.clone().read());
        Ok((connection, receiver))
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn ask(&self, request: &Request, fds: Vec<OwnedFd>, limit: Duration) -> Result<Answer, Error> {
        let name = name(request);
        match tokio::time::timeout(limit, self.exchange(request, name, fds)).await {
            Ok(Ok((Reply::Failed(failure), _))) => Err(Error::Failed(failure)),
            Ok(answer) => answer,
            Err(_) => Err(Error::Deadline { pod: self.pod, request: name, limit }),
        }
    }

    async fn exchange(&self, request: &Request, name: &'static str, fds: Vec<OwnedFd>) -> Result<Answer, Error> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting::new(self, number)?;
        let failed = |source| Error::Protocol { pod: self.pod, request: name, source };
        let packet = Packet::new(encode_request(number, request), fds).map_err(failed)?;
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| match packet.send(socket) {
            Err(error) if error.would_block() => Err(std::io::ErrorKind::WouldBlock.into()),
            other => Ok(other),
        });
        sent.await.map_err(|source| Error::Sys { pod: self.pod, step: "send", source })?.map_err(failed)?;
        waiting.answer().await
    }

    /// From now on the end of an exec is told to the receiver. To be called before the exec is asked for: its end may
    /// come right behind the answer.
    pub(super) fn expect_exec(&self, exec: ExecId) -> oneshot::Receiver<ExitStatus> {
        let (sender, receiver) = oneshot::channel();
        let mut shared = self.shared();
        shared.execs.retain(|_, waiting| !waiting.is_closed());
        shared.execs.insert(exec, sender);
        receiver
    }

    /// Watches the supervisor's process, and collects it when it has ended (if it is our child), hung up or not.
    pub(super) fn watch(self: &Arc<Self>, pidfd: &OwnedFd) -> Result<(), Error> {
        let failed = |step| move |source| Error::Sys { pod: self.pod, step, source };
        let pidfd = pidfd.try_clone().map_err(failed("dup"))?;
        let pidfd = register(pidfd, Interest::READABLE).map_err(failed("register pidfd"))?;
        let connection = Arc::downgrade(self);
        tokio::spawn(async move {
            if pidfd.readable().await.is_ok() {
                launch::reap(&pidfd);
            }
            // The reader comes to the end of the socket by itself, after everything that was said before. Unless a
            // process that the supervisor was just starting holds a copy of its end.
            tokio::time::sleep(LAST_WORDS).await;
            if let Some(connection) = connection.upgrade() {
                connection.lose("it has ended");
            }
        });
        Ok(())
    }

    /// Ends the reader.
    pub(super) fn hang_up(&self) {
        self.hung_up.send_replace(true);
    }

    /// Passes an end on: a container's to the engine, an exec's to who waits for it, acknowledged at once because nobody
    /// else ever will.
    pub(super) fn exited(self: &Arc<Self>, exit: &Exit) {
        if let Some(exited) = container_exit(exit) {
            // Nobody listens any more: it stays unacknowledged.
            let _ = self.events.send(ShimEvent::Exited(exited));
        }
        if let Exit::Exec { exec, exit, sequence, .. } = *exit {
            if let Some(waiting) = self.shared().execs.remove(&exec) {
                let _ = waiting.send(exit);
            }
            let connection = self.clone();
            tokio::spawn(async move {
                // If it does not get there, the next connection hears of it again.
                let _ = super::requests::ack(&connection, sequence).await;
            });
        }
    }

    async fn read(self: Arc<Self>) {
        let mut hung_up = self.hung_up.subscribe();
        loop {
            let ready = tokio::select! {
                ready = self.socket.readable() => ready,
                _ = hung_up.wait_for(|up| *up) => return self.lose("hung up"),
            };
            let Ok(mut ready) = ready else { return self.lose("runtime ended") };
            match self.take() {
                Ok(true) => {}
                Ok(false) => ready.clear_ready(),
                Err(why) => return self.lose(&why),
            }
        }
    }

    /// Takes one message; `false`: there is none now.
    fn take(self: &Arc<Self>) -> Result<bool, String> {
        match receive(self.socket.get_ref().as_fd()) {
            Ok(message) => self.dispatch(message).map(|()| true),
            Err(error) if error.would_block() => Ok(false),
            Err(shim_proto::Error::Closed) => Err("it hung up".to_owned()),
            Err(error) => Err(crate::chain(&error)),
        }
    }

    fn dispatch(self: &Arc<Self>, Message { bytes, fds }: Message) -> Result<(), String> {
        match decode_incoming(&bytes) {
            Ok(Incoming::Reply { number, reply }) => {
                // Nobody waits any more: its descriptors are closed.
                if let Some(waiting) = self.shared().requests.remove(&number) {
                    let _ = waiting.send((reply, fds));
                }
            }
            Ok(Incoming::Event(Event::Exited(exit))) => self.exited(&exit),
            Ok(Incoming::Event(Event::Warning { container, message })) => {
                let message = container.map_or_else(|| message.clone(), |id| format!("container {}: {message}", id.short()));
                let _ = self.events.send(ShimEvent::Warning { message });
            }
            Ok(Incoming::Event(Event::InitExited { exit, .. })) => {
                let message = format!("the init of the pod's PID namespace ended (exit code {})", exit.code);
                let _ = self.events.send(ShimEvent::Warning { message });
            }
            // A newer supervisor says something that this daemon has no use for.
            Err(error @ shim_proto::Error::Body { .. }) => {
                let _ = self.events.send(ShimEvent::Warning { message: crate::chain(&error) });
            }
            Err(error) => return Err(crate::chain(&error)),
        }
        Ok(())
    }

    /// Nothing will come any more: everybody who waits is told so. The first reason stays.
    fn lose(&self, why: &str) {
        let mut shared = self.shared();
        if shared.lost.is_some() {
            return;
        }
        shared.lost = Some(why.to_owned());
        shared.requests.clear();
        shared.execs.clear();
        drop(shared);
        let _ = self.events.send(ShimEvent::Lost { why: why.to_owned() });
    }

    fn lost(&self) -> Error {
        let why = self.shared().lost.clone().unwrap_or_else(|| "answer dropped".to_owned());
        Error::Lost { pod: self.pod, why }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its pod.
    pub(super) fn pod(&self) -> PodId {
        self.pod
    }
}

/// A request that waits for its answer; forgotten when dropped.
struct Waiting<'a> {
    connection: &'a Connection,
    number: u64,
    answer: oneshot::Receiver<Answer>,
}

impl<'a> Waiting<'a> {
    fn new(connection: &'a Connection, number: u64) -> Result<Self, Error> {
        let (sender, answer) = oneshot::channel();
        let mut shared = connection.shared();
        if shared.lost.is_some() {
            drop(shared);
            return Err(connection.lost());
        }
        shared.requests.insert(number, sender);
        drop(shared);
        Ok(Self { connection, number, answer })
    }

    async fn answer(mut self) -> Result<Answer, Error> {
        (&mut self.answer).await.map_err(|_| self.connection.lost())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.connection.shared().requests.remove(&self.number);
    }
}

/// Has the runtime wait for a descriptor.
pub(super) fn register(fd: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    #[allow(deprecated, reason = "unsound for types that lie about their descriptor; an OwnedFd keeps its own open")]
    AsyncFd::with_interest(fd, interest)
}

/// What a request is called in errors.
fn name(request: &Request) -> &'static str {
    match request {
        Request::Hello { .. } => "hello",
        Request::Setup(_) => "set up pod",
        Request::Create(_) => "create container",
        Request::Start { .. } => "start container",
        Request::Signal { .. } => "signal container",
        Request::Exec(_) => "exec",
        Request::SignalExec { .. } => "signal exec",
        Request::ResizeTty { .. } => "resize terminal",
        Request::CloseStdin { .. } => "close stdin",
        Request::ReopenLog { .. } => "reopen log",
        Request::Attach { .. } => "attach",
        Request::State => "state",
        Request::Ack { .. } => "acknowledge",
        Request::Forget { .. } => "forget container",
        Request::Shutdown => "shut down",
        Request::Freeze { .. } => "freeze containers",
        Request::Thaw => "thaw containers",
        Request::Capture(_) => "capture container",
        Request::Restore { .. } => "restore container",
    }
}
