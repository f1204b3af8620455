//! What the new process and the supervisor say to each other until execve(2): packets over a socket pair. The last word
//! is the closing of it by execve (close-on-exec), which means: running.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use sys::{
    Errno,
    process::{self, Pid, Process},
    sock,
};

use crate::error::{Error, Failure, Reason};

const MAX_PACKET: usize = 8 << 10;
const MAX_TEXT: usize = 3 << 10;

/// What the new process says.
#[derive(Debug)]
pub(crate) enum Message {
    /// Something asked for is not so, but the container can live.
    Warning(String),
    /// Master and slave of its terminal.
    Console(OwnedFd, OwnedFd),
    /// A process that it has made, a child of the supervisor.
    Child(Process),
    /// The hooks of the supervisor's are due.
    Hooks,
    /// All done but the start.
    Ready,
    /// It could not go on.
    Failed(Failure),
}

/// The new process's end.
#[derive(Debug)]
pub(crate) struct Reporter(OwnedFd);

/// The supervisor's end.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

pub(crate) fn pair() -> Result<(Listener, Reporter), Error> {
    let (ours, theirs) = sock::pair().map_err(Error::call("socketpair"))?;
    Ok((Listener(ours), Reporter(theirs)))
}

impl Reporter {
    /// A reporter that cannot be reached any more is no reason to stop: the supervisor is gone and its death signal near.
    pub(crate) fn warn(&self, text: &str) {
        self.say(b'W', cut(text, MAX_TEXT).as_bytes());
    }

    pub(crate) fn console(&self, master: &OwnedFd, slave: &OwnedFd) -> Result<(), Errno> {
        sock::send(&self.0, b"C", &[master.as_fd(), slave.as_fd()])
    }

    /// If it cannot be said, the supervisor hears the end of this process.
    pub(crate) fn child(&self, child: &Process) {
        let mut packet = vec![b'P'];
        packet.extend(child.pid.as_raw_nonzero().get().to_le_bytes());
        let _ = sock::send(&self.0, &packet, &[child.as_fd()]);
    }

    /// Waits until the supervisor has run its hooks; `false`: it wants no container any more.
    pub(crate) fn hooks(&self) -> bool {
        self.say(b'H', &[]);
        self.wait_go()
    }

    pub(crate) fn ready(&self) {
        self.say(b'R', &[]);
    }

    pub(crate) fn fail(&self, failure: &Failure) {
        let errno = failure.reason.errno.map_or(0, Errno::raw_os_error);
        let step = cut(&failure.step, MAX_TEXT);
        let mut bytes = Vec::with_capacity(MAX_PACKET);
        bytes.extend(errno.to_le_bytes());
        bytes.extend(failure.exit_code.to_le_bytes());
        bytes.extend(u32::try_from(step.len()).unwrap_or_default().to_le_bytes());
        bytes.extend(step.as_bytes());
        bytes.extend(cut(&failure.reason.text, MAX_TEXT).as_bytes());
        self.say(b'F', &bytes);
    }

