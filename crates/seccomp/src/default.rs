//! The engine's default profile (`RuntimeDefault`): what docker and containerd allow today, less their known gaps.
//!
//! Everything that is not listed gets EPERM, what is newer than the table ENOSYS. Tighter than docker and containerd:
//! - io_uring is not listed (containerd dropped it in 2.0, docker in 25);
//! - socket families are compared as the 32 bits that the kernel reads (`width`). The 64-bit comparison that libseccomp
//!   makes lets `socket(AF_ALG | 1 << 32, ..)` through, because the kernel drops the upper half afterwards;
//! - socketcall(2) of i386 cannot open sockets, as the family is behind a pointer there: C libraries fall back to
//!   socket(2) on ENOSYS;
//! - x32 is off, as in the kernels of all distributions.

use model::capability;

use crate::{
    Arch,
    policy::{Action, Condition, ENOSYS, Op, Policy, Rule},
};

const EPERM: u16 = 1;
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. (NEWTIME shares its bit with the exit signal of
/// clone(2), so only unshare(2) and clone3(2) can ask for it.)
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// Execution domains without a security meaning: Linux, Linux 32-bit, UNAME26, both, and the question "which one?".
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x0002_0000, 0x0002_0008, 0xffff_ffff];
const SYS_SOCKET: u64 = 1;

/// Allowed to everybody.
#[rustfmt::skip]
const ALWAYS: &[&str] = &[
    // files and directories
    "access", "cachestat", "chdir", "chmod", "chown", "chown32", "close", "close_range", "copy_file_range", "creat", "dup", "dup2",
    "dup3", "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fanotify_mark", "fchdir", "fchmod", "fchmodat",
    "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "flock", "fstat", "fstat64", "fstatat64",
    "fstatfs", "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futimesat", "getcwd", "getdents", "getdents64",
    "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "ioctl", "lchown", "lchown32", "link", "linkat",
    "listmount", "_llseek", "lseek", "lstat", "lstat64", "mkdir", "mkdirat", "mknod", "mknodat", "name_to_handle_at", "newfstatat",
    "open", "openat", "openat2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink",
    "readlinkat", "readv", "rename", "renameat", "renameat2", "rmdir", "sendfile", "sendfile64", "splice", "stat", "stat64",
    "statfs", "statfs64", "statmount", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "tee", "truncate",
    "truncate64", "umask", "unlink", "unlinkat", "utime", "utimensat", "utimensat_time64", "utimes", "vmsplice", "write", "writev",
    // extended attributes
    "fgetxattr", "flistxattr", "fremovexattr", "fsetxattr", "getxattr", "getxattrat", "lgetxattr", "listxattr", "listxattrat",
    "llistxattr", "lremovexattr", "lsetxattr", "removexattr", "removexattrat", "setxattr", "setxattrat",
    // waiting for files, asynchronous I/O, pipes
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait", "epoll_wait_old",
    "eventfd", "eventfd2", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup",
    "io_submit", "_newselect", "pipe", "pipe2", "poll", "ppoll", "ppoll_time64", "pselect6", "pselect6_time64", "select",
    // memory
    "brk", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret", "mincore", "mlock", "mlock2", "mlockall",
    "mmap", "mmap2", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free",
    "pkey_mprotect", "process_mrelease", "remap_file_pages",
    // processes and threads
    "execve", "execveat", "exit", "exit_group", "fork", "futex", "futex_requeue", "futex_time64", "futex_wait", "futex_waitv",
    "futex_wake", "get_robust_list", "get_thread_area", "getcpu", "getpgid", "getpgrp", "getpid", "getppid", "getsid", "gettid",
    "kill", "pause", "pidfd_open", "pidfd_send_signal", "prctl", "restart_syscall", "rseq", "set_robust_list", "set_thread_area",
    "set_tid_address", "setpgid", "setsid", "tgkill", "tkill", "uprobe", "uretprobe", "vfork", "wait4", "waitid", "waitpid",
    // tracing oneself: the kernel checks credentials, and since 4.8 runs this filter after a tracer
    "process_vm_readv", "process_vm_writev", "ptrace",
    // signals
    "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait",
    "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sigaltstack", "signalfd", "signalfd4", "sigprocmask", "sigreturn",
    // users, groups, capabilities, confinement of oneself
    "capget", "capset", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32",
    "getresgid", "getresgid32", "getresuid", "getresuid32", "getuid", "getuid32", "landlock_add_rule", "landlock_create_ruleset",
    "landlock_restrict_self", "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "seccomp", "setfsgid", "setfsgid32",
    "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setregid", "setregid32", "setresgid",
    "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setuid", "setuid32",
    // sockets (socket itself and socketcall: see `policy`)
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recv", "recvfrom", "recvmmsg",
    "recvmmsg_time64", "recvmsg", "send", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socketpair",
    // System V and POSIX IPC
    "ipc", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
    "mq_timedsend_time64", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "semop", "semtimedop",
    "semtimedop_time64", "shmat", "shmctl", "shmdt", "shmget",
    // time; setting the clock needs CAP_SYS_TIME, which the kernel checks
    "adjtimex", "alarm", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime",
    "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "getitimer", "gettimeofday", "nanosleep", "setitimer", "time",
    "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime", "timer_settime64",
    "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime", "timerfd_settime64", "times",
    // scheduling and limits
    "getpriority", "getrlimit", "getrusage", "ioprio_get", "ioprio_set", "prlimit64", "sched_get_priority_max",
    "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
    "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "setpriority", "setrlimit", "ugetrlimit",
    // the machine
    "getrandom", "sysinfo", "uname",
];

