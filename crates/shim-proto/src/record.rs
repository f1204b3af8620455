//! The exit record: what the supervisor leaves on disk, so that an exit survives the supervisor itself.

use minicbor::{Decode, Encode};
use model::{ContainerId, container::ExitStatus, pod::Timestamp};

use crate::Error;

/// How a container ended. File `exits/CONTAINER` in the pod's run directory.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ExitRecord {
    /// The container.
    #[n(0)]
    pub container: ContainerId,
    /// Pid of its main process, as the host sees it.
    #[n(1)]
    pub pid: u32,
    /// When it started; `None`: never.
    #[n(2)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[n(3)]
    pub finished_at: Timestamp,
    /// How.
    #[n(4)]
    pub exit: ExitStatus,
    /// Bytes of its output that could not be written to its log.
    #[n(5)]
    pub lost_log_bytes: u64,
}

impl ExitRecord {
    /// Directory of the records, below the pod's run directory.
    pub const DIRECTORY: &str = "exits";

    /// The longest record that is believed.
    pub const SIZE_MAX: u64 = 4096;

    /// The file's content.
    pub fn to_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("a Vec takes everything")
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`Error::Record`] if the bytes are not a record.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        minicbor::decode(bytes).map_err(Error::Record)
    }
}
