//! Resource limits by number.

use rustix::io::Errno;

/// Sets a limit of the calling process (setrlimit(2)); `u64::MAX` is no limit.
///
/// # Errors
/// EINVAL for an unknown resource or soft > hard; EPERM for a hard limit above the present one without CAP_SYS_RESOURCE.
pub fn set(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    #[allow(unsafe_code, reason = "rustix knows resources only by its own enum; plans carry numbers")]
    // SAFETY: `new_limit` points to an initialised rlimit64 that outlives the call; `old_limit` may be null; pid 0 is
    // the caller; any resource number is allowed, the kernel checks it.
    let result = unsafe { libc::prlimit64(0, resource as _, &raw const limit, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(crate::process::last_errno()) }
}
