//! What the daemon asks for, carried out.

use std::os::fd::OwnedFd;

use model::{
    ContainerId, ErrorKind, ExecId, Signal,
    checkpoint::RestorePlan,
    container::ExitStatus,
    plan::{ContainerPlan, PodPlan},
};
use rustix::{
    io::{Errno, fcntl_dupfd_cloexec},
    termios::Winsize,
};
use shim_proto::{ExecPlanWithStdin, Failure, FdRole, REVISION, Reply, Request, Scope, State, VERSION};

use crate::{
    error::Error,
    executor::Pod,
    hooks,
    log::Log,
    output::Output,
    supervisor::Supervisor,
    table::{CONTAINERS, Container, EXECS, End, Exec, Phase, number},
    time,
};

/// The answer to hello: both sides must speak the same version.
pub(crate) fn hello(version: u32) -> Reply {
    if version == VERSION {
        return Reply::Hello { version: VERSION, revision: REVISION, pid: number(rustix::process::getpid()) };
    }
    let message = format!("daemon speaks version {version}, supervisor version {VERSION}");
    Reply::Failed(Failure { step: "hello".to_owned(), message, kind: ErrorKind::Unsupported, exit_code: None })
}

type Answer = Result<(Reply, Vec<OwnedFd>), Error>;

impl Supervisor {
    /// Carries out a request; its descriptors are closed if it has no use for them.
    pub(crate) fn handle(&mut self, request: Request, fds: Vec<OwnedFd>) -> (Reply, Vec<OwnedFd>) {
        let (step, answer) = match request {
            Request::Hello { version, .. } => return (hello(version), Vec::new()),
            Request::Setup(plan) => ("set up pod", self.set_up(&plan, fds)),
            Request::Create(plan) => ("create container", self.create(plan, None, fds)),
            Request::Start { container } => ("start container", self.start(container)),
            Request::Signal { container, signal, scope } => ("signal container", self.signal(container, signal, scope)),
            Request::Exec(plan) => ("exec", self.exec(&plan)),
            Request::SignalExec { exec, signal } => ("signal exec", self.signal_exec(exec, signal)),
            Request::ResizeTty { container, width, height } => ("resize terminal", self.resize(container, width, height)),
            Request::CloseStdin { container } => ("close stdin", self.close_stdin(container)),
            Request::ReopenLog { container } => ("reopen log", self.reopen_log(container)),
            Request::Attach { container } => ("attach", self.attach(container)),
            Request::State => ("state", Ok((Reply::State(self.state()), Vec::new()))),
            Request::Ack { sequence } => {
                self.table.acknowledge(sequence);
                ("acknowledge", done())
            }
            Request::Forget { container } => ("forget container", self.forget(container)),
            Request::Freeze { containers } => ("freeze containers", self.freeze(&containers).and_then(|()| done())),
            Request::Thaw => ("thaw containers", self.thaw().and_then(|()| done())),
            // The loop answers them: when everything is dead, when criu has ended.
            Request::Shutdown | Request::Capture(_) => ("shut down", done()),
            Request::Restore { plan, restore } => ("restore container", self.create(plan, Some(&restore), fds)),
        };
        answer.unwrap_or_else(|error| (Reply::Failed(error.failure(step)), Vec::new()))
    }

    fn set_up(&mut self, plan: &PodPlan, joined: Vec<OwnedFd>) -> Answer {
        if self.pod.is_some() {
            return Err(Error::State { is: "pod is set up", request: "set up" });
        }
        let made = Pod::set_up(plan, &self.pod_dir, joined);
        // Half in its new namespaces this process is of no more use.
        self.spoiled = made.is_err();
        self.pod = Some(made?);
        done()
    }

