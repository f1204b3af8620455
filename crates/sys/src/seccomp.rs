//! Installing a ready seccomp filter program.

use rustix::io::Errno;

/// The kernel's limit (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;

/// Puts a filter of `struct sock_filter` (8 bytes each, native endian) on the calling thread, for ever.
///
/// # Errors
/// EINVAL: not a program. EACCES: neither no_new_privs nor CAP_SYS_ADMIN.
pub fn install(program: &[u8]) -> Result<(), Errno> {
    if program.is_empty() || !program.len().is_multiple_of(8) || program.len() / 8 > MAX_INSTRUCTIONS {
        return Err(Errno::INVAL);
    }
    // Copied, because the bytes of a message need not be aligned for sock_filter.
    let mut filter: Vec<libc::sock_filter> = program
        .chunks_exact(8)
        .map(|i| libc::sock_filter {
            code: u16::from_ne_bytes([i[0], i[1]]),
            jt: i[2],
            jf: i[3],
            k: u32::from_ne_bytes([i[4], i[5], i[6], i[7]]),
        })
        .collect();
    let length = u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    #[allow(unsafe_code, reason = "no safe wrapper of seccomp(2) exists in the libraries used here")]
    // SAFETY: the third argument points to a sock_fprog whose `filter` points to `len` initialised instructions; both
    // outlive the call, and the kernel copies them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 { Ok(()) } else { Err(crate::process::last_errno()) }
}
