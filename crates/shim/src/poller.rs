//! epoll(7) with names for what may be ready.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
};

/// What is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A daemon wants to connect.
    Listener,
    /// Children have ended.
    Signals,
    /// The daemon has said something, or can be told more.
    Daemon,
    /// One who has connected and not yet said hello.
    Newcomer,
    /// Output of a container: its key and the stream's index.
    Stream(u32, usize),
}

impl Token {
    fn data(self) -> EventData {
        EventData::new_u64(match self {
            Self::Listener => 0,
            Self::Signals => 1,
            Self::Daemon => 2,
            Self::Newcomer => 3,
            Self::Stream(key, index) => 4 + u64::from(key) * 2 + (index as u64 & 1),
        })
    }

    fn of(data: EventData) -> Self {
        match data.u64() {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Daemon,
            3 => Self::Newcomer,
            n => Self::Stream(u32::try_from((n - 4) / 2).unwrap_or(u32::MAX), usize::from(n % 2 == 1)),
        }
    }
}

/// What is waited for.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poller {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(16) })
    }

    /// From now on wait for reading.
    pub(crate) fn add(&self, fd: impl AsFd, token: Token) -> Result<(), Errno> {
        epoll::add(&self.epoll, fd, token.data(), EventFlags::IN)
    }

    /// Wait for reading, and for writing too if `writing`.
    pub(crate) fn change(&self, fd: impl AsFd, token: Token, interest: Interest) {
        let flags = match interest {
            Interest::Read => EventFlags::IN,
            Interest::ReadAndWrite => EventFlags::IN | EventFlags::OUT,
        };
        // The descriptor is known and valid; memory was taken when it was added.
        let _ = epoll::modify(&self.epoll, fd, token.data(), flags);
    }

    /// Stop waiting for it. Has to be said before closing: a forked process that has not called exec yet holds a copy
    /// of the descriptor, and epoll goes by the open file behind it (epoll(7), questions and answers).
    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something is ready or the time has come. What is ready is moved to `ready`.
    pub(crate) fn wait(&mut self, until: Option<Instant>, ready: &mut Vec<Token>) -> Result<(), Errno> {
        ready.clear();
        self.events.clear();
        // A millisecond more than is left: epoll_wait before Linux 5.11 rounds down, and would be called in vain.
        let left = until.map(|at| at.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        let timeout = left.map(|left| Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 }));
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        ready.extend(self.events.iter().map(|event| Token::of(event.data)));
        Ok(())
    }
}

/// What of a socket is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    ReadAndWrite,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        for token in [
            Token::Listener,
            Token::Signals,
            Token::Daemon,
            Token::Newcomer,
            Token::Stream(0, 0),
            Token::Stream(0, 1),
            Token::Stream(u32::MAX, 1),
        ] {
            assert_eq!(Token::of(token.data()), token);
        }
    }
}
