//! Giving files of the host the label of a container: one tree, on one file system, never what the system itself lives on.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, XattrFlags, fstat, openat, setxattr},
    io::Errno,
};

use super::Error;

/// So that one request cannot keep the disk busy for hours: more than any volume that is worth relabelling has.
const LIMIT: usize = 2_000_000;

/// Relabelling one of these takes it away from the rest of the system (security.md R22, CVE-2021-43816).
const SYSTEM: [&str; 26] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/passwd",
    "/etc/pki",
    "/etc/shadow",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/lib",
];
/// Nor anything below these.
const WHOLE: [&str; 9] = ["/bin", "/boot", "/dev", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr"];

/// Refuses what must not be relabelled, on every machine: whether SELinux is on must not decide what a request may say.
pub(super) fn check(path: &str) -> Result<(), Error> {
    let refuse = |why| Err(Error::Forbidden { path: path.to_owned(), why });
    // What is not there yet is made, and is as its path says.
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| normal(Path::new(path)));
    if SYSTEM.iter().any(|system| real == Path::new(system)) {
        return refuse("it is a directory of the system");
    }
    if WHOLE.iter().any(|system| real.starts_with(system)) {
        return refuse("it is in a directory of the system");
    }
    Ok(())
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => normal.push(name),
            std::path::Component::ParentDir => {
                normal.pop();
            }
            _ => {}
        }
    }
    normal
}

/// Labels a file, or a directory with all that is in it. Links are labelled and not followed, other file systems are left out.
pub(super) fn tree(path: &Path, label: &str) -> Result<(), Error> {
    let failed = |source: Errno| Error::Relabel { path: path.to_owned(), source: source.into() };
    let top = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let device = fstat(&top).map_err(failed)?.st_dev;
    let mut pending = vec![top];
    let mut seen = 0;
    while let Some(node) = pending.pop() {
        let stat = fstat(&node).map_err(failed)?;
        if stat.st_dev != device {
            continue;
        }
        seen += 1;
        if seen > LIMIT {
            return Err(Error::TooMany { path: path.to_owned(), limit: LIMIT });
        }
        set(&node, label).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            children(&node, label, device, (&mut pending, &mut seen)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Labels the files of a directory at once, so that only directories are kept open, and those one level at a time.
fn children(directory: &OwnedFd, label: &str, device: u64, state: (&mut Vec<OwnedFd>, &mut usize)) -> Result<(), Errno> {
    let (pending, seen) = state;
    let readable = openat(directory, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in Dir::read_from(&readable)? {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let node = match openat(directory, entry.file_name(), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let stat = fstat(&node)?;
        if stat.st_dev != device {
            continue;
        }
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            pending.push(node);
        } else {
            *seen += 1;
            set(&node, label)?;
        }
    }
    Ok(())
}

/// By way of /proc, because a descriptor that is only a path has no attributes; a link there stands for itself.
fn set(node: &OwnedFd, label: &str) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", node.as_raw_fd());
    match setxattr(path.as_str(), c"security.selinux", label.as_bytes(), XattrFlags::empty()) {
        // A file system that has no labels, or one label for all that is on it (`context=`).
        Err(Errno::NOTSUP) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io};

    use super::*;

    /// EX-26.
    #[test]
    fn ex26_directories_of_the_system_are_refused() {
        for path in
            ["/", "/etc", "/usr", "/home", "/usr/share/x", "/etc/", "/etc/../usr/", "/./var", "/etc/passwd", "/proc/self/root/etc"]
        {
            assert!(check(path).is_err(), "{path}");
        }
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/etc", &link).unwrap();
        assert!(check(link.to_str().unwrap()).is_err(), "by a link");
        assert!(check(dir.path().to_str().unwrap()).is_ok());
        assert!(check("/etc/kubernetes/volume").is_ok());
        assert!(check("/var/lib/kubelet/pods/x/volumes").is_ok());
    }

    #[test]
    fn a_tree_is_labelled_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("a/b"), dir.path().join("outside"));
        std::fs::create_dir_all(&inside).unwrap();
        File::create(inside.join("file")).unwrap();
        File::create(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, dir.path().join("a/link")).unwrap();
        // Any attribute name would do; a kernel without a policy keeps this one.
        let label = "system_u:object_r:container_file_t:s0:c1,c2";
        match tree(&dir.path().join("a"), label) {
            Err(Error::Relabel { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {
                return; // A policy that does not know containers.
            }
            other => other.unwrap(),
        }
        let read = |path: &Path| {
            let mut value = vec![0; 200];
            let length = rustix::fs::lgetxattr(path, c"security.selinux", &mut value).ok()?;
            Some(String::from_utf8_lossy(&value[..length]).trim_end_matches('\0').to_owned())
        };
        if read(&dir.path().join("a")).is_none() {
            return; // A file system without labels.
        }
        for path in ["a", "a/b", "a/b/file", "a/link"] {
            assert_eq!(read(&dir.path().join(path)).as_deref(), Some(label), "{path}");
        }
        assert_ne!(read(&outside).as_deref(), Some(label));
    }
}
