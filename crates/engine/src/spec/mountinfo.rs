//! How a mount of the host propagates (proc_pid_mountinfo(5)): asked before a container may rely on it.

use std::path::Path;

use model::container::Propagation;

/// What the mount that holds a path does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peers {
    /// Sends to its peers and gets from them.
    pub(crate) shared: bool,
    /// Gets from a master.
    pub(crate) slave: bool,
}

impl Peers {
    /// Whether mounts can travel as asked.
    pub(crate) fn allow(self, propagation: Propagation) -> bool {
        match propagation {
            Propagation::Private => true,
            Propagation::HostToContainer => self.shared || self.slave,
            Propagation::Bidirectional => self.shared,
        }
    }
}

/// The mount that holds `path` (clean, without links), by the text of a mountinfo file: the longest mount point above
/// it, and of several on one point the last.
pub(crate) fn peers(mountinfo: &str, path: &Path) -> Peers {
    let mut best: Option<(usize, Peers)> = None;
    for line in mountinfo.lines() {
        let mut fields = line.split(' ');
        let Some(point) = fields.nth(4).map(unescape) else { continue };
        if !path.starts_with(&point) || best.is_some_and(|(length, _)| length > point.len()) {
            continue;
        }
        // The mount options, then optional fields up to a dash.
        let mut peers = Peers::default();
        for field in fields.skip(1).take_while(|field| *field != "-") {
            peers.shared |= field.starts_with("shared:");
            peers.slave |= field.starts_with("master:");
        }
        best = Some((point.len(), peers));
    }
    best.map(|(_, peers)| peers).unwrap_or_default()
}

/// Space, tab, newline and backslash stand as three octal digits.
fn unescape(field: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(field.to_owned(), |text, (code, c)| text.replace(code, c))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda rw\n\
        21 20 0:5 / /data rw - tmpfs t rw\n\
        22 20 0:6 / /data/in\\040it rw master:3 - tmpfs t rw\n\
        23 20 0:7 / /twice rw - tmpfs t rw\n\
        24 23 0:8 / /twice rw shared:9 master:1 - tmpfs t rw\nbroken\n";

    #[test]
    fn the_nearest_mount_decides() {
        for (path, shared, slave) in [
            ("/", true, false),
            ("/database", true, false),
            ("/data", false, false),
            ("/data/x", false, false),
            ("/data/in it/x", false, true),
            ("/twice/x", true, true),
        ] {
            assert_eq!(peers(TEXT, Path::new(path)), Peers { shared, slave }, "{path}");
        }
        assert_eq!(peers("", Path::new("/")), Peers::default());
    }

    #[test]
    fn what_travels() {
        let slave = Peers { shared: false, slave: true };
        assert!(slave.allow(Propagation::HostToContainer) && !slave.allow(Propagation::Bidirectional));
        assert!(Peers::default().allow(Propagation::Private) && !Peers::default().allow(Propagation::HostToContainer));
    }
}
