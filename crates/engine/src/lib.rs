//! Pods, containers and images: the orchestration between the rooms of floor 1.
//!
//! Async over blocking rooms. Invariants: a request that is dropped never leaves half a thing (attempts run in tasks
//! of their own, set-up steps carry their way back); lists and statuses never wait for work in progress; every change
//! of state goes through `model`'s state machines, then to disk, then to the listeners.
#![forbid(unsafe_code)]

mod blocking;
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
pub mod image;
mod pod;
mod record;
mod recover;
pub mod shim;
pub mod spec;
mod stats;
mod table;
mod undo;

pub use config::Config;
pub use container::{
    Container,
    exec::ExecOutput,
    stream::{Ended, ProcessStreams, StreamIn, StreamOptions, StreamOut, Terminal},
};
pub use driver::CgroupDriver;
pub use engine::{Engine, Info};
pub use error::{About, Error};
pub use events::{Event, EventKind, Subject};
pub use pod::Pod;
pub use stats::{ContainerUsage, InterfaceUsage, PodUsage, Writable};

pub(crate) use engine::{Inner, chain, random_id};
pub(crate) use files::{make_private_dir, remove_pod_dir, remove_tree};
