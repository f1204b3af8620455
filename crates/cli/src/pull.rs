//! `creel pull`, and the pull before a run.

use api::creel::{ImageTagsRequest, InspectImageRequest, PullImageRequest, pull_image_event::Event};

use crate::{
    args::{Creds, Pull},
    auth,
    client::Client,
    error::{Error, Exit},
    format::Format,
    name, output,
    progress::{self, Progress},
};

/// Pulls a name, or all tags of a repository, and says it as docker does.
pub(crate) async fn pull(client: &mut Client, format: &Format, args: &Pull) -> Result<Exit, Error> {
    if !args.all_tags {
        if !name::has_tag(&args.image) && !args.image.contains('@') && !args.quiet {
            say(format, "", "Using default tag: latest")?;
        }
        one(client, format, &args.image, args).await?;
        return Ok(Exit(0));
    }
    if name::has_tag(&args.image) || args.image.contains('@') {
        return Err(Error::Refused { name: args.image.clone(), why: "tag can't be used with --all-tags/-a" });
    }
    let credentials = auth::credentials(args.creds.creds.as_deref(), &args.image)?;
    let request = ImageTagsRequest { repository: args.image.clone(), credentials };
    let found = client.images.tags(request).await.map_err(|status| refused(&args.image, &status))?.into_inner();
    for tag in &found.tags {
        one(client, format, &format!("{}:{tag}", found.name), args).await?;
    }
    Ok(Exit(0))
}

/// Pulls one image; ends with its full name.
async fn one(client: &mut Client, format: &Format, image: &str, args: &Pull) -> Result<(), Error> {
    let full = name::full(image);
    let (repository, at) = name::split(&full);
    let before = digest_here(client, &full).await;
    if !args.quiet {
        let path = repository.split_once('/').map_or(repository, |(_, path)| path);
        let what = if at.starts_with('@') { &full } else { at.trim_start_matches(':') };
        say(format, what, &format!("Pulling from {path}"))?;
    }
    let wanted = Wanted { image, creds: &args.creds, platform: args.platform.as_deref().unwrap_or_default() };
    let (_, digest) = fetch(client, &wanted, Progress::of_pull(args.quiet, format)).await?;
    if !args.quiet {
        let shown = format!("{}{at}", name::familiar(repository));
        let same = !digest.is_empty() && before.as_ref() == Some(&digest);
        let status = if same { "Image is up to date for" } else { "Downloaded newer image for" };
        say(format, "", &format!("Digest: {digest}"))?;
        say(format, "", &format!("Status: {status} {shown}"))?;
    }
    if matches!(format, Format::Json) && !args.quiet { Ok(()) } else { output::print(&format!("{full}\n")) }
}

/// A line, as text or as an object.
pub(crate) fn say(format: &Format, id: &str, status: &str) -> Result<(), Error> {
    match format {
        Format::Json => progress::object(id, status, None),
        _ if id.is_empty() => output::print(&format!("{status}\n")),
        _ => output::print(&format!("{id}: {status}\n")),
    }
}

/// What a name here stands for at its registry, if it is known.
async fn digest_here(client: &mut Client, full: &str) -> Option<String> {
    let request = InspectImageRequest { image: full.to_owned() };
    let summary = client.images.inspect(request).await.ok()?.into_inner().summary?;
    let (repository, _) = name::split(full);
    summary.digests.iter().find_map(|known| Some(known.strip_prefix(repository)?.strip_prefix('@')?.to_owned()))
}

/// Which image, from whom, for which machine.
struct Wanted<'w> {
    image: &'w str,
    creds: &'w Creds,
    platform: &'w str,
}

/// Pulls an image, shows how far it is and returns its id.
pub(crate) async fn get(client: &mut Client, (image, platform): (&str, &str), creds: &Creds, quiet: bool) -> Result<String, Error> {
    let wanted = Wanted { image, creds, platform };
    fetch(client, &wanted, Progress::new(quiet)).await.map(|(id, _)| id)
}

/// The image's id, and what its name stands for at the registry.
async fn fetch(client: &mut Client, wanted: &Wanted<'_>, mut progress: Progress) -> Result<(String, String), Error> {
    let Wanted { image, creds, platform } = *wanted;
    let credentials = auth::credentials(creds.creds.as_deref(), image)?;
    let request = PullImageRequest { image: image.to_owned(), credentials, platform: platform.to_owned() };
    let failed = |status: tonic::Status| refused(image, &status);
    let mut events = client.creel.pull_image(request).await.map_err(failed)?.into_inner();
    let (mut id, mut digest) = (None, String::new());
    while let Some(event) = events.message().await.map_err(failed)? {
        match event.event {
            Some(Event::Layer(layer)) => progress.update(&layer),
            Some(Event::Digest(found)) => digest = found,
            Some(Event::ImageId(image_id)) => id = Some(image_id),
            None => {}
        }
    }
    let id = id.ok_or_else(|| Error::Refused { name: image.to_owned(), why: "the daemon ended the pull without an image" })?;
    Ok((id, digest))
}

/// Why a pull failed, in docker's words before our own.
fn refused(image: &str, status: &tonic::Status) -> Error {
    let message = status.message();
    let full = name::full(image);
    let (repository, at) = name::split(&full);
    let shown = name::familiar(repository);
    let words = if message.contains("is not available for platform") {
        let platform = message.split("is not available for platform ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("");
        format!("no matching manifest for {platform} in the manifest list entries: ")
    } else if message.contains("MANIFEST_UNKNOWN") {
        format!("manifest for {shown}{at} not found: manifest unknown: ")
    } else if matches!(status.code(), tonic::Code::NotFound | tonic::Code::PermissionDenied | tonic::Code::Unauthenticated) {
        format!("pull access denied for {shown}, repository does not exist or may require 'docker login': ")
    } else {
        String::new()
    };
    Error::Daemon(format!("{words}{message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_begin_with_docker_s_words() {
        let said = |code, message: &str| refused("x:1", &tonic::Status::new(code, message)).chain();
        let begins = "Error response from daemon: ";
        assert_eq!(
            said(tonic::Code::NotFound, "status 404: MANIFEST_UNKNOWN: z"),
            format!("{begins}manifest for x:1 not found: manifest unknown: status 404: MANIFEST_UNKNOWN: z")
        );
        let denied = said(tonic::Code::PermissionDenied, "no");
        assert!(
            denied.contains("pull access denied for x, repository does not exist or may require 'docker login': no"),
            "{denied}"
        );
        let platform = said(tonic::Code::NotFound, "image x is not available for platform linux/xyz, only for linux/amd64");
        assert!(platform.contains("no matching manifest for linux/xyz in the manifest list entries"), "{platform}");
        assert_eq!(said(tonic::Code::Internal, "disk"), format!("{begins}disk"));
    }
}
