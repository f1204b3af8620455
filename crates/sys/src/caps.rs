//! Capabilities as bit masks (bit n = capability n of capabilities(7)).

use rustix::{
    io::Errno,
    thread::{CapabilitySet, CapabilitySets},
};

/// The highest capability that the kernel knows.
///
/// # Errors
/// Never on a Linux kernel, by the manual.
pub fn last() -> Result<u32, Errno> {
    // PR_CAPBSET_READ says EINVAL above the last one. Asking down from 63 would be 23 calls; half-interval is 6.
    let (mut known, mut unknown) = (0, 64);
    while unknown - known > 1 {
        let middle = u32::midpoint(known, unknown);
        match prctl(libc::PR_CAPBSET_READ, middle.into(), 0) {
            Ok(_) => known = middle,
            Err(Errno::INVAL) => unknown = middle,
            Err(errno) => return Err(errno),
        }
    }
    Ok(known)
}

/// All that the kernel knows.
///
/// # Errors
/// As [`last`].
pub fn known() -> Result<u64, Errno> {
    Ok(u64::MAX >> (63 - last()?))
}

/// Drops everything but `keep` from the calling thread's bounding set.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn bound(keep: u64) -> Result<(), Errno> {
    for capability in 0..=last()? {
        if keep & (1 << capability) == 0 {
            prctl(libc::PR_CAPBSET_DROP, capability.into(), 0)?;
        }
    }
    Ok(())
}

/// The calling thread's permitted set.
///
/// # Errors
/// capget(2).
pub fn permitted() -> Result<u64, Errno> {
    Ok(rustix::thread::capabilities(None)?.permitted.bits())
}

/// Sets permitted and effective to `permitted`, inheritable to `inheritable`.
///
/// # Errors
/// EPERM: more than the thread has.
pub fn set(permitted: u64, inheritable: u64) -> Result<(), Errno> {
    let set = CapabilitySet::from_bits_retain;
    let sets = CapabilitySets { effective: set(permitted), permitted: set(permitted), inheritable: set(inheritable) };
    rustix::thread::set_capabilities(None, sets)
}

/// Makes `ambient` the ambient set; each must be permitted and inheritable.
///
/// # Errors
/// EPERM if one is not.
pub fn set_ambient(ambient: u64) -> Result<(), Errno> {
    rustix::thread::clear_ambient_capability_set()?;
    for capability in (0..64u32).filter(|n| ambient & (1 << n) != 0) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, capability.into())?;
    }
    Ok(())
}

fn prctl(option: i32, a: u64, b: u64) -> Result<i32, Errno> {
    #[allow(unsafe_code, reason = "rustix names capabilities by an enum that ends where it was written; masks do not")]
    // SAFETY: the options used in this file (PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_CAP_AMBIENT) take integers only and
    // touch no memory; unused arguments are zero, as PR_CAP_AMBIENT demands.
    let result = unsafe { libc::prctl(option, a, b, 0u64, 0u64) };
    if result >= 0 { Ok(result) } else { Err(crate::process::last_errno()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_last_capability_is_what_the_kernel_says() {
        let text = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
        assert_eq!(super::last().unwrap(), text.trim().parse().unwrap());
        assert_eq!(super::known().unwrap().count_ones(), super::last().unwrap() + 1);
    }
}
