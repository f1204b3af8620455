//! Standard input, output and error of a new process.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::FileType;

use crate::error::{At, Step};

/// The ends that the process gets.
#[derive(Debug)]
pub struct Io {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// Where a process reads and writes.
#[derive(Debug)]
pub enum Stdio {
    /// Descriptors of the caller, for plans without a terminal.
    Io(Io),
    /// A terminal made in the container, whose master comes back; for plans with one.
    Terminal,
}

impl Io {
    /// Puts them at 0, 1 and 2.
    pub(crate) fn install(self) -> Step<()> {
        rustix::stdio::dup2_stdin(&self.stdin).at(|| "dup2(stdin)".to_owned())?;
        rustix::stdio::dup2_stdout(&self.stdout).at(|| "dup2(stdout)".to_owned())?;
        rustix::stdio::dup2_stderr(&self.stderr).at(|| "dup2(stderr)".to_owned())
    }

    /// Gives pipes to the process's user, because a program that is told to log to `/dev/stdout` opens it anew, and that
    /// is decided by the owner of the pipe.
    pub(crate) fn give_to(&self, uid: u32) -> Step<()> {
        if uid == 0 {
            return Ok(());
        }
        for fd in [&self.stdin, &self.stdout, &self.stderr] {
            let kind = rustix::fs::fstat(fd.as_fd()).at(|| "fstat(stdio)".to_owned())?.st_mode;
            if FileType::from_raw_mode(kind) == FileType::Fifo {
                rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None).at(|| format!("fchown(stdio, {uid})"))?;
            }
        }
        Ok(())
    }
}
