//! What becomes of a build, as clients ask for it.

use std::{fs::File, path::Path};

use api::creel as own;
use engine::{
    build::{BuildOutput, CacheFrom, CacheRequest, CacheTo, Extent, Wanted},
    image::{Known, Platform},
};
use model::ImageRef;
use tonic::{Status, Streaming as Incoming};

use super::{archive::Archive, creel, images::new_name, status};

/// Outputs, caches, annotations of one build.
const MOST: usize = 100;

fn few(field: &str, count: usize) -> Result<(), Status> {
    if count > MOST { Err(status::bad_field(field, &format!("more than {MOST}"))) } else { Ok(()) }
}

/// What the result becomes.
pub(super) fn wanted(start: &own::BuildStart) -> Result<Wanted, Status> {
    few("outputs", start.outputs.len())?;
    few("annotations", start.annotations.len())?;
    let outputs = start.outputs.iter().map(output).collect::<Result<Vec<_>, _>>()?;
    let has_manifest = |output: &BuildOutput| matches!(output, BuildOutput::Push | BuildOutput::Archive(_));
    if !start.annotations.is_empty() && !outputs.iter().any(has_manifest) {
        let why = "only manifests have them, which are made for an archive (type=oci, type=docker,dest=) or a registry (--push)";
        return Err(status::bad_field("annotations", why));
    }
    let annotations = start.annotations.clone().into_iter().collect();
    Ok(Wanted { outputs, annotations })
}

fn output(asked: &own::BuildOutputTo) -> Result<BuildOutput, Status> {
    few("outputs", asked.names.len())?;
    let names = asked.names.iter().map(|name| new_name("outputs", name)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<ImageRef> = names.into_iter().flatten().collect();
    match asked.r#type.as_str() {
        "oci" | "docker" => Ok(BuildOutput::Archive(names)),
        _ if !names.is_empty() => Err(status::bad_field("outputs", "only archives have names of their own")),
        "image" => Ok(BuildOutput::Image),
        "registry" => Ok(BuildOutput::Push),
        "tar" => Ok(BuildOutput::Files),
        other => Err(status::bad_field("outputs", &format!("{other:?}: use image, registry, oci, docker or tar"))),
    }
}

/// Who to be, by registry.
pub(super) fn known(start: &own::BuildStart) -> Known {
    let one = |(host, given): (&String, &own::Credentials)| (host.clone(), creel::credentials(Some(given.clone())));
    start.credentials.iter().map(one).collect()
}

/// The platforms, each once; this machine's under its own name.
pub(super) fn platforms(start: &own::BuildStart) -> Result<Vec<Platform>, Status> {
    let host = Platform::host();
    let mut platforms = Vec::new();
    for text in start.platform.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        few("platform", platforms.len() + 1)?;
        // What suits in both directions is the same.
        let is_host = |other: &Platform| host.suits(other).is_some() && other.suits(&host).is_some();
        let platform = creel::platform(text)?.filter(|other| !is_host(other)).unwrap_or_else(|| host.clone());
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    if platforms.len() > 1 && start.outputs.iter().any(|output| output.r#type == "docker") {
        return Err(status::bad_field(
            "outputs",
            "docker exporter does not support exporting manifest lists, use the oci exporter instead",
        ));
    }
    Ok(platforms)
}

/// Steps of others, and where steps go. `archives`: see [`archives`]; those that are left are answered.
pub(super) fn cache(start: &own::BuildStart, archives: Vec<File>) -> Result<(CacheRequest, Vec<File>), Status> {
    few("cache_from", start.cache_from.len())?;
    few("cache_to", start.cache_to.len())?;
    let mut cache = CacheRequest::default();
    for to in &start.cache_to {
        let extent = if to.max { Extent::Max } else { Extent::Min };
        match to {
            own::BuildCacheTo { inline: true, .. } => cache.inline = true,
            own::BuildCacheTo { reference, .. } if reference.is_empty() => cache.to.push(CacheTo::Archive(extent)),
            own::BuildCacheTo { reference, .. } => {
                let name = new_name("cache_to", reference)?.ok_or_else(|| status::bad_field("cache_to", "no name"))?;
                cache.to.push(CacheTo::Registry(name, extent));
            }
        }
    }
    let mut archives = archives.into_iter();
    for from in &start.cache_from {
        if from.reference.is_empty() {
            let archive = archives.next().ok_or_else(|| status::bad_field("cache_from", "its archive is missing"))?;
            cache.from.push(CacheFrom::Archive(archive));
            continue;
        }
        let wrong = |e: model::ReferenceError| status::bad_field("cache_from", &e.to_string());
        let name: ImageRef = from.reference.parse().map_err(wrong)?;
        cache.from.push(CacheFrom::Registry(name));
    }
    Ok((cache, archives.collect()))
}

/// The archives of steps that come before everything else, and the first message after them.
pub(super) async fn archives(
    pieces: &mut Incoming<own::BuildRequest>,
    dir: &Path,
) -> Result<(Vec<File>, own::BuildRequest), Status> {
    let mut archives = Vec::new();
    loop {
        let message = pieces.message().await?.ok_or_else(|| status::bad_field("start", "missing"))?;
        let Some(first) = message.cache else { return Ok((archives, message)) };
        few("archives", archives.len() + 1)?;
        let (mut archive, mut over) = (Archive::new(dir)?.take(first.data).await?, first.last);
        while !over {
            let piece = pieces.message().await?.and_then(|message| message.cache);
            let piece = piece.ok_or_else(|| status::bad_field("cache_from", "its last piece is missing"))?;
            over = piece.last;
            archive = archive.take(piece.data).await?;
        }
        archives.push(archive.whole().await?);
    }
}
