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
