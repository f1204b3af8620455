//! Containers that an OCI runtime makes: its commands, each with a deadline, and the bundle that it reads.
//!
//! The runtime's processes are children of the supervisor, and what they leave behind (a container's first process, an exec)
//! becomes one when they end, because the supervisor is a subreaper. So streams, logs, signals, exits and limits are the
//! same as for containers of the executor's; the runtime is asked only for what nobody else can do: create, start, exec,
//! delete.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use container::{Bundle, Command, Io, PodEnv, StartError};
use model::{
    ContainerId,
    plan::{ContainerPlan, ExecPlan, OciPlan, ProcessPlan, oci},
};
use rustix::{
    io::Errno,
    process::{Pid, WaitId, WaitIdOptions},
};
use sys::process::{Exit, Process};

use crate::{console::Console, error::Error, executor::null, message, supervisor::chain};

/// For a command that makes something. Shorter than what a daemon waits for the answer.
const LIMIT: Duration = Duration::from_secs(25);
/// For `delete`, and for collecting what has been killed.
const SHORT: Duration = Duration::from_secs(10);
/// Of a log, the last part: the error is its last line.
const LOG_TAIL: usize = 64 << 10;

/// The runtime of one container.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    id: ContainerId,
    program: String,
    args: Vec<String>,
    bundle: PathBuf,
}

/// What a runtime has made.
#[derive(Debug)]
pub(crate) struct Born {
    pub(crate) process: Process,
    /// Master of its terminal, if it has one.
    pub(crate) console: Option<OwnedFd>,
    pub(crate) warnings: Vec<String>,
}

/// Namespaces that a container may share, as links: name and the process that is in it.
pub(crate) type Namespaces = Vec<(&'static str, u32)>;

impl Runtime {
    /// Makes the bundle: directory, configuration, links to namespaces.
    pub(crate) fn prepare(plan: &ContainerPlan, oci: &OciPlan, namespaces: &Namespaces) -> Result<Self, Error> {
        let bundle = PathBuf::from(&oci.bundle);
        let this = Self { id: plan.id, program: oci.runtime.clone(), args: oci.args.clone(), bundle };
        this.write_bundle(oci, namespaces).inspect_err(|_| this.clean())?;
        Ok(this)
    }

    fn write_bundle(&self, oci: &OciPlan, namespaces: &Namespaces) -> Result<(), Error> {
        let make = |path: PathBuf| {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed("make directory", &path))
        };
        make(self.bundle.join(oci::ROOTFS))?;
        make(self.state())?;
        let links = self.bundle.join(oci::NAMESPACES);
        make(links.clone())?;
        for (name, pid) in namespaces {
            let link = links.join(name);
            symlink(format!("/proc/{pid}/ns/{name}"), &link).map_err(failed("make link", &link))?;
        }
        write(&self.bundle.join("config.json"), &oci.config)
    }

    /// Makes the container up to its program.
    pub(crate) fn create(&self, env: &PodEnv, bundle: Bundle<'_>, io: Io) -> Result<Born, Error> {
        let process = &bundle.plan.process;
        let console = process.tty.then(|| Console::listen(&self.bundle)).transpose()?;
        let pid_file = self.bundle.join("pid");
        let mut words = vec!["create".to_owned(), "--bundle".into(), text(&self.bundle), "--pid-file".into(), text(&pid_file)];
        words.extend(console.iter().flat_map(Console::arguments));
        words.push(self.id.to_string());
        let warnings = self.run(env, words, io, Some(process), Some(bundle))?;
        let process = self.child(&pid_file)?;
        let console = console.map(Console::receive).transpose()?;
        Ok(Born { process, console, warnings })
    }

    /// Lets the program run.
    pub(crate) fn start(&self, env: &PodEnv) -> Result<(), Error> {
        self.run(env, vec!["start".to_owned(), self.id.to_string()], silence()?, None, None).map(|_| ())
    }

    /// Runs a further process.
    pub(crate) fn exec(&self, env: &PodEnv, plan: &ExecPlan, io: Io) -> Result<Born, Error> {
        let name = plan.id.to_string();
        let (file, pid_file) = (self.bundle.join(format!("{name}.json")), self.bundle.join(format!("{name}.pid")));
        let json = plan.oci_process.as_ref().ok_or(Error::NoOciProcess)?;
        let born = write(&file, json).and_then(|()| {
            let console = plan.process.tty.then(|| Console::listen(&self.bundle)).transpose()?;
            let mut words = vec!["exec".to_owned(), "--detach".into(), "--process".into(), text(&file), "--pid-file".into()];
            words.push(text(&pid_file));
            words.extend(console.iter().flat_map(Console::arguments));
            words.push(self.id.to_string());
            let warnings = self.run(env, words, io, Some(&plan.process), None)?;
            let process = self.child(&pid_file)?;
            Ok(Born { process, console: console.map(Console::receive).transpose()?, warnings })
        });
        for file in [file, pid_file] {
            // The bundle goes with the container, and they with it.
            let _ = fs::remove_file(file);
        }
        born
    }

    /// Begins to remove what the runtime keeps of a container whose processes have ended.
    pub(crate) fn delete(self, env: &PodEnv) -> Result<Deletion, Error> {
        let words = self.words(vec!["delete".to_owned(), "--force".into(), self.id.to_string()]);
        let command = Command { args: &words, directory: &self.bundle, io: silence()?, process: None };
        match container::run(env, command, None) {
            Ok((process, _)) => Ok(Deletion { runtime: self, process, until: Instant::now() + SHORT }),
            Err(error) => {
                self.clean();
                Err(self.failed("delete", chain(&error)))
            }
        }
    }

    /// The same for a container that was never made right, at once.
    pub(crate) fn undo(self, env: &PodEnv) -> Result<(), Error> {
        self.delete(env)?.finish()
    }

    fn run(
        &self,
        env: &PodEnv,
        words: Vec<String>,
        io: Io,
        process: Option<&ProcessPlan>,
        bundle: Option<Bundle<'_>>,
    ) -> Result<Vec<String>, Error> {
        let name = words[0].clone();
        let words = self.words(words);
        // The last error in it is to be this command's.
        let _ = fs::remove_file(self.log());
        let command = Command { args: &words, directory: &self.bundle, io, process };
        let (process, warnings) = container::run(env, command, bundle).map_err(|error| self.failed(&name, chain(&error)))?;
        match sys::process::wait(&process, LIMIT) {
            Ok(Exit::Code(0)) => Ok(warnings),
            Ok(exit) => Err(self.explained(&name, exit)),
            Err(errno) => {
                let _ = sys::process::signal(&process, model::Signal::KILL);
                let _ = sys::process::wait(&process, SHORT);
                let why = match errno {
                    Errno::TIMEDOUT => format!("took longer than {} s and was killed", LIMIT.as_secs()),
                    errno => errno.to_string(),
                };
                Err(self.failed(&name, why))
            }
        }
    }

    fn words(&self, command: Vec<String>) -> Vec<String> {
        let mut words = vec![self.program.clone()];
        words.extend(self.args.iter().cloned());
        words.extend(["--root".to_owned(), text(&self.state()), "--log".into(), text(&self.log()), "--log-format".into()]);
        words.push("json".into());
        words.extend(command);
        words
    }

    /// What the runtime says of its failure.
    fn explained(&self, command: &str, exit: Exit) -> Error {
        let log = fs::read(self.log()).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL)..]).into_owned();
        let why = message::last_error(&tail).unwrap_or_else(|| match exit {
            Exit::Code(code) => format!("exit status {code}, and nothing in its log"),
            Exit::Signal(signal) => format!("ended by {signal}, and nothing in its log"),
        });
        match message::exit_code(&why) {
            Some(exit_code) if matches!(command, "create" | "exec" | "start") => {
                Error::Program(StartError { exit_code, message: format!("{}: {why}", self.doing(command)) })
            }
            _ => self.failed(command, why),
        }
    }

    fn failed(&self, command: &str, why: String) -> Error {
        Error::Runtime { doing: self.doing(command), why }
    }

    fn doing(&self, command: &str) -> String {
        let program = Path::new(&self.program).file_name().unwrap_or_default().to_string_lossy();
        format!("run {program} {command}")
    }

    /// The process that a pid file names. It may have ended, but nobody else has collected it.
    fn child(&self, pid_file: &Path) -> Result<Process, Error> {
        let bad = |why| self.failed("create", format!("pid file {}: {why}", pid_file.display()));
        let text = fs::read_to_string(pid_file).map_err(|error| bad(error.to_string()))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| bad("not a process id".to_owned()))?;
        let pidfd = sys::process::open(pid).map_err(|source| Error::Sys { step: "pidfd_open", source })?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options) {
            Ok(_) => Ok(Process { pid, pidfd }),
            Err(_) => Err(bad(format!("process {pid:?} is not the supervisor's to collect"))),
        }
    }

    /// Removes our own files and the runtime's state, which is ours too: it lies in the pod's directory.
    fn clean(&self) {
        for path in [&self.bundle, &self.state().join(self.id.to_string())] {
            match fs::remove_dir_all(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    crate::complain(&format!("remove {}: {error}", path.display()));
                }
                _ => {}
            }
        }
    }

    /// Where the runtime keeps its state: in the pod's directory, so that it cannot outlive the pod.
    fn state(&self) -> PathBuf {
        self.bundle.with_file_name("state")
    }

    fn log(&self) -> PathBuf {
        self.bundle.join("log.json")
    }
}