    fn create(&mut self, plan: ContainerPlan, restore: Option<&RestorePlan>, fds: Vec<OwnedFd>) -> Answer {
        let pod = self.pod.as_ref().ok_or(Error::State { is: "pod is not set up", request: "create" })?;
        if self.stopping.is_some() {
            return Err(Error::State { is: "supervisor is shutting down", request: "create" });
        }
        if self.table.containers.contains_key(&plan.id) {
            return Err(Error::ContainerExists(plan.id));
        }
        if self.table.containers.len() >= CONTAINERS {
            return Err(Error::TooMany { what: "containers", limit: CONTAINERS });
        }
        let log = plan.log_path.as_deref().map(|path| Log::open(path, plan.log_limit)).transpose()?;
        let oom_before = self.cgroups.oom_before(&plan.cgroup);
        let hooks = hooks::prepare(&plan)?;
        let made = match restore {
            None => pod.create(&plan, fds, &self.table),
            Some(restore) => pod.restore(&plan, restore, fds),
        };
        let undo = |_: &Error| {
            if let Some(error) = hooks.as_ref().and_then(|hooks| hooks::finish(pod, hooks).err()) {
                crate::complain(&error.chain());
            }
        };
        let made = made.inspect_err(undo)?;
        let failed = |step| move |source| Error::Sys { step, source };
        let output = Output::new(log, made.stdout, made.stderr).map_err(failed("fcntl(O_NONBLOCK)"))?;
        let (pid, warnings) = (made.pid, made.warnings);
        let container = Container {
            id: plan.id,
            key: self.table.next_key(),
            pid,
            pidfd: made.pidfd,
            cgroup: plan.cgroup,
            own_pids: plan.pid == model::pod::PidMode::Container,
            phase: Phase::Created(made.waiting),
            output,
            stdin: made.stdin,
            terminal: made.terminal,
            runtime: made.runtime,
            hooks,
            oom_before,
        };
        self.watch_output(&container).map_err(failed("epoll_ctl"))?;
        self.table.containers.insert(plan.id, container);
        Ok((Reply::Created { pid: number(pid), warnings }, Vec::new()))
    }

    fn start(&mut self, id: ContainerId) -> Answer {
        let pod = self.pod.as_ref().ok_or(Error::State { is: "pod is not set up", request: "start" })?;
        let container = self.table.container(id)?;
        let is = container.state_name();
        let phase = std::mem::replace(&mut container.phase, Phase::Running { started_at: time::now() });
        let Phase::Created(waiting) = phase else {
            container.phase = phase;
            return Err(Error::State { is, request: "start" });
        };
        match waiting.start(pod, &container.pidfd) {
            Ok(()) => {
                let at = time::now();
                container.phase = Phase::Running { started_at: at };
                self.started(id);
                Ok((Reply::Started { at }, Vec::new()))
            }
            Err(error) => {
                let failure = error.failure("start container");
                let exit = ExitStatus { code: failure.exit_code.unwrap_or(128), ..ExitStatus::default() };
                self.close_container(id, End { started_at: None, finished_at: time::now(), exit });
                self.stopped(id);
                Ok((Reply::Failed(failure), Vec::new()))
            }
        }
    }

    fn signal(&mut self, id: ContainerId, signal: Signal, scope: Scope) -> Answer {
        let container = self.table.container(id)?;
        match scope {
            Scope::Main if container.alive() => send(&container.pidfd, signal)?,
            Scope::Main => {}
            Scope::All => self.cgroups.signal(&container.cgroup, signal)?,
        }
        done()
    }

    fn exec(&mut self, request: &ExecPlanWithStdin) -> Answer {
        let plan = &request.plan;
        let pod = self.pod.as_ref().ok_or(Error::State { is: "pod is not set up", request: "exec" })?;
        let container = self.table.containers.get(&plan.container).ok_or(Error::NoContainer(plan.container))?;
        if self.table.execs.contains_key(&plan.id) {
            return Err(Error::ExecExists(plan.id));
        }
        if self.table.execs.len() >= EXECS {
            return Err(Error::TooMany { what: "execs", limit: EXECS });
        }
        if !matches!(container.phase, Phase::Running { .. }) {
            return Err(Error::State { is: container.state_name(), request: "exec" });
        }
        let made = pod.exec(plan, container, request.stdin)?;
        if container.runtime.is_some() && !plan.cgroup.is_empty() {
            // The runtime has put it into the container's group.
            self.cgroups.adopt(&plan.cgroup, made.pid)?;
        }
        let exec = Exec { id: plan.id, container: plan.container, pid: made.pid, pidfd: made.pidfd, cgroup: plan.cgroup.clone() };
        self.table.execs.insert(plan.id, exec);
        for warning in made.warnings {
            self.warn(Some(plan.container), warning);
        }
        let (roles, fds) = made.fds.into_iter().unzip();
        Ok((Reply::Exec { pid: number(made.pid), fds: roles }, fds))
    }