    /// Waits for the start; `false`: the supervisor wants no start any more.
    pub(crate) fn wait_go(&self) -> bool {
        let mut byte = [0];
        loop {
            match rustix::io::read(&self.0, &mut byte) {
                Ok(length) => return length == 1,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Waits for [`Listener::give_mounts`]: a mount namespace, and the slave of a terminal.
    pub(crate) fn wait_mounts(&self) -> Option<(OwnedFd, Option<OwnedFd>)> {
        let packet = loop {
            match sock::receive(&self.0, &mut [0]) {
                Err(Errno::INTR) => {}
                other => break other.ok()?,
            }
        };
        let mut fds = packet.fds.into_iter();
        Some((fds.next()?, fds.next()))
    }

    /// Closes all other descriptors of the process.
    pub(crate) fn alone(self) -> Result<Self, Errno> {
        process::keep_only(self.0).map(Self)
    }

    /// write(2) and not sendmsg(2): what a seccomp filter lets a program do, this needs no more than that.
    fn say(&self, tag: u8, bytes: &[u8]) {
        let mut packet = vec![tag];
        packet.extend_from_slice(bytes);
        while let Err(Errno::INTR) = rustix::io::write(&self.0, &packet) {}
    }
}

impl Listener {
    /// The next message; `None`: the other end is closed, by execve or by death.
    pub(crate) fn next(&self, until: Instant) -> Result<Option<Message>, Errno> {
        process::readable(self.0.as_fd(), until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))?;
        let mut buffer = [0; MAX_PACKET];
        let mut packet = match sock::receive(&self.0, &mut buffer) {
            Err(Errno::CONNRESET) => return Ok(None),
            other => other?,
        };
        let Some((tag, body)) = buffer[..packet.length].split_first() else { return Ok(None) };
        let message = match tag {
            b'W' => Some(Message::Warning(String::from_utf8_lossy(body).into_owned())),
            b'C' => packet.fds.pop().zip(packet.fds.pop()).map(|(slave, master)| Message::Console(master, slave)),
            b'P' => packet.fds.pop().and_then(|pidfd| Some(Message::Child(Process { pid: pid(body)?, pidfd }))),
            b'H' => Some(Message::Hooks),
            b'R' => Some(Message::Ready),
            b'F' => failure(body).map(Message::Failed),
            _ => None,
        };
        message.map(Some).ok_or(Errno::BADMSG)
    }

    /// Gives a process what was made for it.
    pub(crate) fn give_mounts(&self, mounts: &OwnedFd, slave: Option<&OwnedFd>) -> Result<(), Errno> {
        let fds: Vec<_> = std::iter::once(mounts).chain(slave).map(AsFd::as_fd).collect();
        sock::send(&self.0, b"M", &fds)
    }

    pub(crate) fn go(&self) -> Result<(), Errno> {
        sock::send(&self.0, b"G", &[])
    }
}

fn pid(body: &[u8]) -> Option<Pid> {
    Pid::from_raw(i32::from_le_bytes(body.try_into().ok()?))
}

fn failure(body: &[u8]) -> Option<Failure> {
    let word = |at: usize| Some(i32::from_le_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let (errno, exit_code, length) = (word(0)?, word(4)?, usize::try_from(word(8)?).ok()?);
    let text = |range| Some(String::from_utf8_lossy(body.get(range)?).into_owned());
    let errno = (errno != 0).then(|| Errno::from_raw_os_error(errno));
    let reason = Reason { text: text(12 + length..body.len())?, errno };
    Some(Failure { step: text(12..12 + length)?, reason, exit_code })
}

fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives() {
        let (listener, reporter) = pair().unwrap();
        let soon = || Instant::now() + Duration::from_secs(5);
        let reason = Reason { text: "ö".repeat(4000), errno: Some(Errno::NOENT) };
        let failure = Failure { step: "mount \"/x\"".to_owned(), reason, exit_code: 127 };
        reporter.warn("careful");
        reporter.ready();
        reporter.fail(&failure);
        assert!(matches!(listener.next(soon()), Ok(Some(Message::Warning(text))) if text == "careful"));
        assert!(matches!(listener.next(soon()), Ok(Some(Message::Ready))));
        let Ok(Some(Message::Failed(got))) = listener.next(soon()) else { panic!("no failure") };
        assert_eq!((got.step, got.exit_code, got.reason.errno), (failure.step, 127, Some(Errno::NOENT)));
        assert!(got.reason.text.starts_with('ö') && got.reason.text.len() <= MAX_TEXT);
        listener.go().unwrap();
        assert!(reporter.wait_go());
        assert!(matches!(listener.next(Instant::now()), Err(Errno::TIMEDOUT)));
        drop(reporter);
        assert!(matches!(listener.next(soon()), Ok(None)));
    }
}
