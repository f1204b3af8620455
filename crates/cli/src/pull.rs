//! `creel pull`, and the pull before a run.

use api::{
    creel::{PullImageRequest, pull_image_event::Event},
    runtime as cri,
};

use crate::{
    args::{Creds, Pull},
    auth,
    client::Client,
    error::{self, Error, Exit},
    output,
    progress::Progress,
};

/// Pulls and prints the id.
pub(crate) async fn pull(client: &mut Client, args: &Pull) -> Result<Exit, Error> {
    let id = get(client, &args.image, &args.creds, args.quiet).await?;
    output::print(&format!("{id}\n"))?;
    Ok(Exit(0))
}

/// Pulls an image, shows how far it is and returns its id.
pub(crate) async fn get(client: &mut Client, image: &str, creds: &Creds, quiet: bool) -> Result<String, Error> {
    let credentials = auth::credentials(creds.creds.as_deref(), image)?;
    let request = PullImageRequest { image: image.to_owned(), credentials };
    let failed = || error::rpc("pull");
    let mut events = client.creel.pull_image(request).await.map_err(failed())?.into_inner();
    let mut progress = Progress::new(quiet);
    let mut id = None;
    while let Some(event) = events.message().await.map_err(failed())? {
        match event.event {
            Some(Event::Layer(layer)) => progress.update(&layer),
            Some(Event::ImageId(image_id)) => id = Some(image_id),
            None => {}
        }
    }
    id.ok_or_else(|| Error::Refused { name: image.to_owned(), why: "the daemon ended the pull without an image" })
}

/// The image's id, if it is there.
pub(crate) async fn find(client: &mut Client, image: &str) -> Result<Option<String>, Error> {
    let spec = cri::ImageSpec { image: image.to_owned(), ..cri::ImageSpec::default() };
    let request = cri::ImageStatusRequest { image: Some(spec), verbose: false };
    let answer = client.image.image_status(request).await.map_err(error::rpc(format!("look for image {image}")))?;
    Ok(answer.into_inner().image.map(|image| image.id))
}
