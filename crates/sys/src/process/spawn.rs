//! Starting a program from a process with many threads: clone(CLONE_VM | CLONE_VFORK) on a stack of its own, and only
//! async-signal-safe calls in the child. Costs 20 us whatever the daemon's size, where fork(2) copies page tables.

use std::{
    ffi::{CString, c_char, c_int, c_void},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

use rustix::io::Errno;

use super::{Pid, Process, last_errno, wait};
use crate::{Context, Error};

/// A program to start and everything it inherits: nothing else is handed on, the working directory is `/`, signals have
/// their default actions.
#[derive(Debug)]
pub struct Program<'a> {
    /// The executable (e.g. of [`crate::memfd::sealed_memfd_of`]).
    pub executable: BorrowedFd<'a>,
    /// Arguments, the name first.
    pub argv: &'a [CString],
    /// The whole environment, `NAME=value`.
    pub env: &'a [CString],
    /// stdin, stdout, stderr; `None`: /dev/null.
    pub stdio: [Option<BorrowedFd<'a>>; 3],
    /// What the program finds as descriptors 3, 4, 5, ...
    pub fds: &'a [BorrowedFd<'a>],
    /// Whose session it belongs to.
    pub session: Session,
}

/// Session of a new program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// The caller's.
    Inherited,
    /// A new one (setsid(2)).
    Own,
}

const STACK_BYTES: usize = 64 << 10;
const FIRST_PASSED: usize = 3;

/// What the child reads. Lives in the parent's frame, which stands still until the child has called execve or exit.
struct Order {
    executable: RawFd,
    argv: *const *const c_char,
    env: *const *const c_char,
    sources: *mut RawFd,
    count: usize,
    new_session: bool,
    failed: Failed,
}

/// Where the child stopped; written by the child, read by the parent.
struct Failed {
    step: &'static str,
    errno: c_int,
}

/// Starts the program.
///
/// # Errors
/// The step of the child that failed, or clone(2).
pub fn spawn(program: &Program<'_>) -> Result<Process, Error> {
    let null = open_null()?;
    let mut sources: Vec<RawFd> = program.stdio.iter().map(|fd| fd.map_or(null.as_raw_fd(), |fd| fd.as_raw_fd())).collect();
    sources.extend(program.fds.iter().map(AsRawFd::as_raw_fd));
    let mut argv: Vec<*const c_char> = program.argv.iter().map(|argument| argument.as_ptr()).collect();
    argv.push(std::ptr::null());
    let mut env: Vec<*const c_char> = program.env.iter().map(|entry| entry.as_ptr()).collect();
    env.push(std::ptr::null());
    let mut order = Order {
        executable: program.executable.as_raw_fd(),
        argv: argv.as_ptr(),
        env: env.as_ptr(),
        sources: sources.as_mut_ptr(),
        count: sources.len(),
        new_session: program.session == Session::Own,
        failed: Failed { step: "", errno: 0 },
    };
    let process = start(&mut order).during(|| "clone(CLONE_VM|CLONE_VFORK)".to_owned())?;
    if order.failed.errno == 0 {
        return Ok(process);
    }
    // It has exited already, because the parent's frame was released; this only collects it.
    let _ = wait(&process, Duration::from_secs(5));
    Err(Error::Call { call: format!("spawn: {}", order.failed.step), source: Errno::from_raw_os_error(order.failed.errno) })
}

fn open_null() -> Result<OwnedFd, Error> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).during(|| "open(\"/dev/null\")".to_owned())
}

