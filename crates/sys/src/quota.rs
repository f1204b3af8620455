//! Project quotas of XFS and ext4: how much of a file system everything with one project id takes, in constant time, and
//! how much it may take (quotactl(2), `FS_IOC_FSSETXATTR` of ioctl(2), Documentation/filesystems/quota.rst).

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// What is made in a directory gets the directory's project (`FS_XFLAG_PROJINHERIT` of linux/fs.h).
const INHERIT: u32 = 0x200;
/// linux/quota.h and linux/dqblk_xfs.h.
const PROJECT: u32 = 2;
const GET_QUOTA: u32 = 0x80_0007;
const SET_QUOTA: u32 = 0x80_0008;
const GET_STATE: u32 = 0x5805;
const BLOCK_LIMITS: u32 = 1;
const PROJECT_COUNTED: u16 = 1 << 4;
const PROJECT_ENFORCED: u16 = 1 << 5;
/// Limits are said in blocks of this size, whatever the file system's own is.
const BLOCK: u64 = 1024;

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_field_names, reason = "the kernel's names")]
struct Attributes {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// `struct if_dqblk` of linux/quota.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    hard_blocks: u64,
    soft_blocks: u64,
    bytes: u64,
    hard_inodes: u64,
    soft_inodes: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// What a project takes and may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
    /// Bytes at most; `None`: no limit.
    pub limit: Option<u64>,
}

/// What a file system does with project quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Nothing.
    None,
    /// It counts.
    Counted,
    /// It counts and enforces limits.
    Enforced,
}

mod ioctl {
    nix::ioctl_read!(get_attributes, b'X', 31, super::Attributes);
    nix::ioctl_write_ptr!(set_attributes, b'X', 32, super::Attributes);
}

/// What the file system of a file or directory does with project quotas. A kernel before Linux 5.14 counts as none.
pub fn support(file: impl AsFd) -> Support {
    // `struct fs_quota_stat`: 80 bytes, its flags a u16 at byte 2.
    let mut state = [0u16; 64];
    match quotactl(file, GET_STATE, 0, &mut state) {
        Ok(()) if state[1] & PROJECT_ENFORCED != 0 => Support::Enforced,
        Ok(()) if state[1] & PROJECT_COUNTED != 0 => Support::Counted,
        Ok(()) | Err(_) => Support::None,
    }
}

/// The project of a file or directory; 0 is that of everything that has none.
///
/// # Errors
/// ENOTTY, EOPNOTSUPP: the file system has no projects.
pub fn project(file: impl AsFd) -> Result<u32, Errno> {
    attributes(&file).map(|attributes| attributes.projid)
}

/// Gives a directory a project, and everything that is made in it from now on.
///
/// # Errors
/// As [`project`]; EPERM within a user namespace.
pub fn set_project(directory: impl AsFd, project: u32) -> Result<(), Errno> {
    let before = attributes(&directory)?;
    let wanted = Attributes { xflags: before.xflags | INHERIT, projid: project, ..before };
    #[allow(unsafe_code, reason = "no safe wrapper of this ioctl exists")]
    // SAFETY: the descriptor is open as long as `directory` lives; FS_IOC_FSSETXATTR reads one `struct fsxattr`, which
    // `wanted` is (repr(C), 28 bytes, initialised) and stays for the call.
    let result = unsafe { ioctl::set_attributes(directory.as_fd().as_raw_fd(), &raw const wanted) };
    result.map(drop).map_err(of_nix)
}

fn attributes(file: &impl AsFd) -> Result<Attributes, Errno> {
    let mut attributes = Attributes::default();
    #[allow(unsafe_code, reason = "no safe wrapper of this ioctl exists")]
    // SAFETY: the descriptor is open as long as `file` lives; FS_IOC_FSGETXATTR writes one `struct fsxattr`, which
    // `attributes` has room for (repr(C), 28 bytes) and which has no invalid bit patterns.
    let result = unsafe { ioctl::get_attributes(file.as_fd().as_raw_fd(), &raw mut attributes) };
    result.map(|_| attributes).map_err(of_nix)
}

/// What a project takes on the file system of a file or directory.
///
/// # Errors
/// ESRCH: it counts no projects; ENOSYS before Linux 5.14.
pub fn usage(file: impl AsFd, project: u32) -> Result<Usage, Errno> {
    let mut block = Block::default();
    quotactl(file, GET_QUOTA, project, std::slice::from_mut(&mut block))?;
    let limit = (block.hard_blocks > 0).then(|| block.hard_blocks.saturating_mul(BLOCK));
    Ok(Usage { bytes: block.bytes, inodes: block.inodes, limit })
}

