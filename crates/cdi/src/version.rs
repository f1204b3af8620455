//! Versions of the specification, and which one a feature needs.

/// Known versions, oldest first. 0.8.0 and 1.0.0 changed only the reference implementation.
const KNOWN: [&str; 8] = ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// A version that is known; later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(usize);

/// `type` of mounts.
pub(crate) const MOUNT_TYPE: Version = Version(1);
/// `hostPath` of device nodes; device names that begin with a digit.
pub(crate) const HOST_PATH: Version = Version(2);
/// Annotations; dots in the class.
pub(crate) const ANNOTATIONS: Version = Version(3);
/// `intelRdt`, `additionalGids`.
pub(crate) const RDT_AND_GIDS: Version = Version(4);
/// `netDevices`, `schemata` and `enableMonitoring`.
pub(crate) const NET_DEVICES: Version = Version(7);

impl Version {
    /// With or without a `v` before it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        KNOWN.iter().position(|known| *known == text).map(Self)
    }

    pub(crate) fn text(self) -> &'static str {
        KNOWN[self.0]
    }
}
