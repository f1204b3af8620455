//! Where a container's log goes.

use std::io;

use sys::{
    Errno,
    path::{Links, Root},
};

use super::{
    error::{Error, cut},
    path,
};

/// The log file's absolute path, its directory made; `None`: no log. `file` stays below `directory`, and what is made
/// there is made without following links, because other pods may write into a log directory (R41).
///
/// # Errors
/// Only one of the two is given; a path that leaves the directory; a directory that cannot be made.
pub(crate) fn path(directory: &str, file: &str) -> Result<Option<String>, Error> {
    if directory.is_empty() || file.is_empty() {
        return Ok(None);
    }
    let refuse = |path: &str, why| Err(Error::LogPath { path: cut(path), why });
    let Some(directory) = path::clean(directory) else {
        return refuse(directory, "the pod's log directory must be an absolute path");
    };
    let parts: Vec<&str> = file.split('/').filter(|part| !part.is_empty()).collect();
    if file.starts_with('/') || file.ends_with('/') || parts.iter().any(|part| matches!(*part, "." | "..")) {
        return refuse(file, "must be relative to the pod's log directory, without `.` and `..`");
    }
    if parts.iter().any(|part| part.len() > 255 || part.chars().any(char::is_control)) {
        return refuse(file, "has an overlong part or control characters");
    }
    let made = make(&directory, &parts[..parts.len() - 1].join("/"));
    let failed = |errno: Errno| Error::HostPath {
        operation: "make log directory",
        path: format!("{directory}/{file}").into(),
        source: io::Error::from(errno),
    };
    made.map_err(failed)?;
    Ok(Some(format!("{}/{}", directory.trim_end_matches('/'), parts.join("/"))))
}

fn make(directory: &str, below: &str) -> Result<(), Errno> {
    std::fs::create_dir_all(directory).map_err(|e| e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))?;
    if !below.is_empty() {
        Root::open_host(directory)?.make_directories(below, Links::Refuse)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn logs_stay_below_their_directory() {
        let home = tempfile::tempdir().unwrap();
        let top = home.path().join("pods/ns_p_u");
        let top = top.to_str().unwrap();
        assert_eq!(path(top, "").unwrap(), None);
        assert_eq!(path("", "a.log").unwrap(), None);
        assert_eq!(path(&format!("{top}/"), "ctr//0.log").unwrap(), Some(format!("{top}/ctr/0.log")));
        assert!(fs::metadata(format!("{top}/ctr")).unwrap().is_dir());
        symlink("/etc", format!("{top}/link")).unwrap();
        for bad in ["/etc/x", "../x", "a/../x", "./x", "a/", "a\n", "link/x", &"a".repeat(300)] {
            assert!(path(top, bad).is_err(), "{bad}");
        }
        assert!(path("relative", "a").is_err());
    }
}