/// A `delete` under way.
#[derive(Debug)]
pub(crate) struct Deletion {
    runtime: Runtime,
    process: Process,
    until: Instant,
}

impl Deletion {
    /// Whose.
    pub(crate) fn container(&self) -> ContainerId {
        self.runtime.id
    }

    /// The runtime's process.
    pub(crate) fn pid(&self) -> Pid {
        self.process.pid
    }

    /// When it has had its time.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Ends one that has had its time; it has to be collected.
    pub(crate) fn kill(&mut self) {
        self.until = Instant::now() + SHORT;
        let _ = sys::process::signal(&self.process, model::Signal::KILL);
    }

    /// The runtime's process has been collected.
    pub(crate) fn ended(self, exit: Exit) -> Result<(), Error> {
        let outcome = match exit {
            Exit::Code(0) => Ok(()),
            exit => Err(self.runtime.explained("delete", exit)),
        };
        self.runtime.clean();
        outcome
    }

    /// Waits for the end.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        let exit = sys::process::wait(&self.process, SHORT).or_else(|_| {
            self.kill();
            sys::process::wait(&self.process, SHORT)
        });
        match exit {
            Ok(exit) => self.ended(exit),
            Err(source) => Err(Error::Sys { step: "wait for the runtime's delete", source }),
        }
    }
}

/// Standard files of a command that has nothing to say there.
fn silence() -> Result<Io, Error> {
    Ok(Io { stdin: null()?, stdout: null()?, stderr: null()? })
}

/// For readers of the bundle who are root: an environment may hold secrets.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| io::Write::write_all(&mut file, bytes)).map_err(failed("write", path))
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { step, path, source }
}

/// A bundle's path came as text.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