    fn signal_exec(&mut self, id: ExecId, signal: Signal) -> Answer {
        let exec = self.table.execs.get(&id).ok_or(Error::NoExec(id))?;
        send(&exec.pidfd, signal)?;
        if signal == Signal::KILL && !exec.cgroup.is_empty() {
            self.cgroups.kill_exec(&exec.cgroup)?;
        }
        done()
    }

    fn resize(&mut self, id: ContainerId, width: u16, height: u16) -> Answer {
        let container = self.table.container(id)?;
        let is = if container.alive() { "container has no terminal" } else { container.state_name() };
        let terminal = container.terminal.as_ref().ok_or(Error::State { is, request: "resize" })?;
        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&terminal.master, size).map_err(|source| Error::Sys { step: "ioctl(TIOCSWINSZ)", source })?;
        done()
    }

    fn close_stdin(&mut self, id: ContainerId) -> Answer {
        self.table.container(id)?.stdin = None;
        done()
    }

    fn reopen_log(&mut self, id: ContainerId) -> Answer {
        let container = self.table.container(id)?;
        container.output.log().map_or(Ok(()), Log::reopen)?;
        done()
    }

    fn attach(&mut self, id: ContainerId) -> Answer {
        let container = self.table.container(id)?;
        if !container.alive() {
            return Err(Error::State { is: container.state_name(), request: "attach" });
        }
        let failed = |step| move |source| Error::Sys { step, source };
        let mut roles = Vec::new();
        let mut fds = Vec::new();
        let master = container.terminal.as_ref().map(|terminal| &terminal.master);
        let input = [(FdRole::Stdin, container.stdin.as_ref()), (FdRole::Terminal, master)];
        for (role, fd) in input.into_iter().filter_map(|(role, fd)| Some((role, fd?))) {
            fds.push(fcntl_dupfd_cloexec(fd, 3).map_err(failed("fcntl(F_DUPFD_CLOEXEC)"))?);
            roles.push(role);
        }
        for (index, fd) in container.output.attach().map_err(failed("pipe"))? {
            fds.push(fd);
            roles.push(if index == 0 { FdRole::Stdout } else { FdRole::Stderr });
        }
        Ok((Reply::Attached { fds: roles }, fds))
    }

    fn state(&self) -> State {
        State {
            set_up: self.pod.is_some(),
            init_pid: self.pod.as_ref().and_then(Pod::init).map(number),
            stopping: self.stopping.is_some(),
            ..self.table.state()
        }
    }

    /// One that lives is killed, and nobody is told: whoever asks for this wants to hear nothing more of it.
    fn forget(&mut self, id: ContainerId) -> Answer {
        if let Ok(container) = self.table.container(id) {
            if container.alive() {
                send(&container.pidfd, Signal::KILL)?;
                self.cgroups.kill(&container.cgroup)?;
            }
            let exit = ExitStatus { code: 137, signal: Some(Signal::KILL), ..ExitStatus::default() };
            self.close_container(id, End { started_at: None, finished_at: time::now(), exit });
            self.stopped(id);
            self.table.containers.remove(&id);
        }
        self.finish_deletion(id);
        self.exits.remove(id)?;
        done()
    }
}

fn done() -> Answer {
    Ok((Reply::Done, Vec::new()))
}

/// Sends a signal; who has ended already has nothing against it.
fn send(pidfd: &OwnedFd, signal: Signal) -> Result<(), Error> {
    match sys::process::signal(pidfd, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(source) => Err(Error::Sys { step: "pidfd_send_signal", source }),
    }
}