/// Allowed on one family of machines only; the other has no such names.
const MACHINE: &[&str] = &[
    "arch_prctl",
    "modify_ldt",
    "arm_fadvise64_64",
    "arm_sync_file_range",
    "sync_file_range2",
    "breakpoint",
    "cacheflush",
    "set_tls",
];

/// Allowed with a capability in the bounding set.
#[rustfmt::skip]
const BY_CAPABILITY: &[(&str, &[&str])] = &[
    ("DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("SYS_ADMIN", &[
        "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie", "mount",
        "mount_setattr", "move_mount", "open_tree", "open_tree_attr", "perf_event_open", "quotactl", "quotactl_fd", "setdomainname",
        "sethostname", "setns", "syslog", "umount", "umount2", "unshare",
    ]),
    ("SYS_BOOT", &["reboot"]),
    ("SYS_CHROOT", &["chroot"]),
    ("SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("SYS_PACCT", &["acct"]),
    ("SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
    ("SYS_RAWIO", &["ioperm", "iopl"]),
    ("SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("SYS_TTY_CONFIG", &["vhangup"]),
    ("SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("SYSLOG", &["syslog"]),
    ("BPF", &["bpf"]),
    ("PERFMON", &["perf_event_open"]),
];

fn allow(names: Vec<&'static str>) -> Rule<'static> {
    Rule { names, conditions: Vec::new(), action: Action::Allow }
}

fn allow_if(name: &'static str, conditions: &[Condition]) -> Rule<'static> {
    Rule { names: vec![name], conditions: conditions.to_vec(), action: Action::Allow }
}

/// A comparison of the first argument.
fn first(op: Op, value: u64) -> Condition {
    Condition { index: 0, mask: u64::MAX, op, value }
}

fn has(caps: u64, name: &str) -> bool {
    capability::mask(name).is_some_and(|mask| caps & mask != 0)
}

/// The profile on an architecture, for a bounding set.
pub(crate) fn policy(arch: Arch, caps: u64) -> Policy<'static> {
    let mut rules = vec![allow(ALWAYS.to_vec()), allow(MACHINE.to_vec())];
    rules.extend(BY_CAPABILITY.iter().filter(|(cap, _)| has(caps, cap)).map(|(_, names)| allow(names.to_vec())));
    rules.extend(
        PERSONALITIES.map(|domain| allow_if("personality", &[Condition { index: 0, mask: u64::MAX, op: Op::Eq, value: domain }])),
    );
    rules.push(allow_if("socket", &[first(Op::Lt, AF_ALG)]));
    rules.push(allow_if("socket", &[first(Op::Eq, AF_ALG + 1)]));
    rules.push(allow_if("socket", &[first(Op::Gt, AF_VSOCK)]));
    let errno = |name, conditions, errno| Rule { names: vec![name], conditions, action: Action::Errno(errno) };
    rules.push(errno("socketcall", vec![first(Op::Eq, SYS_SOCKET)], ENOSYS));
    rules.push(allow(vec!["socketcall"]));
    if !has(caps, "SYS_ADMIN") {
        let plain = Condition { index: 0, mask: CLONE_NAMESPACES, op: Op::Eq, value: 0 };
        rules.push(allow_if("clone", &[plain]));
        // Its flags are behind a pointer, so it is answered as by an old kernel, and C libraries use clone(2).
        rules.push(errno("clone3", Vec::new(), ENOSYS));
    }
    let mut known: Vec<_> = rules.iter().flat_map(|rule| rule.names.clone()).collect();
    known.extend(BY_CAPABILITY.iter().flat_map(|(_, names)| names.iter().copied()));
    let archs = match arch {
        Arch::X86_64 => vec![Arch::X86_64, Arch::I386],
        Arch::Aarch64 => vec![Arch::Aarch64, Arch::Arm],
        Arch::I386 | Arch::X32 | Arch::Arm => vec![arch],
    };
    Policy { default: Action::Errno(EPERM), archs, rules, known }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_that_some_architecture_has() {
        let names = ALWAYS.iter().chain(MACHINE).chain(BY_CAPABILITY.iter().flat_map(|(_, names)| *names));
        // Names of calls that no architecture of ours ever had; kept, because profiles of the field have them.
        let gone = ["fstatat64", "getsid"];
        for name in names {
            let exists = [Arch::X86_64, Arch::I386, Arch::Aarch64, Arch::Arm].iter().any(|arch| arch.number(name).is_some());
            assert!(exists || gone.contains(name), "{name}");
        }
        let mut sorted = ALWAYS.to_vec();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[0] != pair[1]), "a name occurs twice");
    }
}
