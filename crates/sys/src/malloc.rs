//! glibc's allocator (mallopt(3), malloc_trim(3)): a daemon that mostly waits should not keep what a burst once took.

/// Limits the number of arenas. glibc makes up to eight per processor and gives little of them back; two are enough for
/// a daemon that is not busy allocating. To be called before threads are started.
///
/// Does nothing with another C library.
pub fn limit_arenas(count: i32) {
    #[cfg(target_env = "gnu")]
    {
        #[allow(unsafe_code, reason = "no crate wraps mallopt safely")]
        // SAFETY: mallopt(3) takes two plain numbers, touches only the allocator's own settings under its own lock,
        // and refuses values that it does not like by returning 0.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, count);
        }
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
}

/// Gives free memory back to the kernel, at the end of something big. Takes milliseconds: not for an async thread.
///
/// Does nothing with another C library.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    {
        #[allow(unsafe_code, reason = "no crate wraps malloc_trim safely")]
        // SAFETY: malloc_trim(3) takes a number of bytes to keep, locks each arena itself, and moves no allocation.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_in_use_survives() {
        super::limit_arenas(2);
        let kept = vec![7u8; 1 << 20];
        drop(vec![1u8; 8 << 20]);
        super::trim();
        assert!(kept.iter().all(|byte| *byte == 7));
    }
}
