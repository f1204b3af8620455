//! Pods, containers and images: the orchestration between the rooms of floor 1.
//!
//! Async over blocking rooms. Invariants: a request that is dropped never leaves half a thing (attempts run in tasks
//! of their own, set-up steps carry their way back); lists and statuses never wait for work in progress; every change
//! of state goes through `model`'s state machines, then to disk, then to the listeners.
#![forbid(unsafe_code)]

mod blocking;
pub mod build;
pub mod checkpoint;
mod clock;
mod config;
mod container;
mod driver;
mod engine;
mod error;
mod events;
mod failpoint;
mod files;
mod flight;
mod handlers;
mod hooks;
pub mod image;
pub mod networks;
mod nri;
mod oci;
mod overlay;
mod pod;
mod rdt;
mod record;
mod recover;
mod security;
pub mod shim;
pub mod spec;
mod stats;
mod table;
mod undo;
mod unpack;
pub mod user;
mod userns;
pub mod volumes;

pub use config::Config;
pub use container::{
    Container,
    exec::ExecOutput,
    stream::{Ended, ExecCommand, ProcessStreams, StreamIn, StreamOptions, StreamOut, Terminal},
};
pub use driver::CgroupDriver;
pub use engine::{Engine, Info};
pub use error::{About, Error};
pub use events::{Event, EventKind};
pub use handlers::{Abilities, BUILT_IN, Handler, OciHandler};
pub use nri::NriConfig;
pub use pod::{Pod, update::PodSize};
pub use security::SecurityInfo;
pub use stats::{
    ContainerMetrics, ContainerUsage, Disk, InterfaceUsage, PodMetrics, PodUsage, Processes, Traffic, Writable, device_name,
};
pub use unpack::{nameless, unpacked};

pub(crate) use engine::{Inner, chain, random_id};
pub(crate) use files::{make_private_dir, remove_pod_dir, remove_tree};