fn start(order: &mut Order) -> Result<Process, Errno> {
    let mut stack: Vec<u128> = vec![0; STACK_BYTES / size_of::<u128>()];
    let mut pidfd: c_int = -1;
    let mask = block_signals();
    #[allow(unsafe_code, reason = "vfork semantics with a stack of its own exist only as clone(2)")]
    // SAFETY: `child` has the signature that clone wants; the stack pointer is the 16-byte aligned end of a live
    // allocation that nothing else uses; CLONE_VFORK keeps this frame (order, stack, pidfd) alive and untouched until
    // the child has left the shared memory by execve or _exit; the fifth argument is where CLONE_PIDFD writes.
    let pid = unsafe {
        libc::clone(
            child,
            stack.as_mut_ptr_range().end.cast::<c_void>(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD,
            std::ptr::from_mut(order).cast::<c_void>(),
            &raw mut pidfd,
        )
    };
    let error = last_errno();
    restore_signals(&mask);
    let Some(pid) = Pid::from_raw(pid).filter(|_| pid > 0) else { return Err(error) };
    #[allow(unsafe_code, reason = "clone hands the descriptor over as a number")]
    // SAFETY: the kernel has just made this descriptor for CLONE_PIDFD; nobody else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Process { pid, pidfd })
}

/// No handler of the daemon may run in the child, which shares its memory: everything is blocked around the clone, and
/// the child unblocks only after it has reset the handlers.
fn block_signals() -> nix::sys::signal::SigSet {
    let mut old = nix::sys::signal::SigSet::empty();
    let all = nix::sys::signal::SigSet::all();
    // Cannot fail with a valid `how`.
    let _ = nix::sys::signal::pthread_sigmask(nix::sys::signal::SigmaskHow::SIG_SETMASK, Some(&all), Some(&mut old));
    old
}

fn restore_signals(mask: &nix::sys::signal::SigSet) {
    let _ = nix::sys::signal::pthread_sigmask(nix::sys::signal::SigmaskHow::SIG_SETMASK, Some(mask), None);
}

/// Runs in the parent's memory: no allocation, no panic, no lock; system calls only.
extern "C" fn child(argument: *mut c_void) -> c_int {
    #[allow(unsafe_code, reason = "the argument of clone is untyped")]
    // SAFETY: `start` passed a pointer to an Order that is alive and that nobody else touches while we run.
    let order = unsafe { &mut *argument.cast::<Order>() };
    super::reset_dispositions();
    #[allow(unsafe_code, reason = "raw system calls between clone and execve")]
    // SAFETY: `inherit` and the calls below get the pointers that `spawn` prepared: null-terminated arrays of
    // null-terminated strings and `count` descriptors, all alive (see `start`).
    unsafe {
        if let Err(step) = inherit(order) {
            order.failed = Failed { step, errno: *libc::__errno_location() };
            libc::_exit(127);
        }
        libc::syscall(libc::SYS_execveat, order.executable, c"".as_ptr(), order.argv, order.env, libc::AT_EMPTY_PATH);
        order.failed = Failed { step: "execveat", errno: *libc::__errno_location() };
        libc::_exit(127)
    }
}

/// Puts every descriptor in its place. First all sources move above all places, so that no dup2 overwrites one that is
/// still needed.
///
/// # Safety
/// `order.sources` points to `order.count` descriptors; only for the child of [`start`].
#[allow(unsafe_code, reason = "raw system calls between clone and execve")]
unsafe fn inherit(order: &mut Order) -> Result<(), &'static str> {
    // SAFETY: the caller vouches for the pointer and length; fcntl, dup2, setsid, chdir, umask, sigprocmask and
    // close_range take no other memory than a static string and a signal set on this stack.
    unsafe {
        let floor = (order.count + 1) as c_int;
        for n in 0..order.count {
            let source = order.sources.add(n);
            *source = libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, floor);
            if *source < 0 {
                return Err("fcntl(F_DUPFD_CLOEXEC)");
            }
        }
        order.executable = libc::fcntl(order.executable, libc::F_DUPFD_CLOEXEC, floor);
        if order.executable < 0 {
            return Err("fcntl(F_DUPFD_CLOEXEC)");
        }
        for n in 0..order.count {
            if libc::dup2(*order.sources.add(n), n as c_int) < 0 {
                return Err("dup2");
            }
        }
        let rest = order.count.max(FIRST_PASSED) as libc::c_uint;
        if libc::syscall(libc::SYS_close_range, rest, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) < 0 {
            return Err("close_range");
        }
        if order.new_session && libc::setsid() < 0 {
            return Err("setsid");
        }
        if libc::chdir(c"/".as_ptr()) < 0 {
            return Err("chdir(\"/\")");
        }
        libc::umask(0o022);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) < 0 {
            return Err("sigprocmask");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::process::Exit;

    fn arguments(words: &[&str]) -> Vec<CString> {
        words.iter().map(|word| CString::new(*word).unwrap()).collect()
    }

    fn shell(script: &str, fds: &[BorrowedFd<'_>], out: BorrowedFd<'_>) -> Exit {
        let executable = crate::memfd::sealed_memfd_of(std::path::Path::new("/bin/busybox")).unwrap();
        let argv = arguments(&["sh", "-c", script]);
        let program = Program {
            executable: executable.as_fd(),
            argv: &argv,
            env: &[],
            stdio: [None, Some(out), None],
            fds,
            session: Session::Own,
        };
        wait(spawn(&program).unwrap(), Duration::from_secs(20)).unwrap()
    }

    fn read_all(pipe: OwnedFd) -> String {
        std::io::read_to_string(std::fs::File::from(pipe)).unwrap()
    }

    #[test]
    fn ex_02_a_program_gets_its_descriptors_and_nothing_else() {
        // Not close-on-exec, on purpose, and in the way of places 3 to 5.
        let leak = rustix::io::dup(std::fs::File::open("/etc/shadow").unwrap()).unwrap();
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (root, null) = (std::fs::File::open("/").unwrap(), std::fs::File::open("/dev/null").unwrap());
        let script = "cd /proc/self/fd; for f in *; do readlink $f; done; pwd; env; umask";
        let exit = shell(script, &[null.as_fd(), root.as_fd(), null.as_fd()], write.as_fd());
        assert_eq!(exit, Exit::Code(0));
        drop((leak, write));
        let text = read_all(read);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[2], lines[3], lines[4], lines[5]), ("/dev/null", "/dev/null", "/dev/null", "/", "/dev/null"));
        assert!(!text.contains("shadow"), "{text}");
        assert!(!text.contains("CARGO"), "{text}");
        assert!(text.contains("0022"), "{text}");
    }

    #[test]
    fn a_program_that_cannot_run_says_so() {
        let not_a_program = std::fs::File::open("/etc/passwd").unwrap();
        let argv = arguments(&["x"]);
        let program = Program {
            executable: not_a_program.as_fd(),
            argv: &argv,
            env: &[],
            stdio: [None; 3],
            fds: &[],
            session: Session::Inherited,
        };
        let error = spawn(&program).unwrap_err();
        assert_eq!(error.to_string(), "spawn: execveat");
        assert_eq!(error.errno(), Some(Errno::ACCESS));
    }

    #[test]
    fn signals_and_deadlines() {
        let executable = crate::memfd::sealed_memfd_of(std::path::Path::new("/bin/busybox")).unwrap();
        let argv = arguments(&["sleep", "1000"]);
        let program = Program {
            executable: executable.as_fd(),
            argv: &argv,
            env: &[],
            stdio: [None; 3],
            fds: &[],
            session: Session::Inherited,
        };
        let process = spawn(&program).unwrap();
        assert_eq!(wait(&process, Duration::from_millis(10)), Err(Errno::TIMEDOUT));
        crate::process::signal(&process, model::Signal::TERM).unwrap();
        assert_eq!(wait(&process, Duration::from_secs(20)), Ok(Exit::Signal(model::Signal::TERM)));
        assert_eq!(crate::process::signal(&process, model::Signal::TERM), Err(Errno::SRCH));
        assert_eq!(crate::process::fork(crate::ns::New::empty(), None).unwrap_err(), Errno::INVAL, "tests have threads");
    }
}
