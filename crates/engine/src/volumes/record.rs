//! What is kept of a volume beside its data. Field numbers are for ever.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use model::VolumeName;

use super::Error;

/// A volume on disk. Its name is its directory's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct VolumeRecord {
    /// Nanoseconds since 1970.
    #[n(0)]
    pub created_at: i64,
    #[n(1)]
    pub anonymous: bool,
    #[n(2)]
    pub options: BTreeMap<String, String>,
    #[n(3)]
    pub labels: BTreeMap<String, String>,
}

impl VolumeRecord {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        minicbor::decode(bytes).map_err(|e| e.to_string())
    }

    /// Whether it is what is asked for: whoever asks for nothing gets what is there.
    pub(super) fn agrees(&self, name: &VolumeName, options: &BTreeMap<String, String>) -> Result<(), Error> {
        if options.is_empty() || *options == self.options { Ok(()) } else { Err(Error::OtherOptions(name.to_string())) }
    }
}
