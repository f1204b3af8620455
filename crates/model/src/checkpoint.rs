//! Plans of checkpoint and restore: what the supervisor runs criu with.

use minicbor::{Decode, Encode};

/// How a container's processes are captured. What they share with the pod is shared by criu too, as a child of the
/// supervisor; so nothing of the pod's namespaces is captured.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CapturePlan {
    /// criu's path on the host and all its arguments.
    #[n(0)]
    pub args: Vec<String>,
    /// Working directory; absolute.
    #[n(1)]
    pub directory: String,
    /// When it is killed, in milliseconds from now.
    #[n(2)]
    pub limit: u64,
}

/// How a container's processes are made out of images instead of a program.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RestorePlan {
    /// criu's path on the host.
    #[n(0)]
    pub criu: String,
    /// Directory of the images; absolute. Nobody else can write to it.
    #[n(1)]
    pub images: String,
    /// Directory on the host that a file system is mounted on in criu's own mount namespace; absolute, empty.
    #[n(2)]
    pub stage: String,
    /// What stdin, stdout and stderr were, as criu names what it inherits: `pipe:[INODE]` or `file[MOUNT:INODE]`. Empty:
    /// closed.
    #[n(3)]
    pub streams: [String; 3],
    /// When it is killed, in milliseconds from now.
    #[n(4)]
    pub limit: u64,
}

/// Of criu's log the line that says what went wrong: the first error that is neither about a feature that it looks for and
/// does without, nor only that it has failed.
pub fn complaint(log: &str) -> Option<String> {
    const PROBES: [&str; 3] = ["RLIMIT_NOFILE", "(criu/tun.c", "(criu/kerndat.c"];
    const RESULTS: [&str; 3] = ["exited, status=", "FAILED", "killed by signal"];
    let errors = || log.lines().filter(|line| line.contains("Error"));
    let any = |words: &[&str], line: &&str| words.iter().any(|word| line.contains(word));
    let cause = errors().find(|line| !any(&PROBES, line) && !any(&RESULTS, line));
    let line = cause.or_else(|| errors().find(|line| !any(&PROBES, line))).or_else(|| errors().next())?;
    Some(line.chars().filter(|c| !c.is_control()).take(500).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_told_from_what_goes_before_and_after() {
        let tun = "(00.002) Error (criu/tun.c:85): tun: Unable to create tun: No such file or directory";
        let limit = "(00.001) Error (criu/util.c:1): Can't setup RLIMIT_NOFILE for self";
        let cause = "(00.004) Error (criu/protobuf.c:72): Unexpected EOF on mm-1.img";
        let exited = "(00.005) Error (criu/cr-restore.c:1512): 9 exited, status=1";
        let failed = "(00.006) Error (criu/cr-restore.c:2605): Restoring FAILED.";
        let of = |lines: &[&str]| complaint(&lines.join("\n"));
        assert_eq!(of(&["(00.0) Warn x", limit, tun, cause, exited, failed]).unwrap(), cause);
        assert_eq!(of(&[tun, exited, failed]).unwrap(), exited);
        assert_eq!(of(&[tun]).unwrap(), tun);
        assert_eq!(of(&["fine"]), None);
        assert_eq!(of(&[&format!("Error \u{7}{}", "x".repeat(900))]).unwrap().len(), 500);
    }
}
