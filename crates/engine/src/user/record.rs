//! What is kept of a container of people. Field numbers are for ever.

use minicbor::{Decode, Encode};
use model::{
    ContainerId, DiffId,
    container::{ContainerImage, ImageDefaults},
    pod::Timestamp,
    user::{Health, UserContainerSpec},
};

/// A container of people on disk.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct UserRecord {
    #[n(0)]
    pub id: ContainerId,
    #[n(1)]
    pub name: String,
    #[n(2)]
    pub created_at: Timestamp,
    #[n(3)]
    pub spec: UserContainerSpec,
    #[n(4)]
    pub image: ContainerImage,
    /// Layers of its image, pinned as long as the record is there.
    #[n(5)]
    pub layers: Vec<DiffId>,
    /// The image may be removed by force; the container starts all the same.
    #[n(6)]
    pub defaults: ImageDefaults,
    /// The image's, `os/architecture[/variant]`.
    #[n(7)]
    pub platform: String,
    #[n(8)]
    pub phase: Phase,
    #[n(9)]
    pub last: LastRun,
    /// How often it was started again by its policy, since a person started it.
    #[n(10)]
    pub restarts: u32,
    /// Stopped or killed by somebody since it was started.
    #[n(11)]
    pub by_hand: bool,
    /// What was asked for and is not so.
    #[n(12)]
    pub warnings: Vec<String>,
    /// Volumes that it has, for as long as it is there.
    #[cbor(n(13), default)]
    pub volumes: Vec<VolumeUse>,
    /// How well it is, if somebody looks; of one that does not run: how well it was.
    #[n(14)]
    pub health: Option<Health>,
}

/// A volume that a container has.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VolumeUse {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Where in the container.
    #[n(1)]
    pub target: String,
    /// It was made for this container and has no name of a person's.
    #[n(2)]
    pub anonymous: bool,
    /// The container cannot write to it.
    #[n(3)]
    pub read_only: bool,
    /// Only this part of it; empty: all.
    #[n(4)]
    pub subpath: String,
}

/// Where it is in its life, on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(crate) enum Phase {
    /// It has never run.
    #[n(0)]
    Created,
    #[n(1)]
    Running,
    /// It has ended and will start again.
    #[n(2)]
    Restarting,
    #[n(3)]
    Exited,
}

/// Its last run, or the one that is.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(crate) struct LastRun {
    #[n(0)]
    pub started_at: Option<Timestamp>,
    #[n(1)]
    pub finished_at: Option<Timestamp>,
    #[n(2)]
    pub code: i32,
    /// Why it could not be started, or what ended it.
    #[n(3)]
    pub error: String,
    #[n(4)]
    pub oom_killed: bool,
}
