//! Hooks: other people's programs that are run at points of a container's life, with its state on their standard input (OCI
//! runtime specification, config.md "POSIX-platform Hooks", runtime.md "State").
//!
//! Nothing of the supervisor's reaches them: their environment is what the plan says, their working directory is `/`, and
//! their only descriptors are the standard ones. Each has a deadline.

use std::{
    fmt::Write as _,
    fs,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use model::{
    ContainerId,
    plan::{ContainerPlan, Hook, HookStage, HooksPlan, oci},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, Mode, OFlags, openat},
    pipe::{PipeFlags, pipe_with},
};
use sys::{
    Errno,
    ns::{self, Kinds, New},
    process::{self, Exit, Fork, Process},
};

use crate::{
    Error, Io, PodEnv,
    create::Created,
    error::{At, Failure, Reason, Step, words},
    program::Program,
    report,
};

/// Of what a hook says, the last part goes into the message.
const TAIL: usize = 1 << 10;
/// For collecting one that has been killed.
const REAP: Duration = Duration::from_secs(5);

/// A container's hooks.
#[derive(Clone, Debug)]
pub struct Hooks {
    id: ContainerId,
    plan: HooksPlan,
}

/// Where hooks run.
#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    /// In the namespaces that the supervisor was started in.
    Host(&'a PodEnv),
    /// In those of the calling process, as the host's root.
    Outside(&'a PodEnv),
    /// As the calling process.
    Inside,
}

impl Hooks {
    /// Those of a container of the executor's; an OCI runtime runs hooks itself.
    pub fn of(plan: &ContainerPlan) -> Option<Self> {
        let hooks = plan.hooks.as_ref().filter(|hooks| plan.oci.is_none() && !hooks.list.is_empty())?;
        Some(Self { id: plan.id, plan: hooks.clone() })
    }

    /// Makes the bundle that their state names.
    ///
    /// # Errors
    /// mkdir(2) and what else.
    pub fn write_bundle(&self) -> Result<(), Error> {
        let failed =
            |error: std::io::Error| Error::call("make bundle for hooks")(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.root()).map_err(failed)?;
        fs::write(Path::new(&self.plan.bundle).join("config.json"), &*self.plan.config).map_err(failed)
    }

    /// Removes the bundle.
    ///
    /// # Errors
    /// unlink(2).
    pub fn remove_bundle(&self) -> std::io::Result<()> {
        match fs::remove_dir_all(&self.plan.bundle) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The place for the container's root in its own mount namespace, before that root is all there is.
    pub(crate) fn root(&self) -> PathBuf {
        Path::new(&self.plan.bundle).join(oci::ROOTFS)
    }

    /// Whether there are any for one of these points.
    pub(crate) fn any(&self, stages: &[HookStage]) -> bool {
        self.plan.list.iter().any(|hook| stages.contains(&hook.stage))
    }

    /// How long those of these points may take together.
    pub(crate) fn time(&self, stages: &[HookStage]) -> Duration {
        self.plan.time(stages)
    }

    /// Runs those that are run beside the container, one after the other up to the first that fails. `pid`: its first process.
    ///
    /// # Errors
    /// Which hook, and what it said last.
    pub fn run(&self, env: &PodEnv, stage: HookStage, pid: Option<process::Pid>) -> Result<(), Error> {
        let failed = |failure: Failure| Error::Step { step: failure.step, source: failure.reason };
        self.run_in(Place::Host(env), stage, pid.map_or(0, |pid| pid.as_raw_nonzero().get())).map_err(failed)
    }

    /// Runs those of the container's namespaces, with the host's root still there.
    pub(crate) fn run_outside(&self, env: &PodEnv) -> Step<()> {
        self.run_in(Place::Outside(env), HookStage::CreateContainer, own_pid())
    }

    /// Runs those of the container itself.
    pub(crate) fn run_inside(&self) -> Step<()> {
        self.run_in(Place::Inside, HookStage::StartContainer, own_pid())
    }

    fn run_in(&self, place: Place<'_>, stage: HookStage, pid: i32) -> Step<()> {
        let hooks = self.plan.list.iter().filter(|hook| hook.stage == stage);
        let state = self.state(stage, pid);
        for hook in hooks {
            let step = || format!("{} hook {:?}", name(stage), hook.path);
            let (process, output) = start(place, hook, &state).map_err(|error| explained(step(), &error))?;
            let until = Instant::now() + Duration::from_secs(hook.timeout.into());
            finish(&process, &output, until).map_err(|why| because(step(), why))?;
        }
        Ok(())
    }

    /// The state, as the specification words it.
    fn state(&self, stage: HookStage, pid: i32) -> Vec<u8> {
        let status = match stage {
            HookStage::Prestart | HookStage::CreateRuntime | HookStage::CreateContainer => "creating",
            HookStage::StartContainer => "created",
            HookStage::Poststart => "running",
            HookStage::Poststop => "stopped",
        };
        let mut text = format!(r#"{{"ociVersion":"1.0.2","id":"{}","status":"{status}""#, self.id);
        if pid != 0 {
            let _ = write!(text, r#","pid":{pid}"#);
        }
        let _ = write!(text, r#","bundle":{}"#, quoted(&self.plan.bundle));
        let annotations: Vec<_> =
            self.plan.annotations.iter().map(|(key, value)| format!("{}:{}", quoted(key), quoted(value))).collect();
        let _ = write!(text, r#","annotations":{{{}}}}}"#, annotations.join(","));
        text.into_bytes()
    }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn name(stage: HookStage) -> &'static str {
    match stage {
        HookStage::Prestart => "prestart",
        HookStage::CreateRuntime => "createRuntime",
        HookStage::CreateContainer => "createContainer",
        HookStage::StartContainer => "startContainer",
        HookStage::Poststart => "poststart",
        HookStage::Poststop => "poststop",
    }
}

fn because(step: String, text: String) -> Failure {
    // No fault of the client's, whatever it was.
    Failure { step, reason: Reason { text, errno: Some(Errno::IO) }, exit_code: 0 }
}

fn explained(step: String, error: &Error) -> Failure {
    use std::error::Error as _;
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    because(step, format!("{error}{cause}"))
}

/// Comes back when its program runs, with the reading end of what it says.
fn start(place: Place<'_>, hook: &Hook, state: &[u8]) -> Result<(Process, OwnedFd), Error> {
    let (output, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(Error::call("pipe2"))?;
    rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK).map_err(Error::call("fcntl(O_NONBLOCK)"))?;
    let stdin = state_file(state).map_err(Error::call("write the state"))?;
    let null = openat(CWD, "/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(Error::call("open /dev/null"))?;
    let (listener, reporter) = report::pair()?;
    let process = match process::fork(New::empty(), None).map_err(Error::call("clone3"))? {
        Fork::Child => {
            let failure = match prepare(place, hook, Io { stdin, stdout: null, stderr: theirs }) {
                Ok(program) => program.run(),
                Err(failure) => failure,
            };
            crate::init::give_up(&reporter, &failure)
        }
        Fork::Parent(process) => process,
    };
    drop((reporter, theirs));
    Created::new(process, listener).run().map(|running| (running.process, output))
}

fn prepare(place: Place<'_>, hook: &Hook, io: Io) -> Step<Program> {
    process::reset_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let program = Program::exactly(&hook.path, &hook.args, &hook.env)?;
    rustix::process::setsid().at(|| "setsid".to_owned())?;
    let killed = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(killed).at(|| "prctl(PR_SET_PDEATHSIG)".to_owned())?;
    match place {
        Place::Host(env) => env.leave_pod()?,
        Place::Outside(env) if env.userns.is_some() => {
            sys::userns::set_file_ids(0, 0).at(|| "read files as root".to_owned())?;
        }
        Place::Outside(_) => {}
        Place::Inside => {}
    }
    rustix::process::chdir("/").at(|| "chdir(\"/\")".to_owned())?;
    io.install()?;
    process::cloexec_from(3).at(|| "close_range".to_owned())?;
    Ok(program)
}

/// The state in a file of memory: a hook that does not read it keeps nobody waiting.
fn state_file(state: &[u8]) -> Result<OwnedFd, Errno> {
    let file = rustix::fs::memfd_create("state", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut rest = state;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file)
}

/// Waits for its end. What it has left running is not waited for.
fn finish(process: &Process, output: &OwnedFd, until: Instant) -> Result<(), String> {
    let mut said = Vec::new();
    let exit = loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let _ = process::signal(process, model::Signal::KILL);
            let _ = process::wait(process, REAP);
            return Err("took longer than it may, and was killed".to_owned());
        }
        let ended = wait(process.as_fd(), output.as_fd(), left).map_err(words)?;
        drain(output, &mut said);
        if ended {
            break process::wait(process, REAP).map_err(words)?;
        }
    };
    let text = String::from_utf8_lossy(&said).trim().replace('\n', "; ");
    let text = if text.is_empty() { String::new() } else { format!(": {text}") };
    match exit {
        Exit::Code(0) => Ok(()),
        Exit::Code(code) => Err(format!("exit status {code}{text}")),
        Exit::Signal(signal) => Err(format!("ended by {signal}{text}")),
    }
}

/// Until it says something, or has ended (`true`), or the time is over.
fn wait(process: BorrowedFd<'_>, output: BorrowedFd<'_>, left: Duration) -> Result<bool, Errno> {
    let mut fds = [PollFd::new(&process, PollFlags::IN), PollFd::new(&output, PollFlags::IN)];
    let limit = Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: i64::from(left.subsec_nanos()) };
    match poll(&mut fds, Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno),
    }
    let ended = !fds[0].revents().is_empty();
    let closed = !ended && fds[1].revents().contains(PollFlags::HUP) && !fds[1].revents().contains(PollFlags::IN);
    if closed {
        // It has closed its standard error and works on: only its end is of interest now.
        let mut one = [PollFd::new(&process, PollFlags::IN)];
        return match poll(&mut one, Some(&limit)) {
            Ok(count) => Ok(count > 0),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno),
        };
    }
    Ok(ended)
}

/// Takes what is there, and keeps its end.
fn drain(output: &OwnedFd, said: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = rustix::io::read(output, &mut buffer) {
        said.extend_from_slice(&buffer[..length]);
        said.drain(..said.len().saturating_sub(TAIL));
    }
}

impl PodEnv {
    /// Back into the namespaces that the supervisor was started in.
    fn leave_pod(&self) -> Step<()> {
        let started = &self.started_in;
        for (namespace, kind) in [
            (&started.net, Kinds::NETWORK),
            (&started.ipc, Kinds::INTER_PROCESS_COMMUNICATION),
            (&started.uts, Kinds::HOST_NAME_AND_NIS_DOMAIN_NAME),
        ] {
            ns::enter_link(namespace, kind).at(|| format!("setns({kind:?})"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_json() {
        assert_eq!(quoted("a\"b\\c\nd\u{7f}é"), "\"a\\\"b\\\\c\\u000ad\u{7f}é\"");
    }

    #[test]
    fn the_state_says_what_it_must() {
        let plan = HooksPlan {
            list: Vec::new(),
            bundle: "/run/b".into(),
            config: Vec::new().into(),
            annotations: [("k".to_owned(), "v\"".to_owned())].into(),
        };
        let hooks = Hooks { id: ContainerId::from_bytes([7; 32]), plan };
        let text = |stage, pid| String::from_utf8(hooks.state(stage, pid)).unwrap();
        let id = "07".repeat(32);
        assert_eq!(
            text(HookStage::CreateRuntime, 5),
            format!(
                r#"{{"ociVersion":"1.0.2","id":"{id}","status":"creating","pid":5,"bundle":"/run/b","annotations":{{"k":"v\""}}}}"#
            )
        );
        assert!(text(HookStage::Poststop, 0).contains(r#""status":"stopped","bundle""#));
    }
}
