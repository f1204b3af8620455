//! When a process runs, and when its input and output do.

use rustix::io::Errno;

/// IOPRIO_WHO_PROCESS and the place of the class (include/uapi/linux/ioprio.h).
const WHO_PROCESS: libc::c_int = 1;
const CLASS_SHIFT: u32 = 13;

/// `struct sched_attr` (sched_setattr(2)), as of its first version.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Of this structure; filled in by [`set`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// -20 to 19.
    pub nice: i32,
    /// 1 to 99 for real-time policies.
    pub priority: u32,
    /// Nanoseconds, for `SCHED_DEADLINE`, like the next two.
    pub runtime: u64,
    /// See `runtime`.
    pub deadline: u64,
    /// See `runtime`.
    pub period: u64,
}

/// Sets how the calling thread is scheduled; kept across execve(2).
///
/// # Errors
/// EPERM without CAP_SYS_NICE for more than it has; EINVAL for what does not fit the policy.
pub fn set(attributes: Attributes) -> Result<(), Errno> {
    let size = u32::try_from(size_of::<Attributes>()).expect("48 bytes");
    let attributes = Attributes { size, ..attributes };
    #[allow(unsafe_code, reason = "neither rustix nor libc has sched_setattr")]
    // SAFETY: the pointer is to an initialised structure of the size that its first field says, and outlives the call; pid 0
    // is the caller; flags must be 0.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(crate::process::last_errno()) }
}

/// Sets the priority of the calling thread's input and output (ioprio_set(2)); kept across execve(2).
///
/// # Errors
/// EPERM without CAP_SYS_NICE or CAP_SYS_ADMIN for the real-time class; EINVAL for a class or level that is none.
pub fn set_io_priority(class: u8, level: u8) -> Result<(), Errno> {
    let priority = libc::c_int::from(class) << CLASS_SHIFT | libc::c_int::from(level);
    #[allow(unsafe_code, reason = "neither rustix nor libc has ioprio_set")]
    // SAFETY: takes three numbers and no pointer; 0 is the caller.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, priority) };
    if result == 0 { Ok(()) } else { Err(crate::process::last_errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_them() {
        // A thread of its own: what is set here stays.
        let set = std::thread::spawn(|| {
            set(Attributes { policy: 3, nice: 5, ..Attributes::default() }).unwrap();
            set_io_priority(2, 7).unwrap();
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields: Vec<String> = stat.rsplit(") ").next().unwrap().split(' ').map(str::to_owned).collect();
            // proc_pid_stat(5): fields 19 (nice) and 41 (policy), counted from the third.
            assert_eq!((fields[16].as_str(), fields[38].as_str()), ("5", "3"));
            assert_eq!(set(Attributes { policy: 77, ..Attributes::default() }), Err(Errno::INVAL));
            assert_eq!(set_io_priority(5, 0), Err(Errno::INVAL));
        });
        set.join().unwrap();
    }
}
