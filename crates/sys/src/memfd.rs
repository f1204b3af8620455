//! Anonymous memory files, and sealed copies of programs.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::{Errno, write},
};

use crate::{Context, Error};

/// A copy of the program at `path` that nobody can change any more, to be run with [`crate::process::spawn`].
///
/// A container may reopen `/proc/PID/exe` of a process of ours that joins its namespaces; a sealed copy refuses the
/// write and is not the file that the next pod runs (CVE-2019-5736).
///
/// # Errors
/// The program cannot be read, or memory is short.
pub fn sealed_memfd_of(path: &Path) -> Result<OwnedFd, Error> {
    let mut source = File::open(path).during(|| format!("open({path:?})"))?;
    let name = path.file_name().unwrap_or_default();
    let copy = create_executable(name).during(|| format!("memfd_create({name:?})"))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = source.read(&mut buffer).during(|| format!("read({path:?})"))?;
        if read == 0 {
            break;
        }
        write_all(&copy, &buffer[..read]).during(|| format!("write(memfd {name:?})"))?;
    }
    seal(&copy).during(|| format!("fcntl(memfd {name:?}, F_ADD_SEALS)"))?;
    Ok(copy)
}

/// MFD_EXEC is new in Linux 6.3 and needed where `vm.memfd_noexec` is set; older kernels refuse the flag.
fn create_executable(name: &std::ffi::OsStr) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create(name, flags),
        other => other,
    }
}

fn seal(memfd: &OwnedFd) -> Result<(), Errno> {
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    match fcntl_add_seals(memfd, seals | SealFlags::EXEC) {
        Err(Errno::INVAL) => fcntl_add_seals(memfd, seals),
        other => other,
    }
}

/// write(2) until everything is written.
pub(crate) fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match write(fd.as_fd(), bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ex_01_a_sealed_program_cannot_be_changed() {
        let program = sealed_memfd_of(Path::new("/proc/self/exe")).unwrap();
        assert_eq!(write(&program, b"x"), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&program, 0), Err(Errno::PERM));
        assert_eq!(fcntl_add_seals(&program, SealFlags::FUTURE_WRITE), Err(Errno::PERM));
    }
}
