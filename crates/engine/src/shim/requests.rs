//! What can be asked of a supervisor, each with its deadline.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use model::{
    ContainerId, ExecId, Signal,
    checkpoint::{CapturePlan, RestorePlan},
    plan::{ContainerPlan, ExecPlan, HookStage, HooksPlan, PodPlan},
    pod::Timestamp,
};
use shim_proto::{ExecPlanWithStdin, FdRole, REVISION, Reply, Request, Scope, State, VERSION};

use super::{AttachIo, ContainerReport, Error, ExecIo, Shim, ShimState, connection::Connection};

/// For what takes no more than a few system calls.
const SHORT: Duration = Duration::from_secs(5);
/// For what makes processes, namespaces and mounts.
const LONG: Duration = Duration::from_secs(30);
/// For the end of everything: the supervisor itself gives up after ten seconds.
const SHUTDOWN: Duration = Duration::from_secs(15);

/// Says hello; the supervisor's pid.
pub(super) async fn hello(connection: &Connection, limit: Duration) -> Result<u32, Error> {
    let request = Request::Hello { version: VERSION, revision: REVISION };
    let pod = connection.pod();
    match connection.ask(&request, Vec::new(), limit).await?.0 {
        Reply::Hello { version: VERSION, pid, .. } => Ok(pid),
        Reply::Hello { version, .. } => Err(Error::Version { pod, version }),
        _ => Err(Error::WrongReply { pod, request: "hello" }),
    }
}

/// An exit has been taken note of.
pub(super) async fn ack(connection: &Connection, sequence: u64) -> Result<(), Error> {
    match connection.ask(&Request::Ack { sequence }, Vec::new(), SHORT).await?.0 {
        Reply::Done => Ok(()),
        _ => Err(Error::WrongReply { pod: connection.pod(), request: "acknowledge" }),
    }
}

impl Shim {
    /// Makes the pod: namespaces, cgroup, init. Once. `joined`: the plan's joined namespaces.
    ///
    /// # Errors
    /// What the supervisor says, or that it does not.
    pub async fn setup(&self, plan: &PodPlan, joined: Vec<OwnedFd>) -> Result<(), Error> {
        match self.connection.ask(&Request::Setup(plan.clone()), joined, LONG).await?.0 {
            Reply::Done => Ok(()),
            _ => Err(self.wrong("set up pod")),
        }
    }

    /// Makes a container up to, not including, its program. `rootfs`: an open directory or a detached mount; `mounts`:
    /// those of the plan's `MountKind::Detached`. Returns what could not be had and is not fatal.
    ///
    /// # Errors
    /// What the supervisor says, or that it does not.
    pub async fn create(&self, plan: &ContainerPlan, rootfs: BorrowedFd<'_>, mounts: &[OwnedFd]) -> Result<Vec<String>, Error> {
        let fds = std::iter::once(rootfs).chain(mounts.iter().map(AsFd::as_fd)).map(|fd| fd.try_clone_to_owned());
        let fds = fds.collect::<Result<_, _>>().map_err(|source| Error::Sys { pod: self.pod, step: "dup", source })?;
        let stages = [HookStage::Prestart, HookStage::CreateRuntime, HookStage::CreateContainer, HookStage::Poststop];
        let limit = LONG + plan.hooks.as_ref().map_or(Duration::ZERO, |hooks| hooks.time(&stages));
        match self.connection.ask(&Request::Create(plan.clone()), fds, limit).await?.0 {
            Reply::Created { warnings, .. } => Ok(warnings),
            _ => Err(self.wrong("create container")),
        }
    }

    /// Lets it run its program; returns once that has begun, with the time. Its hooks may take their time.
    ///
    /// # Errors
    /// What the supervisor says ([`Error::exit_code`] for a program that could not be run), or that it does not.
    pub async fn start(&self, container: ContainerId, hooks: Option<&HooksPlan>) -> Result<Timestamp, Error> {
        let stages = [HookStage::StartContainer, HookStage::Poststart, HookStage::Poststop];
        let limit = LONG + hooks.map_or(Duration::ZERO, |hooks| hooks.time(&stages));
        match self.connection.ask(&Request::Start { container }, Vec::new(), limit).await?.0 {
            Reply::Started { at } => Ok(at),
            _ => Err(self.wrong("start container")),
        }
    }

