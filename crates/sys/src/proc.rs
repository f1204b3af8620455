//! procfs through a mount of our own (R04): nobody can have mounted anything over a file in it, links out of it are not
//! followed, and what is opened is checked to be procfs.

use std::os::fd::OwnedFd;

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, fstatfs, openat2},
    io::Errno,
};

use crate::{
    Context, Error,
    mount::{Attributes, Filesystem},
    process::Pid,
};

/// PROC_SUPER_MAGIC of linux/magic.h.
const MAGIC: i64 = 0x9fa0;
/// No file that is read here is longer, but for mountinfo of a very busy host.
const MAX_BYTES: usize = 16 << 20;

/// A private procfs of the PID namespace it was made in.
#[derive(Debug)]
pub struct Proc(OwnedFd);

impl Proc {
    /// Makes one.
    ///
    /// # Errors
    /// The kernel refuses to mount it.
    pub fn new() -> Result<Self, Error> {
        let flags = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOEXEC;
        Ok(Self(Filesystem::open("proc")?.mount(flags)?))
    }

    /// Opens a file by its path below /proc, without a slash in front.
    ///
    /// # Errors
    /// openat2(2); ELOOP for magic links; EXDEV if it is not procfs.
    pub fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Error> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let call = || format!("openat2(/proc, {path:?})");
        let file = openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve).during(call)?;
        let magic = fstatfs(&file).during(call)?.f_type;
        if is_proc(magic) { Ok(file) } else { Err(Error::Call { call: call(), source: Errno::XDEV }) }
    }

    /// The text of a file.
    ///
    /// # Errors
    /// As [`Self::open`] and read(2).
    pub fn read(&self, path: &str) -> Result<String, Error> {
        let file = self.open(path, OFlags::RDONLY)?;
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&file, &mut buffer) {
                Ok(0) => break,
                Ok(length) => bytes.extend_from_slice(&buffer[..length]),
                Err(Errno::INTR) => {}
                Err(source) => return Err(Error::Call { call: format!("read(/proc/{path})"), source }),
            }
            if bytes.len() > MAX_BYTES {
                return Err(Error::Call { call: format!("read(/proc/{path})"), source: Errno::FBIG });
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Writes a file in one go, as its meaning demands.
    ///
    /// # Errors
    /// As [`Self::open`] and write(2).
    pub fn write(&self, path: &str, text: &str) -> Result<(), Error> {
        let file = self.open(path, OFlags::WRONLY)?;
        rustix::io::write(&file, text.as_bytes()).map(|_| ()).during(|| format!("write(/proc/{path}, {text:?})"))
    }

    /// When a process was started, in clock ticks since boot: with its id it names a process for ever.
    ///
    /// # Errors
    /// ENOENT: it is gone.
    pub fn start_time(&self, pid: Pid) -> Result<u64, Error> {
        let file = format!("{}/stat", pid.as_raw_nonzero());
        let text = self.read(&file)?;
        // Field 22; the second one is a name in brackets that may itself contain blanks and brackets.
        let value = text.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19)?.parse().ok());
        value.ok_or_else(|| Error::Unexpected { file: format!("/proc/{file}"), text: text.chars().take(80).collect() })
    }
}

/// Whether `statfs.f_type` is procfs.
pub fn is_proc(magic: impl Into<i64>) -> bool {
    magic.into() == MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_our_own_start_and_refuses_magic_links() {
        let proc = Proc::new().unwrap();
        let pid = rustix::process::getpid();
        let start = proc.start_time(pid).unwrap();
        assert!(start > 0);
        assert_eq!(proc.start_time(pid).unwrap(), start);
        assert_eq!(proc.open("self/exe", OFlags::RDONLY).unwrap_err().errno(), Some(Errno::LOOP));
        assert_eq!(proc.open("self/root/etc", OFlags::PATH).unwrap_err().errno(), Some(Errno::LOOP));
        assert_eq!(proc.open("../etc", OFlags::PATH).unwrap_err().errno(), Some(Errno::XDEV));
        assert!(proc.read("self/status").unwrap().contains("Name:"));
    }
}
