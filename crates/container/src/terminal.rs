//! A pseudo terminal out of the container's own devpts: neither end is ever opened by a path that the container could
//! have put something else at (R06).

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{FileType, Mode, OFlags, fstat, fstatfs, makedev, openat},
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
};
use sys::path::{Links, Root};

use crate::{
    Io,
    error::{At, Step, refuse},
    report::Reporter,
};

/// DEVPTS_SUPER_MAGIC of linux/magic.h.
const DEVPTS: i64 = 0x1cd1;

/// Both ends of a terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: OwnedFd,
    /// What the process gets.
    pub(crate) slave: OwnedFd,
}

impl Terminal {
    /// A new terminal of a devpts instance, given by a descriptor of its root directory.
    pub(crate) fn new(devpts: impl AsFd, uid: u32) -> Step<Self> {
        let step = || "make terminal".to_owned();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let master = openat(devpts, c"ptmx", flags, Mode::empty()).at(step)?;
        let stat = fstat(&master).at(step)?;
        let is_ptmx = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(5, 2);
        if !is_ptmx || !is_devpts(&master)? {
            return refuse(step(), "/dev/pts/ptmx is not a terminal multiplexer");
        }
        unlockpt(&master).at(step)?;
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).at(step)?;
        if !is_devpts(&slave)? {
            return refuse(step(), "the terminal is not on devpts");
        }
        rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(uid)), None).at(step)?;
        Ok(Self { master, slave })
    }

    /// A new terminal of the devpts that the calling process sees at /dev/pts.
    pub(crate) fn in_own_root(uid: u32) -> Step<Self> {
        let step = || "open /dev/pts".to_owned();
        let root = Root::open_host(c"/").at(step)?;
        let devpts = root.open("/dev/pts", OFlags::PATH | OFlags::DIRECTORY, Links::Refuse).at(step)?;
        if !is_devpts(&devpts)? {
            return refuse(step(), "the container has no devpts there");
        }
        Self::new(devpts, uid)
    }

    /// Hands both ends to the supervisor.
    pub(crate) fn hand_over(&self, reporter: &Reporter) -> Step<()> {
        reporter.console(&self.master, &self.slave).at(|| "hand over terminal".to_owned())
    }

    /// Hands the ends over and takes the slave for the calling process.
    pub(crate) fn install(self, reporter: &Reporter) -> Step<()> {
        self.hand_over(reporter)?;
        control(&self.slave)
    }
}

/// Makes a slave the controlling terminal and the standard files of the calling process, which leads a session without a
/// terminal.
pub(crate) fn control(slave: &OwnedFd) -> Step<()> {
    rustix::process::ioctl_tiocsctty(slave).at(|| "set controlling terminal".to_owned())?;
    let copy = || slave.try_clone().map_err(|_| sys::Errno::MFILE).at(|| "dup(terminal)".to_owned());
    Io { stdin: copy()?, stdout: copy()?, stderr: copy()? }.install()
}

fn is_devpts(fd: impl AsFd) -> Step<bool> {
    Ok(fstatfs(fd).at(|| "fstatfs(terminal)".to_owned())?.f_type == DEVPTS)
}
