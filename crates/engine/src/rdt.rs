//! Classes of Resource Director Technology: shares of the last-level cache and of memory bandwidth, as groups of resctrl
//! (Documentation/filesystems/resctrl.rst). The administrator makes the groups; containers are put into them.

use std::path::Path;

use model::{ContainerId, ErrorKind};

use crate::error::{About, Error, Step};

/// Where the kernel's groups are.
pub(crate) const ROOT: &str = "/sys/fs/resctrl";
/// Directories of resctrl that are no groups.
const NO_GROUPS: [&str; 3] = ["info", "mon_groups", "mon_data"];

/// Whether a container can be in a class.
///
/// # Errors
/// Unsupported: the kernel has no resctrl, or it is not mounted. InvalidArgument: there is no such group.
pub(crate) fn check(root: &Path, id: ContainerId, class: &str) -> Result<(), Error> {
    let refuse = |kind, why: String| Err(Error::new(kind, About::Container(id), format!("RDT class {class:?}: {why}")));
    if !root.join("schemata").exists() {
        return refuse(ErrorKind::Unsupported, format!("this kernel has no resctrl, or it is not mounted at {}", root.display()));
    }
    let plain = !class.is_empty() && class.len() < 256 && !class.contains('/') && !class.starts_with('.');
    if !plain || NO_GROUPS.contains(&class) || !root.join(class).join("tasks").exists() {
        return refuse(ErrorKind::InvalidArgument, format!("no such group in {}", root.display()));
    }
    Ok(())
}

/// Puts a process into a class; what it starts from then on is in it too.
pub(crate) fn join(root: &Path, id: ContainerId, class: &str, pid: u32) -> Result<(), Error> {
    check(root, id, class)?;
    std::fs::write(root.join(class).join("tasks"), pid.to_string()).step(id, "put the container into its RDT class")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_are_there_and_others() {
        let (root, id) = (tempfile::tempdir().unwrap(), ContainerId::from_bytes([1; 32]));
        assert_eq!(check(root.path(), id, "gold").unwrap_err().kind(), ErrorKind::Unsupported);
        std::fs::write(root.path().join("schemata"), "L3:0=f\n").unwrap();
        for group in ["gold", "info"] {
            std::fs::create_dir(root.path().join(group)).unwrap();
            std::fs::write(root.path().join(group).join("tasks"), "").unwrap();
        }
        join(root.path(), id, "gold", 42).unwrap();
        assert_eq!(std::fs::read_to_string(root.path().join("gold/tasks")).unwrap(), "42");
        for class in ["silver", "", "info", "../x", ".."] {
            let error = check(root.path(), id, class).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{class}");
        }
    }
}