    /// Signals the main process. Fine if it has ended.
    ///
    /// # Errors
    /// What the supervisor says (NotFound: no such container), or that it does not.
    pub async fn signal(&self, container: ContainerId, signal: Signal) -> Result<(), Error> {
        self.plain(Request::Signal { container, signal, scope: Scope::Main }, SHORT).await
    }

    /// Signals everything in the container's cgroup.
    ///
    /// # Errors
    /// As [`Self::signal`].
    pub async fn signal_all(&self, container: ContainerId, signal: Signal) -> Result<(), Error> {
        self.plain(Request::Signal { container, signal, scope: Scope::All }, LONG).await
    }

    /// Runs a process in a container, with /dev/null as stdin.
    ///
    /// # Errors
    /// What the supervisor says, or that it does not.
    pub async fn exec(&self, plan: &ExecPlan) -> Result<ExecIo, Error> {
        self.exec_as(ExecPlanWithStdin { plan: plan.clone(), stdin: false }).await
    }

    /// Runs a process in a container, with a pipe as stdin.
    ///
    /// # Errors
    /// What the supervisor says, or that it does not.
    pub async fn exec_with_stdin(&self, plan: &ExecPlan) -> Result<ExecIo, Error> {
        self.exec_as(ExecPlanWithStdin { plan: plan.clone(), stdin: true }).await
    }

    async fn exec_as(&self, plan: ExecPlanWithStdin) -> Result<ExecIo, Error> {
        let exit = self.connection.expect_exec(plan.plan.id);
        let (Reply::Exec { fds: roles, .. }, fds) = self.connection.ask(&Request::Exec(plan), Vec::new(), LONG).await? else {
            return Err(self.wrong("exec"));
        };
        let AttachIo { stdin, stdout, stderr } = self.sort(roles, fds, "exec")?;
        Ok(ExecIo { stdin, stdout, stderr, exit })
    }

    /// Signals an exec; SIGKILL reaches everything in its cgroup.
    ///
    /// # Errors
    /// What the supervisor says (NotFound: it has ended), or that it does not.
    pub async fn signal_exec(&self, exec: ExecId, signal: Signal) -> Result<(), Error> {
        self.plain(Request::SignalExec { exec, signal }, LONG).await
    }

    /// A copy of a container's output from now on, and its stdin.
    ///
    /// # Errors
    /// What the supervisor says, or that it does not.
    pub async fn attach(&self, container: ContainerId) -> Result<AttachIo, Error> {
        let (Reply::Attached { fds: roles }, fds) = self.connection.ask(&Request::Attach { container }, Vec::new(), SHORT).await?
        else {
            return Err(self.wrong("attach"));
        };
        self.sort(roles, fds, "attach")
    }

    /// Sets the size of a container's terminal. An exec's is with [`ExecIo::stdin`]: TIOCSWINSZ.
    ///
    /// # Errors
    /// What the supervisor says, or that it does not.
    pub async fn resize(&self, container: ContainerId, width: u16, height: u16) -> Result<(), Error> {
        self.plain(Request::ResizeTty { container, width, height }, SHORT).await
    }

    /// Closes the supervisor's end of a container's stdin.
    ///
    /// # Errors
    /// What the supervisor says, or that it does not.
    pub async fn close_stdin(&self, container: ContainerId) -> Result<(), Error> {
        self.plain(Request::CloseStdin { container }, SHORT).await
    }

    /// Opens the log anew at its path; the file is there afterwards.
    ///
    /// # Errors
    /// What the supervisor says, or that it does not.
    pub async fn reopen_log(&self, container: ContainerId) -> Result<(), Error> {
        self.plain(Request::ReopenLog { container }, SHORT).await
    }

