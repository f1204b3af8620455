//! Processes: fork with clone3(2) from a single-threaded supervisor, spawn with vfork semantics from a daemon full of
//! threads, and everything after that by pidfd.

mod spawn;

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd},
    time::{Duration, Instant},
};

use model::Signal;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{WaitId, WaitIdOptions, WaitIdStatus},
};

pub use rustix::process::Pid;
pub use spawn::{Program, Session, spawn};

use crate::ns::New;

/// sched.h; the constants of libc have too narrow a type.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A process that was started here. Signals go by the pidfd, so a reused process id is never hit.
#[derive(Debug)]
pub struct Process {
    /// Its id in our PID namespace.
    pub pid: Pid,
    /// Descriptor of it; readable when it has ended.
    pub pidfd: OwnedFd,
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// The two ways out of [`fork`].
#[derive(Debug)]
pub enum Fork {
    /// In the new process.
    Child,
    /// In the old one.
    Parent(Process),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By exit(2).
    Code(i32),
    /// By a signal.
    Signal(Signal),
}

impl Exit {
    /// The status as shells say it: 128 + signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal.number(),
        }
    }
}

/// Copies the calling process, which must have one thread, into new namespaces and, with `cgroup`, into that cgroup
/// (v2 only). Signal handlers are reset in the child; its mask and ignored signals are not (see [`reset_signals`]).
///
/// # Errors
/// EINVAL: there are several threads. Else clone3(2).
pub fn fork(new: New, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork, Errno> {
    let into_cgroup = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let flags = u64::from(new.bits()) | into_cgroup;
    clone(flags, libc::SIGCHLD as u64, cgroup.map_or(0, |fd| fd.as_raw_fd() as u64))
}

/// As [`fork`], but the new process is a child of the caller's parent, which is told of its end as of the caller's own.
///
/// # Errors
/// As [`fork`].
pub fn fork_sibling(new: New) -> Result<Fork, Errno> {
    // The signal to send is the caller's, and may not be named (clone(2), CLONE_PARENT).
    clone(u64::from(new.bits()) | libc::CLONE_PARENT as u64, 0, 0)
}

/// A process in new namespaces that does nothing until it is killed or the calling thread ends. The caller may have other
/// threads.
///
/// # Errors
/// clone3(2).
pub fn fork_idle(new: New) -> Result<Process, Errno> {
    match clone_among_threads(u64::from(new.bits()), libc::SIGCHLD as u64, 0)? {
        Fork::Parent(process) => Ok(process),
        Fork::Child => loop {
            #[allow(unsafe_code, reason = "only bare system calls may be made in a copy of one thread of many")]
            // SAFETY: both calls touch no memory of the process.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::pause();
            }
        },
    }
}

fn clone(flags: u64, exit_signal: u64, cgroup: u64) -> Result<Fork, Errno> {
    require_single_thread()?;
    clone_among_threads(flags, exit_signal, cgroup)
}

/// If the caller has other threads, the child may do nothing but system calls.
fn clone_among_threads(flags: u64, exit_signal: u64, cgroup: u64) -> Result<Fork, Errno> {
    let mut pidfd: i32 = -1;
    let arguments = libc::clone_args {
        flags: flags | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND,
        pidfd: &raw mut pidfd as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup,
    };
    #[allow(unsafe_code, reason = "no library wraps clone3(2)")]
    // SAFETY: `arguments` is initialised and its size is passed; `pidfd` outlives the call; no stack, no CLONE_VM: the
    // child continues on its own copy of this stack. Either the process has one thread (see `clone`), so no lock of the
    // allocator or of std can be held by a thread that the child lacks, and plain Rust may run in it; or the child does
    // nothing but system calls (see `fork_idle`).
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(last_errno()),
        0 => Ok(Fork::Child),
        pid => {
            #[allow(unsafe_code, reason = "clone3 hands the descriptor over as a number")]
            // SAFETY: the kernel has just made this descriptor for CLONE_PIDFD; nobody else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::RANGE)?;
            Ok(Fork::Parent(Process { pid, pidfd }))
        }
    }
}

