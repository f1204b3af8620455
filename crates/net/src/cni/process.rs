//! Runs one plugin with a deadline and limits on what it writes.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use super::{
    plugin::Program,
    result::{OUTPUT_MAX, parse_failure},
};
use crate::CniError;

/// How long a killed plugin may take to die.
const DYING: Duration = Duration::from_secs(5);
/// What is kept of stderr.
const STDERR_KEPT: usize = 8 * 1024;

/// One run of a plugin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    /// The whole environment.
    pub(super) env: &'a [(&'static str, String)],
    pub(super) input: &'a [u8],
    pub(super) deadline: Instant,
    /// For the error message.
    pub(super) timeout: Duration,
}

/// Runs a plugin and returns what it wrote, if it succeeded.
pub(super) fn run(program: &Program, call: &Call<'_>) -> Result<Vec<u8>, CniError> {
    let failed = |action: &'static str, source: io::Error| CniError::Run { action, path: program.path.clone(), source };
    let mut child = spawn(program, call).map_err(|e| failed("execute", e))?;
    let mut talk = Talk::new(&mut child, call.input).map_err(|e| failed("talk to", e))?;
    let verdict = talk.until_exit(call.deadline);
    let exited = matches!(verdict, Ok(End::Exited));
    if !exited {
        // The whole group, before the leader is reaped and its number can be somebody else's.
        if let Some(group) = talk.pid {
            let _gone = kill_process_group(group, Signal::KILL);
        }
        talk.wait_dead(DYING).map_err(|e| failed("kill", e))?;
    }
    let status = child.wait().map_err(|e| failed("wait for", e))?;
    match verdict.map_err(|e| failed("talk to", e.into()))? {
        End::Exited if status.success() => Ok(talk.stdout),
        End::Exited => Err(parse_failure(status.to_string(), &talk.stdout, &talk.stderr)),
        End::TooMuch => Err(CniError::TooMuchOutput(OUTPUT_MAX)),
        End::Late => Err(CniError::Timeout(call.timeout)),
    }
}

fn spawn(program: &Program, call: &Call<'_>) -> io::Result<Child> {
    let mut command = Command::new(program.executable());
    command.arg0(&program.path).env_clear().envs(call.env.iter().map(|(name, value)| (name, value))).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    // ETXTBSY: an installer has just written the file, or another thread's fork still holds its descriptor.
    for _ in 0..50 {
        match command.spawn() {
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
    command.spawn()
}

/// How it ended.
enum End {
    Exited,
    TooMuch,
    Late,
}

/// The pipes of a running plugin.
struct Talk<'a> {
    pid: Option<Pid>,
    pidfd: OwnedFd,
    input: &'a [u8],
    stdin: Option<OwnedFd>,
    out: Option<OwnedFd>,
    err: Option<OwnedFd>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl<'a> Talk<'a> {
    fn new(child: &mut Child, input: &'a [u8]) -> io::Result<Self> {
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        let pidfd = match pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            Some(Ok(pidfd)) => pidfd,
            Some(Err(e)) => {
                // Nothing could be waited for with a deadline.
                let _gone = child.kill();
                let _status = child.wait();
                return Err(e.into());
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        let (stdin, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let talk = Self {
            pid,
            pidfd,
            input,
            stdin: stdin.map(OwnedFd::from),
            out: out.map(OwnedFd::from),
            err: err.map(OwnedFd::from),
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        for pipe in [&talk.stdin, &talk.out, &talk.err].into_iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(talk)
    }

    /// Feeds and reads it until it has exited. Descendants that keep its pipes open are not waited for.
    fn until_exit(&mut self, deadline: Instant) -> Result<End, Errno> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(End::Late);
            }
            let exited = self.wait_ready(left)?;
            self.feed()?;
            let too_much = self.read()?;
            if too_much {
                return Ok(End::TooMuch);
            }
            if exited {
                return Ok(End::Exited);
            }
        }
    }

    /// Waits until something can be done. Returns whether it has exited: then all it wrote is in the pipes.
    fn wait_ready(&self, left: Duration) -> Result<bool, Errno> {
        let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
        fds.extend(self.stdin.iter().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        fds.extend([&self.out, &self.err].into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(fds[0].revents().contains(PollFlags::IN)),
            Err(e) => Err(e),
        }
    }

    fn feed(&mut self) -> Result<(), Errno> {
        let Some(pipe) = &self.stdin else { return Ok(()) };
        while !self.input.is_empty() {
            match rustix::io::write(pipe, self.input) {
                Ok(written) => self.input = &self.input[written..],
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                // It need not read its configuration.
                Err(Errno::PIPE) => break,
                Err(e) => return Err(e),
            }
        }
        self.stdin = None;
        Ok(())
    }

    /// Reads what there is. Returns whether it was too much.
    fn read(&mut self) -> Result<bool, Errno> {
        let mut buffer = [0; 16 * 1024];
        while let Some(pipe) = &self.out {
            match read_some(pipe.as_fd(), &mut buffer)? {
                Some(0) => self.out = None,
                Some(length) => self.stdout.extend_from_slice(&buffer[..length]),
                None => break,
            }
            if self.stdout.len() > OUTPUT_MAX {
                return Ok(true);
            }
        }
        // At most one buffer per turn: whoever floods stderr must not keep the deadline from being looked at.
        if let Some(pipe) = &self.err {
            match read_some(pipe.as_fd(), &mut buffer)? {
                Some(0) => self.err = None,
                Some(length) => {
                    let room = STDERR_KEPT - self.stderr.len();
                    self.stderr.extend_from_slice(&buffer[..length.min(room)]);
                }
                None => {}
            }
        }
        Ok(false)
    }

    fn wait_dead(&self, most: Duration) -> io::Result<()> {
        let timeout = Timespec::try_from(most).map_err(io::Error::other)?;
        loop {
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// `None`: nothing to read at the moment.
fn read_some(pipe: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
    loop {
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(length) => return Ok(Some(length)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}
