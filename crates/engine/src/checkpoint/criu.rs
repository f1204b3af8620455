//! The program: where it is, which version, and its command line for a capture.

use std::{
    collections::HashSet,
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use model::ErrorKind;

use crate::{
    Inner,
    error::{About, Error},
};

/// For `criu --version`.
const VERSION_LIMIT: Duration = Duration::from_secs(5);
/// The first that can leave out TCP connections of a container that goes on running.
const OLDEST: (u32, u32) = (4, 0);
/// Where a program without a path is looked for, after PATH: services often have no sbin in theirs.
const SBIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// Files that are open and have no name any more are kept up to this size.
const GHOSTS: &str = "64M";

/// A criu that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Criu {
    /// Its path.
    pub program: PathBuf,
    /// Its version, major and minor.
    pub version: (u32, u32),
}

impl fmt::Display for Criu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "criu {}.{} ({})", self.version.0, self.version.1, self.program.display())
    }
}

fn unavailable(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, About::Engine, format!("checkpoints need criu: {}", why.into()))
}

impl Inner {
    /// Looked for every time: it may be installed while the daemon runs.
    pub(crate) async fn find_criu(&self) -> Result<Criu, Error> {
        let wanted = &self.config.criu;
        if wanted.as_os_str().is_empty() {
            return Err(unavailable("it is switched off (checkpoint.criu is empty)"));
        }
        let program = locate(wanted, std::env::var_os("PATH").unwrap_or_default().as_os_str())
            .ok_or_else(|| unavailable(format!("there is no program {}", wanted.display())))?;
        let mut command = tokio::process::Command::new(&program);
        command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let said = match tokio::time::timeout(VERSION_LIMIT, command.output()).await {
            Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Ok(Err(error)) => return Err(unavailable(format!("{} cannot be run: {error}", program.display()))),
            Err(_) => return Err(unavailable(format!("{} --version does not answer", program.display()))),
        };
        match version(&said) {
            Some(version) if version >= OLDEST => Ok(Criu { program, version }),
            Some((major, minor)) => {
                Err(unavailable(format!("{} is version {major}.{minor}, and 4.0 is needed", program.display())))
            }
            None => Err(unavailable(format!("{} does not say its version", program.display()))),
        }
    }
}

fn locate(wanted: &Path, path: &std::ffi::OsStr) -> Option<PathBuf> {
    let runs = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    if wanted.is_absolute() {
        return Some(wanted.to_owned()).filter(runs);
    }
    let directories = std::env::split_paths(path).chain(SBIN.map(PathBuf::from));
    directories.filter(|directory| directory.is_absolute()).map(|directory| directory.join(wanted)).find(runs)
}

/// `Version: 4.2.1`
fn version(said: &str) -> Option<(u32, u32)> {
    let line = said.lines().find_map(|line| line.strip_prefix("Version:"))?;
    let mut numbers = line.trim().split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

/// A container's processes as criu is to find them.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// Its first process.
    pub pid: u32,
    /// Its freezer cgroup.
    pub freezer: PathBuf,
    /// What criu names the streams that lead out of it; empty: none.
    pub streams: [String; 3],
    /// Where something is mounted that criu need not know about: all but the root and procfs.
    pub mounts: Vec<String>,
}

/// The command line of a capture into `images`, with the log in `work`.
pub(super) fn dump(criu: &Criu, subject: &Subject, images: &Path, work: &Path, limit: Duration) -> Vec<String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut args = vec![text(&criu.program)];
    args.extend(["dump", "-v2", "--no-default-config", "--log-file", "dump.log"].map(str::to_owned));
    args.extend(["--images-dir".to_owned(), text(images), "--work-dir".into(), text(work), "--libdir".into(), text(work)]);
    args.extend(["--tree".to_owned(), subject.pid.to_string(), "--freeze-cgroup".into(), text(&subject.freezer)]);
    let flags = ["--leave-running", "--manage-cgroups=ignore", "--tcp-close", "--file-locks", "--ghost-limit", GHOSTS];
    args.extend(flags.map(str::to_owned));
    args.extend(["--timeout".to_owned(), limit.as_secs().max(1).to_string()]);
    for place in &subject.mounts {
        args.extend(["--external".to_owned(), format!("mnt[{place}]:{place}")]);
    }
    for stream in subject.streams.iter().filter(|stream| stream.starts_with("file[")).collect::<HashSet<_>>() {
        args.extend(["--external".to_owned(), stream.clone()]);
    }
    args
}

/// What criu says went wrong, of its log.
pub(super) fn complaint(log: &Path) -> Option<String> {
    let text = fs::read(log).ok()?;
    model::checkpoint::complaint(&String::from_utf8_lossy(&text))
}

/// Where the streams of a container lead, from what its processes have as descriptors 0, 1 and 2. `own`: pipes that the
/// supervisor holds the other end of. `inside`: mounts of the container.
pub(super) fn streams(pids: &[u32], own: &HashSet<String>, inside: &HashSet<String>) -> [String; 3] {
    [0, 1, 2].map(|number| pids.iter().find_map(|pid| stream(*pid, number, own, inside)).unwrap_or_default())
}

fn stream(pid: u32, number: u32, own: &HashSet<String>, inside: &HashSet<String>) -> Option<String> {
    let path = format!("/proc/{pid}/fd/{number}");
    let target = fs::read_link(&path).ok()?.to_string_lossy().into_owned();
    if target.starts_with("pipe:") {
        return own.contains(&target).then_some(target);
    }
    if target != "/dev/null" {
        return None;
    }
    let facts = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
    let mount = facts.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().to_owned();
    if inside.contains(&mount) {
        return None;
    }
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).ok()?);
    Some(format!("file[{:x}:{inode:x}]", mount.parse::<u64>().ok()?))
}

/// The pipes that a process has open.
pub(super) fn pipes(pid: u32) -> HashSet<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return HashSet::new() };
    let targets = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()?.to_str().map(str::to_owned));
    targets.filter(|target| target.starts_with("pipe:")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("Version: 4.2.1\nGitID: v4.2.1\n"), Some((4, 2)));
        assert_eq!(version("Version: 3.17.1\n"), Some((3, 17)));
        assert_eq!(version("Version: 5\n"), Some((5, 0)));
        assert_eq!(version("usage: true\n"), None);
    }

    #[test]
    fn programs_are_found_by_path_or_name() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("criu-x");
        fs::write(&program, "").unwrap();
        let find = |wanted: &str| locate(Path::new(wanted), dir.path().as_os_str());
        assert_eq!(find("criu-x"), None, "it cannot be run");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find("criu-x"), Some(program.clone()));
        assert_eq!(find(program.to_str().unwrap()), Some(program));
        assert_eq!(find("/nonexistent/criu"), None);
    }
}
