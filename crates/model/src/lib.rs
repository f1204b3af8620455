//! The words of the engine: ids, digests, image names, pod and container specs, state machines and refusals.
//!
//! Pure: no I/O, no clock, no randomness. Types that cross a process or a reboot (specs, plans) carry explicit CBOR
//! field numbers; everything else is not serialisable on purpose.
#![forbid(unsafe_code)]

pub mod capability;
pub mod checkpoint;
pub mod container;
mod descriptor;
mod digest;
mod error;
mod id;
mod pieces;
pub mod plan;
pub mod pod;
mod reference;
pub mod resources;
mod signal;
pub mod size;
mod sparse;
pub mod time;
pub mod user;
mod volume;

pub use descriptor::{Descriptor, MediaType};
pub use digest::{ChainId, DiffId, Digest, DigestError, ImageId};
pub use error::ErrorKind;
pub use id::{BuildId, ContainerId, ExecId, IdError, NetworkId, PodId, StepId};
pub use pieces::Pieces;
pub use reference::{At, Host, ImageRef, ReferenceError, Repository, Tag};
pub use resources::{BlockDevice, BlockIo, Resources};
pub use signal::{Signal, SignalError};
pub use sparse::copy_with_holes;
pub use volume::{VolumeName, VolumeNameError};
