//! `creel push`.

use std::collections::{BTreeMap, HashMap};

use api::creel::{Credentials, InspectImageRequest, PushImageRequest, PushPhase, PushProgress, push_image_event::Event};

use serde_json::json;

use crate::{
    args::Push,
    auth,
    client::Client,
    error::{self, Error, Exit},
    format::Format,
    images, name, output, progress, pull,
};

/// Pushes a name, or all tags of a repository.
pub(crate) async fn push(client: &mut Client, format: &Format, args: &Push) -> Result<Exit, Error> {
    for image in names(client, format, args).await? {
        push_one(client, format, args, &image).await?;
    }
    Ok(Exit(0))
}

/// The names to push, in full.
async fn names(client: &mut Client, format: &Format, args: &Push) -> Result<Vec<String>, Error> {
    let has_tag = args.image.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if !args.all_tags {
        if !has_tag && !args.quiet {
            pull::say(format, "", "Using default tag: latest")?;
        }
        return Ok(vec![args.image.clone()]);
    }
    if has_tag {
        return Err(Error::Refused { name: args.image.clone(), why: "tag can't be used with --all-tags/-a" });
    }
    let all = images::all(client).await?;
    let of_it =
        |tag: &&String| tag.rsplit_once(':').is_some_and(|(full, _)| full == args.image || name::familiar(full) == args.image);
    let mut tags: Vec<String> = all.iter().flat_map(|image| &image.tags).filter(of_it).cloned().collect();
    tags.sort();
    if tags.is_empty() {
        return Err(Error::Missing { what: "image", name: args.image.clone() });
    }
    Ok(tags)
}

async fn push_one(client: &mut Client, format: &Format, args: &Push, image: &str) -> Result<(), Error> {
    let credentials = auth::credentials(args.creds.creds.as_deref(), image)?;
    let sources = sources(client, args, image).await?;
    let request = PushImageRequest { image: image.to_owned(), credentials, sources };
    let mut events = client.images.push(request).await.map_err(error::daemon)?.into_inner();
    let mut said: HashMap<String, PushPhase> = HashMap::new();
    if !args.quiet {
        let repository = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(image, |(name, _)| name);
        pull::say(format, "", &format!("The push refers to repository [{}]", full(repository)))?;
    }
    while let Some(event) = events.message().await.map_err(error::daemon)? {
        match event.event {
            Some(Event::Layer(layer)) if !args.quiet && matches!(format, Format::Json) => {
                if let Some(status) = text(&layer) {
                    progress::object(&output::short(&layer.layer), &status, Some((layer.current, layer.total)))?;
                }
            }
            Some(Event::Layer(layer)) if !args.quiet => {
                if let Some(line) = line(&mut said, &layer) {
                    output::print(&line)?;
                }
            }
            Some(Event::Pushed(_)) if args.quiet => output::print(&format!("{}\n", pushed_name(image)))?,
            Some(Event::Pushed(pushed)) => {
                let tag = pushed_name(image).rsplit_once(':').map_or_else(|| "latest".to_owned(), |(_, tag)| tag.to_owned());
                if matches!(format, Format::Json) {
                    let aux = json!({"aux": {"Tag": tag, "Digest": pushed.digest, "Size": pushed.size}});
                    output::print(&format!("{aux}\n"))?;
                } else {
                    output::print(&format!("{tag}: digest: {} size: {}\n", pushed.digest, pushed.size))?;
                }
                if !pushed.note.is_empty() {
                    output::note(&format!("Note: {}", pushed.note));
                }
            }
            Some(Event::Layer(_)) | None => {}
        }
    }
    Ok(())
}

/// Credentials for where the image is from: what the other registry lacks is fetched there again.
async fn sources(client: &mut Client, args: &Push, image: &str) -> Result<BTreeMap<String, Credentials>, Error> {
    let mut found = BTreeMap::new();
    let request = InspectImageRequest { image: image.to_owned() };
    // An image that is not here is the push's to complain about.
    let Ok(details) = client.images.inspect(request).await else { return Ok(found) };
    let digests = details.into_inner().summary.map(|summary| summary.digests).unwrap_or_default();
    for digest in &digests {
        // Those that were given are for the registry of the push.
        let given = args.creds.creds.as_deref().filter(|_| name::registry(digest) == name::registry(image));
        if let Some(credentials) = auth::credentials(given, digest)? {
            found.insert(name::registry(digest).to_owned(), credentials);
        }
    }
    Ok(found)
}

/// The registry's full name for a repository.
fn full(repository: &str) -> String {
    match name::registry(repository) {
        "docker.io" if repository.contains('/') && !repository.starts_with("docker.io/") => format!("docker.io/{repository}"),
        "docker.io" if !repository.starts_with("docker.io/") => format!("docker.io/library/{repository}"),
        _ => repository.to_owned(),
    }
}

fn pushed_name(image: &str) -> String {
    let has_tag = image.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let (name, tag) = if has_tag { image.rsplit_once(':').unwrap_or((image, "latest")) } else { (image, "latest") };
    format!("{}:{tag}", full(name))
}

/// A line where the phase of a layer changes.
fn line(said: &mut HashMap<String, PushPhase>, layer: &PushProgress) -> Option<String> {
    let phase = layer.phase();
    if said.insert(layer.layer.clone(), phase) == Some(phase) {
        return None;
    }
    Some(format!("{}: {}\n", output::short(&layer.layer), text(layer)?))
}

fn text(layer: &PushProgress) -> Option<String> {
    Some(match layer.phase() {
        PushPhase::Unspecified => return None,
        PushPhase::Preparing => "Preparing".to_owned(),
        PushPhase::Pushing => "Pushing".to_owned(),
        PushPhase::Pushed => "Pushed".to_owned(),
        PushPhase::Exists => "Layer already exists".to_owned(),
        PushPhase::Mounted => format!("Mounted from {}", layer.from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_full() {
        assert_eq!(pushed_name("x"), "docker.io/library/x:latest");
        assert_eq!(pushed_name("me/x:1"), "docker.io/me/x:1");
        assert_eq!(pushed_name("localhost:5000/x"), "localhost:5000/x:latest");
    }

    #[test]
    fn a_line_per_phase() {
        let mut said = HashMap::new();
        let layer =
            |phase: PushPhase| PushProgress { layer: "sha256:0123456789abcdef".into(), phase: phase.into(), ..Default::default() };
        assert_eq!(line(&mut said, &layer(PushPhase::Pushing)).as_deref(), Some("0123456789ab: Pushing\n"));
        assert_eq!(line(&mut said, &layer(PushPhase::Pushing)), None);
        assert_eq!(line(&mut said, &layer(PushPhase::Exists)).as_deref(), Some("0123456789ab: Layer already exists\n"));
    }
}
