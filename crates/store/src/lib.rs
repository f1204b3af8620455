//! Everything durable below one root directory: blobs, layers, images and their names, records, writable layers.
//!
//! Invariants: content is on disk before the database names it, and the database has forgotten it before it goes; a
//! layer in use (pinned) is never freed; one daemon per root. Reads come from memory and never wait for a disk or for
//! a change in progress. Nothing here logs: what was found damaged is handed to the caller.
#![forbid(unsafe_code)]

mod backup;
mod blob;
mod cache;
mod container;
mod database;
mod disk;
mod envelope;
mod error;
mod fault;
mod gc;
mod history;
mod image;
mod layer;
mod layout;
mod lock;
mod open;
mod pins;
mod record;
mod remove;
mod reserve;
mod schema;
mod state;
mod store;
mod sweeper;
#[cfg(test)]
mod tests;
mod volume;

pub use container::ContainerDir;
pub use error::Error;
pub use gc::Collected;
pub use image::{Document, Name, NamedImage, NewImage, Removed};
pub use layer::{LayerFacts, LayerInfo, LayerIngest};
pub use open::Rebuilt;
pub use pins::LayerPins;
pub use record::Damaged;
pub use schema::{Form, ImageRecord, LayerKind, Packing};
pub use store::{Store, Usage};
pub use volume::{FoundVolume, VolumeDir};
