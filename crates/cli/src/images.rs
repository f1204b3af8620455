//! `creel images`, `creel rmi` and `creel load`.

use std::{path::PathBuf, pin::Pin};

use api::{creel::LoadImageRequest, runtime as cri};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::{mpsc, oneshot},
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    args::Format,
    client::Client,
    error::{self, Error, Exit},
    output, pull,
};

/// An image for programs.
#[derive(Serialize)]
struct Row<'i> {
    id: &'i str,
    names: &'i [String],
    digests: &'i [String],
    size: u64,
}

/// Lists images.
pub(crate) async fn list(client: &mut Client, format: Format, quiet: bool) -> Result<Exit, Error> {
    let answer = client.image.list_images(cri::ListImagesRequest { filter: None }).await.map_err(error::rpc("list images"))?;
    let images = answer.into_inner().images;
    if format == Format::Json {
        let rows = images.iter().map(|image| Row {
            id: &image.id,
            names: &image.repo_tags,
            digests: &image.repo_digests,
            size: image.size,
        });
        output::json(&rows.collect::<Vec<_>>())?;
    } else if quiet {
        output::print(&images.iter().map(|image| image.id.clone() + "\n").collect::<String>())?;
    } else {
        let rows: Vec<_> = images.iter().flat_map(rows).collect();
        output::print(&output::table(&["REPOSITORY", "TAG", "IMAGE ID", "SIZE"], &rows))?;
    }
    Ok(Exit(0))
}

/// One row per name; an image without a tag is shown by its digest's repository, or not by name at all.
fn rows(image: &cri::Image) -> Vec<Vec<String>> {
    let row = |repository: &str, tag: &str| {
        vec![repository.to_owned(), tag.to_owned(), output::short(&image.id), output::bytes(image.size)]
    };
    if image.repo_tags.is_empty() {
        let repository = image.repo_digests.first().and_then(|name| name.split_once('@')).map_or("<none>", |(name, _)| name);
        return vec![row(repository, "<none>")];
    }
    let split = |name: &String| name.rsplit_once(':').map_or_else(|| row(name, ""), |(repository, tag)| row(repository, tag));
    image.repo_tags.iter().map(split).collect()
}

/// Removes images. One that is not there is an error here, though not for CRI.
pub(crate) async fn remove(client: &mut Client, images: &[String]) -> Result<Exit, Error> {
    let mut failed = 0;
    for image in images {
        match remove_one(client, image).await {
            Ok(id) => output::print(&format!("{id}\n"))?,
            Err(error) => {
                output::note(&format!("creel: {}", error.chain()));
                failed = 1;
            }
        }
    }
    Ok(Exit(failed))
}

async fn remove_one(client: &mut Client, image: &str) -> Result<String, Error> {
    let id = pull::find(client, image).await?.ok_or_else(|| Error::Missing { what: "image", name: image.to_owned() })?;
    let spec = cri::ImageSpec { image: id.clone(), ..cri::ImageSpec::default() };
    client
        .image
        .remove_image(cri::RemoveImageRequest { image: Some(spec) })
        .await
        .map_err(error::rpc(format!("remove {image}")))?;
    Ok(id)
}

/// Bytes of an archive that are sent at once.
const PIECE: usize = 1 << 20;

/// Sends an archive and prints what was in it.
pub(crate) async fn load(client: &mut Client, input: Option<PathBuf>, quiet: bool) -> Result<Exit, Error> {
    let (name, archive): (String, Pin<Box<dyn AsyncRead + Send>>) = match input {
        None => ("standard input".into(), Box::pin(tokio::io::stdin())),
        Some(path) => {
            let name = path.display().to_string();
            let file = tokio::fs::File::open(path).await.map_err(error::io(format!("open {name}")))?;
            (name, Box::pin(file))
        }
    };
    let (pieces, stream) = mpsc::channel(2);
    let (broken, read_error) = oneshot::channel();
    tokio::spawn(async move {
        if let Err(e) = send(archive, pieces).await {
            broken.send(e).ok();
        }
    });
    let answer = client.creel.load_image(ReceiverStream::new(stream)).await;
    // An archive that could not be read to its end is that, whatever the daemon made of its beginning.
    if let Ok(source) = read_error.await {
        return Err(Error::Io { what: format!("read {name}"), source });
    }
    for image in answer.map_err(error::rpc("load"))?.into_inner().images {
        match quiet {
            true => output::print(&format!("{}\n", image.id))?,
            false => output::print(&format!("{}   {}\n", image.id, image.names.join(" ")))?,
        }
    }
    Ok(Exit(0))
}

/// Ends early, without an error, when nobody listens any more: the daemon's answer then says why.
async fn send(mut archive: Pin<Box<dyn AsyncRead + Send>>, pieces: mpsc::Sender<LoadImageRequest>) -> std::io::Result<()> {
    loop {
        let mut data = Vec::with_capacity(PIECE);
        let read = (&mut archive).take(PIECE as u64).read_to_end(&mut data).await?;
        if read == 0 || pieces.send(LoadImageRequest { data }).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_per_name() {
        let image = |tags: &[&str], digests: &[&str]| cri::Image {
            id: "sha256:0123456789abcdef".into(),
            repo_tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            repo_digests: digests.iter().map(|t| (*t).to_owned()).collect(),
            size: 1500,
            ..Default::default()
        };
        let shown = rows(&image(&["localhost:5000/a:1", "docker.io/library/b:latest"], &[]));
        assert_eq!(shown[0], ["localhost:5000/a", "1", "0123456789ab", "1.50kB"]);
        assert_eq!(shown[1][..2], ["docker.io/library/b", "latest"]);
        assert_eq!(rows(&image(&[], &["r/x@sha256:00"]))[0][..2], ["r/x", "<none>"]);
        assert_eq!(rows(&image(&[], &[]))[0][..2], ["<none>", "<none>"]);
    }

    #[tokio::test]
    async fn archives_go_in_pieces() {
        let (pieces, mut stream) = mpsc::channel(8);
        let archive = vec![7u8; PIECE * 2 + 5];
        send(Box::pin(std::io::Cursor::new(archive)), pieces).await.unwrap();
        let mut sizes = Vec::new();
        while let Some(piece) = stream.recv().await {
            sizes.push(piece.data.len());
        }
        assert_eq!(sizes, [PIECE, PIECE, 5]);
    }
}