/// unshare(CLONE_THREAD) changes nothing and is refused with EINVAL unless the caller is alone (unshare(2)).
fn require_single_thread() -> Result<(), Errno> {
    #[allow(unsafe_code, reason = "rustix has no name for CLONE_THREAD here")]
    // SAFETY: unshare takes no pointer, and CLONE_THREAD has no effect on a single-threaded caller.
    let result = unsafe { libc::unshare(libc::CLONE_THREAD) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Gives every signal its default action and unblocks all, as a new program expects to find them. Rust ignores SIGPIPE
/// and a supervisor blocks what it reads from a signalfd; both would be inherited through execve(2).
pub fn reset_signals() {
    reset_dispositions();
    set_mask(&nix::sys::signal::SigSet::empty());
}

/// Async-signal-safe.
fn reset_dispositions() {
    for number in 1..=64 {
        #[allow(unsafe_code, reason = "rustix offers no signal dispositions outside its runtime feature")]
        // SAFETY: SIG_DFL installs no handler of ours; the kernel refuses the numbers it must (SIGKILL, SIGSTOP, the
        // ones libc keeps), and that is as wanted.
        unsafe {
            libc::signal(number, libc::SIG_DFL);
        }
    }
}

/// Has the kernel collect all children of the calling process by itself (SIGCHLD ignored, see waitpid(2) notes), for a
/// namespace's init that does nothing else.
pub fn ignore_children() {
    #[allow(unsafe_code, reason = "as in reset_signals")]
    // SAFETY: SIG_IGN installs no handler of ours.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    }
}

fn set_mask(mask: &nix::sys::signal::SigSet) {
    // Cannot fail with a valid `how`.
    let _ = nix::sys::signal::sigprocmask(nix::sys::signal::SigmaskHow::SIG_SETMASK, Some(mask), None);
}

/// Waits at most `limit` for the process to end, and collects it.
///
/// # Errors
/// ETIMEDOUT; ECHILD if it is not our child or was collected already.
pub fn wait(process: impl AsFd, limit: Duration) -> Result<Exit, Errno> {
    readable(process.as_fd(), limit)?;
    try_wait(process)?.ok_or(Errno::TIMEDOUT)
}

/// Collects the process if it has ended.
///
/// # Errors
/// ECHILD if it is not our child or was collected already.
pub fn try_wait(process: impl AsFd) -> Result<Option<Exit>, Errno> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    Ok(rustix::process::waitid(WaitId::PidFd(process.as_fd()), options)?.map(|status| exit_of(&status)))
}

/// Collects any one child that has ended: its id and how.
///
/// # Errors
/// ECHILD: there are no children.
pub fn try_wait_any() -> Result<Option<(Pid, Exit)>, Errno> {
    use rustix::process::WaitOptions;
    let Some((pid, status)) = rustix::process::wait(WaitOptions::NOHANG)? else { return Ok(None) };
    let exit = match (status.exit_status(), status.terminating_signal().and_then(Signal::from_number)) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => return Ok(None),
    };
    Ok(Some((pid, exit)))
}

fn exit_of(status: &WaitIdStatus) -> Exit {
    match status.terminating_signal().and_then(Signal::from_number) {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Code(status.exit_status().unwrap_or_default()),
    }
}

/// Sends a signal.
///
/// # Errors
/// ESRCH: it has ended.
pub fn signal(process: impl AsFd, signal: Signal) -> Result<(), Errno> {
    #[allow(unsafe_code, reason = "rustix refuses to make up a real-time signal from a number in safe code")]
    // SAFETY: pidfd_send_signal takes a descriptor that is open for the borrow's time, a number that the kernel checks,
    // a null siginfo (allowed: as kill(2)) and no flags.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_fd().as_raw_fd(),
            signal.number(),
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// A pidfd of a process by id. The id may already belong to another one: check afterwards what it is.
///
/// # Errors
/// ESRCH: there is none.
pub fn open(pid: Pid) -> Result<OwnedFd, Errno> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
}

/// Waits until a descriptor is readable or closed by its other end.
///
/// # Errors
/// ETIMEDOUT after `limit`.
pub fn readable(fd: BorrowedFd<'_>, limit: Duration) -> Result<(), Errno> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Marks every descriptor from `first` on as close-on-exec.
///
/// # Errors
/// close_range(2): kernels before 5.11 lack it.
pub fn cloexec_from(first: u32) -> Result<(), Errno> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from 3 on but `keep`, which becomes number 3, close-on-exec. For a forked child that waits
/// for its start: copies of its parent's pipes would keep them open. No other owned descriptor may be dropped after it.
///
/// # Errors
/// dup3(2), close_range(2).
pub fn keep_only(keep: OwnedFd) -> Result<OwnedFd, Errno> {
    const PLACE: i32 = 3;
    let number = keep.into_raw_fd();
    if number != PLACE {
        #[allow(unsafe_code, reason = "the place is a number, not a descriptor that somebody owns")]
        // SAFETY: dup3 takes integers only. What was open at the place is closed, as promised by this function's
        // documentation; `number` is open, because it came out of an OwnedFd.
        let result = unsafe { libc::dup3(number, PLACE, libc::O_CLOEXEC) };
        if result < 0 {
            return Err(last_errno());
        }
    }
    close_range(4, 0)?;
    #[allow(unsafe_code, reason = "the descriptor was put there above")]
    // SAFETY: 3 is open and, since everything else that owned it has been declared dead, owned by nobody.
    Ok(unsafe { OwnedFd::from_raw_fd(PLACE) })
}

/// Closes every descriptor of the process and ends it when told to by a signal: the whole life of a namespace's init.
/// Never returns.
pub fn idle_for_ever() -> ! {
    // Owned descriptors of the process become stale numbers here, but no code runs any more that could use them.
    let _ = close_range(0, 0);
    loop {
        nix::unistd::pause();
    }
}

fn close_range(first: u32, flags: libc::c_uint) -> Result<(), Errno> {
    #[allow(unsafe_code, reason = "no library wraps close_range(2)")]
    // SAFETY: close_range takes no pointers. With CLOSE_RANGE_CLOEXEC nothing is closed now; without it the
    // callers are idle_for_ever and keep_only, after which no other descriptor is used.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Ends the calling process at once: no destructors, no atexit handlers, no flushing. For forked children that share
/// such state with their parent.
pub fn exit_now(code: i32) -> ! {
    #[allow(unsafe_code, reason = "exit of a forked copy must not run the parent's atexit handlers")]
    // SAFETY: _exit takes an integer and never returns; it touches no memory of the process.
    unsafe {
        libc::_exit(code)
    }
}

/// Replaces the program of the process (execve(2)). Comes back only with the reason why not.
pub fn execve(path: &std::ffi::CStr, argv: &[std::ffi::CString], env: &[std::ffi::CString]) -> Errno {
    match nix::unistd::execve(path, argv, env) {
        Ok(never) => match never {},
        Err(errno) => Errno::from_raw_os_error(errno as i32),
    }
}

/// The error number of the last call in this thread.
pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