    /// Everything it knows.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn state(&self) -> Result<ShimState, Error> {
        self.fetch_state().await.map(ShimState::from)
    }

    /// What it knows of one container; `None`: nothing.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn container(&self, id: ContainerId) -> Result<Option<ContainerReport>, Error> {
        Ok(self.state().await?.containers.into_iter().find(|report| report.container == id))
    }

    pub(super) async fn fetch_state(&self) -> Result<State, Error> {
        match self.connection.ask(&Request::State, Vec::new(), SHORT).await?.0 {
            Reply::State(state) => Ok(state),
            _ => Err(self.wrong("state")),
        }
    }

    /// An exit is on disk here: the supervisor need not keep it.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn ack(&self, sequence: u64) -> Result<(), Error> {
        ack(&self.connection, sequence).await
    }

    /// Drops everything about a container, its exit record too. One that lives is killed, without an event. Fine if
    /// there is none.
    ///
    /// # Errors
    /// What the supervisor says, or that it does not.
    pub async fn forget(&self, container: ContainerId) -> Result<(), Error> {
        self.plain(Request::Forget { container }, LONG).await
    }

    /// Kills everything and ends the supervisor; every exit has been reported when this returns.
    ///
    /// # Errors
    /// Something does not die, or the supervisor does not answer.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.plain(Request::Shutdown, SHUTDOWN).await
    }

    /// Freezes containers, until [`Self::thaw`] or until the connection is lost.
    ///
    /// # Errors
    /// What the supervisor says, or that it does not.
    pub async fn freeze(&self, containers: Vec<ContainerId>) -> Result<(), Error> {
        self.plain(Request::Freeze { containers }, SHORT).await
    }

    /// Ends a capture, and lets everything that was frozen run.
    ///
    /// # Errors
    /// What the supervisor says, or that it does not.
    pub async fn thaw(&self) -> Result<(), Error> {
        self.plain(Request::Thaw, LONG).await
    }

    /// Runs criu and waits for its end; its exit code.
    ///
    /// # Errors
    /// What the supervisor says, or that it does not.
    pub async fn capture(&self, plan: CapturePlan, limit: Duration) -> Result<i32, Error> {
        match self.connection.ask(&Request::Capture(plan), Vec::new(), limit + SHORT).await?.0 {
            Reply::Captured { code } => Ok(code),
            _ => Err(self.wrong("capture container")),
        }
    }

    /// As [`Self::create`], with processes out of images.
    ///
    /// # Errors
    /// What the supervisor says, or that it does not.
    pub async fn restore(
        &self,
        plan: &ContainerPlan,
        restore: RestorePlan,
        rootfs: BorrowedFd<'_>,
        mounts: &[OwnedFd],
    ) -> Result<Vec<String>, Error> {
        let fds = std::iter::once(rootfs).chain(mounts.iter().map(AsFd::as_fd)).map(|fd| fd.try_clone_to_owned());
        let fds = fds.collect::<Result<_, _>>().map_err(|source| Error::Sys { pod: self.pod, step: "dup", source })?;
        let limit = LONG + Duration::from_millis(restore.limit);
        match self.connection.ask(&Request::Restore { plan: plan.clone(), restore }, fds, limit).await?.0 {
            Reply::Created { warnings, .. } => Ok(warnings),
            _ => Err(self.wrong("restore container")),
        }
    }

    async fn plain(&self, request: Request, limit: Duration) -> Result<(), Error> {
        match self.connection.ask(&request, Vec::new(), limit).await?.0 {
            Reply::Done => Ok(()),
            _ => Err(self.wrong("plain request")),
        }
    }

    fn wrong(&self, request: &'static str) -> Error {
        Error::WrongReply { pod: self.pod, request }
    }

    /// Descriptors by what they are. A terminal is both ways.
    fn sort(&self, roles: Vec<FdRole>, fds: Vec<OwnedFd>, request: &'static str) -> Result<AttachIo, Error> {
        if roles.len() != fds.len() {
            return Err(self.wrong(request));
        }
        let mut io = AttachIo::default();
        for (role, fd) in roles.into_iter().zip(fds) {
            match role {
                FdRole::Stdin => io.stdin = Some(fd),
                FdRole::Stdout => io.stdout = Some(fd),
                FdRole::Stderr => io.stderr = Some(fd),
                FdRole::Terminal => {
                    if io.stdout.is_none() {
                        io.stdout = fd.try_clone().ok();
                    }
                    io.stdin = Some(fd);
                }
            }
        }
        Ok(io)
    }
}
