//! What creeld serves: proto in, engine call, proto out.

mod agents;
mod archive;
mod builds;
mod checkpoint;
mod containers;
mod contexts;
pub(crate) mod convert;
mod creel;
mod events;
mod features;
mod filters;
mod ids;
mod image;
mod images;
mod inspect;
mod metrics;
mod networks;
mod outputs;
mod pruning;
mod runtime;
mod session;
mod stats;
pub(crate) mod status;
mod stream;
mod system;
mod view;
mod volumes;

pub(crate) use builds::BuildsService;
pub(crate) use containers::ContainersService;
pub(crate) use creel::CreelService;
pub(crate) use image::Images;
pub(crate) use images::ImagesService;
pub(crate) use networks::NetworksService;
pub(crate) use runtime::Runtime;
pub(crate) use system::SystemService;
pub(crate) use volumes::VolumesService;
