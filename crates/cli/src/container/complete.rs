//! What a shell offers for the names of things. It asks the daemon, and offers nothing if that does not answer at once.

use std::{ffi::OsStr, path::PathBuf, time::Duration};

use api::creel::{ListContainersRequest, ListImagesRequest};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use crate::{client::Client, name};

/// How long somebody waits who has pressed a key.
const PATIENCE: Duration = Duration::from_secs(2);

/// Names of containers.
pub(crate) fn containers() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| offer(typed, &ask(Wanted { containers: true, images: false })))
}

/// Names of images.
pub(crate) fn images() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| offer(typed, &ask(Wanted { containers: false, images: true })))
}

/// Both.
pub(crate) fn anything() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| offer(typed, &ask(Wanted { containers: true, images: true })))
}

fn offer(typed: &OsStr, names: &[String]) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    names.iter().filter(|name| name.starts_with(typed)).map(CompletionCandidate::new).collect()
}

#[derive(Clone, Copy)]
struct Wanted {
    containers: bool,
    images: bool,
}

fn ask(wanted: Wanted) -> Vec<String> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, names(wanted)).await.unwrap_or_default() })
}

async fn names(wanted: Wanted) -> Vec<String> {
    let socket = std::env::var_os("CREEL_SOCKET").map_or_else(|| PathBuf::from(crate::args::SOCKET), PathBuf::from);
    let Ok(mut client) = Client::connect(&socket).await else { return Vec::new() };
    let mut names = Vec::new();
    if wanted.containers {
        let request = ListContainersRequest { all: true, ..ListContainersRequest::default() };
        let answer = client.containers.list(request).await.map(|answer| answer.into_inner().containers);
        names.extend(answer.unwrap_or_default().into_iter().map(|container| container.name));
    }
    if wanted.images {
        let answer = client.images.list(ListImagesRequest {}).await.map(|answer| answer.into_inner().images);
        let tags = answer.unwrap_or_default().into_iter().flat_map(|image| image.tags);
        names.extend(tags.map(|tag| match tag.rsplit_once(':') {
            Some((full, tag)) => format!("{}:{tag}", name::familiar(full)),
            None => tag,
        }));
    }
    names
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
