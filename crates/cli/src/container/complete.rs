//! What a shell offers for the names of things. It asks the daemon, and offers nothing if that does not answer at once.

use std::{ffi::OsStr, path::PathBuf, time::Duration};

use api::creel::{ListContainersRequest, ListImagesRequest, ListNetworksRequest, ListVolumesRequest};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use crate::{client::Client, name};

/// How long somebody waits who has pressed a key.
const PATIENCE: Duration = Duration::from_secs(2);

/// Things that have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    Container,
    Image,
    Volume,
    Network,
}

/// Names of containers.
pub(crate) fn containers() -> ArgValueCompleter {
    of(&[Thing::Container])
}

/// Names of images.
pub(crate) fn images() -> ArgValueCompleter {
    of(&[Thing::Image])
}

/// Names of volumes.
pub(crate) fn volumes() -> ArgValueCompleter {
    of(&[Thing::Volume])
}

/// Names of networks.
pub(crate) fn networks() -> ArgValueCompleter {
    of(&[Thing::Network])
}

/// All of them.
pub(crate) fn anything() -> ArgValueCompleter {
    of(&[Thing::Container, Thing::Image, Thing::Volume, Thing::Network])
}

fn of(things: &'static [Thing]) -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| offer(typed, &ask(things)))
}

fn offer(typed: &OsStr, names: &[String]) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    names.iter().filter(|name| name.starts_with(typed)).map(CompletionCandidate::new).collect()
}

fn ask(things: &[Thing]) -> Vec<String> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, names(things)).await.unwrap_or_default() })
}

async fn names(things: &[Thing]) -> Vec<String> {
    let socket = std::env::var_os("CREEL_SOCKET").map_or_else(|| PathBuf::from(crate::args::SOCKET), PathBuf::from);
    let Ok(mut client) = Client::connect(&socket).await else { return Vec::new() };
    let mut names = Vec::new();
    for thing in things {
        // What the daemon does not say of one kind is no reason to be silent about the others.
        names.extend(names_of(&mut client, *thing).await.unwrap_or_default());
    }
    names
}

async fn names_of(client: &mut Client, thing: Thing) -> Result<Vec<String>, tonic::Status> {
    Ok(match thing {
        Thing::Container => {
            let request = ListContainersRequest { all: true, ..ListContainersRequest::default() };
            let answer = client.containers.list(request).await?.into_inner();
            answer.containers.into_iter().map(|container| container.name).collect()
        }
        Thing::Image => {
            let answer = client.images.list(ListImagesRequest {}).await?.into_inner();
            let familiar = |tag: String| match tag.rsplit_once(':') {
                Some((full, tag)) => format!("{}:{tag}", name::familiar(full)),
                None => tag,
            };
            answer.images.into_iter().flat_map(|image| image.tags).map(familiar).collect()
        }
        Thing::Volume => {
            let answer = client.volumes.list(ListVolumesRequest::default()).await?.into_inner();
            answer.volumes.into_iter().map(|volume| volume.name).collect()
        }
        Thing::Network => {
            let answer = client.networks.list(ListNetworksRequest::default()).await?.into_inner();
            answer.networks.into_iter().map(|network| network.name).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_so_is_offered() {
        let names = ["web".to_owned(), "worker".to_owned(), "db".to_owned()];
        let offered = |typed: &str| offer(OsStr::new(typed), &names).len();
        assert_eq!((offered("w"), offered("we"), offered(""), offered("x")), (2, 1, 3, 0));
    }
}