/// Sets how many bytes a project may take; `None`: no limit. On ext4 who has CAP_SYS_RESOURCE may take more; what is
/// written through overlay is held to the limit everywhere (`ovl_fill_super` drops the capability).
///
/// # Errors
/// As [`usage`].
pub fn set_limit(file: impl AsFd, project: u32, limit: Option<u64>) -> Result<(), Errno> {
    let blocks = limit.map_or(0, |bytes| bytes.div_ceil(BLOCK).max(1));
    let mut block = Block { hard_blocks: blocks, soft_blocks: 0, valid: BLOCK_LIMITS, ..Block::default() };
    quotactl(file, SET_QUOTA, project, std::slice::from_mut(&mut block))
}

/// quotactl_fd(2) for projects. `data`: as large as the largest of the structures of `command`.
fn quotactl<T: Copy>(file: impl AsFd, command: u32, id: u32, data: &mut [T]) -> Result<(), Errno> {
    #[allow(unsafe_code, reason = "no wrapper of this system call exists")]
    // SAFETY: the descriptor is open as long as `file` lives; each command reads and writes one structure of at most 80
    // bytes, which every caller has room for, plain numbers all of them, aligned as its first field.
    let result =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_fd().as_raw_fd(), command << 8 | PROJECT, id, data.as_mut_ptr()) };
    if result == 0 { Ok(()) } else { Err(crate::process::last_errno()) }
}

fn of_nix(errno: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(errno as i32)
}

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "a test that cannot run here says so")]
mod tests {
    use std::{
        fs::File,
        os::unix::{fs::PermissionsExt, process::CommandExt},
        path::Path,
        process::Command,
    };

    use super::*;

    /// A small ext4 of our own, mounted with project quotas.
    struct Disk(tempfile::TempDir);

    impl Disk {
        fn new() -> Option<Self> {
            let dir = tempfile::tempdir().unwrap();
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
            let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
            std::fs::create_dir(&mount).unwrap();
            File::create(&image).unwrap().set_len(64 << 20).unwrap();
            let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
            let made = run(Command::new("mkfs.ext4").args(["-q", "-O", "quota,project", "-E", "quotatype=prjquota"]).arg(&image));
            (made && run(Command::new("mount").args(["-o", "loop,prjquota"]).args([&image, &mount]))).then(|| Self(dir))
        }

        fn mount(&self) -> std::path::PathBuf {
            self.0.path().join("mount")
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            Command::new("umount").arg(self.mount()).status().ok();
        }
    }

    #[test]
    fn where_there_are_no_quotas_it_says_so() {
        let proc = File::open("/proc").unwrap();
        assert_eq!(support(&proc), Support::None);
        assert!(usage(&proc, 1).is_err() && set_project(&proc, 1).is_err());
    }

    #[test]
    fn a_project_is_counted_and_held_to_its_limit() {
        let Some(disk) = Disk::new() else {
            return eprintln!("SKIPPED: this kernel mounts no ext4 with project quotas (CONFIG_QFMT_V2)");
        };
        // Quotas hold nobody back who has CAP_SYS_RESOURCE; overlay takes it from those who write through it.
        let fill = |path: &Path, bytes: usize| {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", &format!("head -c {bytes} /dev/zero > {}", path.display())]).uid(65_534);
            shell.stderr(std::process::Stdio::null()).status().unwrap().success()
        };
        let own = disk.mount().join("own");
        std::fs::create_dir(&own).unwrap();
        std::os::unix::fs::chown(&own, Some(65_534), None).unwrap();
        let directory = File::open(&own).unwrap();
        assert_eq!(support(&directory), Support::Enforced);
        assert_eq!(project(&directory), Ok(0));
        set_project(&directory, 77).unwrap();
        set_limit(&directory, 77, Some(1 << 20)).unwrap();
        std::fs::create_dir(own.join("below")).unwrap();
        std::fs::write(own.join("below/file"), vec![1; 500_000]).unwrap();
        assert_eq!(project(File::open(own.join("below")).unwrap()), Ok(77));
        let used = usage(&directory, 77).unwrap();
        assert!((500_000..600_000).contains(&used.bytes) && used.inodes == 3 && used.limit == Some(1 << 20), "{used:?}");
        assert!(!fill(&own.join("more"), 2 << 20), "the limit holds");
        set_limit(&directory, 77, None).unwrap();
        assert!(fill(&own.join("more"), 2 << 20));
        assert_eq!(usage(&directory, 77).unwrap().limit, None);
        std::fs::write(disk.mount().join("others"), vec![1; 4096]).unwrap();
        std::fs::remove_dir_all(&own).unwrap();
        // What is open is there still, and counted.
        drop(directory);
        assert_eq!(usage(File::open(disk.mount()).unwrap(), 77).unwrap().bytes, 0);
    }
}
