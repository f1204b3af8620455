//! A container's checkpoint as files. The names are those of podman and CRI-O, so that their tools read it; what a restore
//! goes by is in a file of ours.
//!
//! | name | what |
//! |---|---|
//! | `config.dump`, `spec.dump` | for people and other tools: JSON |
//! | `creel.dump` | what the container was: CBOR |
//! | `checkpoint/` | criu's images |
//! | `dump.log`, `stats-dump` | what criu says about it |
//! | `rootfs-diff.tar` | the writable layer, an OCI layer |
//! | `volumes/N.tar`, `tmpfs/N.tar` | anonymous volumes and file systems in memory |
//! | `devshm-checkpoint.tar` | /dev/shm, if anything is in it |
//! | `container.log` | its log |

use minicbor::{Decode, Encode};
use model::{
    DiffId, ImageId,
    container::ContainerSpec,
    pod::{PodKey, PodNamespaces, Timestamp},
};

/// What the container was.
pub const DUMP: &str = "creel.dump";
/// What the pod was.
pub const POD: &str = "pod.dump";
/// criu's images.
pub const IMAGES: &str = "checkpoint";
/// The writable layer.
pub const ROOTFS: &str = "rootfs-diff.tar";
/// /dev/shm.
pub const SHM: &str = "devshm-checkpoint.tar";
/// Bytes of `creel.dump` or `pod.dump` at most.
pub const DUMP_MAX: u64 = 4 << 20;
/// Containers of a pod at most.
const CONTAINERS: usize = 512;
/// Volumes and file systems in memory of a container at most.
const CONTENTS: usize = 1024;

/// The one version of the format.
const VERSION: u32 = 1;

/// What a container was.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Dump {
    /// Of the format.
    #[n(0)]
    pub version: u32,
    /// The machine's architecture, as Rust names it.
    #[n(1)]
    pub architecture: String,
    /// What its client had asked for.
    #[n(2)]
    pub spec: ContainerSpec,
    /// Its image.
    #[n(3)]
    pub image: ImageId,
    /// The layers below its writable one.
    #[n(4)]
    pub layers: Vec<DiffId>,
    /// What criu names its streams.
    #[n(5)]
    pub streams: [String; 3],
    /// Where its anonymous volumes are mounted; the file is numbered as here.
    #[n(6)]
    pub volumes: Vec<String>,
    /// Where file systems in memory are mounted; the file is numbered as here.
    #[n(7)]
    pub memory: Vec<String>,
    /// There is a [`SHM`].
    #[n(8)]
    pub shm: bool,
    /// When it was captured.
    #[n(9)]
    pub at: Timestamp,
}

/// What a pod was. Its containers' directories are numbered in order.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct PodDump {
    /// Of the format.
    #[n(0)]
    pub version: u32,
    /// Who it was.
    #[n(1)]
    pub key: PodKey,
    /// What it shared.
    #[n(2)]
    pub namespaces: PodNamespaces,
    /// Its runtime handler.
    #[n(3)]
    pub handler: String,
    /// Names of its containers.
    #[n(4)]
    pub containers: Vec<String>,
}

/// A description that cannot be gone by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not what we write.
    #[error("is damaged")]
    Damaged,
    /// Of another version.
    #[error("is of version {0} of the format, and not {VERSION}")]
    Version(u32),
    /// Captured on another kind of machine.
    #[error("was captured on {0}")]
    Architecture(String),
    /// More than anybody has.
    #[error("has more than {0} {1}")]
    TooMany(usize, &'static str),
    /// A name that would be a path or an option.
    #[error("has a stream {0:?}")]
    Stream(String),
}

impl Dump {
    /// A description with the version of this creel.
    pub(super) fn version() -> u32 {
        VERSION
    }

    /// Reads one, of hostile bytes.
    ///
    /// # Errors
    /// It cannot be restored here.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let dump = decode(bytes, |dump: &Self| dump.version)?;
        if dump.architecture != std::env::consts::ARCH {
            return Err(Unreadable::Architecture(dump.architecture.chars().take(40).collect()));
        }
        if dump.volumes.len() > CONTENTS || dump.memory.len() > CONTENTS {
            return Err(Unreadable::TooMany(CONTENTS, "volumes"));
        }
        match dump.streams.iter().find(|stream| !is_stream(stream)) {
            Some(stream) => Err(Unreadable::Stream(stream.chars().take(40).collect())),
            None => Ok(dump),
        }
    }
}

impl PodDump {
    pub(super) fn version() -> u32 {
        VERSION
    }

    /// Reads one, of hostile bytes.
    ///
    /// # Errors
    /// It cannot be restored here.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let dump = decode(bytes, |dump: &Self| dump.version)?;
        if dump.containers.len() > CONTAINERS {
            return Err(Unreadable::TooMany(CONTAINERS, "containers"));
        }
        Ok(dump)
    }
}

fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8], version: impl Fn(&T) -> u32) -> Result<T, Unreadable> {
    let dump = minicbor::decode(bytes).map_err(|_| Unreadable::Damaged)?;
    if version(&dump) == VERSION { Ok(dump) } else { Err(Unreadable::Version(version(&dump))) }
}

/// `pipe:[5]`, `file[3a:4]` with numbers in hexadecimal, or nothing: what goes into criu's command line.
fn is_stream(text: &str) -> bool {
    let digits = |text: &str, radix| !text.is_empty() && text.len() <= 20 && text.chars().all(|c| c.is_digit(radix));
    let inside = |start| text.strip_prefix(start).and_then(|rest| rest.strip_suffix(']'));
    match (inside("pipe:["), inside("file[")) {
        (Some(inode), _) => digits(inode, 10),
        (_, Some(both)) => both.split_once(':').is_some_and(|(mount, inode)| digits(mount, 16) && digits(inode, 16)),
        _ => text.is_empty(),
    }
}

/// Reads descriptions and images that are pieces of `data`: for fuzzing.
pub fn fuzz(data: &[u8]) {
    let _ = Dump::parse(data);
    let _ = PodDump::parse(data);
    super::images::fuzz(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_no_options() {
        for good in ["", "pipe:[12]", "file[3a:ff]"] {
            assert!(is_stream(good), "{good}");
        }
        for bad in
            ["pipe:[]", "pipe:[x]", "/etc/passwd", "file[3a]", "file[3a:g]", "socket[1]", "pipe:[1]]", "--x", "file[:]", "pipe:[1"]
        {
            assert!(!is_stream(bad), "{bad}");
        }
    }

    #[test]
    fn rubbish_is_refused() {
        assert_eq!(Dump::parse(b"\x80").unwrap_err(), Unreadable::Damaged);
        assert_eq!(PodDump::parse(b"").unwrap_err(), Unreadable::Damaged);
        assert_eq!(PodDump::parse(&[0xff; 100]).unwrap_err(), Unreadable::Damaged);
    }
}
