//! Arguments that the kernel reads as 32 bits although registers have 64.
//!
//! A filter sees the whole register. If it compares all of it, a program sets an upper bit, the comparison fails, and
//! the kernel drops the bit afterwards: so `ioctl(TIOCSTI)` got through the filters of flatpak (CVE-2019-10063) and
//! snapd (CVE-2019-7303). A condition here means what the kernel means.

/// Calls that are filtered by such arguments in practice, with their `int`s (SYSCALL_DEFINEn of each in the kernel).
const INTS: [(&str, &[u8]); 14] = [
    ("bpf", &[0]),
    ("fcntl", &[0, 1]),
    ("ioctl", &[0, 1]),
    ("keyctl", &[0]),
    ("madvise", &[2]),
    ("open", &[1]),
    ("openat", &[0, 2]),
    ("personality", &[0]),
    ("prctl", &[0]),
    ("seccomp", &[0, 1]),
    ("setns", &[0, 1]),
    ("socket", &[0, 1, 2]),
    ("socketcall", &[0]),
    ("socketpair", &[0, 1, 2]),
];

/// Whether the kernel reads this argument as 32 bits.
pub(crate) fn is_int(name: &str, index: u8) -> bool {
    INTS.iter().any(|(known, indexes)| *known == name && indexes.contains(&index))
}
